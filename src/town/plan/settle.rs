//! What follows from what an agent said of its work, and from how its run ended. What it said comes first; an ending
//! without a word that can be read is asked for once more, then left to a person, and never closes a bead.

use std::time::Duration;

use super::action::{Action, ActionKind, Effect, Reason};
use super::{Draft, TownEvent};
use crate::ids::{AgentId, BeadId};
use crate::town::state::{Bead, Ended, Hook, Said};
use crate::town::time::TownTime;
use crate::town::words::{
    AgentStatus, BeadKind, BeadReason, BeadStatus, CompletionStatus, Entity, Outcome, Role, StuckClass, Tier,
    Verdict,
};

pub(super) fn rule(draft: &mut Draft<'_>) {
    let town = draft.town;
    for status in [AgentStatus::Working, AgentStatus::Stalled] {
        for (id, agent) in Role::ALL.iter().flat_map(|role| town.agents_that_are(status, *role)) {
            let Some(hook) = &agent.hook else { continue };
            let Some(bead) = town.beads().get(&hook.bead) else { continue };
            if bead.waits.cancel.is_none() && bead.status == BeadStatus::InProgress {
                settle(draft, &Held { agent: id, hook, bead });
            }
        }
    }
}

/// A bead in an agent's hands.
struct Held<'a> {
    agent: &'a AgentId,
    hook: &'a Hook,
    bead: &'a Bead,
}

fn settle(draft: &mut Draft<'_>, held: &Held<'_>) {
    match (&held.hook.said, &held.hook.ended) {
        (Some(Said::Outcome(Outcome::Done)), ended) => match held.bead.kind {
            // A reviewer that is done but gives no verdict said nothing.
            BeadKind::Review => unreadable(draft, held, ended.as_ref()),
            BeadKind::Task | BeadKind::Convoy | BeadKind::Escalation => done(draft, held),
        },
        (Some(Said::Outcome(Outcome::Failed)), _) => attempt_failed(draft, held),
        (Some(Said::Outcome(Outcome::NeedsHuman)), _) => {
            ask_person(draft, held, BeadReason::NeedsHuman, Reason::SaidNeedsHuman);
        }
        (Some(Said::Verdict { verdict, .. }), _) => decide(draft, held, *verdict),
        (None, Some(Ended { status: CompletionStatus::Failed, at, .. })) => {
            // Its word may still come, and would stand above this.
            if draft.now.since(*at) >= draft.town.policy().stuck.ending_grace.0 {
                run_failed(draft, held, *at);
            }
        }
        (None, ended @ Some(Ended { status: CompletionStatus::Completed, .. })) => {
            unreadable(draft, held, ended.as_ref());
        }
        (None, None) => {}
    }
}

fn done(draft: &mut Draft<'_>, held: &Held<'_>) {
    let id = &held.hook.bead;
    let review = draft.town.policy().review.enabled;
    let round = held.bead.looks.reviews.saturating_add(1);
    match draft.id_about(id, 'r', round).filter(|_| review) {
        Some(review) => {
            let event = TownEvent::ReviewOpened { bead: id.clone(), review, round };
            act(draft, held, (ActionKind::OpenReview, Reason::SaidDone), event);
        }
        None => {
            let event = moved(held, BeadStatus::Closed, BeadReason::Done, None);
            act(draft, held, (ActionKind::CloseBead, Reason::SaidDone), event);
        }
    }
}

/// The run that failed is the work, or the question how that ended: then the work is done, and a person decides.
fn run_failed(draft: &mut Draft<'_>, held: &Held<'_>, at: TownTime) {
    let asked = held.hook.asked;
    if asked > 0 {
        let reason = Reason::Unreadable { asked, ended_ms: millis(draft.now.since(at)) };
        ask_person(draft, held, BeadReason::Unreadable, reason);
    } else {
        attempt_failed(draft, held);
    }
}

fn attempt_failed(draft: &mut Draft<'_>, held: &Held<'_>) {
    let (attempts, attempts_max) = (held.bead.tries.attempts, draft.town.policy().dispatch.attempts_max);
    let reason = Reason::AttemptFailed { attempts, attempts_max };
    if attempts < attempts_max {
        let event = moved(held, BeadStatus::Open, BeadReason::AttemptFailed, None);
        return act(draft, held, (ActionKind::RetryBead, reason), event);
    }
    let escalation = draft.escalation_of(&held.hook.bead);
    let event = moved(held, BeadStatus::Failed, BeadReason::AttemptsExhausted, escalation);
    act(draft, held, (ActionKind::FailBead, reason), event);
}

