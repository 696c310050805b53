//! Asks the router to open its firewall, by PCP (RFC 6887).
//!
//! A request has to be sent from the address that it is for. crab_nat sends from whatever address the kernel chooses, which is a link-local one
//! towards a router that has such an address, so requests are sent here.

use os::randomness::Randomness;
use policies::names::Transport;
use serde::{Deserialize, Serialize};
use std::{
    io,
    net::{Ipv6Addr, SocketAddrV6},
    time::Duration,
};
use tokio::{net::UdpSocket, time::timeout};
use wire::pcp::{self, MapAnswer, MapRequest};

/// Waits for an answer to each request by PCP, which is repeated since a datagram may be lost.
const PCP_WAITS: [Duration; 3] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
];

/// The router of the IPv6 default route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Router {
    /// The address of the router, mostly a link-local one.
    pub address: Ipv6Addr,
    /// The index of the link that leads to it.
    pub link: u32,
}

/// A port of this host for which the firewall is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pinhole {
    /// The address and port of this host.
    pub internal: SocketAddrV6,
    /// UDP or TCP.
    #[serde(with = "crate::sources::port_mapping::ledger::text")]
    pub transport: Transport,
    /// The random number of PCP, without which nobody can renew or end it.
    pub nonce: [u8; pcp::NONCE_LENGTH],
}

impl Pinhole {
    /// Returns whether it is for this port.
    pub(super) fn is_for(&self, internal: SocketAddrV6, transport: Transport) -> bool {
        (self.internal, self.transport) == (internal, transport)
    }

    /// Returns whether both are for the same port.
    pub(super) fn is_for_same_port(&self, other: &Self) -> bool {
        self.is_for(other.internal, other.transport)
    }
}

/// The reason why the firewall is not open.
#[derive(Debug, thiserror::Error)]
pub enum PinholeError {
    /// The router does not answer, or its answer makes no sense.
    #[error("the router does not answer PCP at its IPv6 address")]
    Silent(#[source] io::Error),
    /// The router rejects the request.
    #[error("the router rejects a request by PCP with error {code}")]
    Rejected {
        /// The code of RFC 6887, section 7.4.
        code: u8,
    },
    /// The router would have others use another port or address.
    #[error("the router has a NAT for IPv6")]
    Translated,
}

/// Returns a number for a new pinhole.
pub(super) fn new_nonce(random: &Randomness) -> [u8; pcp::NONCE_LENGTH] {
    let bits = [random.bits(), random.bits()].map(u64::to_be_bytes);
    let mut nonce = [0; pcp::NONCE_LENGTH];
    let bytes = bits.as_flattened().iter();
    nonce
        .iter_mut()
        .zip(bytes)
        .for_each(|(to, from)| *to = *from);
    nonce
}

/// Requests a pinhole, for so long; returns the duration of the lease that was granted. A lease of 0 ends it.
///
/// # Errors
/// The router does not answer, or does not open its firewall.
pub(super) async fn request(
    router: &Router,
    pinhole: &Pinhole,
    lease: Duration,
) -> Result<Duration, PinholeError> {
    let request = MapRequest {
        client: *pinhole.internal.ip(),
        nonce: pinhole.nonce,
        transport: pinhole.transport,
        port: pinhole.internal.port(),
        lease_s: u32::try_from(lease.as_secs()).unwrap_or(u32::MAX),
    };
    let answer = exchange(router, &request).await;
    match answer.map_err(PinholeError::Silent)? {
        MapAnswer::Rejected(code) => Err(PinholeError::Rejected { code }),
        MapAnswer::Granted { lease_s, .. } if lease.is_zero() => {
            Ok(Duration::from_secs(lease_s.into()))
        }
        MapAnswer::Granted { lease_s, external } => {
            let is_own = external == (request.client, request.port);
            let granted = Duration::from_secs(lease_s.into());
            is_own.then_some(granted).ok_or(PinholeError::Translated)
        }
    }
}

/// Sends a request from the address that it is for, as the standard demands, until the router answers.
async fn exchange(router: &Router, request: &MapRequest) -> io::Result<MapAnswer> {
    let socket = UdpSocket::bind((request.client, 0)).await?;
    let to = SocketAddrV6::new(router.address, pcp::PORT, 0, router.link);
    socket.connect(to).await?;
    let mut datagram = [0; 1100];
    for wait in PCP_WAITS {
        socket.send(&request.to_bytes()).await?;
        let answered = async {
            loop {
                let length = socket.recv(&mut datagram).await?;
                let answer = request.read_answer(datagram.get(..length).unwrap_or_default());
                if let Some(answer) = answer {
                    return io::Result::Ok(answer);
                }
            }
        };
        if let Ok(answer) = timeout(wait, answered).await {
            return answer;
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}
