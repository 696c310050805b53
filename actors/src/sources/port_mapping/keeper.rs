//! Decides which port mappings to request from a gateway, to renew and to remove.
//!
//! A mapping is ours if the ledger has it: by its ports and this host's address, since gateways shorten and replace descriptions.
//! It is written to the ledger before it is requested, so that after a crash the next run can remove it.

mod errors;
mod further;
mod removal;
mod requests;

pub use errors::LeaseError;

use super::{
    gateway::{Effort, Entry, ExternalAddress, Finder, Gateway, Lookup},
    ledger::{FileLedger, Ledger, Mapping},
    protocol::{Family, Protocol},
};
use crate::messages::Lease;
use futures_util::{StreamExt, stream::FuturesUnordered};
use membership::documents::PrivateEndpoints;
use os::randomness::Randomness;
use policies::{
    names::{Endpoint, Prefix, Transport},
    units::Uptime,
};
use std::{
    cell::Cell,
    collections::BTreeMap,
    net::{IpAddr, SocketAddr, SocketAddrV4},
    time::Duration,
};
use tokio::sync::{Mutex, Notify};
use wire::{endpoints::dialable, overlay::Network};

/// Duration of the leases that are requested. A lease is renewed when half of it has passed.
pub const LEASE: Duration = Duration::from_secs(3600);
/// Interval between two requests for a mapping that the gateway does not show, to replace one that it has lost.
const BLIND_RENEWAL_INTERVAL: Duration = Duration::from_secs(240);

/// The mappings to keep.
#[derive(Clone, Debug)]
pub struct LeaseSettings {
    /// This node; the description of its mappings is `warren P/L`.
    pub me: Prefix,
    /// The network, whose addresses cannot be external addresses of a gateway.
    pub network: Network,
    /// The ports of this host that should be reachable.
    pub wanted: Vec<(Transport, u16)>,
    /// Further ports that lead to the same servers. Each is mapped to its own number on the gateway or not at all.
    pub further: Vec<(Transport, u16)>,
    /// Whether a private external address is accepted, as in a laboratory or a campus network.
    pub private: PrivateEndpoints,
    /// The source of random ports.
    pub random: Randomness,
}

/// The outcome of a round.
#[derive(Debug, Default)]
pub struct Round {
    /// The leases that this node has.
    pub leases: Vec<Lease>,
    /// Why a wanted port has no lease; `None` if all have one.
    pub failure: Option<LeaseError>,
}

/// A mapping that the gateway granted.
#[derive(Clone, Copy, Debug)]
struct Granted {
    mapping: Mapping,
    /// The gateway's address on the internet.
    address: IpAddr,
    at: Uptime,
    until: Uptime,
    /// Whether the gateway has shown the mapping.
    is_shown: bool,
    /// Whether the mapping was requested again since the gateway did not show it. Then the gateway probably hides it.
    is_hidden: bool,
    /// Whether the gateway has shown when it expires.
    has_shown_expiry: bool,
}

impl Granted {
    fn external_port_key(&self) -> (Transport, u16) {
        self.mapping.external_port_key()
    }

    /// Takes what the gateway shows of the mapping. Returns whether the mapping can stay as it is.
    fn check(&mut self, shown: &Lookup, now: Uptime) -> bool {
        let age = now.since(self.at);
        match shown {
            Lookup::Taken(entry) => {
                let has_lost_expiry = self.has_shown_expiry && entry.remaining.is_none();
                if !entry.leads_to(self.mapping.internal) || has_lost_expiry {
                    return false;
                }
                self.is_shown = true;
                if let Some(remaining) = entry.remaining {
                    self.has_shown_expiry = true;
                    self.until = self.until.min(now + remaining);
                }
            }
            Lookup::Free if self.is_shown || !self.is_hidden => return false,
            // A renewal is a single datagram, and the only sign of whether the gateway still has the mapping.
            Lookup::Unknown if self.mapping.protocol.family() == Family::PortControl => {
                return false;
            }
            Lookup::Free | Lookup::Unknown if age >= BLIND_RENEWAL_INTERVAL => return false,
            Lookup::Free | Lookup::Unknown => {}
        }
        age < self.until.since(self.at) / 2
    }

    /// Whether the lease goes on although it was not renewed: the gateway still shows it.
    fn is_left(&self, shown: Option<&Lookup>, now: Uptime) -> bool {
        let leads_here = |entry: &Entry| entry.leads_to(self.mapping.internal);
        self.until > now && matches!(shown, Some(Lookup::Taken(entry)) if leads_here(entry))
    }

    fn lease(&self) -> Lease {
        Lease {
            transport: self.mapping.transport,
            internal_port: self.mapping.internal.port(),
            external: SocketAddr::new(self.address, self.mapping.external_port),
            until: self.until,
        }
    }
}

