//! The shell around the planner of `town`: does what is planned, and brings back what came of it. What was, and what would
//! be, is told by `replay` and `dry_run`.

mod compare;
mod dry_run;
mod history;
pub mod metrics;
mod replay;
mod view;

pub use compare::{Compared, Deed, TakenAction};
pub use dry_run::{DryRun, DryRunMetrics, Fork, dry_run};
pub use history::History;
pub use replay::{Replay, ReplayError, ReplayRequest, replay};
pub use view::{AgentView, BeadView, BeadWait, FoundViolation, HookView, PlannedAction, StateSnapshot};
