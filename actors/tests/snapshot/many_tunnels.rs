//! The readings of a node with many tunnels.

use super::*;

/// Sends the readings of a node with that many dialled tunnels, each with a client and a Babel neighbour.
pub fn send_tunnels(telemetry: &Addr<Telemetry>, at: Uptime, count: u16) {
    let slots: Vec<_> = (0..count).map(Slot::Dialling).collect();
    let peer = |slot: &Slot| {
        prefix(match slot {
            Slot::Dialling(number) => 100 + u32::from(*number),
            Slot::Accepting(..) => 99,
        })
    };
    let link = |slot: &Slot| LinkReading {
        tunnel: TunnelReading {
            peer: peer(slot),
            ..tunnel(*slot, 9, at)
        },
        counters: LinkCounters::default(),
    };
    telemetry.do_send(LinksSampled {
        at,
        links: slots.iter().map(link).collect(),
        free_slots: vec![],
        was_reached: true,
    });
    let neighbour = |slot: &Slot| Neighbour {
        peer: peer(slot),
        ..neighbour(*slot, 9)
    };
    let table = BabelTable {
        neighbours: slots.iter().map(neighbour).collect(),
        ..table()
    };
    telemetry.do_send(RoutesRead {
        at,
        table: Some(table.into()),
        exit_routes: exit_routes(),
        claims: Arc::default(),
    });
    let probe = |slot: &Slot| probe(*slot);
    telemetry.do_send(ProbesRead {
        at,
        probes: slots.iter().map(probe).collect(),
        totals: [(Role::Dialled, probe_totals())].into(),
        asked_at: None,
    });
    telemetry.do_send(ProcessesRead {
        at,
        processes: slots.iter().map(|slot| child(&slot.to_string())).collect(),
        ..ProcessesRead::default()
    });
}
