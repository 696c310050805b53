//! One dialled tunnel: the OpenVPN client of one slot, from the first endpoint to its exit.
//!
//! The choice of the peer is not made here; endpoints are tried in the order given.

use super::{Common, client, command_line::Attempt};
use os::process::{ChildEvent, Happened, Supervised};
use policies::{
    life::{Event, Limits, State},
    names::{Endpoint, Prefix, Slot},
    observation::Phase,
    orders::CloseReason,
    units::Uptime,
};
use std::time::Duration;
use wire::management::{self, Decoder, StateName};

/// A dial that is not CONNECTED after this long goes on to the next endpoint.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The client of one slot.
#[derive(Debug)]
pub(super) struct Dial {
    slot: Slot,
    peer: Prefix,
    /// What was not tried yet, best first, after what is being tried.
    untried: Vec<Attempt>,
    endpoint: Endpoint,
    /// The time at which the process started, and so read its files.
    started_at: Uptime,
    process: Supervised,
    decoder: Decoder,
    was_up: bool,
    /// The reason of the close, once it is known.
    ending: Option<CloseReason>,
}

impl Dial {
    /// Starts dialling the first endpoint; `None` where there is none.
    pub(super) fn open(
        common: &Common,
        slot: Slot,
        peer: Prefix,
        endpoints: &[Endpoint],
    ) -> Option<Self> {
        let attempts = attempts(common, endpoints);
        let (first, untried) = attempts.split_first()?;
        let program = common.program(
            slot.to_string(),
            client(
                &common.settings.identity,
                slot,
                peer,
                *first,
                &common.management(&slot.to_string()),
            ),
        );
        let limits = Limits {
            start: CONNECT_TIMEOUT,
            ..Limits::default()
        };
        let seed = common.seed ^ u64::from(peer.number());
        let mut dial = Self {
            slot,
            peer,
            untried: untried.to_vec(),
            endpoint: first.endpoint,
            started_at: common.now(),
            process: Supervised::new(program, limits, seed),
            decoder: Decoder::default(),
            was_up: false,
            ending: None,
        };
        dial.process
            .handle(Event::Wanted, common.now(), &common.events);
        Some(dial)
    }

    /// Closes it for `reason`; [`took`](Self::took) returns when it is closed.
    pub(super) fn close(&mut self, common: &Common, reason: CloseReason) {
        if self.ending.is_none() {
            self.ending = Some(reason);
            common.set_phase(self.slot, Phase::Closing);
            self.process
                .handle(Event::Unwanted, common.now(), &common.events);
        }
    }

    /// Handles an event of the client's process; returns why the tunnel is closed, once it is.
    pub(super) fn handle_child_event(
        &mut self,
        common: &Common,
        event: &ChildEvent,
    ) -> Option<CloseReason> {
        let now = common.now();
        if !self.process.handle_child_event(event, now) {
            return None;
        }
        match &event.happened {
            Happened::ManagementConnected => {
                self.decoder = Decoder::default();
                self.process.send_command(format!(
                    "{}{}",
                    management::STATE_ON,
                    management::HOLD_RELEASE
                ));
                None
            }
            Happened::Management(bytes) => {
                for event in self.decoder.feed(bytes) {
                    self.handle_event(common, event);
                }
                None
            }
            Happened::Logged(_) => None,
            Happened::Exited { code } => self.exited(common, *code),
        }
    }

    fn handle_event(&mut self, common: &Common, event: management::Event) {
        match event {
            management::Event::Hold => self
                .process
                .send_command(management::HOLD_RELEASE.to_owned()),
            management::Event::State(state) => match state.name {
                StateName::Connected if !self.was_up || !self.is_up() => self.came_up(common),
                StateName::Exiting | StateName::Reconnecting => self.goes(&state.detail),
                StateName::Connecting
                | StateName::Resolve
                | StateName::TcpConnect
                | StateName::Wait
                | StateName::Auth
                | StateName::AuthPending
                | StateName::GetConfig
                | StateName::AssignIp
                | StateName::AddRoutes
                | StateName::Connected
                | StateName::Unknown => {}
            },
            // The only sign of a server's orderly exit: the state says merely that we sent an exit
            // notification too.
            management::Event::Notify { kind, .. } if kind.starts_with("server-pushed-") => {
                self.goes(&kind)
            }
            // The only sign of a rejection: with an exit notification the state says nothing else.
            management::Event::AuthFailed => {
                self.ending.get_or_insert(CloseReason::PeerClosed);
            }
            management::Event::ClientConnect { .. }
            | management::Event::ClientReauth { .. }
            | management::Event::ClientEstablished { .. }
            | management::Event::ClientDisconnect { .. }
            | management::Event::Notify { .. }
            | management::Event::Log { .. }
            | management::Event::Success(_)
            | management::Event::Error(_)
            | management::Event::Info(_)
            | management::Event::Fatal(_)
            | management::Event::ByteCount { .. }
            | management::Event::ClientByteCount { .. }
            | management::Event::Oversize
            | management::Event::Other(_) => {}
        }
    }

