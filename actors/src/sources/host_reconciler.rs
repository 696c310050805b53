//! Compares what the node has on its host with what should be there, twice a minute and when the kernel reports a change, and
//! restores what other programs removed or changed.
//!
//! What that is, and how it is compared, is in `os/src/kernel/reconcile.rs`. babeld's routes are restored by `fallback_routes`, which
//! watches them anyway.

mod consequences;
mod log;

use crate::{
    effects::link_orders::LinkOrderQueue,
    mailboxes::offer,
    messages::{HostCompared, HostRepaired, Ordered, RoutesRead, UplinkRestored},
    repair_log::RepairLog,
    store::Store,
};
use actix::{
    Actor, ActorFutureExt, AsyncContext, Context, Handler, Recipient, SpawnHandle, StreamHandler,
    WrapFuture,
};
use ipnet::Ipv4Net;
use os::{
    clock::Clock,
    kernel::{Diversion, HostComparison, Kernel, KernelError, UplinkAddress},
    udp_ports,
};
use policies::{
    forwarding::ForwardingProbes, ipv4_overlap::Ipv4Overlap, names::Prefix, observation::INFINITY,
    units::Uptime,
};
use std::{
    collections::{BTreeSet, VecDeque},
    net::Ipv6Addr,
    time::Duration,
};
use wire::{babel_packet, errors::Chain, overlay::Network};

/// Interval between two comparisons while nothing is reported.
const INTERVAL: Duration = Duration::from_secs(30);

/// Delay between a reported change and the comparison: a program mostly changes several things at once. It doubles with each
/// comparison within [`REPAIR_SPAN`] that restored something, so that two programs do not undo each other's changes all the time.
const MIN_DELAY: Duration = Duration::from_millis(250);

/// Maximum delay between a reported change and the comparison.
const MAX_DELAY: Duration = Duration::from_secs(2);

/// Span in which repairs make the next one wait longer.
const REPAIR_SPAN: Duration = Duration::from_secs(60);

/// Delay until a route that does not lead through a tunnel is checked again, since babeld may just have changed it.
const CONFIRMATION_DELAY: Duration = Duration::from_secs(3);

/// Delay until a probe of forwarding that contradicts what the node believes is repeated.
const PROBE_DELAY: Duration = Duration::from_secs(4);

/// Number of nodes the routes to which are looked up.
const LOOKED_UP: usize = 3;

/// The kernel has reported a change of the host.
struct HostChanged;

/// What one comparison found.
struct Found {
    comparison: HostComparison,
    diversion: Option<Diversion>,
    other_babel_uid: Option<u32>,
    uplinks: Option<BTreeSet<UplinkAddress>>,
    /// Whether the host forwards packets for others; `None` if that is not known.
    forwards: Option<bool>,
    /// What the network's IPv4 range overlaps on this host; the outer option is `None` if that could not be read.
    ipv4_overlap: Option<Option<String>>,
}

/// The dependencies of the host reconciler.
#[derive(Clone)]
pub struct HostReconcilerDeps {
    /// The shared state that outlives the actor.
    pub store: Store,
    /// The kernel of the host.
    pub kernel: Kernel,
    /// The network, for the addresses of nodes.
    pub network: Network,
    /// The prefix of this node.
    pub me: Prefix,
    /// The cost at which the configuration lets the node carry traffic of others.
    pub transit_cost: u16,
    /// The user of babeld.
    pub babeld_uid: u32,
    /// The receiver of repairs.
    pub repaired_to: Recipient<HostRepaired>,
    /// The receiver of each comparison.
    pub compared_to: Recipient<HostCompared>,
    /// The queue for requests to the neighbours on links that were set up again.
    pub links: LinkOrderQueue,
    /// The receiver of orders to close tunnels whose links were deleted.
    pub ordered_to: Recipient<Ordered>,
    /// The actors that try again at once when an uplink has come back.
    pub uplink_to: Vec<Recipient<UplinkRestored>>,
}

/// The actor that restores the node's part of the host.
pub struct HostReconciler {
    deps: HostReconcilerDeps,
    clock: Clock,
    log: RepairLog,
    /// When comparisons within the last [`REPAIR_SPAN`] restored something.
    repaired_at: VecDeque<Uptime>,
    /// Whether a comparison is planned because of a change.
    is_planned: bool,
    is_comparing: bool,
    /// Whether another comparison follows the one in progress.
    is_due: bool,
    /// The next comparison that confirms what this one found; `None` if there is nothing to confirm.
    confirmation: Option<SpawnHandle>,
    forwarding: ForwardingProbes,
    /// The network's IPv4 range at babeld's last reading.
    compared_range: Option<Ipv4Net>,
    /// The range that was last compared with the host's networks, and what overlaps it.
    overlap: (Option<Ipv4Net>, Ipv4Overlap),
    /// The addresses of nodes to which babeld has installed a route through a tunnel, [`LOOKED_UP`] at most.
    reachable: Vec<Ipv6Addr>,
    /// Where packets to [`Self::reachable`] left at the last comparison.
    diversion: Option<Diversion>,
    /// The addresses of uplinks with a carrier at the last comparison; `None` before the first one.
    uplinks: Option<BTreeSet<UplinkAddress>>,
    /// The last result that was logged.
    logged: HostCompared,
}

