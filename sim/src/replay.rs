//! Replays the recorded readings of a real node to the planner, and prints the orders that it would have given.
//!
//! A recording is what `warren status`, `peers`, `routes` and `tunnels` print with `--json`, one document
//! after another, in whatever lines. Each tunnels' document is one look at all that came before it. Orders
//! are not carried out: the next look sees again what the real node did.

mod readings;

use anyhow::{Context, bail, ensure};
use policies::{
    gain::Rule,
    names::{Endpoint, Prefix, Slot, Transport},
    observation::{
        BabelTable, Candidate, LinkCounters, LinkReading, Neighbour, Observation, Phase,
        ProbeCounts, ProbeReading, Route, TunnelReading,
    },
    orders::{CloseReason, Decision, Order},
    parameters::Parameters,
    planner::{Planner, PlannerSettings},
    units::Uptime,
};
use readings::*;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
    path::PathBuf,
    time::Duration,
};
use wire::control::{PeersDocument, RoutesDocument, StatusDocument, TunnelEntry, TunnelsDocument};

/// The moment of the first document: long enough after the machine's start for any age.
const BEGAN: Uptime = Uptime(Duration::from_secs(100_000_000));
/// The maximum size of a recording in bytes: a week of documents of 10 kB, twice a minute.
const MAX_BYTES: u64 = 256 << 20;

/// The recording and the settings of a replay.
#[derive(clap::Args)]
pub struct Replay {
    /// What `warren status`, `peers`, `routes` and `tunnels` printed with `--json`, again and again.
    #[arg(value_name = "FILE")]
    recording: PathBuf,
    /// Tunnels that the node dials.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=30))]
    tunnels_to_dial: u16,
    /// Seconds between two refreshes.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(30..=3600))]
    refresh: u64,
    /// Peers that are always kept, `9/16`.
    #[arg(long, value_name = "PREFIX")]
    neighbour: Vec<Prefix>,
    /// Chance; the same seed gives the same orders.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// One line of JSON at the end.
    #[arg(long)]
    json: bool,
}

impl Replay {
    /// Replays, and prints what came of it.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is too large, or is no recording.
    pub fn run(&self) -> anyhow::Result<()> {
        let path = self.recording.display();
        let mut text = String::new();
        let file =
            std::fs::File::open(&self.recording).with_context(|| format!("cannot open {path}"))?;
        let read = file.take(MAX_BYTES + 1).read_to_string(&mut text);
        let bytes = read.with_context(|| format!("cannot read {path}"))?;
        ensure!(
            u64::try_from(bytes)? <= MAX_BYTES,
            "{path} is larger than {} MiB",
            MAX_BYTES >> 20
        );
        let parameters = Parameters {
            tunnels_to_dial: self.tunnels_to_dial,
            refresh: Duration::from_secs(self.refresh),
            ..Parameters::default()
        };
        let pinned = self.neighbour.iter().copied().collect();
        let settings = PlannerSettings {
            parameters,
            pinned,
            rule: Rule::Gain,
            seed: self.seed,
        };
        let replayed = replay(&text, settings).with_context(|| path.to_string())?;
        crate::output::say(&lines(&replayed))?;
        if self.json {
            crate::output::say(&serde_json::to_string(&replayed)?)?;
        }
        Ok(())
    }
}

/// One document of a recording. Its kind follows from its fields.
#[derive(Deserialize)]
#[serde(untagged)]
enum Document {
    Status(Box<StatusDocument>),
    Tunnels(TunnelsDocument),
    Routes(RoutesDocument),
    Peers(PeersDocument),
}

/// An order that the planner would have given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ordered {
    /// Seconds since the first document.
    pub at_s: u64,
    /// `open`, `drain`, `undrain` or `close`.
    pub order: &'static str,
    /// The slot of the tunnel.
    pub slot: String,
    /// The reason of the order.
    pub reason: &'static str,
    /// The inputs of the decision.
    pub terms: String,
}

