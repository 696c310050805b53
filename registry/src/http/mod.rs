//! Serves the registry over HTTP: the calls of nodes over TLS, the operator's calls over a Unix socket, metrics.

pub mod admin;
pub mod api;
mod callers;
pub mod calls;
mod connection_limit;
mod metrics;
pub mod openapi;
pub mod operator_client;
mod problem;
pub mod proxy_header;
mod query;
pub mod server;
mod trusted_proxies;
