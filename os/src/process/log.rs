//! Reads the log of a child: bounds the length of its lines and their number per second.

use crate::clock::runtime_now;
use std::time::Duration;
use tokio::{io::AsyncReadExt, net::unix::pipe, time::Instant};

/// Maximum number of bytes that are read at once.
pub(super) const CHUNK_BYTES: usize = 4096;

/// Maximum length of a log line in bytes; a longer one is truncated.
const MAX_LINE_BYTES: usize = 1024;

/// Maximum number of log lines that are passed on in a second. The number of dropped lines is reported with the
/// next line.
const MAX_LINES_PER_SECOND: u32 = 200;

/// A child that writes more lines a second than this for [`FLOOD_SECONDS`] is killed. OpenVPN whose
/// TAP was deleted writes 245,000 a second for ever (measured).
const FLOOD_LINES_PER_SECOND: u32 = 20_000;

/// Number of consecutive seconds above [`FLOOD_LINES_PER_SECOND`] that count as a flood.
const FLOOD_SECONDS: u32 = 3;

/// Splits a child's output into lines, and limits their rate.
pub(super) struct Log {
    /// The end of the pipe that is read; `None` once the child has closed its end.
    pipe: Option<pipe::Receiver>,
    partial_line: Vec<u8>,
    second_started_at: Instant,
    /// Number of lines in the current second.
    lines: u32,
    /// Number of consecutive seconds above [`FLOOD_LINES_PER_SECOND`].
    flood_seconds: u32,
}

impl Log {
    /// Builds a reader of `pipe`, whose ends must not block.
    pub(super) fn new(pipe: pipe::Receiver) -> Self {
        Self {
            pipe: Some(pipe),
            partial_line: Vec::new(),
            second_started_at: runtime_now(),
            lines: 0,
            flood_seconds: 0,
        }
    }

    /// Waits for output, and returns its complete lines; waits for ever once the pipe is closed.
    pub(super) async fn read(&mut self) -> Vec<String> {
        let mut chunk = [0; CHUNK_BYTES];
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
        if self.second_started_at.elapsed() >= Duration::from_secs(1) {
            let dropped = self.lines.saturating_sub(MAX_LINES_PER_SECOND);
            dropped_note = (dropped > 0).then(|| format!("{dropped} log lines dropped"));
            self.flood_seconds = if self.lines > FLOOD_LINES_PER_SECOND {
                self.flood_seconds + 1
            } else {
                0
            };
            self.second_started_at = runtime_now();
            self.lines = 0;
        }
        self.lines = self.lines.saturating_add(1);
        if self.lines > MAX_LINES_PER_SECOND {
            return dropped_note;
        }
        let clean = String::from_utf8_lossy(line).replace(|c: char| c.is_control(), "");
        Some(dropped_note.map_or(clean.clone(), |dropped| format!("{clean} ({dropped})")))
    }

    /// Returns whether the child has written too many lines for [`FLOOD_SECONDS`].
    pub(super) fn is_flooding(&self) -> bool {
        self.flood_seconds >= FLOOD_SECONDS
    }
}
