//! Allocates prefixes so that no two overlap; knows nothing of their owners and lifetimes.
//!
//! This is a buddy allocator over the network's range: the lowest free block comes first, blocks are split on
//! allocation and merged on release. The first prefix (number 0) is never allocated, since its first address is the
//! subnet-router anycast address of the whole network (RFC 4291, section 2.6.1).

use policies::names::Prefix;
use std::collections::BTreeSet;

/// A block of the binary tree. Its length is 0 to 32 bits, 0 being the whole network, and `number < 2^length`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Block {
    length: u8,
    number: u64,
}

impl Block {
    fn halves(self) -> [Self; 2] {
        let (length, number) = (self.length + 1, self.number << 1);
        [
            Self { length, number },
            Self {
                length,
                number: number | 1,
            },
        ]
    }

    fn buddy(self) -> Self {
        Self {
            number: self.number ^ 1,
            ..self
        }
    }

    fn parent(self) -> Option<Self> {
        Some(Self {
            length: self.length.checked_sub(1)?,
            number: self.number >> 1,
        })
    }

    fn contains(self, other: Self) -> bool {
        other.length >= self.length && other.number >> (other.length - self.length) == self.number
    }
}

impl From<Prefix> for Block {
    fn from(prefix: Prefix) -> Self {
        Self {
            length: prefix.length(),
            number: prefix.number().into(),
        }
    }
}

/// The free prefixes, as the largest free blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocator {
    free: BTreeSet<Block>,
}

impl Allocator {
    /// Creates an allocator in which everything is free but prefix number 0 of `length` bits, 1 to 32.
    pub fn new(length: u8) -> Self {
        let mut allocator = Self {
            free: BTreeSet::from([Block {
                length: 0,
                number: 0,
            }]),
        };
        let reserved = Block {
            length: length.clamp(1, 32),
            number: 0,
        };
        allocator.take_block(reserved);
        allocator
    }

    /// Allocates the lowest prefix of this length in the smallest free block that is large enough; `None` if there is
    /// no such block.
    pub fn allocate(&mut self, length: u8) -> Option<Prefix> {
        let fits = (0..=length).rev().find_map(|length| {
            self.free
                .range(
                    Block { length, number: 0 }..=Block {
                        length,
                        number: u64::MAX,
                    },
                )
                .next()
        });
        let mut number = fits?.number;
        let shift = length - fits?.length;
        number <<= shift;
        let prefix = Prefix::new(u32::try_from(number).ok()?, length)?;
        self.take_block(prefix.into()).then_some(prefix)
    }

    /// Allocates exactly this prefix; returns false if it, or a part of it, is not free.
    pub fn take(&mut self, prefix: Prefix) -> bool {
        self.take_block(prefix.into())
    }

    /// Returns whether a prefix is free with all its parts.
    pub fn is_free(&self, prefix: Prefix) -> bool {
        self.containing_block(prefix.into()).is_some()
    }

    /// Returns the free block that contains all of `wanted`.
    fn containing_block(&self, wanted: Block) -> Option<Block> {
        let above = |length: u8| Block {
            length,
            number: wanted.number >> (wanted.length - length),
        };
        (0..=wanted.length)
            .map(above)
            .find(|block| self.free.contains(block))
    }

    /// Returns whether a smaller part of `wanted` is free.
    fn has_free_part(&self, wanted: Block) -> bool {
        (wanted.length + 1..=32).any(|length| {
            let shift = length - wanted.length;
            let first = Block {
                length,
                number: wanted.number << shift,
            };
            let end = Block {
                length,
                number: (wanted.number + 1) << shift,
            };
            self.free.range(first..end).next().is_some()
        })
    }

    fn take_block(&mut self, wanted: Block) -> bool {
        let Some(mut block) = self.containing_block(wanted) else {
            return false;
        };
        self.free.remove(&block);
        while block.length < wanted.length {
            let [low, high] = block.halves();
            let (keep, free) = if low.contains(wanted) {
                (low, high)
            } else {
                (high, low)
            };
            self.free.insert(free);
            block = keep;
        }
        true
    }

