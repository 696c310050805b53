//! What other programs remove or change of the node's part of the host is restored, and reported.

use crate::netns::{NOBODY, check, make_slots, make_uplink, me, run, until};
use ipnet::IpNet;
use os::kernel::{Exit, HostComparison, Kernel, NextHopRoute, RepairKind as Kind};
use policies::{
    alternates::NextHop,
    names::{Prefix, Slot},
};
use std::fs;

fn network() -> wire::overlay::Network {
    wire::overlay::Network::new("2001:db8:42::/48".parse().unwrap()).unwrap()
}

/// Puts all that a node can have on its host there.
async fn join(kernel: &Kernel, ledger: &std::path::Path) {
    run("ip link add up0 type veth peer name up1");
    kernel.apply_host_settings(ledger).unwrap();
    kernel.join_host(network(), me()).await.unwrap();
    make_slots(kernel).await;
    let ipv4 = wire::overlay::Network4::new("10.42.0.0/16".parse().unwrap());
    kernel.apply_ipv4(ipv4, me()).await.unwrap();
    let exit = Exit::Others(NOBODY);
    kernel.apply_exit_rules(network(), exit).await.unwrap();
    let blocked: IpNet = "2001:db8:42:9::/64".parse().unwrap();
    kernel.block(blocked).await.unwrap();
    assert_eq!(kernel.reconcile_host().await, HostComparison::default());
}

/// Returns what a comparison restores: the kinds, and how many of each.
async fn repairs(kernel: &Kernel) -> Vec<(Kind, usize)> {
    let compared = kernel.reconcile_host().await;
    assert_eq!(compared.failure, None);
    let count = |kind: &Kind| {
        let repairs = compared.repairs.iter();
        (*kind, repairs.filter(|repair| repair.kind == *kind).count())
    };
    let counts = Kind::ALL.iter().map(count);
    counts.filter(|(_, count)| *count > 0).collect()
}

/// Returns the rules, routes and addresses of a node, one a line, without those that a link has by itself.
fn listed() -> [String; 5] {
    [
        "ip -6 rule",
        "ip -4 rule",
        "ip -6 route show table all proto 197",
        "ip -4 route show table all proto 197",
        "ip addr show lo",
    ]
    .map(run)
}

#[test]
fn each_rule_and_route_and_address_is_restored_when_another_program_deletes_it() {
    check(|netns| async move {
        let k = &netns.kernel;
        join(k, &netns.ledger()).await;
        let before = listed();
        let mut deleted = 0;
        for family in ["-6", "-4"] {
            let rules = run(&format!("ip {family} rule"));
            let priorities = rules.lines().filter_map(|line| line.split(':').next());
            let ours = priorities.filter(|priority| {
                let priority: u32 = priority.parse().unwrap();
                (31999..=32006).contains(&priority)
            });
            for priority in ours {
                run(&format!("ip {family} rule del pref {priority}"));
                assert_eq!(repairs(k).await, [(Kind::Rule, 1)], "{priority}");
                deleted += 1;
            }
        }
        assert_eq!(deleted, 3 + 5 + 3);
        for (family, route) in [
            ("-6", "unreachable 2001:db8:42:7::/64 metric 4294967"),
            ("-6", "unreachable 2001:db8:42::/48 metric 4294968"),
            ("-6", "unreachable 2001:db8:42:9::/64 table 197 metric 1"),
            ("-4", "unreachable 10.42.0.7/32 metric 4294967"),
            ("-4", "unreachable 10.42.0.0/16 metric 4294968"),
        ] {
            run(&format!("ip {family} route del {route}"));
            assert_eq!(repairs(k).await, [(Kind::Route, 1)], "{route}");
        }
        for address in ["2001:db8:42:7::1/128", "10.42.0.7/32"] {
            run(&format!("ip addr del {address} dev lo"));
            assert_eq!(repairs(k).await, [(Kind::Address, 1)], "{address}");
        }
        run("ip -6 addr del fe80::10:0:7/64 dev wrn3");
        assert_eq!(repairs(k).await, [(Kind::Address, 1)]);
        assert_eq!(listed(), before);
        let blocked: IpNet = "2001:db8:42:9::/64".parse().unwrap();
        k.unblock(blocked).await.unwrap();
        k.apply_ipv4(None, me()).await.unwrap();
        k.apply_exit_rules(network(), Exit::None).await.unwrap();
        assert_eq!(
            repairs(k).await,
            [],
            "what the node removed itself stays away"
        );
        k.sweep(&netns.ledger()).await.unwrap();
        assert_eq!(
            repairs(k).await,
            [],
            "a node that has stopped restores nothing"
        );
    });
}

