//! Prints results to the standard output and errors to the standard error, and reads short text files.

use std::{
    error::Error,
    fmt,
    fs::File,
    io::{self, Read, Write},
    path::Path,
    process::ExitCode,
    thread,
    time::Duration,
};

/// Largest text that [`read_text`] returns; the rest of a longer input is ignored.
const MAX_TEXT_BYTES: u64 = 256 * 1024;

/// Prints one line to the standard output. A reader that has closed the pipe is not an error.
pub fn print_line(line: impl fmt::Display) {
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// Prints `warren: LINE` to the standard error. If that leads to systemd's journal, the line gets the priority of an error
/// (sd-daemon(3)).
pub fn print_error_line(line: impl fmt::Display) {
    let priority = match supervisor::logging::is_stderr_the_journal() {
        true => "<3>",
        false => "",
    };
    let _ = writeln!(io::stderr().lock(), "{priority}warren: {line}");
}

/// Prints `warren: ERROR: CAUSE: CAUSE` to the standard error and returns the exit code.
///
/// An error whose own text has several lines gets the prefix on each of them.
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
    text.lines().for_each(print_error_line);
    ExitCode::from(code)
}

/// Waits for this time.
#[expect(
    clippy::disallowed_methods,
    reason = "the command has one thread and no actors"
)]
pub fn pause(time: Duration) {
    thread::sleep(time);
}

/// Reads at most 256 KiB of text from a file, or from the standard input if its name is `-`.
///
/// # Errors
/// The file cannot be read, or is not UTF-8.
pub fn read_text(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    if file == Path::new("-") {
        io::stdin().take(MAX_TEXT_BYTES).read_to_string(&mut text)?;
    } else {
        File::open(file)?
            .take(MAX_TEXT_BYTES)
            .read_to_string(&mut text)?;
    }
    Ok(text)
}
