//! What a town is and what should be done in it: agents, beads, and the rules between them.
//!
//! Pure: values in, values out. No IO, no clock, no chance, no async; whoever drives it brings the time and the events.
//! The state of a town is a fold over its events, so the same events give the same state, to the byte. Start at
//! [`TownEvent`], [`Town::apply`], [`plan()`] and
//! [`INVARIANTS`](invariant::INVARIANTS).

pub mod event;
pub mod invariant;
pub mod plan;
pub mod policy;
pub mod state;
pub mod time;
pub mod words;

pub use event::TownEvent;
pub use plan::{Plan, plan};
pub use policy::Policy;
pub use state::Town;
pub use time::TownTime;
