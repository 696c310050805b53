//! Prefixes, slots, endpoints and names of nodes: each has one spelling.

use policies::{
    names::{Endpoint, Prefix, Slot},
    node_name::NodeName,
};

/// Parses the text as each kind of name.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Ok(prefix) = text.parse::<Prefix>() {
        assert_eq!(prefix.to_string(), text);
    }
    if let Ok(slot) = text.parse::<Slot>() {
        assert_eq!(slot.to_string(), text);
    }
    if let Ok(endpoint) = text.parse::<Endpoint>() {
        assert_eq!(endpoint.to_string(), text);
    }
    if let Ok(name) = text.parse::<NodeName>() {
        assert_eq!(name.as_str(), text.to_ascii_lowercase());
        assert_eq!(name.as_str().parse::<NodeName>().ok(), Some(name));
    }
}
