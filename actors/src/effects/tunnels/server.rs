//! One OpenVPN server and the tunnels it accepts: each client gets an accepting slot to itself.
//!
//! The daemon answers each CONNECT and REAUTH by the certificate's name and serial number, never
//! by what the peer claims.

use super::{Common, server};
use crate::effects::link_orders::LinkOrder;
use membership::documents::CurrentDocuments;
use os::process::{ChildEvent, Happened, Supervised};
use policies::{
    life::{Event, Limits},
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
    management::{self, ClientEnv, ClientId, Decoder, StateName},
};

/// After `client-kill` OpenVPN keeps a UDP client for 4.6 to 5.0 s (measured); its slot rests longer.
const RECONNECT_BAN: Duration = Duration::from_secs(6);

/// The server of one transport.
#[derive(Debug)]
pub(super) struct Server {
    transport: Transport,
    process: Supervised,
    decoder: Decoder,
    accepted: BTreeMap<Slot, Accepted>,
    /// The time at which its process started, and so read its files.
    started_at: Uptime,
    /// Whether clients may come in; none may while it drains to restart.
    accepts: bool,
    /// It ends because we want it to.
    restarts: bool,
}

#[derive(Debug)]
struct Accepted {
    peer: Prefix,
    /// Who holds the slot; a late DISCONNECT of an earlier session does not free it.
    client: ClientId,
    /// The source address of the client.
    from: Option<SocketAddr>,
    /// Serial numbers of its certificate and of its CA's, hex.
    serials: [String; 2],
}

/// An accepted tunnel is closed.
pub(super) type ClosedTunnel = (Slot, CloseReason);

impl Server {
    /// Starts the server.
    pub(super) fn open(common: &Common, transport: Transport, port: u16) -> Self {
        let name = format!("server-{transport}");
        let settings = &common.settings;
        let management = common.management(&name);
        let args = server(
            &settings.identity,
            transport,
            port,
            settings.max_accepted,
            &management,
        );
        let program = common.program(name, args);
        let limits = Limits {
            start: Duration::from_secs(10),
            ..Limits::default()
        };
        let mut server = Self {
            transport,
            process: Supervised::new(program, limits, common.seed),
            decoder: Decoder::default(),
            accepted: BTreeMap::new(),
            started_at: common.now(),
            accepts: true,
            restarts: false,
        };
        server
            .process
            .handle(Event::Wanted, common.now(), &common.events);
        server
    }

