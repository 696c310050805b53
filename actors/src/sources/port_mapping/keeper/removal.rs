//! Removes mappings from the gateway: those that are not wanted any more, and all at the end.

use super::{
    super::{
        gateway::{Effort, Finder, Gateway, GatewayError, Lookup},
        ledger::{Ledger, Mapping},
        protocol::Family,
    },
    Granted, Keeper, LEASE, LeaseError, Mappings,
};
use fault_points::fault;
use policies::units::Uptime;
use std::time::Duration;
use wire::errors::Chain;

/// Interval between two attempts to remove the same mappings.
const RETRY_INTERVAL: Duration = Duration::from_secs(120);

/// Mappings that are left on the gateway, and why the last of them could not be removed.
type Left = (Vec<Mapping>, Option<GatewayError>);

impl<F: Finder, L: Ledger> Keeper<F, L> {
    /// Removes all our mappings. A running round is ended, and later rounds do nothing.
    ///
    /// # Errors
    /// A mapping could not be removed. The ledger still contains it, so that the next run removes it.
    pub async fn release(&self) -> Result<(), LeaseError> {
        self.is_released.set(true);
        self.release_started.notify_waiters();
        let mut state = self.state.lock().await;
        let recorded = self.ledger.read().await?;
        if recorded.is_empty() {
            return Ok(());
        }
        let (mut left, mut failure) = (recorded, None);
        if let Some(gateway) = state.gateway.take() {
            (left, failure) = remove(&gateway, left, Effort::Quick).await;
        }
        // The gateway may have moved its service to another port, or the mapping is one of another protocol.
        if !left.is_empty() {
            (left, failure) = self.find_and_remove(left, failure).await;
        }
        self.ledger.write(left).await?;
        failure.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Removes mappings in the ledger that are not wanted any more: to another port or address, or by another protocol. Those that
    /// cannot be removed since they lead to another address stay in the ledger for the duration of a lease.
    ///
    /// # Errors
    /// The ledger cannot be read or written.
    pub(super) async fn remove_leftovers(
        &self,
        mappings: &mut Mappings,
        gateway: &F::Gateway,
        now: Uptime,
    ) -> Result<(), LeaseError> {
        let recorded = self.ledger.read().await?;
        let is_granted = |mapping: &Mapping| {
            let mut granted = mappings.granted.iter();
            granted.any(|granted| granted.mapping.is_same(mapping))
        };
        let (kept, leftovers): (Vec<_>, Vec<_>) = recorded.into_iter().partition(is_granted);
        let is_early = mappings
            .kept_leftovers
            .as_ref()
            .is_some_and(|(at, known)| *known == leftovers && now.since(*at) < RETRY_INTERVAL);
        if leftovers.is_empty() || is_early {
            return Ok(());
        }
        // A mapping of ours may have the same port as an old one, which it has replaced.
        let ports: Vec<_> = mappings
            .granted
            .iter()
            .map(Granted::external_port_key)
            .collect();
        let mut left = leftovers;
        left.retain(|mapping| !ports.contains(&mapping.external_port_key()));
        let (mut left, mut failure) = remove(gateway, left, Effort::Thorough).await;
        let is_other = |mapping: &Mapping| mapping.protocol != gateway.protocol();
        if left.iter().any(is_other) {
            (left, failure) = self.find_and_remove(left, failure).await;
        }
        if let Some(error) = failure {
            tracing::debug!(error = %Chain(&error), "cannot remove old port mappings; a later round tries again");
        }
        let known = &mut mappings.to_other_addresses;
        known.retain(|mapping, _| left.contains(mapping));
        left.retain(|mapping| {
            !is_out_of_reach(gateway, mapping)
                || now.since(*known.entry(*mapping).or_insert(now)) < LEASE
        });
        mappings.kept_leftovers = (!left.is_empty()).then(|| (now, left.clone()));
        Ok(self.ledger.write([kept, left].concat()).await?)
    }

    /// Searches the gateway by the protocols of these mappings, and removes them.
    async fn find_and_remove(
        &self,
        mut left: Vec<Mapping>,
        mut failure: Option<GatewayError>,
    ) -> Left {
        for family in Family::ALL {
            let has_family = |mapping: &Mapping| mapping.protocol.family() == family;
            if !left.iter().any(has_family) {
                continue;
            }
            match self.finder.find(family).await {
                Ok(gateways) => {
                    for gateway in gateways {
                        (left, failure) = remove(&gateway, left, Effort::Quick).await;
                    }
                }
                Err(error) => failure = Some(error),
            }
        }
        let failure = left.first().map(|mapping| {
            let protocol = mapping.protocol;
            failure.unwrap_or(GatewayError::OtherProtocol { protocol })
        });
        (left, failure)
    }
}

/// Whether the mapping leads to another address than the host has now: PCP and NAT-PMP know a mapping by its port and the
/// requester's address, so a request to remove it would remove that of the current address.
fn is_out_of_reach<G: Gateway>(gateway: &G, mapping: &Mapping) -> bool {
    mapping.protocol.family() == Family::PortControl
        && *mapping.internal.ip() != gateway.local_address()
}

/// Removes those mappings that were made by the gateway's protocol, unless it shows that a port is another client's by now.
async fn remove<G: Gateway>(gateway: &G, mappings: Vec<Mapping>, effort: Effort) -> Left {
    let protocol = gateway.protocol();
    let (own, mut left): (Vec<_>, Vec<_>) = mappings
        .into_iter()
        .partition(|mapping| mapping.protocol == protocol);
    let ports: Vec<_> = own.iter().map(Mapping::external_port_key).collect();
    let shown = gateway.look_up(&ports, effort).await;
    let mut failure = None;
    for (mapping, shown) in own.into_iter().zip(shown) {
        if matches!(&shown, Lookup::Taken(entry) if !entry.leads_to(mapping.internal)) {
            continue;
        }
        if is_out_of_reach(gateway, &mapping) {
            let address = *mapping.internal.ip();
            left.push(mapping);
            failure = Some(GatewayError::OtherAddress { protocol, address });
            continue;
        }
        match gateway.remove(mapping).await {
            Ok(()) => {
                fault!("remove a port mapping");
                tracing::info!(
                    transport = %mapping.transport,
                    external_port = mapping.external_port,
                    %protocol,
                    "port mapping removed"
                );
            }
            Err(error) => {
                left.push(mapping);
                failure = Some(error);
            }
        }
    }
    (left, failure)
}
