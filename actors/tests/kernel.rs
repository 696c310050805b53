//! The kernel module against the real kernel: each test in a network namespace of its own. Needs
//! root.

use actors::kernel::Kernel;
use policies::names::{Prefix, Slot, Transport};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const NOBODY: u32 = 65534;

fn me() -> Prefix {
    Prefix::new(7, 16).unwrap()
}

/// Runs the test in a fresh network namespace, on a thread and a runtime of its own.
#[track_caller]
fn check<F: Future<Output = ()>>(test: impl FnOnce(Place) -> F + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let thread = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let kernel = Kernel::open(folder.path()).unwrap();
            run("ip link set lo up");
            test(Place { kernel, folder }).await;
        });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

struct Place {
    kernel: Kernel,
    folder: tempfile::TempDir,
}

impl Place {
    fn ledger(&self) -> PathBuf {
        self.folder.path().join("sysctls.json")
    }
}

#[expect(clippy::disallowed_methods, reason = "the test looks at the kernel with iproute2's eyes")]
#[track_caller]
fn run(command: &str) -> String {
    let mut words = command.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Everything that can be seen of the namespace: links, addresses, routes, rules, settings.
fn picture() -> String {
    let mut all = String::new();
    for command in [
        "ip -d link",
        "ip addr",
        "ip -4 route show table all",
        "ip -6 route show table all",
        "ip -6 rule",
        "ip -4 rule",
    ] {
        all += &format!("# {command}\n{}", run(command));
    }
    settings(Path::new("/proc/sys/net/ipv6/conf"), &mut all);
    all
}

fn settings(folder: &Path, all: &mut String) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            settings(&path, all);
        } else {
            let value = fs::read_to_string(&path).unwrap_or_default();
            *all += &format!("{}: {value}", path.display());
        }
    }
}

fn slot(name: &str) -> Slot {
    name.parse().unwrap()
}

/// Twelve dialling slots and three accepting ones of each server.
async fn make_slots(k: &Kernel) {
    k.make_dialling_slots(0..12, me(), NOBODY).await.unwrap();
    for transport in [Transport::Udp, Transport::Tcp] {
        k.make_server_tap(transport, NOBODY).await.unwrap();
        k.make_accepting_slots(transport, 2..=4, me()).await.unwrap();
    }
}

#[test]
fn slots_are_made_as_the_design_says() {
    check(|place| async move {
        let k = &place.kernel;
        make_slots(k).await;
        assert_eq!(k.slots().len(), 18);
        k.set_up(slot("wrnu.2"), me()).await.unwrap();
        for (name, mac, up) in [
            ("wrn0", "02:58:00:00:00:07", true),
            ("wrn11", "02:58:00:00:00:07", true),
            ("wrnu.2", "02:57:52:53:00:02", true),
            ("wrnt.4", "02:57:52:53:00:04", false),
        ] {
            let link = run(&format!("ip -d link show {name}"));
            let alias = format!("alias warren {}", place.folder.path().display());
            for part in [mac, "mtu 1400", "addrgenmode none", &alias] {
                assert!(link.contains(part), "{part}: {link}");
            }
            assert_eq!(link.contains(",UP"), up, "{link}");
            let addresses = run(&format!("ip -6 addr show {name}"));
            assert!(addresses.contains("inet6 fe80::10:0:7/64 scope link nodad"), "{addresses}");
            assert_eq!(addresses.matches("inet6").count(), 1, "{addresses}");
            for key in ["accept_ra", "accept_redirects", "autoconf"] {
                let path = format!("/proc/sys/net/ipv6/conf/{name}/{key}");
                assert_eq!(fs::read_to_string(path).unwrap(), "0\n", "{name} {key}");
            }
        }
        assert!(run("ip -d link show wrn3").contains("tap pi off vnet_hdr off persist on user nobody"));
        assert_eq!(run("ip -6 addr show wrnu"), "");
    });
}

#[test]
fn a_sweep_by_the_next_daemon_leaves_the_namespace_as_it_was() {
    check(|place| async move {
        run("ip link add up0 type veth peer name up1");
        run("ip link set up0 up");
        run("ip link set up1 up");
        run("ip addr add 2001:db8:1::1/64 dev up0 nodad");
        run("ip -6 route add 2001:db8:2::/48 dev up0 proto 42");
        run("ip tuntap add wrn99 mode tap");
        fs::write("/proc/sys/net/ipv6/conf/up1/forwarding", "1").unwrap();
        fs::write("/proc/sys/net/ipv6/conf/up0/accept_ra", "1").unwrap();
        let before = picture();
        let k = &place.kernel;
        make_slots(k).await;
        let network = wire::overlay::Network::new("2001:db8:42::/48".parse().unwrap()).unwrap();
        k.join_host(network, me()).await.unwrap();
        k.join_host(network, me()).await.unwrap();
        k.forward(&place.ledger()).unwrap();
        assert!(run("ip addr show lo").contains("2001:db8:42:7::1/128"));
        let routes = run("ip -6 route show proto 197");
        assert!(routes.contains("unreachable 2001:db8:42:7::/64 dev lo metric 4294967 "), "{routes}");
        assert!(routes.contains("unreachable 2001:db8:42::/48 dev lo metric 4294968 "), "{routes}");
        assert!(run("ip -6 rule").contains("32000:\tfrom all lookup 197"));
        run("ip -6 route add 2001:db8:42:8::/64 via fe80::10:0:8 dev wrn0 table 197 proto 42");
        let read = |key: &str| fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{key}")).unwrap();
        assert_eq!(read("all/forwarding"), "1\n");
        assert_eq!(read("up0/accept_ra"), "2\n");
        // The next daemon knows nothing but the root.
        let next = Kernel::open(place.folder.path()).unwrap();
        let swept = next.sweep(&place.ledger()).await.unwrap();
        assert_eq!(swept.links, 12 + 2 + 6);
        assert_eq!(picture(), before);
        assert!(!place.ledger().exists());
    });
}
