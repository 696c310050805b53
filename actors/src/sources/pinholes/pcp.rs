//! Asks the router to open its firewall, by PCP (RFC 6887).
//!
//! A request has to be sent from the address that it is for. crab_nat sends from whatever address the kernel chooses, which is a link-local one
//! towards a router that has such an address, so requests are sent here.

use super::pinhole::{Nonce, Pinhole, PinholeError, Router};
use crate::sources::port_mapping::protocol::Protocol;
use std::{io, net::SocketAddrV6, time::Duration};
use tokio::{net::UdpSocket, time::timeout};
use wire::pcp::{self, MapAnswer, MapRequest};

/// Waits for an answer to each request by PCP, which is repeated since a datagram may be lost.
const PCP_WAITS: [Duration; 3] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
];

/// Requests a pinhole, for so long; returns the duration of the lease that was granted. A lease of 0 ends it.
///
/// # Errors
/// The router does not answer, or does not open its firewall.
pub(super) async fn request(
    router: &Router,
    pinhole: &Pinhole,
    nonce: Nonce,
    lease: Duration,
) -> Result<Duration, PinholeError> {
    let request = MapRequest {
        client: *pinhole.internal.ip(),
        nonce,
        transport: pinhole.transport,
        port: pinhole.internal.port(),
        lease_s: u32::try_from(lease.as_secs()).unwrap_or(u32::MAX),
    };
    let answer = exchange(router, &request).await;
    match answer.map_err(|error| PinholeError::silent(Protocol::Pcp, error))? {
        MapAnswer::Rejected(code) => Err(PinholeError::Rejected {
            protocol: Protocol::Pcp,
            code: code.into(),
        }),
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
