//! A child's log: lines of bounded length, and so many a second.

use crate::clock::runtime_now;
use std::time::Duration;
use tokio::{io::AsyncReadExt, net::unix::pipe, time::Instant};

/// Bytes read at once.
pub(super) const CHUNK: usize = 4096;

/// Longest log line that is kept, in bytes; the rest of a longer one is cut.
const LINE_CAP: usize = 1024;

/// Log lines a second that are passed on; the number of those dropped is reported in one line.
const LINES_PER_SECOND: u32 = 200;

/// A child that writes more lines a second than this for [`FLOOD_SECONDS`] is killed: OpenVPN whose
/// TAP was taken away writes 245,000 a second for ever (measured).
const FLOOD_LINES_PER_SECOND: u32 = 20_000;

/// Seconds of [`FLOOD_LINES_PER_SECOND`] in a row that count as a flood.
const FLOOD_SECONDS: u32 = 3;

/// Cuts a child's output into lines, and lets only so many a second pass.
pub(super) struct Log {
    pipe: Option<pipe::Receiver>,
    partial: Vec<u8>,
    second: Instant,
    lines: u32,
    flooded: u32,
}

impl Log {
    /// Reads `pipe`, whose ends do not block.
    pub(super) fn new(pipe: pipe::Receiver) -> Self {
        Self {
            pipe: Some(pipe),
            partial: Vec::new(),
            second: runtime_now(),
            lines: 0,
            flooded: 0,
        }
    }

    /// Lines that came; waits for ever once the pipe is closed.
    pub(super) async fn read(&mut self) -> Vec<String> {
        let mut chunk = [0; CHUNK];
        let Some(pipe) = &mut self.pipe else {
            return std::future::pending().await;
        };
        match pipe.read(&mut chunk).await {
            Ok(count @ 1..) => self.take(chunk.get(..count).unwrap_or_default()),
            Ok(0) | Err(_) => {
                self.pipe = None;
                Vec::new()
            }
        }
    }

    /// What is left in the pipe after the child's end, without waiting.
    pub(super) fn rest(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut chunk = [0; CHUNK];
        let Some(pipe) = self.pipe.take() else {
            return lines;
        };
        while let Ok(count @ 1..) = pipe.try_read(&mut chunk) {
            lines.extend(self.take(chunk.get(..count).unwrap_or_default()));
        }
        lines
    }

    fn take(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for byte in bytes {
            if *byte == b'\n' {
                let line = std::mem::take(&mut self.partial);
                lines.extend(self.pass(&line));
            } else if self.partial.len() < LINE_CAP {
                self.partial.push(*byte);
            }
        }
        lines
    }

    fn pass(&mut self, line: &[u8]) -> Option<String> {
        let mut dropped_note = None;
        if self.second.elapsed() >= Duration::from_secs(1) {
            let dropped = self.lines.saturating_sub(LINES_PER_SECOND);
            dropped_note = (dropped > 0).then(|| format!("{dropped} log lines dropped"));
            self.flooded = if self.lines > FLOOD_LINES_PER_SECOND {
                self.flooded + 1
            } else {
                0
            };
            self.second = runtime_now();
            self.lines = 0;
        }
        self.lines = self.lines.saturating_add(1);
        if self.lines > LINES_PER_SECOND {
            return dropped_note;
        }
        let clean = String::from_utf8_lossy(line).replace(|c: char| c.is_control(), "");
        Some(dropped_note.map_or(clean.clone(), |dropped| format!("{clean} ({dropped})")))
    }

    /// Returns whether the child writes without pause.
    pub(super) fn floods(&self) -> bool {
        self.flooded >= FLOOD_SECONDS
    }
}
