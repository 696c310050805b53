//! A keeper with a fake gateway, and what a round of it must show.

use super::{
    super::{super::ledger, *},
    fake_gateway::{FakeFinder, FakeGateway, Faults, Row, none},
};
use std::{cell::RefCell, rc::Rc};

/// The address of the gateway on the internet.
pub(super) const EXTERNAL: &str = "45.67.0.1";

pub(super) fn row(external_port: u16, client: &str, internal_port: u16, description: &str) -> Row {
    let entry = Entry {
        client: client.into(),
        internal_port,
        description: description.into(),
        remaining: Some(Duration::from_secs(60)),
    };
    (Transport::Udp, external_port, entry)
}

pub(super) fn mapping(external_port: u16, client: &str) -> Mapping {
    Mapping {
        transport: Transport::Udp,
        external_port,
        internal: format!("{client}:1194").parse().unwrap(),
        protocol: Protocol::Upnp,
        nonce: None,
    }
}

/// A keeper, with the gateway that it uses.
pub(super) struct Fixture {
    pub(super) gateway: FakeGateway,
    pub(super) keeper: Keeper<FakeFinder>,
    pub(super) searches: Rc<Cell<usize>>,
    _folder: tempfile::TempDir,
}

/// Builds a keeper and a gateway with this table that answers by these protocols.
pub(super) fn fixture_of(protocols: &[Protocol], table: Vec<Row>, faults: Faults) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let ledger = folder.path().join("leases.json");
    let gateway = FakeGateway {
        protocol: Protocol::Upnp,
        table: Rc::new(RefCell::new(table)),
        requests: Rc::default(),
        external: Rc::new(Cell::new(ExternalAddress::Known(EXTERNAL.parse().unwrap()))),
        hangs: Rc::default(),
        faults,
        ledger: ledger.clone(),
    };
    let gateways = protocols.iter().map(|protocol| FakeGateway {
        protocol: *protocol,
        ..gateway.clone()
    });
    let searches = Rc::default();
    let finder = FakeFinder {
        gateways: gateways.collect(),
        searches: Rc::clone(&searches),
    };
    let settings = LeaseSettings {
        me: Prefix::new(7, 16).unwrap(),
        network: Network::new("2001:db8:42::/48".parse().unwrap()).unwrap(),
        wanted: vec![(Transport::Udp, 1194)],
        further: Vec::new(),
        private: PrivateEndpoints::default(),
        random: Randomness::from_seed(1),
    };
    Fixture {
        gateway,
        keeper: Keeper::new(finder, FileLedger::new(ledger), settings),
        searches,
        _folder: folder,
    }
}

pub(super) fn fixture(table: Vec<Row>) -> Fixture {
    fixture_of(&[Protocol::Upnp], table, none())
}

pub(super) fn block_on<T>(work: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.build().unwrap().block_on(work)
}

impl Fixture {
    /// The gateway's table; an entry reads `port client:port description`.
    pub(super) fn table(&self) -> Vec<String> {
        let text = |(_, port, entry): &Row| {
            let Entry {
                client,
                internal_port,
                description,
                ..
            } = entry;
            format!("{port} {client}:{internal_port} {description}")
        };
        self.gateway.table.borrow().iter().map(text).collect()
    }

    pub(super) fn recorded(&self) -> Vec<Mapping> {
        ledger::read(&self.gateway.ledger)
    }

    pub(super) fn round(&self, at_s: u64) -> Round {
        block_on(self.keeper.update_mappings(Uptime::from_secs(at_s)))
    }

    /// Runs a round at this time; requires that it ends with one lease of this port, and no failure.
    #[track_caller]
    pub(super) fn check_lease(&self, at_s: u64, port: u16) -> Lease {
        let round = self.round(at_s);
        assert!(round.failure.is_none(), "{:?}", round.failure);
        assert_eq!(round.leases.len(), 1);
        let lease = round.leases.into_iter().next().unwrap();
        assert_eq!(
            lease.external,
            SocketAddr::new(EXTERNAL.parse().unwrap(), port)
        );
        lease
    }

    /// Releases all leases, and requires that nothing is left.
    #[track_caller]
    pub(super) fn check_release(&self, left: &[&str]) {
        block_on(self.keeper.release()).unwrap();
        assert_eq!(self.table(), left);
        assert_eq!(self.recorded(), []);
        assert!(self.round(9_000).leases.is_empty());
        assert_eq!(self.table(), left);
    }
}
