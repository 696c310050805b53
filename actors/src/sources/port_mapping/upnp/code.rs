//! Error codes of UPnP (UPnP Device Architecture 1.1, section 3.2.2; WANIPConnection:2, section 2.4; WANIPv6FirewallControl:1, section 2.5).

/// There is no such action.
pub(in crate::sources) const INVALID_ACTION: u16 = 401;
/// An argument is not accepted, or the table is full.
pub(in crate::sources) const INVALID_ARGUMENTS: u16 = 402;
/// The action failed, or a lease that expires is not accepted.
pub(in crate::sources) const ACTION_FAILED: u16 = 501;
/// The action is optional and missing.
pub(in crate::sources) const NOT_IMPLEMENTED: u16 = 602;
/// There is no entry at this index.
pub(in crate::sources) const NO_SUCH_INDEX: u16 = 713;
/// There is no mapping at this port.
pub(in crate::sources) const NO_SUCH_ENTRY: u16 = 714;
/// Another client has the port.
pub(in crate::sources) const CONFLICT: u16 = 718;
/// Only leases that never expire are granted.
pub(in crate::sources) const ONLY_PERMANENT: u16 = 725;
/// Another mechanism has the port.
pub(in crate::sources) const CONFLICT_ELSEWHERE: u16 = 729;
/// There is no firewall that could be opened.
pub(in crate::sources) const FIREWALL_OFF: u16 = 702;
/// Hosts may not open the firewall.
pub(in crate::sources) const PINHOLES_NOT_ALLOWED: u16 = 703;