/// What a keeper remembers from one round to the next.
struct State<G> {
    /// The gateway that mapped the ports.
    gateway: Option<G>,
    mappings: Mappings,
}

/// The mappings that a keeper has, and those that it could not remove.
#[derive(Debug, Default)]
struct Mappings {
    granted: Vec<Granted>,
    /// When leftovers that are still in the ledger could not be removed, and which.
    kept_leftovers: Option<(Uptime, Vec<Mapping>)>,
    /// Since when mappings to another address of this host are known, which PCP and NAT-PMP cannot remove.
    to_other_addresses: BTreeMap<Mapping, Uptime>,
    /// When the gateway last refused to map a further port.
    refused_further: BTreeMap<(Transport, u16), Uptime>,
}

impl Mappings {
    /// Takes the lease of this transport at this address of the host out of those that were granted.
    fn take_granted(&mut self, transport: Transport, internal: SocketAddrV4) -> Option<Granted> {
        let index = self.granted.iter().position(|granted| {
            (granted.mapping.transport, granted.mapping.internal) == (transport, internal)
        });
        index.map(|index| self.granted.swap_remove(index))
    }
}

/// Keeps the leases of one node. It outlives the actor that schedules the rounds.
pub struct Keeper<F: Finder, L = FileLedger> {
    settings: LeaseSettings,
    /// A round holds the lock until it ends.
    state: Mutex<State<F::Gateway>>,
    /// Whether the leases are being released, or have been; no round may map anything after that.
    is_released: Cell<bool>,
    /// Ends a running round when the leases are to be released.
    release_started: Notify,
    finder: F,
    ledger: L,
}

impl<F: Finder, L: Ledger> Keeper<F, L> {
    /// Builds a keeper; it does nothing before the first round.
    pub fn new(finder: F, ledger: L, settings: LeaseSettings) -> Self {
        Self {
            settings,
            state: Mutex::new(State {
                gateway: None,
                mappings: Mappings::default(),
            }),
            is_released: Cell::new(false),
            release_started: Notify::new(),
            finder,
            ledger,
        }
    }

    /// Runs a round: requests missing mappings, renews those of which half has passed, and removes what earlier runs left.
    ///
    /// Without a gateway that maps the ports, all protocols are tried at once. After [`Self::release`], nothing is done.
    pub async fn update_mappings(&self, now: Uptime) -> Round {
        let mut state = self.state.lock().await;
        if self.is_released.get() {
            return Round::default();
        }
        tokio::select! {
            biased;
            () = self.release_started.notified() => Round::default(),
            failure = self.run_round(&mut state, now) => {
                let mut leases: Vec<_> = state.mappings.granted.iter().map(Granted::lease).collect();
                leases.sort_by_key(|lease| (lease.transport, lease.internal_port));
                Round { leases, failure }
            }
        }
    }

    /// Returns why a wanted port has no lease.
    async fn run_round(&self, state: &mut State<F::Gateway>, now: Uptime) -> Option<LeaseError> {
        let mut failures = Vec::new();
        // The state keeps the gateway meanwhile, since a release may end this round while it waits.
        state.gateway = state
            .gateway
            .take()
            .filter(|gateway| self.finder.is_current(gateway));
        if let Some(gateway) = &state.gateway {
            match self.map_ports(&mut state.mappings, gateway, now).await {
                Ok(failure) => failures.extend(failure),
                Err(failure) => {
                    state.gateway = None;
                    failures.push(failure);
                }
            }
        }
        if state.gateway.is_none() {
            state.mappings.refused_further.clear();
            let found = self.search_gateway(state, now).await;
            if state.gateway.is_some() {
                failures.clear();
            }
            failures.extend(found);
        }
        let mappings = &mut state.mappings;
        if let Some(gateway) = &state.gateway
            && let Err(error) = self.remove_leftovers(mappings, gateway, now).await
        {
            failures.push(error);
        }
        failures.into_iter().max_by_key(LeaseError::reason)
    }

    /// Searches the gateway by all protocols at once, and maps the ports by the first one that answers and does it.
    async fn search_gateway(&self, state: &mut State<F::Gateway>, now: Uptime) -> Vec<LeaseError> {
        let mut failures = Vec::new();
        let mut searches: FuturesUnordered<_> = Family::ALL
            .into_iter()
            .map(|family| self.finder.find(family))
            .collect();
        while let Some(found) = searches.next().await {
            let gateways = found.unwrap_or_else(|error| {
                failures.push(error.into());
                Vec::new()
            });
            for gateway in gateways {
                match self.map_ports(&mut state.mappings, &gateway, now).await {
                    Ok(failure) => {
                        state.gateway = Some(gateway);
                        return failure.into_iter().collect();
                    }
                    Err(failure) => {
                        let error = wire::errors::Chain(&failure).to_string();
                        tracing::debug!(protocol = %gateway.protocol(), error, "no port mapped");
                        failures.push(failure);
                    }
                }
            }
        }
        state.mappings.granted.clear();
        failures
    }

