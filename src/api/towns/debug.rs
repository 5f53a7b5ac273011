//! Questions about what would be and what was: a dry run of the next tick, and a replay of the past. Neither changes
//! anything; few run at once, off the runtime, and each ends with who asked, with the server, or at its deadline.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::super::access::Access;
use super::refusal::{Kind, Refusal};
use super::{Caller, Operation, TownParams};
use crate::clock::Timestamp;
use crate::ids::TownId;
use crate::limits::{TOWN_QUESTION_DEADLINE, TOWN_QUESTION_WAIT};
use crate::reconciler::{DryRun, Reconciler, Replay, ReplayError, ReplayRequest};
use crate::town::Policy;

pub(crate) struct TryNextTick;

impl Operation for TryNextTick {
    const ACCESS: Access = Access::Operator;
    const SUMMARY: &'static str = "Says what the next tick of a town would do now, and does nothing.";
    type Params = TownParams;
    type Answer = DryRun;

    async fn run(caller: Caller, TownParams { town }: TownParams) -> Result<DryRun, Refusal> {
        let (state, name) = (Arc::clone(&caller.state), town.clone());
        let answer = caller.off_the_runtime(move |reconciler, _| reconciler.dry_run(&town)).await?;
        answer.ok_or_else(|| Refusal::no_town(&state, &name))
    }
}

/// Which past.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ReplayParams {
    /// The town.
    town: TownId,
    /// The window begins: RFC 3339, with any offset.
    from: String,
    /// It ends, and the plan is made: RFC 3339, with any offset.
    to: String,
    /// Keys of the policy to plan by in place of the town's own.
    #[schemars(with = "Option<Policy>")]
    policy: Option<Map<String, Value>>,
    /// Whether to tell what the town really did.
    #[serde(default)]
    compare: bool,
    /// Whether to end at the first event found after which an invariant does not hold.
    #[serde(default)]
    until_violation: bool,
}

pub(crate) struct ReplayPast;

impl Operation for ReplayPast {
    const ACCESS: Access = Access::Operator;
    const SUMMARY: &'static str = "Folds the events of a window anew and plans once, at its end: what the town was, and would have done.";
    type Params = ReplayParams;
    type Answer = Replay;

    async fn run(caller: Caller, params: ReplayParams) -> Result<Replay, Refusal> {
        let ReplayParams { town, from, to, policy, compare, until_violation } = params;
        let time = |field: &str, text: &str| {
            Timestamp::parse_rfc3339(text).map_err(|problem| Refusal::malformed(field, &problem))
        };
        let (from, to) = (time("from", &from)?, time("to", &to)?);
        if from > to {
            return Err(ReplayError::Reversed.into());
        }
        let policy = policy.map(Value::Object);
        let request = ReplayRequest { from, to, policy, compare, until_violation };
        let replayed =
            caller.off_the_runtime(move |reconciler, go_on| reconciler.replay(&town, &request, go_on));
        Ok(replayed.await??)
    }
}

impl Caller {
    /// Does work that blocks, in its turn. It is told when nobody waits for it any more.
    async fn off_the_runtime<T: Send + 'static>(
        self,
        work: impl FnOnce(&Reconciler, &dyn Fn() -> bool) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let state = self.state;
        let turn = timeout(TOWN_QUESTION_WAIT, Arc::clone(&state.questions).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return Err(Refusal::too_many_questions(&state)) };
        let stop: CancellationToken = state.sources.stop.child_token();
        let _with_the_caller = stop.clone().drop_guard();
        let (clock, reconciler) = (state.sources.clock.clone(), state.reconciler.clone());
        let until = clock.elapsed() + TOWN_QUESTION_DEADLINE;
        let done = spawn_blocking(move || {
            let _turn = turn;
            work(&reconciler, &|| !stop.is_cancelled() && clock.elapsed() < until)
        });
        Ok(done.await.unwrap_or_else(|lost| std::panic::resume_unwind(lost.into_panic())))
    }
}

