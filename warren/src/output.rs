//! Prints: answers on standard output, complaints on standard error, one line each. Reads short files.

use std::{
    error::Error,
    fmt,
    fs::File,
    io::{self, Read, Write},
    path::Path,
    process::ExitCode,
};

/// One line on standard output. A reader who has gone away is no failure of ours.
pub fn print_line(line: impl fmt::Display) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// `warren: WHAT: WHY: WHY` on standard error, and the exit code. An error that says several things has
/// a line for each.
pub fn fail(error: &dyn Error, code: u8) -> ExitCode {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text.replace('\n', " "));
        }
        source = cause.source();
    }
    let mut err = io::stderr().lock();
    for line in text.lines() {
        let _ = writeln!(err, "warren: {line}");
    }
    ExitCode::from(code)
}

/// At most 256 KiB of text from a file, or from the standard input where it is called `-`.
///
/// # Errors
/// It cannot be read, or is no UTF-8.
pub fn read_text(file: &Path) -> io::Result<String> {
    const MOST: u64 = 256 * 1024;
    let mut text = String::new();
    if file == Path::new("-") {
        io::stdin().take(MOST).read_to_string(&mut text)?;
    } else {
        File::open(file)?.take(MOST).read_to_string(&mut text)?;
    }
    Ok(text)
}
