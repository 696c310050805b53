//! Reads from /proc/net how many packets the kernel dropped since a socket's receive buffer was full.
//!
//! Sockets of other users are recognised by user and port only, since the kernel shows to tracers alone whose file
//! descriptor a socket is.

use procfs::process::{FDTarget, Process};
use std::{collections::BTreeMap, fs, io};

/// One UDP socket of the daemon's network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpSocket {
    /// The number of the socket, which no other one has.
    pub inode: u64,
    /// The user who opened it.
    pub uid: u32,
    /// The local port.
    pub port: u16,
    /// Number of datagrams that were dropped since the socket was opened.
    pub dropped: u64,
}

/// Returns the UDP sockets of a user, of IPv4 and IPv6.
///
/// # Errors
/// /proc/net cannot be read. A kernel without IPv6 has IPv4 sockets only.
pub fn udp_sockets(uid: u32) -> io::Result<Vec<UdpSocket>> {
    let mut text = fs::read_to_string("/proc/self/net/udp")?;
    match fs::read_to_string("/proc/self/net/udp6") {
        Ok(more) => text += &more,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let sockets = text.lines().filter_map(parse_udp);
    Ok(sockets.filter(|socket| socket.uid == uid).collect())
}

/// Reads one line of /proc/net/udp; `None` for its heading.
fn parse_udp(line: &str) -> Option<UdpSocket> {
    let columns: Vec<_> = line.split_ascii_whitespace().collect();
    let (_, port) = columns.get(1)?.rsplit_once(':')?;
    Some(UdpSocket {
        inode: columns.get(9)?.parse().ok()?,
        uid: columns.get(7)?.parse().ok()?,
        port: u16::from_str_radix(port, 16).ok()?,
        dropped: columns.get(12)?.parse().ok()?,
    })
}

/// Returns the number of messages that were dropped on each netlink socket of this process, by its inode.
///
/// # Errors
/// /proc cannot be read.
pub fn own_netlink_drops() -> io::Result<BTreeMap<u64, u64>> {
    let descriptors = Process::myself().and_then(|process| process.fd());
    let descriptors = descriptors.map_err(io::Error::other)?;
    let socket = |target| {
        if let FDTarget::Socket(inode) = target {
            Some(inode)
        } else {
            None
        }
    };
    let own = descriptors.filter_map(|descriptor| socket(descriptor.ok()?.target));
    let own: std::collections::BTreeSet<_> = own.collect();
    let text = fs::read_to_string("/proc/self/net/netlink")?;
    let all = text.lines().filter_map(parse_netlink);
    Ok(all.filter(|(inode, _)| own.contains(inode)).collect())
}

/// Returns inode and drops from one line of /proc/net/netlink; `None` for its heading.
fn parse_netlink(line: &str) -> Option<(u64, u64)> {
    let mut columns = line.split_ascii_whitespace().skip(8);
    let dropped = columns.next()?.parse().ok()?;
    Some((columns.next()?.parse().ok()?, dropped))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{
        AddressFamily, SockFlag, SockProtocol, SockType, setsockopt, socket, sockopt::RcvBuf,
    };
    use std::{net::UdpSocket as Socket, os::fd::AsRawFd};

    fn inode(socket: &impl AsRawFd) -> u64 {
        let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
        let target = fs::read_link(path).unwrap();
        let target = target.to_str().unwrap();
        let number = target.trim_start_matches("socket:[").trim_end_matches(']');
        number.parse().unwrap()
    }

    #[test]
    fn datagrams_that_nobody_reads_are_counted_as_dropped() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let receiver = Socket::bind(address).unwrap();
            setsockopt(&receiver, RcvBuf, &4_096).unwrap();
            let to = receiver.local_addr().unwrap();
            let sender = Socket::bind(address).unwrap();
            let sent = 200;
            for _ in 0..sent {
                sender.send_to(&[0; 1_000], to).unwrap();
            }
            let uid = nix::unistd::getuid().as_raw();
            let sockets = udp_sockets(uid).unwrap();
            let inode = inode(&receiver);
            let seen = sockets.iter().find(|socket| socket.inode == inode).unwrap();
            assert_eq!(seen.port, to.port());
            receiver.set_nonblocking(true).unwrap();
            let mut buffer = [0; 2_000];
            let received = std::iter::from_fn(|| receiver.recv(&mut buffer).ok()).count();
            let lost = sent - u64::try_from(received).unwrap();
            assert!(lost > 0);
            assert_eq!(seen.dropped, lost, "{received} of {sent} were received");
        }
    }

    #[test]
    fn sockets_of_another_user_are_left_out() {
        let _socket = Socket::bind("127.0.0.1:0").unwrap();
        assert_eq!(udp_sockets(u32::MAX).unwrap(), []);
    }

    #[test]
    fn the_netlink_sockets_of_this_process_are_found() {
        let netlink = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        );
        let netlink = netlink.unwrap();
        // The kernel lists a socket once it is bound.
        nix::sys::socket::bind(
            netlink.as_raw_fd(),
            &nix::sys::socket::NetlinkAddr::new(0, 0),
        )
        .unwrap();
        assert_eq!(own_netlink_drops().unwrap().get(&inode(&netlink)), Some(&0));
    }
}
