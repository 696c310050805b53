//! Answers of a UPnP gateway: what is read of them is bounded, and can be written again.

use wire::upnp::{ActionResponse, WanService, parse_description, parse_response, search_location};

/// Maximum number of services, or of fields, that is read of one answer.
const MAX_ITEMS: usize = 32;
/// Maximum number of bytes that is read of one text.
const MAX_TEXT_BYTES: usize = 1024;

/// The input is an answer to a search, a description, or the response to an action.
pub fn check(input: &[u8]) {
    if let Some(location) = search_location(input) {
        assert!(location.len() <= MAX_TEXT_BYTES);
    }
    let text = String::from_utf8_lossy(input);
    let description = parse_description(&text);
    for services in [description.wan_services, description.firewall_services] {
        assert!(services.len() <= MAX_ITEMS);
        services.iter().for_each(check_service);
    }
    let Some(response) = parse_response(&text) else {
        return;
    };
    if let ActionResponse::Done { fields, .. } = &response {
        assert!(fields.len() <= MAX_ITEMS);
        assert!(
            fields
                .iter()
                .all(|(_, value)| value.len() <= MAX_TEXT_BYTES)
        );
    }
    let again = parse_response(&response.to_envelope());
    assert_eq!(again.as_ref().map(kind), Some(kind(&response)));
}

fn check_service(service: &WanService) {
    assert!(service.service_type.is_ascii());
    assert!(service.control_url.len() <= MAX_TEXT_BYTES);
}

/// The name of a result, or the code of an error.
fn kind(response: &ActionResponse) -> (&str, u16) {
    match response {
        ActionResponse::Done { name, .. } => (name, 0),
        ActionResponse::Fault(code) => ("", *code),
    }
}