    /// Releases a prefix; returns false and changes nothing if a part of it is free already.
    pub fn release(&mut self, prefix: Prefix) -> bool {
        let mut block = Block::from(prefix);
        if self.containing_block(block).is_some() || self.has_free_part(block) {
            return false;
        }
        while self.free.remove(&block.buddy()) {
            match block.parent() {
                Some(parent) => block = parent,
                None => break,
            }
        }
        self.free.insert(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(number: u32, length: u8) -> Prefix {
        Prefix::new(number, length).unwrap()
    }

    /// Length of the smallest prefixes in the model, in bits.
    const LEAF: u8 = 10;

    /// Returns the indices of the smallest prefixes within a prefix.
    fn leaves(prefix: Prefix) -> std::ops::Range<usize> {
        let shift = LEAF - prefix.length();
        let first = usize::try_from(prefix.number() << shift).unwrap();
        first..first + (1 << shift)
    }

    /// Performs random operations on the allocator and on a model, which marks each of the smallest prefixes as
    /// allocated or free, and compares both.
    #[track_caller]
    fn check(seed: u64, operations: u32) {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut allocator, mut owned) = (Allocator::new(8), Vec::new());
        let fresh = allocator.clone();
        let mut taken = [false; 1 << LEAF];
        taken[leaves(prefix(0, 8))].fill(true);
        for _ in 0..operations {
            let length = random.u8(4..=LEAF);
            match random.u8(..) {
                0..120 => match allocator.allocate(length) {
                    Some(new) => {
                        assert_eq!(new.length(), length);
                        assert!(
                            taken[leaves(new)].iter().all(|taken| !taken),
                            "{new} has two owners"
                        );
                        taken[leaves(new)].fill(true);
                        owned.push(new);
                    }
                    None => {
                        let mut all = (0..1u32 << length).map(|number| prefix(number, length));
                        let free = |p: Prefix| taken[leaves(p)].iter().all(|taken| !taken);
                        assert!(
                            !all.any(free),
                            "no prefix was allocated although one is free"
                        );
                    }
                },
                120..140 => {
                    let wanted = prefix(random.u32(..1 << length), length);
                    let free = taken[leaves(wanted)].iter().all(|taken| !taken);
                    assert_eq!(allocator.is_free(wanted), free);
                    assert_eq!(allocator.take(wanted), free, "{wanted}");
                    if free {
                        taken[leaves(wanted)].fill(true);
                        owned.push(wanted);
                    }
                }
                _ if owned.is_empty() => {}
                _ => {
                    let released = owned.swap_remove(random.usize(..owned.len()));
                    taken[leaves(released)].fill(false);
                    assert!(allocator.release(released));
                    assert!(!allocator.release(released), "a prefix was released twice");
                }
            }
        }
        for prefix in owned {
            assert!(allocator.release(prefix));
        }
        assert_eq!(allocator, fresh, "some block is lost");
    }

    #[test]
    fn in_a_million_operations_no_prefix_is_allocated_twice_and_none_is_lost() {
        for seed in 0..20 {
            check(seed, 50_000);
        }
    }

    #[test]
    fn all_numbers_but_zero_are_allocated_in_order() {
        let mut allocator = Allocator::new(4);
        for number in 1..16 {
            assert_eq!(allocator.allocate(4), Some(prefix(number, 4)));
        }
        assert_eq!(allocator.allocate(4), None);
        assert!(allocator.release(prefix(7, 4)));
        assert_eq!(allocator.allocate(4), Some(prefix(7, 4)));
    }

    #[test]
    fn a_chosen_prefix_is_allocated_once_and_together_with_all_its_parts() {
        let mut allocator = Allocator::new(16);
        assert!(allocator.take(prefix(2, 8)));
        assert!(!allocator.take(prefix(2, 8)));
        assert!(!allocator.take(prefix(2 << 8, 16)));
        assert!(!allocator.take(prefix(0, 16)));
        assert!(allocator.take(prefix(u32::MAX, 32)));
        assert!(!allocator.take(prefix(1, 1)));
    }
}
