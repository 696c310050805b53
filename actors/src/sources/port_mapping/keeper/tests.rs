//! Drives the keeper with a fake gateway that has one fault at a time.

mod fake_gateway;
mod fixture;
mod further;
mod removal;

use super::{super::ledger, requests::DYNAMIC_PORTS, *};
use crate::messages::MissingReason;
use fake_gateway::{Answer, Faults, none};
use fixture::{Fixture, block_on, fixture, fixture_of, mapping, row};

const OTHER: &str = "192.168.1.9";

const OURS: &str = "1194 192.168.1.2:1194 warren 7/16";

#[test]
fn the_internal_port_number_is_requested_first_with_a_lease_that_expires() {
    let fixture = fixture(vec![]);
    assert_eq!(fixture.check_lease(1, 1194).until, Uptime::from_secs(3601));
    assert_eq!(fixture.table(), [OURS]);
    fixture.check_lease(31, 1194);
    assert_eq!(fixture.gateway.requests.get(), 1);
    fixture.check_release(&[]);
}

#[test]
fn a_lease_is_renewed_when_half_of_it_has_passed() {
    let fixture = fixture(vec![]);
    fixture.check_lease(1, 1194);
    fixture.check_lease(1_800, 1194);
    assert_eq!(fixture.gateway.requests.get(), 1);
    assert_eq!(
        fixture.check_lease(1_802, 1194).until,
        Uptime::from_secs(5_402)
    );
    let shorter = Faults {
        max_lease: Duration::from_secs(120),
        ..none()
    };
    let fixture = fixture_of(&[Protocol::Upnp], vec![], shorter);
    assert_eq!(fixture.check_lease(1, 1194).until, Uptime::from_secs(121));
    fixture.check_lease(62, 1194);
    assert_eq!(fixture.gateway.requests.get(), 2);
}

#[test]
fn a_mapping_whose_description_was_replaced_is_ours_by_the_ledger() {
    for description in ["warren 7", "UPnP", ""] {
        let faults = Faults {
            description: Some(description),
            ..none()
        };
        let fixture = fixture_of(&[Protocol::Upnp], vec![], faults);
        for at_s in [1, 31, 2_000, 4_000] {
            fixture.check_lease(at_s, 1194);
            assert_eq!(fixture.table().len(), 1, "{:?}", fixture.table());
        }
        fixture.check_release(&[]);
    }
}

#[test]
fn if_the_port_is_taken_another_one_is_requested_and_no_mapping_is_overwritten() {
    for client in [OTHER, "192.168.1.2"] {
        let fixture = fixture(vec![row(1194, client, 80, "web")]);
        let port = fixture.round(1).leases[0].external.port();
        assert!(DYNAMIC_PORTS.contains(&port));
        fixture.check_lease(31, port);
        let others = format!("1194 {client}:80 web");
        let ours = format!("{port} 192.168.1.2:1194 warren 7/16");
        assert_eq!(fixture.table(), [&*others, &ours]);
        fixture.check_release(&[&others]);
    }
}

#[test]
fn a_mapping_that_an_operator_made_by_hand_is_not_touched() {
    let by_hand = "1194 192.168.1.2:1194 vpn";
    let fixture = fixture(vec![row(1194, "192.168.1.2", 1194, "vpn")]);
    assert_eq!(fixture.round(1).leases.len(), 1);
    assert_eq!(fixture.table()[0], by_hand);
    fixture.check_release(&[by_hand]);
}

#[test]
fn leases_that_never_expire_are_requested_if_others_are_rejected_by_any_of_three_codes() {
    for code in [402, 501, 725] {
        let faults = Faults {
            finite_lease: Some(Answer::Code(code)),
            ..none()
        };
        let fixture = fixture_of(&[Protocol::Upnp], vec![], faults);
        assert_eq!(fixture.check_lease(1, 1194).until, Uptime::from_secs(3_601));
        assert_eq!(fixture.recorded().len(), 1);
        fixture.check_release(&[]);
    }
}

#[test]
fn conflicts_that_the_table_does_not_show_lead_to_another_port() {
    for (count, answer) in [
        (3, Answer::Conflict),
        (2, Answer::Code(501)),
        (5, Answer::Code(402)),
    ] {
        let faults = Faults {
            first_requests: Some((count, answer)),
            ..none()
        };
        let fixture = fixture_of(&[Protocol::Upnp], vec![], faults);
        assert_eq!(fixture.round(1).leases.len(), 1);
        assert_eq!(fixture.recorded().len(), 1);
        fixture.check_release(&[]);
    }
}

#[test]
fn a_gateway_that_shows_nothing_is_believed_and_asked_again_after_four_minutes() {
    for (shows_nothing, is_silent) in [(true, false), (false, true)] {
        let faults = Faults {
            shows_nothing,
            is_silent,
            ..none()
        };
        let fixture = fixture_of(&[Protocol::Upnp], vec![], faults);
        fixture.check_lease(1, 1194);
        fixture.check_lease(31, 1194);
        // A mapping that is not shown at all may be lost; one request more shows that it is not.
        let requests = if shows_nothing { 2 } else { 1 };
        assert_eq!(fixture.gateway.requests.get(), requests);
        fixture.check_lease(61, 1194);
        assert_eq!(fixture.gateway.requests.get(), requests);
        fixture.check_lease(271, 1194);
        assert_eq!(fixture.gateway.requests.get(), requests + 1);
        fixture.check_release(&[]);
    }
}

