//! Which packets leave the network's range, and by which link.

use crate::netns::{NOBODY, check, exit_link, make_uplink, me, run};
use os::kernel::{Exit, Kernel};
use wire::overlay::Network;

const INSIDE: &str = "2001:db8:42:7::1";
const OUTSIDE: &str = "2001:db8:f::1";
/// The default route that babeld adds on every node, whether it is a gateway or not.
const BY_BABEL: &str = "default from 2001:db8:42::/48 via fe80::10:0:8 dev wrn0 table 199 proto 42";

fn network() -> Network {
    Network::new("2001:db8:42::/48".parse().unwrap()).unwrap()
}

fn link_to_outside(from: &str) -> Option<String> {
    exit_link(&format!("{OUTSIDE} from {from}"))
}

async fn set_up_host(k: &Kernel) {
    k.make_dialling_slots(0..1, me(), NOBODY).await.unwrap();
    make_uplink();
    run("ip addr add 2001:db8:1::7/64 dev up0 nodad");
    run("ip -6 route add default via 2001:db8:1::1 dev up0");
    k.join_host(network(), me()).await.unwrap();
}

#[test]
fn packets_of_the_network_leave_only_by_a_gateway_and_those_of_the_host_are_unaffected() {
    check(|netns| async move {
        let k = &netns.kernel;
        set_up_host(k).await;
        let before = run("ip -6 rule");
        assert_eq!(link_to_outside(INSIDE).as_deref(), Some("up0"));
        k.apply_exit_rules(network(), Exit::Others(NOBODY))
            .await
            .unwrap();
        k.apply_exit_rules(network(), Exit::Others(NOBODY))
            .await
            .unwrap();
        assert_eq!(
            run("ip -6 rule").lines().count(),
            before.lines().count() + 5
        );
        assert_eq!(link_to_outside(INSIDE), None);
        assert_eq!(link_to_outside("2001:db8:1::7").as_deref(), Some("up0"));
        run(&format!("ip -6 route add {BY_BABEL}"));
        assert_eq!(link_to_outside(INSIDE).as_deref(), Some("wrn0"));
        assert_eq!(link_to_outside("2001:db8:1::7").as_deref(), Some("up0"));
        assert_eq!(exit_link(OUTSIDE).as_deref(), Some("up0"));
        // The host's own networks take precedence over a gateway, and an unknown node is not outside.
        assert_eq!(
            exit_link(&format!("2001:db8:1::9 from {INSIDE}")).as_deref(),
            Some("up0")
        );
        assert_eq!(exit_link(&format!("2001:db8:42:99::1 from {INSIDE}")), None);
        assert_eq!(
            exit_link(&format!("{OUTSIDE} from {INSIDE} uid {NOBODY}")),
            None
        );
        k.apply_exit_rules(network(), Exit::None).await.unwrap();
        assert_eq!(run("ip -6 rule"), before);
    });
}

#[test]
fn a_gateway_uses_its_hosts_default_route_and_others_only_without_one() {
    check(|netns| async move {
        let k = &netns.kernel;
        set_up_host(k).await;
        k.apply_exit_rules(network(), Exit::Others(NOBODY))
            .await
            .unwrap();
        k.apply_exit_rules(network(), Exit::Own(NOBODY))
            .await
            .unwrap();
        assert_eq!(link_to_outside(INSIDE).as_deref(), Some("up0"));
        run("ip -6 route del default");
        assert_eq!(link_to_outside(INSIDE), None);
        run(&format!("ip -6 route add {BY_BABEL}"));
        assert_eq!(link_to_outside(INSIDE).as_deref(), Some("wrn0"));
        // The next daemon knows only the root.
        let next = Kernel::open(netns.folder.path()).unwrap();
        let swept = next.sweep(&netns.ledger()).await.unwrap();
        assert_eq!(
            swept.rules,
            3 + 4,
            "a gateway has no unreachable rule at the end"
        );
        assert_eq!(run("ip -6 rule").lines().count(), 2);
    });
}

#[test]
fn a_copy_bridges_the_moment_in_which_the_exit_route_changes() {
    check(|netns| async move {
        let k = &netns.kernel;
        set_up_host(k).await;
        k.apply_exit_rules(network(), Exit::Others(NOBODY))
            .await
            .unwrap();
        run(&format!("ip -6 route add {BY_BABEL}"));
        k.copy_all_routes().await.unwrap();
        run(&format!("ip -6 route del {BY_BABEL}"));
        assert_eq!(link_to_outside(INSIDE).as_deref(), Some("wrn0"));
        assert_eq!(link_to_outside("2001:db8:1::7").as_deref(), Some("up0"));
        k.delete_copy("::/0".parse().unwrap()).await.unwrap();
        assert_eq!(link_to_outside(INSIDE), None);
        run(&format!("ip -6 route add {BY_BABEL}"));
        k.copy_all_routes().await.unwrap();
        // The next daemon finds babeld's route and its copy.
        let next = Kernel::open(netns.folder.path()).unwrap();
        let swept = next.sweep(&netns.ledger()).await.unwrap();
        assert_eq!(
            (swept.routes, swept.addresses, swept.rules),
            (2 + 2, 1, 3 + 5)
        );
        assert!(!run("ip -6 route show table all").contains("from 2001:db8:42::"));
    });
}
