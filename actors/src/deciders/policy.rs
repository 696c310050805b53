//! Passes the latest readings to the planner and to the checks of routes, and their orders to the tunnels actor.
//!
//! It decides nothing itself; all rules are in `policies::planner` and `policies::route_checks`.

mod operator;
mod route_checks;

use crate::live_settings::{LiveSettings, Mode};
use crate::mailboxes::offer;
use crate::messages::{
    CandidatesMeasured, Decided, DocumentsChanged, DrainsRead, LinksSampled, Ordered,
    OriginsClaimed, PeersRead, ProbesRead, RoutesRead, RoutesSuspected, SettingsChanged,
    log_decision,
};
use crate::operator::SharedPins;
use crate::store::{SharedRouteView, Store, TunnelTable};
use actix::{Actor, Context, Handler, Recipient};
use membership::documents::DocumentStore;
use os::clock::Clock;
use policies::{
    names::Prefix,
    observation::Observation,
    parameters::Parameters,
    planner::{Planner, PlannerSettings},
    route_checks::{Members, RouteChecks},
    units::Uptime,
};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

/// Age from which babeld's table is ignored, since babeld hangs or does not run.
const MAX_TABLE_AGE: Duration = Duration::from_secs(15);

/// Interval at which the route view for other nodes is renewed.
const ROUTE_VIEW_INTERVAL: Duration = Duration::from_secs(10);

/// The dependencies of the policy actor.
#[derive(Clone)]
pub struct PolicyDeps {
    /// The prefix of this node.
    pub me: Prefix,
    /// The parameters that hold until a network document is known.
    pub parameters: Parameters,
    /// The seed of all random choices.
    pub seed: u64,
    /// The shared state that outlives the actor.
    pub store: Store,
    /// The receivers of orders and decisions.
    pub out: Outlets,
}

/// The actor that runs the planner.
pub struct Policy {
    planner: Planner,
    /// The latest reading of each kind.
    observation: Observation,
    /// Whether a peer had connected to this node by the latest reading of the links; `None` before the first one.
    was_reached: Option<bool>,
    /// When babeld's table was last read.
    table_read_at: Uptime,
    out: Outlets,
    documents: DocumentStore,
    settings: Arc<LiveSettings>,
    route_view: SharedRouteView,
    route_checks: Rc<RefCell<RouteChecks>>,
    members: Rc<Cell<Option<Members>>>,
    tunnels: Rc<RefCell<TunnelTable>>,
    pins: SharedPins,
    clock: Clock,
    /// When the route view was last published.
    view_published_at: Option<Uptime>,
}

/// The receivers of orders and decisions.
#[derive(Clone)]
pub struct Outlets {
    /// Receives the orders, and carries them out.
    pub orders: Recipient<Ordered>,
    /// Receives the state of accepted tunnels' drains, which rolling restarts wait for.
    pub drains: Recipient<DrainsRead>,
    /// The receivers of decisions and verdicts.
    pub decided: Vec<Recipient<Decided>>,
    /// Counts false routes.
    pub suspected: Recipient<RoutesSuspected>,
}

impl Policy {
    /// Builds the actor with a planner that has no history.
    pub fn new(deps: PolicyDeps) -> Self {
        let PolicyDeps {
            me,
            parameters,
            seed,
            store,
            out,
        } = deps;
        let settings = store.settings.load_full();
        let planner_settings = PlannerSettings {
            parameters: settings.limits.apply_to(parameters),
            pinned: settings.pinned.clone(),
            rule: settings.rule,
            seed,
        };
        let mut policy = Self {
            planner: Planner::new(me, planner_settings),
            observation: Observation::default(),
            was_reached: None,
            table_read_at: Uptime::default(),
            out,
            documents: store.documents,
            settings,
            route_view: store.route_view,
            route_checks: store.route_checks,
            members: store.members,
            tunnels: store.tunnels,
            pins: store.pins,
            clock: store.clock,
            view_published_at: None,
        };
        policy.apply_parameters();
        policy.planner.set_pins(policy.pins.load().as_ref().clone());
        policy
    }

    /// Gives the planner the network's parameters, reduced to the local limits.
    fn apply_parameters(&mut self) {
        if let Some(network) = self.documents.load().network() {
            let limits = self.settings.limits;
            self.planner
                .set_parameters(limits.apply_to(network.parameters()));
        }
    }

    fn publish_route_view_if_due(&mut self, at: Uptime) {
        if self
            .view_published_at
            .is_none_or(|published_at| at.since(published_at) >= ROUTE_VIEW_INTERVAL)
        {
            self.view_published_at = Some(at);
            self.route_view.store(Arc::new(
                self.planner
                    .route_view(&self.observation, self.settings.limits.max_distances),
            ));
        }
    }

