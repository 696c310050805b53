//! Measures how long a network takes from nothing until every pair of nodes reaches each other.

use crate::{Lab, Options, progress::seconds};
use anyhow::Result;
use serde::Serialize;

/// The output of `measure converge`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Convergence {
    /// Nodes of the lab.
    pub nodes: usize,
    /// Time from starting all daemons at once, with empty caches and a running registry, until the last ordered pair
    /// got its first reply.
    pub seconds: f64,
}

/// Measures once.
///
/// # Errors
/// Fails if the lab cannot be built or the network does not converge.
pub fn measure(nodes: usize) -> Result<Convergence> {
    let lab = Lab::build_joined(Options::with_nodes(nodes))?;
    let duration = lab.start_and_converge()?;
    Ok(Convergence {
        nodes,
        seconds: seconds(duration),
    })
}
