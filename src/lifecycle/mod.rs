//! Instances: the processes and containers that host agents, which start when they are needed and stop when they are idle.
//!
//! What decides is pure ([`Machine`]); [`Instances`] drives one for each instance over a [`Runner`], and has written down
//! what happens; [`Ledger`] counts that. [`Hosts`] makes runners from the configuration.

mod backoff;
mod config;
mod hosts;
mod ledger;
mod machine;
pub mod metrics;
mod record;
mod runner;
mod supervisor;

pub use backoff::Backoff;
pub use config::{
    BindConfig, ContainerHost, EngineConfig, HostKind, InstanceConfig, Orphans, ProcessHost, Pull,
    ReadyConfig, ScriptedAct, ScriptedHost, Trust,
};
pub use hosts::Hosts;
pub use ledger::{InstanceCounts, LastEvent, Ledger};
pub use machine::{
    EDGES, Exit, Fact, Failure, FailureKind, Input, LostAction, Machine, Order, Policy, Refused, Run, Start,
    State, Step, StopReason, Verdict, Wanted,
};
pub use record::{EventKind, removed, summary};
pub use runner::{
    Act, ContainerBook, DockerEngine, DockerRunner, EngineStatus, Find, Found, NamedContainer, Printed,
    ProcessConfig, ProcessRunner, Readiness, Runner, Script, ScriptedRunner, Up,
    remove_left as remove_left_containers,
};
pub use supervisor::{
    Cause, Configured, FailureView, InstanceView, Instances, InstancesParts, Kept, Lease, Unavailable, Unkept,
};
