//! Carries out what a plan asks for in the world. It decides nothing: effects on one agent or one bead come one after the
//! other, all others at once, each within its time; what comes of them comes back as events.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, Span};

use super::cell::Cell;
use super::desk::{Pen, record};
use super::ending;
use super::metrics::TownMetrics;
use super::refold::Checks;
use super::runs::{Place, Runs};
use crate::gateway::Gateway;
use crate::ids::{AgentId, DispatchId};
use crate::journal::{Actor, AppendError};
use crate::lifecycle::{Cause, State, Unavailable};
use crate::limits::{TOWN_EFFECT_WAIT, TOWN_STOP_WAIT};
use crate::town::TownEvent;
use crate::town::plan::Effect;
use crate::town::words::{CompletionStatus, Entity, LostCause};

/// How often an instance that was told to stop is looked at.
const STOP_LOOK: Duration = Duration::from_millis(50);
/// How long after a stop that failed the next try comes.
const STOP_PAUSE: Duration = Duration::from_secs(5);
/// The first and the longest pause before the journal is asked again to take what an agent said.
const TELL_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Why an effect was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Undone {
    /// The agent takes no work for a while, and nobody is to blame.
    #[error("{0}")]
    Later(String),
    /// It failed.
    #[error("{0}")]
    Failed(String),
}

/// Carries out the effects of one town.
pub(super) struct Executor {
    pub(super) cell: Arc<Cell>,
    pub(super) pen: Pen,
    pub(super) gateway: Gateway,
    pub(super) metrics: TownMetrics,
    pub(super) runs: Runs,
    /// What agents are told when nothing is heard of them.
    pub(super) nudges: BTreeMap<AgentId, String>,
    /// Owns every effect and every run that is followed.
    pub(super) tasks: TaskTracker,
    /// From here on what is cut is cut by the end of plimsoll.
    pub(super) closing: CancellationToken,
    pub(super) tally: Tally,
    /// Those of all towns against their events.
    pub(super) checks: Arc<Checks>,
}

/// Effects that ended since the last tick.
#[derive(Default)]
pub(super) struct Tally {
    succeeded: AtomicU64,
    failed: AtomicU64,
}

/// A copy of a [`Tally`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tallied {
    pub(super) attempted: u64,
    pub(super) succeeded: u64,
    pub(super) failed: u64,
}

impl Tally {
    /// What there is, which begins at zero again.
    pub(super) fn take(&self) -> Tallied {
        let take = |count: &AtomicU64| count.swap(0, Ordering::SeqCst);
        let (succeeded, failed) = (take(&self.succeeded), take(&self.failed));
        Tallied { attempted: succeeded + failed, succeeded, failed }
    }
}

impl Executor {
    /// Begins an effect, behind those on the same agent and the same bead.
    pub(super) fn carry_out(self: &Arc<Self>, effect: Effect, tick: &Span) {
        let place = self.runs.queue_up(&entities(&effect));
        self.carry_out_in(place, effect, tick);
    }

    /// The place in which an agent can be stopped later: nothing of this bead or this agent begins before.
    pub(super) fn reserve(&self, agent: &AgentId, dispatch_id: &DispatchId) -> Place {
        let bead = Entity::Bead(dispatch_id.bead().clone());
        self.runs.queue_up(&BTreeSet::from([bead, Entity::Agent(agent.clone())]))
    }

    /// The same in a place that was taken before.
    pub(super) fn carry_out_in(self: &Arc<Self>, place: Place, effect: Effect, tick: &Span) {
        match &effect {
            Effect::Dispatch { dispatch_id, .. } => self.runs.wait(dispatch_id),
            Effect::Stop { dispatch_id, .. } => _ = self.runs.leave(dispatch_id),
            Effect::StopAgent { .. } | Effect::Nudge { .. } | Effect::AskEnding { .. } => {}
        }
        let span = tracing::info_span!(
            parent: None,
            "reconciler.effect",
            town = %self.cell.id,
            effect = name(&effect),
            otel.status_code = tracing::field::Empty,
        );
        span.follows_from(tick);
        let executor = Arc::clone(self);
        self.tasks.spawn(async move {
            // Who was stopped may be given something.
            let frees = matches!(effect, Effect::Stop { .. } | Effect::StopAgent { .. });
            executor.in_turn(effect, place, &span).instrument(span.clone()).await;
            if frees {
                executor.cell.wake();
            }
        });
    }

