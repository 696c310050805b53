//! Finds the values in a line of babeld's dump by their names.

/// `NAME VALUE NAME VALUE …`
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(pub(super) &'a [&'a str]);

impl<'a> Fields<'a> {
    pub(super) fn get(self, name: &str) -> Option<&'a str> {
        self.0.chunks_exact(2).find_map(|pair| match pair {
            [key, value] if *key == name => Some(*value),
            _ => None,
        })
    }

    pub(super) fn number(self, name: &str) -> Option<u16> {
        self.get(name)?.parse().ok()
    }
}
