//! Instances: the processes and containers that host agents, which start when they are needed and stop when they are idle.
//!
//! What decides is pure ([`Machine`]); [`Instances`] drives one for each instance over a [`Runner`], and has written down
//! what happens; [`Ledger`] counts that. There are runners for processes and for scripts; no agent is hosted by them yet.

mod backoff;
mod config;
mod ledger;
mod machine;
mod record;
mod runner;
mod supervisor;

pub use backoff::Backoff;
pub use config::{
    BindConfig, ContainerHost, EngineConfig, InstanceConfig, Orphans, ProcessHost, Pull, ReadyConfig, Trust,
};
pub use ledger::{InstanceCounts, LastEvent, Ledger};
pub use machine::{
    EDGES, Exit, Fact, Failure, FailureKind, Input, LostAction, Machine, Order, Policy, Refused, Run, Start,
    State, Step, StopReason, Verdict, Wanted,
};
pub use record::EventKind;
pub use runner::{
    Act, ContainerBook, DockerEngine, DockerRunner, EngineStatus, Find, Found, Printed, ProcessConfig,
    ProcessRunner, Readiness, Runner, Script, ScriptedRunner, Up, remove_left as remove_left_containers,
};
pub use supervisor::{Cause, Instances, Kept, Lease, Unavailable};
