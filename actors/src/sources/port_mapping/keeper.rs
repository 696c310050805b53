//! Decides which port mappings to request from a gateway, to renew and to remove.
//!
//! Our mappings carry our description and lead to our address. A mapping is written to the ledger
//! before it is requested, so that the next run knows after a crash what may be left.

use super::{
    gateway::{Entry, Finder, Gateway, GatewayError},
    ledger::{self, Mapping},
};
use crate::messages::Lease;
use membership::documents::PrivateEndpoints;
use os::randomness::Randomness;
use policies::{
    names::{Endpoint, Prefix, Transport},
    units::Uptime,
};
use std::{
    io,
    net::{IpAddr, SocketAddr, SocketAddrV4},
    path::PathBuf,
    time::Duration,
};
use wire::errors::Chain;
use wire::{endpoints::dialable, overlay::Network};

/// The lease that is asked for; it is renewed after half of it.
pub const LEASE: Duration = Duration::from_secs(3600);
/// How many external ports are tried before the next round.
const TRIES: usize = 8;
/// The first port that is tried where our own is taken: of the dynamic range (RFC 6335).
const DYNAMIC: std::ops::RangeInclusive<u16> = 49152..=65535;

/// The reason why there is no lease.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The gateway rejected the request; the source says why.
    #[error("the gateway gave no lease")]
    Gateway(#[from] GatewayError),
    /// The gateway is itself behind another one, or reports an impossible address.
    #[error("the gateway's external address is not reachable from the internet: {address:?}")]
    NotRoutable {
        /// The address that it reported.
        address: Option<IpAddr>,
    },
    /// All tried external ports were taken.
    #[error("no free port for {transport} {port} on the gateway")]
    NoPort {
        /// UDP or TCP.
        transport: Transport,
        /// The port on this host.
        port: u16,
    },
    /// A mapping that cannot be written to the ledger is not requested.
    #[error("cannot write the lease ledger {}", path.display())]
    Ledger {
        /// The path of the file.
        path: PathBuf,
        /// The underlying error.
        #[source]
        source: io::Error,
    },
}

/// The mappings to keep.
#[derive(Clone, Debug)]
pub struct LeaseSettings {
    /// Who we are; the description of our mappings is `warren P/L`.
    pub me: Prefix,
    /// The network, whose own addresses are no external addresses.
    pub network: Network,
    /// Which of our ports shall be reachable.
    pub wanted: Vec<(Transport, u16)>,
    /// The ledger file; its folder exists.
    pub ledger: PathBuf,
    /// Believe a private external address, as in a laboratory or a campus network.
    pub private: PrivateEndpoints,
    /// The source of random ports.
    pub random: Randomness,
}

/// Keeps the leases of one node; outlives the actor that asks for rounds.
pub struct Keeper<F> {
    settings: LeaseSettings,
    /// `true` once released: no round may map anything after that.
    released: tokio::sync::Mutex<bool>,
    finder: F,
}

impl<F: Finder> Keeper<F> {
    /// Does nothing yet.
    pub fn new(finder: F, settings: LeaseSettings) -> Self {
        Self {
            settings,
            released: tokio::sync::Mutex::new(false),
            finder,
        }
    }

    /// Requests missing mappings, renews those that are half over, and removes ours that are not
    /// wanted.
    ///
    /// Returns the leases that exist, as the gateway's own table shows them; none after
    /// [`Self::release`].
    ///
    /// # Errors
    /// No lease could be had at all, and why.
    pub async fn round(&self, now: Uptime) -> Result<Vec<Lease>, LeaseError> {
        let released = self.released.lock().await;
        if *released {
            return Ok(Vec::new());
        }
        let gateway = self.finder.find().await?;
        let entries = gateway.entries().await?;
        self.remove_leftovers(&gateway, &entries).await;
        let address = self.routable(gateway.external().await?)?;
        let mut failure = None;
        for (transport, port) in self.settings.wanted.iter().copied() {
            let internal = SocketAddrV4::new(gateway.local(), port);
            let standing = entries
                .iter()
                .find(|entry| self.leads_to(entry, transport, internal));
            if standing.is_some_and(|entry| entry.left.is_some_and(|left| left > LEASE / 2)) {
                continue;
            }
            let first = standing.map(|entry| entry.external_port);
            if let Err(error) = self
                .map(&gateway, &entries, transport, internal, first)
                .await
            {
                failure = Some(error);
            }
        }
        let leases = self.read_back(&gateway, address, now).await?;
        match failure {
            Some(error) if leases.is_empty() => Err(error),
            Some(error) => {
                tracing::warn!(error = %Chain(&error), "port not mapped");
                Ok(leases)
            }
            None => Ok(leases),
        }
    }

