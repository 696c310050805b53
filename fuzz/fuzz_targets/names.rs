//! Prefixes, slots and endpoints: each has one spelling.
#![no_main]

use libfuzzer_sys::fuzz_target;
use policies::names::{Endpoint, Prefix, Slot};

fuzz_target!(|text: &str| {
    if let Ok(prefix) = text.parse::<Prefix>() {
        assert_eq!(prefix.to_string(), text);
    }
    if let Ok(slot) = text.parse::<Slot>() {
        assert_eq!(slot.to_string(), text);
    }
    if let Ok(endpoint) = text.parse::<Endpoint>() {
        assert_eq!(endpoint.to_string(), text);
    }
});
