//! A network namespace for one test, and functions that inspect it.

use os::kernel::Kernel;
use policies::names::{Prefix, Slot, Transport};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

pub(crate) const NOBODY: u32 = 65534;

pub(crate) fn me() -> Prefix {
    Prefix::new(7, 16).unwrap()
}

/// Runs the test in a fresh network namespace, on a thread and a runtime of its own.
#[track_caller]
pub(crate) fn check<F: Future<Output = ()>>(
    test: impl FnOnce(TestNamespace) -> F + Send + 'static,
) {
    if !nix::unistd::geteuid().is_root() {
        report_skipped();
        return;
    }
    let thread = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let kernel = Kernel::open(folder.path()).unwrap();
            run("ip link set lo up");
            test(TestNamespace { kernel, folder }).await;
        });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the person who runs the tests must see that this one did not run"
)]
fn report_skipped() {
    eprintln!("skipped: needs root");
}

pub(crate) struct TestNamespace {
    pub(crate) kernel: Kernel,
    pub(crate) folder: tempfile::TempDir,
}

impl TestNamespace {
    pub(crate) fn ledger(&self) -> PathBuf {
        self.folder.path().join("sysctls.json")
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the test inspects the kernel by iproute2"
)]
#[track_caller]
pub(crate) fn run(command: &str) -> String {
    let mut words = command.split(' ');
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the link by which a packet leaves, for the arguments `asked` of `ip route get`; `None` if there is no
/// route.
#[expect(
    clippy::disallowed_methods,
    reason = "the test inspects the kernel by iproute2"
)]
pub(crate) fn exit_link(asked: &str) -> Option<String> {
    let words = "-6 -oneline route get".split(' ').chain(asked.split(' '));
    let output = Command::new("ip").args(words).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let (_, link) = printed
        .split_once(" dev ")
        .filter(|_| output.status.success())?;
    link.split(' ').next().map(ToOwned::to_owned)
}

/// Returns all of the namespace that a node could change: links, addresses, routes, rules, settings.
pub(crate) fn host_state() -> String {
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
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
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

/// Repeats the command until its output passes, since the kernel acts late on some changes, such as up to a second
/// on that of a carrier.
#[track_caller]
pub(crate) fn until(command: &str, shows: impl Fn(&str) -> bool) {
    let clock = os::clock::Clock::boottime();
    let started = clock.now();
    loop {
        let seen = run(command);
        if shows(&seen) {
            return;
        }
        assert!(
            clock.now().since(started).as_secs() < 10,
            "{command}: {seen}"
        );
    }
}

/// Waits until multicast packets can leave by these slots.
#[track_caller]
pub(crate) fn until_ready(slots: &[&str]) {
    until("ip -6 route show table local type multicast", |routes| {
        let by = |slot: &&str| routes.contains(&format!("ff00::/8 dev {slot} "));
        slots.iter().all(by) && !routes.contains("linkdown")
    });
}

/// Creates a pair of veths as the host's uplink, and waits until they are up.
pub(crate) fn make_uplink() {
    run("ip link add up0 type veth peer name up1");
    for link in ["up0", "up1"] {
        // Without a generated address, none is tentative for a while.
        fs::write(format!("/proc/sys/net/ipv6/conf/{link}/addr_gen_mode"), "1").unwrap();
        run(&format!("ip link set {link} up"));
    }
    until("ip link", |links| links.matches("state UP").count() == 2);
    until_ready(&["up0", "up1"]);
}

pub(crate) fn slot(name: &str) -> Slot {
    name.parse().unwrap()
}

/// Creates twelve dialling slots, and three accepting slots of each server.
pub(crate) async fn make_slots(k: &Kernel) {
    k.make_dialling_slots(0..12, me(), NOBODY).await.unwrap();
    for transport in [Transport::Udp, Transport::Tcp] {
        k.make_server_tap(transport, NOBODY).await.unwrap();
        k.make_accepting_slots(transport, 2..=4, me())
            .await
            .unwrap();
    }
}
