//! What an operator can order: `warren dial`, `close`, `pin` and `unpin`.

use serde::{Deserialize, Serialize};

/// The path to which a `POST` with an [`OperatorQuery`] orders a dial.
pub const DIAL_PATH: &str = "/v1/dial";
/// The path to which a `POST` with an [`OperatorQuery`] orders a close.
pub const CLOSE_PATH: &str = "/v1/close";
/// The path to which a `POST` with an [`OperatorQuery`] pins a node.
pub const PIN_PATH: &str = "/v1/pin";
/// The path to which a `POST` with an [`OperatorQuery`] ends the pin of a node.
pub const UNPIN_PATH: &str = "/v1/unpin";

/// The tunnel or node of an order, as the query of its address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorQuery {
    /// A slot (`wrn0`) or the prefix of a node (`9/16`).
    pub subject: String,
}

/// An order that was accepted. The events show what comes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorDocument {
    /// The version of the document: [`VERSION`](super::VERSION).
    pub version: u32,
    /// `dial`, `close`, `pin` or `unpin`.
    pub order: String,
    /// The slot that is closed.
    pub tunnel: Option<String>,
    /// The node of the order, by its prefix.
    pub node: String,
    /// Its name; `None` if it has none, or it is not known.
    pub node_name: Option<String>,
}

/// A node whose tunnels the policy never closes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinEntry {
    /// The node's prefix, such as `9/16`.
    pub prefix: String,
    /// Its name; `None` if it has none, or it is not known.
    pub name: Option<String>,
}
