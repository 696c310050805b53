//! Counts the frames of all nodes by what they are for: on the tunnels, and on the underlay below them.
//!
//! Each node has one thread in its namespace, with one packet socket (packet(7)) that gets a copy of each frame of each
//! link, in both directions. Its module `kinds` determines what a frame is for.

mod kinds;

pub use kinds::{TunnelKind, UnderlayKind};

use crate::{Lab, kernel_routes, netns};
use anyhow::{Context, Result, anyhow};
use nix::{
    errno::Errno,
    net::if_::if_indextoname,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket,
        sockopt,
    },
};
use std::{
    collections::BTreeMap,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Sender, channel},
    },
    thread::{self, JoinHandle},
};

/// The link on which a node of the lab reaches the internet.
const UPLINK: &str = "eth0";
/// The packet type of a frame that this host sends (packet(7): `PACKET_OUTGOING`).
const OUTGOING: u8 = 4;
/// The packet type of a frame for another host, which the bridge floods (packet(7): `PACKET_OTHERHOST`).
const OTHER_HOST: u8 = 3;
/// Longest wait for a frame before the counter looks whether it should stop, in milliseconds.
const POLL_TIMEOUT_MS: u8 = 50;
/// Longest frame that a link of the lab passes on, segmentation offload included.
const MAX_FRAME: usize = 1 << 16;
/// Bytes of each socket's buffer, for the frames that arrive while the thread is not scheduled.
const SOCKET_BUFFER_BYTES: usize = 8 << 20;

/// Frames and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameCount {
    /// Number of frames.
    pub frames: u64,
    /// Bytes with the Ethernet headers.
    pub bytes: u64,
}

impl FrameCount {
    fn add(&mut self, frames: u64, bytes: usize) {
        self.frames += frames;
        self.bytes += u64::try_from(bytes).unwrap_or(u64::MAX);
    }

    /// Both counts together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            frames: self.frames + other.frames,
            bytes: self.bytes + other.bytes,
        }
    }
}

/// The frames that one node sent and received.
#[derive(Clone, Debug, Default)]
pub struct NodeFrames {
    /// Frames on the uplink.
    pub underlay: BTreeMap<UnderlayKind, FrameCount>,
    /// The part of `underlay` that the node sent.
    pub underlay_sent: BTreeMap<UnderlayKind, FrameCount>,
    /// Frames on the slots, by slot.
    pub tunnels: BTreeMap<String, BTreeMap<TunnelKind, FrameCount>>,
}

/// Counts the frames of all nodes until [`FrameCounter::finish`].
#[derive(Debug)]
pub struct FrameCounter {
    should_stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<NodeFrames>>>,
}

impl FrameCounter {
    /// Starts to count the frames of all nodes, and returns once all threads count.
    ///
    /// # Errors
    /// Fails if a namespace cannot be entered or provides no packet socket.
    pub fn start(lab: &Lab) -> Result<Self> {
        let mut counter = Self {
            should_stop: Arc::default(),
            threads: Vec::new(),
        };
        let (opened, openings) = channel();
        for node in lab.nodes() {
            let (namespace, opened) = (node.namespace().to_owned(), opened.clone());
            let should_stop = Arc::clone(&counter.should_stop);
            let count = move || count_in(&namespace, &opened, &should_stop);
            counter.threads.push(thread::spawn(count));
        }
        for _ in lab.nodes() {
            openings.recv().context("a counting thread ended")??;
        }
        Ok(counter)
    }

    /// Stops to count. Returns what each node sent and received, by number.
    ///
    /// # Errors
    /// Fails if a packet socket failed.
    pub fn finish(mut self) -> Result<Vec<NodeFrames>> {
        self.should_stop.store(true, Ordering::Relaxed);
        let threads = std::mem::take(&mut self.threads);
        let join = |thread: JoinHandle<Result<NodeFrames>>| {
            thread
                .join()
                .map_err(|_| anyhow!("a counting thread panicked"))?
        };
        threads.into_iter().map(join).collect()
    }
}

impl Drop for FrameCounter {
    fn drop(&mut self) {
        self.should_stop.store(true, Ordering::Relaxed);
    }
}

/// Counts in the namespace until `should_stop`; reports through `opened` whether the socket could be opened.
fn count_in(
    namespace: &str,
    opened: &Sender<Result<()>>,
    should_stop: &AtomicBool,
) -> Result<NodeFrames> {
    let socket = match netns::enter(namespace).and_then(|()| open_packet_socket()) {
        Ok(socket) => socket,
        Err(error) => {
            opened.send(Err(error)).ok();
            return Ok(NodeFrames::default());
        }
    };
    opened.send(Ok(())).ok();
    let mut frames = NodeFrames::default();
    let mut links = BTreeMap::new();
    let mut buffer = vec![0; MAX_FRAME];
    while !should_stop.load(Ordering::Relaxed) {
        let mut ready = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, PollTimeout::from(POLL_TIMEOUT_MS)) {
            Ok(0) | Err(Errno::EINTR) => continue,
            other => other.context("cannot wait for frames")?,
        };
        let (length, from) = recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer)
            .context("cannot receive a frame")?;
        let Some(from) = from else { continue };
        let link = links
            .entry(from.ifindex())
            .or_insert_with(|| link_name(from.ifindex()));
        if from.pkttype() == OTHER_HOST && link == UPLINK {
            continue;
        }
        let frame = buffer.get(..length).unwrap_or_default();
        frames.count(link, frame, from.pkttype() == OUTGOING);
    }
    Ok(frames)
}

/// Opens a socket that gets all frames of all links of the thread's namespace.
fn open_packet_socket() -> Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::EthAll,
    )
    .context("cannot open a packet socket")?;
    setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BUFFER_BYTES)
        .context("cannot enlarge the buffer of a packet socket")?;
    Ok(socket)
}

fn link_name(index: usize) -> String {
    let name = u32::try_from(index).map(if_indextoname);
    let name = name.ok().and_then(Result::ok);
    name.map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

impl NodeFrames {
    fn count(&mut self, link: &str, frame: &[u8], is_sent: bool) {
        if link == UPLINK {
            let kind = UnderlayKind::of(frame);
            self.underlay.entry(kind).or_default().add(1, frame.len());
            if is_sent {
                let sent = self.underlay_sent.entry(kind).or_default();
                sent.add(1, frame.len());
            }
        } else if kernel_routes::is_dialling_slot(link) || kernel_routes::is_accepting_slot(link) {
            let slot = self.tunnels.entry(link.to_owned()).or_default();
            for (kind, frames, bytes) in kinds::split_tunnel_frame(frame) {
                slot.entry(kind).or_default().add(frames, bytes);
            }
        }
    }
}