#[test]
fn a_gateway_that_lost_its_table_or_changed_its_address_is_noticed_by_the_next_round() {
    let fixture = fixture(vec![]);
    fixture.check_lease(1, 1194);
    fixture.gateway.table.borrow_mut().clear();
    fixture.check_lease(31, 1194);
    assert_eq!(fixture.table(), [OURS]);
    let changed: IpAddr = "45.67.0.77".parse().unwrap();
    fixture
        .gateway
        .external
        .set(ExternalAddress::Known(changed));
    let round = fixture.round(61);
    assert_eq!(round.leases[0].external.ip(), changed);
    // The gateway remembers the mapping, but not when it expires.
    fixture.gateway.table.borrow_mut()[0].2.remaining = None;
    let requests = fixture.gateway.requests.get();
    fixture.round(91);
    assert_eq!(fixture.gateway.requests.get(), requests + 1);
}

#[test]
fn what_an_earlier_run_left_is_reused_or_removed() {
    let earlier = [
        row(5000, "192.168.1.2", 1194, "UPnP"),
        row(5003, OTHER, 1194, "UPnP"),
        row(5004, OTHER, 80, "web"),
    ];
    let fixture = fixture(earlier.to_vec());
    let recorded = [
        mapping(5003, OTHER),
        mapping(5004, OTHER),
        mapping(5000, "192.168.1.2"),
    ];
    ledger::write(&fixture.gateway.ledger, &recorded).unwrap();
    fixture.check_lease(1, 5000);
    // What another client has at such a port by now is not touched.
    let web = "5004 192.168.1.9:80 web";
    assert_eq!(fixture.table(), [web, "5000 192.168.1.2:1194 warren 7/16"]);
    assert_eq!(fixture.recorded().len(), 1);
    fixture.check_release(&[web]);
}

#[track_caller]
fn check_missing(fixture: &Fixture, expected: MissingReason) {
    let round = fixture.round(1);
    assert!(round.leases.is_empty());
    assert_eq!(round.failure.map(|error| error.reason()), Some(expected));
    assert_eq!(fixture.table(), [""; 0]);
}

#[test]
fn no_mapping_is_kept_at_a_gateway_that_the_internet_cannot_reach() {
    for protocol in [Protocol::Pcp, Protocol::NatPmp, Protocol::Upnp] {
        for (address, expected) in [
            ("10.0.0.1", MissingReason::DoubleNat),
            ("100.64.0.1", MissingReason::CarrierNat),
            ("0.0.0.0", MissingReason::NoExternalAddress),
            ("127.0.0.1", MissingReason::NoExternalAddress),
        ] {
            let fixture = fixture_of(&[protocol], vec![], none());
            let address = ExternalAddress::Known(address.parse().unwrap());
            fixture.gateway.external.set(address);
            check_missing(&fixture, expected);
            assert_eq!(fixture.recorded(), []);
        }
    }
    let fixture = fixture(vec![]);
    fixture.gateway.external.set(ExternalAddress::Missing);
    check_missing(&fixture, MissingReason::NoExternalAddress);
}

#[test]
fn the_reason_of_a_gateway_that_maps_nothing_is_reported() {
    check_missing(&fixture_of(&[], vec![], none()), MissingReason::NoAnswer);
    let rejecting = |answer| Faults {
        first_requests: Some((usize::MAX, answer)),
        ..none()
    };
    for (answer, expected) in [
        (Answer::NotAuthorized, MissingReason::Rejected),
        (Answer::Conflict, MissingReason::NoFreePort),
        (Answer::Code(501), MissingReason::NoFreePort),
    ] {
        let fixture = fixture_of(&[Protocol::Upnp], vec![], rejecting(answer));
        check_missing(&fixture, expected);
    }
}

#[test]
fn a_lease_of_no_duration_is_none() {
    let faults = Faults {
        max_lease: Duration::ZERO,
        ..none()
    };
    let round = fixture_of(&[Protocol::Pcp], vec![], faults).round(1);
    assert!(round.leases.is_empty());
    let reason = round.failure.map(|error| error.reason());
    assert_eq!(reason, Some(MissingReason::Rejected));
}

#[test]
fn each_protocol_alone_maps_the_port_and_pcp_keeps_its_nonce() {
    for protocol in [Protocol::Pcp, Protocol::NatPmp] {
        let faults = Faults {
            is_silent: true,
            ..none()
        };
        let fixture = fixture_of(&[protocol], vec![], faults);
        fixture.check_lease(1, 1194);
        let first = fixture.recorded();
        assert_eq!(first[0].nonce.is_some(), protocol == Protocol::Pcp);
        assert_eq!(fixture.searches.get(), 1);
        // Each round renews the mapping; nothing else shows whether the gateway still has it.
        fixture.gateway.table.borrow_mut().clear();
        fixture.check_lease(31, 1194);
        assert_eq!(fixture.recorded(), first);
        assert_eq!(fixture.table().len(), 1);
        fixture.check_release(&[]);
    }
}
