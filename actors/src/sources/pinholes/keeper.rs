//! Decides for which ports the router's firewall is to be opened, renews that, and ends it.
//!
//! A pinhole is written to the ledger before it is requested, so that after a crash the next run can end it.

use super::firewall::{Pinhole, PinholeError, Router, new_nonce, request};
use crate::{
    messages::Lease,
    sources::port_mapping::ledger::{FileLedger, LedgerError},
};
use os::{kernel::Kernel, randomness::Randomness};
use policies::{names::Transport, units::Uptime};
use std::{
    cell::Cell,
    collections::BTreeSet,
    net::{IpAddr, SocketAddr, SocketAddrV6},
    time::Duration,
};
use tokio::sync::{Mutex, Notify};
use wire::{endpoints::class_of, errors::Chain, overlay::Network};

/// Duration of the leases that are requested.
const LEASE: Duration = Duration::from_secs(3600);
/// Interval between two requests for the same pinhole, so that a router that was restarted opens it again.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(240);
/// Maximum number of addresses of this host for which the firewall is opened.
const MAX_ADDRESSES: usize = 4;

/// What a keeper is built with.
pub struct PinholeSettings {
    /// The network, whose addresses need no pinhole.
    pub network: Network,
    /// The ports of this host that should be reachable.
    pub wanted: Vec<(Transport, u16)>,
    /// The source of random numbers.
    pub random: Randomness,
    /// The network namespace of the host.
    pub kernel: Kernel,
}

/// The outcome of a round.
#[derive(Debug, Default)]
pub struct Round {
    /// The pinholes that the router has opened.
    pub pinholes: Vec<Lease>,
    /// Why the router rejects a wanted one; `None` if all are there, or the router does not speak PCP.
    pub failure: Option<String>,
}

/// A pinhole that the router has opened.
#[derive(Clone, Copy, Debug)]
struct Open {
    pinhole: Pinhole,
    at: Uptime,
    until: Uptime,
}

impl Open {
    fn is_due(&self, now: Uptime) -> bool {
        let half = self.until.since(self.at) / 2;
        now.since(self.at) >= RENEWAL_INTERVAL.min(half)
    }
}

/// Keeps the pinholes of one node. It outlives the actor that schedules the rounds.
pub struct PinholeKeeper {
    settings: PinholeSettings,
    ledger: FileLedger<Pinhole>,
    /// A round holds the lock until it ends.
    open: Mutex<Vec<Open>>,
    is_released: Cell<bool>,
    release_started: Notify,
}

impl PinholeKeeper {
    /// Builds a keeper; it does nothing before the first round.
    pub fn new(ledger: FileLedger<Pinhole>, settings: PinholeSettings) -> Self {
        Self {
            settings,
            ledger,
            open: Mutex::default(),
            is_released: Cell::new(false),
            release_started: Notify::new(),
        }
    }

    /// Runs a round: requests missing pinholes, renews others, and ends what earlier runs left. After [`Self::release`], nothing is done.
    pub async fn update(&self, now: Uptime) -> Round {
        let mut open = self.open.lock().await;
        if self.is_released.get() {
            return Round::default();
        }
        let failure = tokio::select! {
            biased;
            () = self.release_started.notified() => return Round::default(),
            result = self.run_round(&mut open, now) => match result {
                Ok(failure) => failure.map(|error| Chain(&error).to_string()),
                Err(error) => Some(Chain(&error).to_string()),
            },
        };
        Round {
            pinholes: open.iter().map(lease).collect(),
            failure,
        }
    }

    /// Ends all pinholes of the ledger. A running round is ended, and later rounds do nothing.
    ///
    /// # Errors
    /// The ledger cannot be read or written. Pinholes that cannot be ended stay in it, and expire by themselves.
    pub async fn release(&self) -> Result<(), LedgerError> {
        self.is_released.set(true);
        self.release_started.notify_waiters();
        let mut open = self.open.lock().await;
        open.clear();
        let recorded = self.ledger.entries().await?;
        if recorded.is_empty() {
            return Ok(());
        }
        let left = match self.router().await {
            Some(router) => end(&router, recorded).await,
            None => recorded,
        };
        self.ledger.replace(left).await
    }

