//! Towns as wholes: which there are, how one does, what it decides by.

use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::super::access::Access;
use super::super::rpc::NoParams;
use super::refusal::Refusal;
use super::{Caller, Operation, TownParams};
use crate::ids::{Seq, TownId};
use crate::reconciler::TownStatus;
use crate::town::{Policy, Town, TownEvent};

/// Every town.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TownList {
    /// The towns, by id.
    towns: Vec<TownEntry>,
}

/// One town in numbers.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct TownEntry {
    id: TownId,
    /// Who works there.
    agents: usize,
    /// Beads that have not ended.
    open_beads: usize,
    /// Whether nothing is dispatched because of a drain.
    draining: bool,
    /// Whether nothing is dispatched because too much fails.
    breaker_open: bool,
    /// Whether it was put aside: it does not turn, and its status says why.
    set_aside: bool,
    /// Violations that are open.
    violations: usize,
}

impl TownEntry {
    fn of(id: TownId, town: &Town, set_aside: bool) -> Self {
        Self {
            id,
            set_aside,
            agents: town.agents().len(),
            open_beads: town.beads().len(),
            draining: town.draining().is_some(),
            breaker_open: town.breaker().open.is_some(),
            violations: town.episodes().count(),
        }
    }
}

pub(crate) struct ListTowns;

impl Operation for ListTowns {
    const ACCESS: Access = Access::Viewer;
    const SUMMARY: &'static str = "Lists the towns in numbers.";
    type Params = NoParams;
    type Answer = TownList;

    async fn run(caller: Caller, NoParams {}: NoParams) -> Result<TownList, Refusal> {
        let reconciler = &caller.state.reconciler;
        let entry = |id: TownId| {
            let set_aside = reconciler.is_set_aside(&id);
            let seen = reconciler.look(&id, |town, _| TownEntry::of(id.clone(), town, set_aside));
            // Nobody can read what it is.
            seen.unwrap_or_else(|| TownEntry::of(id, &Town::default(), true))
        };
        Ok(TownList { towns: reconciler.towns().into_iter().map(entry).collect() })
    }
}

/// A town to be made.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateTownParams {
    /// Its id: at most 32 characters.
    id: TownId,
    /// What it decides by, where that differs from the defaults.
    #[serde(default)]
    #[schemars(with = "Policy")]
    policy: Map<String, Value>,
}

/// A town that was made.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TownMade {
    /// Its id.
    town: TownId,
    /// What it decides by.
    policy: Policy,
    /// The event that made it.
    seq: Seq,
}

pub(crate) struct CreateTown;

impl Operation for CreateTown {
    const ACCESS: Access = Access::Operator;
    const SUMMARY: &'static str = "Makes a town, which turns at once and survives a restart.";
    const STATUS: StatusCode = StatusCode::CREATED;
    type Params = CreateTownParams;
    type Answer = TownMade;

    async fn run(caller: Caller, params: CreateTownParams) -> Result<TownMade, Refusal> {
        let CreateTownParams { id, policy } = params;
        let policy = changed(&Policy::default(), policy)?;
        let Caller { state, identity } = &caller;
        let made = state.reconciler.create_town(&identity.actor, id.clone(), policy.clone()).await;
        let made = made.map_err(|error| Refusal::of_submit(state, error))?;
        Ok(TownMade { town: id, policy, seq: made.seq })
    }
}

/// A policy with some keys changed, if it can be.
pub(super) fn changed(policy: &Policy, changes: Map<String, Value>) -> Result<Policy, Refusal> {
    let changed = policy.changed(&Value::Object(changes));
    let changed = changed.map_err(|problem| Refusal::invalid("policy", &problem))?;
    match changed.problems().first() {
        Some(problem) => Err(Refusal::policy(problem)),
        None => Ok(changed),
    }
}

pub(crate) struct ShowStatus;

impl Operation for ShowStatus {
    const ACCESS: Access = Access::Viewer;
    const SUMMARY: &'static str =
        "Shows what a town does: counts, its cadence, its last tick, open violations, why beads wait.";
    type Params = TownParams;
    type Answer = TownStatus;

    async fn run(caller: Caller, TownParams { town }: TownParams) -> Result<TownStatus, Refusal> {
        let status = caller.state.reconciler.status(&town);
        let status = status.ok_or_else(|| Refusal::no_town(&caller.state, &town))?;
        Ok(if caller.is_operator() { status } else { status.without_words() })
    }
}

/// Whether a town is to drain.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DrainParams {
    /// The town.
    town: TownId,
    /// True: nothing more is dispatched. False: dispatching goes on.
    draining: bool,
    /// Why it drains.
    reason: Option<String>,
}

/// How a town stands.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Drained {
    /// Whether it drains.
    draining: bool,
    /// The event that made it so; null where it was so before.
    seq: Option<Seq>,
}

pub(crate) struct Drain;

impl Operation for Drain {
    const ACCESS: Access = Access::Operator;
    const SUMMARY: &'static str =
        "Begins or ends a drain: nothing is dispatched in it, and what runs goes on.";
    type Params = DrainParams;
    type Answer = Drained;

    async fn run(caller: Caller, params: DrainParams) -> Result<Drained, Refusal> {
        let DrainParams { town, draining, reason } = params;
        let now = caller.state.reconciler.look(&town, |town, _| town.draining().is_some());
        if now.ok_or_else(|| Refusal::no_town(&caller.state, &town))? == draining {
            return Ok(Drained { draining, seq: None });
        }
        let event = match (draining, reason) {
            (true, reason) => TownEvent::DrainStarted { reason: reason.map(Into::into) },
            (false, _) => TownEvent::DrainEnded {},
        };
        Ok(Drained { draining, seq: Some(caller.submit(&town, event).await?) })
    }
}

/// What a town is to decide by.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PolicyParams {
    /// The town.
    town: TownId,
    /// The keys to change; all others stay. Without any the policy is only shown.
    #[serde(default)]
    #[schemars(with = "Policy")]
    policy: Map<String, Value>,
}

/// What a town decides by.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct PolicyNow {
    /// The whole policy.
    policy: Policy,
    /// The event that made it so; null where nothing changed.
    seq: Option<Seq>,
}

pub(crate) struct ChangePolicy;

impl Operation for ChangePolicy {
    const ACCESS: Access = Access::Operator;
    const SUMMARY: &'static str = "Changes keys of a town's policy, and shows the whole of it.";
    type Params = PolicyParams;
    type Answer = PolicyNow;

    async fn run(caller: Caller, params: PolicyParams) -> Result<PolicyNow, Refusal> {
        let PolicyParams { town, policy: changes } = params;
        let Caller { state, identity } = &caller;
        let change = move |now: &Policy| changed(now, changes);
        let made = state.reconciler.change_policy(&town, &identity.actor, change).await;
        let (policy, seq) = made.map_err(|error| Refusal::of_submit(state, error))??;
        Ok(PolicyNow { policy, seq })
    }
}
