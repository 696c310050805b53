//! Splits a stream of bytes into lines of limited length; the content does not matter.
//!
//! The lines are the same however the stream is divided into pieces.

/// One line of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// The line without its end. Bytes that are no UTF-8 become U+FFFD.
    Text(String),
    /// The line exceeded the limit and is lost; reported once, at its end.
    Oversize,
}

/// Cuts at LF; a CR before it belongs to the line's end.
#[derive(Clone, Debug)]
pub struct Lines {
    buffer: Vec<u8>,
    limit: usize,
    oversize: bool,
}

impl Lines {
    /// Holds at most `limit` bytes, line end not counted.
    pub fn new(limit: usize) -> Self {
        Self {
            buffer: Vec::new(),
            limit,
            oversize: false,
        }
    }

    /// Takes the next piece of the stream and returns the lines that it completed, in order.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut pieces = bytes.split(|byte| *byte == b'\n').peekable();
        while let Some(piece) = pieces.next() {
            self.append(piece);
            if pieces.peek().is_some() {
                lines.push(self.end());
            }
        }
        lines
    }

    /// Returns whether the stream so far ends with a complete line.
    pub fn is_between_lines(&self) -> bool {
        self.buffer.is_empty() && !self.oversize
    }

    fn append(&mut self, piece: &[u8]) {
        // One more than the limit: the CR of a full line.
        let room = self
            .limit
            .saturating_add(1)
            .saturating_sub(self.buffer.len());
        if self.oversize || piece.len() > room {
            self.oversize = true;
            self.buffer = Vec::new();
        } else {
            self.buffer.extend_from_slice(piece);
        }
    }

    fn end(&mut self) -> Line {
        let mut bytes = std::mem::take(&mut self.buffer);
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
        if std::mem::take(&mut self.oversize) || bytes.len() > self.limit {
            return Line::Oversize;
        }
        Line::Text(String::from_utf8_lossy(&bytes).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(stream: &[u8], expected: &[Option<&str>]) {
        let lines: Vec<_> = expected
            .iter()
            .map(|line| line.map_or(Line::Oversize, |text| Line::Text(text.to_owned())))
            .collect();
        assert_eq!(Lines::new(8).feed(stream), lines);
    }

    #[test]
    fn lines_end_with_lf_or_cr_lf() {
        check(
            b"one\r\ntwo\n\r\nhalf",
            &[Some("one"), Some("two"), Some("")],
        );
    }

    #[test]
    fn a_line_at_the_limit_passes_and_one_byte_more_is_oversize() {
        check(
            b"12345678\r\n123456789\n12345678\n",
            &[Some("12345678"), None, Some("12345678")],
        );
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        check(b"a\xffb\n", &[Some("a\u{fffd}b")]);
    }

    #[test]
    fn a_line_without_end_takes_no_memory_beyond_the_limit() {
        let mut lines = Lines::new(8);
        for _ in 0..1000 {
            lines.feed(&[b'x'; 100]);
        }
        assert!(lines.buffer.capacity() <= 16);
        assert_eq!(lines.feed(b"\n"), [Line::Oversize]);
    }

    proptest! {
        #[test]
        fn the_lines_do_not_depend_on_the_split(
            stream in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), any::<u8>()], 0..200),
            cuts in proptest::collection::vec(0..200usize, 0..20),
        ) {
            let whole = Lines::new(8).feed(&stream);
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let mut split = Lines::new(8);
            let pieces: Vec<_> =
                cuts.windows(2).flat_map(|pair| split.feed(&stream[pair[0]..pair[1]])).collect();
            prop_assert_eq!(pieces, whole);
        }
    }
}