    /// Handles an event of the server's process; returns the tunnels that are closed by it.
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
                    .filter_map(|event| self.handle_event(common, event))
                    .collect()
            }
            Happened::Logged(line) => {
                if let Some(peer) = revoked_of_log(line) {
                    tracing::info!(%peer, transport = %self.transport, "revoked certificate refused");
                }
                self.client_left(common, line).into_iter().collect()
            }
            Happened::Exited { .. } => {
                let slots: Vec<Slot> = std::mem::take(&mut self.accepted).into_keys().collect();
                let wanted = std::mem::take(&mut self.restarts);
                let reason = if wanted {
                    CloseReason::Renewed
                } else {
                    CloseReason::ProcessDied
                };
                slots
                    .iter()
                    .for_each(|slot| common.links.order(LinkOrder::Down(*slot)));
                slots.into_iter().map(|slot| (slot, reason)).collect()
            }
        }
    }

    fn handle_event(&mut self, common: &Common, event: management::Event) -> Option<ClosedTunnel> {
        match event {
            management::Event::Hold => self
                .process
                .send_command(management::HOLD_RELEASE.to_owned()),
            management::Event::State(state) if state.name == StateName::Connected => {
                tracing::info!(transport = %self.transport, "server listens");
                self.process
                    .handle(Event::Ready, common.now(), &common.events);
            }
            management::Event::ClientConnect { cid, kid, env }
            | management::Event::ClientReauth { cid, kid, env } => {
                let answer = match self.admit(common, cid, &env) {
                    Ok(vlan) => management::client_auth(cid, kid, vlan),
                    Err(reason) => {
                        let name = env.node().map(|peer| peer.to_string()).unwrap_or_default();
                        tracing::info!(peer = name, from = ?env.address(), reason, "client rejected");
                        Some(management::client_deny(cid, kid, reason))
                    }
                };
                self.process.send_command(
                    answer.unwrap_or_else(|| management::client_deny(cid, kid, "no slot")),
                );
            }
            management::Event::ClientEstablished { cid, .. } => self.established(common, cid),
            management::Event::ClientDisconnect { cid, .. } => {
                return self.disconnected(common, cid);
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

    /// A client has closed its session: its tunnel is closed, though OpenVPN reports that only 5 s
    /// later.
    fn client_left(&mut self, common: &Common, line: &str) -> Option<ClosedTunnel> {
        let (peer, from) = management::leave_of_log(line)?;
        let mut accepted_tunnels = self.accepted.iter();
        let (slot, _) = accepted_tunnels
            .find(|(_, accepted)| accepted.peer == peer && accepted.from == Some(from))?;
        let slot = *slot;
        self.accepted.remove(&slot);
        common.links.order(LinkOrder::Down(slot));
        common
            .table
            .borrow_mut()
            .resting
            .insert(slot, common.now() + RECONNECT_BAN);
        Some((slot, self.closed_for(CloseReason::PeerClosed)))
    }

    /// The VLAN that the client gets, or why it is refused.
    fn admit(
        &mut self,
        common: &Common,
        client: ClientId,
        env: &ClientEnv,
    ) -> Result<u16, &'static str> {
        let peer = env.node().ok_or("the certificate names no node")?;
        if peer == common.settings.me {
            return Err("that is our own certificate");
        }
        let serials =
            [&env.serial, &env.ca_serial].map(|serial| serial.clone().unwrap_or_default());
        if serials.iter().any(|serial| common.is_revoked(serial)) {
            return Err("the certificate or its CA is revoked");
        }
        if common.stopping() {
            return Err("this node stops");
        }
        if !self.accepts {
            return Err("this server is about to restart");
        }
        let existing = self
            .accepted
            .iter()
            .find(|(_, accepted)| accepted.peer == peer)
            .map(|(slot, _)| *slot);
        let slot = match existing {
            Some(slot) => slot,
            None => self
                .free_slot(common)
                .ok_or("no more tunnels are accepted")?,
        };
        let again = self
            .accepted
            .get(&slot)
            .is_some_and(|accepted| accepted.client == client);
        if !again {
            self.accepted.insert(
                slot,
                Accepted {
                    peer,
                    client,
                    from: env.address(),
                    serials,
                },
            );
            let endpoint = env.address().map(|address| Endpoint {
                address,
                transport: self.transport,
            });
            common.opened(TunnelReading {
                slot,
                peer,
                phase: Phase::Connecting,
                since: common.now(),
                up_since: None,
                endpoint,
            });
        }
        match slot {
            Slot::Accepting(_, vlan) => Ok(vlan),
            Slot::Dialling(_) => Err("no slot"),
        }
    }

    fn free_slot(&self, common: &Common) -> Option<Slot> {
        let table = common.table.borrow();
        let now = common.now();
        let accepted = table
            .tunnels
            .keys()
            .filter(|slot| matches!(slot, Slot::Accepting(..)))
            .count();
        if accepted >= usize::from(common.max_accepted.get()) {
            return None;
        }
        let end = FIRST_VLAN.saturating_add(common.settings.max_accepted);
        let mut slots = (FIRST_VLAN..end).map(|vlan| Slot::Accepting(self.transport, vlan));
        let rests = |slot: &Slot| table.resting.get(slot).is_some_and(|until| *until > now);
        slots.find(|slot| {
            !table.tunnels.contains_key(slot) && !self.accepted.contains_key(slot) && !rests(slot)
        })
    }

    fn established(&mut self, common: &Common, client: ClientId) {
        let mut accepted_tunnels = self.accepted.iter();
        let Some((slot, accepted)) =
            accepted_tunnels.find(|(_, accepted)| accepted.client == client)
        else {
            return;
        };
        common.table.borrow_mut().was_reached = true;
        common.links.order(LinkOrder::Up(*slot));
        common.came_up(*slot, accepted.peer);
    }

    fn disconnected(&mut self, common: &Common, client: ClientId) -> Option<ClosedTunnel> {
        let mut accepted_tunnels = self.accepted.iter();
        let (slot, _) = accepted_tunnels.find(|(_, accepted)| accepted.client == client)?;
        let slot = *slot;
        self.accepted.remove(&slot);
        common.links.order(LinkOrder::Down(slot));
        Some((slot, self.closed_for(CloseReason::PeerClosed)))
    }

    /// The reason for which a tunnel closes: while the server restarts, its clients leave because of that, and
    /// answer no probes.
    fn closed_for(&self, reason: CloseReason) -> CloseReason {
        if self.restarts {
            CloseReason::Renewed
        } else {
            reason
        }
    }

    /// Disconnects the client of a slot, which closes its tunnel. `None` where the slot is free.
    pub(super) fn close(
        &mut self,
        common: &Common,
        slot: Slot,
        reason: CloseReason,
    ) -> Option<ClosedTunnel> {
        let accepted = self.accepted.remove(&slot)?;
        let reason = self.closed_for(reason);
        common.links.order(LinkOrder::Down(slot));
        self.process
            .send_command(management::client_kill(accepted.client));
        common
            .table
            .borrow_mut()
            .resting
            .insert(slot, common.now() + RECONNECT_BAN);
        Some((slot, reason))
    }

    /// Slots that clients with revoked certificates hold.
    pub(super) fn revoked_slots(&self, documents: &CurrentDocuments) -> BTreeSet<Slot> {
        let revoked = self.accepted.iter().filter(|(_, accepted)| {
            accepted
                .serials
                .iter()
                .any(|serial| documents.is_serial_revoked(serial))
        });
        revoked.map(|(slot, _)| *slot).collect()
    }

    /// Returns the time at which its present process started.
    pub(super) fn started_at(&self) -> Uptime {
        self.started_at
    }

    /// Lets clients in, or rejects them.
    pub(super) fn set_accepts(&mut self, accepts: bool) {
        self.accepts = accepts;
    }

    /// The slots of its clients.
    pub(super) fn slots(&self) -> BTreeSet<Slot> {
        self.accepted.keys().copied().collect()
    }

    /// Ends its process, and starts another.
    pub(super) fn restart(&mut self, common: &Common) {
        (self.accepts, self.restarts) = (true, true);
        self.process
            .handle(Event::Unwanted, common.now(), &common.events);
        // Wanted again, it is started as soon as it has exited, and reads its files then.
        self.process
            .handle(Event::Wanted, common.now(), &common.events);
        self.started_at = common.now();
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, common: &Common) {
        self.process
            .handle(Event::Tick, common.now(), &common.events);
    }

    /// Asks the process to end.
    pub(super) fn stop(&mut self, common: &Common) {
        self.process
            .handle(Event::Unwanted, common.now(), &common.events);
    }

    /// Returns a reading of its process.
    pub(super) fn reading(&self) -> os::process::ProcessReading {
        self.process.reading()
    }
}
