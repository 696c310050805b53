//! Records the readings of links, routes, processes and the registry in the snapshot.

use super::{
    counts::increment,
    records::{REPAIRS_KEPT, SHARED_KEYS_KEPT, Served},
    snapshot::{RESTARTS_KEPT, Snapshot},
};
use crate::live_settings::{LiveSettings, Mode};
use crate::messages::{
    HostRepaired, KeyShared, LinksSampled, ProcessesRead, RegistryContacted, RoutesRead,
};
use policies::{
    names::{Prefix, Slot},
    observation::INFINITY,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use wire::endpoints::class_of;

impl Snapshot {
    /// Records a reading of all links, and the kinds of endpoint at which peers have connected to this node.
    pub fn on_links_sampled(&mut self, reading: LinksSampled) {
        let at = reading.at;
        self.read_times.links = Some(at);
        self.rows.on_links_sampled(reading);
        for row in self.rows.live().filter(|row| row.is_up()) {
            if let (Slot::Accepting(transport, _), Some(client)) =
                (row.tunnel.slot, row.tunnel.endpoint)
            {
                let is_private = class_of(client.address.ip()).is_some();
                self.reached.insert((transport, is_private), at);
            }
        }
    }

    /// Records a reading of all processes, and the time of each restart of babeld and of the servers.
    pub fn on_processes_read(&mut self, reading: ProcessesRead) {
        let is_lasting = |name: &str| name == "babeld" || name.starts_with("server-");
        for process in reading.processes.iter().filter(|now| is_lasting(&now.name)) {
            let before = self.processes.processes.iter();
            let mut before = before.filter(|before| before.name == process.name);
            if before
                .next()
                .is_some_and(|before| before.starts > 0 && before.starts < process.starts)
            {
                let restarts = Arc::make_mut(&mut self.restarts);
                let times = restarts.entry(process.name.clone()).or_default();
                times.push_back(reading.at);
                while times.len() > RESTARTS_KEPT {
                    times.pop_front();
                }
            }
        }
        self.read_times.processes = Some(reading.at);
        Arc::make_mut(&mut self.children).add_reading(&reading);
        self.processes = Arc::new(reading);
    }

    /// Records whether decisions are only logged, and which changed keys need a restart.
    pub fn on_settings_changed(&mut self, settings: &LiveSettings) {
        Arc::make_mut(&mut self.identity).dry_run = settings.mode == Mode::Watch;
        self.pending_restart = Arc::new(settings.pending_restart.clone());
    }

    /// Records a reading of babeld's tables. If babeld did not answer, the last tables are kept.
    pub fn on_routes_read(&mut self, reading: RoutesRead) {
        self.is_babel_answering = reading.table.is_some();
        let Some(table) = reading.table else {
            return;
        };
        if *self.exit_routes != reading.exit_routes {
            self.exit_routes = Arc::new(reading.exit_routes);
        }
        self.read_times.routes = Some(reading.at);
        Arc::make_mut(&mut self.route_history).on_table(reading.at, &table);
        let mut served: BTreeMap<Slot, (BTreeSet<Prefix>, u64)> = BTreeMap::new();
        let (mut known, mut reachable) = (BTreeSet::new(), BTreeSet::new());
        let (mut installed, mut unreachable) = (0, 0);
        for route in &table.routes {
            let (nodes, routes) = served.entry(route.slot).or_default();
            *routes += 1;
            if route.metric != INFINITY {
                known.insert(route.node);
            }
            match (route.installed, route.metric) {
                (false, _) => {}
                (true, INFINITY) => unreachable += 1,
                (true, _) => {
                    installed += 1;
                    nodes.insert(route.node);
                    reachable.insert(route.node);
                }
            }
        }
        let count = |(slot, (nodes, routes)): (Slot, (BTreeSet<Prefix>, u64))| {
            (
                slot,
                Served {
                    nodes: length(nodes.len()),
                    routes,
                },
            )
        };
        self.served = Arc::new(served.into_iter().map(count).collect());
        self.nodes_known = length(known.len());
        self.nodes_reachable = length(reachable.len());
        (self.routes_installed, self.routes_unreachable) = (installed, unreachable);
        self.babel = Some(table);
    }

    /// Counts a call to the registry, and records its result.
    pub fn on_registry_contacted(&mut self, fact: RegistryContacted) {
        let counts = Arc::make_mut(&mut self.counts);
        let registry = Arc::make_mut(&mut self.registry);
        registry.called_at = Some(fact.at);
        if fact.failure.is_none() {
            registry.answered_at = Some(fact.at);
            registry.failing_since = None;
            registry.clock_offset_s = fact.clock_offset_s;
            counts.registry_answered = counts.registry_answered.saturating_add(1);
        } else {
            registry.failing_since.get_or_insert(fact.at);
            counts.registry_failed = counts.registry_failed.saturating_add(1);
        }
        registry.failure = fact.failure;
        registry.is_certificate_rejected = fact.is_certificate_rejected;
        registry.hidden_nodes = fact.hidden_nodes.unwrap_or(0);
        registry.listed_peers = fact.listed_peers;
        registry.other_machine = fact.other_machine;
    }
}

impl Snapshot {
    /// Records that two machines have dialled this node with one key.
    pub fn on_key_shared(&mut self, fact: &KeyShared) {
        let nodes = Arc::make_mut(&mut self.shared_keys);
        nodes.insert(fact.peer, (fact.at, fact.addresses));
        while nodes.len() > SHARED_KEYS_KEPT {
            nodes.pop_first();
        }
    }

    /// Counts what was restored on the host, and keeps the last moments and objects.
    pub fn on_host_repaired(&mut self, fact: HostRepaired) {
        let counts = Arc::make_mut(&mut self.counts);
        fact.repairs
            .iter()
            .for_each(|repair| increment(&mut counts.host_repairs, repair.kind));
        let last = &mut Arc::make_mut(&mut self.host).repairs;
        last.push_back((fact.at, fact.repairs));
        while last.len() > REPAIRS_KEPT {
            last.pop_front();
        }
    }
}

fn length(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
