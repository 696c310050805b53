//! The planner as a whole: single looks, random worlds, and a simulated network.

mod gains;
mod looks;
mod net;
mod worlds;
