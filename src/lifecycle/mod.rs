//! Instances: the processes and containers that host agents, which start when they are needed and stop when they are idle.
//!
//! So far only what decides: [`Machine`]. Nothing drives one yet.

mod backoff;
mod machine;

pub use backoff::Backoff;
pub use machine::{
    EDGES, Exit, Fact, Failure, FailureKind, Input, Machine, Order, Policy, Run, Start, State, Step,
    StopReason, Verdict, Wanted,
};
