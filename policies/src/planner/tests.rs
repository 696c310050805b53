//! Tests the planner as a whole: single plans, random observations, and a simulated network.

mod closing;
mod dialling;
mod fixtures;
mod lan;
mod punched;
mod random_observations;
mod replacing;
mod requests;
mod simulated_network;
mod transport;
