//! Decides which tunnels to open and close.

use crate::{names::Slot, orders::Order};

/// One order together with the terms it was decided by.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// What shall be done.
    pub order: Order,
    /// The terms, as `name=value unit`, for people.
    pub terms: String,
}

/// What the planner thinks of one tunnel.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The tunnel.
    pub slot: Slot,
    /// One line: kept or closing, and by which rule.
    pub text: String,
}