#[test]
fn settings_and_links_are_restored_when_another_program_changes_them() {
    check(|netns| async move {
        let k = &netns.kernel;
        join(k, &netns.ledger()).await;
        let write = |path: &str, value: &str| fs::write(format!("/proc/sys/net/{path}"), value);
        let read = |path: &str| fs::read_to_string(format!("/proc/sys/net/{path}")).unwrap();
        for (path, wrong, right) in [
            ("ipv6/conf/all/forwarding", "0", "1\n"),
            ("ipv6/conf/wrn1/accept_ra", "2", "0\n"),
            ("ipv4/conf/wrn1/forwarding", "0", "1\n"),
            ("ipv4/conf/wrn1/rp_filter", "1", "2\n"),
        ] {
            write(path, wrong).unwrap();
            assert_eq!(repairs(k).await, [(Kind::Sysctl, 1)], "{path}");
            assert_eq!(read(path), right, "{path}");
        }
        run("ip link set wrn2 down");
        let compared = k.reconcile_host().await;
        assert_eq!(compared.restored_slots, [Slot::Dialling(2)]);
        assert!(run("ip -6 addr show wrn2 up").contains("fe80::10:0:7/64"));
        assert_eq!(repairs(k).await, []);
        run("ip link set wrn2 mtu 1300");
        assert_eq!(repairs(k).await, [(Kind::Link, 1)]);
        run("ip link del wrn11");
        let compared = k.reconcile_host().await;
        assert_eq!(compared.deleted_slots, [Slot::Dialling(11)]);
        assert_eq!(compared.repairs.len(), 1, "{compared:?}");
        assert!(run("ip link show wrn11").contains("mtu 1400"));
        k.set_down(Slot::Dialling(4)).await.unwrap();
        assert_eq!(
            repairs(k).await,
            [],
            "a slot that the node set down stays down"
        );
        k.sweep(&netns.ledger()).await.unwrap();
        assert_eq!(read("ipv6/conf/all/forwarding"), "0\n");
    });
}

#[test]
fn a_renamed_link_gets_its_name_back_and_a_link_that_got_the_index_of_a_slot_is_left_alone() {
    check(|netns| async move {
        let k = &netns.kernel;
        join(k, &netns.ledger()).await;
        run("ip link set wrn2 name other2");
        let compared = k.reconcile_host().await;
        assert_eq!(compared.failure, None);
        assert_eq!(compared.deleted_slots, []);
        assert_eq!(compared.restored_slots, [Slot::Dialling(2)]);
        let renamed = "wrn2 (was renamed to other2)".to_owned();
        assert!(
            compared
                .repairs
                .iter()
                .any(|repair| repair.object == renamed)
        );
        assert!(run("ip -6 addr show wrn2 up").contains("fe80::10:0:7/64"));
        assert_eq!(repairs(k).await, []);

        let listed = run("ip -o link show wrn5");
        let (index, _) = listed.split_once(':').unwrap();
        run("ip link del wrn5");
        run(&format!(
            "ip link add other5 index {index} mtu 1300 type bridge"
        ));
        let other = run("ip addr show other5");
        assert!(k.index(Slot::Dialling(5)).is_err(), "it is no slot");
        k.set_down(Slot::Dialling(5)).await.unwrap();
        let compared = k.reconcile_host().await;
        assert_eq!(compared.failure, None);
        assert_eq!(compared.deleted_slots, [Slot::Dialling(5)]);
        assert!(run("ip link show wrn5").contains("mtu 1400"));
        assert_eq!(run("ip addr show other5"), other);
        assert_eq!(repairs(k).await, []);

        run("ip link set wrn3 name other3");
        k.sweep(&netns.ledger()).await.unwrap();
        let left = run("ip -o link");
        assert!(
            left.contains("other5") && !left.contains("other3"),
            "{left}"
        );
    });
}

