//! The state that a daemon hands to the program that replaces it in the same process: one JSON document in a sealed memfd.
//!
//! It names the child processes that run on, the descriptors by which they are followed, and the tunnels that they carry.
//! Moments are milliseconds since the machine booted. A version may gain fields, which a reader that does not know them
//! skips. A change that such a reader would misunderstand gets another version, and is rejected as a whole.

use crate::text;
use policies::{
    names::{Endpoint, Prefix, Role, Slot, Transport},
    units::Uptime,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

/// The version that this program writes and reads.
pub const VERSION: u32 = 1;

/// Maximum size of the document in bytes. A node with 300 tunnels has 0.4 MB, most of it command lines.
pub const MAX_BYTES: u64 = 4 << 20;

/// Standard input, output and error, which are never handed over by the document.
const FIRST_DESCRIPTOR: i32 = 3;

/// All that is handed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandedState {
    /// The version of the document: [`VERSION`].
    pub version: u32,
    /// The version of the software that wrote it.
    pub software: String,
    /// When it was written.
    pub written_at_ms: u64,
    /// The descriptor of the locked pid file.
    pub lock: i32,
    /// The process of babeld.
    pub babeld: HandedProcess,
    /// The servers, with their clients.
    pub servers: Vec<HandedServer>,
    /// The dialled tunnels.
    pub dials: Vec<HandedDial>,
    /// Slots whose last tunnel closed a short while ago, and until when no other is opened on each.
    pub cooling_down: Vec<CoolingSlot>,
    /// Whether servers run with certificates or keys that were replaced.
    pub are_servers_outdated: bool,
    /// Whether dialled tunnels run with certificates or keys that were replaced.
    pub are_dials_outdated: bool,
    /// When such processes restart even if they cannot be drained.
    pub restart_by_ms: Option<u64>,
    /// Whether a peer has connected to one of the servers.
    pub was_reached: bool,
}

/// A child process that is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandedProcess {
    /// The process id.
    pub pid: u32,
    /// The start time in clock ticks after boot (proc_pid_stat(5), field 22).
    pub start_time: u64,
    /// The descriptor of the reading end of its log pipe, unless the process has closed its end.
    pub log: Option<i32>,
    /// The begin of a log line whose end was not read yet.
    pub partial_line: String,
    /// The descriptor of its management connection; babeld has none.
    pub management: Option<i32>,
    /// Commands for the management connection that were not written yet.
    pub commands: String,
    /// When it became ready.
    pub up_since_ms: u64,
    /// The arguments with which it was started.
    pub args: Vec<String>,
}

/// A server and its clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandedServer {
    /// The server's transport.
    #[serde(with = "text::one")]
    pub transport: Transport,
    /// When it read its certificates and keys.
    pub started_at_ms: u64,
    /// The OpenVPN process.
    pub process: HandedProcess,
    /// Its admitted clients.
    pub clients: Vec<HandedClient>,
}

/// A client of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandedClient {
    /// Slot, peer and times.
    pub tunnel: HandedTunnel,
    /// OpenVPN's number of the client.
    pub client: u64,
    /// The address that it came from.
    pub from: Option<SocketAddr>,
    /// The serial numbers of its certificate and of the CA certificate that signed it, hexadecimal.
    pub serials: [String; 2],
}

/// A dialled tunnel that is up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandedDial {
    /// Slot, peer and times.
    pub tunnel: HandedTunnel,
    /// Whether the second `tls-crypt` key is used.
    pub uses_other_key: bool,
    /// The local port, if it was dialled from one that a NAT lets through by hole punching.
    #[serde(default)]
    pub local_port: Option<u16>,
    /// When the process read its certificates and keys.
    pub started_at_ms: u64,
    /// The OpenVPN process.
    pub process: HandedProcess,
}

/// One tunnel, dialled or accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandedTunnel {
    /// The slot's name.
    #[serde(with = "text::one")]
    pub slot: Slot,
    /// The peer, as its certificate names it.
    #[serde(with = "text::one")]
    pub peer: Prefix,
    /// The endpoint that was dialled, or from which the client came.
    pub endpoint: Option<HandedEndpoint>,
    /// When it came to its present phase.
    pub since_ms: u64,
    /// When it came up; `None` for a client that has not been established yet.
    pub up_since_ms: Option<u64>,
    /// Whether it came by hole punching.
    #[serde(default)]
    pub is_punched: bool,
}

