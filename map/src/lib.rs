//! Draws the map of a network: the same drawing for the page that a node or the registry serves, and for `warren map`.
//!
//! A drawing depends on the document alone. Names of nodes are text from elsewhere, so everything that is drawn is escaped
//! ([`text`]), and the page runs no script but its own.

mod drawing;
mod layout;
mod page;
pub mod samples;
pub mod text;

pub use drawing::{fragment, svg};
pub use page::{Page, Update, page};
