//! One dialled tunnel: the OpenVPN client of one slot, from its first attempt to its exit.
//!
//! The planner chooses the peer, and the order in which its endpoints are tried.

mod handed;

use super::{Common, client_args};
use crate::effects::link_orders::LinkOrder;
use os::process::{ChildEvent, Happened, Program, Supervised};
use policies::{
    attempts::{Attempt, Attempts},
    dial::{AfterExit, CloseStep, DialProgress, Exit},
    life::{Event, Limits, State},
    names::{Endpoint, Prefix, Slot},
    observation::Phase,
    orders::CloseReason,
    units::Uptime,
};
use std::time::Duration;
use wire::management::{self, Decoder, StateName};

/// Time within which OpenVPN must reach the state CONNECTED; after that, the next attempt is made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The client of one slot.
#[derive(Debug)]
pub(super) struct Dial {
    slot: Slot,
    peer: Prefix,
    /// The current attempt, and those still to be made.
    attempts: Attempts,
    /// When the current attempt started, and so the process read its certificates and keys.
    started_at: Uptime,
    process: Supervised,
    decoder: Decoder,
    progress: DialProgress,
    /// When the process is started again after it has exited, if that does not wait for the back-off.
    restart_at: Option<Uptime>,
    /// Whether this node ends the process in favour of the next attempt.
    is_abandoned: bool,
}

impl Dial {
    /// Starts to dial the first endpoint; returns `None` if there is no endpoint.
    pub(super) fn open(
        common: &Common,
        slot: Slot,
        peer: Prefix,
        endpoints: &[Endpoint],
    ) -> Option<Self> {
        let is_patient = common.dial_history(peer).failures > 0;
        let local_port = common.note_punched_port(slot, peer, endpoints);
        let attempts = Attempts::new(endpoints, is_key_replaced(common), is_patient)?;
        let attempts = attempts.with_local_port(local_port);
        let attempt = attempts.current();
        let (program, limits, seed) = Self::program(common, slot, peer, attempt);
        let mut dial = Self {
            slot,
            peer,
            attempts,
            started_at: common.now(),
            process: Supervised::new(program, limits, seed).without_log_of_failed_starts(),
            decoder: Decoder::default(),
            progress: DialProgress::default(),
            restart_at: None,
            is_abandoned: false,
        };
        dial.process
            .handle(Event::Wanted, common.now(), &common.events);
        Some(dial)
    }

    /// Returns the program of an attempt, the limits of its life, and the seed of its back-off.
    fn program(
        common: &Common,
        slot: Slot,
        peer: Prefix,
        attempt: Attempt,
    ) -> (Program, Limits, u64) {
        let name = slot.to_string();
        let management = common.management_socket(&name);
        let args = client_args(&common.settings.files, slot, peer, attempt, &management);
        let limits = Limits {
            start: CONNECT_TIMEOUT,
            ..Limits::default()
        };
        let seed = common.seed ^ u64::from(peer.number());
        (common.program(name, args), limits, seed)
    }

    /// Closes the tunnel for `reason`. Returns the reason of the close if it is closed at once; otherwise
    /// [`handle_child_event`](Self::handle_child_event) returns it once the process has exited.
    pub(super) fn close(&mut self, common: &Common, reason: CloseReason) -> Option<CloseReason> {
        match self.progress.close(reason, self.process.state()) {
            CloseStep::AlreadyClosing => None,
            CloseStep::Closed(reason) => Some(reason),
            CloseStep::StopProcess => {
                common.set_phase(self.slot, Phase::Closing);
                self.process
                    .handle(Event::Unwanted, common.now(), &common.events);
                None
            }
        }
    }

    /// Ends the process, and dials the same endpoint again. Nothing happens if the tunnel closes already.
    pub(super) fn restart(&mut self, common: &Common) {
        if self.progress.restart() {
            common.set_phase(self.slot, Phase::Closing);
            self.process
                .handle(Event::Unwanted, common.now(), &common.events);
        }
    }

