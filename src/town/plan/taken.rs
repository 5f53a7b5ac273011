//! What was done, in the words of what is planned: which action an event tells of, and to whom it was done.

use super::TownEvent;
use super::action::ActionKind;
use crate::ids::{AgentId, BeadId};
use crate::town::words::{AgentReason, BeadReason, Entity, Tier};

impl ActionKind {
    /// The action whose event this is, and whom it is about. `None` if no plan has such an event.
    #[must_use]
    pub fn of_event(event: &TownEvent) -> Option<(Self, Option<Entity>)> {
        use TownEvent as E;
        let about = |kind, bead: &BeadId| Some((kind, Some(Entity::Bead(bead.clone()))));
        let of_agent = |kind, agent: &AgentId| Some((kind, Some(Entity::Agent(agent.clone()))));
        match event {
            E::BeadDispatched { bead, .. } => about(Self::DispatchBead, bead),
            E::BeadTransitioned { bead, reason, .. } => about(of_transition(*reason), bead),
            E::ReviewOpened { bead, .. } => about(Self::OpenReview, bead),
            E::NudgeSent { dispatch_id, tier: Tier::Ending, .. } => {
                about(Self::AskEnding, dispatch_id.bead())
            }
            E::NudgeSent { dispatch_id, .. } => about(Self::NudgeAgent, dispatch_id.bead()),
            E::DispatchLost { dispatch_id, .. } => about(Self::DropDispatch, dispatch_id.bead()),
            E::Escalated { bead, .. } => about(Self::EscalateBead, bead),
            E::AgentTransitioned { agent, reason, .. } => of_agent(of_change(*reason)?, agent),
            E::AgentCollected { agent, .. } => of_agent(Self::CollectAgent, agent),
            E::AgentUnhooked { agent, .. } => of_agent(Self::UnhookAgent, agent),
            E::BreakerOpened { .. } => Some((Self::OpenBreaker, None)),
            E::BreakerClosed {} => Some((Self::CloseBreaker, None)),
            E::TownCreated { .. }
            | E::PolicyChanged { .. }
            | E::DrainStarted { .. }
            | E::DrainEnded {}
            | E::AgentRegistered { .. }
            | E::AgentRemoved { .. }
            | E::BeadCreated { .. }
            | E::BeadCancelled { .. }
            | E::BeadHeld { .. }
            | E::BeadReleased { .. }
            | E::DependencyAdded { .. }
            | E::ConvoyStarted { .. }
            | E::AgentDone { .. }
            | E::AgentCompleted { .. }
            | E::AgentProgress { .. }
            | E::ContainerStatus { .. }
            | E::ContainerEviction { .. }
            | E::ReviewDone { .. }
            | E::DispatchFailed { .. }
            | E::TimeSkipped { .. }
            | E::ViolationOpened { .. }
            | E::ViolationResolved { .. }
            | E::EventRejected { .. } => None,
        }
    }
}

const fn of_transition(reason: BeadReason) -> ActionKind {
    match reason {
        BeadReason::Done | BeadReason::Approved | BeadReason::Changes | BeadReason::SubjectEnded => {
            ActionKind::CloseBead
        }
        BeadReason::AttemptFailed => ActionKind::RetryBead,
        BeadReason::AttemptsExhausted | BeadReason::BlockerFailed => ActionKind::FailBead,
        BeadReason::NeedsHuman | BeadReason::Unreadable => ActionKind::AskPerson,
        BeadReason::Cancelled => ActionKind::CancelBead,
        BeadReason::ConvoyEnded | BeadReason::ConvoyFailed => ActionKind::EndConvoy,
    }
}

const fn of_change(reason: AgentReason) -> Option<ActionKind> {
    match reason {
        AgentReason::Silent => Some(ActionKind::MarkStalled),
        AgentReason::Progress => Some(ActionKind::MarkWorking),
        AgentReason::Recovered => Some(ActionKind::FreeAgent),
        AgentReason::Unusable | AgentReason::Usable | AgentReason::Drill => None,
    }
}
