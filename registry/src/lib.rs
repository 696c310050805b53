//! The registry: creates a network, signs its certificates, hands out prefixes, and lets newcomers in.
//!
//! Rooms, from the lowest to the highest; each knows only those before it:
//!
//! | room | what it holds |
//! | --- | --- |
//! | [`clock`], `files`, [`settings`] | time, private files, `registry.json` |
//! | [`pki`] | certificates, the CA that signs, the offline root, certificate requests, TLS |
//! | [`store`] | what outlives the process: the trait, and SQLite behind it |
//! | [`init`] | creating a registry, opening it, the files of each CA, backups |
//! | [`service`] | what each call does, one after the other; knows no HTTP |
//! | [`http`] | the API of nodes and of the operator, its limits and its OpenAPI document |

pub mod clock;
mod files;
pub mod http;
pub mod init;
pub mod pki;
pub mod service;
pub mod settings;
pub mod store;

pub use files::FileError;
