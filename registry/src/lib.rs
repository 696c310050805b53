//! The registry: makes a network, signs its certificates, hands out prefixes, lets newcomers in and
//! tells them whom to dial.

pub mod admin;
pub mod allocator;
pub mod api;
pub mod authority;
pub mod desk;
pub mod limits;
pub mod request;
pub mod serve;
pub mod settings;
pub mod sqlite;
pub mod storage;

pub use desk::{WallClock, system_clock};
