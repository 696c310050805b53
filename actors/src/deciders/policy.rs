//! Hands the latest readings to the planner, and its orders to the actors that carry them out.
//!
//! Decides nothing: only `policies::planner` knows what a reading means.

use crate::messages::{
    CandidatesMeasured, Decided, DocumentsChanged, DrainsRead, LinksSampled, Ordered, PeersRead,
    ProbesRead, RoutesRead, log_decision, offer,
};
use crate::store::Store;
use crate::store::{LocalLimits, SharedRouteView};
use actix::{Actor, Context, Handler, Recipient};
use policies::{
    names::Prefix,
    observation::Observation,
    planner::{Planner, PlannerSettings},
    units::Uptime,
};
use std::{sync::Arc, time::Duration};

/// Older tables are ignored: their reader has died, or babeld hangs.
const STALE: Duration = Duration::from_secs(15);

/// Interval between two route views that are published for other nodes.
const ROUTE_VIEW_INTERVAL: Duration = Duration::from_secs(10);

/// What happens to orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They are carried out.
    Act,
    /// They are logged, and nothing happens: to see what the policy would do.
    Watch,
}

/// The dependencies of the policy actor.
#[derive(Clone)]
pub struct PolicyDeps {
    /// The prefix of this node.
    pub me: Prefix,
    /// The settings that the planner starts with.
    pub settings: PlannerSettings,
    /// The limits that the configuration and the slots set to the network's parameters.
    pub limits: LocalLimits,
    /// Decides whether orders are carried out.
    pub mode: Mode,
    /// The shared state that outlives the actor.
    pub store: Store,
    /// The receivers of orders and decisions.
    pub out: Outlets,
}

/// The actor that plans.
pub struct Policy {
    planner: Planner,
    world: Observation,
    routes_read: Uptime,
    out: Outlets,
    mode: Mode,
    route_view: SharedRouteView,
    shown: Option<Uptime>,
    local_limits: LocalLimits,
}

/// The receivers of orders and decisions.
#[derive(Clone)]
pub struct Outlets {
    /// Carries orders out.
    pub orders: Recipient<Ordered>,
    /// Drains tunnels of its own accord, and asks how far that is.
    pub drains: Recipient<DrainsRead>,
    /// The receivers of each decision with its terms, and of verdicts.
    pub decided: Vec<Recipient<Decided>>,
}

impl Policy {
    /// Builds the actor with a planner that has no history.
    pub fn new(deps: PolicyDeps) -> Self {
        let PolicyDeps {
            me,
            settings,
            limits: local_limits,
            mode,
            store,
            out,
        } = deps;
        let mut planner = Planner::new(me, settings);
        let (documents, route_view) = (store.documents.load_full(), store.route_view);

        if let Some(network) = documents.network() {
            planner.set_parameters(local_limits.of(network.parameters()));
        }
        let (world, routes_read) = (Observation::default(), Uptime::default());
        Self {
            planner,
            world,
            routes_read,
            out,
            mode,
            route_view,
            shown: None,
            local_limits,
        }
    }

    fn show(&mut self, at: Uptime) {
        if self
            .shown
            .is_none_or(|shown| at.since(shown) >= ROUTE_VIEW_INTERVAL)
        {
            self.shown = Some(at);
            self.route_view.store(Arc::new(
                self.planner
                    .route_view(&self.world, self.local_limits.distances),
            ));
        }
    }

    fn look(&mut self, was_reached: bool) {
        let at = self.world.at;
        if at.since(self.routes_read) > STALE {
            self.world.babel = None;
        }
        self.show(at);
        let plan = self.planner.plan(&self.world, was_reached);
        for decision in &plan.decisions {
            if self.mode == Mode::Watch {
                tracing::info!(order = ?decision.order, terms = decision.terms, "would be ordered");
                continue;
            }
            log_decision(decision);
            self.out.orders.do_send(Ordered {
                order: decision.order.clone(),
            });
        }
        if !plan.draining.is_empty() {
            offer(
                &self.out.drains,
                DrainsRead {
                    tunnels: plan.draining,
                },
            );
        }
        if plan.verdicts.is_none() {
            return;
        }
        let decided = Decided {
            at,
            decisions: plan.decisions,
            verdicts: plan.verdicts,
        };
        self.out
            .decided
            .iter()
            .for_each(|to| offer(to, decided.clone()));
    }
}

impl Actor for Policy {
    type Context = Context<Self>;
}

impl Handler<LinksSampled> for Policy {
    type Result = ();

    fn handle(&mut self, reading: LinksSampled, _: &mut Self::Context) {
        self.world.at = reading.at;
        self.world.links = reading.links;
        self.world.free_slots = reading.free_slots;
        self.look(reading.was_reached);
    }
}

impl Handler<RoutesRead> for Policy {
    type Result = ();

    fn handle(&mut self, reading: RoutesRead, _: &mut Self::Context) {
        self.world.babel = reading.table;
        self.routes_read = reading.at;
    }
}

impl Handler<ProbesRead> for Policy {
    type Result = ();

    fn handle(&mut self, reading: ProbesRead, _: &mut Self::Context) {
        self.world.probes = reading.probes;
    }
}

impl Handler<PeersRead> for Policy {
    type Result = ();

    fn handle(&mut self, reading: PeersRead, _: &mut Self::Context) {
        self.world.candidates = reading.candidates;
    }
}

