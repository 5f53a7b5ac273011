//! Who works in a town.

use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::access::Access;
use super::beads::page;
use super::refusal::Refusal;
use super::{Caller, Operation, Taken};
use crate::ids::{AgentId, Seq, TemplateId, TownId};
use crate::reconciler::{AgentPage, Joining};
use crate::town::TownEvent;
use crate::town::words::{Origin, Role};

/// Which agents.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListAgentsParams {
    /// The town.
    town: TownId,
    /// `next` of the page before.
    cursor: Option<AgentId>,
    /// At most so many; 1 to 1,000 (100).
    limit: Option<usize>,
}

pub(crate) struct ListAgents;

impl Operation for ListAgents {
    const ACCESS: Access = Access::Viewer;
    const SUMMARY: &'static str = "Lists the agents of a town by id, each with what it holds.";
    type Params = ListAgentsParams;
    type Answer = AgentPage;

    async fn run(caller: Caller, params: ListAgentsParams) -> Result<AgentPage, Refusal> {
        let ListAgentsParams { town, cursor, limit } = params;
        let found = caller.state.reconciler.agents(&town, cursor.as_ref(), page(limit)?);
        found.ok_or_else(|| Refusal::no_town(&caller.state, &town))
    }
}

/// An agent that joins.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AddAgentParams {
    /// The town.
    town: TownId,
    /// An agent of plimsoll's own, or one of a runtime elsewhere that reports for itself.
    id: AgentId,
    /// What it is there for; a worker if nothing is said.
    #[serde(default)]
    role: Role,
    /// Whether its runtime nudges it when it sees `nudge_sent`; not for an agent of plimsoll's own.
    #[serde(default)]
    nudges: bool,
    /// A key under `templates:` of the configuration: the agent is made of that, and deleted again when it leaves.
    template: Option<TemplateId>,
}

/// An agent that joined.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct AgentJoined {
    /// Its id.
    agent: AgentId,
    /// The event that made it so.
    seq: Seq,
}

/// Why an agent of plimsoll's own does not say here that it is nudged: nobody would have a text for it.
const NUDGED_BY_ITS_ENTRY: &str = "is for an agent of a runtime elsewhere; one of plimsoll's own is nudged with the text \
                                   `nudge` of its entry under `towns:` in the configuration: leave this out";

pub(crate) struct AddAgent;

impl Operation for AddAgent {
    const ACCESS: Access = Access::Operator;
    const SUMMARY: &'static str = "Has an agent join a town: one of plimsoll's own, one made of a template, or one of a runtime elsewhere; idle for long, it leaves.";
    const STATUS: StatusCode = StatusCode::CREATED;
    type Params = AddAgentParams;
    type Answer = AgentJoined;

    async fn run(caller: Caller, params: AddAgentParams) -> Result<AgentJoined, Refusal> {
        let AddAgentParams { town, id, role, nudges, template } = params;
        if let Some(template) = template {
            return caller
                .join(town, Joining { agent: id, role, template, beside: caller.state.beside() }, nudges)
                .await;
        }
        if nudges && caller.state.gateway.has_agent(&id) {
            return Err(Refusal::invalid("nudges", NUDGED_BY_ITS_ENTRY));
        }
        let event = TownEvent::AgentRegistered {
            agent: id.clone(),
            role,
            origin: Origin::Dynamic,
            nudges,
            template: None,
        };
        Ok(AgentJoined { seq: caller.submit(&town, event).await?, agent: id })
    }
}

impl Caller {
    async fn join(&self, town: TownId, joining: Joining, nudges: bool) -> Result<AgentJoined, Refusal> {
        if nudges {
            let problem =
                "an agent of a template is plimsoll's own and has no runtime that nudges it: leave it out";
            return Err(Refusal::invalid("nudges", problem));
        }
        let agent = joining.agent.clone();
        let joined = self.state.reconciler.join(&town, &self.identity.actor, joining).await;
        let joined = joined.map_err(|error| Refusal::of_submit(&self.state, error))?;
        Ok(AgentJoined { seq: joined.seq, agent })
    }
}

/// Which agent.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AgentParams {
    /// The town.
    pub(super) town: TownId,
    /// The agent.
    pub(super) agent: AgentId,
}

pub(crate) struct RemoveAgent;

impl Operation for RemoveAgent {
    const ACCESS: Access = Access::Operator;
    const SUMMARY: &'static str = "Has an agent leave a town; the bead that it held goes back. One of a template is deleted, one that is configured joins again at a restart.";
    type Params = AgentParams;
    type Answer = Taken;

    async fn run(caller: Caller, AgentParams { town, agent }: AgentParams) -> Result<Taken, Refusal> {
        Ok(Taken { seq: caller.submit(&town, TownEvent::AgentRemoved { agent }).await? })
    }
}
