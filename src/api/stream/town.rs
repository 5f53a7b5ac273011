//! The sentence and the level of what happened to a town. What agents are told and what they say is in none.

use crate::live::Level;
use crate::town::TownEvent;
use crate::town::words::{AgentStatus, BeadStatus, CompletionStatus, Outcome};

/// The level of an event.
pub(super) fn level(event: &TownEvent) -> Level {
    match event {
        TownEvent::ViolationOpened { .. } => Level::Error,
        TownEvent::BeadTransitioned { to: BeadStatus::Failed, .. }
        | TownEvent::AgentTransitioned { to: AgentStatus::Stalled | AgentStatus::Dead, .. }
        | TownEvent::AgentDone { outcome: Outcome::Failed | Outcome::NeedsHuman, .. }
        | TownEvent::AgentCompleted { status: CompletionStatus::Failed, .. }
        | TownEvent::ContainerEviction { .. }
        | TownEvent::DispatchFailed { .. }
        | TownEvent::Escalated { .. }
        | TownEvent::BreakerOpened { .. }
        | TownEvent::EventRejected { .. } => Level::Warn,
        TownEvent::DispatchLost { cause, .. } if !cause.gives_back() => Level::Warn,
        TownEvent::TownCreated { .. }
        | TownEvent::PolicyChanged { .. }
        | TownEvent::DrainStarted { .. }
        | TownEvent::DrainEnded {}
        | TownEvent::AgentRegistered { .. }
        | TownEvent::AgentRemoved { .. }
        | TownEvent::BeadCreated { .. }
        | TownEvent::BeadCancelled { .. }
        | TownEvent::BeadHeld { .. }
        | TownEvent::BeadReleased { .. }
        | TownEvent::DependencyAdded { .. }
        | TownEvent::ConvoyStarted { .. }
        | TownEvent::AgentDone { .. }
        | TownEvent::AgentCompleted { .. }
        | TownEvent::AgentProgress { .. }
        | TownEvent::ContainerStatus { .. }
        | TownEvent::ReviewDone { .. }
        | TownEvent::BeadDispatched { .. }
        | TownEvent::DispatchLost { .. }
        | TownEvent::TimeSkipped { .. }
        | TownEvent::BeadTransitioned { .. }
        | TownEvent::AgentTransitioned { .. }
        | TownEvent::AgentUnhooked { .. }
        | TownEvent::ReviewOpened { .. }
        | TownEvent::NudgeSent { .. }
        | TownEvent::AgentCollected { .. }
        | TownEvent::BreakerClosed {}
        | TownEvent::ViolationResolved { .. } => Level::Info,
    }
}

/// What happened, behind the name of the town.
pub(super) fn summary(actor: &str, event: &TownEvent) -> String {
    match event {
        TownEvent::TownCreated { .. } => format!("{actor} made it"),
        TownEvent::PolicyChanged { .. } => format!("{actor} changed its policy"),
        TownEvent::DrainStarted { .. } => format!("{actor} drains it"),
        TownEvent::DrainEnded {} => format!("{actor} ended its drain"),
        TownEvent::AgentRegistered { agent, role, .. } => format!("agent {agent} joined as a {role}"),
        TownEvent::AgentRemoved { agent } => format!("{actor} removed agent {agent}"),
        TownEvent::BeadCreated { bead, title, .. } => format!("{actor} added {bead}: {title}"),
        TownEvent::BeadCancelled { bead, .. } => format!("{actor} cancelled {bead}"),
        TownEvent::BeadHeld { bead, .. } => format!("{actor} holds {bead}"),
        TownEvent::BeadReleased { bead } => format!("{actor} released {bead}"),
        TownEvent::DependencyAdded { bead, blocked_by } => format!("{bead} waits for {blocked_by}"),
        TownEvent::ConvoyStarted { convoy, title, beads, report: _ } => {
            format!("{actor} started {convoy} of {} beads: {title}", beads.len())
        }
        TownEvent::AgentDone { agent, dispatch_id, outcome, .. } => {
            format!("agent {agent} says of {dispatch_id}: {outcome}")
        }
        TownEvent::AgentCompleted { agent, dispatch_id, status, .. } => {
            format!("the run of agent {agent} for {dispatch_id} {status}")
        }
        TownEvent::AgentProgress { agent, dispatch_id, .. } => {
            format!("agent {agent} gets on with {dispatch_id}")
        }
        TownEvent::ContainerStatus { agent, status, .. } => format!("what hosts agent {agent} is {status}"),
        TownEvent::ContainerEviction { agent, .. } => format!("what hosts agent {agent} was thrown out"),
        TownEvent::ReviewDone { agent, dispatch_id, verdict, .. } => {
            format!("reviewer {agent} says of {dispatch_id}: {verdict}")
        }
        TownEvent::BeadDispatched { bead, agent, attempt, .. } => {
            format!("{bead} went to agent {agent}, attempt {attempt}")
        }
        TownEvent::DispatchFailed { dispatch_id, .. } => format!("{dispatch_id} was not taken"),
        TownEvent::DispatchLost { dispatch_id, cause } => format!("{dispatch_id} is lost: {cause}"),
        TownEvent::TimeSkipped { ms } => {
            format!("nobody looked after it for {} s, which count for nothing", ms / 1_000)
        }
        TownEvent::BeadTransitioned { bead, from, to, reason, .. } => {
            format!("{bead} went from {from} to {to}: {reason}")
        }
        TownEvent::AgentTransitioned { agent, from, to, reason } => {
            format!("agent {agent} went from {from} to {to}: {reason}")
        }
        TownEvent::AgentUnhooked { agent, bead } => format!("agent {agent} holds {bead} no more"),
        TownEvent::ReviewOpened { bead, review, round } => {
            format!("{bead} goes into review {round}: {review}")
        }
        TownEvent::NudgeSent { agent, tier, skipped, .. } => match skipped {
            Some(_) => format!("agent {agent} could not be told: {tier}"),
            None => format!("agent {agent} was told: {tier}"),
        },
        TownEvent::Escalated { escalation, bead, .. } => {
            format!("a person has to look at {bead}: {escalation}")
        }
        TownEvent::AgentCollected { agent, .. } => format!("agent {agent} left, as nobody needed it"),
        TownEvent::BreakerOpened { failed_beads } => {
            format!("{failed_beads} beads failed: nothing is dispatched but a probe")
        }
        TownEvent::BreakerClosed {} => "dispatching goes on".to_owned(),
        TownEvent::ViolationOpened { invariant, message, .. } => {
            format!("invariant {invariant} does not hold: {message}")
        }
        TownEvent::ViolationResolved { invariant, .. } => format!("invariant {invariant} holds again"),
        TownEvent::EventRejected { seq, error } => format!("event {seq} was rejected: {error}"),
    }
}
