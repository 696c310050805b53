//! Child processes: spawning with rights dropped, watching, ending. The one place that spawns.
//!
//! All children are spawned from the main thread, since the parent death signal is per thread
//! (PR_SET_PDEATHSIG(2const)): a child spawned elsewhere dies with that thread.

mod child;
mod events;
mod log;
mod rights;
mod supervised;

pub use child::{Child, ChildEvent, Happened, Program, SpawnError, kill_leftover};
pub use events::{ChildEvents, EventListener};
pub use rights::Rights;
pub use supervised::{ProcessReading, Supervised};
