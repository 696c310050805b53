//! What the node changes on its host, and that a sweep restores it.

use crate::netns::{NOBODY, check, exit_link, host_state, make_slots, make_uplink, me, run, until};
use os::kernel::{self, Kernel};
use policies::{
    alternates::NextHop,
    names::{Prefix, Slot},
};
use std::fs;

#[test]
fn a_sweep_by_the_next_daemon_leaves_the_namespace_as_it_was() {
    check(|netns| async move {
        make_uplink();
        run("ip addr add 2001:db8:1::1/64 dev up0 nodad");
        // The kernel adds it a moment later.
        until("ip -6 route show table local", |routes| {
            routes.contains("local 2001:db8:1::1 ")
        });
        run("ip -6 route add 2001:db8:2::/48 dev up0 proto 42");
        run("ip tuntap add wrn99 mode tap");
        fs::write("/proc/sys/net/ipv6/conf/up1/forwarding", "1").unwrap();
        fs::write("/proc/sys/net/ipv6/conf/up0/accept_ra", "1").unwrap();
        let before = host_state();
        let k = &netns.kernel;
        make_slots(k).await;
        let network = wire::overlay::Network::new("2001:db8:42::/48".parse().unwrap()).unwrap();
        k.join_host(network, me()).await.unwrap();
        k.join_host(network, me()).await.unwrap();
        k.apply_host_settings(&netns.ledger()).unwrap();
        assert!(run("ip addr show lo").contains("2001:db8:42:7::1/128"));
        let routes = run("ip -6 route show proto 197");
        assert!(
            routes.contains("unreachable 2001:db8:42:7::/64 dev lo metric 4294967 "),
            "{routes}"
        );
        assert!(
            routes.contains("unreachable 2001:db8:42::/48 dev lo metric 4294968 "),
            "{routes}"
        );
        assert!(run("ip -6 rule").contains("32000:\tfrom all lookup 197"));
        run("ip -6 route add 2001:db8:42:8::/64 via fe80::10:0:8 dev wrn0 table 197 proto 42");
        let read =
            |key: &str| fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{key}")).unwrap();
        assert_eq!(read("all/forwarding"), "1\n");
        assert_eq!(read("up0/accept_ra"), "2\n");
        // The next daemon knows only the root.
        let next = Kernel::open(netns.folder.path()).unwrap();
        let swept = next.sweep(&netns.ledger()).await.unwrap();
        assert_eq!(swept.links, 12 + 2 + 6);
        assert_eq!(
            (swept.routes, swept.addresses, swept.rules),
            (1 + 2, 1, 3),
            "one route of babeld, two of the daemon"
        );
        assert_eq!(
            next.sweep(&netns.ledger()).await.unwrap(),
            kernel::Swept::default()
        );
        assert_eq!(host_state(), before);
        assert!(!netns.ledger().exists());
    });
}

#[test]
fn nothing_is_removed_where_another_node_has_links() {
    check(|netns| async move {
        make_slots(&netns.kernel).await;
        let network = wire::overlay::Network::new("2001:db8:42::/48".parse().unwrap()).unwrap();
        netns.kernel.join_host(network, me()).await.unwrap();
        netns.kernel.apply_host_settings(&netns.ledger()).unwrap();
        let state = || {
            let listings = [
                "ip -6 rule",
                "ip -6 route show proto 197",
                "ip -6 addr show lo",
            ];
            (netns.kernel.counters().unwrap().len(), listings.map(run))
        };
        let before = state();
        let other = Kernel::open(&netns.folder.path().join("other")).unwrap();
        let error = other.sweep(&netns.ledger()).await.unwrap_err().to_string();
        let hint = format!("warren cleanup --root {}", netns.folder.path().display());
        assert!(error.contains(&hint), "{error}");
        assert_eq!(state(), before);
        assert!(netns.ledger().exists());
    });
}

