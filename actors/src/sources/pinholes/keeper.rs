//! Decides for which ports the router's firewall is to be opened, renews that, and ends it.
//!
//! A pinhole is written to the ledger before it is requested, so that after a crash the next run can end it.

use super::{
    firewall::Firewall,
    pinhole::{Pinhole, PinholeError, Router},
};
use crate::{
    messages::{Lease, MissingLease, MissingReason},
    sources::port_mapping::{
        ledger::{FileLedger, LedgerError},
        protocol::Protocol,
    },
};
use os::{kernel::Kernel, randomness::Randomness};
use policies::{names::Transport, units::Uptime};
use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
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
    /// Why a wanted one is missing; `None` if all are there, or the router answers by no protocol.
    pub missing: Option<MissingLease>,
}

/// What a round leaves for the next one.
#[derive(Debug, Default)]
struct State {
    open: Vec<Open>,
    /// The firewall of the router that was the last default gateway.
    firewall: Option<Firewall>,
    /// Pinholes that could not be ended, mostly since the host has another address now, and since when.
    unended: BTreeMap<Pinhole, Uptime>,
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
    state: Mutex<State>,
    is_released: Cell<bool>,
    release_started: Notify,
}

impl PinholeKeeper {
    /// Builds a keeper; it does nothing before the first round.
    pub fn new(ledger: FileLedger<Pinhole>, settings: PinholeSettings) -> Self {
        Self {
            settings,
            ledger,
            state: Mutex::default(),
            is_released: Cell::new(false),
            release_started: Notify::new(),
        }
    }

    /// Runs a round: requests missing pinholes, renews others, and ends what earlier runs left. After [`Self::release`], nothing is done.
    pub async fn update(&self, now: Uptime) -> Round {
        let mut state = self.state.lock().await;
        if self.is_released.get() {
            return Round::default();
        }
        let missing = tokio::select! {
            biased;
            () = self.release_started.notified() => return Round::default(),
            result = self.run_round(&mut state, now) => result.unwrap_or_else(|error| {
                Some(MissingLease {
                    reason: MissingReason::Ledger,
                    text: Chain(&error).to_string(),
                })
            }),
        };
        Round {
            pinholes: state.open.iter().map(lease).collect(),
            missing,
        }
    }

    /// Ends all pinholes of the ledger. A running round is ended, and later rounds do nothing.
    ///
    /// # Errors
    /// The ledger cannot be read or written. Pinholes that cannot be ended stay in it, and expire by themselves.
    pub async fn release(&self) -> Result<(), LedgerError> {
        self.is_released.set(true);
        self.release_started.notify_waiters();
        let mut state = self.state.lock().await;
        state.open.clear();
        let recorded = self.ledger.entries().await?;
        if recorded.is_empty() {
            return Ok(());
        }
        let left = match self.update_firewall(&mut state.firewall).await {
            Some(firewall) => end(firewall, recorded).await,
            None => recorded,
        };
        self.ledger.replace(left).await
    }

    /// Returns why a wanted pinhole is missing.
    async fn run_round(
        &self,
        state: &mut State,
        now: Uptime,
    ) -> Result<Option<MissingLease>, LedgerError> {
        let State {
            open,
            firewall,
            unended,
        } = state;
        let Some(firewall) = self.update_firewall(firewall).await else {
            open.clear();
            return Ok(None);
        };
        let wanted = self.wanted().await;
        let is_wanted = |pinhole: &Pinhole| wanted.contains(&pinhole.port());
        open.retain(|open| is_wanted(&open.pinhole) && open.until > now);
        let mut missing = None;
        for port in &wanted {
            let index = open.iter().position(|open| open.pinhole.port() == *port);
            let current = index.map(|index| open.swap_remove(index));
            if let Some(current) = current.filter(|current| !current.is_due(now)) {
                open.push(current);
                continue;
            }
            let error = match self.open_port(firewall, *port, current, now).await? {
                Ok(opened) => {
                    open.push(opened);
                    continue;
                }
                Err(error) => error,
            };
            // A renewal that fails does not close the firewall.
            open.extend(current);
            tracing::debug!(?port, error = %Chain(&error), "the router opens no port for IPv6");
            missing = describe(&error, *port).or(missing);
        }
        let recorded = self.ledger.entries().await?;
        let (kept, unwanted): (Vec<_>, Vec<_>) = recorded.into_iter().partition(is_wanted);
        if !unwanted.is_empty() {
            let left = end(firewall, unwanted).await;
            let left = drop_expired(unended, left, now);
            self.ledger.replace([kept, left].concat()).await?;
        }
        Ok(missing)
    }

