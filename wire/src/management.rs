//! OpenVPN's management interface: lines to events (management-notes.txt of OpenVPN 2.6).
