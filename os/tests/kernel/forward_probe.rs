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