    /// Opens the firewall for a port by the protocol that did so before, or else by another one.
    async fn open_port(
        &self,
        firewall: &mut Firewall,
        port: (SocketAddrV6, Transport),
        current: Option<Open>,
        now: Uptime,
    ) -> Result<Result<Open, PinholeError>, LedgerError> {
        let mut recorded = self.ledger.entries().await?;
        recorded.retain(|pinhole| pinhole.port() == port);
        let current = current.map(|current| current.pinhole);
        let first = current.or(recorded.first().copied());
        let mut failure = None;
        for protocol in firewall.protocols(first.map(|first| first.protocol())) {
            let mut known = recorded.iter().copied();
            let known = known.find(|known| known.protocol() == protocol);
            let pinhole =
                known.unwrap_or_else(|| Pinhole::new(port, protocol, &self.settings.random));
            self.record(pinhole).await?;
            match firewall.open(pinhole, LEASE).await {
                Ok((pinhole, lease)) => {
                    self.record(pinhole).await?;
                    return Ok(Ok(Open {
                        pinhole,
                        at: now,
                        until: now + lease,
                    }));
                }
                Err(error) => {
                    if current.is_none_or(|current| !current.is_same(&pinhole)) {
                        self.forget(&pinhole).await?;
                    }
                    failure = Some(more_telling(failure, error));
                }
            }
        }
        let silent = || PinholeError::silent(Protocol::Pcp, "it did not answer earlier requests");
        Ok(Err(failure.unwrap_or_else(silent)))
    }

    /// Writes a pinhole to the ledger, in place of the one for the same port by the same protocol.
    async fn record(&self, pinhole: Pinhole) -> Result<(), LedgerError> {
        let mut recorded = self.ledger.entries().await?;
        if recorded.contains(&pinhole) {
            return Ok(());
        }
        recorded.retain(|other| !other.is_same(&pinhole));
        recorded.push(pinhole);
        self.ledger.replace(recorded).await
    }

    /// Removes a pinhole from the ledger that the router has not opened.
    async fn forget(&self, pinhole: &Pinhole) -> Result<(), LedgerError> {
        let mut recorded = self.ledger.entries().await?;
        recorded.retain(|other| !other.is_same(pinhole));
        self.ledger.replace(recorded).await
    }

    /// Returns the firewall of the default route's router, of which all protocols are tried again.
    async fn update_firewall<'a>(
        &self,
        firewall: &'a mut Option<Firewall>,
    ) -> Option<&'a mut Firewall> {
        let router = self.router().await;
        let known = firewall.take();
        let known = known.filter(|known| Some(known.router) == router);
        *firewall = known.or(router.map(Firewall::new));
        let firewall = firewall.as_mut()?;
        firewall.start_round();
        Some(firewall)
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
async fn end(firewall: &mut Firewall, pinholes: Vec<Pinhole>) -> Vec<Pinhole> {
    let mut left = Vec::new();
    for pinhole in pinholes {
        if let Err(error) = firewall.close(&pinhole).await {
            tracing::debug!(?pinhole, error = %Chain(&error), "pinhole not ended; it expires by itself");
            // A router that rejects the request has no such pinhole, or does not know the protocol any more.
            if matches!(error, PinholeError::Silent { .. }) {
                left.push(pinhole);
            }
        }
    }
    left
}

/// Returns the pinholes that may still be there: those that could not be ended for as long as a lease have expired.
fn drop_expired(
    unended: &mut BTreeMap<Pinhole, Uptime>,
    mut left: Vec<Pinhole>,
    now: Uptime,
) -> Vec<Pinhole> {
    unended.retain(|pinhole, _| left.contains(pinhole));
    left.retain(|pinhole| now.since(*unended.entry(*pinhole).or_insert(now)) < LEASE);
    left
}

/// Returns the error that says more of the router: it has answered.
fn more_telling(earlier: Option<PinholeError>, later: PinholeError) -> PinholeError {
    match (earlier, later) {
        (Some(earlier), PinholeError::Silent { .. }) => earlier,
        (_, later) => later,
    }
}

/// Describes why a port is not open. A router that does not answer is no fault: many have no firewall, or one that nobody can ask to
/// open it.
fn describe(
    error: &PinholeError,
    (internal, transport): (SocketAddrV6, Transport),
) -> Option<MissingLease> {
    let reason = match error {
        PinholeError::Silent { .. } => return None,
        PinholeError::NotNeeded => MissingReason::NotNeeded,
        PinholeError::Rejected { .. } | PinholeError::Translated | PinholeError::NotAllowed => {
            MissingReason::Rejected
        }
    };
    let text = format!("{transport} {internal}: {}", Chain(error));
    Some(MissingLease { reason, text })
}

fn lease(open: &Open) -> Lease {
    Lease {
        transport: open.pinhole.transport,
        internal_port: open.pinhole.internal.port(),
        external: SocketAddr::V6(open.pinhole.internal),
        until: open.until,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::pinholes::pinhole::Key;

    #[test]
    fn a_pinhole_of_an_address_that_the_host_has_lost_is_forgotten_once_its_lease_has_passed() {
        let pinhole = |port| Pinhole {
            internal: format!("[2001:db8::7]:{port}").parse().unwrap(),
            transport: Transport::Udp,
            key: Key::UniqueId(Some(7)),
        };
        let mut unended = BTreeMap::new();
        let mut check = |second, left: &[u16], expected: &[u16]| {
            let pinholes = |ports: &[u16]| Vec::from_iter(ports.iter().map(|port| pinhole(*port)));
            let kept = drop_expired(&mut unended, pinholes(left), Uptime::from_secs(second));
            assert_eq!(kept, pinholes(expected), "after {second} s");
        };
        check(0, &[1], &[1]);
        check(3000, &[1, 2], &[1, 2]);
        check(3600, &[1, 2], &[2]);
        // It was ended meanwhile, and is there again.
        check(3700, &[], &[]);
        check(6700, &[2], &[2]);
    }
}
