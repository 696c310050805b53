//! Requests one mapping: at the port that it had, at the port's own number, then at random ports; a further port of a server at its
//! own number only.

use super::{
    super::{
        gateway::{Effort, Entry, Finder, Gateway, GatewayError, Grant, Lookup},
        ledger::{Ledger, Mapping},
        protocol::Protocol,
    },
    Granted, Keeper, LEASE, LeaseError,
};
use fault_points::fault;
use policies::{names::Transport, units::Uptime};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddrV4},
};

/// Maximum number of external ports that are tried for a mapping in one round.
const MAX_ATTEMPTS: usize = 8;
/// The dynamic port range (RFC 6335), from which random ports are tried if our own port is taken.
pub(super) const DYNAMIC_PORTS: std::ops::RangeInclusive<u16> = 49152..=65535;
/// Maximum number of mappings in the ledger; the oldest ones are dropped, which have expired long ago.
const MAX_RECORDED: usize = 64;

/// A mapping that is wanted.
pub(super) struct Request<'a> {
    /// UDP or TCP.
    pub(super) transport: Transport,
    /// The address and port on this host.
    pub(super) internal: SocketAddrV4,
    /// Whether only its own number is of use.
    pub(super) is_further: bool,
    /// The protocol of the gateway.
    pub(super) protocol: Protocol,
    /// The external address, unless it comes with the mapping.
    pub(super) address: Option<IpAddr>,
    /// What the gateway shows of some of its ports.
    pub(super) shown: &'a BTreeMap<(Transport, u16), Lookup>,
}

/// Returns the external port of the last mapping to this port of the host in the ledger.
pub(super) fn recorded_port(
    recorded: &[Mapping],
    transport: Transport,
    internal: SocketAddrV4,
) -> Option<u16> {
    let mut matching = recorded
        .iter()
        .filter(|mapping| (mapping.transport, mapping.internal) == (transport, internal));
    matching.next_back().map(|mapping| mapping.external_port)
}

impl Entry {
    /// Whether the mapping leads to this address and port.
    pub(super) fn leads_to(&self, internal: SocketAddrV4) -> bool {
        self.client.parse() == Ok(*internal.ip()) && self.internal_port == internal.port()
    }
}

/// How an attempt to map a port failed.
enum Failure {
    /// Another port may work.
    ThisPort(GatewayError),
    /// No other port would work.
    AnyPort(LeaseError),
}

impl<F: Finder, L: Ledger> Keeper<F, L> {
    /// Requests a mapping at one port after another.
    pub(super) async fn request_mapping(
        &self,
        gateway: &F::Gateway,
        request: &Request<'_>,
        now: Uptime,
    ) -> Result<Granted, LeaseError> {
        let (transport, internal) = (request.transport, request.internal);
        let recorded = self.ledger.read().await?;
        let known = recorded_port(&recorded, transport, internal)
            .filter(|port| !request.is_further || *port == internal.port());
        let own = Some(internal.port()).filter(|port| known != Some(*port));
        let random = std::iter::repeat_with(|| self.settings.random.port(DYNAMIC_PORTS));
        let ports = known.into_iter().chain(own).chain(random);
        let max_attempts = if request.is_further { 1 } else { MAX_ATTEMPTS };
        let mut last = GatewayError::PortInUse;
        for external_port in ports.take(max_attempts) {
            let mapping = Mapping {
                external_port,
                internal,
                transport,
                protocol: request.protocol,
                nonce: None,
            };
            let before = match request.shown.get(&mapping.external_port_key()) {
                Some(shown) => shown.clone(),
                None => self.look_up(gateway, mapping).await,
            };
            // A gateway silently overwrites another mapping of the same client, so a taken port is never requested.
            if let Lookup::Taken(entry) = &before
                && !self.is_own(entry, mapping, &recorded)
            {
                continue;
            }
            match self
                .request_at_port(gateway, mapping, request.address, now)
                .await
            {
                // The next removal of leftovers removes it.
                Ok(granted)
                    if request.is_further && granted.mapping.external_port != external_port =>
                {
                    last = GatewayError::PortInUse;
                }
                Ok(granted) => return Ok(granted),
                Err(Failure::ThisPort(error)) => last = error,
                Err(Failure::AnyPort(error)) => return Err(error),
            }
        }
        Err(LeaseError::NoPort {
            transport,
            port: internal.port(),
            source: last,
        })
    }

    /// Whether the mapping that the gateway shows is this one, requested by us: the ledger has it, or it has our description.
    fn is_own(&self, entry: &Entry, mapping: Mapping, recorded: &[Mapping]) -> bool {
        let parts = |mapping: &Mapping| (mapping.external_port_key(), mapping.internal);
        let is_recorded = recorded.iter().any(|known| parts(known) == parts(&mapping));
        entry.leads_to(mapping.internal) && (is_recorded || entry.description == self.description())
    }

