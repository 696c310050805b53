//! Sends messages to telemetry, and reads its snapshot as users do: with promtool and with Prometheus.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "all of it is tests, helpers included; they start promtool and Prometheus"
)]

mod exporting_node;
mod snapshot;

use actix::Actor;
use actors::{
    messages::{ActorRestarted, RoutesRead},
    sinks::telemetry::{Telemetry, TelemetryDeps},
};
use exporting_node::*;
use std::{
    io::Write,
    process::{Command, Stdio},
    sync::Arc,
};
use tokio::{io::AsyncWriteExt, net::TcpStream};

#[actix::test]
async fn promtool_accepts_the_metrics_and_the_values_are_those_that_were_sent() {
    let node = Node::start().await;
    let (status, text) = node.get("/metrics").await;
    assert_eq!(status, 200);
    for line in [
        r#"warren_tunnel_receive_bytes_total{tunnel="wrn0",peer="9/16",role="dialled"} 100000"#,
        r#"warren_tunnel_transmit_bytes_total{tunnel="wrnt.2",peer="11/16",role="accepted"} 200000"#,
        r#"warren_tunnel_up{tunnel="wrn1",peer="8/16",role="dialled"} 0"#,
        r#"warren_tunnel_up{tunnel="wrn0",peer="9/16",role="dialled"} 1"#,
        r#"warren_tunnel_nodes_served{tunnel="wrn0",peer="9/16",role="dialled"} 2"#,
        r#"warren_tunnel_rtt_seconds{tunnel="wrn0",peer="9/16",role="dialled"} 0.01"#,
        r#"warren_tunnel_loss_ratio{tunnel="wrn0",peer="9/16",role="dialled"} 0.1"#,
        r#"warren_tunnel_info{tunnel="wrnt.2",peer="11/16",role="accepted",transport="tcp",peer_name=""} 1"#,
        r#"warren_tunnel_receive_dropped_total{tunnel="wrn0",peer="9/16",role="dialled"} 10"#,
        r#"warren_tunnel_transmit_dropped_total{tunnel="wrn0",peer="9/16",role="dialled"} 20"#,
        r#"warren_tunnel_reconnects_total{tunnel="wrn0",peer="9/16",role="dialled"} 1"#,
        r#"warren_tunnel_state{tunnel="wrn0",peer="9/16",role="dialled",state="up"} 1"#,
        r#"warren_traffic_dropped_total{direction="receive",role="dialled"} 10"#,
        r#"warren_probes_sent_total{role="dialled"} 50"#,
        r#"warren_probes_lost_total{role="dialled"} 2"#,
        r#"warren_probes_lost_total{role="accepted"} 0"#,
        r#"warren_probe_rtt_seconds_bucket{role="dialled",le="0.005"} 0"#,
        r#"warren_probe_rtt_seconds_bucket{role="dialled",le="0.025"} 1"#,
        r#"warren_probe_rtt_seconds_sum{role="dialled"} 0.02"#,
        r#"warren_tunnel_setup_seconds_bucket{role="dialled",le="2.5"} 1"#,
        r#"warren_tunnel_setup_seconds_count{role="dialled"} 1"#,
        r#"warren_route_changes_total{change="gained"} 3"#,
        "warren_heal_seconds_count 0",
        r#"warren_process_starts_total{process="client"} 2"#,
        r#"warren_process_exits_total{process="client",kind="unexpected"} 1"#,
        r#"warren_process_exits_total{process="babeld",kind="ordered"} 0"#,
        r#"warren_process_cpu_seconds_total{process="babeld"} 1.5"#,
        r#"warren_process_resident_memory_bytes{process="babeld"} 4096"#,
        r#"warren_openvpn_receive_dropped_total{process="client"} 12"#,
        r#"warren_openvpn_receive_dropped_total{process="server-udp"} 0"#,
        "warren_netlink_dropped_total 3",
        "warren_clock_offset_seconds -2",
        r#"warren_traffic_bytes_total{direction="transmit",role="dialled"} 200000"#,
        r#"warren_decisions_total{order="open",reason="bootstrap"} 1"#,
        r#"warren_decisions_total{order="close",reason="revoked"} 0"#,
        r#"warren_drains_total{outcome="completed"} 1"#,
        r#"warren_tunnels_closed_total{role="dialled",reason="unused"} 1"#,
        r#"warren_peer_cache_entries{state="failing"} 1"#,
        r#"warren_candidate_probes_total{outcome="answered"} 1"#,
        r#"warren_candidate_probes_total{outcome="unanswered"} 0"#,
        r#"warren_leases{transport="udp"} 1"#,
        r#"warren_process_up{process="babeld"} 1"#,
        r#"warren_actor_restarts_total{actor="policy"} 1"#,
        r#"warren_actor_restarts_total{actor="tunnels"} 0"#,
        "warren_routes_installed 3",
        "warren_nodes_known 3",
        "warren_neighbours 2",
        "warren_registry_up 1",
        "warren_ready 1",
        "warren_certificate_expiry_timestamp_seconds 2000000000",
    ] {
        assert!(
            text.lines().any(|seen| seen == line),
            "{line} is not in\n{text}"
        );
    }
    let pipe = Stdio::piped;
    let promtool = &mut Command::new("promtool");
    promtool
        .args(["check", "metrics"])
        .stdin(pipe())
        .stdout(pipe())
        .stderr(pipe());
    let mut promtool = promtool.spawn().unwrap();
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = promtool.wait_with_output().unwrap();
    let messages = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success() && messages.is_empty(),
        "{}",
        String::from_utf8_lossy(&messages)
    );
}

