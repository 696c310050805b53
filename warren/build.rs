//! Passes the commit of the source to the compiler as `WARREN_REVISION`, for `warren --version` and `warren_build_info`.
//!
//! The environment variable of that name takes precedence, for builds from a source package. Without it and without git
//! the revision is "unknown".

#![expect(
    clippy::disallowed_methods,
    reason = "cargo reads the output of a build script, and git knows the commit"
)]

use std::{env, path::Path, process::Command};

/// Number of hexadecimal digits of the commit.
const DIGITS: &str = "--short=12";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=WARREN_REVISION");
    let given = env::var("WARREN_REVISION").ok();
    let revision = given.filter(|given| !given.is_empty()).or_else(commit);
    let revision = revision.unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env=WARREN_REVISION={revision}");
}

/// Returns the checked-out commit; `None` if this is not a clone of warren's repository.
fn commit() -> Option<String> {
    // Git appends to this file with each commit and checkout.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    if Path::new(&log).exists() {
        println!("cargo:rerun-if-changed={log}");
    }
    // A source package may lie in the repository of another project, which does not know this file.
    git(&["ls-files", "--error-unmatch", "build.rs"])?;
    git(&["rev-parse", DIGITS, "HEAD"])
}

/// Returns the first line that git prints; `None` if git fails or is not installed.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.lines().next().filter(|_| output.status.success())?;
    Some(line.to_owned())
}
