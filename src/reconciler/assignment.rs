//! What an agent holds, as a runtime elsewhere has to know it: the work, and under which dispatch it is reported.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

use super::service::Reconciler;
use super::view::millis;
use crate::ids::{AgentId, BeadId, DispatchId, TownId};
use crate::town::Town;
use crate::town::state::{Bead, Hook};
use crate::town::time::TownTime;
use crate::town::words::{BeadKind, Tier};

/// A dispatch that waits for its agent's report.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Assignment {
    /// What every report of it names.
    pub dispatch_id: DispatchId,
    /// The bead.
    pub bead: BeadId,
    /// A task, which ends with an outcome, or a review, which ends with a verdict.
    pub kind: BeadKind,
    /// A line that says what it is; of a review, what its task is.
    pub title: Arc<str>,
    /// What to do; empty for a review.
    pub instructions: Arc<str>,
    /// Which attempt it is, from 1.
    pub attempt: u32,
    /// What the last reviewer of a task wants changed.
    pub notes: Option<Arc<str>>,
    /// What a review is of.
    pub review: Option<ReviewedTask>,
    /// How long the agent has had it, in milliseconds of the town's clock.
    pub for_ms: u64,
    /// How much of the policy's `dispatch.deadline` is left, in milliseconds.
    pub deadline_ms: u64,
    /// How long ago the agent was last nudged, in milliseconds, if it was.
    pub nudged_for_ms: Option<u64>,
    /// Whether its run ended without an ending that could be read: it is only to say how the work ended.
    pub ending_asked: bool,
}

/// The task that a reviewer looks at.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReviewedTask {
    /// Which.
    pub task: BeadId,
    /// What was asked for.
    pub instructions: Arc<str>,
    /// Which review of it this is, from 1.
    pub round: u32,
    /// Who did it last.
    pub agent: Option<AgentId>,
    /// What that agent said of it.
    pub summary: Option<Arc<str>>,
    /// What the review before asked for.
    pub notes: Option<Arc<str>>,
}

/// What is known of an agent's work.
#[derive(Debug, Clone, PartialEq)]
pub enum Held {
    /// There is no such agent in the town.
    UnknownAgent,
    /// It has nothing to do, or said already how it ended.
    Nothing,
    /// It has this to do.
    Work(Box<Assignment>),
}

impl Reconciler {
    /// What an agent of a town has to do; `None` if there is no such town.
    #[must_use]
    pub fn held(&self, town: &TownId, agent: &AgentId) -> Option<Held> {
        let now = self.pen().journal.now();
        self.look(town, |town, _| held(town, agent, town.clock(now)))
    }
}

fn held(town: &Town, id: &AgentId, now: TownTime) -> Held {
    let Some(agent) = town.agents().get(id) else { return Held::UnknownAgent };
    let open = agent.hook.as_ref().filter(|hook| hook.said.is_none());
    let found = open.and_then(|hook| Some((hook, town.beads().get(&hook.bead)?)));
    match found.filter(|(_, bead)| bead.waits.cancel.is_none()) {
        Some((hook, bead)) => Held::Work(Box::new(assignment(town, hook, bead, now))),
        None => Held::Nothing,
    }
}

fn assignment(town: &Town, hook: &Hook, bead: &Bead, now: TownTime) -> Assignment {
    let had = now.since(hook.since);
    let task = bead.parent.as_ref().filter(|_| bead.kind == BeadKind::Review);
    let nudged = hook.tiers.get(&Tier::Nudge);
    Assignment {
        dispatch_id: hook.dispatch_id.clone(),
        bead: hook.bead.clone(),
        kind: bead.kind,
        title: bead.work.title.clone(),
        instructions: bead.work.instructions.clone(),
        attempt: bead.tries.attempts,
        notes: bead.looks.notes.clone(),
        review: task.and_then(|task| Some(reviewed(task, town.beads().get(task)?))),
        for_ms: millis(had),
        deadline_ms: millis(town.policy().dispatch.deadline.0.saturating_sub(had)),
        nudged_for_ms: nudged.map(|at| millis(now.since(*at))),
        ending_asked: hook.asked > 0,
    }
}

fn reviewed(id: &BeadId, task: &Bead) -> ReviewedTask {
    ReviewedTask {
        task: id.clone(),
        instructions: task.work.instructions.clone(),
        round: task.looks.reviews,
        agent: task.tries.assignee.clone(),
        summary: task.looks.summary.clone(),
        notes: task.looks.notes.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::town::TownEvent;
    use crate::town::event::samples::{agent, bead, dispatch};
    use crate::town::state::tests::{Play, cancelled, completed, done};
    use crate::town::words::{CancelStatus, CompletionStatus, Outcome, StuckClass};

    fn held_by(play: &Play, id: &str) -> Held {
        held(&play.town, &agent(id), play.town.clock(play.at()))
    }

    fn work(play: &Play, id: &str) -> Assignment {
        match held_by(play, id) {
            Held::Work(work) => *work,
            other => panic!("{other:?}"),
        }
    }

    fn nudged(tier: Tier) -> TownEvent {
        TownEvent::NudgeSent {
            agent: agent("w1"),
            dispatch_id: dispatch("a.1"),
            tier,
            class: StuckClass::Stalled,
            quiet_ms: 1,
            skipped: None,
        }
    }

    #[test]
    fn nothing_is_held_before_a_dispatch_after_the_last_word_and_once_it_is_cancelled() {
        let mut play = Play::new();
        play.creates("a");
        assert_eq!((held_by(&play, "w1"), held_by(&play, "nobody")), (Held::Nothing, Held::UnknownAgent));
        play.dispatches("a", "w1");
        assert_eq!(work(&play, "w1").dispatch_id, dispatch("a.1"));
        play.takes(completed("w1", "a.1", CompletionStatus::Completed));
        assert!(matches!(held_by(&play, "w1"), Held::Work(_)), "how the work ended is still to be said");
        let mut other = Play::new();
        other.creates("a").dispatches("a", "w1").takes(done("w1", "a.1", Outcome::Done));
        assert_eq!(held_by(&other, "w1"), Held::Nothing);
        play.takes(cancelled("a", CancelStatus::Failed));
        assert_eq!(play.bead("a").waits.cancel, Some(CancelStatus::Failed), "its agent is not stopped yet");
        assert_eq!(held_by(&play, "w1"), Held::Nothing);
    }

    #[test]
    fn what_is_pressing_is_told() {
        let mut play = Play::new();
        play.creates("a").dispatches("a", "w1");
        let fresh = work(&play, "w1");
        assert_eq!((fresh.for_ms, fresh.nudged_for_ms, fresh.ending_asked), (0, None, false));
        assert_eq!(u128::from(fresh.deadline_ms), play.town.policy().dispatch.deadline.0.as_millis());
        play.after(60).takes(nudged(Tier::Nudge)).after(5).takes(nudged(Tier::Ending));
        let pressed = work(&play, "w1");
        assert_eq!(
            (pressed.for_ms, pressed.nudged_for_ms, pressed.ending_asked),
            (65_000, Some(5_000), true)
        );
        assert_eq!(pressed.deadline_ms, fresh.deadline_ms - 65_000);
        play.after(3 * 3_600);
        assert_eq!(work(&play, "w1").deadline_ms, 0);
        assert_eq!(work(&play, "w1").bead, bead("a"));
    }
}
