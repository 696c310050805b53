//! Measures how long a network takes from nothing until every pair of nodes answers.

use super::{dial, prepare, seconds, start_whole};
use crate::Options;
use anyhow::Result;
use serde::Serialize;

/// What `measure converge` prints.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Converge {
    /// Nodes of the lab.
    pub nodes: usize,
    /// From starting all daemons at once, with empty caches and the registry up, until the last ordered pair got
    /// its first answer.
    pub seconds: f64,
}

/// Measures it once.
///
/// # Errors
/// Where the lab cannot be built or the network does not become whole.
pub fn measure(nodes: usize) -> Result<Converge> {
    let lab = prepare(Options {
        nodes,
        dial: Some(dial(nodes)),
        ..Options::default()
    })?;
    let span = start_whole(&lab)?;
    Ok(Converge {
        nodes,
        seconds: seconds(span),
    })
}