    /// Waits for its turn, and does it. Who was told to stop is told until it has: its bead goes out no sooner.
    async fn in_turn(self: &Arc<Self>, effect: Effect, place: Place, span: &Span) {
        for before in &place.before {
            before.cancelled().await;
        }
        while let Err(undone) = self.attempt(&effect).await {
            let error = undone.to_string();
            span.record("otel.status_code", "ERROR");
            tracing::warn!(source = "reconciler", town = %self.cell.id, effect = name(&effect), error, "an effect failed");
            match &effect {
                Effect::Stop { .. } | Effect::StopAgent { .. } if !self.closing.is_cancelled() => {
                    // The end of plimsoll has it tried once more.
                    let _ = self.closing.run_until_cancelled(sleep(STOP_PAUSE)).await;
                }
                Effect::Stop { .. } | Effect::StopAgent { .. } | Effect::Nudge { .. } => return,
                Effect::Dispatch { .. } | Effect::AskEnding { .. } => {
                    return self.tell(self.consequence(effect, undone)).await;
                }
            }
        }
    }

    /// Does it once, within its time, and counts that.
    async fn attempt(self: &Arc<Self>, effect: &Effect) -> Result<(), Undone> {
        self.metrics.effect_attempted();
        let began = self.pen.clock.elapsed();
        let wait = self.patience(effect);
        let done = timeout(wait, self.perform(effect)).await;
        let done = done.unwrap_or_else(|_| Err(self.late(effect, wait)));
        let took = self.pen.clock.elapsed().saturating_sub(began);
        self.metrics.effect_ended(took, done.is_ok());
        let count = if done.is_ok() { &self.tally.succeeded } else { &self.tally.failed };
        count.fetch_add(1, Ordering::SeqCst);
        done
    }

    /// How long an effect may take: a dispatch that has to stop somebody first, as long as that may.
    fn patience(&self, effect: &Effect) -> Duration {
        match effect {
            Effect::Stop { .. } | Effect::StopAgent { .. } => TOWN_STOP_WAIT,
            Effect::Dispatch { agent, dispatch_id, .. } => {
                let is_free = self.runs.in_the_way(agent, dispatch_id).is_empty();
                if is_free && !self.runs.is_cut(agent) { TOWN_EFFECT_WAIT } else { TOWN_STOP_WAIT }
            }
            Effect::Nudge { .. } | Effect::AskEnding { .. } => TOWN_EFFECT_WAIT,
        }
    }

    /// What an effect comes to whose time is over. What only waited for a place, or for somebody to stop, is nobody's fault.
    fn late(&self, effect: &Effect, wait: Duration) -> Undone {
        let error = format!("it took longer than {} s", wait.as_secs());
        match effect {
            Effect::Dispatch { dispatch_id, .. } => {
                self.runs.leave(dispatch_id);
                Undone::Later(error)
            }
            Effect::AskEnding { .. } => Undone::Later(error),
            Effect::Stop { .. } | Effect::StopAgent { .. } | Effect::Nudge { .. } => Undone::Failed(error),
        }
    }

