//! One OpenVPN server and the tunnels it accepts, each on an accepting slot of its own.
//!
//! The daemon decides about each CONNECT and REAUTH by the name and the serial numbers of the verified
//! certificate, never by anything else that the peer sends.

mod admission;
mod handed;

use super::{Common, server_args};
use crate::effects::link_orders::LinkOrder;
use membership::documents::CurrentDocuments;
use os::process::{Capabilities, ChildEvent, Happened, Program, Rights, Supervised};
use policies::{
    life::{Event, Limits, State},
    names::{Endpoint, FIRST_VLAN, Prefix, Slot, Transport},
    observation::{Phase, TunnelReading},
    orders::CloseReason,
    units::Uptime,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};
use wire::{
    dial_failure::revoked_of_log,
    management::{self, ClientEnv, ClientId, Decoder, KeyId, StateName},
};

/// Time after an accepted tunnel closed for which its slot is not used again. It is longer than OpenVPN
/// keeps a UDP client after `client-kill`: 4.6 to 5.0 s (measured).
const ACCEPTING_COOLDOWN: Duration = Duration::from_secs(6);

/// Time between the notice to the clients of a server and its SIGTERM, in which OpenVPN sends that notice.
const NOTICE_TIME: Duration = Duration::from_millis(100);

/// Interval at which a server that is up is asked for a sign of life.
const ASK_INTERVAL: Duration = Duration::from_secs(3);

/// A server that has not answered for this long is stuck, such as one that got SIGSTOP: three questions.
const MAX_SILENCE: Duration = Duration::from_secs(10);

/// The server of one transport.
#[derive(Debug)]
pub(super) struct Server {
    transport: Transport,
    process: Supervised,
    decoder: Decoder,
    accepted: BTreeMap<Slot, Accepted>,
    /// When the process was last started, and so read its certificates and keys.
    started_at: Uptime,
    /// Whether new clients are admitted; they are not while the server drains before a restart.
    is_accepting: bool,
    /// Whether this node has stopped the process in order to start it again.
    is_restarting: bool,
    /// When the process gets SIGTERM, after its clients have been notified.
    stop_at: Option<Uptime>,
    /// When the process was last asked for a sign of life.
    asked_at: Uptime,
}

/// One accepted tunnel.
#[derive(Debug)]
struct Accepted {
    peer: Prefix,
    /// The client id of the present session; a late DISCONNECT of an earlier session has another one.
    client: ClientId,
    /// The source address of the client.
    from: Option<SocketAddr>,
    /// The serial numbers of the client's certificate and of the CA certificate that signed it, hexadecimal.
    serials: [String; 2],
}

/// The slot of an accepted tunnel that closed, and the reason.
pub(super) type ClosedTunnel = (Slot, CloseReason);

impl Server {
    /// Returns the program of a server, and the limits of its life.
    fn program(common: &Common, transport: Transport, port: u16) -> (Program, Limits) {
        let name = format!("server-{transport}");
        let settings = &common.settings;
        let management = common.management_socket(&name);
        let args = server_args(
            &settings.files,
            transport,
            port,
            settings.max_accepted,
            &management,
        );
        let program = common.program(name, args);
        let rights = Rights {
            capabilities: Capabilities::for_port(port),
            ..program.rights
        };
        let program = Program { rights, ..program };
        let limits = Limits {
            start: Duration::from_secs(10),
            silence: Some(MAX_SILENCE),
            ..Limits::default()
        };
        (program, limits)
    }

    /// Starts the server.
    pub(super) fn open(common: &Common, transport: Transport, port: u16) -> Self {
        let (program, limits) = Self::program(common, transport, port);
        let process = Supervised::new(program, limits, common.seed);
        let mut server = Self::with_process(common, transport, process);
        server
            .process
            .handle(Event::Wanted, common.now(), &common.events);
        server
    }

    /// The server of this process, which has no clients yet.
    fn with_process(common: &Common, transport: Transport, process: Supervised) -> Self {
        Self {
            transport,
            process,
            decoder: Decoder::default(),
            accepted: BTreeMap::new(),
            started_at: common.now(),
            is_accepting: true,
            is_restarting: false,
            stop_at: None,
            asked_at: common.now(),
        }
    }

