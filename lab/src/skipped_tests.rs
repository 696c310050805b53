//! Says plainly which tests were left out for want of root.

use std::{env, fs::OpenOptions, io::Write};

/// Whether a test that needs root must be left out; it has said so then. Without root a test fails, unless
/// `WARREN_WITHOUT_ROOT=1` says that this is known.
pub fn is_left_out(test: &str) -> bool {
    let known = env::var_os("WARREN_WITHOUT_ROOT").is_some_and(|value| value == "1");
    let left_out = known && !nix::unistd::geteuid().is_root();
    if left_out {
        // What a good test prints is not shown, so it is also written where `./test` looks.
        let file =
            env::var_os("WARREN_LEFT_OUT").map(|path| OpenOptions::new().append(true).open(path));
        if let Some(Ok(mut file)) = file {
            writeln!(file, "{test}").ok();
        }
        writeln!(std::io::stderr(), "LEFT OUT, needs root: {test}").ok();
    }
    left_out
}
