//! Removes mappings that are not wanted any more, and all at the end.

use super::*;

#[test]
fn a_mapping_by_a_protocol_that_is_not_used_any_more_is_removed_by_that_protocol() {
    let protocols = [Protocol::Pcp, Protocol::Upnp];
    let fixture = fixture_of(&protocols, vec![row(5000, "192.168.1.2", 1194, "")], none());
    ledger::write(&fixture.gateway.ledger, &[mapping(5000, "192.168.1.2")]).unwrap();
    let lease = fixture.check_lease(1, 5000);
    assert_eq!(lease.external.port(), 5000);
    assert_eq!(fixture.table().len(), 1);
    fixture.check_release(&[]);
}

#[test]
fn a_release_ends_a_round_that_waits_for_the_gateway() {
    let fixture = fixture(vec![]);
    fixture.check_lease(1, 1194);
    fixture.gateway.hangs.set(true);
    let searches = fixture.searches.get();
    let (round, released) = block_on(async {
        let round = fixture.keeper.update_mappings(Uptime::from_secs(31));
        tokio::join!(round, fixture.keeper.release())
    });
    released.unwrap();
    assert!(round.leases.is_empty());
    assert_eq!(fixture.table(), [""; 0]);
    assert_eq!(fixture.searches.get(), searches, "the gateway was known");
}

#[test]
fn a_mapping_to_an_earlier_address_is_forgotten_after_an_hour_and_the_new_one_stays() {
    for protocol in [Protocol::Pcp, Protocol::NatPmp] {
        let faults = Faults {
            is_silent: true,
            ..none()
        };
        let fixture = fixture_of(&[protocol], vec![row(5000, OTHER, 1194, "")], faults);
        let earlier = Mapping {
            protocol,
            ..mapping(5000, OTHER)
        };
        ledger::write(&fixture.gateway.ledger, &[earlier]).unwrap();
        for at_s in [1, 200, 3_590] {
            fixture.check_lease(at_s, 1194);
            assert!(fixture.recorded().contains(&earlier));
            assert_eq!(fixture.table().len(), 2, "{:?}", fixture.table());
        }
        fixture.check_lease(3_720, 1194);
        assert!(!fixture.recorded().contains(&earlier));
        fixture.check_release(&["5000 192.168.1.9:1194 "]);
    }
}
