//! The measurements of `warren-lab measure`.
//!
//! To add one, add a variant to [`Measurement`] and its arm to [`Measurement::run`].

use anyhow::{Context, Result};
use clap::Subcommand;
use lab::measure::{
    self,
    hosts::{self, Extent},
    recover::{FatalSignal, Fault},
    rotate::Change,
};
use lab::nat_router::NatKind;
use serde::Serialize;
use std::time::Duration;

#[derive(Subcommand)]
pub(crate) enum Measurement {
    /// The time from starting all nodes at once until every pair reaches each other.
    Converge {
        /// Number of nodes.
        #[arg(long, default_value_t = 8)]
        nodes: usize,
        /// Seconds for which the network is watched after that: whether a pair falls out.
        #[arg(long, default_value_t = 0)]
        watch_seconds: u64,
        /// Restarts all nodes at once at the end.
        #[arg(long)]
        restart: bool,
    },
    /// Memory, processor time and bytes of an idle network.
    Idle {
        /// Number of nodes.
        #[arg(long, default_value_t = 8)]
        nodes: usize,
        /// Length of the measurement.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Makes the last node a metered one.
        #[arg(long)]
        metered: bool,
    },
    /// Packets lost by planned closings.
    Drain {
        /// Closings by planners to wait for.
        #[arg(long, default_value_t = 10)]
        closings: usize,
        /// Nodes to stop with SIGTERM afterwards.
        #[arg(long, default_value_t = 3)]
        stops: usize,
    },
    /// Packets lost while daemons are restarted in place, and while one stands still.
    Restart {
        /// Number of nodes.
        #[arg(long, default_value_t = 4)]
        nodes: usize,
        /// Restarts of each node.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// Length of the standstill.
        #[arg(long, default_value_t = 60)]
        freeze_seconds: u64,
    },
    /// Certificates that one token yields if many clients claim at once.
    ClaimRace {
        /// Claims at the same time.
        #[arg(long, default_value_t = 50)]
        claims: usize,
        /// Number of rounds; in every second one the registry is killed meanwhile.
        #[arg(long, default_value_t = 10)]
        rounds: usize,
    },
    /// Wrong tokens that a registry accepts, and how many can be tried.
    TokenGuessing {
        /// Wrong tokens to send without rate limits.
        #[arg(long, default_value_t = 1_000_000)]
        guesses: u64,
        /// Time that each attacker guesses with rate limits.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Certificates that a registry loses or issues twice if it is killed at random moments.
    RegistryCrash {
        /// Certificates to issue.
        #[arg(long, default_value_t = 10_000)]
        issues: usize,
    },
    /// Valid claims and renewals a second among slow connections and malformed requests.
    RegistryLoad {
        /// Number of slow connections.
        #[arg(long, default_value_t = 200)]
        slow: usize,
        /// Malformed requests to send afterwards.
        #[arg(long, default_value_t = 100_000)]
        malformed: u64,
        /// Length of each phase of valid requests, 1 to 25 s.
        #[arg(long, default_value_t = 15)]
        seconds: u64,
    },
    /// Mean round trips between unequally distant nodes, before and after some refreshes, compared with chance.
    Rtt {
        /// Number of nodes.
        #[arg(long, default_value_t = 12)]
        nodes: usize,
        /// Refreshes between before and after.
        #[arg(long, default_value_t = 10)]
        rounds: u32,
        /// Seed from which the round trips between the nodes are drawn.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Rates, processor time and round trips of warren's tunnels compared with plain OpenVPN, by transport, hops and direction.
    Throughput {
        /// Pairs of runs for each figure, 1 to 30; a pair takes two seconds.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=30))]
        pairs: u8,
        /// The transports to measure.
        #[arg(long = "transport", value_delimiter = ',', default_values = ["udp", "tcp"])]
        transports: Vec<policies::names::Transport>,
        /// The tunnels of the path: 1 or 2.
        #[arg(long, value_delimiter = ',', default_values_t = [1, 2], value_parser = clap::value_parser!(u8).range(1..=2))]
        hops: Vec<u8>,
    },
    /// What passes a tunnel over paths that drop large packets, by MTU, transport, and whether ICMP passes.
    Underlay {
        /// The MTUs of the path to measure, in bytes.
        #[arg(long = "mtu", value_delimiter = ',', default_values_t = measure::underlay::MTUS)]
        mtus: Vec<u16>,
    },
    /// What a node gets from routers that map ports carelessly, or by one protocol only.
    Gateways {
        /// The faults to measure, by name [default: all].
        #[arg(long = "only", value_delimiter = ',')]
        faults: Vec<String>,
    },
    /// How soon a node restores what other programs on its host take away, and whether it reports what it cannot change.
    Hosts {
        /// Measure one scenario of each kind only.
        #[arg(long)]
        short: bool,
        /// The groups of scenarios to measure.
        #[arg(long = "only", value_enum, value_delimiter = ',', default_values = ["meddling", "starts", "surroundings", "firewall"])]
        groups: Vec<hosts::Group>,
    },
    /// How soon a node notices that a child process hangs, and what other nodes lose.
    Hang,
    /// What nodes of one LAN send by its router, and how they do without internet and registry; and many nodes on one LAN.
    Lan {
        /// The number of nodes on the crowded LAN.
        #[arg(long, default_value_t = 20)]
        crowd: usize,
    },
    /// How often two nodes behind NATs get a tunnel to each other, by the kinds of their NATs.
    Punch {
        /// Number of tries with each pair of NATs; a try takes about ten seconds, and half a minute if it fails.
        #[arg(long, default_value_t = 20)]
        tries: usize,
        /// The kinds of the NATs of one pair [default: all seven pairs].
        #[arg(long, value_enum, num_args = 2)]
        nats: Vec<NatKind>,
    },
    /// The time until each alert fires and ends, by a real Prometheus and a real Alertmanager.
    Alerts {
        /// The groups of alerts; each needs up to five minutes.
        #[arg(long = "only", value_enum, value_delimiter = ',', default_values = ["network", "lines", "processes", "hosts", "registry", "certificates", "drains"])]
        groups: Vec<measure::alerts::Group>,
    },
    /// Metrics beside what the kernel and babeld say: in ten faults, and after transfers of 100 MB.
    Figures {
        /// What is compared; each needs up to five minutes.
        #[arg(long = "only", value_enum, value_delimiter = ',', default_values = ["faults", "transfers"])]
        parts: Vec<measure::figures::Part>,
    },
    /// The results of each query of each board, the slowest one, and the most series of a panel.
    Boards {
        /// Number of nodes: one real one, or so many synthetic ones.
        #[arg(long, default_value_t = 500)]
        nodes: usize,
    },
    /// The kind of link by which three nodes accept tunnels here.
    AcceptingSlots,
    /// The time until a newcomer gets its first reply.
    Join,
    /// Thirty days without the registry, in scaled time.
    RegistryOutage,
    /// Packets lost, and the time of each step at each node, while certificates, the CA and keys are changed.
    Rotate {
        /// The changes to make, in this order.
        #[arg(long = "only", value_enum, value_delimiter = ',', default_values = ["certificates", "ca", "tls-crypt", "babel"])]
        changes: Vec<Change>,
    },
    /// The time until a revoked node has left the network, and what the others lose.
    Revoke {
        /// Number of nodes.
        #[arg(long, default_value_t = 16)]
        nodes: usize,
    },
    /// A long run with killed children and a frozen registry: losses, recovery, and whether anything grows.
    ///
    /// A node that is left alone for an hour, without peers or a registry, is measured by
    /// `--nodes 1 --registry-away --minutes 60 --quiet-minutes 60`.
    Soak {
        /// Number of nodes.
        #[arg(long, default_value_t = 8)]
        nodes: usize,
        /// Length of the run.
        #[arg(long, default_value_t = 60)]
        minutes: u64,
        /// Minutes at the start without kills.
        #[arg(long, default_value_t = 15)]
        quiet_minutes: u64,
        /// Seed of the choice of victims.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Freeze the registry for the whole run, instead of its second quarter; only with one node.
        #[arg(long)]
        registry_away: bool,
    },
    /// The time for which pairs of nodes do not reach each other after a sudden fault.
    Recover {
        /// The fault to measure.
        #[arg(long, value_enum)]
        fault: Fault,
        /// The signal that a child process gets.
        #[arg(long, value_enum, default_value_t)]
        signal: FatalSignal,
        /// Number of faults.
        #[arg(long, default_value_t = 5)]
        runs: usize,
        /// Makes the last node a metered one.
        #[arg(long)]
        metered: bool,
    },
}

impl Measurement {
    /// Measures, and returns the result as JSON.
    pub(crate) fn run(self) -> Result<String> {
        match self {
            Self::Converge {
                nodes,
                watch_seconds,
                restart,
            } => to_json(measure::converge::measure(
                measure::converge::ConvergeOptions {
                    nodes,
                    watch_time: Duration::from_secs(watch_seconds),
                    has_restart: restart,
                },
            )?),
            Self::Idle {
                nodes,
                seconds,
                metered,
            } => to_json(measure::idle::measure(nodes, seconds, metered)?),
            Self::Restart {
                nodes,
                rounds,
                freeze_seconds,
            } => to_json(measure::restart::measure(nodes, rounds, freeze_seconds)?),
            Self::Drain { closings, stops } => to_json(measure::drain::measure(closings, stops)?),
            Self::ClaimRace { claims, rounds } => {
                to_json(measure::claim_race::measure(claims, rounds)?)
            }
            Self::TokenGuessing { guesses, seconds } => {
                to_json(measure::token_guessing::measure(guesses, seconds)?)
            }
            Self::RegistryCrash { issues } => to_json(measure::registry_crash::measure(issues)?),
            Self::RegistryLoad {
                slow,
                malformed,
                seconds,
            } => to_json(measure::registry_load::measure(slow, malformed, seconds)?),
            Self::Rtt {
                nodes,
                rounds,
                seed,
            } => to_json(measure::rtt::measure(nodes, rounds, seed)?),
            Self::Throughput {
                pairs,
                transports,
                hops,
            } => {
                let hops: Vec<usize> = hops.into_iter().map(usize::from).collect();
                let pairs = usize::from(pairs);
                to_json(measure::throughput::measure(pairs, &transports, &hops)?)
            }
            Self::Underlay { mtus } => to_json(measure::underlay::measure(&mtus)?),
            Self::Gateways { faults } => to_json(measure::gateways::measure(&faults)?),
            Self::Hosts { short, groups } => {
                let extent = if short { Extent::Short } else { Extent::Full };
                to_json(measure::hosts::measure(&groups, extent)?)
            }
            Self::Hang => to_json(measure::hang::measure()?),
            Self::Punch { tries, nats } => {
                let pairs = match nats.as_slice() {
                    [first, second] => vec![[*first, *second]],
                    _ => measure::punch::PAIRS.to_vec(),
                };
                to_json(measure::punch::measure(&pairs, tries)?)
            }
            Self::Lan { crowd } => to_json(measure::lan::measure(crowd)?),
            Self::Alerts { groups } => to_json(measure::alerts::measure(
                &groups,
                measure::alerts::Extent::Full,
            )?),
            Self::Figures { parts } => to_json(measure::figures::measure(&parts)?),
            Self::Boards { nodes } => to_json(measure::boards::measure(nodes)?),
            Self::AcceptingSlots => to_json(measure::accepting_slots::measure()?),
            Self::Join => to_json(measure::join::measure()?),
            Self::RegistryOutage => to_json(measure::registry_outage::measure()?),
            Self::Rotate { changes } => to_json(measure::rotate::measure(&changes)?),
            Self::Revoke { nodes } => to_json(measure::revoke::measure(nodes)?),
            Self::Soak {
                nodes,
                minutes,
                quiet_minutes,
                seed,
                registry_away,
            } => to_json(measure::soak::measure(measure::soak::SoakOptions {
                nodes,
                minutes,
                quiet_minutes,
                seed,
                registry_away,
            })?),
            Self::Recover {
                fault,
                signal,
                runs,
                metered,
            } => to_json(measure::recover::measure((fault, signal), runs, metered)?),
        }
    }
}

fn to_json(result: impl Serialize) -> Result<String> {
    serde_json::to_string(&result).context("cannot convert the result to JSON")
}
