//! Answers searches by SSDP (UPnP Device Architecture 1.1, section 1.3).

use super::{HTTP_PORT, STOP_CHECK_INTERVAL, Shared};
use anyhow::Result;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::Arc,
    thread,
};

/// The multicast address of SSDP.
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 255, 250);
/// The UDP port of SSDP.
const PORT: u16 = 1900;

/// Opens the socket that receives searches to all devices and to this one.
pub(super) fn open(address: Ipv4Addr) -> Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)).into())?;
    socket.join_multicast_v4(&GROUP, &address)?;
    socket.set_read_timeout(Some(STOP_CHECK_INTERVAL))?;
    Ok(socket.into())
}

/// Answers until the gateway stops.
pub(super) fn serve(socket: &UdpSocket, shared: &Arc<Shared>) {
    let mut buffer = [0; 2048];
    let mut answers = Vec::new();
    while !shared.is_stopping() {
        // The timeout is no error.
        let Ok((length, from)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
        let Some(target) = searched_target(&text) else {
            continue;
        };
        if !shared.faults.targets.contains(&target) {
            continue;
        }
        let answer = answer(shared, target);
        let Ok(socket) = socket.try_clone() else {
            break;
        };
        let shared = Arc::clone(shared);
        answers.push(thread::spawn(move || {
            shared.pause(shared.faults.search_delay);
            drop(socket.send_to(answer.as_bytes(), from));
        }));
    }
    for answer in answers {
        drop(answer.join());
    }
}

/// Returns what a datagram searches; `None` if it is no search.
fn searched_target(text: &str) -> Option<&str> {
    let is_search = text.starts_with("M-SEARCH ");
    let mut headers = text.lines().filter_map(|line| line.split_once(':'));
    let (_, target) = headers.find(|(name, _)| name.eq_ignore_ascii_case("st"))?;
    is_search.then(|| target.trim())
}

fn answer(shared: &Shared, target: &str) -> String {
    let own_address = shared.address.to_string();
    let host = shared.faults.location_host.unwrap_or(&own_address);
    format!(
        "HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nEXT:\r\nLOCATION: http://{host}:{HTTP_PORT}/root.xml\r\n\
         SERVER: Linux UPnP/1.0 lab/1\r\nST: {target}\r\nUSN: uuid:lab::{target}\r\n\r\n"
    )
}
