//! Tests port mappings with a real miniupnpd, between network namespaces.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test"
)]

mod netns;

use actix::{Actor, Context, Handler};
use actors::{
    messages::{LeasesRead, MissingReason},
    sources::port_mapping::{
        PortMapping, PortMappingDeps,
        default_gateway::DefaultGateway,
        keeper::{Keeper, LEASE, LeaseSettings, Round},
        ledger::FileLedger,
    },
    store::Store,
};
use membership::documents::PrivateEndpoints;
use netns::Namespace;
use os::clock::Clock;
use policies::{
    names::{Prefix, Transport},
    units::Uptime,
};
use std::{
    path::Path,
    process::{Child, Command, Stdio},
    rc::Rc,
    time::Duration,
};
use tokio::{sync::mpsc, time::timeout};
use wire::overlay::Network;

const RULES: &str = "table inet filter {
    chain miniupnpd {
    }
    chain prerouting_miniupnpd {
    }
    chain postrouting_miniupnpd {
    }
    chain forward {
        type filter hook forward priority 0
        jump miniupnpd
    }
    chain prerouting {
        type nat hook prerouting priority dstnat
        jump prerouting_miniupnpd
    }
    chain postrouting {
        type nat hook postrouting priority srcnat
        oifname wan masquerade
        jump postrouting_miniupnpd
    }
}";

/// A router with a running miniupnpd, and a host behind it.
struct Site {
    router: Namespace,
    host: Namespace,
    folder: tempfile::TempDir,
    daemon: Option<Child>,
}

impl Site {
    /// Creates the site; `wan` is the router's address on the internet.
    fn new(wan: &str) -> Self {
        let (router, host) = (Namespace::new(), Namespace::new());
        let folder = tempfile::tempdir().unwrap();
        router.sh(&format!(
            "ip link add lan type veth peer name eth0 netns {host}
             ip addr add 192.168.7.1/24 dev lan; ip link set lan up
             ip link add wan type veth peer name internet
             ip addr add {wan}/24 dev wan; ip link set wan up; ip link set internet up
             ip route add default dev wan
             nft '{RULES}'",
            host = host.id
        ));
        host.sh(
            "ip addr add 192.168.7.2/24 dev eth0; ip addr add 192.168.7.3/24 dev eth0
             ip link set eth0 up; ip route add default via 192.168.7.1",
        );
        let path = |name: &str| folder.path().join(name).display().to_string();
        let config = format!(
            "ext_ifname=wan\nlistening_ip=lan\nport=0\nenable_upnp=yes\nenable_natpmp=no\nsecure_mode=yes\n\
             system_uptime=yes\nuuid=2a5b7c4e-7f0d-4d3b-9d53-1f2e3a4b5c6d\nallow 1-65535 192.168.7.0/24 1-65535\n\
             upnp_table_name=filter\nupnp_nat_table_name=filter\nupnp_forward_chain=miniupnpd\n\
             upnp_nat_chain=prerouting_miniupnpd\nupnp_nat_postrouting_chain=postrouting_miniupnpd\n\
             lease_file={}\n",
            path("leases")
        );
        std::fs::write(folder.path().join("miniupnpd.conf"), config).unwrap();
        let mut site = Self {
            router,
            host,
            folder,
            daemon: None,
        };
        site.start_daemon();
        site
    }

    fn start_daemon(&mut self) {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let (config, pid) = (path("miniupnpd.conf"), path("pid"));
        let _ = std::fs::remove_file(&pid);
        let daemon = self.router.run(move || {
            #[expect(clippy::disallowed_methods, reason = "the gateway of the test")]
            let mut daemon = Command::new("miniupnpd");
            daemon
                .args(["-d", "-f", &config, "-P", &pid])
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            daemon.spawn().unwrap()
        });
        self.daemon = Some(daemon);
    }

    fn kill_daemon(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().unwrap();
            daemon.wait().unwrap();
        }
    }

    /// Returns the router's forwarding rules, as nftables lists them.
    fn forwarding_rules(&self) -> Vec<String> {
        let rules = self
            .router
            .sh("nft list chain inet filter prerouting_miniupnpd");
        let mut forwarding: Vec<_> = rules
            .lines()
            .filter(|line| line.contains("dnat"))
            .map(|line| line.trim().to_owned())
            .collect();
        forwarding.sort();
        forwarding
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.kill_daemon();
    }
}

fn keeper(folder: &Path, me: u32) -> Keeper<DefaultGateway> {
    let settings = LeaseSettings {
        me: Prefix::new(me, 16).unwrap(),
        network: Network::new("2001:db8:42::/48".parse().unwrap()).unwrap(),
        wanted: vec![(Transport::Udp, 1194), (Transport::Tcp, 1194)],
        further: Vec::new(),
        private: PrivateEndpoints::default(),
        random: os::randomness::Randomness::from_seed(1),
    };
    let ledger = FileLedger::new(folder.join("leases.json"));
    Keeper::new(DefaultGateway, ledger, settings)
}