/// An endpoint, in its canonical text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HandedEndpoint(#[serde(with = "text::one")] pub Endpoint);

/// A slot on which no tunnel is opened yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoolingSlot {
    /// The slot's name.
    #[serde(with = "text::one")]
    pub slot: Slot,
    /// The moment from which on it can be used.
    pub until_ms: u64,
}

/// The reason why handed-over state is not used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The state is of another version.
    #[error("its version is {found}; this program reads version {VERSION}")]
    OtherVersion {
        /// The version of the state.
        found: u32,
    },
    /// The text is no such document.
    #[error("it is no document of version {VERSION}")]
    Malformed(#[source] serde_json::Error),
    /// Two parts of the document contradict each other, or a value is out of range.
    #[error("{0}")]
    Contradiction(String),
}

/// The part of the document by which its version is found.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl HandedState {
    /// Reads a document, and checks that its parts fit together.
    ///
    /// # Errors
    /// The document is of another version, or wrong.
    pub fn read(text: &[u8]) -> Result<Self, StateError> {
        let Versioned { version } = serde_json::from_slice(text).map_err(StateError::Malformed)?;
        if version != VERSION {
            return Err(StateError::OtherVersion { found: version });
        }
        let state: Self = serde_json::from_slice(text).map_err(StateError::Malformed)?;
        state.check()?;
        Ok(state)
    }

    /// Returns all processes: babeld, the servers, the clients.
    pub fn processes(&self) -> impl Iterator<Item = &HandedProcess> {
        let servers = self.servers.iter().map(|server| &server.process);
        let dials = self.dials.iter().map(|dial| &dial.process);
        std::iter::once(&self.babeld).chain(servers).chain(dials)
    }

    /// Returns all descriptors that the document names.
    pub fn descriptors(&self) -> Vec<i32> {
        let of_processes = self
            .processes()
            .flat_map(|process| process.log.into_iter().chain(process.management));
        std::iter::once(self.lock).chain(of_processes).collect()
    }

    /// Returns all tunnels.
    pub fn tunnels(&self) -> impl Iterator<Item = &HandedTunnel> {
        let clients = self.servers.iter().flat_map(|server| &server.clients);
        let accepted = clients.map(|client| &client.tunnel);
        self.dials.iter().map(|dial| &dial.tunnel).chain(accepted)
    }

    fn check(&self) -> Result<(), StateError> {
        let wrong = |what: String| Err(StateError::Contradiction(what));
        if let Some(descriptor) = duplicate(self.descriptors()) {
            return wrong(format!("descriptor {descriptor} stands twice in it"));
        }
        if self.descriptors().iter().any(|fd| *fd < FIRST_DESCRIPTOR) {
            return wrong(format!("a descriptor is below {FIRST_DESCRIPTOR}"));
        }
        if let Some(pid) = duplicate(self.processes().map(|process| process.pid)) {
            return wrong(format!("process {pid} stands twice in it"));
        }
        if let Some(slot) = duplicate(self.tunnels().map(|tunnel| tunnel.slot)) {
            return wrong(format!("{slot} has two tunnels"));
        }
        if let Some(transport) = duplicate(self.servers.iter().map(|server| server.transport)) {
            return wrong(format!("there are two {transport} servers"));
        }
        for server in &self.servers {
            for client in &server.clients {
                let slot = client.tunnel.slot;
                if !matches!(slot, Slot::Accepting(transport, _) if transport == server.transport) {
                    return wrong(format!(
                        "{slot} is no slot of the {} server",
                        server.transport
                    ));
                }
            }
        }
        for HandedDial { tunnel, .. } in &self.dials {
            let is_up = tunnel.up_since_ms.is_some() && tunnel.endpoint.is_some();
            if tunnel.slot.role() != Role::Dialled || !is_up {
                return wrong(format!("{} is no dialled tunnel that is up", tunnel.slot));
            }
        }
        Ok(())
    }
}

/// Returns an item that comes more than once.
fn duplicate<T: Ord + Copy>(items: impl IntoIterator<Item = T>) -> Option<T> {
    let mut seen = BTreeSet::new();
    items.into_iter().find(|item| !seen.insert(*item))
}

