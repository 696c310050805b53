//! Child processes: starts them with dropped rights, reads their output, and stops them. No other module starts processes.
//!
//! All children are started from the main thread. Their parent death signal refers to the thread that started them
//! (PR_SET_PDEATHSIG(2const)), so a child of another thread would be killed when that thread exits.

mod child;
mod events;
mod handed;
mod kind;
mod landlock;
mod leftover;
mod log;
pub mod reexec;
mod rights;
mod start_step;
mod supervised;
mod watcher;

pub use child::{Child, ChildEvent, Happened, Program, SpawnError};
pub use events::{ChildEvents, EventListener};
pub use handed::{AdoptError, HandedChild};
pub use kind::ProcessKind;
pub use leftover::kill_leftover;
pub use rights::{Capabilities, Rights};
pub use supervised::{Exits, ProcessReading, Supervised};
pub use watcher::{ChildInput, ReleasedInput, WRITE_TIMEOUT};
