//! Instances: the processes and containers that host agents, which start when they are needed and stop when they are idle.
//!
//! So far only what decides ([`Machine`]), and what is kept of that ([`Fact::record`], [`Ledger`]). Nothing drives one yet.

mod backoff;
mod ledger;
mod machine;
mod record;

pub use backoff::Backoff;
pub use ledger::{InstanceCounts, LastEvent, Ledger};
pub use machine::{
    EDGES, Exit, Fact, Failure, FailureKind, Input, Machine, Order, Policy, Refused, Run, Start, State, Step,
    StopReason, Verdict, Wanted,
};
pub use record::EventKind;
