//! Towns over the API: what may be asked of them and told them, once for both roads.
//!
//! Each operation is one type: who may do it, what it takes, what it answers. A line in the table of routes and a line in
//! the list of methods bring it onto the roads; `road` reads what comes by HTTP, `refusal` says how it ends badly.

mod agents;
mod batches;
mod beads;
mod debug;
mod naming;
mod refusal;
mod report;
mod road;
mod whole;

use std::sync::Arc;

use http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Role;
use super::access::Access;
use super::auth::{Identity, Token};
use super::state::ApiState;
use crate::ids::{Seq, TownId};
use crate::reconciler::Submitted;
use crate::town::TownEvent;

pub(crate) use agents::{AddAgent, ListAgents, RemoveAgent};
pub(crate) use batches::{AddDependency, StartConvoy};
pub(crate) use beads::{AddBead, CancelBead, HoldBead, ListBeads, ReleaseBead, ShowBead};
pub(crate) use debug::{ReplayPast, TryNextTick};
pub(crate) use refusal::Refusal;
pub(crate) use report::{Report, ReportedEvent, ShowDispatch, report};
pub(crate) use road::{asked, told};
pub(crate) use whole::{ChangePolicy, CreateTown, Drain, ListTowns, ShowStatus};

/// Something that may be asked of towns or told them.
pub(crate) trait Operation: 'static {
    /// Who may.
    const ACCESS: Access;
    /// What it does, in a sentence.
    const SUMMARY: &'static str;
    /// What a road answers when all is well.
    const STATUS: StatusCode = StatusCode::OK;
    /// Whether a header `Idempotency-Key` is its parameter `idempotencyKey`.
    const KEYED: bool = false;
    /// By name; what stands in the path of a route is one of them.
    type Params: DeserializeOwned + JsonSchema + Send + 'static;
    /// What it answers.
    type Answer: Serialize + JsonSchema + Send;

    /// What a road answers with this.
    fn status(_answer: &Self::Answer) -> StatusCode {
        Self::STATUS
    }

    /// Does it.
    fn run(
        caller: Caller,
        params: Self::Params,
    ) -> impl Future<Output = Result<Self::Answer, Refusal>> + Send + 'static;
}

/// Who does it, and what it is done with.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) state: Arc<ApiState>,
    pub(crate) identity: Identity,
}

impl Caller {
    /// Whether it may see what agents are told and what they say.
    fn is_operator(&self) -> bool {
        self.identity.role == Role::Operator
    }

    /// The token of an agent, if that is who calls.
    fn agent_token(&self) -> Option<&Token> {
        self.identity.token.as_deref().filter(|token| token.role == Role::Agent)
    }

    /// Has an event taken in; the answer is its place in the journal.
    async fn submit(&self, town: &TownId, event: TownEvent) -> Result<Seq, Refusal> {
        Ok(self.take_in(town, event).await?.seq)
    }

    /// The same, with whether it came before.
    async fn take_in(&self, town: &TownId, event: TownEvent) -> Result<Submitted, Refusal> {
        let submitted = self.state.reconciler.submit(town, &self.identity.actor, event).await;
        submitted.map_err(|error| Refusal::of_submit(&self.state, error))
    }
}

/// What was taken in, by its place in the journal.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Taken {
    /// The event that it became.
    seq: Seq,
}

/// Which town.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TownParams {
    /// The town.
    town: TownId,
}