    /// Removes all our mappings; later rounds do nothing. Waits for a running round.
    ///
    /// # Errors
    /// The gateway could not be asked; then the ledger keeps what is left, for the next start.
    pub async fn release(&self) -> Result<(), LeaseError> {
        let mut released = self.released.lock().await;
        *released = true;
        if self.remembered().await?.is_empty() {
            return Ok(());
        }
        let gateway = self.finder.find().await?;
        let entries = gateway.entries().await?;
        for entry in entries.iter().filter(|entry| self.is_ours(entry, &gateway)) {
            gateway.remove(entry.transport, entry.external_port).await?;
        }
        self.remember(Vec::new()).await
    }

    fn description(&self) -> String {
        format!("warren {}", self.settings.me)
    }

    fn is_ours(&self, entry: &Entry, gateway: &F::Gateway) -> bool {
        entry.description == self.description() && entry.client == gateway.local().to_string()
    }

    fn leads_to(&self, entry: &Entry, transport: Transport, internal: SocketAddrV4) -> bool {
        entry.description == self.description()
            && entry.transport == transport
            && entry.client == internal.ip().to_string()
            && entry.internal_port == internal.port()
    }

    fn routable(&self, address: Option<IpAddr>) -> Result<IpAddr, LeaseError> {
        let routable = |address: &IpAddr| {
            let endpoint = Endpoint {
                address: SocketAddr::new(*address, 1),
                transport: Transport::Udp,
            };
            dialable(
                endpoint,
                self.settings.network,
                self.settings.private.allowed(),
            )
            .is_ok()
        };
        address
            .filter(routable)
            .ok_or(LeaseError::NotRoutable { address })
    }

    /// Removes mappings of ours to ports we no longer want, and second ones to the same port; also
    /// those that the ledger remembers from an address we no longer have, where the gateway lets us.
    async fn remove_leftovers(&self, gateway: &F::Gateway, entries: &[Entry]) {
        let remembered = self.remembered().await.unwrap_or_default();
        let mut kept = Vec::new();
        for entry in entries
            .iter()
            .filter(|entry| entry.description == self.description())
        {
            let to = (entry.transport, entry.internal_port);
            let ours = self.is_ours(entry, gateway);
            if ours && self.settings.wanted.contains(&to) && !kept.contains(&to) {
                kept.push(to);
                continue;
            }
            let known = remembered.iter().any(|mapping| {
                mapping.transport == entry.transport
                    && mapping.external_port == entry.external_port
                    && mapping.internal.ip().to_string() == entry.client
            });
            if !(ours || known) {
                continue;
            }
            match gateway.remove(entry.transport, entry.external_port).await {
                Ok(()) => tracing::info!(
                    transport = %entry.transport,
                    external_port = entry.external_port,
                    "port mapping of an earlier run removed"
                ),
                Err(error) => tracing::debug!(error = %Chain(&error), "old port mapping stays"),
            }
        }
    }

