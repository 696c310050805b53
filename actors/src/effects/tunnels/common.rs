//! What servers and dials share: settings, the tunnel table, and the receivers of facts.

use super::command_line::OpenvpnFiles;
use crate::{
    effects::link_orders::{LinkOrder, LinkOrderQueue},
    hole_punches::SharedHolePunches,
    live_settings::SharedLiveSettings,
    messages::{Decided, KeyShared, TunnelCameUp, TunnelClosed, TunnelOpened, WaitOverdue},
    store::{DialHistory, Loss, TunnelTable},
};
use actix::Recipient;
use membership::{documents::DocumentStore, node_names::NodeNames};
use os::{
    clock::Clock,
    process::{ChildEvents, Program, Rights},
};
use policies::{
    names::{Endpoint, Prefix, Slot, Transport},
    node_name::NodeName,
    observation::{Phase, TunnelReading},
    orders::CloseReason,
    route_checks::RouteChecks,
    shared_keys::{PresentTunnel, SharedKeys},
    units::Uptime,
};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    ffi::OsString,
    net::IpAddr,
    path::PathBuf,
    rc::Rc,
};
use tracing::field::{DisplayValue, display};
use wire::overlay::Network;

/// The settings of the tunnels actor.
#[derive(Clone, Debug)]
pub struct TunnelSettings {
    /// The prefix of this node.
    pub me: Prefix,
    /// The network, which maps a node's prefix to its range.
    pub network: Network,
    /// The path of OpenVPN's executable.
    pub openvpn: PathBuf,
    /// The rights of OpenVPN processes.
    pub rights: Rights,
    /// The paths of certificates and keys, and what else all OpenVPN processes have in common.
    pub files: OpenvpnFiles,
    /// The transport and the port of each server.
    pub servers: Vec<(Transport, u16)>,
    /// Maximum number of dialling slots.
    pub max_dialling_slots: u16,
    /// Maximum number of accepted tunnels, over both transports.
    pub max_accepted: u16,
    /// The folder in which each child has a folder, such as `/run/warren/child`.
    pub children: PathBuf,
}

/// The receivers of facts about tunnels.
#[derive(Clone)]
pub struct Facts {
    /// The receiver of `TunnelOpened`.
    pub opened: Recipient<TunnelOpened>,
    /// The receiver of `TunnelCameUp`.
    pub came_up: Recipient<TunnelCameUp>,
    /// The receiver of `TunnelClosed`.
    pub closed: Recipient<TunnelClosed>,
    /// The receiver of `Decided`, about orders of rolling restarts and revocations.
    pub decided: Recipient<Decided>,
    /// The receiver of `WaitOverdue`.
    pub overdue: Recipient<WaitOverdue>,
    /// The receiver of `KeyShared`.
    pub key_shared: Recipient<KeyShared>,
}

/// What servers and dials share.
pub(super) struct Common {
    pub(super) settings: TunnelSettings,
    pub(super) clock: Clock,
    pub(super) table: Rc<RefCell<TunnelTable>>,
    pub(super) links: LinkOrderQueue,
    pub(super) facts: Facts,
    pub(super) events: ChildEvents,
    pub(super) seed: u64,
    pub(super) documents: DocumentStore,
    pub(super) names: NodeNames,
    pub(super) is_shutting_down: Cell<bool>,
    pub(super) live_settings: SharedLiveSettings,
    pub(super) route_checks: Rc<RefCell<RouteChecks>>,
    pub(super) shared_keys: Rc<RefCell<SharedKeys>>,
    pub(super) punches: SharedHolePunches,
    /// The slots through which hellos arrived lately, at babeld's last reading.
    pub(super) heard: RefCell<BTreeSet<Slot>>,
}

impl Common {
    pub(super) fn now(&self) -> Uptime {
        self.clock.now()
    }

    /// The current limit of accepted tunnels. It never exceeds the number of accepting slots.
    pub(super) fn max_accepted(&self) -> u16 {
        let local_limit = self.live_settings.load().limits.max_accepted;
        let documents = self.documents.load();
        let network_limit = documents
            .network()
            .map_or(u16::MAX, |network| network.parameters.max_accepted);
        self.settings
            .max_accepted
            .min(local_limit)
            .min(network_limit)
    }

    /// The path of the management socket of a child.
    pub(super) fn management_socket(&self, child: &str) -> PathBuf {
        self.settings.children.join(child).join("management.sock")
    }

    pub(super) fn program(&self, name: String, args: Vec<OsString>) -> Program {
        Program {
            path: self.settings.openvpn.clone(),
            args,
            rights: self.settings.rights,
            pid_file: self.settings.children.join(format!("{name}.pid")),
            management: Some(self.management_socket(&name)),
            name,
        }
    }

    pub(super) fn is_revoked(&self, serial: &str) -> bool {
        self.documents.load().is_serial_revoked(serial)
    }

    /// Returns the name of a node for the log.
    pub(super) fn name_of(&self, node: Prefix) -> Option<DisplayValue<NodeName>> {
        self.names.load().get(node).cloned().map(display)
    }

    pub(super) fn is_shutting_down(&self) -> bool {
        self.is_shutting_down.get()
    }

    pub(super) fn dial_history(&self, peer: Prefix) -> DialHistory {
        self.table
            .borrow()
            .dials
            .get(&peer)
            .copied()
            .unwrap_or_default()
    }

