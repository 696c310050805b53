//! Takes all runs down when SIGINT, SIGTERM or SIGHUP ends the process.

use crate::lab_run::Run;
use std::{
    sync::{
        Arc, Mutex, Once, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// Runs to take down when a signal ends us.
static ALIVE: Mutex<Vec<(Weak<Run>, bool)>> = Mutex::new(Vec::new());

/// A signal is taking all runs down, and then the process.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Waits for the end of the process where a signal is about to end it; else returns at once.
pub fn end_if_interrupted() {
    while INTERRUPTED.load(Ordering::Relaxed) {
        thread::park();
    }
}

/// From now on a signal takes this run down before it ends the process.
pub(crate) fn take_down_on_signals(run: &Arc<Run>, keep_files: bool) {
    static ONCE: Once = Once::new();
    ALIVE
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push((Arc::downgrade(run), keep_files));
    ONCE.call_once(|| {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        let Ok(mut signals) = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP]) else {
            return;
        };
        thread::spawn(move || {
            for signal in signals.forever() {
                INTERRUPTED.store(true, Ordering::Relaxed);
                for (run, keep) in ALIVE
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .drain(..)
                {
                    if let Some(run) = run.upgrade() {
                        run.remove(keep);
                    }
                }
                drop(signal_hook::low_level::emulate_default_handler(signal));
            }
        });
    });
}
