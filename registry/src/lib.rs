//! The registry: makes a network, signs its certificates, hands out prefixes, lets newcomers in and
//! tells them whom to dial.

pub mod admin;
pub mod allocator;
pub mod api;
pub mod authority;
pub mod calls;
mod copies;
pub mod credentials;
pub mod desk;
mod files;
mod generations;
pub mod limits;
mod metrics;
pub mod offline_root;
pub mod openapi;
mod operator_client;
mod problem;
mod query;
mod queue;
pub mod refusal;
pub mod request;
mod restore;
mod seats;
pub mod serve;
pub mod settings;
pub mod sqlite;
pub mod storage;
mod tls;

pub use desk::{WallClock, system_clock};