impl From<ReplayError> for Refusal {
    fn from(error: ReplayError) -> Self {
        let message = error.to_string();
        match error {
            ReplayError::UnknownTown(_) => Self::new(Kind::Unknown, "unknown_town", message),
            ReplayError::BeforeHistory { .. } => Self::new(Kind::Gone, "before_history", message),
            ReplayError::TooLarge { .. } => Self::new(Kind::TooLarge, "window_too_large", message),
            ReplayError::Reversed => Self::malformed("to", "it lies before `from`: swap them"),
            ReplayError::Policy(problem) => Self::invalid("policy", &problem),
            ReplayError::Read(_) => {
                let message = "the journal cannot be read now: the log says why";
                Self::new(Kind::Unavailable, "journal_unavailable", message)
            }
            ReplayError::Stopped => {
                let message = "this takes longer than a question may: ask for a shorter window";
                Self::new(Kind::Unavailable, "too_slow", message)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::super::auth::Identity;
    use super::super::super::response::Problem;
    use super::super::super::{Config, Role, fixture};
    use super::*;
    use crate::clock::Clock;
    use crate::journal::Actor;
    use crate::limits::TOWN_QUESTIONS_MAX;

    fn caller(state: &Arc<super::super::ApiState>) -> Caller {
        let identity = Identity {
            actor: Actor::Local,
            role: Role::Operator,
            token: None,
            void: CancellationToken::new(),
        };
        Caller { state: Arc::clone(state), identity }
    }

    fn params() -> TownParams {
        TownParams { town: TownId::parse("none").expect("an id") }
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_questions_as_may_be_are_answered_and_one_more_waits_and_is_told_to_come_later() {
        let state = Arc::new(fixture::state(Config::default()));
        let taken = u32::try_from(TOWN_QUESTIONS_MAX).expect("few");
        let all = Arc::clone(&state.questions).acquire_many_owned(taken).await.expect("nobody closes it");
        let refused = TryNextTick::run(caller(&state), params()).await.expect_err("there is no room");
        assert_eq!(refused.code(), "too_many_questions");
        assert!(format!("{refused:?}").contains("ask again later"), "{refused:?}");
        let problem = Problem::from(refused);
        assert_eq!((problem.status.as_u16(), problem.retry_after), (429, Some(TOWN_QUESTION_WAIT)));
        drop(all);
        let answered = TryNextTick::run(caller(&state), params()).await.expect_err("there is no such town");
        assert_eq!(answered.code(), "unknown_town");
    }

    #[tokio::test]
    async fn a_question_is_stopped_at_its_deadline_and_the_answer_says_what_to_do() {
        let (clock, hand) = Clock::manual(Timestamp::from_millis(1_000));
        let state = Arc::new(fixture::state_at(Config::default(), clock));
        let asked = caller(&state).off_the_runtime(move |_, go_on| {
            hand.advance(TOWN_QUESTION_DEADLINE.saturating_sub(Duration::from_millis(1)));
            let before = go_on();
            hand.advance(Duration::from_millis(1));
            (before, go_on())
        });
        assert_eq!(asked.await.expect("there is room"), (true, false));
        let refused = Refusal::from(ReplayError::Stopped);
        assert!(format!("{refused:?}").contains("ask for a shorter window"), "{refused:?}");
        assert_eq!((refused.code(), Problem::from(refused).status.as_u16()), ("too_slow", 503));
    }

    #[test]
    fn a_window_that_is_too_large_is_a_413_with_the_limit() {
        let refused = Refusal::from(ReplayError::TooLarge { max: 5_000_000 });
        let says = "the window holds more than 5000000 events: ask for a shorter one";
        assert!(format!("{refused:?}").contains(says), "{refused:?}");
        assert_eq!((refused.code(), Problem::from(refused).status.as_u16()), ("window_too_large", 413));
    }
}