#[actix::test]
async fn the_node_stays_healthy_but_is_not_ready_when_babeld_does_not_answer() {
    let node = Node::start().await;
    assert_eq!(node.get("/healthz").await.0, 200);
    assert_eq!(node.get("/readyz").await.0, 200);
    let (_, before) = node.get("/metrics").await;
    node.telemetry.do_send(RoutesRead {
        at: node.clock.now(),
        table: None,
        exit_routes: wire::babel::ExitRoutes::default(),
        claims: Arc::default(),
    });
    wait_until("answer 503 of /readyz", async || {
        (node.get("/readyz").await.0 == 503).then_some(())
    })
    .await;
    assert_eq!(node.get("/healthz").await.0, 200);
    let (_, text) = node.get("/metrics").await;
    let read_at = |text: &str| {
        let mut lines = text.lines();
        let line = "warren_reading_timestamp_seconds{reading=\"routes\"}";
        lines.find(|seen| seen.starts_with(line)).map(str::to_owned)
    };
    for line in [
        "warren_babel_up 0",
        "warren_nodes_reachable 3",
        "warren_routes 4",
    ] {
        assert!(text.lines().any(|seen| seen == line), "{line}: {text}");
    }
    assert!(read_at(&text).is_some());
    assert_eq!(read_at(&text), read_at(&before), "the age must grow");
}

#[actix::test]
async fn a_restarted_telemetry_continues_counting() {
    let node = Node::start().await;
    let restarted = Telemetry::new(TelemetryDeps {
        clock: node.clock.clone(),
        published: node.published.clone(),
        names: membership::node_names::NodeNames::default(),
        pins: Default::default(),
        find: actors::sinks::health::present_findings,
    })
    .start();
    restarted.do_send(ActorRestarted { actor: "policy" });
    let count = || {
        node.published
            .load()
            .counts
            .actor_restarts
            .get("policy")
            .copied()
    };
    wait_until("second restart in the counters", async || {
        (count() == Some(2)).then_some(())
    })
    .await;
    assert_eq!(node.published.load().log.len(), 5);
}

#[actix::test]
async fn prometheus_scrapes_traffic_routes_and_decisions() {
    let node = Node::start().await;
    let folder = Folder::new("prometheus");
    let port = free_port();
    let (file, data) = (folder.0.join("prometheus.yml"), folder.0.join("data"));
    let target = format!("[{{ targets: ['127.0.0.1:{}'] }}]", node.port);
    let job = format!("- job_name: warren\n  static_configs: {target}\n");
    std::fs::write(
        &file,
        format!("global: {{ scrape_interval: 1s }}\nscrape_configs:\n{job}"),
    )
    .unwrap();
    let mut prometheus = tokio::process::Command::new("prometheus")
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.tsdb.path={}", data.display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut bytes = 100_000;
    for query in [
        "up==1",
        "sum(rate(warren_tunnel_receive_bytes_total[10s]))>0",
        "warren_routes_installed>0",
        "sum(warren_decisions_total)>0",
    ] {
        let path = format!(
            "/api/v1/query?query={}",
            query.replace('>', "%3E").replace('=', "%3D")
        );
        wait_until(query, async || {
            bytes += 10_000;
            node.sample(bytes);
            let (status, body) =
                get(TcpStream::connect(("127.0.0.1", port)).await.ok()?, &path).await;
            (status == 200 && body.contains(r#""value":["#)).then_some(())
        })
        .await;
    }
    prometheus.kill().await.unwrap();
}

#[actix::test]
async fn clients_that_send_slowly_keep_no_scrape_out() {
    let node = Node::start().await;
    let mut slow = Vec::new();
    for _ in 0..200 {
        let mut connection = TcpStream::connect(("127.0.0.1", node.port)).await.unwrap();
        connection
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: ")
            .await
            .unwrap();
        slow.push(connection);
    }
    // The deadline is far below the time after which the server gives up a slow client.
    let scrape = tokio::time::timeout(std::time::Duration::from_secs(2), node.get("/metrics"));
    let (status, body) = scrape.await.unwrap();
    assert_eq!(status, 200);
    assert!(body.contains("warren_routes_installed"));
    drop(slow);
}
