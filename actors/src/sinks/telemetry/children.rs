//! Sums what child processes did and used, over those that run and those that have exited.
//!
//! A reading contains the processes that run now, and the counters of a process go with it. The sums by kind never fall.

use crate::messages::ProcessesRead;
use os::process::{Exits, ProcessKind};
use std::{collections::BTreeMap, time::Duration};

/// The sums over all processes of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChildTotals {
    /// Number of processes that run and are ready.
    pub ready: u64,
    /// Number of processes that still use certificates or keys that have been replaced.
    pub stale: u64,
    /// Number of starts, the first included.
    pub starts: u64,
    /// Number of exits.
    pub exits: Exits,
    /// CPU time; what a process used between the last reading and its exit is missing.
    pub cpu: Duration,
    /// Resident memory of the processes that run.
    pub resident_bytes: u64,
    /// Number of datagrams that were dropped because OpenVPN did not read its UDP socket in time.
    pub udp_dropped: u64,
}

/// The sums of all kinds of processes, and of the daemon's own netlink sockets.
#[derive(Clone, Debug)]
pub struct Children {
    totals: BTreeMap<ProcessKind, ChildTotals>,
    /// Number of messages that were dropped because the daemon did not read its netlink sockets in time.
    pub netlink_dropped: u64,
    /// CPU time of each process at the last reading, by pid.
    cpu: BTreeMap<u32, Duration>,
    /// Drops of each UDP socket at the last reading, by inode.
    udp: BTreeMap<u64, u64>,
    /// Drops of each netlink socket at the last reading, by inode.
    netlink: BTreeMap<u64, u64>,
}

impl Default for Children {
    fn default() -> Self {
        Self {
            totals: ProcessKind::ALL
                .map(|kind| (kind, ChildTotals::default()))
                .into(),
            netlink_dropped: 0,
            cpu: BTreeMap::new(),
            udp: BTreeMap::new(),
            netlink: BTreeMap::new(),
        }
    }
}

impl Children {
    /// The sums of each kind.
    pub fn totals(&self) -> impl Iterator<Item = (ProcessKind, &ChildTotals)> {
        self.totals.iter().map(|(kind, totals)| (*kind, totals))
    }

    /// Adds a reading of all processes and sockets.
    pub(super) fn add_reading(&mut self, reading: &ProcessesRead) {
        self.add_processes(reading);
        if let Some(sockets) = &reading.udp_drops {
            let drops = sockets.iter().map(|(inode, (_, drops))| (*inode, *drops));
            for (inode, increase) in increases(&mut self.udp, drops.collect()) {
                let kind = sockets.get(&inode).map(|(kind, _)| *kind);
                if let Some(total) = kind.and_then(|kind| self.totals.get_mut(&kind)) {
                    total.udp_dropped = total.udp_dropped.saturating_add(increase);
                }
            }
        }
        if let Some(drops) = &reading.netlink_drops {
            for (_, increase) in increases(&mut self.netlink, drops.clone()) {
                self.netlink_dropped = self.netlink_dropped.saturating_add(increase);
            }
        }
    }

    fn add_processes(&mut self, reading: &ProcessesRead) {
        for total in self.totals.values_mut() {
            *total = ChildTotals {
                cpu: total.cpu,
                udp_dropped: total.udp_dropped,
                ..ChildTotals::default()
            };
        }
        let before = std::mem::take(&mut self.cpu);
        for process in &reading.processes {
            let kind = ProcessKind::of(&process.name);
            let total = self.totals.entry(kind).or_default();
            total.starts = total.starts.saturating_add(u64::from(process.starts));
            total.exits.add(process.exits);
            total.ready += u64::from(process.pid.is_some() && process.ready);
            total.stale += u64::from(process.stale);
            let Some(pid) = process.pid else { continue };
            let seen = before.get(&pid).copied().unwrap_or_default();
            let Some(usage) = reading.usage.get(&pid) else {
                self.cpu.insert(pid, seen);
                continue;
            };
            // A smaller figure than before is that of a new process with the same pid.
            let increase = usage.cpu.checked_sub(seen).unwrap_or(usage.cpu);
            total.cpu = total.cpu.saturating_add(increase);
            total.resident_bytes = total.resident_bytes.saturating_add(usage.resident_bytes);
            self.cpu.insert(pid, usage.cpu);
        }
        let (starts, exits) = reading.closed_clients;
        let clients = self.totals.entry(ProcessKind::Client).or_default();
        clients.starts = clients.starts.saturating_add(starts);
        clients.exits.add(exits);
    }
}