fn ask_person(draft: &mut Draft<'_>, held: &Held<'_>, why: BeadReason, reason: Reason) {
    let escalation = draft.escalation_of(&held.hook.bead);
    let event = moved(held, BeadStatus::Open, why, escalation);
    act(draft, held, (ActionKind::AskPerson, reason), event);
}

/// A verdict moves the review and its task.
fn decide(draft: &mut Draft<'_>, held: &Held<'_>, verdict: Verdict) {
    let Some(task) = &held.bead.parent else { return };
    if !draft.is_untouched(task) {
        return;
    }
    let round = draft.town.beads().get(task).map_or(0, |task| task.looks.reviews);
    let why = match verdict {
        Verdict::Approved => BeadReason::Approved,
        Verdict::Changes => BeadReason::Changes,
    };
    let often_enough = verdict == Verdict::Changes && round >= draft.town.policy().review.rounds_max;
    let escalation = if often_enough { draft.escalation_of(task) } else { None };
    let event = moved(held, BeadStatus::Closed, why, escalation);
    let reason = Reason::Verdict { verdict, round };
    let touches = [held_bead(held), Entity::Agent(held.agent.clone()), Entity::Bead(task.clone())];
    draft.act(&touches, action(&held.hook.bead, (ActionKind::CloseBead, reason), event, None));
}

fn unreadable(draft: &mut Draft<'_>, held: &Held<'_>, ended: Option<&Ended>) {
    let since = ended.map_or(held.hook.progress, |ended| ended.at);
    let waited = draft.now.since(since);
    if waited < draft.town.policy().stuck.ending_grace.0 {
        return;
    }
    let Hook { asked, dispatch_id, .. } = held.hook;
    let reason = Reason::Unreadable { asked: *asked, ended_ms: millis(waited) };
    if *asked > 0 {
        return ask_person(draft, held, BeadReason::Unreadable, reason);
    }
    let event = TownEvent::NudgeSent {
        agent: held.agent.clone(),
        dispatch_id: dispatch_id.clone(),
        tier: Tier::Ending,
        class: StuckClass::Working,
        quiet_ms: millis(waited),
        skipped: None,
    };
    let effect = Effect::AskEnding { agent: held.agent.clone(), dispatch_id: dispatch_id.clone() };
    let asking = action(&held.hook.bead, (ActionKind::AskEnding, reason), event, Some(effect));
    draft.act(&[held_bead(held), Entity::Agent(held.agent.clone())], asking);
}

/// An agent that was asked how its work ended, and of which nothing comes any more, is stopped, and its bead waits for a
/// person: what it did is done, and only nobody can read how.
pub(super) fn give_up_asking(draft: &mut Draft<'_>, agent: &AgentId, hook: &Hook, asked_at: TownTime) {
    let reason = Reason::Unreadable { asked: hook.asked, ended_ms: millis(draft.now.since(asked_at)) };
    let event = TownEvent::BeadTransitioned {
        bead: hook.bead.clone(),
        from: BeadStatus::InProgress,
        to: BeadStatus::Open,
        reason: BeadReason::Unreadable,
        escalation: draft.escalation_of(&hook.bead),
    };
    let stop = Effect::Stop { agent: agent.clone(), dispatch_id: hook.dispatch_id.clone() };
    let touches = [Entity::Bead(hook.bead.clone()), Entity::Agent(agent.clone())];
    draft.act(&touches, action(&hook.bead, (ActionKind::AskPerson, reason), event, Some(stop)));
}

fn moved(held: &Held<'_>, to: BeadStatus, reason: BeadReason, escalation: Option<BeadId>) -> TownEvent {
    let (bead, from) = (held.hook.bead.clone(), held.bead.status);
    TownEvent::BeadTransitioned { bead, from, to, reason, escalation }
}

fn held_bead(held: &Held<'_>) -> Entity {
    Entity::Bead(held.hook.bead.clone())
}

fn act(draft: &mut Draft<'_>, held: &Held<'_>, what: (ActionKind, Reason), event: TownEvent) {
    let touches = [held_bead(held), Entity::Agent(held.agent.clone())];
    draft.act(&touches, action(&held.hook.bead, what, event, None));
}

pub(super) fn action(
    bead: &BeadId,
    (kind, reason): (ActionKind, Reason),
    event: TownEvent,
    effect: Option<Effect>,
) -> Action {
    Action { kind, entity: Some(Entity::Bead(bead.clone())), reason, effect, event: Box::new(event) }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
