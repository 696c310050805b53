//! Removes all runs of this process when SIGINT, SIGTERM or SIGHUP ends it.

use crate::lab_run::LabRun;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
    low_level::emulate_default_handler,
};
use std::{
    sync::{
        Arc, Mutex, Once, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// The runs that a signal removes, each with whether its files are kept.
static RUNS: Mutex<Vec<(Weak<LabRun>, bool)>> = Mutex::new(Vec::new());

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

/// Makes the signals remove this run, too, before they end the process.
pub(crate) fn remove_on_signal(run: &Arc<LabRun>, keep_files: bool) {
    static HANDLER: Once = Once::new();
    RUNS.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push((Arc::downgrade(run), keep_files));
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
    let mut runs = RUNS.lock().unwrap_or_else(PoisonError::into_inner);
    for (run, keep_files) in runs.drain(..) {
        if let Some(run) = run.upgrade() {
            run.remove(keep_files);
        }
    }
}
