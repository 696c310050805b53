//! The table `inet warren` keeps users of the host from sending Babel, and is removed by a sweep.

use crate::netns::{NOBODY, check, run};
use os::kernel::{Kernel, PacketFilter, Redirect, RepairKind};
use policies::names::Transport;
use std::{io, net::UdpSocket, time::Duration};
use tokio::time::timeout;

/// The user of babeld in these tests.
const BABELD: u32 = 61_398;

fn filter() -> PacketFilter {
    PacketFilter {
        babeld_uid: BABELD,
        servers: vec![(Transport::Udp, 1194), (Transport::Tcp, 1195)],
        redirects: vec![Redirect {
            transport: Transport::Tcp,
            from: 443,
            to: 1195,
        }],
        interfaces: vec!["eth1".to_owned()],
    }
}

/// Sends a datagram to this host as the given user.
fn send_as(uid: u32, port: u16) -> io::Result<usize> {
    let root = nix::unistd::setfsuid(uid.into());
    let socket = UdpSocket::bind("[::1]:0");
    nix::unistd::setfsuid(root);
    socket?.send_to(b"hello", ("::1", port))
}

#[test]
fn only_root_and_babelds_user_send_babel_and_notices() {
    check(|namespace| async move {
        namespace.kernel.filter_packets(&filter()).unwrap();
        for port in [6696, 327] {
            let receiver = UdpSocket::bind(("::1", port)).unwrap();
            receiver
                .set_read_timeout(Some(Duration::from_secs(5)))
                .unwrap();
            for uid in [0, BABELD] {
                send_as(uid, port).unwrap();
                assert_eq!(receiver.recv(&mut [0; 9]).unwrap(), 5);
            }
            let error = send_as(NOBODY, port).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        }
        let _receiver = UdpSocket::bind("[::1]:6697").unwrap();
        assert_eq!(send_as(NOBODY, 6697).unwrap(), 5);
    });
}

#[test]
fn the_table_is_replaced_by_a_second_call_and_removed_by_a_sweep() {
    check(|namespace| async move {
        run("nft add table inet others");
        let sweep = async || namespace.kernel.sweep(&namespace.ledger()).await.unwrap();
        assert_eq!(sweep().await.tables, 0);
        for _ in 0..2 {
            namespace.kernel.filter_packets(&filter()).unwrap();
        }
        let listing = run("nft list table inet warren");
        let rules: Vec<&str> = listing
            .lines()
            .map(str::trim)
            .filter(|line| line.contains("ifname"))
            .collect();
        let expected = [
            "oifname \"wrn*\" udp dport 6696 meta skuid != 0 meta skuid != 61398 drop",
            "oifname \"wrn*\" udp dport 327 meta skuid != 0 meta skuid != 61398 drop",
            "oifname \"lo\" udp dport 6696 meta skuid != 0 meta skuid != 61398 drop",
            "oifname \"lo\" udp dport 327 meta skuid != 0 meta skuid != 61398 drop",
            "iifname \"lo\" accept",
            "iifname \"wrn*\" udp dport 1194 drop",
            "iifname \"wrn*\" tcp dport 1195 drop",
            "iifname \"eth1\" udp dport 6696 accept",
            "iifname != \"wrn*\" udp dport 6696 drop",
            "iifname \"eth1\" udp dport 327 accept",
            "iifname != \"wrn*\" udp dport 327 drop",
            "iifname != \"wrn*\" fib daddr type local tcp dport 443 redirect to :1195",
        ];
        assert_eq!(rules, expected);
        assert_eq!(sweep().await.tables, 1);
        assert_eq!(sweep().await.tables, 0);
        assert_eq!(run("nft list tables"), "table inet others\n");
    });
}

#[test]
fn a_table_that_another_program_deletes_or_changes_is_created_again() {
    check(|namespace| async move {
        namespace.kernel.filter_packets(&filter()).unwrap();
        let listing = run("nft list table inet warren");
        assert_eq!(repaired(&namespace.kernel).await, 0);
        let watch = namespace.kernel.watch_host().unwrap();
        for change in ["nft flush ruleset", "nft flush chain inet warren received"] {
            run(change);
            timeout(Duration::from_secs(5), watch.changed())
                .await
                .unwrap()
                .unwrap();
            assert_eq!(repaired(&namespace.kernel).await, 1, "{change}");
            assert_eq!(run("nft list table inet warren"), listing);
        }
    });
}

/// Compares the host, and returns how often the table was restored.
async fn repaired(kernel: &Kernel) -> usize {
    let comparison = kernel.reconcile_host().await;
    assert_eq!(comparison.failure, None);
    let repairs = comparison.repairs.iter();
    repairs
        .filter(|repair| repair.kind == RepairKind::PacketFilter)
        .count()
}
