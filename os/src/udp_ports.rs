//! Finds programs that share a UDP port of the node.
//!
//! Two programs can bind one port if both ask for that (`SO_REUSEADDR`), as babeld does; each then receives only some packets.

use std::io;

/// Returns the user of a socket on this port that does not belong to `own_uid`, or of a second socket of `own_uid`; `None` if there
/// is no such socket, or if that cannot be found out.
pub fn other_user(port: u16, own_uid: u32) -> Option<u32> {
    let users = users(port).ok()?;
    let other = users.iter().find(|uid| **uid != own_uid);
    let second = users.iter().filter(|uid| **uid == own_uid).nth(1);
    other.or(second).copied()
}

/// Returns the user of each socket that is bound to this port.
fn users(port: u16) -> io::Result<Vec<u32>> {
    let entries = procfs::net::udp6().map_err(io::Error::other)?;
    let of_port = entries
        .into_iter()
        .filter(|entry| entry.local_address.port() == port);
    Ok(of_port.map(|entry| entry.uid).collect())
}