    /// Maps all wanted ports by this gateway. Returns why some of them have no lease.
    ///
    /// # Errors
    /// No port is mapped.
    async fn map_ports(
        &self,
        mappings: &mut Mappings,
        gateway: &F::Gateway,
        now: Uptime,
    ) -> Result<Option<LeaseError>, LeaseError> {
        let address = match gateway.external_address().await? {
            ExternalAddress::Known(address) => Some(self.check_routable(address)?),
            ExternalAddress::Missing => return Err(LeaseError::NoExternalAddress),
            ExternalAddress::WithMapping => None,
        };
        let (local, protocol) = (gateway.local_address(), gateway.protocol());
        mappings.granted.retain(|granted| {
            granted.mapping.protocol == protocol && *granted.mapping.internal.ip() == local
        });
        let recorded = self.ledger.read().await?;
        let shown = self
            .look_up_candidates(mappings, gateway, &recorded, now)
            .await;
        let shown_of = |granted: &Granted| shown.get(&granted.external_port_key());
        let mut failure = None;
        for (transport, port, is_further) in self.due_ports(mappings, now) {
            let internal = SocketAddrV4::new(local, port);
            let mut current = mappings.take_granted(transport, internal);
            let mut is_hidden = false;
            if let Some(granted) = &mut current {
                granted.address = address.unwrap_or(granted.address);
                let seen = shown_of(granted).unwrap_or(&Lookup::Unknown);
                if granted.check(seen, now) {
                    mappings.granted.push(*granted);
                    continue;
                }
                is_hidden = *seen == Lookup::Free;
            }
            let request = requests::Request {
                transport,
                internal,
                is_further,
                protocol,
                address,
                shown: &shown,
            };
            match self.request_mapping(gateway, &request, now).await {
                Ok(granted) => mappings.granted.push(Granted {
                    is_hidden,
                    ..granted
                }),
                Err(error) => {
                    // A renewal that fails does not end the lease.
                    let seen = current.as_ref().and_then(shown_of);
                    let is_left = |granted: &Granted| granted.is_left(seen, now);
                    mappings.granted.extend(current.filter(is_left));
                    if is_further {
                        mappings.refuse_further((transport, port), &error, now);
                    } else {
                        failure = Some(error);
                    }
                }
            }
        }
        match failure {
            Some(error) if mappings.granted.is_empty() => Err(error),
            failure => Ok(failure),
        }
    }

    /// Looks up the ports that mappings have, had, or would have first.
    async fn look_up_candidates(
        &self,
        mappings: &Mappings,
        gateway: &F::Gateway,
        recorded: &[Mapping],
        now: Uptime,
    ) -> BTreeMap<(Transport, u16), Lookup> {
        let local = gateway.local_address();
        let mut ports: Vec<_> = mappings
            .granted
            .iter()
            .map(Granted::external_port_key)
            .collect();
        for (transport, port, _) in self.due_ports(mappings, now) {
            let internal = SocketAddrV4::new(local, port);
            let is_granted = |granted: &Granted| {
                (granted.mapping.transport, granted.mapping.internal) == (transport, internal)
            };
            if !mappings.granted.iter().any(is_granted) {
                let known = requests::recorded_port(recorded, transport, internal);
                ports.extend(known.map(|port| (transport, port)));
                ports.push((transport, port));
            }
        }
        ports.sort_unstable();
        ports.dedup();
        let shown = gateway.look_up(&ports, Effort::Thorough).await;
        ports.into_iter().zip(shown).collect()
    }

    fn description(&self) -> String {
        format!("warren {}", self.settings.me)
    }

    /// Returns the gateway's external address if nodes on the internet can reach it.
    fn check_routable(&self, address: IpAddr) -> Result<IpAddr, LeaseError> {
        let endpoint = Endpoint {
            address: SocketAddr::new(address, 1),
            transport: Transport::Udp,
        };
        let is_private_allowed = self.settings.private.are_all_allowed();
        match dialable(endpoint, self.settings.network, is_private_allowed) {
            Ok(()) => Ok(address),
            Err(class) => Err(LeaseError::not_routable(address, class)),
        }
    }

    /// Returns a nonce for a mapping by this protocol, which PCP requires.
    fn nonce(&self, protocol: Protocol) -> Option<[u32; 3]> {
        let bits = || u32::try_from(self.settings.random.bits() >> 32).unwrap_or_default();
        (protocol == Protocol::Pcp).then(|| [bits(), bits(), bits()])
    }
}

#[cfg(test)]
mod tests;