/// The result of a replay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Replayed {
    /// Looks: documents of tunnels.
    pub looks: u64,
    /// Seconds from the first to the last look.
    pub lasted_s: u64,
    /// The orders, in the order of time.
    pub orders: Vec<Ordered>,
    /// What the planner thinks of each tunnel at the last look: slot and text.
    pub verdicts: Vec<(String, String)>,
}

/// The documents that have been read so far.
struct Tape {
    planner: Option<Planner>,
    settings: PlannerSettings,
    world: Observation,
    reached: bool,
    /// Unix time of the first look, in nanoseconds.
    first: Option<i128>,
    /// The same of the last look.
    last: i128,
    /// Since when a slot has been seen in its phase.
    phases: BTreeMap<Slot, (Phase, Uptime)>,
    done: Replayed,
}

/// Replays a recording with these settings.
///
/// # Errors
///
/// A document that is none of the four, that names something no node could, or comes before the status;
/// the error names its number, from 1.
pub fn replay(recording: &str, settings: PlannerSettings) -> anyhow::Result<Replayed> {
    let mut tape = Tape {
        planner: None,
        settings,
        world: Observation::default(),
        reached: false,
        first: None,
        last: i128::MIN,
        phases: BTreeMap::new(),
        done: Replayed::default(),
    };
    for (at, document) in serde_json::Deserializer::from_str(recording)
        .into_iter()
        .enumerate()
    {
        let number = at + 1;
        let document =
            document.with_context(|| format!("document {number} is none of warren's"))?;
        tape.take(document)
            .with_context(|| format!("document {number}"))?;
    }
    ensure!(
        tape.done.looks > 0,
        "no document of `warren tunnels --json` in it"
    );
    Ok(tape.done)
}

impl Tape {
    fn take(&mut self, document: Document) -> anyhow::Result<()> {
        match document {
            Document::Status(status) => {
                if self.planner.is_none() {
                    self.planner =
                        Some(Planner::new(status.prefix.parse()?, self.settings.clone()));
                }
            }
            Document::Routes(routes) => self.world.babel = table(&routes)?.map(Into::into),
            Document::Peers(peers) => {
                let now = self.moment(peers.at.unix_timestamp_nanos());
                self.world.candidates = candidates(&peers, now)?;
            }
            Document::Tunnels(tunnels) => self.look(&tunnels)?,
        }
        Ok(())
    }

    fn moment(&mut self, unix_nanos: i128) -> Uptime {
        let first = *self.first.get_or_insert(unix_nanos);
        BEGAN + Duration::from_nanos(u64::try_from(unix_nanos - first).unwrap_or(0))
    }

    fn look(&mut self, document: &TunnelsDocument) -> anyhow::Result<()> {
        let now = self.moment(document.at.unix_timestamp_nanos());
        let unix_nanos = document.at.unix_timestamp_nanos();
        ensure!(unix_nanos >= self.last, "it is older than the one before");
        self.last = unix_nanos;
        self.world.at = now;
        let (mut links, mut probes) = (Vec::new(), Vec::new());
        for entry in &document.tunnels {
            let link = self.link(entry, now)?;
            probes.extend(probe(entry, link.tunnel.slot));
            links.push(link);
        }
        let taken: BTreeSet<_> = links.iter().map(|link| link.tunnel.slot).collect();
        self.phases.retain(|slot, _| taken.contains(slot));
        let slots = self.settings.parameters.tunnels_to_dial.saturating_add(2);
        self.world.free_slots = (0..slots)
            .map(Slot::Dialling)
            .filter(|slot| !taken.contains(slot))
            .collect();
        self.reached |= taken.iter().any(|slot| matches!(slot, Slot::Accepting(..)));
        (self.world.links, self.world.probes) = (links, probes);
        let Some(planner) = &mut self.planner else {
            bail!("no document of `warren status --json` before it")
        };
        let plan = planner.plan(&self.world, self.reached);
        self.done.looks += 1;
        self.done.lasted_s = now.since(BEGAN).as_secs();
        let fresh = plan
            .decisions
            .into_iter()
            .filter(|decision| !decision.is_repeated());
        self.done
            .orders
            .extend(fresh.map(|decision| ordered(decision, now)));
        if let Some(verdicts) = plan.verdicts {
            let one =
                |verdict: policies::planner::Verdict| (verdict.slot.to_string(), verdict.text);
            self.done.verdicts = verdicts.into_iter().map(one).collect();
        }
        Ok(())
    }

