//! The planner as a whole, in a simulated network.
