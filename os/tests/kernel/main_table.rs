//! Readings of a main routing table with the routes of a router that knows many networks.

use crate::netns::{check, make_uplink, run};
use std::{fmt::Write, fs};

/// Number of routes, a tenth of those of the internet.
const ROUTES: u32 = 100_000;

#[test]
fn a_large_main_table_is_listed_only_once_in_a_while() {
    check(|netns| async move {
        make_uplink();
        let mut batch = String::new();
        for number in 0..ROUTES {
            let [_, a, b, c] = (number << 4).to_be_bytes();
            writeln!(batch, "route add {}.{b}.{c}.0/28 dev up0 proto bgp", 20 + a).unwrap();
        }
        let file = netns.folder.path().join("routes");
        fs::write(&file, batch).unwrap();
        run(&format!("ip -batch {}", file.display()));
        let k = &netns.kernel;
        let range = "10.0.0.0/8".parse().unwrap();
        assert_eq!(k.overlapping_network(range).await.unwrap(), None);
        run("ip route add 10.0.2.0/24 dev up0");
        // A reading that listed the table would find the new route.
        for _ in 0..100 {
            assert_eq!(k.overlapping_network(range).await.unwrap(), None);
        }
        // Another range is compared at once.
        let other = "10.0.2.0/23".parse().unwrap();
        let found = k.overlapping_network(other).await.unwrap();
        assert_eq!(found.as_deref(), Some("10.0.2.0/24 (up0)"));
        assert_eq!(k.flush_babel_routes().await.unwrap(), 0);
    });
}