    /// Returns why a wanted pinhole is missing.
    async fn run_round(
        &self,
        open: &mut Vec<Open>,
        now: Uptime,
    ) -> Result<Option<PinholeError>, LedgerError> {
        let recorded = self.ledger.entries().await?;
        let Some(router) = self.router().await else {
            open.clear();
            return Ok(None);
        };
        let wanted = self.wanted().await;
        let is_wanted = |pinhole: &Pinhole| wanted.contains(&(pinhole.internal, pinhole.transport));
        open.retain(|open| is_wanted(&open.pinhole) && open.until > now);
        let mut failure = None;
        for (internal, transport) in &wanted {
            let is_it = |pinhole: &Pinhole| pinhole.is_for(*internal, *transport);
            let index = open.iter().position(|open| is_it(&open.pinhole));
            let current = index.map(|index| open.swap_remove(index));
            if let Some(current) = current.filter(|current| !current.is_due(now)) {
                open.push(current);
                continue;
            }
            let pinhole = recorded.iter().copied().find(is_it).unwrap_or(Pinhole {
                internal: *internal,
                transport: *transport,
                nonce: new_nonce(&self.settings.random),
            });
            self.record(pinhole).await?;
            match request(&router, &pinhole, LEASE).await {
                Ok(lease) => open.push(Open {
                    pinhole,
                    at: now,
                    until: now + lease,
                }),
                Err(error) => {
                    // A renewal that fails does not close the firewall.
                    match current {
                        Some(current) => open.push(current),
                        None => self.forget(&pinhole).await?,
                    }
                    if let PinholeError::Silent(error) = error {
                        // Most routers do not speak PCP, and many hosts have none with a firewall.
                        tracing::debug!(%error, "the router does not answer PCP at its IPv6 address");
                        break;
                    }
                    failure = Some(error);
                }
            }
        }
        let (kept, unwanted): (Vec<_>, Vec<_>) = self
            .ledger
            .entries()
            .await?
            .into_iter()
            .partition(is_wanted);
        if !unwanted.is_empty() {
            let left = end(&router, unwanted).await;
            self.ledger.replace([kept, left].concat()).await?;
        }
        Ok(failure)
    }

    /// Writes a pinhole to the ledger, in place of the one for the same port.
    async fn record(&self, pinhole: Pinhole) -> Result<(), LedgerError> {
        let mut recorded = self.ledger.entries().await?;
        if recorded.contains(&pinhole) {
            return Ok(());
        }
        recorded.retain(|other| !other.is_for_same_port(&pinhole));
        recorded.push(pinhole);
        self.ledger.replace(recorded).await
    }

    /// Removes a pinhole from the ledger that the router has not opened.
    async fn forget(&self, pinhole: &Pinhole) -> Result<(), LedgerError> {
        let mut recorded = self.ledger.entries().await?;
        recorded.retain(|other| !other.is_for_same_port(pinhole));
        self.ledger.replace(recorded).await
    }

    /// Returns the router of the IPv6 default route.
    async fn router(&self) -> Option<Router> {
        let gateways = self.settings.kernel.gateways().await;
        let gateways = gateways.inspect_err(|error| {
            tracing::debug!(error = %Chain(error), "cannot read the default route");
        });
        let mut gateways = gateways.unwrap_or_default().into_iter();
        gateways.find_map(|gateway| match gateway.address {
            IpAddr::V6(address) => Some(Router {
                address,
                link: gateway.link_index()?,
            }),
            IpAddr::V4(_) => None,
        })
    }

    /// Returns the ports that should be reachable, at the addresses of main uplinks that mean this host everywhere.
    async fn wanted(&self) -> BTreeSet<(SocketAddrV6, Transport)> {
        let addresses = self.settings.kernel.addresses().await;
        let addresses = addresses.inspect_err(|error| {
            tracing::debug!(error = %Chain(error), "cannot read the addresses of the host");
        });
        let range = self.settings.network.range();
        let addresses = addresses.unwrap_or_default().into_iter();
        let public = addresses.filter_map(|found| match found.address {
            IpAddr::V6(address)
                if found.is_main
                    && class_of(address.into()).is_none()
                    && !range.contains(&address) =>
            {
                Some(address)
            }
            IpAddr::V6(_) | IpAddr::V4(_) => None,
        });
        let ports = &self.settings.wanted;
        let of_address = |address| {
            let at = move |(transport, port): &(Transport, u16)| {
                (SocketAddrV6::new(address, *port, 0, 0), *transport)
            };
            ports.iter().map(at)
        };
        public.take(MAX_ADDRESSES).flat_map(of_address).collect()
    }
}

/// Ends these pinholes; returns those that could not be ended.
async fn end(router: &Router, pinholes: Vec<Pinhole>) -> Vec<Pinhole> {
    let mut left = Vec::new();
    for pinhole in pinholes {
        if let Err(error) = request(router, &pinhole, Duration::ZERO).await {
            tracing::debug!(?pinhole, error = %Chain(&error), "pinhole not ended; it expires by itself");
            // A router that rejects the request has no such pinhole, or does not speak PCP.
            if !matches!(error, PinholeError::Rejected { .. }) {
                left.push(pinhole);
            }
        }
    }
    left
}

fn lease(open: &Open) -> Lease {
    let Pinhole {
        internal,
        transport,
        ..
    } = open.pinhole;
    Lease {
        transport,
        internal_port: internal.port(),
        external: SocketAddr::V6(internal),
        until: open.until,
    }
}
