//! The state that a daemon hands to the next program: whatever is in the memfd, no descriptor, process or slot is used twice.

use std::collections::BTreeSet;
use wire::handed_state::HandedState;

/// The input is the content of the memfd.
pub fn check(input: &[u8]) {
    let Ok(state) = HandedState::read(input) else {
        return;
    };
    let descriptors = state.descriptors();
    let distinct: BTreeSet<i32> = descriptors.iter().copied().collect();
    assert_eq!(distinct.len(), descriptors.len());
    assert!(distinct.iter().all(|descriptor| *descriptor > 2));
    let slots: BTreeSet<_> = state.tunnels().map(|tunnel| tunnel.slot).collect();
    assert_eq!(slots.len(), state.tunnels().count());
    let pids: BTreeSet<u32> = state.processes().map(|process| process.pid).collect();
    assert_eq!(pids.len(), state.processes().count());
    let text = serde_json::to_vec(&state).unwrap_or_default();
    assert_eq!(HandedState::read(&text).ok(), Some(state));
}
