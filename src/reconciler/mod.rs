//! The reconciler: looks at each town on every tick, has done what its planner decides, and tells why everything waits.
//!
//! All deciding is in `town`; here is what a plan needs to become real: events in line, one tick after the other, effects
//! through the gateway. What was, and what would be, is told by `replay` and `dry_run`. Start at [`Reconciler`], then `turn`.

mod assignment;
mod brief;
mod cadence;
mod cell;
mod changes;
mod coalescing;
mod compare;
mod config;
mod desk;
mod drill;
mod dry_run;
mod ending;
mod executor;
mod healing;
mod history;
mod hosts;
mod keeper;
mod ledger;
mod membership;
pub mod metrics;
mod observe;
mod opening;
mod questions;
mod refold;
mod replay;
mod runs;
mod service;
mod status;
#[cfg(test)]
mod tests;
mod turn;
mod view;
mod work;

pub use assignment::{Assignment, Held, ReviewedTask};
pub use compare::{Compared, Deed, TakenAction};
pub use config::{MemberConfig, TownConfig, settle as settle_towns};
pub use desk::{SubmitError, Submitted};
pub use drill::{Drill, Strain};
pub use dry_run::{DryRun, DryRunMetrics, Fork, dry_run};
pub use history::History;
pub use ledger::Towns;
pub use membership::Joining;
pub use questions::{AgentPage, BeadDetail, BeadEntry, BeadPage, BeadQuery, EndedBead, OpenBead, fork};
pub use replay::{Replay, ReplayError, ReplayRequest, replay};
pub use service::{Reconciler, ReconcilerParts};
pub use status::{CadenceView, FailingTicks, LastTick, TownStatus};
pub use view::{AgentView, BeadView, BeadWait, FoundViolation, HookView, PlannedAction, StateSnapshot};
