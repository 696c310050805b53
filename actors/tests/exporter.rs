//! The exporter's pages, and how many series a node has.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "all of it is tests, helpers included; one prints a figure"
)]

mod exporting_node;
mod snapshot;

use exporting_node::*;
use snapshot::many_tunnels::send_tunnels;
use std::{cell::Cell, rc::Rc, time::Duration};
use tokio::net::TcpStream;

#[actix::test]
async fn a_page_links_to_all_others_and_head_has_the_status_of_get() {
    let node = Node::start().await;
    let (status, page) = node.get("/").await;
    assert_eq!(status, 200);
    for path in ["/metrics", "/healthz", "/readyz"] {
        assert!(page.contains(&format!("href=\"{path}\"")), "{page}");
        let connect = TcpStream::connect(("127.0.0.1", node.port)).await;
        let (status, body) = ask(connect.unwrap(), "HEAD", path).await;
        assert_eq!((status, body.as_str()), (200, ""), "{path}");
    }
    assert!(page.contains("7/16"), "{page}");
    let connect = TcpStream::connect(("127.0.0.1", node.port)).await;
    assert_eq!(ask(connect.unwrap(), "POST", "/metrics").await.0, 405);
}

/// The budget of a Prometheus that scrapes thousands of nodes.
#[actix::test]
async fn a_node_with_twenty_tunnels_has_at_most_690_series_and_each_further_tunnel_16() {
    let node = Node::start().await;
    let mut counts = Vec::new();
    for tunnels in [5, 20, 100] {
        send_tunnels(&node.telemetry, node.clock.now(), tunnels);
        let tunnel = format!("tunnel=\"wrn{}\"", tunnels - 1);
        let text = wait_until("all tunnels", async || {
            let (_, text) = node.get("/metrics").await;
            text.contains(&tunnel).then_some(text)
        })
        .await;
        counts.push(text.lines().filter(|line| !line.starts_with('#')).count());
    }
    println!("series with 5, 20 and 100 tunnels: {counts:?}");
    assert!(counts[1] <= 690, "{counts:?}");
    assert!(counts[2] - counts[1] <= 80 * 16, "{counts:?}");
}

/// Limits of a scrape with 1,000 tunnels; the times hold for a release build on a machine that does nothing else.
const MAX_SCRAPE_BYTES: usize = 2 << 20;
const MAX_SCRAPE_TIME: Duration = Duration::from_millis(10);
const MAX_LATENESS: Duration = Duration::from_millis(50);

#[actix::test]
async fn a_scrape_with_1000_tunnels_is_small_and_delays_no_reading() {
    let node = Node::start().await;
    send_tunnels(&node.telemetry, node.clock.now(), 1_000);
    let text = wait_until("all tunnels", async || {
        let (_, text) = node.get("/metrics").await;
        text.contains("tunnel=\"wrn999\"").then_some(text)
    })
    .await;
    let lateness = Rc::new(Cell::new(Duration::ZERO));
    let worst = lateness.clone();
    let readings = actix::spawn(async move {
        let mut interval = tokio::time::interval(Duration::from_millis(10));
        loop {
            let due = interval.tick().await;
            worst.set(worst.get().max(due.elapsed()));
        }
    });
    let mut scrapes = tokio::time::interval(Duration::from_millis(20));
    let mut times = Vec::new();
    for _ in 0..100 {
        scrapes.tick().await;
        let start = os::clock::runtime_now();
        node.get("/metrics").await;
        times.push(start.elapsed());
    }
    readings.abort();
    times.sort();
    let (median, lateness) = (times[times.len() / 2], lateness.get());
    println!(
        "1,000 tunnels: {} bytes, median {median:?}, worst {:?}; a reading was late by {lateness:?} at most",
        text.len(),
        times[times.len() - 1]
    );
    assert!(text.len() <= MAX_SCRAPE_BYTES);
    if !cfg!(debug_assertions) {
        assert!(median <= MAX_SCRAPE_TIME, "{median:?}");
        assert!(lateness <= MAX_LATENESS, "{lateness:?}");
    }
}