    fn link(&mut self, entry: &TunnelEntry, now: Uptime) -> anyhow::Result<LinkReading> {
        let slot: Slot = entry.slot.parse()?;
        let phase = match entry.phase.as_str() {
            "connecting" => Phase::Connecting,
            "up" => Phase::Up,
            "draining" => Phase::Draining {
                reason: drain_reason(entry)?,
            },
            "closing" => Phase::Closing,
            other => bail!("no phase of a tunnel: {other:?}"),
        };
        let transport = entry
            .transport
            .as_deref()
            .map(str::parse::<Transport>)
            .transpose()?;
        let endpoint = entry.endpoint.zip(transport);
        let (_, since) = *self
            .phases
            .entry(slot)
            .and_modify(|known| {
                *known = if known.0 == phase {
                    *known
                } else {
                    (phase, now)
                }
            })
            .or_insert((phase, now));
        let tunnel = TunnelReading {
            slot,
            peer: entry.peer.parse()?,
            phase,
            since,
            up_since: entry.age_seconds.map(|age| before(now, age)).transpose()?,
            endpoint: endpoint.map(|(address, transport)| Endpoint { address, transport }),
        };
        let (rx_bytes, tx_bytes) = (entry.rx_bytes, entry.tx_bytes);
        // The recording has no frame counts. Full frames are assumed, so that hellos alone do not
        // count as use.
        let (rx_packets, tx_packets) = (rx_bytes / FRAME_BYTES, tx_bytes / FRAME_BYTES);
        Ok(LinkReading {
            tunnel,
            counters: LinkCounters {
                rx_bytes,
                tx_bytes,
                rx_packets,
                tx_packets,
                ..LinkCounters::default()
            },
        })
    }
}

fn ordered(decision: Decision, now: Uptime) -> Ordered {
    let (order, slot, reason, peer) = match decision.order {
        Order::Open {
            slot, peer, reason, ..
        } => ("open", slot, reason.label(), format!("peer={peer} ")),
        Order::Drain { slot, reason } => ("drain", slot, reason.label(), String::new()),
        Order::Undrain { slot, reason } => ("undrain", slot, reason.label(), String::new()),
        Order::Close { slot, reason } => ("close", slot, reason.label(), String::new()),
    };
    let at_s = now.since(BEGAN).as_secs();
    Ordered {
        at_s,
        order,
        slot: slot.to_string(),
        reason,
        terms: peer + &decision.terms,
    }
}

