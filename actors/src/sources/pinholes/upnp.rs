//! Asks the router to open its firewall, by the service WANIPv6FirewallControl of UPnP.
//!
//! A request has to be sent from the address that it is for. The service knows a pinhole by a number of its own, which another pinhole may
//! have after a restart of the router, so that a pinhole is renewed by the request that opened it: it returns the present number.

use super::pinhole::{Pinhole, PinholeError};
use crate::sources::port_mapping::{
    protocol::Protocol,
    upnp::{
        code,
        http::{Source, request},
        search::{FoundService, search_firewall},
    },
};
use policies::names::Transport;
use std::{io, net::Ipv6Addr, time::Duration};
use wire::upnp::ActionResponse;

/// The lease of a pinhole that is about to be ended, in case that the router does not end it.
const CLOSING_LEASE: Duration = Duration::from_secs(1);

/// A service that opens the firewall for IPv6.
#[derive(Clone, Debug)]
pub struct FirewallService {
    found: FoundService,
    link: u32,
}

impl FirewallService {
    /// Searches the service of this router.
    ///
    /// # Errors
    /// The router does not answer, or describes no such service.
    pub(super) async fn find(router: Ipv6Addr, source: Source) -> Result<Self, PinholeError> {
        let found = search_firewall(router, source).await.map_err(|fault| {
            let fault = fault.unwrap_or_else(|| io::Error::from(io::ErrorKind::TimedOut).into());
            PinholeError::silent(Protocol::Upnp, fault)
        })?;
        let first = found.into_iter().next();
        let found = first.ok_or_else(|| PinholeError::silent(Protocol::Upnp, "it has none"))?;
        Ok(Self {
            found,
            link: source.link,
        })
    }

    /// Opens the firewall for a port, or renews that. Returns the number by which the router knows the pinhole.
    ///
    /// # Errors
    /// The router does not answer, or does not open its firewall.
    pub(super) async fn open(
        &self,
        pinhole: &Pinhole,
        known: Option<u16>,
        lease: Duration,
    ) -> Result<u16, PinholeError> {
        self.check_status(pinhole).await?;
        match (self.add(pinhole, lease).await, known) {
            // Some routers do not open twice for the same port.
            (Err(PinholeError::Rejected { .. }), Some(known)) => {
                let arguments = [
                    ("UniqueID", &*known.to_string()),
                    ("NewLeaseTime", &*lease.as_secs().to_string()),
                ];
                let updated = self.request(pinhole, "UpdatePinhole", &arguments).await;
                updated.map(|_| known)
            }
            (added, _) => added,
        }
    }

    /// Closes the firewall for a port.
    ///
    /// # Errors
    /// The router does not answer, or knows nothing of the pinhole.
    pub(super) async fn close(
        &self,
        pinhole: &Pinhole,
        known: Option<u16>,
    ) -> Result<(), PinholeError> {
        let id = match (self.add(pinhole, CLOSING_LEASE).await, known) {
            (Ok(id), _) => id,
            (Err(error @ PinholeError::Silent { .. }), _) | (Err(error), None) => {
                return Err(error);
            }
            (Err(_), Some(known)) => known,
        };
        let arguments = [("UniqueID", &*id.to_string())];
        let deleted = self.request(pinhole, "DeletePinhole", &arguments).await;
        deleted.map(drop)
    }

    /// Asks whether the router has a firewall at all, and lets hosts open it. What it does not say counts as yes.
    async fn check_status(&self, pinhole: &Pinhole) -> Result<(), PinholeError> {
        let status = match self.request(pinhole, "GetFirewallStatus", &[]).await {
            Err(PinholeError::Rejected { .. }) => return Ok(()),
            status => status?,
        };
        let is_no = |name: &str| matches!(status.field(name), Some("0" | "false" | "no"));
        match (is_no("FirewallEnabled"), is_no("InboundPinholeAllowed")) {
            (true, _) => Err(PinholeError::NotNeeded),
            (false, true) => Err(PinholeError::NotAllowed),
            (false, false) => Ok(()),
        }
    }

    /// Adds a pinhole, or renews the one for the same port.
    async fn add(&self, pinhole: &Pinhole, lease: Duration) -> Result<u16, PinholeError> {
        let protocol = match pinhole.transport {
            Transport::Udp => "17",
            Transport::Tcp => "6",
        };
        let arguments = [
            ("RemoteHost", ""),
            ("RemotePort", "0"),
            ("InternalClient", &*pinhole.internal.ip().to_string()),
            ("InternalPort", &*pinhole.internal.port().to_string()),
            ("Protocol", protocol),
            ("LeaseTime", &*lease.as_secs().to_string()),
        ];
        let response = self.request(pinhole, "AddPinhole", &arguments).await?;
        let id = response.field("UniqueID").and_then(|id| id.parse().ok());
        id.ok_or_else(|| PinholeError::silent(Protocol::Upnp, "its answer names no pinhole"))
    }

