//! Starts networks, and waits until every node reaches every other node.

use crate::{
    Lab, Options,
    kernel_routes::KernelRoutes,
    pinger::{PingSchedule, Pinger, all_pairs},
    progress::progress,
    wait::wait_until,
};
use anyhow::{Context, Result, bail};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};
use wire::control::{TUNNELS_PATH, TunnelEntry, TunnelsDocument};

/// A network that has not converged after this time never will.
const CONVERGENCE_TIMEOUT: Duration = Duration::from_secs(300);
/// Tunnels that stay the same for this long are settled: a free place is filled within five seconds.
const SETTLED_SPAN: Duration = Duration::from_secs(6);
/// Longest wait for settled tunnels.
const SETTLING_TIMEOUT: Duration = Duration::from_secs(120);

impl Lab {
    /// Builds a lab, lets all nodes join, starts them, and waits until the network has converged.
    ///
    /// # Errors
    /// Fails as [`Lab::build_joined`] and [`Lab::start_and_converge`] do.
    pub fn build_converged(options: Options) -> Result<Self> {
        let lab = Self::build_joined(options)?;
        lab.start_and_converge()?;
        Ok(lab)
    }

    /// Starts all nodes at once and waits until the network has converged. Returns the time from the start until the
    /// last pair got its first reply.
    ///
    /// # Errors
    /// Fails as [`Lab::wait_for_convergence`] does.
    pub fn start_and_converge(&self) -> Result<Duration> {
        let pinger = self.start_pings(PingSchedule::UNTIL_ANSWERED)?;
        let start = pinger.now();
        self.start_nodes()?;
        self.wait_for_replies(&pinger, start)
    }

    /// Waits until every pair of nodes gets a reply and every routing table has a route to every node. Returns the time
    /// until the last pair got its first reply.
    ///
    /// # Errors
    /// Fails if this takes longer than five minutes, and names the pairs without a reply; or if a daemon exits.
    pub fn wait_for_convergence(&self) -> Result<Duration> {
        let pinger = self.start_pings(PingSchedule::UNTIL_ANSWERED)?;
        let start = pinger.now();
        self.wait_for_replies(&pinger, start)
    }

    fn wait_for_replies(&self, pinger: &Pinger, start: Duration) -> Result<Duration> {
        let outcome = wait_until(CONVERGENCE_TIMEOUT, || {
            let exited = self.exited_daemons();
            if exited.is_empty() {
                pinger.all_answered(Duration::ZERO, all_pairs).map(Ok)
            } else {
                Some(Err(exited))
            }
        });
        let last = match outcome {
            Some(Ok(last)) => last.saturating_sub(start),
            Some(Err(exited)) => bail!("daemons exited by themselves:\n{}", exited.join("\n")),
            None => bail!(
                "after {} s these pairs have had no reply: {}",
                CONVERGENCE_TIMEOUT.as_secs(),
                unanswered_pairs(pinger)
            ),
        };
        let routes = self.wait_for_complete_routes()?;
        progress(format!(
            "all pairs reach each other after {:.2} s, over {:.2} hops on average",
            last.as_secs_f64(),
            routes.mean_hops().unwrap_or_default()
        ));
        Ok(last)
    }

    /// Waits until each node's routing table leads to each other node.
    ///
    /// # Errors
    /// Fails if this takes longer than five minutes.
    pub fn wait_for_complete_routes(&self) -> Result<KernelRoutes> {
        let complete_routes = || {
            KernelRoutes::read(self)
                .ok()
                .filter(|routes| routes.mean_hops().is_some())
        };
        wait_until(CONVERGENCE_TIMEOUT, complete_routes).with_context(|| {
            format!(
                "after {} s some node has no route to another one",
                CONVERGENCE_TIMEOUT.as_secs()
            )
        })
    }

    /// Waits until the tunnels of all nodes have stayed the same for six seconds, all up, and not two to one peer: of nodes that
    /// dialled each other one closes its tunnel and then dials another node, and one that began with TCP tries UDP again.
    ///
    /// # Errors
    /// Fails if this takes longer than two minutes.
    pub fn wait_for_settled_tunnels(&self) -> Result<()> {
        let mut last = BTreeSet::new();
        let mut same_since = Instant::now();
        let are_settled = || {
            let tunnels = self.only_tunnels().unwrap_or_default();
            if tunnels.is_empty() || tunnels != last {
                (last, same_since) = (tunnels, Instant::now());
            }
            (same_since.elapsed() >= SETTLED_SPAN).then_some(())
        };
        wait_until(SETTLING_TIMEOUT, are_settled).context("the tunnels of the nodes do not settle")
    }

    /// The node, slot and peer of each tunnel; `None` if one is not up or uses TCP, or if a node has two to one peer.
    fn only_tunnels(&self) -> Option<BTreeSet<(usize, String, String)>> {
        let mut tunnels = BTreeSet::new();
        for node in self.nodes() {
            let document: TunnelsDocument = node.control_document(TUNNELS_PATH).ok()?;
            let peers: BTreeSet<_> = document.tunnels.iter().map(|tunnel| &tunnel.peer).collect();
            let are_up = |tunnel: &TunnelEntry| {
                tunnel.phase == "up" && tunnel.transport.as_deref() != Some("tcp")
            };
            if peers.len() < document.tunnels.len() || !document.tunnels.iter().all(are_up) {
                return None;
            }
            let named = |tunnel: TunnelEntry| (node.index(), tunnel.slot, tunnel.peer);
            tunnels.extend(document.tunnels.into_iter().map(named));
        }
        Some(tunnels)
    }

    /// One line for each node whose daemon exited by itself, with the end of its log.
    fn exited_daemons(&self) -> Vec<String> {
        let exited = self
            .nodes()
            .iter()
            .filter_map(|node| Some((node, node.exit_status()?)));
        exited
            .map(|(node, status)| format!("node {}: {status}: {}", node.index(), node.log_tail(5)))
            .collect()
    }
}

fn unanswered_pairs(pinger: &Pinger) -> String {
    let pairs = pinger.read_records(all_pairs, |record| record.is_answered());
    let unanswered = pairs.iter().filter(|(.., is_answered)| !is_answered);
    let names = unanswered.map(|(from, to, _)| format!("{from}->{to}"));
    names.collect::<Vec<_>>().join(" ")
}