/// Replaces the counters of the last reading, and returns how much each has grown. What is new has grown from 0.
fn increases(seen: &mut BTreeMap<u64, u64>, reading: BTreeMap<u64, u64>) -> Vec<(u64, u64)> {
    let before = std::mem::replace(seen, reading);
    let increase = |(inode, count): (&u64, &u64)| {
        let earlier = before.get(inode).copied().unwrap_or_default();
        (*inode, count.checked_sub(earlier).unwrap_or(*count))
    };
    seen.iter().map(increase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use os::{process::ProcessReading, process_usage::ProcessUsage};
    use policies::{names::Transport, units::Uptime};

    const SERVER: ProcessKind = ProcessKind::Server(Transport::Udp);

    /// A reading of one client with this pid, start count, and CPU time in milliseconds.
    fn client(pid: u32, starts: u32, unexpected: u64, cpu_ms: u64) -> ProcessesRead {
        let exits = Exits {
            unexpected,
            ..Exits::default()
        };
        let usage = ProcessUsage {
            cpu: Duration::from_millis(cpu_ms),
            resident_bytes: 1_000,
        };
        ProcessesRead {
            at: Uptime::default(),
            processes: vec![ProcessReading {
                name: "wrn0".into(),
                pid: Some(pid),
                ready: true,
                starts,
                exits,
                stale: false,
                failure: None,
            }],
            usage: [(pid, usage)].into(),
            ..ProcessesRead::default()
        }
    }

    fn of(children: &Children, kind: ProcessKind) -> ChildTotals {
        children.totals[&kind]
    }

    #[test]
    fn the_counters_of_a_closed_tunnel_stay_in_the_sums() {
        let mut children = Children::default();
        children.add_reading(&client(40, 1, 0, 300));
        children.add_reading(&client(40, 1, 0, 500));
        // The process was killed and started again, with the figures of a new process.
        children.add_reading(&client(41, 2, 1, 200));
        let exits = Exits {
            ordered: 1,
            unexpected: 1,
            ..Exits::default()
        };
        children.add_reading(&ProcessesRead {
            closed_clients: (2, exits),
            ..ProcessesRead::default()
        });
        let expected = ChildTotals {
            starts: 2,
            exits,
            cpu: Duration::from_millis(700),
            ..ChildTotals::default()
        };
        assert_eq!(of(&children, ProcessKind::Client), expected);
        assert_eq!(of(&children, ProcessKind::Babeld), ChildTotals::default());
    }

    #[test]
    fn a_process_whose_figures_could_not_be_read_once_is_not_counted_twice() {
        let mut children = Children::default();
        children.add_reading(&client(40, 1, 0, 300));
        children.add_reading(&ProcessesRead {
            usage: BTreeMap::new(),
            ..client(40, 1, 0, 0)
        });
        children.add_reading(&client(40, 1, 0, 400));
        let cpu = of(&children, ProcessKind::Client).cpu;
        assert_eq!(cpu, Duration::from_millis(400));
    }

    #[test]
    fn the_drops_of_closed_sockets_stay_in_the_sums() {
        let mut children = Children::default();
        let drops = |sockets: &[(u64, ProcessKind, u64)]| ProcessesRead {
            udp_drops: Some(
                sockets
                    .iter()
                    .map(|(inode, kind, drops)| (*inode, (*kind, *drops)))
                    .collect(),
            ),
            netlink_drops: Some([(7, 3)].into()),
            ..ProcessesRead::default()
        };
        children.add_reading(&drops(&[(1, SERVER, 5), (2, ProcessKind::Client, 10)]));
        children.add_reading(&ProcessesRead::default());
        children.add_reading(&drops(&[(1, SERVER, 9), (3, ProcessKind::Client, 4)]));
        assert_eq!(of(&children, SERVER).udp_dropped, 9);
        assert_eq!(of(&children, ProcessKind::Client).udp_dropped, 14);
        assert_eq!(children.netlink_dropped, 3);
    }
}
