//! Lets tests that need root be skipped, but never silently.

use std::{env, fs::OpenOptions, io::Write};

/// Whether a test that needs root must be skipped; if so, the test's name is reported.
///
/// A test is skipped only without root and with `WARREN_WITHOUT_ROOT=1`, by which the caller accepts this. With
/// neither, the test runs and fails.
pub fn is_skipped_without_root(test: &str) -> bool {
    let is_accepted = env::var_os("WARREN_WITHOUT_ROOT").is_some_and(|value| value == "1");
    let is_skipped = is_accepted && !nix::unistd::geteuid().is_root();
    if is_skipped {
        // Cargo hides what a successful test prints, so the name also goes to the file that `./test` reads.
        let report = env::var_os("WARREN_SKIPPED_TESTS")
            .map(|path| OpenOptions::new().append(true).open(path));
        if let Some(Ok(mut file)) = report {
            writeln!(file, "{test}").ok();
        }
        writeln!(std::io::stderr(), "SKIPPED, needs root: {test}").ok();
    }
    is_skipped
}