#[test]
fn ipv4_is_set_up_and_removed_as_the_network_document_requires() {
    check(|netns| async move {
        make_uplink();
        run("ip route add 192.0.2.0/24 dev up0 proto 42");
        let k = &netns.kernel;
        k.make_dialling_slots(0..1, me(), NOBODY).await.unwrap();
        let ipv4 =
            || ["addr", "route show table all", "rule"].map(|what| run(&format!("ip -4 {what}")));
        let (before, forwarding) = (ipv4(), "/proc/sys/net/ipv4/conf/wrn0/forwarding");
        let range = |range: &str| wire::overlay::Network4::new(range.parse().unwrap());
        k.apply_ipv4(range("10.0.0.0/8"), me()).await.unwrap();
        k.apply_ipv4(range("10.42.0.0/16"), me()).await.unwrap();
        k.apply_ipv4(range("10.42.0.0/16"), me()).await.unwrap();
        let routes = run("ip route show proto 197");
        assert!(
            routes.contains("unreachable 10.42.0.7 metric 4294967 "),
            "{routes}"
        );
        assert!(
            routes.contains("unreachable 10.42.0.0/16 metric 4294968 "),
            "{routes}"
        );
        assert_eq!(routes.lines().count(), 2, "{routes}");
        let addresses = run("ip -4 addr show lo");
        assert!(
            addresses.contains("10.42.0.7/32") && !addresses.contains("10.0.7.1"),
            "{addresses}"
        );
        assert!(run("ip rule").contains("32000:\tfrom all lookup 197"));
        assert_eq!(fs::read_to_string(forwarding).unwrap(), "1\n");
        k.apply_ipv4(None, me()).await.unwrap();
        assert_eq!(fs::read_to_string(forwarding).unwrap(), "0\n");
        assert_eq!(ipv4(), before);
        // The IPv4 range has no room for this node's prefix: it forwards the packets of others, but has no address.
        k.apply_ipv4(range("10.42.0.0/20"), me()).await.unwrap();
        assert_eq!(run("ip route show proto 197").lines().count(), 1);
        k.apply_ipv4(range("10.42.0.0/16"), me()).await.unwrap();
        let next = Kernel::open(netns.folder.path()).unwrap();
        run("ip route add 10.42.0.8 via inet6 fe80::10:0:8 dev wrn0 table 197 proto 42");
        let swept = next.sweep(&netns.ledger()).await.unwrap();
        assert_eq!((swept.routes, swept.addresses, swept.rules), (1 + 2, 1, 3));
        assert_eq!(run("ip route show proto 197"), "");
        assert!(!run("ip rule").contains("197"));
    });
}

#[test]
fn only_packets_of_the_host_take_an_alternate_route() {
    check(|netns| async move {
        let k = &netns.kernel;
        make_slots(k).await;
        let network = wire::overlay::Network::new("2001:db8:42::/48".parse().unwrap()).unwrap();
        k.join_host(network, me()).await.unwrap();
        k.apply_host_settings(&netns.ledger()).unwrap();
        for slot in [Slot::Dialling(0), Slot::Dialling(1)] {
            k.set_up(slot, me()).await.unwrap();
        }
        let range = "2001:db8:42:9::/64".parse().unwrap();
        // babeld makes the destination unreachable when the route is retracted.
        run("ip -6 route add unreachable 2001:db8:42:9::/64 table 197 proto 42");
        let next_hop = NextHop {
            slot: Slot::Dialling(1),
            via: Prefix::new(8, 16).unwrap(),
        };
        k.set_alternate(range, next_hop).await.unwrap();
        k.set_alternate(range, next_hop).await.unwrap();
        let own = "2001:db8:42:9::1 from 2001:db8:42:7::1";
        assert_eq!(exit_link(own).as_deref(), Some("wrn1"));
        let forwarded = "2001:db8:42:9::1 from 2001:db8:42:5::1 iif wrn0";
        assert_eq!(exit_link(forwarded), None);
        k.delete_alternate(range).await.unwrap();
        k.delete_alternate(range).await.unwrap();
        assert_eq!(exit_link(own), None);
        k.set_alternate(range, next_hop).await.unwrap();
        k.clear_alternates().await.unwrap();
        assert_eq!(run("ip -6 route show table 201"), "");
    });
}