impl Handler<DocumentsChanged> for Policy {
    type Result = ();

    fn handle(&mut self, changed: DocumentsChanged, _: &mut Self::Context) {
        if let Some(network) = changed.documents.network() {
            self.planner
                .set_parameters(self.local_limits.of(network.parameters()));
        }
    }
}

impl Handler<CandidatesMeasured> for Policy {
    type Result = ();

    fn handle(&mut self, measured: CandidatesMeasured, _: &mut Self::Context) {
        self.world.candidate_rtts = measured.candidate_rtts;
        self.world.views = measured.views;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use os::clock::Clock;
    use policies::{
        gain::Rule,
        names::{Prefix, Slot},
        observation::Candidate,
        orders::{OpenReason, Order},
        parameters::Parameters,
        planner::PlannerSettings,
    };
    use std::collections::BTreeSet;
    use tokio::sync::mpsc;
    use wire::peer::MAX_DISTANCES;

    struct Sink(mpsc::UnboundedSender<Order>, mpsc::UnboundedSender<Decided>);

    impl Actor for Sink {
        type Context = Context<Self>;
    }

    impl Handler<Ordered> for Sink {
        type Result = ();

        fn handle(&mut self, ordered: Ordered, _: &mut Self::Context) {
            self.0.send(ordered.order).unwrap();
        }
    }

    impl Handler<Decided> for Sink {
        type Result = ();

        fn handle(&mut self, decided: Decided, _: &mut Self::Context) {
            self.1.send(decided).unwrap();
        }
    }

    impl Handler<DrainsRead> for Sink {
        type Result = ();

        fn handle(&mut self, _: DrainsRead, _: &mut Self::Context) {}
    }

    fn policy(
        me: Prefix,
        settings: PlannerSettings,
        mode: Mode,
        sink: &actix::Addr<Sink>,
    ) -> actix::Addr<Policy> {
        let decided = vec![sink.clone().recipient()];
        let out = Outlets {
            orders: sink.clone().recipient(),
            drains: sink.clone().recipient(),
            decided,
        };
        let limits = LocalLimits {
            tunnels_to_dial: 10,
            max_accepted: 30,
            distances: MAX_DISTANCES,
        };
        Policy::new(PolicyDeps {
            me,
            settings,
            limits,
            mode,
            store: Store::new(Clock::boottime(), me),
            out,
        })
        .start()
    }

    #[track_caller]
    fn check(order: Option<Order>, slot: Slot, peer: Prefix) {
        let Some(Order::Open {
            slot: s,
            peer: p,
            reason,
            ..
        }) = order
        else {
            panic!("{order:?}")
        };
        assert_eq!((s, p, reason), (slot, peer, OpenReason::Bootstrap));
    }

    /// A node without tunnels that has just learnt of [`peer`], and has [`SLOT`] free.
    struct Lonely {
        policy: actix::Addr<Policy>,
        sampled: LinksSampled,
        ordered: mpsc::UnboundedReceiver<Order>,
        decided: mpsc::UnboundedReceiver<Decided>,
    }

    const SLOT: Slot = Slot::Dialling(3);

    fn peer() -> Prefix {
        Prefix::new(2, 16).unwrap()
    }

    fn lonely(mode: Mode) -> Lonely {
        let (orders, ordered) = mpsc::unbounded_channel();
        let (decisions, decided) = mpsc::unbounded_channel();
        let sink = Sink(orders, decisions).start();
        let settings = PlannerSettings {
            parameters: Parameters::default(),
            pinned: BTreeSet::new(),
            rule: Rule::Gain,
            seed: 1,
        };
        let policy = policy(Prefix::new(1, 16).unwrap(), settings, mode, &sink);
        let endpoints = vec!["udp:192.0.2.2:1194".parse().unwrap()];
        let at = Uptime::from_secs(100);
        let (confirmed_at, failed_at) = (Some(at), None);
        let candidate = Candidate {
            peer: peer(),
            endpoints,
            confirmed_at,
            failed_at,
            failures: 0,
            transit_cost: 0,
        };
        policy.do_send(PeersRead {
            at,
            candidates: vec![candidate],
        });
        let sampled = LinksSampled {
            at,
            links: Vec::new(),
            free_slots: vec![SLOT],
            was_reached: false,
        };
        policy.do_send(sampled.clone());
        Lonely {
            policy,
            sampled,
            ordered,
            decided,
        }
    }

    #[actix::test]
    async fn readings_become_orders_that_reach_both_receivers_once() {
        let Lonely {
            policy,
            sampled,
            mut ordered,
            mut decided,
        } = lonely(Mode::Act);
        let at = sampled.at;
        policy.do_send(sampled);
        check(ordered.recv().await, SLOT, peer());
        let reported = decided.recv().await.unwrap();
        assert_eq!(reported.decisions.len(), 1);
        policy
            .send(ProbesRead {
                at,
                probes: Vec::new(),
            })
            .await
            .unwrap();
        assert!(
            ordered.try_recv().is_err(),
            "the second reading must not repeat the order"
        );
    }

    #[actix::test]
    async fn in_watch_mode_orders_are_reported_and_not_given() {
        let Lonely {
            mut ordered,
            mut decided,
            ..
        } = lonely(Mode::Watch);
        assert_eq!(decided.recv().await.unwrap().decisions.len(), 1);
        assert!(ordered.try_recv().is_err());
    }
}
