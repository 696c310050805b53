//! A gateway with a table of mappings in memory, and one fault at a time.

use super::super::super::{
    gateway::{Effort, Entry, ExternalAddress, Finder, Gateway, GatewayError, Grant, Lookup},
    keeper::LEASE,
    ledger::{self, Mapping},
    protocol::{Family, Protocol},
};
use policies::names::Transport;
use std::{
    cell::{Cell, RefCell},
    net::Ipv4Addr,
    path::PathBuf,
    rc::Rc,
    time::Duration,
};

/// The host's address on its LAN.
const LOCAL: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);

/// A mapping: the port on the gateway, and what the gateway shows of it.
pub(super) type Row = (Transport, u16, Entry);

/// How a gateway answers a request that it does not carry out.
#[derive(Clone, Copy)]
pub(super) enum Answer {
    Conflict,
    Code(u16),
    NotAuthorized,
}

/// What a gateway does otherwise than the standard says.
#[derive(Clone)]
pub(super) struct Faults {
    /// What becomes of descriptions; `None` if they are kept.
    pub(super) description: Option<&'static str>,
    /// The answer to a lease that expires.
    pub(super) finite_lease: Option<Answer>,
    /// The answer to so many first requests.
    pub(super) first_requests: Option<(usize, Answer)>,
    /// Whether it shows no mapping.
    pub(super) shows_nothing: bool,
    /// Whether it does not answer what it shows.
    pub(super) is_silent: bool,
    /// The longest lease that it grants.
    pub(super) max_lease: Duration,
}

/// A gateway with a table of mappings in memory.
#[derive(Clone)]
pub(super) struct FakeGateway {
    pub(super) protocol: Protocol,
    pub(super) table: Rc<RefCell<Vec<Row>>>,
    pub(super) requests: Rc<Cell<usize>>,
    pub(super) external: Rc<Cell<ExternalAddress>>,
    /// Whether it does not report its address, ever.
    pub(super) hangs: Rc<Cell<bool>>,
    pub(super) faults: Faults,
    pub(super) ledger: PathBuf,
}

/// A gateway that answers by these protocols.
pub(super) struct FakeFinder {
    pub(super) gateways: Vec<FakeGateway>,
    pub(super) searches: Rc<Cell<usize>>,
}

impl Finder for FakeFinder {
    type Gateway = FakeGateway;

    async fn find(&self, family: Family) -> Result<Vec<FakeGateway>, GatewayError> {
        self.searches.set(self.searches.get() + 1);
        let mut found = self.gateways.clone();
        found.retain(|gateway| gateway.protocol.family() == family);
        if found.is_empty() {
            return Err(GatewayError::NoAnswer {
                gateway: Ipv4Addr::new(192, 168, 1, 1),
                protocols: "the protocol",
            });
        }
        Ok(found)
    }

    fn is_current(&self, _: &FakeGateway) -> bool {
        true
    }
}

impl FakeGateway {
    fn reject(&self, answer: Answer) -> Result<Grant, GatewayError> {
        Err(match answer {
            Answer::Conflict => GatewayError::PortInUse,
            Answer::Code(code) => GatewayError::Ambiguous { code },
            Answer::NotAuthorized => GatewayError::Failed {
                protocol: self.protocol,
                action: "map a port",
                source: "not authorized".into(),
            },
        })
    }
}

impl Gateway for FakeGateway {
    fn protocol(&self) -> Protocol {
        self.protocol
    }

    fn local_address(&self) -> Ipv4Addr {
        LOCAL
    }

    async fn external_address(&self) -> Result<ExternalAddress, GatewayError> {
        if self.hangs.get() {
            std::future::pending::<()>().await;
        }
        Ok(match self.protocol {
            Protocol::Pcp => ExternalAddress::WithMapping,
            Protocol::NatPmp | Protocol::Upnp => self.external.get(),
        })
    }

    async fn look_up(&self, ports: &[(Transport, u16)], _: Effort) -> Vec<Lookup> {
        let table = self.table.borrow();
        let look_up = |place: &(Transport, u16)| {
            let row = table.iter().find(|row| (row.0, row.1) == *place);
            match row {
                _ if self.faults.is_silent => Lookup::Unknown,
                Some((.., entry)) if !self.faults.shows_nothing => Lookup::Taken(entry.clone()),
                _ => Lookup::Free,
            }
        };
        ports.iter().map(look_up).collect()
    }

    async fn add(
        &self,
        mapping: Mapping,
        lease: Option<Duration>,
        description: &str,
    ) -> Result<Grant, GatewayError> {
        let recorded = ledger::read(&self.ledger);
        assert!(
            recorded.contains(&mapping),
            "requested before it was written to the ledger"
        );
        self.requests.set(self.requests.get() + 1);
        if let Some(answer) = self.faults.finite_lease
            && lease.is_some()
        {
            return self.reject(answer);
        }
        if let Some((count, answer)) = self.faults.first_requests
            && self.requests.get() <= count
        {
            return self.reject(answer);
        }
        let place = mapping.external_port_key();
        let mut table = self.table.borrow_mut();
        let is_others = |row: &Row| (row.0, row.1) == place && row.2.client != LOCAL.to_string();
        if table.iter().any(is_others) {
            return Err(GatewayError::PortInUse);
        }
        table.retain(|row| (row.0, row.1) != place);
        let lease = lease.map(|lease| lease.min(self.faults.max_lease));
        let entry = Entry {
            client: LOCAL.to_string(),
            internal_port: mapping.internal.port(),
            description: self.faults.description.unwrap_or(description).to_owned(),
            remaining: lease,
        };
        table.push((place.0, place.1, entry));
        let external = match self.external.get() {
            ExternalAddress::Known(address) => Some(address),
            ExternalAddress::Missing | ExternalAddress::WithMapping => None,
        };
        Ok(Grant {
            external_port: place.1,
            lease,
            address: external.filter(|_| self.protocol == Protocol::Pcp),
        })
    }

    async fn remove(&self, mapping: Mapping) -> Result<(), GatewayError> {
        let mut table = self.table.borrow_mut();
        table.retain(|(transport, port, entry)| match self.protocol.family() {
            // The request contains neither the external port nor the address.
            Family::PortControl => {
                let known = (*transport, &*entry.client, entry.internal_port);
                let local = LOCAL.to_string();
                known != (mapping.transport, &*local, mapping.internal.port())
            }
            Family::Upnp => (*transport, *port) != mapping.external_port_key(),
        });
        Ok(())
    }
}

/// The faults of a gateway that has none.
pub(super) fn none() -> Faults {
    Faults {
        description: None,
        finite_lease: None,
        first_requests: None,
        shows_nothing: false,
        is_silent: false,
        max_lease: LEASE,
    }
}
