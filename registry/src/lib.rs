//! The registry of a warren network: creates the network, issues its certificates, allocates prefixes, and lets
//! nodes join.
//!
//! `docs/REGISTRY.md` is the manual for operators. This crate is the server; `warren registry` in the crate `warren` is
//! its command line.
//!
//! # Where do I …?
//!
//! | question | place |
//! | --- | --- |
//! | … see how a registry starts | [`http::server::start`] |
//! | … find which calls exist, and who may make them | [`http::calls::Call`] |
//! | … add or change a call | [`http::calls`], then `http::api` (nodes) or [`http::admin`] (operator), and [`http::openapi`] |
//! | … find what a call does | [`service::RegistryService`]; one file of `service/` for each subject |
//! | … find why a request is rejected | [`service::error::ServiceError`]; its HTTP status: `http/problem.rs` |
//! | … change a limit of requests | [`service::limits`]; of connections, sizes and times: [`http::server`], `http/problem.rs` |
//! | … see how the client behind a proxy is found | `http/trusted_proxies.rs`, [`http::proxy_header`] |
//! | … add a parameter of the network | `service/parameters.rs` |
//! | … see how requests become one transaction | `service/queue.rs` |
//! | … find what is stored, and by which operations | [`store::Storage`] |
//! | … change the tables of the database | `store/sqlite/`: a new migration `schema-N.sql` in `opening.rs` |
//! | … see how prefixes are allocated | `store/allocator.rs` |
//! | … change what a certificate contains | `pki/certificates.rs`, [`pki::authority`] |
//! | … see how a certificate request is checked | [`pki::request`] |
//! | … see which CAs can be used, and why | `pki/ca_check.rs`; how their names are kept: `pki/issuer.rs` |
//! | … change which names nodes may have | [`policies::node_name`] |
//! | … see how the CA is replaced | `service/ca.rs`; its files: `init/ca_versions.rs`; the offline root: [`pki::offline_root`] |
//! | … add a field to `registry.json` | [`settings::Settings`] |
//! | … add a metric | `http/metrics.rs`, and the table in `docs/REGISTRY.md` |
//! | … see how backups are made and restored | `init/backups.rs`, [`init::restore`] |
//!
//! # Modules
//!
//! The modules depend on each other in one direction: each uses only those above it in this table.
//!
//! | module | content |
//! | --- | --- |
//! | [`clock`], `numbers`, `files`, [`settings`] | time, conversions, private files, `registry.json` |
//! | [`pki`] | certificates, the CA that signs, the offline root, certificate requests, TLS |
//! | [`store`] | what outlives the process: a trait of whole operations, and SQLite behind it |
//! | [`owner`] | the user to whom the files belong |
//! | [`init`] | creating and opening a registry, the files of each CA, backups |
//! | [`service`] | what each call does, one after the other; knows no HTTP |
//! | [`http`] | the calls of nodes and of the operator, their limits, and their OpenAPI document |

pub mod clock;
mod files;
pub mod http;
pub mod init;
mod numbers;
pub mod owner;
pub mod pki;
pub mod service;
pub mod settings;
pub mod store;

pub use files::FileError;