    /// Asks for one mapping: at the port it had, else at our own port, else at random ones.
    async fn map(
        &self,
        gateway: &F::Gateway,
        entries: &[Entry],
        transport: Transport,
        internal: SocketAddrV4,
        first: Option<u16>,
    ) -> Result<(), LeaseError> {
        let random = std::iter::repeat_with(|| self.settings.random.port(DYNAMIC));
        let ports = first
            .into_iter()
            .chain([internal.port()])
            .chain(random)
            .take(TRIES);
        // A gateway silently overwrites another mapping of the same client: never ask for a taken port.
        let taken = |port: u16| {
            let same = |entry: &&Entry| entry.transport == transport && entry.external_port == port;
            entries
                .iter()
                .find(same)
                .is_some_and(|entry| !self.leads_to(entry, transport, internal))
        };
        for port in ports.filter(|port| !taken(*port)) {
            self.intend(Mapping {
                transport,
                external_port: port,
                internal,
            })
            .await?;
            match self.ask(gateway, transport, port, internal).await {
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

    async fn ask(
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
            // Removed at the stop, or by the next start, since the ledger has it.
            Err(GatewayError::OnlyPermanent) => {
                gateway
                    .add(transport, port, internal, Duration::ZERO, &description)
                    .await
            }
            done => done,
        }
    }

    /// The leases that the gateway's table shows; the ledger is cut down to them.
    async fn read_back(
        &self,
        gateway: &F::Gateway,
        address: IpAddr,
        now: Uptime,
    ) -> Result<Vec<Lease>, LeaseError> {
        let entries = gateway.entries().await?;
        let (mut leases, mut mappings) = (Vec::new(), Vec::new());
        for entry in entries.iter().filter(|entry| self.is_ours(entry, gateway)) {
            let internal = SocketAddrV4::new(gateway.local(), entry.internal_port);
            let (transport, external_port) = (entry.transport, entry.external_port);
            mappings.push(Mapping {
                transport,
                external_port,
                internal,
            });
            if self
                .settings
                .wanted
                .contains(&(transport, entry.internal_port))
            {
                leases.push(Lease {
                    transport,
                    internal_port: entry.internal_port,
                    external: SocketAddr::new(address, external_port),
                    until: now + entry.left.unwrap_or(LEASE),
                });
            }
        }
        leases.sort_by_key(|lease| (lease.transport, lease.internal_port, lease.external.port()));
        if self.remembered().await? != mappings {
            self.remember(mappings).await?;
        }
        Ok(leases)
    }

    async fn intend(&self, mapping: Mapping) -> Result<(), LeaseError> {
        let mut mappings = self.remembered().await?;
        if mappings.contains(&mapping) {
            return Ok(());
        }
        mappings.push(mapping);
        self.remember(mappings).await
    }

    async fn remembered(&self) -> Result<Vec<Mapping>, LeaseError> {
        let path = self.settings.ledger.clone();
        self.on_disk(move || ledger::read(&path)).await
    }

    async fn remember(&self, mappings: Vec<Mapping>) -> Result<(), LeaseError> {
        let path = self.settings.ledger.clone();
        self.on_disk(move || ledger::write(&path, &mappings)).await
    }

    /// A disk may be slow: never on the actors' thread.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, LeaseError> {
        let done = tokio::task::spawn_blocking(work)
            .await
            .map_err(io::Error::other);
        let failed = |source| LeaseError::Ledger {
            path: self.settings.ledger.clone(),
            source,
        };
        done.and_then(|result| result).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{cell::RefCell, net::Ipv4Addr, rc::Rc};

    const LOCAL: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);
    const OTHER: &str = "192.168.1.9";

    /// A table of mappings in memory.
    #[derive(Clone)]
    struct FakeGateway {
        table: Rc<RefCell<Vec<Entry>>>,
        external: Option<IpAddr>,
        /// The longest lease; `None`: only leases without an end.
        longest: Option<Duration>,
        ledger: PathBuf,
    }

    impl Finder for FakeGateway {
        type Gateway = Self;

        async fn find(&self) -> Result<Self, GatewayError> {
            Ok(self.clone())
        }
    }

    impl Gateway for FakeGateway {
        fn local(&self) -> Ipv4Addr {
            LOCAL
        }

        async fn external(&self) -> Result<Option<IpAddr>, GatewayError> {
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
                ledger::read(&self.ledger).unwrap().contains(&mapping),
                "asked before it was written"
            );
            if self.longest.is_none() && !lease.is_zero() {
                return Err(GatewayError::OnlyPermanent);
            }
            let mut table = self.table.borrow_mut();
            let same = |entry: &Entry| {
                entry.transport == transport && entry.external_port == external_port
            };
            if table
                .iter()
                .any(|entry| same(entry) && entry.client != LOCAL.to_string())
            {
                return Err(GatewayError::PortInUse);
            }
            table.retain(|entry| !same(entry));
            table.push(Entry {
                left: self.longest.map(|longest| longest.min(lease)),
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
        let left = Some(Duration::from_secs(60));
        Entry {
            transport,
            external_port,
            client,
            internal_port,
            description,
            left,
        }
    }

    struct Case {
        gateway: FakeGateway,
        keeper: Keeper<FakeGateway>,
        _folder: tempfile::TempDir,
    }

    fn case(table: Vec<Entry>) -> Case {
        case_of(table, Some("45.67.0.1".parse().unwrap()), Some(LEASE))
    }

    fn case_of(table: Vec<Entry>, external: Option<IpAddr>, longest: Option<Duration>) -> Case {
        let folder = tempfile::tempdir().unwrap();
        let ledger = folder.path().join("leases.json");
        let table = Rc::new(RefCell::new(table));
        let gateway = FakeGateway {
            table,
            external,
            longest,
            ledger: ledger.clone(),
        };
        let settings = LeaseSettings {
            me: Prefix::new(7, 16).unwrap(),
            network: Network::new("2001:db8:42::/48".parse().unwrap()).unwrap(),
            wanted: vec![(Transport::Udp, 1194)],
            ledger,
            private: PrivateEndpoints::default(),
            random: Randomness::from_seed(1),
        };
        let keeper = Keeper::new(gateway.clone(), settings);
        Case {
            gateway,
            keeper,
            _folder: folder,
        }
    }

    /// Runs a round; returns the mappings of the table afterwards, as `port client:port
    /// description`.
    #[track_caller]
    fn check(case: &Case, external_ports: usize, table: &[&str]) -> Vec<Lease> {
        let round = case.keeper.round(Uptime::from_secs(1));
        let leases = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(round);
        let leases = leases.unwrap_or_default();
        assert_eq!(leases.len(), external_ports, "{leases:?}");
        let text = |e: &Entry| {
            format!(
                "{} {} {}:{} {}",
                e.transport, e.external_port, e.client, e.internal_port, e.description
            )
        };
        let seen: Vec<_> = case.gateway.table.borrow().iter().map(text).collect();
        assert_eq!(seen, table);
        leases
    }

    const OURS: &str = "udp 1194 192.168.1.2:1194 warren 7/16";

    #[test]
    fn our_own_port_is_asked_for_first_and_the_lease_has_an_end() {
        let case = case(vec![]);
        let leases = check(&case, 1, &[OURS]);
        assert_eq!(leases[0].external, "45.67.0.1:1194".parse().unwrap());
        assert_eq!(leases[0].until, Uptime::from_secs(3601));
        check(&case, 1, &[OURS]);
    }

    #[test]
    fn a_lease_is_renewed_when_half_of_it_is_over_and_one_without_end_gets_one() {
        for left in [Some(LEASE / 2), None] {
            let old = Entry {
                left,
                ..entry(Transport::Udp, 1194, "192.168.1.2", 1194, "warren 7/16")
            };
            let leases = check(&case(vec![old]), 1, &[OURS]);
            assert_eq!(leases[0].until, Uptime::from_secs(3601));
        }
        let fresh = Entry {
            left: Some(LEASE * 3 / 4),
            ..entry(Transport::Udp, 1194, "192.168.1.2", 1194, "warren 7/16")
        };
        let leases = check(&case(vec![fresh]), 1, &[OURS]);
        assert_eq!(leases[0].until, Uptime::from_secs(2701));
    }

    #[test]
    fn a_taken_port_leads_to_another_one_and_nobody_is_overwritten() {
        for client in [OTHER, "192.168.1.2"] {
            let case = case(vec![entry(Transport::Udp, 1194, client, 80, "web")]);
            let first = format!("udp 1194 {client}:80 web");
            let round = case.keeper.round(Uptime::from_secs(1));
            let leases = tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap()
                .block_on(round);
            let port = leases.unwrap()[0].external.port();
            assert!(DYNAMIC.contains(&port));
            check(
                &case,
                1,
                &[&first, &format!("udp {port} 192.168.1.2:1194 warren 7/16")],
            );
        }
    }

    #[test]
    fn leftovers_of_ours_are_removed_and_those_of_others_are_not() {
        let case = case(vec![
            entry(Transport::Udp, 5000, "192.168.1.2", 1194, "warren 7/16"),
            entry(Transport::Udp, 5001, "192.168.1.2", 1194, "warren 7/16"),
            entry(Transport::Tcp, 5002, "192.168.1.2", 443, "warren 7/16"),
            entry(Transport::Tcp, 5003, OTHER, 443, "warren 7/16"),
            entry(Transport::Tcp, 5004, "192.168.1.2", 443, "warren 8/16"),
        ]);
        check(
            &case,
            1,
            &[
                "tcp 5003 192.168.1.9:443 warren 7/16",
                "tcp 5004 192.168.1.2:443 warren 8/16",
                "udp 5000 192.168.1.2:1194 warren 7/16",
            ],
        );
    }

    #[test]
    fn a_mapping_of_our_former_address_is_removed_by_the_ledger() {
        let case = case(vec![entry(
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
        ledger::write(&case.gateway.ledger, &[mapping]).unwrap();
        check(&case, 1, &[OURS]);
    }

    #[test]
    fn nothing_is_asked_of_a_gateway_that_the_internet_cannot_reach() {
        for external in [
            None,
            Some("10.0.0.1"),
            Some("100.64.0.1"),
            Some("0.0.0.0"),
            Some("127.0.0.1"),
        ] {
            let external = external.map(|address| address.parse().unwrap());
            check(&case_of(vec![], external, Some(LEASE)), 0, &[]);
        }
    }

    #[test]
    fn a_gateway_without_finite_leases_gives_one_without_an_end_and_the_ledger_knows() {
        let case = case_of(vec![], Some("45.67.0.1".parse().unwrap()), None);
        check(&case, 1, &[OURS]);
        assert_eq!(ledger::read(&case.gateway.ledger).unwrap().len(), 1);
    }

    #[test]
    fn after_a_release_nothing_is_left_and_rounds_do_nothing() {
        let case = case(vec![]);
        check(&case, 1, &[OURS]);
        let release = case.keeper.release();
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(release)
            .unwrap();
        check(&case, 0, &[]);
        assert_eq!(ledger::read(&case.gateway.ledger).unwrap(), []);
    }
}