impl HostReconciler {
    /// Builds the actor, which compares once it is started.
    pub fn new(deps: HostReconcilerDeps) -> Self {
        Self {
            clock: deps.store.clock.clone(),
            deps,
            log: RepairLog::default(),
            repaired_at: VecDeque::new(),
            is_planned: false,
            is_comparing: false,
            is_due: false,
            confirmation: None,
            forwarding: ForwardingProbes::default(),
            compared_range: None,
            overlap: (None, Ipv4Overlap::default()),
            reachable: Vec::new(),
            diversion: None,
            uplinks: None,
            logged: HostCompared::default(),
        }
    }

    /// Returns how long a reported change waits for the comparison.
    fn delay(&mut self) -> Duration {
        let now = self.clock.now();
        self.repaired_at.retain(|at| now.since(*at) < REPAIR_SPAN);
        delay_after(self.repaired_at.len())
    }

    /// Returns whether this comparison probes if the host forwards packets. A node that carries no transit traffic need not know.
    fn is_probe_due(&mut self) -> bool {
        let carries_transit = self.deps.transit_cost != INFINITY;
        carries_transit && self.forwarding.is_due(self.clock.now())
    }

    fn compare(&mut self, ctx: &mut Context<Self>) {
        self.is_planned = false;
        if std::mem::replace(&mut self.is_comparing, true) {
            self.is_due = true;
            return;
        }
        let HostReconcilerDeps {
            kernel,
            network,
            me,
            babeld_uid,
            ..
        } = &self.deps;
        let (kernel, network, me, babeld_uid) = (kernel.clone(), *network, *me, *babeld_uid);
        let is_probe_due = self.is_probe_due();
        let ipv4 = self.ipv4_range();
        let reachable = self.reachable.clone();
        let compared = async move {
            let comparison = kernel.reconcile_host().await;
            let diversion = common_diversion(&kernel, &reachable).await;
            let forwards = match is_probe_due {
                true => kernel.forwards_transit(network, me).await.map(Some),
                false => Ok(None),
            };
            let overlap = match ipv4 {
                Some(range) => kernel.overlapping_network(range).await,
                None => Ok(None),
            };
            Found {
                ipv4_overlap: logged(overlap, "compare the IPv4 range"),
                forwards: logged(forwards, "find out whether this host forwards packets").flatten(),
                comparison,
                diversion: logged(diversion, "look a route up").flatten(),
                other_babel_uid: udp_ports::other_user(babel_packet::PORT, babeld_uid),
                uplinks: logged(kernel.connected_uplinks().await, "read the uplinks"),
            }
        };
        ctx.spawn(compared.into_actor(self).map(|found, reconciler, ctx| {
            reconciler.is_comparing = false;
            reconciler.handle_found(found, ctx);
            if std::mem::take(&mut reconciler.is_due) {
                reconciler.compare(ctx);
            }
        }));
    }

    fn handle_found(&mut self, found: Found, ctx: &mut Context<Self>) {
        let at = self.clock.now();
        let Found {
            comparison,
            diversion,
            other_babel_uid,
            uplinks,
            forwards,
            ipv4_overlap,
        } = found;
        if !comparison.repairs.is_empty() {
            self.log.log(at, &comparison.repairs);
            self.repaired_at.push_back(at);
            let repairs = comparison.repairs;
            self.deps.repaired_to.do_send(HostRepaired { at, repairs });
        }
        self.close_tunnels(&comparison.deleted_slots);
        self.request_routes(&comparison.restored_slots);
        // babeld changes a route by deleting it and adding another one, so one lookup says little.
        let is_confirmed = diversion.is_some() && diversion == self.diversion;
        let is_contradicted = self.note_forwarding(forwards, at);
        let confirmed_after = match (diversion.is_some() && !is_confirmed, is_contradicted) {
            (true, _) => Some(CONFIRMATION_DELAY),
            (false, true) => Some(PROBE_DELAY),
            (false, false) => None,
        };
        // One confirmation is planned at a time, however many comparisons ask for it.
        if let Some(planned) = self.confirmation.take() {
            ctx.cancel_future(planned);
        }
        self.confirmation = confirmed_after.map(|delay| ctx.run_later(delay, Self::compare));
        let compared = HostCompared {
            ipv4_overlap: self.note_overlap(ipv4_overlap, ctx),
            failure: comparison.failure,
            earlier_rules: comparison.earlier_rules,
            diversion: diversion
                .as_ref()
                .filter(|_| is_confirmed)
                .map(ToString::to_string),
            other_babel_uid,
            is_transit_blocked: self.deps.store.is_transit_blocked.get(),
        };
        self.diversion = diversion;
        self.log_changes(&compared);
        offer(&self.deps.compared_to, compared);
        self.note_uplinks(uplinks);
    }