    async fn look_up(&self, gateway: &F::Gateway, mapping: Mapping) -> Lookup {
        let shown = gateway
            .look_up(&[mapping.external_port_key()], Effort::Quick)
            .await;
        shown.into_iter().next().unwrap_or(Lookup::Unknown)
    }

    async fn request_at_port(
        &self,
        gateway: &F::Gateway,
        mapping: Mapping,
        address: Option<IpAddr>,
        now: Uptime,
    ) -> Result<Granted, Failure> {
        let mut mapping = self.record(mapping).await.map_err(Failure::AnyPort)?;
        let grant = match self.add(gateway, mapping).await {
            Ok(grant) => grant,
            Err(
                error @ (GatewayError::PortInUse
                | GatewayError::SamePortOnly
                | GatewayError::Ambiguous { .. }),
            ) => {
                self.forget(mapping).await.map_err(Failure::AnyPort)?;
                return Err(Failure::ThisPort(error));
            }
            Err(error) => return Err(Failure::AnyPort(error.into())),
        };
        if grant.external_port != mapping.external_port {
            self.forget(mapping).await.map_err(Failure::AnyPort)?;
            mapping.external_port = grant.external_port;
            mapping = self.record(mapping).await.map_err(Failure::AnyPort)?;
        }
        let address = match grant.address {
            Some(address) => match self.check_routable(address) {
                Ok(address) => Some(address),
                Err(error) => {
                    // What cannot be removed now is left in the ledger.
                    if gateway.remove(mapping).await.is_ok() {
                        self.forget(mapping).await.map_err(Failure::AnyPort)?;
                    }
                    return Err(Failure::AnyPort(error));
                }
            },
            None => address,
        };
        let address = address.ok_or(Failure::AnyPort(LeaseError::NoExternalAddress))?;
        let lease = grant.lease.unwrap_or(LEASE).min(LEASE);
        let mut granted = Granted {
            mapping,
            address,
            at: now,
            until: now + lease,
            is_shown: false,
            is_hidden: false,
            has_shown_expiry: false,
        };
        let shown = self.look_up(gateway, mapping).await;
        if let Lookup::Taken(entry) = &shown {
            // Some gateways report success although the port is another client's.
            if !entry.leads_to(mapping.internal) {
                self.forget(mapping).await.map_err(Failure::AnyPort)?;
                return Err(Failure::ThisPort(GatewayError::PortInUse));
            }
            granted.check(&shown, now);
        }
        Ok(granted)
    }

    /// Requests a lease that expires, or one that never does if the gateway rejects that one.
    async fn add(&self, gateway: &F::Gateway, mapping: Mapping) -> Result<Grant, GatewayError> {
        let description = self.description();
        let granted = match gateway.add(mapping, Some(LEASE), &description).await {
            // The ledger contains it, so the shutdown or the next run removes it.
            Err(GatewayError::Ambiguous { .. }) => gateway.add(mapping, None, &description).await,
            result => result,
        };
        fault!("map a port");
        granted.and_then(|grant| {
            if grant.lease.is_some_and(|lease| lease.is_zero()) {
                return Err(GatewayError::Failed {
                    protocol: mapping.protocol,
                    action: "map a port",
                    source: "it granted a lease of no duration".into(),
                });
            }
            Ok(grant)
        })
    }

    /// Adds a mapping to the ledger, before it is requested. Returns it with its nonce: a new one, or that of the ledger.
    async fn record(&self, mapping: Mapping) -> Result<Mapping, LeaseError> {
        let mut recorded = self.ledger.read().await?;
        // All mappings to one port of the host have the same nonce, since PCP knows them by that port.
        let nonce = recorded
            .iter()
            .filter(|known| {
                (known.transport, known.internal) == (mapping.transport, mapping.internal)
            })
            .find_map(|known| known.nonce);
        let mapping = Mapping {
            nonce: nonce.or_else(|| self.nonce(mapping.protocol)),
            ..mapping
        };
        if !recorded.contains(&mapping) {
            recorded.retain(|known| !known.is_same(&mapping));
            recorded.push(mapping);
            let excess = recorded.len().saturating_sub(MAX_RECORDED);
            self.ledger.write(recorded.split_off(excess)).await?;
        }
        Ok(mapping)
    }

    /// Removes a mapping from the ledger, which the gateway has not made.
    async fn forget(&self, mapping: Mapping) -> Result<(), LeaseError> {
        let mut recorded = self.ledger.read().await?;
        recorded.retain(|known| !known.is_same(&mapping));
        Ok(self.ledger.write(recorded).await?)
    }
}
