//! What outlives a daemon: the time, the host's address, the router with its table, and the ledger. All of it is in memory.

use super::super::{
    gateway::{Effort, Entry, ExternalAddress, Finder, Gateway, GatewayError, Grant, Lookup},
    keeper::LEASE,
    ledger::{Ledger, LedgerError, Mapping},
    protocol::{Family, Protocol},
};
use os::randomness::Randomness;
use policies::{names::Transport, units::Uptime};
use std::{
    cell::RefCell,
    future::pending,
    net::{IpAddr, Ipv4Addr},
    rc::Rc,
    time::Duration,
};

/// The description of this node's mappings.
const OURS: &str = "warren 7/16";
/// Another client of the router.
const OTHER: &str = "192.168.1.9";
/// Mappings that a ledger contains at most, in sequences of this length.
const MAX_RECORDED: usize = 64;

/// What outlives a daemon: the time, the host's address, the router with its table, and the ledger.
pub(super) struct World {
    pub(super) now: Uptime,
    pub(super) address: Ipv4Addr,
    /// The mappings, each with its expiry unless it never expires.
    pub(super) table: Vec<((Transport, u16), Entry, Option<Uptime>)>,
    /// The longest lease that the router grants; `None` if its leases never expire.
    pub(super) max_lease: Option<Duration>,
    /// Whether one call in three fails, before or after it took effect.
    pub(super) is_faulty: bool,
    /// The number of calls after which the daemon crashes.
    pub(super) calls_until_crash: Option<u32>,
    pub(super) ledger: Vec<Mapping>,
    pub(super) random: Randomness,
}

#[derive(Clone)]
pub(super) struct FakeRouter(pub(super) Rc<RefCell<World>>);

impl FakeRouter {
    /// Half a call: it passes, fails, or never returns since the daemon crashes.
    async fn pass(&self) -> Result<(), GatewayError> {
        let (crashes, fails) = {
            let world = &mut *self.0.borrow_mut();
            let left = world.calls_until_crash.as_mut();
            let crashes = left.is_some_and(|left| {
                *left = left.saturating_sub(1);
                *left == 0
            });
            (crashes, world.is_faulty && world.random.index(6) == 0)
        };
        if crashes {
            pending::<()>().await;
        }
        if fails {
            return Err(GatewayError::Failed {
                protocol: Protocol::Upnp,
                action: "answer",
                source: "no answer".into(),
            });
        }
        Ok(())
    }
}

impl Finder for FakeRouter {
    type Gateway = Self;

    async fn find(&self, family: Family) -> Result<Vec<Self>, GatewayError> {
        self.pass().await?;
        if family == Family::PortControl {
            return Ok(Vec::new());
        }
        Ok(vec![self.clone()])
    }

    fn is_current(&self, _: &Self) -> bool {
        // The address of the host may have changed, which only a new search shows.
        self.0.borrow().random.index(2) == 0
    }
}

impl Gateway for FakeRouter {
    fn protocol(&self) -> Protocol {
        Protocol::Upnp
    }

    fn local_address(&self) -> Ipv4Addr {
        self.0.borrow().address
    }

    async fn external_address(&self) -> Result<ExternalAddress, GatewayError> {
        self.pass().await?;
        Ok(ExternalAddress::Known(IpAddr::from([45, 67, 0, 1])))
    }

    async fn look_up(&self, ports: &[(Transport, u16)], _: Effort) -> Vec<Lookup> {
        if self.pass().await.is_err() {
            return vec![Lookup::Unknown; ports.len()];
        }
        let world = &mut *self.0.borrow_mut();
        let rows = world.rows();
        let look_up = |place: &(Transport, u16)| {
            let row = rows.iter().find(|(other, _)| other == place);
            row.map_or(Lookup::Free, |(_, entry)| Lookup::Taken(entry.clone()))
        };
        ports.iter().map(look_up).collect()
    }

    async fn add(
        &self,
        mapping: Mapping,
        lease: Option<Duration>,
        description: &str,
    ) -> Result<Grant, GatewayError> {
        self.pass().await?;
        let entry = Entry {
            client: mapping.internal.ip().to_string(),
            internal_port: mapping.internal.port(),
            description: description.to_owned(),
            remaining: None,
        };
        self.0
            .borrow_mut()
            .add(mapping.external_port_key(), entry, lease)?;
        self.pass().await?;
        Ok(Grant {
            external_port: mapping.external_port,
            lease,
            address: None,
        })
    }

    async fn remove(&self, mapping: Mapping) -> Result<(), GatewayError> {
        self.pass().await?;
        let table = &mut self.0.borrow_mut().table;
        table.retain(|(place, ..)| *place != mapping.external_port_key());
        Ok(())
    }
}

impl World {
    /// The mappings that have not expired.
    fn rows(&mut self) -> Vec<((Transport, u16), Entry)> {
        let now = self.now;
        self.table
            .retain(|(.., expiry)| expiry.is_none_or(|expiry| expiry > now));
        let rows = self.table.iter().map(|(place, entry, expiry)| {
            let remaining = expiry.map(|expiry| expiry.since(now));
            let entry = Entry {
                remaining,
                ..entry.clone()
            };
            (*place, entry)
        });
        rows.collect()
    }

    fn add(
        &mut self,
        place: (Transport, u16),
        entry: Entry,
        lease: Option<Duration>,
    ) -> Result<(), GatewayError> {
        let lease = match (self.max_lease, lease) {
            (None, Some(_)) => return Err(GatewayError::Ambiguous { code: 725 }),
            (_, None) => None,
            (Some(max_lease), Some(lease)) => Some(max_lease.min(lease)),
        };
        let mut rows = self.rows().into_iter();
        if rows.any(|(other, row)| other == place && row.client != entry.client) {
            return Err(GatewayError::PortInUse);
        }
        self.table.retain(|(other, ..)| *other != place);
        let expiry = lease.map(|lease| self.now + lease);
        self.table.push((place, entry, expiry));
        Ok(())
    }

    /// Another client of the router takes a port that we would like to have.
    pub(super) fn take_port(&mut self) {
        let entry = Entry {
            client: OTHER.to_owned(),
            internal_port: 80,
            description: "web".to_owned(),
            remaining: None,
        };
        let _ = self.add((Transport::Udp, 1194), entry, Some(LEASE));
    }

    pub(super) fn own_rows(&mut self) -> Vec<((Transport, u16), Entry)> {
        let mut rows = self.rows();
        rows.retain(|(_, entry)| entry.description == OURS);
        rows
    }
}

#[derive(Clone)]
pub(super) struct FakeLedger(pub(super) Rc<RefCell<World>>);

impl Ledger for FakeLedger {
    async fn read(&self) -> Result<Vec<Mapping>, LedgerError> {
        Ok(self.0.borrow().ledger.clone())
    }

    async fn write(&self, mappings: Vec<Mapping>) -> Result<(), LedgerError> {
        assert!(mappings.len() <= MAX_RECORDED, "{mappings:?}");
        self.0.borrow_mut().ledger = mappings;
        Ok(())
    }
}
