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
        let name = town.clone();
        let answer = caller.off_the_runtime(move |reconciler, _| reconciler.dry_run(&town)).await?;
        answer.ok_or_else(|| Refusal::unknown_town(&name))
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
    /// Whether to end at the first event after which an invariant does not hold.
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
