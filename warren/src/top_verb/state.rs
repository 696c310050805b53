//! What `warren top` shows: the last reading, the rates of the last minute, and the chosen order.

use clap::ValueEnum;
use ratatui::crossterm::event::KeyCode;
use std::{
    cmp::Ordering,
    collections::{BTreeMap, VecDeque},
};
use wire::control::{DecisionsDocument, StatusDocument, TunnelEntry, TunnelsDocument};

/// Number of rates that are kept of each tunnel.
pub(super) const RATES_KEPT: usize = 60;

/// Least time between two kept rates, in seconds.
const RATE_INTERVAL_S: f64 = 0.8;

/// The column by which tunnels are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SortKey {
    /// By the slot of the tunnel.
    Tunnel,
    /// By the name or prefix of the peer.
    Peer,
    /// By the rate of receiving, largest first.
    In,
    /// By the rate of sending, largest first.
    Out,
    /// By the round trip, longest first.
    Rtt,
    /// By the share of lost probes, largest first.
    Loss,
    /// By the number of nodes served, largest first.
    Nodes,
}

impl SortKey {
    /// The keys in the order of the columns, each with the key of the keyboard that chooses it.
    pub(super) const ALL: [(Self, char, &'static str); 7] = [
        (Self::Tunnel, 't', "tunnel"),
        (Self::Peer, 'p', "peer"),
        (Self::In, 'i', "in"),
        (Self::Out, 'o', "out"),
        (Self::Rtt, 'r', "rtt"),
        (Self::Loss, 'l', "loss"),
        (Self::Nodes, 'n', "nodes"),
    ];

    fn compare(self, a: &TunnelEntry, b: &TunnelEntry) -> Ordering {
        let largest_first = |value: fn(&TunnelEntry) -> f64| value(b).total_cmp(&value(a));
        match self {
            // The daemon sorts by slot.
            Self::Tunnel => Ordering::Equal,
            Self::Peer => {
                let name = |tunnel: &TunnelEntry| {
                    tunnel
                        .peer_name
                        .clone()
                        .unwrap_or_else(|| tunnel.peer.clone())
                };
                name(a).cmp(&name(b))
            }
            Self::In => largest_first(|tunnel| tunnel.rx_bytes_per_second),
            Self::Out => largest_first(|tunnel| tunnel.tx_bytes_per_second),
            Self::Rtt => largest_first(|tunnel| tunnel.rtt_seconds.unwrap_or(-1.0)),
            Self::Loss => largest_first(|tunnel| tunnel.loss_ratio.unwrap_or(-1.0)),
            Self::Nodes => b.nodes_served.cmp(&a.nodes_served),
        }
    }
}

/// What the daemon says at one moment.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub(super) status: StatusDocument,
    pub(super) tunnels: TunnelsDocument,
    pub(super) decisions: DecisionsDocument,
}

/// All that is shown.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) last: Reading,
    /// The rates of each tunnel in both directions together, in bytes per second, oldest first.
    rates: BTreeMap<String, VecDeque<f64>>,
    pub(super) sort: SortKey,
    is_reversed: bool,
    /// The number of tunnels above the first one that is shown.
    pub(super) scrolled: usize,
    /// Why the last request failed.
    pub(super) failure: Option<String>,
}

impl State {
    pub(super) fn new(first: Reading, sort: SortKey) -> Self {
        let mut state = Self {
            last: first,
            rates: BTreeMap::new(),
            sort,
            is_reversed: false,
            scrolled: 0,
            failure: None,
        };
        state.keep_rates();
        state
    }

    /// Adds a reading.
    pub(super) fn add(&mut self, reading: Reading) {
        let passed = (reading.tunnels.at - self.last.tunnels.at).as_seconds_f64();
        self.failure = None;
        if passed >= RATE_INTERVAL_S {
            self.last = reading;
            self.keep_rates();
        }
    }

    /// Records that no reading could be taken.
    pub(super) fn fail(&mut self, failure: String) {
        self.failure = Some(failure);
    }

    /// Keeps the rates of the tunnels that exist, and forgets those of others.
    fn keep_rates(&mut self) {
        let mut before = std::mem::take(&mut self.rates);
        for tunnel in &self.last.tunnels.tunnels {
            let mut rates = before.remove(&tunnel.slot).unwrap_or_default();
            rates.push_back(tunnel.rx_bytes_per_second + tunnel.tx_bytes_per_second);
            while rates.len() > RATES_KEPT {
                rates.pop_front();
            }
            self.rates.insert(tunnel.slot.clone(), rates);
        }
    }

    /// Does what a key stands for.
    pub(super) fn press(&mut self, key: KeyCode) {
        let sort = |wanted: char| SortKey::ALL.iter().find(|(_, key, _)| *key == wanted);
        let most = self.last.tunnels.tunnels.len().saturating_sub(1);
        if let KeyCode::Char(wanted) = key {
            if let Some((sort, ..)) = sort(wanted.to_ascii_lowercase()) {
                self.is_reversed = self.sort == *sort && !self.is_reversed;
                self.sort = *sort;
            }
        } else if key == KeyCode::Down {
            self.scrolled = (self.scrolled + 1).min(most);
        } else if key == KeyCode::Up {
            self.scrolled = self.scrolled.saturating_sub(1);
        }
    }

    /// The tunnels in the chosen order.
    pub(super) fn tunnels(&self) -> Vec<&TunnelEntry> {
        let mut tunnels: Vec<_> = self.last.tunnels.tunnels.iter().collect();
        tunnels.sort_by(|a, b| self.sort.compare(a, b));
        if self.is_reversed {
            tunnels.reverse();
        }
        tunnels
    }

    /// The last rates of a tunnel, at most `count`, oldest first.
    pub(super) fn rates(&self, slot: &str, count: usize) -> Vec<f64> {
        let rates = self.rates.get(slot);
        let rates = rates.map(|rates| rates.iter().rev().take(count).copied().collect::<Vec<_>>());
        let mut rates = rates.unwrap_or_default();
        rates.reverse();
        rates
    }
}
