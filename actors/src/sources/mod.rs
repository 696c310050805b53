//! Actors that observe the host, the routing daemon, other nodes and the registry, and report
//! complete readings.

pub mod babeld;
pub mod candidate_prober;
pub mod credentials;
pub mod documents;
pub mod endpoint_checks;
pub mod hole_punching;
pub mod host_reconciler;
pub mod lan_discovery;
pub mod peer_api;
pub mod peer_cache;
pub mod peer_discovery;
pub mod pinholes;
pub mod port_mapping;
pub mod process_monitor;
pub mod registry_client;
pub mod sampler;
