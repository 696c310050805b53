//! The links that are searched, with their sockets.

use super::{Arrived, LanDiscovery};
use crate::messages::LanOutcome;
use actix::Addr;
use membership::documents::is_in_subnet;
use os::{kernel::Segment, link_socket::LinkSocket};
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::Duration,
};
use tokio::task::JoinHandle;
use wire::lan;

/// Pause after an error of a socket, so that a persistent error does not cause a busy loop.
const ERROR_PAUSE: Duration = Duration::from_secs(1);

/// One link with its sockets.
#[derive(Default)]
pub(super) struct Link {
    segment: Segment,
    sockets: Vec<ReadSocket>,
    /// The reason why the link cannot be searched.
    error: Option<String>,
}

/// A socket, and the task that reads it until it is dropped.
struct ReadSocket {
    socket: Rc<LinkSocket>,
    group: IpAddr,
    task: JoinHandle<()>,
}

impl Drop for ReadSocket {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// All links, by index.
#[derive(Default)]
pub(super) struct LinkTable(BTreeMap<u32, Link>);

impl LinkTable {
    /// Replaces the links, keeps the sockets of those that are still there, and opens those that are missing. Returns whether a
    /// link, an address or a socket is new or gone.
    pub(super) fn replace(
        &mut self,
        segments: Vec<Segment>,
        receiver: &Addr<LanDiscovery>,
    ) -> bool {
        let mut old = std::mem::take(&mut self.0);
        let mut has_changed = false;
        for segment in segments {
            let mut link = old.remove(&segment.index).unwrap_or_default();
            has_changed |= link.segment != segment;
            link.segment = segment;
            has_changed |= link.open_missing(receiver);
            self.0.insert(link.segment.index, link);
        }
        has_changed || !old.is_empty()
    }

    pub(super) fn indexes(&self) -> Vec<u32> {
        self.0.keys().copied().collect()
    }

    pub(super) fn get(&self, index: u32) -> Option<&Link> {
        self.0.get(&index)
    }

    /// The names of all links, each with the reason why it cannot be searched.
    pub(super) fn errors(&self) -> BTreeMap<String, Option<String>> {
        let links = self.0.values();
        links
            .map(|link| (link.segment.name.clone(), link.error.clone()))
            .collect()
    }
}

impl Link {
    /// Opens a socket for each address family that the link has and that has none yet; returns whether there is a new one.
    fn open_missing(&mut self, receiver: &Addr<LanDiscovery>) -> bool {
        let before = self.sockets.len();
        let mut errors = Vec::new();
        for group in [IpAddr::from(lan::GROUP4), IpAddr::from(lan::GROUP)] {
            if self.sockets.iter().any(|socket| socket.group == group) {
                continue;
            }
            match open_socket(&self.segment, group, receiver) {
                Ok(socket) => self.sockets.push(socket),
                Err(error) => errors.push(error.to_string()),
            }
        }
        // One family is enough.
        let error = self.sockets.is_empty().then(|| errors.join("; "));
        if let Some(error) = error.as_ref().filter(|_| self.error != error) {
            tracing::warn!(
                link = self.segment.name,
                port = lan::PORT,
                error,
                "link cannot be searched for other nodes"
            );
        }
        self.error = error;
        self.sockets.len() != before
    }

    pub(super) fn segment(&self) -> &Segment {
        &self.segment
    }

    /// Sends a datagram to one node, or to the groups of both families; returns the outcome of each.
    pub(super) fn send(&self, datagram: &[u8], to: Option<SocketAddr>) -> Vec<LanOutcome> {
        let is_of_family =
            |socket: &&ReadSocket| to.is_none_or(|to| to.is_ipv4() == socket.group.is_ipv4());
        let send = |socket: &ReadSocket| {
            let sent = match to {
                Some(to) => socket.socket.send_to(datagram, to),
                None => socket.socket.send_to_group(datagram),
            };
            match sent {
                Ok(()) => LanOutcome::Sent,
                Err(error) => {
                    tracing::debug!(link = self.segment.name, %error, "message to the LAN not sent");
                    LanOutcome::NotSent
                }
            }
        };
        self.sockets.iter().filter(is_of_family).map(send).collect()
    }

    /// Returns whether a datagram from there can be from a node on this link.
    pub(super) fn is_neighbour(&self, from: SocketAddr) -> bool {
        let is_on_link = match from.ip() {
            IpAddr::V4(_) => self.is_other_host(from.ip()),
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        is_on_link && from.port() == lan::PORT
    }

    /// Returns whether the address is in a subnet of this link, and not this host's own.
    pub(super) fn is_other_host(&self, address: IpAddr) -> bool {
        let own = &self.segment.addresses;
        own.iter().any(|own| is_in_subnet(*own, address))
            && own.iter().all(|(own, _)| *own != address)
    }
}

fn open_socket(
    segment: &Segment,
    group: IpAddr,
    receiver: &Addr<LanDiscovery>,
) -> io::Result<ReadSocket> {
    let socket = Rc::new(LinkSocket::open(
        (&segment.name, segment.index),
        group,
        lan::PORT,
    )?);
    let reader = read(Rc::clone(&socket), segment.index, receiver.clone());
    Ok(ReadSocket {
        socket,
        group,
        task: actix_rt::spawn(reader),
    })
}

/// Passes datagrams to the actor, and drops those for which its mailbox has no room.
async fn read(socket: Rc<LinkSocket>, link: u32, receiver: Addr<LanDiscovery>) {
    // One byte more than a valid datagram, so that a longer one is not taken for a valid one.
    let mut bytes = [0; lan::SIZE + 1];
    loop {
        match socket.receive(&mut bytes).await {
            Ok((lan::SIZE, from)) => {
                let bytes = bytes.get(..lan::SIZE).unwrap_or_default().to_vec();
                if receiver.try_send(Arrived { link, from, bytes }).is_err() {
                    tracing::debug!(link, "message from the LAN dropped: the mailbox is full");
                }
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(link, %error, "cannot receive from the LAN");
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
    }
}