    /// Handles an event of the server's process; returns the tunnels that closed because of it.
    pub(super) fn handle_child_event(
        &mut self,
        common: &Common,
        event: &ChildEvent,
    ) -> Vec<ClosedTunnel> {
        if !self.process.handle_child_event(event, common.now()) {
            return Vec::new();
        }
        match &event.happened {
            Happened::ManagementConnected => {
                self.decoder = Decoder::default();
                self.process.send_command(format!(
                    "{}{}",
                    management::STATE_ON,
                    management::HOLD_RELEASE
                ));
                Vec::new()
            }
            Happened::Management(bytes) => {
                let events = self.decoder.feed(bytes);
                events
                    .into_iter()
                    .filter_map(|event| self.handle_management_event(common, event))
                    .collect()
            }
            Happened::Logged(line) => {
                if let Some(peer) = revoked_of_log(line) {
                    let name = common.name_of(peer);
                    tracing::info!(%peer, name, transport = %self.transport, "client rejected: its certificate is revoked");
                }
                self.on_client_exit(common, line).into_iter().collect()
            }
            Happened::Released => Vec::new(),
            Happened::Exited { .. } => self.on_exit(common),
        }
    }

    fn on_exit(&mut self, common: &Common) -> Vec<ClosedTunnel> {
        let is_planned = std::mem::take(&mut self.is_restarting);
        let reason = match is_planned {
            true => CloseReason::Renewed,
            false => CloseReason::ProcessDied,
        };
        let close = |(slot, accepted): (Slot, Accepted)| {
            common.links.order(LinkOrder::Down(slot));
            if !is_planned {
                common.note_unannounced_close(accepted.peer);
            }
            (slot, reason)
        };
        let closed = std::mem::take(&mut self.accepted)
            .into_iter()
            .map(close)
            .collect();
        self.tick(common);
        closed
    }

    fn handle_management_event(
        &mut self,
        common: &Common,
        event: management::Event,
    ) -> Option<ClosedTunnel> {
        match event {
            management::Event::Hold => self
                .process
                .send_command(management::HOLD_RELEASE.to_owned()),
            management::Event::State(state) if state.name == StateName::Connected => {
                tracing::info!(transport = %self.transport, "server listens");
                self.process
                    .handle(Event::Ready, common.now(), &common.events);
            }
            management::Event::ClientConnect { cid, kid, env } => {
                let answer = self.answer(common, (cid, kid), &env);
                let wake_up = management::client_pending_auth(cid, kid);
                self.process.send_command(format!("{wake_up}{answer}"));
            }
            management::Event::ClientReauth { cid, kid, env } => {
                let answer = self.answer(common, (cid, kid), &env);
                self.process.send_command(answer);
            }
            management::Event::ClientEstablished { cid, .. } => self.on_established(common, cid),
            management::Event::ClientDisconnect { cid, .. } => {
                return self.on_disconnect(common, cid);
            }
            management::Event::State(_)
            | management::Event::Notify { .. }
            | management::Event::Log { .. }
            | management::Event::Success(_)
            | management::Event::Error(_)
            | management::Event::Info(_)
            | management::Event::Fatal(_)
            | management::Event::AuthFailed
            | management::Event::ByteCount { .. }
            | management::Event::ClientByteCount { .. }
            | management::Event::Oversize
            | management::Event::Other(_) => {}
        }
        None
    }

    /// Closes the tunnel of a client that has exited, if that is what the log line says; OpenVPN itself
    /// reports the disconnect only 5 s later.
    fn on_client_exit(&mut self, common: &Common, line: &str) -> Option<ClosedTunnel> {
        let (peer, from) = management::leave_of_log(line)?;
        let from = Some(from);
        let slot = self.slot_of(|accepted| accepted.peer == peer && accepted.from == from)?;
        self.accepted.remove(&slot);
        common.links.order(LinkOrder::Down(slot));
        cool_down(common, slot);
        Some((slot, self.close_reason(CloseReason::PeerClosed)))
    }

    fn slot_of(&self, is_it: impl Fn(&Accepted) -> bool) -> Option<Slot> {
        let mut accepted = self.accepted.iter();
        accepted.find_map(|(slot, accepted)| is_it(accepted).then_some(*slot))
    }

    fn on_established(&mut self, common: &Common, client: ClientId) {
        let slot = self.slot_of(|accepted| accepted.client == client);
        let Some((slot, peer)) = slot.and_then(|slot| Some((slot, self.accepted.get(&slot)?.peer)))
        else {
            return;
        };
        let mut table = common.table.borrow_mut();
        // A client that came by hole punching does not show that others reach this node, too.
        table.was_reached |= !table.punched_slots.contains(&slot);
        drop(table);
        common.links.order(LinkOrder::Up(slot));
        common.report_up(slot, peer);
    }

