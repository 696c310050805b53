//! What makes this machine a member of its network, and how it speaks to the other members.
//!
//! The signed documents that the node currently holds, its certificate and key with the TLS
//! configurations made of them, and the clients of the registry's API and of other nodes' peer API.
//! Knows no actor, no schedule and no policy: when something is fetched or renewed is decided above.
//!
//! | to … | start at |
//! | --- | --- |
//! | ask what the network's parameters, keys or revocations are | [`documents::CurrentDocuments`] |
//! | check a certificate, or read its subject and lifetime | [`certificate`] |
//! | set up TLS with the node's certificate | [`credentials`] |
//! | call the registry | [`registry_api`] |
//! | renew the certificate | [`renewal`] |
//! | call another node | [`peer_api`] |

pub mod certificate;
pub mod credentials;
pub mod documents;
pub mod peer_api;
pub mod registry_api;
pub mod renewal;