#[test]
fn ipv6_that_is_disabled_on_the_host_works_on_lo_and_slots_and_is_disabled_again_by_the_sweep() {
    check(|netns| async move {
        let k = &netns.kernel;
        let path = |link: &str| format!("/proc/sys/net/ipv6/conf/{link}/disable_ipv6");
        let read = |link: &str| fs::read_to_string(path(link)).unwrap();
        make_uplink();
        fs::write(path("all"), "1").unwrap();
        k.apply_host_settings(&netns.ledger()).unwrap();
        k.join_host(network(), me()).await.unwrap();
        k.make_dialling_slots(0..2, me(), NOBODY).await.unwrap();
        assert!(run("ip addr show lo").contains("2001:db8:42:7::1/128"));
        assert!(run("ip addr show wrn0").contains("fe80::10:0:7/64"));
        assert_eq!(
            ["all", "up0", "lo", "wrn0"].map(read),
            ["1\n", "1\n", "0\n", "0\n"]
        );
        // Another program disables it while the node runs, which removes addresses and routes.
        fs::write(path("all"), "0").unwrap();
        fs::write(path("all"), "1").unwrap();
        assert!(!run("ip addr show lo").contains("2001:db8:42:7::1/128"));
        let restored = repairs(k).await;
        assert!(restored.contains(&(Kind::Sysctl, 3)), "{restored:?}");
        assert!(restored.contains(&(Kind::Address, 3)), "{restored:?}");
        assert_eq!(repairs(k).await, []);
        assert!(run("ip addr show lo").contains("2001:db8:42:7::1/128"));
        assert!(run("ip -6 route show proto 197").contains("unreachable 2001:db8:42::/48"));
        k.sweep(&netns.ledger()).await.unwrap();
        assert_eq!(["all", "up0", "lo"].map(read), ["1\n", "1\n", "1\n"]);
    });
}

#[test]
fn a_link_that_appears_later_accepts_router_advertisements_as_before() {
    check(|netns| async move {
        let k = &netns.kernel;
        join(k, &netns.ledger()).await;
        let path = |link: &str| format!("/proc/sys/net/ipv6/conf/{link}/accept_ra");
        let read = |link: &str| fs::read_to_string(path(link)).unwrap();
        run("ip link add late0 type veth peer name late1");
        assert_eq!(read("late0"), "2\n", "new links inherit it");
        fs::write(path("late1"), "1").unwrap();
        assert_eq!(
            repairs(k).await,
            [],
            "nobody has meddled with the node's part"
        );
        assert_eq!(read("late1"), "2\n");
        run("sysctl -qw net.ipv6.conf.all.forwarding=0");
        fs::write(path("late1"), "1").unwrap();
        assert_eq!(repairs(k).await, [(Kind::Sysctl, 1)]);
        assert_eq!(read("late1"), "2\n", "before forwarding is turned on");
        k.sweep(&netns.ledger()).await.unwrap();
        assert_eq!(["default", "late1"].map(read), ["1\n", "1\n"]);
    });
}

#[test]
fn a_route_of_babeld_is_restored_as_babeld_would_add_it() {
    check(|netns| async move {
        let k = &netns.kernel;
        join(k, &netns.ledger()).await;
        let next_hop = NextHop {
            slot: Slot::Dialling(1),
            via: Prefix::new(8, 16).unwrap(),
        };
        let restore = async |to: &str, from: Option<&str>| {
            let from = from.map(|from| from.parse().unwrap());
            let to = to.parse().unwrap();
            let route = NextHopRoute { to, from, next_hop };
            k.restore_route(route).await.unwrap();
            k.restore_route(route).await.unwrap();
        };
        restore("2001:db8:42:8::/64", None).await;
        restore("::/0", Some("2001:db8:42::/48")).await;
        let routes = run("ip -6 route show table 197 proto babel");
        let expected =
            "2001:db8:42:8::/64 via fe80::10:0:8 dev wrn1 src 2001:db8:42:7::1 metric 1024 onlink";
        assert!(routes.contains(expected), "{routes}");
        let routes = run("ip -6 route show table 199 proto babel");
        let expected = "default from 2001:db8:42::/48 via fe80::10:0:8 dev wrn1 metric 1024 onlink";
        assert!(routes.contains(expected), "{routes}");
        let present = k.copy_missing_routes().await.unwrap();
        let present: Vec<_> = present.iter().map(ToString::to_string).collect();
        let expected = ["2001:db8:42:8::/64", "2001:db8:42:9::/64", "::/0"];
        assert!(
            expected
                .iter()
                .all(|to| present.contains(&(*to).to_owned())),
            "{present:?}"
        );
        run("ip -6 route flush table 198");
        k.copy_missing_routes().await.unwrap();
        assert!(run("ip -6 route show table 198").contains("2001:db8:42:8::/64"));
        let (to, from) = ("2001:db8:42:8::/64".parse().unwrap(), None);
        let route = NextHopRoute { to, from, next_hop };
        let via = Prefix::new(9, 16).unwrap();
        let other = NextHopRoute {
            next_hop: NextHop { via, ..next_hop },
            ..route
        };
        k.delete_restored(other).await.unwrap();
        let routes = || run("ip -6 route show table 197 proto babel");
        assert!(routes().contains("2001:db8:42:8::/64"), "another next hop");
        k.delete_restored(route).await.unwrap();
        k.delete_restored(route).await.unwrap();
        assert_eq!(routes(), "");
    });
}

