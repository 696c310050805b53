//! Answers of a router by PCP and NAT-PMP about mappings for IPv4, which crab_nat reads: it ends with a result, and what is granted is
//! what was requested.

use crab_nat::{
    GATEWAY_PORT, InternetProtocol, PortMappingOptions, TimeoutConfig, natpmp,
    pcp::{self, BaseMapRequest, DropMappingRange},
};
use std::{
    io,
    net::{Ipv4Addr, UdpSocket},
    num::NonZeroU16,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

/// The address of the router: one of this host that nothing else uses.
const ROUTER: Ipv4Addr = Ipv4Addr::new(127, 83, 53, 51);
/// The port that is mapped.
const PORT: NonZeroU16 = NonZeroU16::MIN.saturating_add(1193);
/// The nonce of each request by PCP.
const NONCE: [u32; 3] = [1, 2, 3];
/// No request is repeated, as the router answers each at once.
const TIMEOUTS: TimeoutConfig = TimeoutConfig {
    initial_timeout: Duration::from_secs(5),
    max_retries: 0,
    max_retry_timeout: None,
};
/// One request at a time, as the port of the router cannot be shared.
static ROUTER_LOCK: Mutex<()> = Mutex::new(());

/// The first byte of the input chooses the request, and the rest is the answer to it.
pub fn check(input: &[u8]) {
    if let Some((request, answer)) = input.split_first() {
        let exchanged = exchange_with_router(*request, answer);
        assert!(exchanged.is_ok(), "{exchanged:?}");
    }
}

/// Sends the request, and answers it as the router.
fn exchange_with_router(request: u8, answer: &[u8]) -> io::Result<()> {
    let _lock = ROUTER_LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    let router = UdpSocket::bind((ROUTER, GATEWAY_PORT))?;
    router.set_read_timeout(Some(TIMEOUTS.initial_timeout))?;
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build()?;
    thread::scope(|scope| {
        let answered = scope.spawn(|| {
            let (_, client) = router.recv_from(&mut [0; 1100])?;
            router.send_to(answer, client)
        });
        runtime.block_on(exchange(request % 5));
        let answered = answered.join();
        answered.unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
    })?;
    Ok(())
}

async fn exchange(request: u8) {
    let (gateway, protocol) = (ROUTER.into(), InternetProtocol::Udp);
    let options = PortMappingOptions {
        external_port: Some(PORT),
        lifetime_seconds: Some(3600),
        timeout_config: Some(TIMEOUTS),
    };
    let mapped = match request {
        0 => {
            let request = BaseMapRequest::new(gateway, Ipv4Addr::LOCALHOST.into(), protocol, PORT);
            let mapped = pcp::port_mapping(request, Some(NONCE), None, options).await;
            mapped.ok()
        }
        1 => {
            let client = Ipv4Addr::LOCALHOST.into();
            let range = DropMappingRange::Single {
                protocol,
                internal_port: PORT,
            };
            let _ = pcp::try_drop_mapping(gateway, client, NONCE, range, Some(TIMEOUTS)).await;
            None
        }
        2 => {
            let _ = natpmp::external_address(gateway, Some(TIMEOUTS)).await;
            None
        }
        3 => {
            let mapped = natpmp::port_mapping(gateway, protocol, PORT, options).await;
            mapped.ok()
        }
        _ => {
            let _ = natpmp::try_drop_mapping(gateway, protocol, Some(PORT), Some(TIMEOUTS)).await;
            None
        }
    };
    if let Some(mapped) = mapped {
        assert_eq!(mapped.internal_port(), PORT);
    }
}
