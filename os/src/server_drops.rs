//! Reads how many frames the kernel dropped because a server's OpenVPN did not read its TAP in time.
//!
//! The frames of all accepted tunnels of a transport wait in that one TAP. Their slots count them as sent before.

use crate::kernel::server_name;
use policies::names::Transport;
use std::path::Path;

/// The kernel states a size of one page for each file below /sys.
const MAX_BYTES: u64 = 4_096;

/// Returns the frames that were dropped since the server's TAP was created; `None` if there is no such TAP.
pub fn dropped_frames(transport: Transport) -> Option<u64> {
    let name = server_name(transport);
    let file = format!("/sys/class/net/{name}/statistics/tx_dropped");
    let text = files::read_text(Path::new(&file), MAX_BYTES).ok()?;
    text.trim().parse().ok()
}
