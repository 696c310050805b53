//! All input and output of a node, one actor a file. The map is `docs/ARCHITECTURE.md`.

pub mod clock;
pub mod echo;
pub mod errors;
pub mod guardian;
pub mod kernel;
pub mod messages;
pub mod peer_cache;
pub mod process;
pub mod sampler;
pub mod store;
pub mod upnp;