    fn on_disconnect(&mut self, common: &Common, client: ClientId) -> Option<ClosedTunnel> {
        let slot = self.slot_of(|accepted| accepted.client == client)?;
        let peer = self.accepted.get(&slot)?.peer;
        self.accepted.remove(&slot);
        common.links.order(LinkOrder::Down(slot));
        // A server that is killed by SIGTERM reports this of each client, but notifies none.
        if !self.is_restarting {
            common.note_unannounced_close(peer);
        }
        Some((slot, self.close_reason(CloseReason::PeerClosed)))
    }

    /// Returns the true reason of a close: while the server restarts, clients disconnect and answer no probes
    /// because of the restart, whatever `reason` says.
    fn close_reason(&self, reason: CloseReason) -> CloseReason {
        if self.is_restarting {
            CloseReason::Renewed
        } else {
            reason
        }
    }

    /// Disconnects the client of a slot, which closes its tunnel. Returns `None` if the slot has no client.
    pub(super) fn close(
        &mut self,
        common: &Common,
        slot: Slot,
        reason: CloseReason,
    ) -> Option<ClosedTunnel> {
        let accepted = self.accepted.remove(&slot)?;
        let reason = self.close_reason(reason);
        common.links.order(LinkOrder::Down(slot));
        self.process
            .send_command(management::client_kill(accepted.client));
        cool_down(common, slot);
        Some((slot, reason))
    }

    /// Returns the slots of clients whose certificate, or whose CA certificate, is revoked.
    pub(super) fn revoked_slots(&self, documents: &CurrentDocuments) -> BTreeSet<Slot> {
        let revoked = self.accepted.iter().filter(|(_, accepted)| {
            accepted
                .serials
                .iter()
                .any(|serial| documents.is_serial_revoked(serial))
        });
        revoked.map(|(slot, _)| *slot).collect()
    }

    /// Returns when the process was last started.
    pub(super) fn started_at(&self) -> Uptime {
        self.started_at
    }

    /// Decides whether new clients are admitted or rejected.
    pub(super) fn set_accepting(&mut self, is_accepting: bool) {
        self.is_accepting = is_accepting;
    }

    /// Returns the slots of all clients.
    pub(super) fn slots(&self) -> BTreeSet<Slot> {
        self.accepted.keys().copied().collect()
    }

    /// Stops the process, so that it is started again.
    pub(super) fn restart(&mut self, common: &Common) {
        self.is_restarting = true;
        self.started_at = common.now();
        self.stop_after_notice(common);
    }

    /// Stops the process for good.
    pub(super) fn stop(&mut self, common: &Common) {
        self.is_restarting = false;
        self.stop_after_notice(common);
    }

    /// Disconnects all clients, and stops the process once they are notified. A client that is not notified would
    /// take its tunnel for up until it misses answers.
    fn stop_after_notice(&mut self, common: &Common) {
        for accepted in self.accepted.values() {
            self.process
                .send_command(management::client_kill(accepted.client));
        }
        let notice_time = match self.accepted.is_empty() {
            true => Duration::ZERO,
            false => NOTICE_TIME,
        };
        self.stop_at = Some(common.now() + notice_time);
        self.stop_if_due(common);
    }

    fn stop_if_due(&mut self, common: &Common) {
        let now = common.now();
        if self.stop_at.take_if(|stop_at| *stop_at <= now).is_none() {
            return;
        }
        self.process.handle(Event::Unwanted, now, &common.events);
        if self.is_restarting {
            self.is_accepting = true;
            // The process is started as soon as it has exited, and reads its files then.
            self.process.handle(Event::Wanted, now, &common.events);
            self.started_at = now;
        }
    }

    /// Lets the life cycle of the process react to the time that has passed.
    pub(super) fn tick(&mut self, common: &Common) {
        self.stop_if_due(common);
        let now = common.now();
        let is_up = matches!(self.process.state(), State::Up { .. });
        if is_up && now.since(self.asked_at) >= ASK_INTERVAL {
            self.asked_at = now;
            self.process.send_command(management::PID.to_owned());
        }
        let did_run = self.process.runs();
        self.process.handle(Event::Tick, now, &common.events);
        if !did_run && self.process.runs() {
            // It was started again after it had exited, and has read the files of now.
            self.started_at = now;
        }
    }

    /// Returns the state of the process.
    pub(super) fn reading(&self) -> os::process::ProcessReading {
        self.process.reading()
    }
}

/// Keeps the slot of a closed tunnel free for a while.
fn cool_down(common: &Common, slot: Slot) {
    let until = common.now() + ACCEPTING_COOLDOWN;
    let mut table = common.table.borrow_mut();
    table.cooldown_until.insert(slot, until);
}
