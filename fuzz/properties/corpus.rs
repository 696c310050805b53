//! Runs the property of a fuzz target as an ordinary test: on each file of its corpus, and on variations of the files.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

/// Number of variations of each file.
const VARIATIONS: usize = 300;
/// Bytes that parsers treat in a special way, or that are the ends of a range.
const SPECIAL: &[u8] = b"\0\x01\x7f\x80\xff\n\r\"\\,:/<>[]{}0-9 ";

/// Requires that the property holds for the corpus of this target.
pub fn hold(target: &str, property: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target);
    let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    for file in files {
        let content = fs::read(&file).unwrap_or_default();
        let mut random = Random(0x9e37_79b9);
        for number in 0..=VARIATIONS {
            let mut input = content.clone();
            if number > 0 {
                vary(&mut input, &mut random);
            }
            let outcome = catch_unwind(AssertUnwindSafe(|| property(&input)));
            assert!(
                outcome.is_ok(),
                "{} with variation {number} breaks the property: {}",
                file.display(),
                input.escape_ascii()
            );
        }
    }
}

/// Changes up to four bytes, and in some variations leaves out or repeats a part.
fn vary(input: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(3) {
        let (at, byte) = (random.below(input.len()), random.below(256));
        let special = SPECIAL.get(random.below(SPECIAL.len())).copied();
        let random_byte = u8::try_from(byte).ok();
        let new = if random.below(2) == 0 {
            special
        } else {
            random_byte
        };
        if let (Some(place), Some(new)) = (input.get_mut(at), new) {
            *place = new;
        }
    }
    let (from, to) = (random.below(input.len()), random.below(input.len()));
    let part = from.min(to)..from.max(to);
    match random.below(4) {
        0 => drop(input.drain(part)),
        1 => input.truncate(part.end),
        2 => input.extend_from_within(part),
        _ => {}
    }
}

/// A linear congruential generator, so that each run tries the same variations.
struct Random(u32);

impl Random {
    /// Returns a number below the limit, and 0 if the limit is 0.
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        usize::try_from(self.0 >> 8).unwrap_or_default() % limit.max(1)
    }
}
