//! Sends the probes of one tunnel, and the notice of a metered node with them.

use super::*;
use os::path_mtu::reduce_path_mtu;
use policies::path_mtu::{FullSize, PathAction};

/// Sends a probe through the tunnel if one is due.
pub(super) fn send_due_probe(
    sockets: Option<&Sockets>,
    slot: Slot,
    tunnel: &mut Tunnel,
    is_metered: bool,
    now: Uptime,
) {
    let Some(sockets) = sockets else { return };
    tunnel.link = tunnel.link.or_else(|| link_index(slot));
    let Some(link) = tunnel.link else { return };
    let Some(seq) = tunnel.probing.next_probe(now) else {
        return;
    };
    tunnel.sent_at = Some(now);
    if let Err(error) = sockets.send_probe(tunnel.address, link, ProbeKind::Liveness, seq.0) {
        tracing::debug!(tunnel = %slot, %error, "probe not sent");
        tunnel.link = None;
    }
    if is_metered {
        sockets.notify_metered(tunnel.address, link);
    }
}

/// Asks the peers of all tunnels whether they still reach this node, but those of metered tunnels.
pub(super) fn ask_neighbours(sockets: Option<&Sockets>, tunnels: &mut BTreeMap<Slot, Tunnel>) {
    let Some(sockets) = sockets else { return };
    for (slot, tunnel) in tunnels {
        let Some(link) = tunnel.link.filter(|_| !tunnel.is_metered) else {
            continue;
        };
        tunnel.probing.count_sent_frame();
        if let Err(error) = sockets.send_probe(tunnel.address, link, ProbeKind::Question, 0) {
            tracing::debug!(tunnel = %slot, %error, "question not sent");
        }
    }
}

/// Sends a full-size probe through the tunnel if one is due, and reduces the MTU of a path that drops large packets.
pub(super) fn check_path(
    sockets: Option<&Sockets>,
    slot: Slot,
    tunnel: &mut Tunnel,
    openvpn_uid: u32,
    now: Uptime,
) {
    let (Some(sockets), Some(link)) = (sockets, tunnel.link) else {
        return;
    };
    let Some(endpoint) = tunnel.endpoint else {
        return;
    };
    let rtt = tunnel.probing.rtt();
    let large_bytes = tunnel.probing.large_bytes();
    let lacks_answers = tunnel.probing.lacks_answers(now);
    while let Some(action) = tunnel
        .path_mtu
        .next_action(rtt, large_bytes, lacks_answers, now)
    {
        match action {
            PathAction::Probe(sequence) => {
                for kind in [ProbeKind::FullSize, ProbeKind::Small] {
                    tunnel.probing.count_sent_frame();
                    if let Err(error) = sockets.send_probe(tunnel.address, link, kind, sequence) {
                        tracing::debug!(tunnel = %slot, ?kind, %error, "probe not sent");
                    }
                }
            }
            PathAction::ReduceMtu => {
                let address = endpoint.address.ip();
                if !tunnel.is_path_reduced {
                    tunnel.is_path_reduced = true;
                    tracing::info!(tunnel = %slot, peer = %tunnel.peer, %address, "large packets do not pass the path to the peer; sending them in fragments");
                }
                if let Err(error) = reduce_path_mtu(address, openvpn_uid) {
                    tracing::debug!(tunnel = %slot, %address, %error, "cannot reduce the MTU of the path");
                }
            }
        }
    }
    let full_size = tunnel.path_mtu.full_size();
    if full_size == FullSize::Lost && tunnel.reported_full_size != FullSize::Lost {
        tracing::warn!(
            tunnel = %slot, peer = %tunnel.peer, address = %endpoint.address.ip(),
            "the tunnel carries small packets only: the path drops large packets and fragments; let a firewall on the path pass fragments, or ICMP"
        );
    }
    tunnel.reported_full_size = full_size;
}