    async fn perform(self: &Arc<Self>, effect: &Effect) -> Result<(), Undone> {
        match effect {
            Effect::Dispatch { agent, dispatch_id, deadline } => {
                let clear = self.closing.run_until_cancelled(self.clear_the_way(agent, dispatch_id)).await;
                clear.ok_or_else(|| Undone::Later("plimsoll ends".to_owned()))?;
                self.dispatch(agent, dispatch_id, deadline.0).await
            }
            Effect::Stop { agent, dispatch_id } => {
                self.stop(agent, dispatch_id).await.map_err(Undone::Failed)
            }
            Effect::StopAgent { agent } => {
                for (dispatch_id, _) in self.runs.of_agent(agent) {
                    self.stop(agent, &dispatch_id).await.map_err(Undone::Failed)?;
                }
                self.stop_cut(agent).await.map_err(Undone::Failed)
            }
            Effect::Nudge { agent, dispatch_id } => self.nudge(agent, dispatch_id),
            Effect::AskEnding { agent, dispatch_id } => self.ask_ending(agent, dispatch_id).await,
        }
    }

    /// Stops whom a dispatch finds at work: who said over the API how its work ended may still be at it.
    async fn clear_the_way(&self, agent: &AgentId, dispatch_id: &DispatchId) {
        for (other, running) in self.runs.in_the_way(agent, dispatch_id) {
            while let Err(error) = self.stop(&running.agent, &other).await {
                tracing::warn!(source = "reconciler", town = %self.cell.id, agent = %running.agent, error, "who is in the way of a dispatch does not stop");
                sleep(STOP_PAUSE).await;
            }
        }
        while let Err(error) = self.stop_cut(agent).await {
            tracing::warn!(source = "reconciler", town = %self.cell.id, %agent, error, "what hosts an agent does not stop for a dispatch");
            sleep(STOP_PAUSE).await;
        }
    }

    /// What the town hears of a dispatch, or of a question, that was not taken.
    fn consequence(&self, effect: Effect, undone: Undone) -> Vec<TownEvent> {
        let closing = self.closing.is_cancelled();
        let event = match (effect, undone) {
            (Effect::AskEnding { agent, dispatch_id }, Undone::Later(error) | Undone::Failed(error)) => {
                unanswered(agent, dispatch_id, &error)
            }
            (Effect::Dispatch { dispatch_id, .. }, _) if closing => lost_by_shutdown(dispatch_id),
            (Effect::Dispatch { dispatch_id, .. }, Undone::Later(_)) => {
                TownEvent::DispatchLost { dispatch_id, cause: LostCause::Refused }
            }
            (Effect::Dispatch { dispatch_id, .. }, Undone::Failed(error)) => {
                TownEvent::DispatchFailed { dispatch_id, error: note(&error) }
            }
            (Effect::Stop { .. } | Effect::StopAgent { .. } | Effect::Nudge { .. }, _) => return Vec::new(),
        };
        vec![event]
    }

    /// Cancels what an agent does for a dispatch, and stops what hosts the agent: nobody there works on without anybody
    /// waiting for it.
    async fn stop(&self, agent: &AgentId, dispatch_id: &DispatchId) -> Result<(), String> {
        if let Some(running) = self.runs.running(dispatch_id) {
            self.runs.cut(agent);
            self.gateway.cancel(&running.request, "its town stopped it");
            running.over.cancelled().await;
        }
        self.stop_cut(agent).await
    }

    /// Stops what hosts an agent whose work was cut, also at the next try, when nothing of its work is left.
    async fn stop_cut(&self, agent: &AgentId) -> Result<(), String> {
        if self.runs.is_cut(agent) {
            self.stop_instance(agent).await?;
            self.runs.stopped(agent);
        }
        Ok(())
    }

