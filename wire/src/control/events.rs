//! The document of what changed lately: `warren events`.
//!
//! With `--json`, each event is one line with the fields of [`EventEntry`]. An event of a kind that a reader does not
//! know is to be skipped.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use time::OffsetDateTime;

/// How many events are kept for `warren events`.
pub const EVENTS_KEPT: usize = 1024;

/// Longest time for which a request can wait for the next event, in seconds.
pub const MAX_EVENT_WAIT_S: u64 = 60;

/// The events that a request asks for, as the query of its address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventQuery {
    /// Only events with a higher number are returned. A number that has not been reached is that of an earlier daemon, and
    /// counts as 0.
    #[serde(default)]
    pub after: u64,
    /// How long the answer may be held back until there is such an event; at most [`MAX_EVENT_WAIT_S`].
    #[serde(default)]
    pub wait_seconds: u64,
}

/// What changed lately.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventsDocument {
    /// The version of the document: [`VERSION`](super::VERSION).
    pub version: u32,
    /// The time at which the document was created.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The time at which the daemon started, from which the numbers count.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// The number of the newest event; 0 if there is none.
    pub newest: u64,
    /// The events that were asked for, of the last [`EVENTS_KEPT`], by number.
    pub events: Vec<EventEntry>,
}

/// One event: something that happened to the node, a tunnel or another node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventEntry {
    /// The version of the fields: [`VERSION`](super::VERSION).
    pub version: u32,
    /// Counts the events of this run from 1. Numbers of events that were folded into a later one are missing.
    pub number: u64,
    /// The time of the event.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The slot that the event concerns: `wrn0`.
    pub tunnel: Option<String>,
    /// The node that the event concerns, other than this one: `9/16`.
    pub node: Option<String>,
    /// Its name; `None` if it has none, or it is not known.
    pub node_name: Option<String>,
    /// What happened: `kind`, and the fields of that kind.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened. Reasons, orders and findings are the labels of the metrics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// The daemon started.
    DaemonStarted {
        /// The version of its software.
        software: String,
    },
    /// A dial started, or a server accepted a client.
    TunnelOpened,
    /// Frames pass through a tunnel for the first time.
    TunnelUp,
    /// A tunnel came up again, since OpenVPN was restarted at either end.
    TunnelReconnected {
        /// How often that has happened to this tunnel.
        times: u64,
    },
    /// A tunnel closed.
    TunnelClosed(ClosedTunnel),
    /// Dials of a node failed, and none succeeded since. The failures are folded: this event is renewed with the second, fourth,
    /// eighth … of them.
    DialsFailed(FailedDials),
    /// The policy, a rolling restart, a revocation or an operator decided something about a tunnel.
    Decided(DecidedOrder),
    /// Nodes became reachable.
    NodesReached(ChangedNodes),
    /// Nodes became unreachable.
    NodesLost(ChangedNodes),
    /// A child process exited that nobody had stopped.
    ProcessExited(ExitedProcess),
    /// A part of the daemon was restarted after a panic.
    ActorRestarted {
        /// The name of the actor.
        actor: String,
    },
    /// A newer signed document is in force.
    DocumentChanged {
        /// `network` or `revocations`.
        document: String,
        /// The version that is in force now.
        document_version: u64,
    },
    /// The node has another certificate.
    CertificateChanged {
        /// Its serial number, in hex.
        serial: String,
        /// The time at which it expires.
        #[serde(with = "time::serde::rfc3339")]
        expires_at: OffsetDateTime,
    },
    /// A gateway maps a port to this host.
    LeaseObtained(LeasedPort),
    /// A gateway no longer maps a port to this host.
    LeaseLost(LeasedPort),
    /// A finding about the health of the node began.
    FindingStarted(StartedFinding),
    /// A finding ended.
    FindingEnded(EndedFinding),
    /// Packets leave the network by the node of this entry from now on; by none if it names no node.
    ExitGatewayChanged,
    /// The node of this entry, a neighbour, announces routes that cannot be its own.
    FalseRoutes {
        /// What is wrong with them.
        suspicion: String,
    },
    /// Something waited for longer than its limit, and was ended.
    WaitOverdue {
        /// The phase that lasted too long.
        wait: String,
    },
    /// The configuration was reloaded.
    ConfigurationReloaded {
        /// The changed keys that are not in force before a restart.
        pending_restart: Vec<String>,
    },
    /// An event that only a newer daemon knows.
    #[serde(other)]
    Unknown,
}

/// The fields of a closed tunnel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClosedTunnel {
    /// Why it closed.
    pub reason: String,
    /// How long it was up, in seconds; 0 if it never came up.
    pub lived_seconds: f64,
    /// Bytes received through it.
    pub rx_bytes: u64,
    /// Bytes sent through it.
    pub tx_bytes: u64,
}

/// The fields of failed dials of one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FailedDials {
    /// Why the last one failed.
    pub reason: String,
    /// How many failed, one after another.
    pub count: u64,
    /// The time between the first and the last failure, in seconds.
    pub over_seconds: f64,
}

/// The fields of a decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecidedOrder {
    /// `open`, `drain`, `undrain` or `close`.
    pub order: String,
    /// Why it was decided.
    pub reason: String,
    /// What it was decided by: `name=value unit`, for people.
    pub terms: String,
}

/// The fields of nodes that became reachable or unreachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedNodes {
    /// How many did; the entry names the node if it is one.
    pub count: u64,
    /// How many other nodes can be reached now.
    pub reachable: u64,
}

/// The fields of a process that exited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitedProcess {
    /// `babeld`, `server-udp`, `wrn0` …
    pub process: String,
    /// `unexpected`, or `failed` if it was not ready yet, or gave no sign of life.
    pub exit: String,
    /// The cause, for people, where it is known.
    pub cause: Option<String>,
    /// How often the process was started since the daemon began.
    pub starts: u32,
}

/// The fields of a finding that began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartedFinding {
    /// Which finding it is.
    pub finding: String,
    /// `error`, `degraded` or `information`.
    pub severity: String,
    /// What was seen, for people.
    pub seen: String,
}

/// The fields of a finding that ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndedFinding {
    /// Which finding it was.
    pub finding: String,
    /// How bad it was: `error`, `degraded` or `information`.
    pub severity: String,
    /// How long it lasted, in seconds.
    pub lasted_seconds: f64,
}

/// A port that a gateway maps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeasedPort {
    /// `udp` or `tcp`.
    pub transport: String,
    /// The port on this host.
    pub internal_port: u16,
    /// Address and port on the gateway.
    pub external: SocketAddr,
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: &str = r#"{"version":1,"number":7,"at":"2023-11-14T22:13:20Z","tunnel":"wrn0","node":"9/16",
        "node_name":null,"kind":"KIND","count":3,"reachable":4}"#;

    #[track_caller]
    fn check(kind: &str, expected: &Event) {
        let entry: EventEntry = serde_json::from_str(&ENTRY.replace("KIND", kind)).unwrap();
        assert_eq!(&entry.event, expected);
        let again: EventEntry =
            serde_json::from_str(&serde_json::to_string(&entry).unwrap()).unwrap();
        assert_eq!(again.number, 7);
    }

    #[test]
    fn an_event_is_one_flat_object_and_an_unknown_kind_is_readable() {
        let (count, reachable) = (3, 4);
        let lost = ChangedNodes { count, reachable };
        check("nodes_lost", &Event::NodesLost(lost));
        check("tunnel_up", &Event::TunnelUp);
        check("moon_landed", &Event::Unknown);
    }
}
