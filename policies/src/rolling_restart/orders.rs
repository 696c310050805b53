//! The orders that a rolling restart gives.

use crate::{
    names::{Prefix, Transport},
    orders::Decision,
};
use std::{collections::BTreeSet, time::Duration};

/// One order of a rolling restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestartOrder {
    /// Request this node's restart lock and those of these neighbours. The answer goes to
    /// [`RollingRestart::on_lock_answer`](super::RollingRestart::on_lock_answer).
    AcquireLocks {
        /// The neighbours whose locks are requested.
        neighbours: BTreeSet<Prefix>,
    },
    /// Release this node's restart lock and those of these neighbours.
    ReleaseLocks {
        /// The neighbours whose locks are released.
        neighbours: BTreeSet<Prefix>,
    },
    /// Carry out an order about a tunnel.
    Tunnel(Decision),
    /// Let no client in any more, since the server drains.
    StopAccepting {
        /// The transport of the server.
        transport: Transport,
    },
    /// Let clients in again, since the server stays as it is for now.
    ResumeAccepting {
        /// The transport of the server.
        transport: Transport,
    },
    /// End the server's process, and start another one.
    RestartServer {
        /// The transport of the server.
        transport: Transport,
        /// The time for which it drained.
        drained_for: Duration,
        /// The tunnels that close with it; nothing else is to be done for them.
        closings: Vec<Decision>,
    },
    /// End the processes of dialled tunnels, and dial the same peers again.
    RestartDials {
        /// The tunnels that close until then; nothing else is to be done for them.
        closings: Vec<Decision>,
    },
    /// Report that a request for locks got no answer; the next order repeats it.
    ReportLostRequest,
    /// Report that all processes run with this version of the network document.
    ReportApplied {
        /// The version of the document.
        network_version: u64,
    },
}
