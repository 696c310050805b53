//! The firewall of a router, and the protocols by which it is opened: PCP (RFC 6887), and WANIPv6FirewallControl of UPnP.

use super::{
    pcp,
    pinhole::{Key, Pinhole, PinholeError, Router},
    upnp::FirewallService,
};
use crate::sources::port_mapping::{protocol::Protocol, upnp::http::Source};
use std::time::Duration;

/// The protocols in the order in which they are tried.
const PROTOCOLS: [Protocol; 2] = [Protocol::Pcp, Protocol::Upnp];

/// The firewall of one router.
#[derive(Debug)]
pub(super) struct Firewall {
    pub(super) router: Router,
    /// The service of UPnP, once it was found.
    service: Option<FirewallService>,
    /// The protocols that the router did not answer since [`Self::start_round`].
    silent: Vec<Protocol>,
}

impl Firewall {
    /// The firewall of this router, of which nothing is known yet.
    pub(super) fn new(router: Router) -> Self {
        Self {
            router,
            service: None,
            silent: Vec::new(),
        }
    }

    /// Tries all protocols again.
    pub(super) fn start_round(&mut self) {
        self.silent.clear();
    }

    /// Returns the protocols that are worth a request, this one first.
    pub(super) fn protocols(&self, first: Option<Protocol>) -> Vec<Protocol> {
        let others = PROTOCOLS.into_iter().filter(|other| Some(*other) != first);
        let all = first.into_iter().chain(others);
        all.filter(|protocol| !self.silent.contains(protocol))
            .collect()
    }

    /// Opens it for a port, or renews that. Returns the pinhole, and the duration of the lease.
    ///
    /// # Errors
    /// The router does not answer, or does not open its firewall.
    pub(super) async fn open(
        &mut self,
        pinhole: Pinhole,
        lease: Duration,
    ) -> Result<(Pinhole, Duration), PinholeError> {
        let opened = match pinhole.key {
            Key::Nonce(nonce) => {
                let granted = pcp::request(&self.router, &pinhole, nonce, lease).await;
                granted.map(|granted| (pinhole, granted))
            }
            Key::UniqueId(known) => {
                let opened = self.open_by_upnp(&pinhole, known, lease).await;
                let key = opened.map(|id| Key::UniqueId(Some(id)));
                key.map(|key| (Pinhole { key, ..pinhole }, lease))
            }
        };
        opened.inspect_err(|error| self.note(error))
    }

    /// Closes it for a port.
    ///
    /// # Errors
    /// The router does not answer, or knows nothing of the pinhole.
    pub(super) async fn close(&mut self, pinhole: &Pinhole) -> Result<(), PinholeError> {
        let closed = match pinhole.key {
            Key::Nonce(nonce) => {
                let closed = pcp::request(&self.router, pinhole, nonce, Duration::ZERO).await;
                closed.map(drop)
            }
            Key::UniqueId(known) => match self.service(pinhole).await {
                Ok(service) => service.close(pinhole, known).await,
                Err(error) => Err(error),
            },
        };
        closed.inspect_err(|error| self.note(error))
    }

    /// Opens it by the service that is known. A router that was restarted may have it elsewhere, so it is searched once more.
    async fn open_by_upnp(
        &mut self,
        pinhole: &Pinhole,
        known: Option<u16>,
        lease: Duration,
    ) -> Result<u16, PinholeError> {
        if let Some(service) = &self.service {
            match service.open(pinhole, known, lease).await {
                Err(PinholeError::Silent { .. }) => self.service = None,
                outcome => return outcome,
            }
        }
        let service = self.service(pinhole).await?;
        service.open(pinhole, known, lease).await
    }

    /// Returns the service of UPnP, after a search if need be.
    async fn service(&mut self, pinhole: &Pinhole) -> Result<&FirewallService, PinholeError> {
        let source = Source {
            address: *pinhole.internal.ip(),
            link: self.router.link,
        };
        let service = match self.service.take() {
            Some(service) => service,
            None => FirewallService::find(self.router.address, source).await?,
        };
        Ok(self.service.insert(service))
    }

    fn note(&mut self, error: &PinholeError) {
        if let PinholeError::Silent { protocol, .. } = error {
            self.silent.push(*protocol);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;

    #[test]
    fn the_protocol_that_opened_a_port_comes_first_and_a_silent_one_waits_for_the_next_round() {
        use Protocol::{Pcp, Upnp};
        let router = Router {
            address: Ipv6Addr::LOCALHOST,
            link: 1,
        };
        let mut firewall = Firewall::new(router);
        assert_eq!(firewall.protocols(None), [Pcp, Upnp]);
        assert_eq!(firewall.protocols(Some(Upnp)), [Upnp, Pcp]);
        firewall.note(&PinholeError::silent(Pcp, "no answer"));
        assert_eq!(firewall.protocols(Some(Pcp)), [Upnp]);
        firewall.start_round();
        assert_eq!(firewall.protocols(Some(Pcp)), [Pcp, Upnp]);
    }
}
