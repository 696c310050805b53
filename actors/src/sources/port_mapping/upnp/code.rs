//! Error codes of UPnP (UPnP Device Architecture 1.1, section 3.2.2; WANIPConnection:2, section 2.4).

/// There is no such action.
pub(super) const INVALID_ACTION: u16 = 401;
/// An argument is not accepted, or the table is full.
pub(super) const INVALID_ARGUMENTS: u16 = 402;
/// The action failed, or a lease that expires is not accepted.
pub(super) const ACTION_FAILED: u16 = 501;
/// The action is optional and missing.
pub(super) const NOT_IMPLEMENTED: u16 = 602;
/// There is no entry at this index.
pub(super) const NO_SUCH_INDEX: u16 = 713;
/// There is no mapping at this port.
pub(super) const NO_SUCH_ENTRY: u16 = 714;
/// Another client has the port.
pub(super) const CONFLICT: u16 = 718;
/// Only leases that never expire are granted.
pub(super) const ONLY_PERMANENT: u16 = 725;
/// Another mechanism has the port.
pub(super) const CONFLICT_ELSEWHERE: u16 = 729;
