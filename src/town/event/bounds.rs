//! The limits of what an event carries. They hold for every event, whoever wrote it.

use super::{Report, TownEvent};
use crate::limits::{
    BEAD_BLOCKERS_MAX, BEAD_INSTRUCTIONS_BYTES_MAX, BEAD_OUTSIDE_ID_BYTES_MAX, BEAD_TITLE_BYTES_MAX,
    CONVOY_BEADS_MAX, TOWN_ENTITIES_MAX, TOWN_NOTE_BYTES_MAX,
};

/// The least urgent priority.
const PRIORITY_MAX: usize = 4;
/// The highest number of an invariant.
const INVARIANT_MAX: usize = 10;
/// Bytes of the name of a token.
const REPORTER_BYTES_MAX: usize = 64;
/// Hexadecimal digits of a SHA-256.
const BODY_HASH_BYTES: usize = 64;

/// A field of an event is longer, or more, than it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {size}, and may be {min} to {max}")]
pub struct OutOfBounds {
    /// Which field.
    pub field: &'static str,
    /// Its bytes, entries, or value.
    pub size: usize,
    /// The least.
    pub min: usize,
    /// The most.
    pub max: usize,
}

impl TownEvent {
    /// Whether everything in it is within its limits.
    ///
    /// # Errors
    /// [`OutOfBounds`] names the first field that is not.
    pub fn check_bounds(&self) -> Result<(), OutOfBounds> {
        match self {
            Self::BeadCreated { bead, title, instructions, priority, blocked_by, report, .. } => {
                outside_id("bead", bead.as_str())?;
                within("title", title.len(), 1, BEAD_TITLE_BYTES_MAX)?;
                within("instructions", instructions.len(), 0, BEAD_INSTRUCTIONS_BYTES_MAX)?;
                within("priority", usize::from(*priority), 0, PRIORITY_MAX)?;
                within("blocked_by", blocked_by.len(), 0, BEAD_BLOCKERS_MAX)?;
                reported(report.as_deref())
            }
            Self::ConvoyStarted { convoy, title, beads, report } => {
                outside_id("convoy", convoy.as_str())?;
                within("title", title.len(), 1, BEAD_TITLE_BYTES_MAX)?;
                within("beads", beads.len(), 1, CONVOY_BEADS_MAX)?;
                reported(report.as_deref())
            }
            Self::DrainStarted { reason }
            | Self::BeadCancelled { reason, .. }
            | Self::BeadHeld { reason, .. } => note("reason", reason.as_deref()),
            Self::AgentDone { summary, report, .. } => {
                note("summary", summary.as_deref())?;
                reported(report.as_deref())
            }
            Self::AgentCompleted { reason, report, .. } | Self::ContainerEviction { reason, report, .. } => {
                note("reason", reason.as_deref())?;
                reported(report.as_deref())
            }
            Self::AgentProgress { report, .. } => reported(report.as_deref()),
            Self::ContainerStatus { exit_reason, report, .. } => {
                note("exit_reason", exit_reason.as_deref())?;
                reported(report.as_deref())
            }
            Self::ReviewDone { notes, report, .. } => {
                note("notes", notes.as_deref())?;
                reported(report.as_deref())
            }
            Self::DispatchFailed { error, .. } | Self::EventRejected { error, .. } => {
                note("error", Some(error))
            }
            Self::NudgeSent { skipped, .. } => note("skipped", skipped.as_deref()),
            Self::Escalated { reason, .. } => note("reason", Some(reason)),
            Self::ViolationOpened { invariant, entities, message } => {
                within("invariant", usize::from(*invariant), 1, INVARIANT_MAX)?;
                within("entities", entities.len(), 0, TOWN_ENTITIES_MAX)?;
                note("message", Some(message))
            }
            Self::TownCreated { .. }
            | Self::PolicyChanged { .. }
            | Self::DrainEnded {}
            | Self::AgentRegistered { .. }
            | Self::AgentRemoved { .. }
            | Self::BeadReleased { .. }
            | Self::DependencyAdded { .. }
            | Self::BeadDispatched { .. }
            | Self::DispatchLost { .. }
            | Self::TimeSkipped { .. }
            | Self::BeadTransitioned { .. }
            | Self::AgentTransitioned { .. }
            | Self::AgentUnhooked { .. }
            | Self::ReviewOpened { .. }
            | Self::AgentCollected { .. }
            | Self::BreakerOpened { .. }
            | Self::BreakerClosed {}
            | Self::ViolationResolved { .. } => Ok(()),
        }
    }
}

fn outside_id(field: &'static str, id: &str) -> Result<(), OutOfBounds> {
    within(field, id.len(), 1, BEAD_OUTSIDE_ID_BYTES_MAX)
}

fn note(field: &'static str, text: Option<&str>) -> Result<(), OutOfBounds> {
    within(field, text.map_or(0, str::len), 0, TOWN_NOTE_BYTES_MAX)
}

fn reported(report: Option<&Report>) -> Result<(), OutOfBounds> {
    let Some(Report { by, key: _, body }) = report else { return Ok(()) };
    within("report.by", by.len(), 1, REPORTER_BYTES_MAX)?;
    within("report.body", body.len(), BODY_HASH_BYTES, BODY_HASH_BYTES)
}

fn within(field: &'static str, size: usize, min: usize, max: usize) -> Result<(), OutOfBounds> {
    if (min..=max).contains(&size) { Ok(()) } else { Err(OutOfBounds { field, size, min, max }) }
}