    async fn request(
        &self,
        pinhole: &Pinhole,
        action: &str,
        arguments: &[(&str, &str)],
    ) -> Result<ActionResponse, PinholeError> {
        let source = Source {
            address: *pinhole.internal.ip(),
            link: self.link,
        };
        let (url, service) = (&self.found.control_url, &self.found.service_type);
        let answer = request(url, Some(source), service, action, arguments).await;
        match answer.map_err(|error| PinholeError::silent(Protocol::Upnp, error))? {
            ActionResponse::Fault(code::FIREWALL_OFF) => Err(PinholeError::NotNeeded),
            ActionResponse::Fault(code::PINHOLES_NOT_ALLOWED) => Err(PinholeError::NotAllowed),
            ActionResponse::Fault(code) => Err(PinholeError::Rejected {
                protocol: Protocol::Upnp,
                code,
            }),
            done @ ActionResponse::Done { .. } => Ok(done),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::pinholes::pinhole::Key;
    use std::net::SocketAddrV6;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    const PINHOLE: Pinhole = Pinhole {
        internal: SocketAddrV6::new(Ipv6Addr::LOCALHOST, 1194, 0, 0),
        transport: Transport::Udp,
        key: Key::UniqueId(None),
    };
    const OPEN: &str = "<GetFirewallStatusResponse><FirewallEnabled>1</FirewallEnabled><InboundPinholeAllowed>1</InboundPinholeAllowed>";
    const ADDED: &str = "<AddPinholeResponse><UniqueID>7</UniqueID>";

    fn fault(code: u16) -> String {
        format!("<Fault><detail><UPnPError><errorCode>{code}</errorCode>")
    }

    /// Reads the requests of one client after the other, and answers them with these bodies. Returns the requests.
    async fn answer(listener: TcpListener, bodies: Vec<String>) -> Vec<String> {
        let mut requests = Vec::new();
        for body in bodies {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"</s:Envelope>") {
                assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
            }
            requests.push(String::from_utf8(request).unwrap());
            let answer = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{body}");
            // The client may have closed the connection within a long answer.
            let _ = stream.write_all(answer.as_bytes()).await;
        }
        requests
    }

    /// Requests something of a router that answers with these bodies; returns the requests, and the outcome.
    async fn run<T>(
        bodies: &[&str],
        request: impl AsyncFnOnce(FirewallService) -> T,
    ) -> (Vec<String>, T) {
        let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let service = FirewallService {
            found: FoundService {
                service_type: "urn:schemas-upnp-org:service:WANIPv6FirewallControl:1".to_owned(),
                control_url: format!("http://[::1]:{port}/ipv6").parse().unwrap(),
            },
            link: 0,
        };
        let bodies = bodies.iter().map(|body| (*body).to_owned()).collect();
        tokio::join!(answer(listener, bodies), request(service))
    }

    /// Opens a port, and requires this number or this part of the error.
    #[track_caller]
    fn check(bodies: &[&str], known: Option<u16>, expected: Result<u16, &str>) {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        let hour = Duration::from_secs(3600);
        let open = async |service: FirewallService| service.open(&PINHOLE, known, hour).await;
        let (requests, outcome) = runtime.block_on(run(bodies, open));
        assert_eq!(requests.len(), bodies.len());
        match (outcome, expected) {
            (Ok(id), expected) => assert_eq!(Ok(id), expected, "{bodies:?}"),
            (Err(error), Ok(id)) => panic!("{error} instead of {id} with {bodies:?}"),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
        }
    }

    #[test]
    fn a_pinhole_is_opened_where_the_firewall_allows_it_and_has_the_number_of_the_answer() {
        check(&[OPEN, ADDED], None, Ok(7));
        check(&[OPEN, ADDED], Some(3), Ok(7));
        // The status is optional, and may be nonsense.
        check(&[&fault(401), ADDED], None, Ok(7));
        check(&["<GetFirewallStatusResponse>", ADDED], None, Ok(7));
        // A router may not open twice.
        let updated = "<UpdatePinholeResponse>";
        check(&[OPEN, &fault(402), updated], Some(3), Ok(3));
    }

    #[test]
    fn a_router_that_does_not_open_its_firewall_is_reported_with_the_reason() {
        let status = |enabled, allowed| {
            format!(
                "<GetFirewallStatusResponse><FirewallEnabled>{enabled}</FirewallEnabled><InboundPinholeAllowed>{allowed}</InboundPinholeAllowed>"
            )
        };
        check(&[&status(0, 1)], None, Err("is off"));
        check(&[&status(1, 0)], None, Err("InboundPinholeAllowed is 0"));
        check(&[OPEN, &fault(703)], None, Err("InboundPinholeAllowed"));
        check(&[OPEN, &fault(702)], None, Err("is off"));
        check(&[OPEN, &fault(606)], None, Err("UPnP with error 606"));
        let refused = fault(704);
        check(&[OPEN, &refused, &refused], Some(3), Err("error 704"));
    }

    #[test]
    fn an_answer_that_makes_no_sense_opens_nothing() {
        let silent = Err("does not open its firewall by UPnP");
        check(&["<html>"], None, silent);
        for id in ["", "-1", "70000", "seven"] {
            let added = format!("<AddPinholeResponse><UniqueID>{id}</UniqueID>");
            check(&[OPEN, &added], None, silent);
        }
        let long = "a".repeat(1 << 20);
        check(&[OPEN, &long], None, silent);
    }

    #[tokio::test]
    async fn a_pinhole_is_closed_by_the_number_that_it_has_now() {
        let close = |known| {
            async move |service: FirewallService| service.close(&PINHOLE, known).await.is_ok()
        };
        let deleted = "<DeletePinholeResponse>";
        let (requests, is_closed) = run(&[ADDED, deleted], close(Some(3))).await;
        assert!(is_closed && requests[0].contains("<LeaseTime>1</LeaseTime>"));
        assert!(
            requests[1].contains("<UniqueID>7</UniqueID>"),
            "{requests:?}"
        );
        let (requests, is_closed) = run(&[&fault(402), deleted], close(Some(3))).await;
        assert!(is_closed && requests[1].contains("<UniqueID>3</UniqueID>"));
        let (_, is_closed) = run(&[&fault(606)], close(None)).await;
        assert!(!is_closed);
    }
}