    /// Reports an uplink with a carrier and an address that the host did not have before.
    fn note_uplinks(&mut self, uplinks: Option<BTreeSet<UplinkAddress>>) {
        let Some(uplinks) = uplinks else { return };
        let has_new = self
            .uplinks
            .as_ref()
            .is_some_and(|before| !uplinks.is_subset(before));
        if has_new {
            tracing::info!(
                "an uplink has come back or got an address: peers and the registry are tried at once"
            );
            self.deps
                .uplink_to
                .iter()
                .for_each(|reader| reader.do_send(UplinkRestored));
        }
        self.uplinks = Some(uplinks);
    }
}

/// Returns how long a reported change waits after this number of recent repairs.
fn delay_after(repairs: usize) -> Duration {
    let doublings = u32::try_from(repairs).unwrap_or(u32::MAX);
    let factor = 2_u32.checked_pow(doublings).unwrap_or(u32::MAX);
    MIN_DELAY.saturating_mul(factor).min(MAX_DELAY)
}

/// Returns where packets to all of these nodes leave, if none of them leaves by a slot: babeld may just change the route to one of them.
async fn common_diversion(
    kernel: &Kernel,
    nodes: &[Ipv6Addr],
) -> Result<Option<Diversion>, KernelError> {
    let mut first = None;
    for node in nodes {
        let Some(diversion) = kernel.diversion(*node).await? else {
            return Ok(None);
        };
        first.get_or_insert(diversion);
    }
    Ok(first)
}

/// Returns the value, or logs at debug level why there is none.
fn logged<T>(result: Result<T, KernelError>, doing: &str) -> Option<T> {
    result
        .inspect_err(|error| tracing::debug!(error = %Chain(error), "cannot {doing}"))
        .ok()
}

impl Actor for HostReconciler {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        match self.deps.kernel.watch_host() {
            Ok(watch) => {
                let next = |watch: os::kernel::HostWatch| async move {
                    watch.changed().await.ok().map(|()| (HostChanged, watch))
                };
                ctx.add_stream(futures_util::stream::unfold(watch, next));
            }
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "cannot watch the host; it is compared twice a minute only");
            }
        }
        self.compare(ctx);
        ctx.run_interval(INTERVAL, Self::compare);
    }
}

impl StreamHandler<HostChanged> for HostReconciler {
    fn handle(&mut self, _: HostChanged, ctx: &mut Self::Context) {
        if !std::mem::replace(&mut self.is_planned, true) {
            let delay = self.delay();
            ctx.run_later(delay, Self::compare);
        }
    }

    fn finished(&mut self, _: &mut Self::Context) {
        tracing::warn!(
            "the kernel reports no more changes of the host; it is compared twice a minute only"
        );
    }
}

impl Handler<RoutesRead> for HostReconciler {
    type Result = ();

    fn handle(&mut self, read: RoutesRead, ctx: &mut Self::Context) {
        let range = self.ipv4_range();
        if std::mem::replace(&mut self.compared_range, range) != range {
            self.compare(ctx);
        }
        let HostReconcilerDeps {
            kernel, network, ..
        } = &self.deps;
        let table = read.table.unwrap_or_default();
        let used = table
            .routes
            .iter()
            .filter(|route| route.installed && route.metric != INFINITY);
        let addresses = used.map(|route| network.node_address(route.node));
        self.reachable = addresses
            .filter(|address| !kernel.is_blocked(*address))
            .take(LOOKED_UP)
            .collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_undoes_each_repair_is_answered_more_and_more_slowly() {
        assert_eq!(delay_after(0), MIN_DELAY);
        assert_eq!(delay_after(3), Duration::from_secs(2));
        assert_eq!(delay_after(5), MAX_DELAY);
        assert_eq!(delay_after(usize::MAX), MAX_DELAY);
    }
}