    /// Returns the tunnel that this peer has dialled, over either transport.
    pub(super) fn tunnel_of(&self, peer: Prefix) -> Option<PresentTunnel> {
        let table = self.table.borrow();
        let accepted = table.tunnels.values();
        let mut accepted = accepted
            .filter(|tunnel| tunnel.peer == peer && matches!(tunnel.slot, Slot::Accepting(..)));
        let tunnel = accepted.next()?;
        Some(PresentTunnel {
            from: tunnel.endpoint?.address.ip().to_canonical(),
            is_heard: self.heard.borrow().contains(&tunnel.slot),
        })
    }

    /// Returns the port from which this peer is to be dialled, if these endpoints are the end of a path that was opened through NATs; then the
    /// tunnel on the slot counts as one that came by hole punching.
    pub(super) fn note_punched_port(
        &self,
        slot: Slot,
        peer: Prefix,
        endpoints: &[Endpoint],
    ) -> Option<u16> {
        let path = *self.table.borrow().punched.get(&peer)?;
        if endpoints != [path.endpoint] {
            return None;
        }
        self.note_punched(slot);
        Some(path.local_port)
    }

    /// Records that the tunnel on a slot came by hole punching.
    pub(super) fn note_punched(&self, slot: Slot) {
        self.table.borrow_mut().punched_slots.insert(slot);
    }

    /// Returns the address of the peer, if the tunnel on the slot came by hole punching.
    pub(super) fn punched_from(&self, slot: Slot) -> Option<IpAddr> {
        let table = self.table.borrow();
        let tunnel = table.tunnels.get(&slot)?;
        let endpoint = tunnel
            .endpoint
            .filter(|_| table.punched_slots.contains(&slot))?;
        Some(endpoint.address.ip().to_canonical())
    }

    /// Adds a new tunnel to the table, and reports it.
    pub(super) fn add_tunnel(&self, tunnel: TunnelReading) {
        let TunnelReading {
            slot, peer, since, ..
        } = tunnel;
        self.table.borrow_mut().tunnels.insert(slot, tunnel);
        self.facts.opened.do_send(TunnelOpened {
            at: since,
            is_up: false,
            slot,
            peer,
        });
    }

    /// Adds a tunnel that was handed over, and reports it; restores what belongs to a tunnel that is up.
    pub(super) fn take_over_tunnel(&self, tunnel: TunnelReading) {
        let TunnelReading {
            slot, peer, since, ..
        } = tunnel;
        let up_since = tunnel.up_since;
        self.table.borrow_mut().tunnels.insert(slot, tunnel);
        self.facts.opened.do_send(TunnelOpened {
            at: up_since.unwrap_or(since),
            is_up: up_since.is_some(),
            slot,
            peer,
        });
        if up_since.is_some() {
            self.links.order(LinkOrder::Unsilence(slot));
            self.links.order(LinkOrder::RequestRoutes(slot, peer));
        }
    }

    pub(super) fn set_phase(&self, slot: Slot, phase: Phase) {
        if let Some(tunnel) = self.table.borrow_mut().tunnels.get_mut(&slot)
            && tunnel.phase != phase
        {
            tunnel.phase = phase;
            tunnel.since = self.now();
        }
    }

    /// Replaces the reason of a running drain by that of `draining`. Unlike [`set_phase`](Self::set_phase), this
    /// keeps the time at which the drain started.
    pub(super) fn set_drain_reason(&self, slot: Slot, draining: Phase) {
        if let Some(tunnel) = self.table.borrow_mut().tunnels.get_mut(&slot) {
            tunnel.phase = draining;
        }
    }

    /// Sets a tunnel up in the table, lets babeld use it, and reports it.
    pub(super) fn report_up(&self, slot: Slot, peer: Prefix) {
        let at = self.now();
        self.set_phase(slot, Phase::Up);
        let mut endpoint = None;
        if let Some(tunnel) = self.table.borrow_mut().tunnels.get_mut(&slot) {
            tunnel.up_since.get_or_insert(at);
            endpoint = tunnel.endpoint;
        }
        self.links.order(LinkOrder::Unsilence(slot));
        self.links.order(LinkOrder::RequestRoutes(slot, peer));
        let endpoint = endpoint.map(tracing::field::display);
        let name = self.name_of(peer);
        tracing::info!(tunnel = %slot, %peer, name, endpoint, "tunnel up");
        self.facts.came_up.do_send(TunnelCameUp { at, slot, peer });
    }

    /// Records that an accepted tunnel to this peer closed although OpenVPN did not notify the client, so that the peer
    /// is asked to probe it.
    pub(super) fn note_unannounced_close(&self, peer: Prefix) {
        if !self.is_shutting_down() {
            self.table.borrow().lost_peers.note(peer, Loss::Unannounced);
        }
    }

    /// Removes a tunnel from the table, and reports that it closed.
    pub(super) fn report_closed(&self, slot: Slot, reason: CloseReason) {
        let Some(tunnel) = self.table.borrow_mut().tunnels.remove(&slot) else {
            return;
        };
        let at = self.now();
        self.table.borrow_mut().punched_slots.remove(&slot);
        self.table.borrow_mut().closed_at = Some(at);
        let decided_at = match tunnel.phase {
            Phase::Closing => tunnel.since,
            Phase::Connecting | Phase::Up | Phase::Draining { .. } => at,
        };
        let lived = tunnel
            .up_since
            .map(|since| at.since(since))
            .unwrap_or_default();
        let peer = tunnel.peer;
        let name = self.name_of(peer);
        tracing::info!(tunnel = %slot, %peer, name, %reason, lived_s = lived.as_secs(), "tunnel closed");
        if reason == CloseReason::PeerDead {
            self.table.borrow().lost_peers.note(peer, Loss::Silent);
        }
        self.facts.closed.do_send(TunnelClosed {
            at,
            slot,
            peer,
            decided_at,
            reason,
            lived,
        });
    }
}