    /// Lets the planner decide on the latest readings, and sends its orders. Without a reading of the links nothing
    /// is decided.
    fn plan(&mut self) {
        let Some(was_reached) = self.was_reached else {
            return;
        };
        let at = self.observation.at;
        if at.since(self.table_read_at) > MAX_TABLE_AGE {
            self.observation.babel = None;
        }
        self.publish_route_view_if_due(at);
        let plan = self.planner.plan(&self.observation, was_reached);
        for decision in &plan.decisions {
            if self.settings.mode == Mode::Watch {
                tracing::info!(order = ?decision.order, terms = decision.terms, "dry run: this order is not carried out");
                continue;
            }
            log_decision(decision);
            self.out.orders.do_send(Ordered {
                order: decision.order.clone(),
                about: self.observation.judged_by(&decision.order),
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
        self.observation.at = reading.at;
        self.observation.links = reading.links;
        self.observation.free_slots = reading.free_slots;
        self.observation.punched = self.tunnels.borrow().punched.values().copied().collect();
        self.was_reached = Some(reading.was_reached);
        self.plan();
    }
}

impl Handler<RoutesRead> for Policy {
    type Result = ();

    fn handle(&mut self, reading: RoutesRead, _: &mut Self::Context) {
        self.check_routes(&reading);
        self.observation.babel = reading.table;
        self.table_read_at = reading.at;
    }
}

impl Handler<OriginsClaimed> for Policy {
    type Result = ();

    fn handle(&mut self, claimed: OriginsClaimed, _: &mut Self::Context) {
        self.check_packet(&claimed);
    }
}

impl Handler<ProbesRead> for Policy {
    type Result = ();

    fn handle(&mut self, reading: ProbesRead, _: &mut Self::Context) {
        self.observation.probes = reading.probes;
    }
}

impl Handler<PeersRead> for Policy {
    type Result = ();

    fn handle(&mut self, reading: PeersRead, _: &mut Self::Context) {
        self.observation.candidates = reading.candidates;
        self.leave_out_liars();
        // New peers are dialled at once, on the last reading of the links.
        self.plan();
    }
}

impl Handler<DocumentsChanged> for Policy {
    type Result = ();

    fn handle(&mut self, _: DocumentsChanged, _: &mut Self::Context) {
        self.apply_parameters();
    }
}

impl Handler<SettingsChanged> for Policy {
    type Result = ();

    fn handle(&mut self, SettingsChanged { settings }: SettingsChanged, _: &mut Self::Context) {
        self.planner
            .set_choice(settings.rule, settings.pinned.clone());
        self.settings = settings;
        self.apply_parameters();
    }
}

impl Handler<CandidatesMeasured> for Policy {
    type Result = ();

    fn handle(&mut self, measured: CandidatesMeasured, _: &mut Self::Context) {
        self.observation.candidate_rtts = measured.candidate_rtts;
        self.observation.views = measured.views;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policies::{
        names::{Prefix, Slot},
        observation::Candidate,
        orders::{OpenReason, Order},
    };
    use tokio::sync::mpsc;

    /// Forwards the orders and decisions that it receives to the test.
    struct FakeReceiver(mpsc::UnboundedSender<Order>, mpsc::UnboundedSender<Decided>);

    impl Actor for FakeReceiver {
        type Context = Context<Self>;
    }

    impl Handler<Ordered> for FakeReceiver {
        type Result = ();

        fn handle(&mut self, ordered: Ordered, _: &mut Self::Context) {
            self.0.send(ordered.order).unwrap();
        }
    }

    impl Handler<Decided> for FakeReceiver {
        type Result = ();

        fn handle(&mut self, decided: Decided, _: &mut Self::Context) {
            self.1.send(decided).unwrap();
        }
    }

    impl Handler<DrainsRead> for FakeReceiver {
        type Result = ();

        fn handle(&mut self, _: DrainsRead, _: &mut Self::Context) {}
    }

    impl Handler<RoutesSuspected> for FakeReceiver {
        type Result = ();

        fn handle(&mut self, _: RoutesSuspected, _: &mut Self::Context) {}
    }

    fn settings(mode: Mode) -> LiveSettings {
        LiveSettings {
            mode,
            ..LiveSettings::default()
        }
    }

    fn start_policy(
        me: Prefix,
        mode: Mode,
        receiver: &actix::Addr<FakeReceiver>,
    ) -> actix::Addr<Policy> {
        let out = Outlets {
            orders: receiver.clone().recipient(),
            drains: receiver.clone().recipient(),
            decided: vec![receiver.clone().recipient()],
            suspected: receiver.clone().recipient(),
        };
        let store = Store::new(Clock::boottime(), me);
        store.settings.store(Arc::new(settings(mode)));
        Policy::new(PolicyDeps {
            me,
            parameters: Parameters::default(),
            seed: 1,
            store,
            out,
        })
        .start()
    }

    #[track_caller]
    fn check_opens(order: Option<Order>, slot: Slot, peer: Prefix) {
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
    struct LonelyNode {
        policy: actix::Addr<Policy>,
        sampled: LinksSampled,
        ordered: mpsc::UnboundedReceiver<Order>,
        decided: mpsc::UnboundedReceiver<Decided>,
    }

    const SLOT: Slot = Slot::Dialling(3);

    fn peer() -> Prefix {
        Prefix::new(2, 16).unwrap()
    }

    fn other_peer() -> Prefix {
        Prefix::new(3, 16).unwrap()
    }

    fn candidate(peer: Prefix, confirmed_at: Uptime) -> Candidate {
        Candidate {
            peer,
            endpoints: vec!["udp:192.0.2.2:1194".parse().unwrap()],
            on_lan: 0,
            confirmed_at: Some(confirmed_at),
            failed_at: None,
            failures: 0,
            transit_cost: 0,
        }
    }

    fn start_lonely_node(mode: Mode) -> LonelyNode {
        let (orders, ordered) = mpsc::unbounded_channel();
        let (decisions, decided) = mpsc::unbounded_channel();
        let receiver = FakeReceiver(orders, decisions).start();
        let policy = start_policy(Prefix::new(1, 16).unwrap(), mode, &receiver);
        let at = Uptime::from_secs(100);
        policy.do_send(PeersRead {
            at,
            candidates: vec![candidate(peer(), at)],
            unused: Vec::new(),
            narrow: Vec::new(),
        });
        let sampled = LinksSampled {
            at,
            links: Vec::new(),
            free_slots: vec![SLOT],
            was_reached: false,
        };
        policy.do_send(sampled.clone());
        LonelyNode {
            policy,
            sampled,
            ordered,
            decided,
        }
    }

    #[actix::test]
    async fn readings_become_orders_that_reach_both_receivers_once() {
        let LonelyNode {
            policy,
            sampled,
            mut ordered,
            mut decided,
        } = start_lonely_node(Mode::Act);
        let at = sampled.at;
        policy.do_send(sampled);
        check_opens(ordered.recv().await, SLOT, peer());
        let reported = decided.recv().await.unwrap();
        assert_eq!(reported.decisions.len(), 1);
        policy
            .send(ProbesRead {
                at,
                probes: Vec::new(),
                totals: Default::default(),
                asked_at: None,
            })
            .await
            .unwrap();
        assert!(
            ordered.try_recv().is_err(),
            "the second reading must not repeat the order"
        );
    }

    #[actix::test]
    async fn new_peers_are_dialled_without_another_reading_of_the_links() {
        let LonelyNode {
            policy,
            sampled,
            mut ordered,
            decided: _decided,
        } = start_lonely_node(Mode::Act);
        check_opens(ordered.recv().await, SLOT, peer());
        let free_slot = Slot::Dialling(4);
        let free_slots = vec![free_slot];
        policy.do_send(LinksSampled {
            free_slots,
            ..sampled.clone()
        });
        let candidates = [peer(), other_peer()].map(|peer| candidate(peer, sampled.at));
        policy.do_send(PeersRead {
            at: sampled.at,
            candidates: candidates.to_vec(),
            unused: Vec::new(),
            narrow: Vec::new(),
        });
        check_opens(ordered.recv().await, free_slot, other_peer());
    }

    #[actix::test]
    async fn in_watch_mode_decisions_are_reported_and_no_order_is_sent() {
        let LonelyNode {
            mut ordered,
            mut decided,
            ..
        } = start_lonely_node(Mode::Watch);
        assert_eq!(decided.recv().await.unwrap().decisions.len(), 1);
        assert!(ordered.try_recv().is_err());
    }

    #[actix::test]
    async fn a_reload_ends_the_watch_mode_of_a_running_node() {
        let LonelyNode {
            policy,
            mut sampled,
            mut ordered,
            decided: _decided,
        } = start_lonely_node(Mode::Watch);
        let settings = Arc::new(settings(Mode::Act));
        policy.send(SettingsChanged { settings }).await.unwrap();
        // The dial that was only logged counts as tried for a while.
        sampled.at = Uptime::from_secs(4_000);
        policy.do_send(sampled);
        check_opens(ordered.recv().await, SLOT, peer());
    }
}