#[test]
fn a_rule_with_other_selectors_is_not_taken_for_that_of_the_node() {
    check(|netns| async move {
        let k = &netns.kernel;
        join(k, &netns.ledger()).await;
        run("ip -6 rule del pref 32000");
        run("ip -6 rule add pref 32000 iif up0 lookup 197");
        assert_eq!(repairs(k).await, [(Kind::Rule, 1)]);
        assert_eq!(repairs(k).await, []);
    });
}

#[test]
fn a_rule_that_comes_before_the_nodes_is_reported_and_so_is_where_it_leads() {
    check(|netns| async move {
        let k = &netns.kernel;
        join(k, &netns.ledger()).await;
        make_other_vpn();
        k.set_up(Slot::Dialling(1), me()).await.unwrap();
        run("ip -6 route add 2001:db8:42:8::/64 via fe80::10:0:8 dev wrn1 table 197 proto 42");
        let node = network().node_address(Prefix::new(8, 16).unwrap());
        assert_eq!(k.diversion(node).await.unwrap(), None);
        // As NetBird does for an exit node.
        run("ip -6 rule add pref 105 lookup main suppress_prefixlength 0");
        run("ip -6 rule add pref 110 lookup 7120");
        let compared = k.reconcile_host().await;
        assert_eq!(compared.earlier_rules, [105, 110]);
        let diversion = k.diversion(node).await.unwrap().unwrap().to_string();
        assert_eq!(diversion, "are dropped as unreachable");
        run("ip -6 rule del pref 105");
        let diversion = k.diversion(node).await.unwrap().unwrap().to_string();
        assert_eq!(diversion, "leave by vpn0, by a route of table 7120");
    });
}

fn make_other_vpn() {
    run("ip link add vpn0 type veth peer name vpn1");
    run("ip link set vpn1 up");
    run("ip link set vpn0 up");
    until("ip link show vpn0", |seen| seen.contains("state UP"));
    run("ip -6 route add default dev vpn0 table 7120");
}

#[test]
fn a_change_of_the_host_is_reported_and_one_of_babelds_routes_is_not() {
    check(|netns| async move {
        let k = &netns.kernel;
        join(k, &netns.ledger()).await;
        run("ip link set up0 up");
        run("ip link set up1 up");
        until("ip link show up0", |seen| seen.contains("state UP"));
        let watch = k.watch_host().unwrap();
        let is_reported = async || {
            let wait = std::time::Duration::from_millis(200);
            tokio::time::timeout(wait, watch.changed()).await.is_ok()
        };
        assert!(!is_reported().await);
        let babel = "2001:db8:42:8::/64 dev wrn1 table 197 proto 42";
        for change in ["add", "del"] {
            run(&format!("ip -6 route {change} {babel}"));
            assert!(!is_reported().await, "{change}");
        }
        for change in [
            "ip -6 rule del pref 32000",
            "ip -6 route del unreachable 2001:db8:42::/48 metric 4294968",
            "ip addr del 2001:db8:42:7::1/128 dev lo",
            "ip link set wrn2 down",
            "ip -6 route add default dev up0",
            "sysctl -w net.ipv6.conf.all.forwarding=0",
        ] {
            run(change);
            assert!(is_reported().await, "{change}");
            while is_reported().await {}
        }
    });
}
