//! That the kernel fragments what it sends to a peer once the MTU of the path to it is reduced.

use crate::netns::{NOBODY, check, run};
use os::{path_mtu::reduce_path_mtu, route_check::has_route};

/// Connects the namespace with a second one that stands for the peer's host.
fn make_path() {
    run("ip link add up0 type veth peer name peer0");
    run("ip addr add 192.0.2.1/24 dev up0");
    run("ip addr add 2001:db8::1/64 dev up0 nodad");
    for link in ["lo", "up0", "peer0"] {
        run(&format!("ip link set {link} up"));
    }
}

#[test]
fn a_reduced_path_mtu_holds_for_one_destination_only() {
    check(|_| async move {
        make_path();
        for (narrow, other) in [("192.0.2.2", "192.0.2.3"), ("2001:db8::2", "2001:db8::3")] {
            let route = |to: &str| run(&format!("ip route get {to}"));
            assert!(!route(narrow).contains("mtu"), "{}", route(narrow));
            reduce_path_mtu(narrow.parse().unwrap(), NOBODY).unwrap();
            assert!(route(narrow).contains("mtu 1280"), "{}", route(narrow));
            assert!(!route(other).contains("mtu"), "{}", route(other));
        }
    });
}

#[test]
fn an_address_of_a_family_that_the_host_lacks_has_no_route() {
    check(|_| async move {
        run("ip link add up0 type veth peer name peer0");
        run("ip addr add 192.0.2.1/24 dev up0");
        for link in ["up0", "peer0"] {
            run(&format!("ip link set {link} up"));
        }
        let has_route = |address: &str| has_route(address.parse().unwrap(), NOBODY);
        assert!(has_route("192.0.2.2"));
        assert!(!has_route("198.51.100.1"));
        assert!(!has_route("2001:db8::2"));
        run("ip route add default via 192.0.2.2");
        assert!(has_route("198.51.100.1"));
        assert!(!has_route("2001:db8::2"));
    });
}

#[test]
fn the_mtu_of_an_ipv4_path_is_reduced_for_a_peer_of_a_dual_stack_server_too() {
    check(|_| async move {
        make_path();
        reduce_path_mtu("::ffff:192.0.2.2".parse().unwrap(), NOBODY).unwrap();
        let route = run("ip route get 192.0.2.2");
        assert!(route.contains("mtu 1280"), "{route}");
    });
}
