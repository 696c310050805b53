//! Finds the line of a key in a YAML text that was parsed without an error.

use saphyr::{LoadableYamlNode, MarkedYaml, YamlData};

/// One step from a node to a child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The value of that key.
    Key(String),
    /// The item with that number, from 0.
    Item(usize),
}

/// Returns the line, from 1, on which the node at `path` begins; `None` if it is unknown.
pub(crate) fn line_of(text: &str, path: &[Step]) -> Option<usize> {
    // An alias is copied where it is used, and copies of copies could grow without bound.
    if text.contains('*') && text.contains('&') {
        return None;
    }
    let documents = MarkedYaml::load_from_str(text).ok()?;
    let mut node = documents.first()?;
    let mut line = node.span.start.line();
    for step in path {
        let (at, child) = child(node, step)?;
        (line, node) = (at, child);
    }
    Some(line)
}

/// The child and the line of its key, or of itself in a list.
fn child<'a, 'i>(node: &'a MarkedYaml<'i>, step: &Step) -> Option<(usize, &'a MarkedYaml<'i>)> {
    match (&node.data, step) {
        (YamlData::Mapping(map), Step::Key(name)) => map
            .iter()
            .find(|(key, _)| matches!(key.data.as_str(), Some(key) if key == name))
            .map(|(key, value)| (key.span.start.line(), value)),
        (YamlData::Sequence(list), Step::Item(index)) => {
            list.get(*index).map(|item| (item.span.start.line(), item))
        }
        (_, Step::Key(_) | Step::Item(_)) => None,
    }
}

/// The last line on which `key` opens a value: of two equal keys the second.
pub(crate) fn last_line_of_key(text: &str, key: &str) -> Option<usize> {
    let opens = |line: &str| {
        let line = line.trim_start_matches([' ', '{', ',']);
        line.strip_prefix(key)
            .is_some_and(|rest| rest.trim_start().starts_with(':'))
    };
    text.lines()
        .enumerate()
        .filter(|(_, line)| opens(line))
        .map(|(index, _)| index + 1)
        .last()
}
