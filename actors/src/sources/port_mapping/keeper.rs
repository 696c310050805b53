//! Decides which port mappings to request from a gateway, to renew and to remove.
//!
//! A mapping is ours if it has our description and leads to our address. It is written to the ledger before it is requested,
//! so that after a crash the next run can remove it.

use super::{
    gateway::{Entry, Finder, Gateway, GatewayError},
    ledger::{FileLedger, Ledger, LedgerError, Mapping},
};
use crate::messages::Lease;
use membership::documents::PrivateEndpoints;
use os::randomness::Randomness;
use policies::{
    names::{Endpoint, Prefix, Transport},
    units::Uptime,
};
use std::{
    net::{IpAddr, SocketAddr, SocketAddrV4},
    time::Duration,
};
use wire::errors::Chain;
use wire::{endpoints::dialable, overlay::Network};

/// Duration of the leases that are requested. A lease is renewed when half of it has passed.
pub const LEASE: Duration = Duration::from_secs(3600);
/// Maximum number of external ports that are tried for a mapping in one round.
const MAX_ATTEMPTS: usize = 8;
/// The dynamic port range (RFC 6335), from which random ports are tried if our own port is taken.
const DYNAMIC_PORTS: std::ops::RangeInclusive<u16> = 49152..=65535;

/// The reason why a round gained no lease.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The gateway was not found or rejected a request; the source says which.
    #[error("cannot get a lease from the gateway")]
    Gateway(#[from] GatewayError),
    /// The gateway is itself behind another gateway, or reports an address that is not usable.
    #[error("the gateway's external address is not reachable from the internet: {address:?}")]
    NotRoutable {
        /// The address that it reported.
        address: Option<IpAddr>,
    },
    /// All external ports that were tried are taken.
    #[error("no free port for {transport} {port} on the gateway")]
    NoPort {
        /// UDP or TCP.
        transport: Transport,
        /// The port on this host.
        port: u16,
    },
    /// The ledger cannot be read or written; without it, no mapping is requested.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// The mappings to keep.
#[derive(Clone, Debug)]
pub struct LeaseSettings {
    /// This node; the description of its mappings is `warren P/L`.
    pub me: Prefix,
    /// The network, whose addresses cannot be external addresses of a gateway.
    pub network: Network,
    /// The ports of this host that should be reachable.
    pub wanted: Vec<(Transport, u16)>,
    /// Whether a private external address is accepted, as in a laboratory or a campus network.
    pub private: PrivateEndpoints,
    /// The source of random ports.
    pub random: Randomness,
}

/// Keeps the leases of one node. It outlives the actor that schedules the rounds.
pub struct Keeper<F, L = FileLedger> {
    settings: LeaseSettings,
    /// Whether the leases were released; no round may map anything after that. A round holds the lock until it ends.
    is_released: tokio::sync::Mutex<bool>,
    finder: F,
    ledger: L,
}

impl<F: Finder, L: Ledger> Keeper<F, L> {
    /// Builds a keeper; it does nothing before the first round.
    pub fn new(finder: F, ledger: L, settings: LeaseSettings) -> Self {
        Self {
            settings,
            is_released: tokio::sync::Mutex::new(false),
            finder,
            ledger,
        }
    }

    /// Runs a round: requests missing mappings, renews those of which half has passed, and removes ours that are not wanted.
    ///
    /// Returns the leases that the gateway's table shows after that; none after [`Self::release`].
    ///
    /// # Errors
    /// There is no lease at all; the error is the last one that occurred.
    pub async fn update_mappings(&self, now: Uptime) -> Result<Vec<Lease>, LeaseError> {
        let is_released = self.is_released.lock().await;
        if *is_released {
            return Ok(Vec::new());
        }
        let gateway = self.finder.find().await?;
        let entries = gateway.entries().await?;
        self.remove_leftovers(&gateway, &entries).await;
        let address = self.check_routable(gateway.external_address().await?)?;
        let mut failure = None;
        for (transport, port) in self.settings.wanted.iter().copied() {
            let internal = SocketAddrV4::new(gateway.local_address(), port);
            let existing = entries
                .iter()
                .find(|entry| self.leads_to(entry, transport, internal));
            if existing.is_some_and(|entry| {
                entry
                    .remaining
                    .is_some_and(|remaining| remaining > LEASE / 2)
            }) {
                continue;
            }
            let current_port = existing.map(|entry| entry.external_port);
            if let Err(error) = self
                .request_mapping(&gateway, &entries, transport, internal, current_port)
                .await
            {
                failure = Some(error);
            }
        }
        let leases = self.read_leases(&gateway, address, now).await?;
        match failure {
            Some(error) if leases.is_empty() => Err(error),
            Some(error) => {
                tracing::warn!(error = %Chain(&error), "cannot map a port on the gateway; the next round tries again");
                Ok(leases)
            }
            None => Ok(leases),
        }
    }

    /// Removes all our mappings; later rounds do nothing. Waits until a running round has ended.
    ///
    /// # Errors
    /// A mapping could not be removed. The ledger still contains it, so that the next run removes it.
    pub async fn release(&self) -> Result<(), LeaseError> {
        let mut is_released = self.is_released.lock().await;
        *is_released = true;
        let recorded = self.ledger.read().await?;
        if recorded.is_empty() {
            return Ok(());
        }
        let gateway = self.finder.find().await?;
        let (mut left, mut failure) = (Vec::new(), None);
        for entry in gateway.entries().await? {
            let Some(mapping) = self.own_mapping(&entry, &gateway, &recorded) else {
                continue;
            };
            if let Err(error) = gateway.remove(entry.transport, entry.external_port).await {
                left.push(mapping);
                failure = Some(error);
            }
        }
        self.ledger.write(left).await?;
        failure.map_or(Ok(()), |error| Err(error.into()))
    }

    fn description(&self) -> String {
        format!("warren {}", self.settings.me)
    }

    /// Returns the mapping of this entry if it is ours: it leads to this host, or the ledger says that it led to this host when
    /// the host had another address.
    fn own_mapping(
        &self,
        entry: &Entry,
        gateway: &F::Gateway,
        recorded: &[Mapping],
    ) -> Option<Mapping> {
        if entry.description != self.description() {
            return None;
        }
        let local = gateway.local_address();
        if entry.client == local.to_string() {
            return Some(Mapping {
                transport: entry.transport,
                external_port: entry.external_port,
                internal: SocketAddrV4::new(local, entry.internal_port),
            });
        }
        let is_recorded = |mapping: &&Mapping| {
            mapping.transport == entry.transport
                && mapping.external_port == entry.external_port
                && mapping.internal.ip().to_string() == entry.client
        };
        recorded.iter().find(is_recorded).copied()
    }

    fn leads_to(&self, entry: &Entry, transport: Transport, internal: SocketAddrV4) -> bool {
        entry.description == self.description()
            && entry.transport == transport
            && entry.client == internal.ip().to_string()
            && entry.internal_port == internal.port()
    }

    /// Returns the gateway's external address if nodes on the internet can reach it.
    fn check_routable(&self, address: Option<IpAddr>) -> Result<IpAddr, LeaseError> {
        let is_routable = |address: &IpAddr| {
            let endpoint = Endpoint {
                address: SocketAddr::new(*address, 1),
                transport: Transport::Udp,
            };
            dialable(
                endpoint,
                self.settings.network,
                self.settings.private.are_all_allowed(),
            )
            .is_ok()
        };
        address
            .filter(is_routable)
            .ok_or(LeaseError::NotRoutable { address })
    }

    /// Removes our mappings to ports that are not wanted, second mappings to the same port and, if the gateway permits it,
    /// mappings that lead to an earlier address of this host.
    async fn remove_leftovers(&self, gateway: &F::Gateway, entries: &[Entry]) {
        let recorded = self.ledger.read().await.unwrap_or_default();
        let mut kept_targets = Vec::new();
        for entry in entries {
            let Some(mapping) = self.own_mapping(entry, gateway, &recorded) else {
                continue;
            };
            let target = (entry.transport, entry.internal_port);
            let leads_here = *mapping.internal.ip() == gateway.local_address();
            let is_wanted = leads_here && self.settings.wanted.contains(&target);
            if is_wanted && !kept_targets.contains(&target) {
                kept_targets.push(target);
                continue;
            }
            match gateway.remove(entry.transport, entry.external_port).await {
                Ok(()) => tracing::info!(
                    transport = %entry.transport,
                    external_port = entry.external_port,
                    "port mapping of an earlier run removed"
                ),
                Err(error) => {
                    tracing::debug!(error = %Chain(&error), "cannot remove an old port mapping; the next round tries again")
                }
            }
        }
    }

    /// Requests one mapping: at its current external port, else at the internal port number, else at random ports.
    async fn request_mapping(
        &self,
        gateway: &F::Gateway,
        entries: &[Entry],
        transport: Transport,
        internal: SocketAddrV4,
        current_port: Option<u16>,
    ) -> Result<(), LeaseError> {
        let random = std::iter::repeat_with(|| self.settings.random.port(DYNAMIC_PORTS));
        let ports = current_port
            .into_iter()
            .chain([internal.port()])
            .chain(random)
            .take(MAX_ATTEMPTS);
        // A gateway silently overwrites another mapping of the same client, so a taken port is never requested.
        let is_taken = |port: u16| {
            let is_at_port =
                |entry: &&Entry| entry.transport == transport && entry.external_port == port;
            entries
                .iter()
                .find(is_at_port)
                .is_some_and(|entry| !self.leads_to(entry, transport, internal))
        };
        for port in ports.filter(|port| !is_taken(*port)) {
            self.record(Mapping {
                transport,
                external_port: port,
                internal,
            })
            .await?;
            match self.add_mapping(gateway, transport, port, internal).await {
                Ok(()) => return Ok(()),
                Err(GatewayError::PortInUse | GatewayError::SamePortOnly) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(LeaseError::NoPort {
            transport,
            port: internal.port(),
        })
    }

    /// Requests a lease that expires, or one that never does if the gateway grants no other.
    async fn add_mapping(
        &self,
        gateway: &F::Gateway,
        transport: Transport,
        port: u16,
        internal: SocketAddrV4,
    ) -> Result<(), GatewayError> {
        let description = self.description();
        match gateway
            .add(transport, port, internal, LEASE, &description)
            .await
        {
            // The ledger contains it, so the shutdown or the next run removes it.
            Err(GatewayError::OnlyPermanent) => {
                gateway
                    .add(transport, port, internal, Duration::ZERO, &description)
                    .await
            }
            result => result,
        }
    }

    /// Returns the leases that the gateway's table shows, and reduces the ledger to our mappings in it.
    async fn read_leases(
        &self,
        gateway: &F::Gateway,
        address: IpAddr,
        now: Uptime,
    ) -> Result<Vec<Lease>, LeaseError> {
        let entries = gateway.entries().await?;
        let recorded = self.ledger.read().await?;
        let (mut leases, mut mappings) = (Vec::new(), Vec::new());
        for entry in &entries {
            let Some(mapping) = self.own_mapping(entry, gateway, &recorded) else {
                continue;
            };
            mappings.push(mapping);
            let target = (entry.transport, entry.internal_port);
            let leads_here = *mapping.internal.ip() == gateway.local_address();
            if leads_here && self.settings.wanted.contains(&target) {
                leases.push(Lease {
                    transport: entry.transport,
                    internal_port: entry.internal_port,
                    external: SocketAddr::new(address, entry.external_port),
                    until: now + entry.remaining.unwrap_or(LEASE),
                });
            }
        }
        leases.sort_by_key(|lease| (lease.transport, lease.internal_port, lease.external.port()));
        if recorded != mappings {
            self.ledger.write(mappings).await?;
        }
        Ok(leases)
    }

    /// Adds a mapping to the ledger, before it is requested.
    async fn record(&self, mapping: Mapping) -> Result<(), LeaseError> {
        let mut mappings = self.ledger.read().await?;
        if mappings.contains(&mapping) {
            return Ok(());
        }
        mappings.push(mapping);
        Ok(self.ledger.write(mappings).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::ledger, *};
    use std::{cell::RefCell, net::Ipv4Addr, path::PathBuf, rc::Rc};

    const LOCAL: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);
    const OTHER: &str = "192.168.1.9";

    /// A gateway with a table of mappings in memory.
    #[derive(Clone)]
    struct FakeGateway {
        table: Rc<RefCell<Vec<Entry>>>,
        external: Option<IpAddr>,
        /// The longest lease that it grants; `None` if its leases never expire.
        max_lease: Option<Duration>,
        ledger: PathBuf,
    }

    impl Finder for FakeGateway {
        type Gateway = Self;

        async fn find(&self) -> Result<Self, GatewayError> {
            Ok(self.clone())
        }
    }

    impl Gateway for FakeGateway {
        fn local_address(&self) -> Ipv4Addr {
            LOCAL
        }

        async fn external_address(&self) -> Result<Option<IpAddr>, GatewayError> {
            Ok(self.external)
        }

        async fn entries(&self) -> Result<Vec<Entry>, GatewayError> {
            Ok(self.table.borrow().clone())
        }

        async fn add(
            &self,
            transport: Transport,
            external_port: u16,
            internal: SocketAddrV4,
            lease: Duration,
            description: &str,
        ) -> Result<(), GatewayError> {
            let mapping = Mapping {
                transport,
                external_port,
                internal,
            };
            assert!(
                ledger::read(&self.ledger).contains(&mapping),
                "requested before it was written to the ledger"
            );
            if self.max_lease.is_none() && !lease.is_zero() {
                return Err(GatewayError::OnlyPermanent);
            }
            let mut table = self.table.borrow_mut();
            let is_at_port = |entry: &Entry| {
                entry.transport == transport && entry.external_port == external_port
            };
            if table
                .iter()
                .any(|entry| is_at_port(entry) && entry.client != LOCAL.to_string())
            {
                return Err(GatewayError::PortInUse);
            }
            table.retain(|entry| !is_at_port(entry));
            table.push(Entry {
                remaining: self.max_lease.map(|max_lease| max_lease.min(lease)),
                ..entry(
                    transport,
                    external_port,
                    &LOCAL.to_string(),
                    internal.port(),
                    description,
                )
            });
            Ok(())
        }

        async fn remove(
            &self,
            transport: Transport,
            external_port: u16,
        ) -> Result<(), GatewayError> {
            let mut table = self.table.borrow_mut();
            table.retain(|entry| {
                (entry.transport, entry.external_port) != (transport, external_port)
            });
            Ok(())
        }
    }

    fn entry(
        transport: Transport,
        external_port: u16,
        client: &str,
        internal_port: u16,
        description: &str,
    ) -> Entry {
        let (client, description) = (client.into(), description.into());
        let remaining = Some(Duration::from_secs(60));
        Entry {
            transport,
            external_port,
            client,
            internal_port,
            description,
            remaining,
        }
    }

    /// A keeper, with the gateway that it uses.
    struct Fixture {
        gateway: FakeGateway,
        keeper: Keeper<FakeGateway>,
        _folder: tempfile::TempDir,
    }

    fn fixture(table: Vec<Entry>) -> Fixture {
        fixture_of(table, Some("45.67.0.1".parse().unwrap()), Some(LEASE))
    }

    fn fixture_of(
        table: Vec<Entry>,
        external: Option<IpAddr>,
        max_lease: Option<Duration>,
    ) -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let ledger = folder.path().join("leases.json");
        let table = Rc::new(RefCell::new(table));
        let gateway = FakeGateway {
            table,
            external,
            max_lease,
            ledger: ledger.clone(),
        };
        let settings = LeaseSettings {
            me: Prefix::new(7, 16).unwrap(),
            network: Network::new("2001:db8:42::/48".parse().unwrap()).unwrap(),
            wanted: vec![(Transport::Udp, 1194)],
            private: PrivateEndpoints::default(),
            random: Randomness::from_seed(1),
        };
        let keeper = Keeper::new(gateway.clone(), FileLedger::new(ledger), settings);
        Fixture {
            gateway,
            keeper,
            _folder: folder,
        }
    }

    /// Runs a round, compares the number of leases and the gateway's table after it, and returns the leases. An entry of the
    /// table reads `transport port client:port description`.
    #[track_caller]
    fn check(fixture: &Fixture, lease_count: usize, table: &[&str]) -> Vec<Lease> {
        let round = fixture.keeper.update_mappings(Uptime::from_secs(1));
        let leases = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(round);
        let leases = leases.unwrap_or_default();
        assert_eq!(leases.len(), lease_count, "{leases:?}");
        let text = |e: &Entry| {
            format!(
                "{} {} {}:{} {}",
                e.transport, e.external_port, e.client, e.internal_port, e.description
            )
        };
        let seen: Vec<_> = fixture.gateway.table.borrow().iter().map(text).collect();
        assert_eq!(seen, table);
        leases
    }

    const OURS: &str = "udp 1194 192.168.1.2:1194 warren 7/16";

    #[test]
    fn the_internal_port_number_is_requested_first_with_a_lease_that_expires() {
        let fixture = fixture(vec![]);
        let leases = check(&fixture, 1, &[OURS]);
        assert_eq!(leases[0].external, "45.67.0.1:1194".parse().unwrap());
        assert_eq!(leases[0].until, Uptime::from_secs(3601));
        check(&fixture, 1, &[OURS]);
    }

    #[test]
    fn a_lease_is_renewed_when_half_of_it_has_passed_or_if_it_never_expires() {
        for remaining in [Some(LEASE / 2), None] {
            let old = Entry {
                remaining,
                ..entry(Transport::Udp, 1194, "192.168.1.2", 1194, "warren 7/16")
            };
            let leases = check(&fixture(vec![old]), 1, &[OURS]);
            assert_eq!(leases[0].until, Uptime::from_secs(3601));
        }
        let fresh = Entry {
            remaining: Some(LEASE * 3 / 4),
            ..entry(Transport::Udp, 1194, "192.168.1.2", 1194, "warren 7/16")
        };
        let leases = check(&fixture(vec![fresh]), 1, &[OURS]);
        assert_eq!(leases[0].until, Uptime::from_secs(2701));
    }

    #[test]
    fn if_the_port_is_taken_another_one_is_requested_and_no_mapping_is_overwritten() {
        for client in [OTHER, "192.168.1.2"] {
            let fixture = fixture(vec![entry(Transport::Udp, 1194, client, 80, "web")]);
            let first = format!("udp 1194 {client}:80 web");
            let round = fixture.keeper.update_mappings(Uptime::from_secs(1));
            let leases = tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap()
                .block_on(round);
            let port = leases.unwrap()[0].external.port();
            assert!(DYNAMIC_PORTS.contains(&port));
            check(
                &fixture,
                1,
                &[&first, &format!("udp {port} 192.168.1.2:1194 warren 7/16")],
            );
        }
    }

    #[test]
    fn our_unwanted_mappings_are_removed_and_those_of_others_are_not() {
        let fixture = fixture(vec![
            entry(Transport::Udp, 5000, "192.168.1.2", 1194, "warren 7/16"),
            entry(Transport::Udp, 5001, "192.168.1.2", 1194, "warren 7/16"),
            entry(Transport::Tcp, 5002, "192.168.1.2", 443, "warren 7/16"),
            entry(Transport::Tcp, 5003, OTHER, 443, "warren 7/16"),
            entry(Transport::Tcp, 5004, "192.168.1.2", 443, "warren 8/16"),
        ]);
        check(
            &fixture,
            1,
            &[
                "tcp 5003 192.168.1.9:443 warren 7/16",
                "tcp 5004 192.168.1.2:443 warren 8/16",
                "udp 5000 192.168.1.2:1194 warren 7/16",
            ],
        );
    }

    #[test]
    fn a_mapping_in_the_ledger_to_an_earlier_address_is_removed() {
        let fixture = fixture(vec![entry(
            Transport::Udp,
            5003,
            OTHER,
            1194,
            "warren 7/16",
        )]);
        let internal = format!("{OTHER}:1194").parse().unwrap();
        let mapping = Mapping {
            transport: Transport::Udp,
            external_port: 5003,
            internal,
        };
        ledger::write(&fixture.gateway.ledger, &[mapping]).unwrap();
        check(&fixture, 1, &[OURS]);
    }

    #[test]
    fn no_mapping_is_requested_from_a_gateway_that_the_internet_cannot_reach() {
        for external in [
            None,
            Some("10.0.0.1"),
            Some("100.64.0.1"),
            Some("0.0.0.0"),
            Some("127.0.0.1"),
        ] {
            let external = external.map(|address| address.parse().unwrap());
            check(&fixture_of(vec![], external, Some(LEASE)), 0, &[]);
        }
    }

    #[test]
    fn a_lease_that_never_expires_is_accepted_and_stays_in_the_ledger() {
        let fixture = fixture_of(vec![], Some("45.67.0.1".parse().unwrap()), None);
        check(&fixture, 1, &[OURS]);
        assert_eq!(ledger::read(&fixture.gateway.ledger).len(), 1);
    }

    #[test]
    fn after_a_release_no_mapping_is_left_and_rounds_do_nothing() {
        let fixture = fixture(vec![]);
        check(&fixture, 1, &[OURS]);
        let release = fixture.keeper.release();
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(release)
            .unwrap();
        check(&fixture, 0, &[]);
        assert_eq!(ledger::read(&fixture.gateway.ledger), []);
    }
}
