//! All input and output of a node, one actor a file. The map is `docs/ARCHITECTURE.md`.

pub mod babel_sender;
pub mod babeld;
pub mod clock;
pub mod control;
pub mod echo;
pub mod errors;
pub mod exporter;
pub mod guardian;
pub mod kernel;
pub mod links;
pub mod member;
pub mod messages;
pub mod openvpn;
pub mod peer_api;
pub mod peer_cache;
pub mod peer_client;
pub mod policy;
pub mod prober;
pub mod process;
pub mod registry_client;
pub mod roll;
pub mod sampler;
pub mod shadow;
pub mod store;
pub mod telemetry;
pub mod upnp;