/// Runs rounds until one succeeds, since the gateway may just have started.
async fn run_round(keeper: &Keeper<DefaultGateway>) -> Round {
    for _ in 0..3 {
        let round = keeper.update_mappings(Uptime::from_secs(100)).await;
        if round.failure.is_none() {
            return round;
        }
    }
    keeper.update_mappings(Uptime::from_secs(100)).await
}

/// Runs a test with a keeper of node `me` in the host's namespace.
fn check<F: Future<Output = ()>>(
    site: &Site,
    me: u32,
    test: impl FnOnce(Keeper<DefaultGateway>) -> F + Send + 'static,
) {
    let keeper = keeper(site.folder.path(), me);
    site.host.run_actors(move || test(keeper));
}

#[test]
fn both_ports_are_mapped_renewed_after_a_restart_of_the_gateway_and_released() {
    if !netns::can_create() {
        return;
    }
    let mut site = Site::new("45.67.0.1");
    check(&site, 7, |keeper| async move {
        let leases = run_round(&keeper).await.leases;
        let seen: Vec<_> = leases
            .iter()
            .map(|l| (l.transport, l.internal_port, l.external))
            .collect();
        let external = "45.67.0.1:1194".parse().unwrap();
        assert_eq!(
            seen,
            [
                (Transport::Udp, 1194, external),
                (Transport::Tcp, 1194, external)
            ]
        );
        let end = Uptime::from_secs(100) + LEASE;
        assert!(
            leases
                .iter()
                .all(|lease| lease.until <= end && end.since(lease.until) < Duration::from_secs(9))
        );
    });
    assert_eq!(
        site.forwarding_rules().len(),
        2,
        "{:?}",
        site.forwarding_rules()
    );
    let before = site.forwarding_rules();

    // After a restart, the gateway lists our mappings as leases that never expire.
    site.kill_daemon();
    site.start_daemon();
    check(&site, 7, |keeper| async move {
        let leases = run_round(&keeper).await.leases;
        assert_eq!(leases.len(), 2, "{leases:?}");
        assert!(
            leases
                .iter()
                .all(|lease| lease.until <= Uptime::from_secs(100) + LEASE)
        );
    });
    assert_eq!(site.forwarding_rules(), before);

    check(&site, 7, |keeper| async move {
        keeper.release().await.unwrap();
        let round = keeper.update_mappings(Uptime::from_secs(100)).await;
        assert_eq!(round.leases, []);
    });
    assert_eq!(site.forwarding_rules(), [""; 0]);
}

#[test]
fn mappings_of_a_killed_run_are_reused_and_those_of_another_node_are_not_touched() {
    if !netns::can_create() {
        return;
    }
    let site = Site::new("45.67.0.1");
    // Another node on the same host has the same ports and a ledger of its own.
    let other = tempfile::tempdir().unwrap();
    let others = keeper(other.path(), 8);
    site.host.run_actors(move || async move {
        assert_eq!(run_round(&others).await.leases.len(), 2);
    });
    for _ in 0..2 {
        check(&site, 7, |keeper| async move {
            let leases = run_round(&keeper).await.leases;
            assert_eq!(leases.len(), 2, "{leases:?}");
            assert!(leases.iter().all(|lease| lease.external.port() != 1194));
        });
        assert_eq!(
            site.forwarding_rules().len(),
            4,
            "{:?}",
            site.forwarding_rules()
        );
    }
    check(
        &site,
        7,
        |keeper| async move { keeper.release().await.unwrap() },
    );
    assert_eq!(
        site.forwarding_rules().len(),
        2,
        "{:?}",
        site.forwarding_rules()
    );
}

#[test]
fn no_mapping_is_requested_from_a_gateway_behind_another_one() {
    if !netns::can_create() {
        return;
    }
    let site = Site::new("10.9.8.7");
    check(&site, 7, |keeper| async move {
        let round = run_round(&keeper).await;
        assert!(round.leases.is_empty());
        let reason = round.failure.map(|error| error.reason());
        assert_eq!(reason, Some(MissingReason::NoExternalAddress));
    });
    assert_eq!(site.forwarding_rules(), [""; 0]);
}

struct FakeSink(mpsc::UnboundedSender<LeasesRead>);

impl Actor for FakeSink {
    type Context = Context<Self>;
}

impl Handler<LeasesRead> for FakeSink {
    type Result = ();

    fn handle(&mut self, read: LeasesRead, _: &mut Self::Context) {
        let _ = self.0.send(read);
    }
}

#[test]
fn the_actor_reports_the_leases_after_its_first_round() {
    if !netns::can_create() {
        return;
    }
    let site = Site::new("45.67.0.1");
    check(&site, 7, |keeper| async move {
        run_round(&keeper).await;
        let (sink, mut readings) = mpsc::unbounded_channel();
        let readers = vec![FakeSink(sink).start().recipient()];
        PortMapping::new(PortMappingDeps {
            keeper: Rc::new(keeper),
            store: Store::new(Clock::boottime(), Prefix::new(7, 16).unwrap()),
            readers,
        })
        .start();
        let read = timeout(Duration::from_secs(9), readings.recv())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(read.leases.len(), 2);
    });
}
