//! Carries out the actions of a scripted gateway.

use super::{
    Shared,
    table::{MappingRequest, another_client, field},
};

/// The path of the service that works.
pub(super) const SERVICE: &str = "/wan";
/// The path of the service that does nothing.
pub(super) const DEAD_SERVICE: &str = "/dead";

/// Returns the text of an element of a request; empty if there is none.
fn argument(body: &str, name: &str) -> String {
    let (start, end) = (format!("<{name}>"), format!("</{name}>"));
    let text = body
        .split_once(&start)
        .and_then(|(_, rest)| rest.split_once(&end))
        .map_or("", |(text, _)| text);
    text.replace("&amp;", "&")
}

/// Carries out an action. Returns the fields of the result.
///
/// # Errors
/// The error code.
pub(super) fn act(shared: &Shared, path: &str, action: &str, body: &str) -> Result<Vec<u8>, u16> {
    if path == DEAD_SERVICE {
        return match action {
            "GetExternalIPAddress" => Ok(field("NewExternalIPAddress", "").into_bytes()),
            "GetGenericPortMappingEntry" => Err(713),
            _ => Err(501),
        };
    }
    let faults = &shared.faults;
    let protocol = argument(body, "NewProtocol");
    let port = argument(body, "NewExternalPort").parse().unwrap_or(0);
    let add_action = if faults.maps_any_port_only {
        "AddAnyPortMapping"
    } else {
        "AddPortMapping"
    };
    match action {
        "GetExternalIPAddress" => {
            let external = shared.table().external.clone();
            Ok(field("NewExternalIPAddress", &external).into_bytes())
        }
        "GetGenericPortMappingEntry" => {
            shared.pause(faults.entry_delay);
            let index = argument(body, "NewPortMappingIndex").parse();
            let index = index.map_err(|_| 402u16)?;
            shared.table().listed(index, faults)
        }
        "GetSpecificPortMappingEntry" if faults.shows_one_for_all => Ok(another_client()),
        "GetSpecificPortMappingEntry" if faults.shows_single_mappings => {
            let shown = shared.table().single(&protocol, port, faults);
            shown.map(String::into_bytes).ok_or(714)
        }
        "DeletePortMapping" => {
            shared.table().remove(&protocol, port)?;
            Ok(Vec::new())
        }
        action if action == add_action => {
            let request = MappingRequest {
                protocol,
                external_port: port,
                client: argument(body, "NewInternalClient"),
                internal_port: argument(body, "NewInternalPort"),
                description: argument(body, "NewPortMappingDescription"),
                seconds: argument(body, "NewLeaseDuration").parse().unwrap_or(0),
            };
            shared.table().add(request, faults)?;
            let reserved = field("NewReservedPort", &port.to_string());
            Ok(if faults.maps_any_port_only {
                reserved.into_bytes()
            } else {
                Vec::new()
            })
        }
        _ => Err(401),
    }
}
