//! The kinds of child processes, as metrics tell them apart.

use policies::names::Transport;
use std::fmt;

/// What a child process is for. There are as many clients as dialled tunnels, and one process of each other kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProcessKind {
    /// babeld, the routing daemon.
    Babeld,
    /// The OpenVPN server of a transport.
    Server(Transport),
    /// The OpenVPN client of a dialled tunnel.
    Client,
}

impl ProcessKind {
    /// All kinds of child processes.
    pub const ALL: [Self; 4] = [
        Self::Babeld,
        Self::Server(Transport::Udp),
        Self::Server(Transport::Tcp),
        Self::Client,
    ];

    /// Returns the kind of the process with this name; all names but those of babeld and the servers
    /// are slots of clients.
    pub fn of(name: &str) -> Self {
        let mut kinds = Self::ALL.into_iter();
        kinds
            .find(|kind| kind.to_string() == name)
            .unwrap_or(Self::Client)
    }
}

impl fmt::Display for ProcessKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Babeld => f.write_str("babeld"),
            Self::Server(transport) => write!(f, "server-{transport}"),
            Self::Client => f.write_str("client"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_process_says_its_kind() {
        for (name, kind) in [
            ("babeld", ProcessKind::Babeld),
            ("server-udp", ProcessKind::Server(Transport::Udp)),
            ("server-tcp", ProcessKind::Server(Transport::Tcp)),
            ("wrn0", ProcessKind::Client),
        ] {
            assert_eq!(ProcessKind::of(name), kind);
        }
    }
}