/// What would have been ordered, a line each, and what is thought at the end.
pub fn lines(replayed: &Replayed) -> String {
    let mut text = String::new();
    for Ordered {
        at_s,
        order,
        slot,
        reason,
        terms,
    } in &replayed.orders
    {
        text.push_str(&format!(
            "{at_s} s: {order} {slot}, reason={reason} {terms}\n"
        ));
    }
    for (slot, verdict) in &replayed.verdicts {
        text.push_str(&format!("{slot}: {verdict}\n"));
    }
    text.push_str(&format!(
        "{} looks in {} s, {} orders; none was carried out",
        replayed.looks,
        replayed.lasted_s,
        replayed.orders.len()
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STATUS: &str = r#"{"version":1,"at":"2024-01-01T00:00:00Z","software":"0","prefix":"1/16","address":"fd00::1","network":"fd00::/48","pid":1,"uptime_seconds":1.0,"ready":true,"tunnels_up":{"dialled":1,"accepted":0},"nodes_known":1,"routes_installed":1,"neighbours":1,"registry":{"last_request_at":null,"last_answer_at":null,"last_error":null},"leases":[],"processes":[],"actor_restarts":0}"#;
    const PEERS: &str = r#"{"version":1,"at":"2024-01-01T00:00:01Z","peers":[{"prefix":"9/16","endpoints":["udp:192.0.2.9:1194"],"confirmed_seconds_ago":3.5,"failed_seconds_ago":null,"failures":0,"slot":null}]}"#;
    const ROUTES: &str = r#"{"version":1,"at":"2024-01-01T00:00:02Z","babeld_answers":true,"neighbours":[],"routes":[{"node":"9/16","address":"fd00::9","slot":"wrn0","via":"2/16","installed":true,"metric":300,"refmetric":204}]}"#;
    const TUNNELS: &str = r#"{"version":1,"at":"2024-01-01T00:00:03Z","tunnels":[{"slot":"wrn0","peer":"2/16","role":"dialled","transport":"udp","endpoint":"192.0.2.2:1194","phase":"up","drain_reason":null,"age_seconds":900.0,"rx_bytes":1,"tx_bytes":2,"rx_bytes_per_second":0.0,"tx_bytes_per_second":0.0,"nodes_served":1,"routes":1,"rtt_seconds":null,"loss_ratio":null,"verdict":null}]}"#;

    fn settings() -> PlannerSettings {
        PlannerSettings {
            parameters: Parameters::default(),
            pinned: BTreeSet::new(),
            rule: Rule::Gain,
            seed: 1,
        }
    }

    #[track_caller]
    fn check(documents: &[&str], expected: Result<&[&str], &str>) {
        let replayed = replay(&documents.join("\n"), settings());
        match (replayed, expected) {
            (Ok(replayed), Ok(expected)) => {
                let orders: Vec<_> = replayed
                    .orders
                    .iter()
                    .map(|o| format!("{} {} {}", o.order, o.slot, o.reason))
                    .collect();
                assert_eq!(orders, expected);
            }
            (Err(error), Err(expected)) => {
                assert!(format!("{error:#}").contains(expected), "{error:#}")
            }
            (other, _) => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_node_with_room_would_dial_the_peer_that_it_knows() {
        check(&[STATUS, PEERS, ROUTES, TUNNELS], Ok(&["open wrn1 fill"]));
        check(&[STATUS, ROUTES, TUNNELS], Ok(&[]));
    }

    #[test]
    fn an_error_names_the_number_of_the_document() {
        check(&[STATUS, "{}"], Err("document 2 is none of warren's"));
        check(&[STATUS, "[[["], Err("document 2 is none of warren's"));
        check(
            &[TUNNELS],
            Err("document 1: no document of `warren status --json` before it"),
        );
        check(
            &[STATUS, PEERS],
            Err("no document of `warren tunnels --json`"),
        );
        check(
            &[STATUS, &TUNNELS.replace("\"wrn0\"", "\"eth0\"")],
            Err("document 2: not a slot"),
        );
        check(
            &[STATUS, &TUNNELS.replace("900.0", "-9e99")],
            Err("document 2: no number of seconds ago"),
        );
        check(
            &[STATUS, TUNNELS, &TUNNELS.replace("00:00:03", "00:00:02")],
            Err("document 3: it is older"),
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_replay_panic(
            cut in 0usize..700, noise in "\\PC{0,20}", times in 1usize..4,
        ) {
            let text = [STATUS, PEERS, ROUTES, TUNNELS].join("\n");
            let cut = text.char_indices().map(|(at, _)| at).nth(cut * 2).unwrap_or(text.len());
            let (before, after) = text.split_at(cut);
            let _ = replay(&format!("{before}{noise}{after}").repeat(times), settings());
        }
    }
}
