//! The shell around the planner of `town`: does what is planned, and brings back what came of it.

pub mod metrics;