    /// Stops what hosts an agent, if anything of it may run, and waits for that. What plimsoll may not stop goes on.
    pub(super) async fn stop_instance(&self, agent: &AgentId) -> Result<(), String> {
        let instances = self.gateway.instances();
        if !instances.may_run(agent).is_ok_and(|may| may) {
            return Ok(());
        }
        match instances.stop(agent, Cause::system()) {
            Ok(()) => {}
            Err(Unavailable::Kept { why, .. }) => {
                tracing::warn!(source = "reconciler", town = %self.cell.id, %agent, %why, "what hosts an agent is not stopped");
                return Ok(());
            }
            Err(error) => return Err(error.to_string()),
        }
        // Somebody else may want it, and it starts again: that is another one.
        let mut stopping = false;
        while let (Ok(state), Ok(true)) = (instances.state(agent), instances.may_run(agent)) {
            match state {
                State::Stopping => stopping = true,
                State::Failed => {
                    return Err("what hosts it did not stop: `plimsoll agents` says why".to_owned());
                }
                State::Cold | State::Starting | State::Ready | State::Idle if stopping => return Ok(()),
                State::Cold | State::Starting | State::Ready | State::Idle => {}
            }
            sleep(STOP_LOOK).await;
        }
        Ok(())
    }

    /// Stops what an earlier plimsoll left running of an agent, once that is known, and tries until it has stopped.
    pub(super) async fn stop_left(&self, agent: &AgentId) {
        loop {
            let stopped = timeout(TOWN_STOP_WAIT, async {
                self.gateway.instances().known(agent).await;
                self.stop_instance(agent).await
            });
            let Err(error) = stopped.await.unwrap_or_else(|_| Err("it takes too long".to_owned())) else {
                return;
            };
            tracing::warn!(source = "reconciler", town = %self.cell.id, %agent, error, "what an earlier plimsoll left of an agent could not be stopped: its bead waits for that");
            sleep(STOP_PAUSE).await;
        }
    }

    /// Appends what happened, such as what an agent said, and tries again until it is durable.
    pub(super) async fn tell(&self, events: Vec<TownEvent>) {
        let (mut pause, longest) = TELL_PAUSES;
        loop {
            let records = events.iter().map(|event| record(event, Actor::System, None, None)).collect();
            let beside = self.cell.door.read().await;
            let appended = self.pen.append(&self.cell.id, None, records).await;
            drop(beside);
            match appended {
                Ok(_) => return,
                Err(error @ (AppendError::Invalid(_) | AppendError::Closed)) => {
                    tracing::error!(source = "reconciler", town = %self.cell.id, %error, "what the town was to be told is lost");
                    return;
                }
                Err(AppendError::QueueFull | AppendError::Unavailable(_) | AppendError::Conflict { .. }) => {}
            }
            sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
    }
}

/// What an end of plimsoll cut.
pub(super) fn lost_by_shutdown(dispatch_id: DispatchId) -> TownEvent {
    TownEvent::DispatchLost { dispatch_id, cause: LostCause::Shutdown }
}

/// An agent could not be asked how its work ended. The work is done: it is not done again, a person decides.
pub(super) fn unanswered(agent: AgentId, dispatch_id: DispatchId, why: &str) -> TownEvent {
    let reason = Some(note(&format!("it could not be asked how its work ended: {why}")));
    TownEvent::AgentCompleted { agent, dispatch_id, status: CompletionStatus::Failed, reason, report: None }
}

fn entities(effect: &Effect) -> BTreeSet<Entity> {
    let (agent, bead) = match effect {
        Effect::Dispatch { agent, dispatch_id, .. }
        | Effect::Stop { agent, dispatch_id }
        | Effect::Nudge { agent, dispatch_id }
        | Effect::AskEnding { agent, dispatch_id } => (agent, Some(dispatch_id.bead())),
        Effect::StopAgent { agent } => (agent, None),
    };
    let bead = bead.map(|bead| Entity::Bead(bead.clone()));
    bead.into_iter().chain([Entity::Agent(agent.clone())]).collect()
}

fn name(effect: &Effect) -> &'static str {
    match effect {
        Effect::Dispatch { .. } => "dispatch",
        Effect::Stop { .. } => "stop",
        Effect::StopAgent { .. } => "stop_agent",
        Effect::Nudge { .. } => "nudge",
        Effect::AskEnding { .. } => "ask_ending",
    }
}

/// What is kept of an error.
pub(super) fn note(error: &str) -> Arc<str> {
    ending::cut(error).into()
}