#[test]
fn babelds_routes_are_flushed_and_other_routes_are_kept() {
    check(|netns| async move {
        let k = &netns.kernel;
        k.make_dialling_slots(0..1, me(), NOBODY).await.unwrap();
        make_uplink();
        run("ip -6 route add 2001:db8:2::/48 dev up0 proto 42");
        run("ip -6 route add 2001:db8:3::/48 dev wrn0 proto static");
        let before = run("ip -6 route show table all");
        for route in [
            "2001:db8:42:8::/64 via fe80::10:0:8 dev wrn0 table 197 proto 42",
            "2001:db8:42:9::/64 from 2001:db8:42:7::/64 via fe80::10:0:8 dev wrn0 table 197 proto 42",
            "unreachable 2001:db8:42:a::/64 table 197 proto 42",
            "2001:db8:42:b::/64 via fe80::10:0:8 dev wrn0 proto 42",
            "default from 2001:db8:42::/48 via fe80::10:0:8 dev wrn0 table 199 proto 42",
        ] {
            run(&format!("ip -6 route add {route}"));
        }
        assert_eq!(k.flush_babel_routes().await.unwrap(), 5);
        assert_eq!(run("ip -6 route show table all"), before);
        assert_eq!(k.flush_babel_routes().await.unwrap(), 0);
    });
}

#[test]
fn settings_that_somebody_else_changed_since_are_not_restored() {
    check(|netns| async move {
        run("ip link add up0 type veth peer name up1");
        run("ip link add up2 type veth peer name up3");
        let path = |key: &str| format!("/proc/sys/net/ipv6/conf/{key}");
        let read = |key: &str| fs::read_to_string(path(key)).unwrap().trim_end().to_owned();
        for key in ["up0/accept_ra", "up1/accept_ra"] {
            fs::write(path(key), "1").unwrap();
        }
        fs::write(path("up3/forwarding"), "1").unwrap();
        netns.kernel.apply_host_settings(&netns.ledger()).unwrap();
        let refused = netns.kernel.apply_host_settings(&netns.ledger());
        assert!(refused.is_err(), "an older ledger is never overwritten");
        fs::write(path("up0/accept_ra"), "0").unwrap();
        fs::write(path("up1/forwarding"), "0").unwrap();
        run("ip link del up2");
        netns.kernel.restore_sysctls(&netns.ledger()).unwrap();
        for (key, expected) in [
            ("all/forwarding", "0"),
            ("default/forwarding", "0"),
            ("up0/forwarding", "0"),
            ("up1/forwarding", "0"),
            ("up0/accept_ra", "0"),
            ("up1/accept_ra", "1"),
        ] {
            assert_eq!(read(key), expected, "{key}");
        }
        assert_eq!(netns.kernel.restore_sysctls(&netns.ledger()).unwrap(), 0);
    });
}

#[test]
fn a_ledger_of_another_boot_or_with_foreign_paths_changes_nothing() {
    check(|netns| async move {
        let ledger = netns.ledger();
        netns.kernel.apply_host_settings(&ledger).unwrap();
        let text = fs::read_to_string(&ledger).unwrap();
        let forwarding = || fs::read_to_string("/proc/sys/net/ipv6/conf/all/forwarding").unwrap();
        for bad in [
            text.replace("conf/all/forwarding", "conf/../../ipv4/ip_forward"),
            text.replace("conf/all/forwarding", "conf/all/disable_ipv6"),
            text.replace("\"version\": 1", "\"version\": 2"),
            text[..text.len() / 2].to_owned(),
        ] {
            fs::write(&ledger, &bad).unwrap();
            assert_eq!(netns.kernel.restore_sysctls(&ledger).unwrap(), 0, "{bad}");
            assert_eq!(
                fs::read_to_string(ledger.with_added_extension("bad")).unwrap(),
                bad
            );
            assert_eq!(forwarding(), "1\n");
        }
        fs::write(
            &ledger,
            text.replace("\"place\": \"", "\"place\": \"other "),
        )
        .unwrap();
        assert_eq!(netns.kernel.restore_sysctls(&ledger).unwrap(), 0);
        assert_eq!(forwarding(), "1\n");
        assert!(!ledger.exists());
    });
}

