//! Numbers the slots of a table in their order, so that a route's slot fits into 16 bits.

use crate::names::{Slot, Transport};

/// Marks a slot that no route leaves by.
const ABSENT: u16 = u16::MAX;

/// The kinds of slots; slots of one kind differ by number only.
const KINDS: [fn(u16) -> Slot; 3] = [
    Slot::Dialling,
    |number| Slot::Accepting(Transport::Udp, number),
    |number| Slot::Accepting(Transport::Tcp, number),
];

/// The slots of a table, and the position of each among them.
pub(super) struct SlotIndex {
    /// All slots, sorted.
    pub(super) slots: Vec<Slot>,
    /// The position of each slot in `slots`, by kind, then by number.
    positions: [Vec<u16>; 3],
}

impl SlotIndex {
    pub(super) fn new(slots: impl Iterator<Item = Slot>) -> Self {
        let mut positions: [Vec<u16>; 3] = Default::default();
        for (kind, number) in slots.map(kind_and_number) {
            let Some(positions) = positions.get_mut(kind) else {
                continue;
            };
            if positions.len() <= number {
                positions.resize(number + 1, ABSENT);
            }
            if let Some(position) = positions.get_mut(number) {
                *position = 0;
            }
        }
        let mut sorted = Vec::new();
        for (slot_of, positions) in KINDS.iter().zip(&mut positions) {
            let numbered = (0..).zip(positions);
            for (number, position) in numbered.filter(|(_, position)| **position != ABSENT) {
                *position = u16::try_from(sorted.len()).unwrap_or(ABSENT);
                sorted.push(slot_of(number));
            }
        }
        Self {
            slots: sorted,
            positions,
        }
    }

    /// The position of a slot of the table.
    pub(super) fn position(&self, slot: Slot) -> u16 {
        let (kind, number) = kind_and_number(slot);
        let positions = self.positions.get(kind);
        let position = positions.and_then(|positions| positions.get(number));
        position.copied().unwrap_or_default()
    }
}

/// Kind and number of a slot; such pairs sort in the order of slots.
fn kind_and_number(slot: Slot) -> (usize, usize) {
    match slot {
        Slot::Dialling(number) => (0, number.into()),
        Slot::Accepting(Transport::Udp, number) => (1, number.into()),
        Slot::Accepting(Transport::Tcp, number) => (2, number.into()),
    }
}
