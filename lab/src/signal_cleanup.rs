//! Removes all runs of this process when SIGINT, SIGTERM or SIGHUP ends it.

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
    low_level::emulate_default_handler,
};
use std::{
    sync::{
        Mutex, Once, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// The removals of all runs, which a signal starts.
static REMOVALS: Mutex<Vec<Box<dyn Fn() + Send>>> = Mutex::new(Vec::new());

/// Whether a signal is removing all runs and is about to end the process.
static IS_INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Blocks for ever if a signal is about to end the process; returns at once otherwise.
///
/// A caller that has failed calls this first: if the run was removed under its feet, the failure is not its own.
pub fn block_if_interrupted() {
    while IS_INTERRUPTED.load(Ordering::Relaxed) {
        thread::park();
    }
}

/// Makes the signals call `remove` before they end the process.
pub(crate) fn on_signal(remove: impl Fn() + Send + 'static) {
    static HANDLER: Once = Once::new();
    REMOVALS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(Box::new(remove));
    HANDLER.call_once(|| {
        let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGHUP]) else {
            return;
        };
        thread::spawn(move || {
            for signal in signals.forever() {
                IS_INTERRUPTED.store(true, Ordering::Relaxed);
                remove_all_runs();
                drop(emulate_default_handler(signal));
            }
        });
    });
}

fn remove_all_runs() {
    let mut removals = REMOVALS.lock().unwrap_or_else(PoisonError::into_inner);
    for remove in removals.drain(..) {
        remove();
    }
}
