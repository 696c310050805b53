//! Further ports that lead to the same server.

use super::{fixture::EXTERNAL, *};

const FURTHER: &str = "443 192.168.1.2:443 warren 7/16";

/// A fixture whose host has a further port.
fn fixture_with_further(table: Vec<fake_gateway::Row>) -> Fixture {
    let mut fixture = fixture(table);
    fixture.keeper.settings.further = vec![(Transport::Udp, 443)];
    fixture
}

/// Runs a round, and requires that it ends without failure; returns the external ports.
#[track_caller]
fn leased_ports(fixture: &Fixture, at_s: u64) -> Vec<u16> {
    let round = fixture.round(at_s);
    assert!(round.failure.is_none(), "{:?}", round.failure);
    let ports = round.leases.iter().map(|lease| lease.external.port());
    ports.collect()
}

#[test]
fn a_further_port_is_mapped_to_its_own_number() {
    let fixture = fixture_with_further(vec![]);
    assert_eq!(leased_ports(&fixture, 1), [443, 1194]);
    assert_eq!(fixture.table(), [OURS, FURTHER]);
    fixture.check_release(&[]);
}

#[test]
fn a_further_port_that_is_taken_is_not_replaced_and_is_requested_again_after_a_quarter_of_an_hour()
{
    let fixture = fixture_with_further(vec![row(443, OTHER, 443, "web")]);
    assert_eq!(leased_ports(&fixture, 1), [1194]);
    let requests = fixture.gateway.requests.get();
    fixture
        .gateway
        .table
        .borrow_mut()
        .retain(|row| row.1 != 443);
    assert_eq!(leased_ports(&fixture, 890), [1194]);
    assert_eq!(fixture.gateway.requests.get(), requests);
    assert_eq!(leased_ports(&fixture, 910), [443, 1194]);
    fixture.check_release(&[]);
}

#[test]
fn a_lost_first_port_makes_the_further_ones_due_again() {
    let fixture = fixture_with_further(vec![row(443, OTHER, 443, "web")]);
    assert_eq!(leased_ports(&fixture, 1), [1194]);
    fixture.gateway.external.set(ExternalAddress::Missing);
    assert!(fixture.round(21).failure.is_some());
    fixture.gateway.table.borrow_mut().clear();
    let address = EXTERNAL.parse().unwrap();
    fixture
        .gateway
        .external
        .set(ExternalAddress::Known(address));
    assert_eq!(leased_ports(&fixture, 41), [443, 1194]);
}