#[test]
fn the_underlay_is_reported_without_our_links() {
    check(|netns| async move {
        let k = &netns.kernel;
        make_slots(k).await;
        make_uplink();
        run("ip addr add 192.0.2.7/24 dev up0");
        run("ip addr add 2001:db8:1::7/64 dev up0 nodad");
        run("ip route add default via 192.0.2.1 dev up0 metric 100");
        run("ip -6 route add default via fe80::1 dev up0 metric 1024");
        run("ip addr add 169.254.97.0/32 dev wrn0");
        let uplink = |address: &str, prefix_length| kernel::UplinkAddress {
            link: "up0".into(),
            address: address.parse().unwrap(),
            prefix_length,
            is_main: true,
        };
        let expected = [uplink("192.0.2.7", 24), uplink("2001:db8:1::7", 64)];
        assert_eq!(k.addresses().await.unwrap(), expected);
        let gateway = |metric, address: &str| kernel::Gateway {
            metric,
            link: "up0".into(),
            address: address.parse().unwrap(),
        };
        let expected = [gateway(100, "192.0.2.1"), gateway(1024, "fe80::1")];
        assert_eq!(k.gateways().await.unwrap(), expected);
        assert!(kernel::has_ipv6());
    });
}

#[test]
fn temporary_and_deprecated_addresses_are_no_addresses_to_dial() {
    check(|netns| async move {
        make_uplink();
        run("ip addr flush dev up0");
        run("ip addr add 192.0.2.7/24 dev up0");
        run("ip addr add 192.0.2.8/24 dev up0");
        run("ip addr add 2001:db8:1::9/64 dev up0 nodad preferred_lft 0 valid_lft 600");
        fs::write("/proc/sys/net/ipv6/conf/up0/use_tempaddr", "2").unwrap();
        run("ip addr add 2001:db8:1::7/64 dev up0 nodad mngtmpaddr");
        // Duplicate address detection is off here, so the temporary address is usable at once.
        let listed = run("ip -6 addr show dev up0");
        assert!(listed.contains("temporary"), "{listed}");
        assert!(listed.contains("deprecated"), "{listed}");
        let found = netns.kernel.addresses().await.unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|found| found.address.to_string())
            .collect();
        assert_eq!(found, ["192.0.2.7", "192.0.2.8", "2001:db8:1::7"]);
    });
}

#[test]
fn addresses_on_links_without_a_default_route_are_marked() {
    check(|netns| async move {
        make_uplink();
        run("ip addr add 192.0.2.7/24 dev up0");
        run("ip link add br-1 type bridge");
        run("ip addr add 172.18.0.1/16 dev br-1");
        run("ip link set br-1 up");
        run("ip route add default via 192.0.2.1 dev up0");
        let found = netns.kernel.addresses().await.unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|found| (found.address.to_string(), found.is_main))
            .collect();
        let expected = [("172.18.0.1", false), ("192.0.2.7", true)];
        assert_eq!(
            found,
            expected.map(|(address, is_main)| (address.to_owned(), is_main))
        );
        let connected = netns.kernel.connected_uplinks().await.unwrap();
        assert_eq!(connected.len(), 1);
        run("ip link set up1 down");
        let is_lost = |seen: &str| seen.contains("NO-CARRIER");
        crate::netns::until("ip link show up0", is_lost);
        assert!(netns.kernel.connected_uplinks().await.unwrap().is_empty());
    });
}
