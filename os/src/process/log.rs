//! Reads the log of a child: bounds the length of its lines and their number per second.

use crate::clock::runtime_now;
use std::{io, os::fd::OwnedFd, time::Duration};
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe,
    time::{Instant, sleep_until},
};

const SECOND: Duration = Duration::from_secs(1);

/// Maximum number of bytes that are read at once.
pub(super) const CHUNK_BYTES: usize = 4096;

/// Maximum length of a log line in bytes; a longer one is truncated.
const MAX_LINE_BYTES: usize = 1024;

/// Maximum number of log lines that are passed on in a second. The number of dropped lines is reported with the
/// next line.
const MAX_LINES_PER_SECOND: u32 = 200;

/// Maximum number of log lines that are read in a second. Peers can make babeld and OpenVPN write any number of lines. What exceeds this stays in the
/// pipe, and then the child drops lines itself, since its end of the pipe does not block.
const MAX_READ_LINES_PER_SECOND: u32 = 2_000;

/// The begin of the line that OpenVPN writes 245,000 times a second, for ever, once its TAP was deleted (measured, OpenVPN 2.6.14). No peer
/// can cause it.
const TAP_GONE: &[u8] = b"read from TUN/TAP ";

/// A child that has written too many lines and [`TAP_GONE`] for this number of consecutive seconds is killed.
const TAP_GONE_SECONDS: u32 = 3;

/// Splits a child's output into lines, and limits their rate.
pub(super) struct Log {
    /// The end of the pipe that is read; `None` once the child has closed its end.
    pipe: Option<pipe::Receiver>,
    partial_line: Vec<u8>,
    second_started_at: Instant,
    /// Number of lines in the current second.
    lines: u32,
    /// Whether the last line was [`TAP_GONE`].
    is_tap_gone: bool,
    /// Number of consecutive seconds with too many lines, of which the last one was [`TAP_GONE`].
    tap_gone_seconds: u32,
}

impl Log {
    /// Builds a reader of `pipe`, whose ends must not block; `partial_line` is the begin of a line that was read before.
    pub(super) fn new(pipe: Option<pipe::Receiver>, partial_line: Vec<u8>) -> Self {
        Self {
            pipe,
            partial_line,
            second_started_at: runtime_now(),
            lines: 0,
            is_tap_gone: false,
            tap_gone_seconds: 0,
        }
    }

    /// Waits for output, and returns its complete lines; waits for ever once the pipe is closed.
    pub(super) async fn read(&mut self) -> Vec<String> {
        let mut chunk = [0; CHUNK_BYTES];
        if self.pipe.is_some() && self.lines >= MAX_READ_LINES_PER_SECOND {
            sleep_until(self.second_started_at + SECOND).await;
        }
        let Some(pipe) = &mut self.pipe else {
            return std::future::pending().await;
        };
        match pipe.read(&mut chunk).await {
            Ok(count @ 1..) => self.split_lines(chunk.get(..count).unwrap_or_default()),
            Ok(0) | Err(_) => {
                self.pipe = None;
                Vec::new()
            }
        }
    }

    /// Returns the lines that are left in the pipe after the child has exited, without waiting.
    pub(super) fn read_remaining(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut chunk = [0; CHUNK_BYTES];
        let Some(pipe) = self.pipe.take() else {
            return lines;
        };
        while let Ok(count @ 1..) = pipe.try_read(&mut chunk) {
            lines.extend(self.split_lines(chunk.get(..count).unwrap_or_default()));
        }
        lines
    }

    fn split_lines(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for byte in bytes {
            if *byte == b'\n' {
                let line = std::mem::take(&mut self.partial_line);
                lines.extend(self.limit_rate(&line));
            } else if self.partial_line.len() < MAX_LINE_BYTES {
                self.partial_line.push(*byte);
            }
        }
        lines
    }

    /// Returns the line without control characters, or `None` if too many were written in this second.
    fn limit_rate(&mut self, line: &[u8]) -> Option<String> {
        let mut dropped_note = None;
        if self.second_started_at.elapsed() >= SECOND {
            let dropped = self.lines.saturating_sub(MAX_LINES_PER_SECOND);
            dropped_note = (dropped > 0).then(|| format!("{dropped} log lines dropped"));
            self.tap_gone_seconds = if dropped > 0 && self.is_tap_gone {
                self.tap_gone_seconds + 1
            } else {
                0
            };
            self.second_started_at = runtime_now();
            self.lines = 0;
        }
        self.lines = self.lines.saturating_add(1);
        self.is_tap_gone = line.starts_with(TAP_GONE);
        if self.lines > MAX_LINES_PER_SECOND {
            return dropped_note;
        }
        let clean = String::from_utf8_lossy(line).replace(|c: char| c.is_control(), "");
        Some(dropped_note.map_or(clean.clone(), |dropped| format!("{clean} ({dropped})")))
    }

    /// Returns the pipe, if the child has not closed its end, and the begin of a line.
    pub(super) fn release(self) -> io::Result<(Option<OwnedFd>, Vec<u8>)> {
        let pipe = self.pipe.map(pipe::Receiver::into_nonblocking_fd);
        Ok((pipe.transpose()?, self.partial_line))
    }

    /// Returns whether the child's TAP is gone, so that it can do nothing but write log lines.
    pub(super) fn is_tap_gone(&self) -> bool {
        self.tap_gone_seconds >= TAP_GONE_SECONDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// Writes `line` as fast as the pipe takes it until `seconds` have passed, and returns what was passed on.
    async fn flood(line: &str, seconds: u64) -> (Log, Vec<String>) {
        let (read, write) = std::io::pipe().unwrap();
        let write = OwnedFd::from(write);
        rustix::io::ioctl_fionbio(&write, true).unwrap();
        let mut write = std::fs::File::from(write);
        let mut log = Log::new(pipe::Receiver::from_owned_fd(read.into()).ok(), Vec::new());
        let (mut passed, started_at) = (Vec::new(), runtime_now());
        while started_at.elapsed() < Duration::from_secs(seconds) {
            // A full pipe drops lines, as it does for a child.
            while write.write_all(line.as_bytes()).is_ok() {}
            passed.extend(log.read().await);
        }
        (log, passed)
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_that_a_peer_can_cause_is_bounded_and_no_reason_for_a_kill() {
        let (log, passed) = flood("Received truncated message.\n", 6).await;
        assert!(!log.is_tap_gone());
        let per_second = usize::try_from(MAX_LINES_PER_SECOND).unwrap();
        assert!(
            (per_second..=per_second * 7).contains(&passed.len()),
            "{}",
            passed.len()
        );
        assert!(
            passed
                .iter()
                .any(|line| line.ends_with("log lines dropped)"))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_child_whose_tap_is_gone_is_noticed() {
        let line = "read from TUN/TAP : File descriptor in bad state (fd=-1,code=77)\n";
        assert!(!flood(line, 2).await.0.is_tap_gone());
        assert!(flood(line, 6).await.0.is_tap_gone());
    }
}
