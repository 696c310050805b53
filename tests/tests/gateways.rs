//! A node behind a router that maps ports carelessly, or by one protocol only, gets its ports mapped and leaves nothing behind.

use anyhow::Result;
use lab::{is_skipped_without_root, measure::gateways::measure};

/// One fault of each kind; `warren-lab measure gateways` measures all.
const FAULTS: [&str; 10] = [
    "description-replaced",
    "foreign-ampersand",
    "service-dead-first",
    "lease-rejected-402",
    "version-2-only",
    "body-length-too-large",
    "conflict-501",
    "list-empty",
    "external-address-of-carrier",
    "miniupnpd-pcp-only",
];

#[test]
fn each_kind_of_fault_of_a_router_leads_to_mappings_or_to_a_reason() -> Result<()> {
    if is_skipped_without_root("gateways") {
        return Ok(());
    }
    let result = measure(&FAULTS.map(str::to_owned))?;
    assert_eq!(result.cases.len(), FAULTS.len());
    let figures = (
        result.failed,
        result.silent,
        result.mappings_left,
        result.wrong_addresses,
    );
    assert_eq!(figures, (0, 0, 0, 0), "{:#?}", result.cases);
    Ok(())
}

#[test]
fn a_restarted_router_with_another_address_is_noticed_within_half_a_minute() -> Result<()> {
    if is_skipped_without_root("gateways: restart") {
        return Ok(());
    }
    let result = measure(&["restarted-with-another-address".to_owned()])?;
    assert_eq!(result.failed, 0, "{:#?}", result.cases);
    Ok(())
}