    /// Handles an event of the client's process; returns the reason of the close once the tunnel is closed.
    /// `does_peer_restart` says whether the peer holds this node's restart lock, and so ends the tunnel by plan.
    pub(super) fn handle_child_event(
        &mut self,
        common: &Common,
        event: &ChildEvent,
        does_peer_restart: bool,
    ) -> Option<CloseReason> {
        let now = common.now();
        if !self.process.handle_child_event(event, now) {
            return None;
        }
        match &event.happened {
            Happened::ManagementConnected => {
                self.decoder = Decoder::default();
                self.attempts.note_start(now);
                self.process.send_command(format!(
                    "{}{}",
                    management::STATE_ON,
                    management::HOLD_RELEASE
                ));
                None
            }
            Happened::Management(bytes) => {
                for event in self.decoder.feed(bytes) {
                    self.handle_management_event(common, event);
                }
                None
            }
            Happened::Logged(line) => {
                if management::is_exit_notice(line) {
                    self.on_exit_notice(common);
                }
                None
            }
            Happened::Released => None,
            Happened::Exited { code } => self.on_exit(common, *code, does_peer_restart),
        }
    }

    fn handle_management_event(&mut self, common: &Common, event: management::Event) {
        match event {
            management::Event::Hold => self
                .process
                .send_command(management::HOLD_RELEASE.to_owned()),
            management::Event::State(state) => self.on_state(common, state.name, &state.detail),
            // `>STATE:EXITING` also follows this client's own exit notification, so only this event proves that the
            // server exited in order.
            management::Event::Notify { kind, .. } if kind.starts_with("server-pushed-") => {
                self.set_close_reason(&kind);
            }
            // Only this event proves that the server rejected the client, for the same reason.
            management::Event::AuthFailed => {
                self.progress.on_exit_reason(CloseReason::PeerClosed);
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

    fn on_state(&mut self, common: &Common, name: StateName, detail: &str) {
        match name {
            // A process that is being stopped may have connected just before.
            StateName::Connected if self.is_starting() => self.on_connected(common),
            StateName::Exiting | StateName::Reconnecting => self.set_close_reason(detail),
            StateName::Auth | StateName::AuthPending | StateName::GetConfig => {
                self.attempts.note_answer();
            }
            StateName::Connecting
            | StateName::Resolve
            | StateName::TcpConnect
            | StateName::Wait
            | StateName::AssignIp
            | StateName::AddRoutes
            | StateName::Connected
            | StateName::Unknown => {}
        }
    }

    fn is_up(&self) -> bool {
        matches!(self.process.state(), State::Up { .. })
    }

    fn is_starting(&self) -> bool {
        matches!(self.process.state(), State::Starting { .. })
    }

    fn on_connected(&mut self, common: &Common) {
        self.attempts.note_answer();
        self.process
            .handle(Event::Ready, common.now(), &common.events);
        self.progress.on_connected();
        let history = common.dial_history(self.peer);
        common.table.borrow_mut().dials.insert(
            self.peer,
            crate::store::DialHistory {
                failures: 0,
                good: Some(self.attempts.current().endpoint),
                ..history
            },
        );
        common.report_up(self.slot, self.peer);
    }

    /// Derives the reason of the close from the detail that OpenVPN gives before it exits.
    fn set_close_reason(&mut self, detail: &str) {
        match detail {
            "server-pushed-halt"
            | "server-pushed-connection-reset"
            | "auth-failure"
            | "remote-exit" => self.progress.on_exit_reason(CloseReason::PeerClosed),
            "ping-exit" | "ping-restart" => self.progress.on_exit_reason(CloseReason::PeerDead),
            _ => {}
        }
    }

    /// Takes the tunnel out of use while OpenVPN notifies the server, which takes a second: no frame passes any more.
    fn on_exit_notice(&self, common: &Common) {
        if !self.progress.was_up() {
            return;
        }
        common.links.order(LinkOrder::Down(self.slot));
        let is_draining = self.drain_reason(common).is_some();
        if !is_draining {
            common.set_phase(self.slot, Phase::Closing);
        }
    }

    fn drain_reason(&self, common: &Common) -> Option<CloseReason> {
        let table = common.table.borrow();
        table.tunnels.get(&self.slot)?.phase.drain_reason()
    }

    fn on_exit(
        &mut self,
        common: &Common,
        code: i32,
        does_peer_restart: bool,
    ) -> Option<CloseReason> {
        let is_stopped = code < 0 || management::is_stopped_from_outside(self.process.tail());
        let exit = match is_stopped {
            true => Exit::StoppedFromOutside,
            false => Exit::ByItself,
        };
        if !self.progress.was_up() && !self.progress.is_closing() {
            self.log_failed_attempt(common);
        }
        if std::mem::take(&mut self.is_abandoned) {
            self.restart_at = Some(common.now());
        }
        // A node that shuts down dials no more.
        let has_other_endpoint = self.attempts.has_other() && !common.is_shutting_down();
        let draining_for = self.drain_reason(common);
        match self
            .progress
            .on_exit(exit, draining_for, does_peer_restart, has_other_endpoint)
        {
            AfterExit::Closed { reason, failed } => {
                if failed {
                    self.record_failure(common);
                }
                return Some(reason);
            }
            AfterExit::SameEndpoint => {
                // The process reads its files when it is started, at once or at a tick after the back-off.
                self.started_at = common.now();
                common.set_phase(self.slot, Phase::Connecting);
                common.links.order(LinkOrder::Up(self.slot));
                let name = common.name_of(self.peer);
                tracing::warn!(tunnel = %self.slot, peer = %self.peer, name, code, "OpenVPN was stopped by a signal; it is started again");
                self.tick(common);
            }
            AfterExit::NextEndpoint => {
                self.attempts.advance();
                self.prepare_attempt(common);
                self.tick(common);
            }
            AfterExit::Restart(delay) => self.prepare_restart(common, delay),
        }
        None
    }

    /// Starts over with the same endpoint after `delay`.
    fn prepare_restart(&mut self, common: &Common, delay: Duration) {
        let now = common.now();
        self.process.handle(Event::Unwanted, now, &common.events);
        self.progress = DialProgress::default();
        self.attempts.start_over(is_key_replaced(common));
        self.prepare_attempt(common);
        self.restart_at = Some(now + delay);
        common.set_phase(self.slot, Phase::Connecting);
        common.links.order(LinkOrder::Up(self.slot));
        let name = common.name_of(self.peer);
        tracing::info!(tunnel = %self.slot, peer = %self.peer, name, "tunnel restarts: the same endpoint is dialled again");
    }

    fn log_failed_attempt(&self, common: &Common) {
        let mut lines = self.process.tail().rev();
        let reason = lines.find_map(management::reason_of_log);
        let reason = reason.map(|reason| reason.label().to_owned());
        let reason = match self.is_abandoned {
            true => Some("no answer; the next endpoint is tried".to_owned()),
            false => reason.or_else(|| self.process.failure().map(str::to_owned)),
        };
        let endpoint = self.attempts.current().endpoint;
        let name = common.name_of(self.peer);
        tracing::info!(tunnel = %self.slot, peer = %self.peer, name, %endpoint, reason, "dial failed");
    }

    /// Sets the arguments of the current attempt; the next tick after the back-off starts the process.
    fn prepare_attempt(&mut self, common: &Common) {
        let attempt = self.attempts.current();
        self.started_at = common.now();
        let (program, ..) = Self::program(common, self.slot, self.peer, attempt);
        self.process.set_args(program.args);
        if let Some(tunnel) = common.table.borrow_mut().tunnels.get_mut(&self.slot) {
            tunnel.endpoint = Some(attempt.endpoint);
        }
    }

    /// Records that this dial of the peer failed, so that it is repeated after a growing delay only.
    pub(super) fn record_failure(&self, common: &Common) {
        let history = common.dial_history(self.peer);
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

    /// Lets the life cycle of the process react to the time that has passed.
    pub(super) fn tick(&mut self, common: &Common) {
        let now = common.now();
        let is_due = self.restart_at.take_if(|at| *at <= now).is_some();
        if is_due {
            // The process reads its files now.
            self.started_at = now;
        }
        let event = if is_due { Event::Wanted } else { Event::Tick };
        self.process.handle(event, now, &common.events);
        if self.is_starting() && !self.is_abandoned && self.attempts.is_abandoned(now) {
            self.is_abandoned = true;
            self.process.handle(Event::Unwanted, now, &common.events);
        }
    }

    /// Returns the peer that is dialled.
    pub(super) fn peer(&self) -> Prefix {
        self.peer
    }

    /// Returns when the current attempt started.
    pub(super) fn started_at(&self) -> Uptime {
        self.started_at
    }

    /// Returns the state of the process.
    pub(super) fn reading(&self) -> os::process::ProcessReading {
        self.process.reading()
    }
}

/// Returns whether the network's `tls-crypt` key is being replaced, so that a server may have either.
fn is_key_replaced(common: &Common) -> bool {
    let documents = common.documents.load();
    let network = documents.network();
    network.is_some_and(|network| network.tls_crypt_other.is_some())
}
