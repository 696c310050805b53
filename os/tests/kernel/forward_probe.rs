//! Whether the host forwards packets from one tunnel to another is found out without a neighbour.

use crate::netns::{check, me, run};

#[test]
fn a_firewall_that_drops_forwarded_packets_is_noticed_and_so_is_its_end() {
    check(|netns| async move {
        let k = &netns.kernel;
        let network = wire::overlay::Network::new("2001:db8:42::/48".parse().unwrap()).unwrap();
        k.apply_host_settings(&netns.ledger()).unwrap();
        k.join_host(network, me()).await.unwrap();
        let forwards = async || k.forwards_transit(network, me()).await.unwrap();
        assert!(forwards().await);
        assert!(forwards().await, "a second probe uses the same link");
        for meddling in ["ip link set wrnf down", "ip link del wrnf"] {
            run(meddling);
            assert!(forwards().await, "{meddling}");
        }
        // The host solicits the target of the last probe for three seconds. None of that may count for the next one.
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        run("nft add table inet docker");
        run(
            "nft add chain inet docker forward { type filter hook forward priority 0; policy drop; }",
        );
        assert!(!forwards().await);
        assert!(!forwards().await, "nor does a second probe pass");
        run("nft add rule inet docker forward iifname wrn* oifname wrn* accept");
        assert!(forwards().await);
        run("nft delete table inet docker");
        assert!(forwards().await);
        run("sysctl -qw net.ipv6.conf.all.forwarding=0");
        assert!(!forwards().await);
        k.sweep(&netns.ledger()).await.unwrap();
        assert!(!run("ip link").contains("wrnf"));
        assert_eq!(run("ip -6 route show table 198"), "");
    });
}

#[test]
fn a_firewall_that_lets_only_icmp_pass_is_noticed() {
    check(|netns| async move {
        let k = &netns.kernel;
        let network = wire::overlay::Network::new("2001:db8:42::/48".parse().unwrap()).unwrap();
        k.apply_host_settings(&netns.ledger()).unwrap();
        k.join_host(network, me()).await.unwrap();
        // As in the rules that ufw begins with.
        run("nft add table inet ufw");
        run("nft add chain inet ufw forward { type filter hook forward priority 0; policy drop; }");
        run("nft add rule inet ufw forward meta l4proto { icmp, ipv6-icmp } accept");
        assert!(!k.forwards_transit(network, me()).await.unwrap());
    });
}

#[test]
fn a_firewall_that_drops_forwarded_ipv4_packets_only_is_noticed_where_the_network_carries_ipv4() {
    check(|netns| async move {
        let k = &netns.kernel;
        let network = wire::overlay::Network::new("2001:db8:42::/48".parse().unwrap()).unwrap();
        let ipv4 = wire::overlay::Network4::new("10.0.0.0/8".parse().unwrap());
        k.apply_host_settings(&netns.ledger()).unwrap();
        k.join_host(network, me()).await.unwrap();
        run("nft add table ip docker");
        run(
            "nft add chain ip docker forward { type filter hook forward priority 0; policy drop; }",
        );
        let forwards = async || k.forwards_transit(network, me()).await.unwrap();
        assert!(forwards().await, "the network carries no IPv4 yet");
        k.apply_ipv4(ipv4, me()).await.unwrap();
        assert!(!forwards().await);
        assert!(!forwards().await, "nor does a second probe pass");
        run("nft delete table ip docker");
        for (name, value) in [("default", "0"), ("all", "1"), ("all", "2")] {
            run(&format!(
                "sysctl -qw net.ipv4.conf.{name}.rp_filter={value}"
            ));
            assert!(forwards().await, "{name} {value}");
        }
        // The route to these addresses, which a host of the node may have, is there during a probe only.
        assert!(!run("ip route show table 198").contains("10."));
        k.sweep(&netns.ledger()).await.unwrap();
        assert_eq!(run("ip route show table 198"), "");
    });
}