    fn is_up(&self) -> bool {
        matches!(self.process.state(), State::Up { .. })
    }

    fn came_up(&mut self, common: &Common) {
        self.process
            .handle(Event::Ready, common.now(), &common.events);
        self.was_up = true;
        let history = common.history(self.peer);
        common.table.borrow_mut().dials.insert(
            self.peer,
            crate::store::DialHistory {
                failures: 0,
                good: Some(self.endpoint),
                ..history
            },
        );
        common.came_up(self.slot, self.peer);
    }

    /// Takes note of OpenVPN's reason to exit.
    fn goes(&mut self, detail: &str) {
        if self.ending.is_some() {
            return;
        }
        self.ending = match detail {
            "server-pushed-halt"
            | "server-pushed-connection-reset"
            | "auth-failure"
            | "remote-exit" => Some(CloseReason::PeerClosed),
            "ping-exit" | "ping-restart" => Some(CloseReason::PeerDead),
            _ => None,
        };
    }

    fn exited(&mut self, common: &Common, code: i32) -> Option<CloseReason> {
        // A planned end, or OpenVPN's own with a reason.
        if let Some(reason) = self.ending {
            if !self.was_up && reason == CloseReason::PeerClosed {
                self.failed(common);
            }
            return Some(reason);
        }
        if self.was_up && code < 0 {
            // Killed by a signal: a crash, repaired in place after the back-off.
            common.set_phase(self.slot, Phase::Connecting);
            tracing::warn!(slot = %self.slot, peer = %self.peer, code, "OpenVPN was killed; it is started again");
            return None;
        }
        if self.was_up {
            return Some(CloseReason::PeerDead);
        }
        if let Some(problem) = self
            .process
            .tail()
            .rev()
            .find_map(management::reason_of_log)
        {
            tracing::info!(slot = %self.slot, peer = %self.peer, endpoint = %self.endpoint, ?problem, "dial failed");
        }
        if self.untried.is_empty() {
            self.failed(common);
            return Some(CloseReason::DialFailed);
        }
        let attempt = self.untried.remove(0);
        (self.endpoint, self.started_at) = (attempt.endpoint, common.now());
        let management = common.management(&self.slot.to_string());
        self.process.set_args(client(
            &common.settings.identity,
            self.slot,
            self.peer,
            attempt,
            &management,
        ));
        if let Some(tunnel) = common.table.borrow_mut().tunnels.get_mut(&self.slot) {
            tunnel.endpoint = Some(self.endpoint);
        }
        // The next tick after the back-off starts it.
        None
    }

    fn failed(&self, common: &Common) {
        let history = common.history(self.peer);
        let failures = history.failures.saturating_add(1);
        common.table.borrow_mut().dials.insert(
            self.peer,
            crate::store::DialHistory {
                failures,
                failed: Some(common.now()),
                ..history
            },
        );
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, common: &Common) {
        self.process
            .handle(Event::Tick, common.now(), &common.events);
    }

    /// Returns the peer that it dials.
    pub(super) fn peer(&self) -> Prefix {
        self.peer
    }

    /// Returns the time at which its present process started.
    pub(super) fn started_at(&self) -> Uptime {
        self.started_at
    }

    /// Returns a reading of its process.
    pub(super) fn reading(&self) -> os::process::ProcessReading {
        self.process.reading()
    }
}

/// Each endpoint; while the network's key is changed, then each once more with the other key.
fn attempts(common: &Common, endpoints: &[Endpoint]) -> Vec<Attempt> {
    let documents = common.documents.load();
    let changing = documents
        .network()
        .is_some_and(|network| network.tls_crypt_other.is_some());
    let keys = if changing {
        &[false, true][..]
    } else {
        &[false]
    };
    let with = |key: &bool| {
        endpoints
            .iter()
            .map(|endpoint| Attempt {
                endpoint: *endpoint,
                other_key: *key,
            })
            .collect::<Vec<_>>()
    };
    keys.iter().flat_map(with).collect()
}