/// Returns a moment in milliseconds since boot.
pub fn to_millis(moment: Uptime) -> u64 {
    u64::try_from(moment.0.as_millis()).unwrap_or(u64::MAX)
}

/// Returns the moment that is so many milliseconds after boot.
pub fn from_millis(millis: u64) -> Uptime {
    Uptime(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, log: i32, management: Option<i32>) -> HandedProcess {
        HandedProcess {
            pid,
            start_time: 5,
            log: Some(log),
            partial_line: String::new(),
            management,
            commands: String::new(),
            up_since_ms: 1_500,
            args: vec!["--dev".to_owned()],
        }
    }

    fn tunnel(slot: &str) -> HandedTunnel {
        HandedTunnel {
            slot: slot.parse().unwrap(),
            peer: "7/16".parse().unwrap(),
            endpoint: Some(HandedEndpoint("udp:192.0.2.1:1194".parse().unwrap())),
            since_ms: 1,
            up_since_ms: Some(1),
            is_punched: false,
        }
    }

    fn state() -> HandedState {
        HandedState {
            version: VERSION,
            software: "0.1.0".to_owned(),
            written_at_ms: 2_000,
            lock: 3,
            babeld: process(10, 4, None),
            servers: vec![HandedServer {
                transport: Transport::Udp,
                started_at_ms: 1,
                process: process(11, 5, Some(6)),
                clients: vec![HandedClient {
                    tunnel: tunnel("wrnu.2"),
                    client: 3,
                    from: None,
                    serials: ["1f".to_owned(), "02".to_owned()],
                }],
            }],
            dials: vec![HandedDial {
                tunnel: tunnel("wrn0"),
                uses_other_key: false,
                local_port: None,
                started_at_ms: 1,
                process: process(12, 7, Some(8)),
            }],
            cooling_down: Vec::new(),
            are_servers_outdated: false,
            are_dials_outdated: false,
            restart_by_ms: None,
            was_reached: true,
        }
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut HandedState), expected: Option<&str>) {
        let mut state = state();
        change(&mut state);
        let text = serde_json::to_vec(&state).unwrap();
        match (HandedState::read(&text), expected) {
            (Ok(read), None) => assert_eq!(read, state),
            (Err(error), Some(expected)) => assert_eq!(error.to_string(), expected),
            (read, _) => panic!("{read:?}"),
        }
    }

    #[test]
    fn a_document_round_trips_and_names_its_descriptors() {
        check(|_| {}, None);
        assert_eq!(state().descriptors(), [3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn another_version_and_contradictions_are_rejected() {
        let other = "its version is 2; this program reads version 1";
        check(|state| state.version = 2, Some(other));
        let twice = "descriptor 4 stands twice in it";
        check(|state| state.lock = 4, Some(twice));
        check(|state| state.lock = 2, Some("a descriptor is below 3"));
        let pid = "process 10 stands twice in it";
        check(|state| state.dials[0].process.pid = 10, Some(pid));
        let slot = "wrnt.2 is no slot of the udp server";
        let tcp = |state: &mut HandedState| {
            state.servers[0].clients[0].tunnel = tunnel("wrnt.2");
        };
        check(tcp, Some(slot));
        let down = "wrn0 is no dialled tunnel that is up";
        check(|state| state.dials[0].tunnel.up_since_ms = None, Some(down));
    }

    #[test]
    fn fields_of_a_later_program_are_skipped_and_half_a_document_is_rejected() {
        let text = serde_json::to_string(&state()).unwrap();
        let later = text.replacen('{', r#"{"weather":"fine","#, 1);
        assert_eq!(HandedState::read(later.as_bytes()).unwrap(), state());
        let earlier = text.replace(r#","is_punched":false"#, "");
        let earlier = earlier.replace(r#""local_port":null,"#, "");
        assert!(!earlier.contains("punched") && !earlier.contains("local_port"));
        assert_eq!(HandedState::read(earlier.as_bytes()).unwrap(), state());
        let half = &text.as_bytes()[..text.len() / 2];
        assert!(matches!(
            HandedState::read(half),
            Err(StateError::Malformed(_))
        ));
    }
}
