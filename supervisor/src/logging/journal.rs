//! Writes log lines to systemd's journal, with their priority and their values as fields.
//!
//! The protocol is <https://systemd.io/JOURNAL_NATIVE_PROTOCOL>. The crate tracing-journald leaves the values out of the
//! text of a line, which then says of no tunnel which one it is.

use std::{
    fmt::{self, Write as _},
    fs,
    io::{self, Write as _},
    os::{fd::AsFd, linux::fs::MetadataExt, unix::net::UnixDatagram},
};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

/// The socket of the journal (systemd-journald.service(8)).
const SOCKET: &str = "/run/systemd/journal/socket";

/// Returns whether standard error is connected to the journal: whether `JOURNAL_STREAM` names its device and inode
/// (systemd.exec(5)).
pub fn is_stderr() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let stderr = io::stderr().as_fd().try_clone_to_owned();
    let Ok(metadata) = stderr.and_then(|stderr| fs::File::from(stderr).metadata()) else {
        return false;
    };
    stream == format!("{}:{}", metadata.st_dev(), metadata.st_ino())
}

/// The layer that sends each event to the journal.
pub(super) struct Journal {
    socket: UnixDatagram,
}

impl Journal {
    /// Connects to the journal.
    pub(super) fn connect() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(SOCKET)?;
        Ok(Self { socket })
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut values = Values::default();
        event.record(&mut values);
        let priority = priority(*event.metadata().level());
        let text = format!("{}{}", values.message, values.text);
        let datagram = encode(priority, event.metadata().target(), &text, &values.fields);
        if self.socket.send(&datagram).is_err() {
            // The journal is restarting, or the line is longer than a datagram. It reads standard error, too, with the
            // priority as a prefix (sd-daemon(3)).
            let _ = writeln!(io::stderr(), "<{priority}>{text}");
        }
    }
}

/// Returns the priority of a level (syslog(3)).
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// Encodes a line and its fields for the journal.
fn encode(priority: u8, target: &str, text: &str, fields: &[(String, String)]) -> Vec<u8> {
    let mut datagram = Vec::new();
    let priority = priority.to_string();
    let own = [
        ("PRIORITY", priority.as_str()),
        ("SYSLOG_IDENTIFIER", "warren"),
        ("TARGET", target),
        ("MESSAGE", text),
    ];
    let values = fields
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in own.into_iter().chain(values) {
        datagram.extend_from_slice(name.as_bytes());
        if value.contains('\n') {
            // A value with line breaks follows its length in bytes, 64 bits little-endian.
            datagram.push(b'\n');
            let length = u64::try_from(value.len()).unwrap_or(u64::MAX);
            datagram.extend_from_slice(&length.to_le_bytes());
        } else {
            datagram.push(b'=');
        }
        datagram.extend_from_slice(value.as_bytes());
        datagram.push(b'\n');
    }
    datagram
}

/// The message of an event, and its values as text and as fields.
#[derive(Default)]
struct Values {
    message: String,
    /// The values as they follow the message, each after a blank.
    text: String,
    fields: Vec<(String, String)>,
}

impl Values {
    fn add(&mut self, field: &Field, value: String) {
        if field.name() == "message" {
            self.message = value;
            return;
        }
        // Writing to a string does not fail.
        let _ = write!(self.text, " {}={value}", field.name());
        self.fields.push((field_name(field.name()), value));
    }
}

/// Returns the name of a journal field: capital letters, digits and underscores, at most 64 of them, the first a letter.
fn field_name(name: &str) -> String {
    let is_allowed = |sign: char| sign.is_ascii_alphanumeric();
    let name = name.trim_start_matches(|sign: char| !sign.is_ascii_alphabetic());
    let signs = name.chars().take(64);
    signs
        .map(|sign| {
            if is_allowed(sign) {
                sign.to_ascii_uppercase()
            } else {
                '_'
            }
        })
        .collect()
}

impl Visit for Values {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_encoded_with_its_priority_and_values() {
        let fields = [("TUNNEL".to_owned(), "wrn0".to_owned())];
        let datagram = encode(6, "actors", "tunnel up tunnel=wrn0", &fields);
        let text = String::from_utf8(datagram).unwrap();
        assert_eq!(
            text,
            "PRIORITY=6\nSYSLOG_IDENTIFIER=warren\nTARGET=actors\nMESSAGE=tunnel up tunnel=wrn0\nTUNNEL=wrn0\n"
        );
    }

    #[test]
    fn a_value_with_line_breaks_follows_its_length_so_that_it_forges_no_field() {
        let datagram = encode(4, "os", "a\nPRIORITY=0", &[]);
        let expected = [
            b"PRIORITY=4\nSYSLOG_IDENTIFIER=warren\nTARGET=os\nMESSAGE\n".as_slice(),
            &12_u64.to_le_bytes(),
            b"a\nPRIORITY=0\n",
        ];
        assert_eq!(datagram, expected.concat());
    }

    #[test]
    fn names_of_fields_are_those_that_the_journal_accepts() {
        for (name, expected) in [("peer", "PEER"), ("lived_s", "LIVED_S"), ("_a.b", "A_B")] {
            assert_eq!(field_name(name), expected);
        }
    }
}
