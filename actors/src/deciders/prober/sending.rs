//! Sends the probes of one tunnel, and the notice of a metered node with them.

use super::*;

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
    if let Err(error) = sockets.send_probe(tunnel.address, link, seq.0) {
        tracing::debug!(tunnel = %slot, %error, "probe not sent");
        tunnel.link = None;
    }
    if is_metered {
        sockets.notify_metered(tunnel.address, link);
    }
}
