//! Faults that a test or a measurement injects into one node.

use super::Node;
use crate::{nat_router::load_nft_rules, netns, wait::wait_until};
use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};
use wire::control::{STATUS_PATH, StatusDocument};

/// Longest wait until a child process is ready.
const CHILD_TIMEOUT: Duration = Duration::from_secs(45);
/// The nftables table that drops a share of what arrives.
const LOSSY_TABLE: &str = "inet lossy";
/// The UDP port of the nodes' servers.
pub const SERVER_PORT: u16 = 1194;
/// Size of a datagram that a server does not read, in bytes.
const DATAGRAM_BYTES: usize = 1_000;

impl Node {
    /// Waits until the child that `warren status` shows by this name is ready and has another pid than `before`.
    ///
    /// # Errors
    /// Fails if there is none within 45 s.
    pub fn wait_for_child(&self, name: &str, before: Option<u32>) -> Result<u32> {
        let found = wait_until(CHILD_TIMEOUT, || {
            let status: StatusDocument = self.control_document(STATUS_PATH).ok()?;
            let mut processes = status.processes.into_iter();
            let found = processes.find(|process| process.name == name && process.ready)?;
            found.pid.filter(|pid| Some(*pid) != before)
        });
        found.with_context(|| self.describe(&format!("does not run {name}")))
    }

    /// Kills the child with this name as often as this, each time once it is ready again.
    ///
    /// # Errors
    /// Fails as [`Node::wait_for_child`] does.
    pub fn kill_child_repeatedly(&self, name: &str, count: usize) -> Result<()> {
        let mut pid = None;
        for _ in 0..count {
            let next = self.wait_for_child(name, pid)?;
            kill(Pid::from_raw(i32::try_from(next)?), Signal::SIGKILL)?;
            pid = Some(next);
        }
        self.wait_for_child(name, pid).map(drop)
    }

    /// Stops the UDP server for as long as these many datagrams of 1,000 bytes arrive from another namespace.
    ///
    /// # Errors
    /// Fails if the server does not run, or if the namespace cannot be entered.
    pub fn overflow_server(&self, from: &str, address: &str, datagrams: usize) -> Result<()> {
        let server = Pid::from_raw(i32::try_from(self.wait_for_child("server-udp", None)?)?);
        let to: SocketAddr = format!("{address}:{SERVER_PORT}").parse()?;
        kill(server, Signal::SIGSTOP)?;
        let flood = netns::run_inside(from, || {
            let socket = UdpSocket::bind("0.0.0.0:0").context("cannot open a socket")?;
            for _ in 0..datagrams {
                // The sender's own buffer may be full for a moment.
                socket.send_to(&[0; DATAGRAM_BYTES], to).ok();
            }
            Ok(())
        });
        kill(server, Signal::SIGCONT)?;
        flood
    }

    /// Lets the daemon open no further files, sockets included; `false` undoes that.
    ///
    /// # Errors
    /// Fails if the daemon does not run, or if prlimit(1) fails.
    pub fn forbid_new_files(&self, is_forbidden: bool) -> Result<()> {
        let pid = self.pid().context("the daemon does not run")?.to_string();
        let limit = if is_forbidden {
            "--nofile=3:1024"
        } else {
            "--nofile=1024:1024"
        };
        self.command("prlimit", &["--pid", &pid, limit]).map(drop)
    }

    /// Loses this share of the UDP packets that arrive at the node, in percent; 0 undoes that.
    ///
    /// # Errors
    /// Fails if the kernel rejects the rules.
    pub fn lose_packets(&self, percent: u8) -> Result<()> {
        let rules = match percent {
            0 => format!("delete table {LOSSY_TABLE}\n"),
            _ => format!(
                "table {LOSSY_TABLE} {{\nchain in {{\ntype filter hook input priority 0\n\
                 meta l4proto udp iifname eth0 numgen random mod 100 < {percent} drop\n}}\n}}\n"
            ),
        };
        load_nft_rules(self.namespace(), &rules)
    }

    /// Drops what the node sends by UDP to servers and from its own, so that tunnels use TCP.
    ///
    /// # Errors
    /// Fails if the kernel rejects the rules.
    pub fn block_udp(&self) -> Result<()> {
        let rules = format!(
            "table inet without_udp {{\nchain out {{\ntype filter hook output priority 0\n\
             oifname eth0 udp sport {SERVER_PORT} drop\noifname eth0 udp dport {SERVER_PORT} drop\n}}\n}}\n"
        );
        load_nft_rules(self.namespace(), &rules)
    }

    /// Drops what arrives for the node's servers, so that no other node can dial it.
    ///
    /// # Errors
    /// Fails if the kernel rejects the rules.
    pub fn admit_no_clients(&self) -> Result<()> {
        let rules = format!(
            "table inet without_clients {{\nchain in {{\ntype filter hook input priority 0\n\
             iifname eth0 meta l4proto {{ tcp, udp }} th dport {SERVER_PORT} drop\n}}\n}}\n"
        );
        load_nft_rules(self.namespace(), &rules)
    }

    /// Limits what the node sends by its uplink to this rate, such as `4mbit`, with a queue of 600 ms; `None` undoes that.
    ///
    /// # Errors
    /// Fails if the kernel rejects the change.
    pub fn slow_uplink(&self, rate: Option<&str>) -> Result<()> {
        let words = "qdisc replace dev eth0 root tbf burst 16kb latency 600ms rate";
        let arguments: Vec<_> = match rate {
            Some(rate) => words.split(' ').chain([rate]).collect(),
            None => "qdisc del dev eth0 root".split(' ').collect(),
        };
        self.command("tc", &arguments).map(drop)
    }
}
