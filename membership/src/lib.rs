//! The node's membership in its network: signed documents, certificate and key, and the clients of other members.
//!
//! This crate holds the current signed documents, makes TLS configurations from the certificate and key, and calls the
//! registry's API and other nodes' peer API. It knows no actor, no schedule and no policy: its callers decide when
//! something is fetched or renewed.
//!
//! | to … | start at |
//! | --- | --- |
//! | read the network's parameters, keys or revocations | [`documents::CurrentDocuments`] |
//! | check a certificate, or read its subject and lifetime | [`certificate`] |
//! | set up TLS with the node's certificate | [`credentials`] |
//! | call the registry | [`registry_api`] |
//! | renew the certificate | [`renewal`] |
//! | find the name of a node | [`node_names`] |
//! | call another node | [`peer_api`] |

pub mod certificate;
pub mod credentials;
pub mod documents;
pub mod node_names;
pub mod peer_api;
pub mod registry_api;
pub mod renewal;
