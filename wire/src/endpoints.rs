//! Which endpoints may be dialled: the address classes that are refused.
