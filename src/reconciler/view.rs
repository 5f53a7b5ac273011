//! How agents, beads, actions and violations are shown by a replay and a dry run. Every list is bounded, and says how much
//! it leaves out; instructions and notes are not shown.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use crate::clock::Timestamp;
use crate::ids::{AgentId, BeadId, DispatchId, TemplateId};
use crate::limits::REPLAY_LISTED_MAX;
use crate::town::Town;
use crate::town::invariant::{self, Violation, check_all};
use crate::town::plan::{Action, ActionKind, Effect, Reason, Report, Wait};
use crate::town::state::{Agent, Bead, Hook};
use crate::town::time::TownTime;
use crate::town::words::{
    AgentStatus, BeadKind, BeadStatus, CancelStatus, ContainerStatus, Entity, Origin, Recovery, Role,
};

/// Something that would be done.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedAction {
    /// What.
    #[serde(rename = "type")]
    pub kind: ActionKind,
    /// To whom; none if it is the town itself.
    pub entity: Option<Entity>,
    /// Why, in a sentence.
    pub message: String,
    /// The same for programs: `code` and what was seen.
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub reason: Reason,
    /// What would be done in the world.
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<Effect>,
}

impl From<&Action> for PlannedAction {
    fn from(action: &Action) -> Self {
        let Action { kind, entity, reason, effect, event: _ } = action;
        let message = reason.to_string();
        Self { kind: *kind, entity: entity.clone(), message, reason: reason.clone(), effect: effect.clone() }
    }
}

/// How many actions of each type there are.
pub(super) fn by_type(actions: &[Action]) -> BTreeMap<ActionKind, usize> {
    let mut by_type = BTreeMap::new();
    actions.iter().for_each(|action| *by_type.entry(action.kind).or_default() += 1);
    by_type
}

/// Why a bead waits.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BeadWait {
    /// Which bead.
    pub bead: BeadId,
    /// In a sentence.
    pub message: String,
    /// The same for programs: `why` and what was seen.
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub wait: Wait,
}

/// Part of a list, and how much of it is left out.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Shown<T> {
    pub(super) first: Vec<T>,
    pub(super) left_out: usize,
}

impl<T> Shown<T> {
    pub(super) fn of(all: impl ExactSizeIterator<Item = T>) -> Self {
        let left_out = all.len().saturating_sub(REPLAY_LISTED_MAX);
        Self { first: all.take(REPLAY_LISTED_MAX).collect(), left_out }
    }
}

pub(super) fn waits(report: &Report) -> Shown<BeadWait> {
    Shown::of(report.iter().map(|(bead, wait)| BeadWait::of(bead, wait.clone())))
}

/// What a plan of a while ago said of beads that have not ended since, with its times as they are now.
pub(super) fn waits_as_of(report: &Report, town: &Town, now: Timestamp) -> Shown<BeadWait> {
    let now = town.clock(now);
    let open: Vec<_> = report.iter().filter(|(bead, _)| town.beads().contains_key(*bead)).collect();
    Shown::of(open.into_iter().map(|(bead, wait)| BeadWait::of(bead, wait.as_of(town, bead, now))))
}

impl BeadWait {
    fn of(bead: &BeadId, wait: Wait) -> Self {
        Self { bead: bead.clone(), message: wait.to_string(), wait }
    }

    /// The same without what agents and providers say.
    pub(super) fn without_words(self) -> Self {
        Self::of(&self.bead, self.wait.without_words())
    }
}

/// Where an invariant does not hold.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FoundViolation {
    /// The number of the invariant.
    pub invariant: u8,
    /// Its name.
    pub name: &'static str,
    /// Where.
    pub entities: Vec<Entity>,
    /// What is wrong.
    pub message: Arc<str>,
    /// What repairs it, where the town's policy says that this is said: of a violation that is open, and not repaired by
    /// itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repair: Option<&'static str>,
}

pub(super) fn violations(found: &[Violation]) -> Shown<FoundViolation> {
    Shown::of(found.iter().map(FoundViolation::from))
}

impl From<&Violation> for FoundViolation {
    fn from(violation: &Violation) -> Self {
        Self {
            invariant: violation.invariant,
            name: violation.name(),
            entities: violation.entities.iter().cloned().collect(),
            message: violation.message.clone(),
            repair: None,
        }
    }
}

/// The violations of a town that are open.
pub(super) fn open_violations(town: &Town) -> Vec<FoundViolation> {
    let repair = |number: u8| match town.policy().recovery(number) {
        Recovery::Suggest => invariant::repair_of(number),
        Recovery::Auto | Recovery::Off => None,
    };
    let shown = |open: &Violation| FoundViolation { repair: repair(open.invariant), ..open.into() };
    episodes(town).iter().map(shown).collect()
}

/// What a past state shows, and what the town said of it then: damage that no event made shows in its episodes alone.
pub(super) fn known_violations(town: &Town) -> Shown<FoundViolation> {
    let mut known = check_all(town);
    let told = episodes(town).into_iter().filter(|told| {
        known.iter().all(|found| (found.invariant, &found.entities) != (told.invariant, &told.entities))
    });
    let told: Vec<_> = told.collect();
    known.extend(told);
    known.sort();
    violations(&known)
}

fn episodes(town: &Town) -> Vec<Violation> {
    let open = town.episodes().map(|episode| Violation {
        invariant: episode.invariant,
        entities: episode.entities.clone(),
        message: episode.message.clone(),
    });
    open.collect()
}

/// A town at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StateSnapshot {
    /// Agents, by id: the first 1,000.
    pub agents: Vec<AgentView>,
    /// Agents that are left out.
    pub agents_left_out: usize,
    /// Beads that had not ended, by id: the first 1,000.
    pub non_terminal_beads: Vec<BeadView>,
    /// Such beads that are left out.
    pub non_terminal_beads_left_out: usize,
    /// Whether nothing was dispatched because of a drain.
    pub draining: bool,
    /// Whether nothing was dispatched because too much failed.
    pub breaker_open: bool,
}

impl StateSnapshot {
    pub(super) fn of(town: &Town, now: TownTime) -> Self {
        let agents = Shown::of(town.agents().iter().map(|(id, agent)| AgentView::of(id, agent, now)));
        let beads = Shown::of(town.beads().iter().map(|(id, bead)| BeadView::of(id, bead, now)));
        Self {
            agents: agents.first,
            agents_left_out: agents.left_out,
            non_terminal_beads: beads.first,
            non_terminal_beads_left_out: beads.left_out,
            draining: town.draining().is_some(),
            breaker_open: town.breaker().open.is_some(),
        }
    }
}

/// An agent. Times are milliseconds of the town's clock.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentView {
    /// Which.
    pub id: AgentId,
    /// What it is there for.
    pub role: Role,
    /// Where it comes from.
    pub origin: Origin,
    /// The template of the configuration that the town made it of, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<TemplateId>,
    /// What it does.
    pub status: AgentStatus,
    /// For how long.
    pub for_ms: u64,
    /// What it holds.
    pub hook: Option<HookView>,
    /// What was last seen of what hosts it.
    pub container: Option<ContainerStatus>,
}

/// The bead that an agent holds.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HookView {
    /// Which bead.
    pub bead: BeadId,
    /// As which dispatch.
    #[schemars(with = "String")]
    pub dispatch_id: DispatchId,
    /// For how long.
    pub for_ms: u64,
    /// How long nothing was heard.
    pub quiet_ms: u64,
    /// Whether the agent said how its work ended, and nothing followed from it yet.
    pub said: bool,
    /// Whether its run ended.
    pub ended: bool,
}

impl AgentView {
    pub(super) fn of(id: &AgentId, agent: &Agent, now: TownTime) -> Self {
        let Agent { role, origin, nudges: _, status, since, hook, container, unended: _, template } = agent;
        Self {
            id: id.clone(),
            role: *role,
            origin: *origin,
            template: template.clone(),
            status: *status,
            for_ms: millis(now.since(*since)),
            hook: hook.as_ref().map(|hook| HookView::of(hook, now)),
            container: container.as_ref().map(|seen| seen.status),
        }
    }
}

impl HookView {
    fn of(hook: &Hook, now: TownTime) -> Self {
        let Hook { bead, dispatch_id, since, progress, said, ended, asked: _, tiers: _, summary: _ } = hook;
        Self {
            bead: bead.clone(),
            dispatch_id: dispatch_id.clone(),
            for_ms: millis(now.since(*since)),
            quiet_ms: millis(now.since(*progress)),
            said: said.is_some(),
            ended: ended.is_some(),
        }
    }
}

/// A bead that has not ended. Times are milliseconds of the town's clock.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BeadView {
    /// Which.
    pub id: BeadId,
    /// What it is.
    pub kind: BeadKind,
    /// Where it stands.
    pub status: BeadStatus,
    /// For how long.
    pub for_ms: u64,
    /// A line that says what it is.
    pub title: Arc<str>,
    /// Who may do it.
    pub role: Role,
    /// 0, the most urgent, to 4.
    pub priority: u8,
    /// The convoy of a task, the task of a review, the subject of an escalation.
    pub parent: Option<BeadId>,
    /// Beads that it waits for.
    pub blocked_by: Vec<BeadId>,
    /// Whether somebody holds it back.
    pub held: bool,
    /// Whether a person has to decide something.
    pub waits_for_person: bool,
    /// How it ends once its agent was told to stop.
    pub cancelled: Option<CancelStatus>,
    /// Attempts since it last went well, the one under way included.
    pub attempts: u32,
    /// How often it was dispatched.
    pub dispatches: u64,
    /// Who holds it, or held it last.
    pub assignee: Option<AgentId>,
}

impl BeadView {
    pub(super) fn of(id: &BeadId, bead: &Bead, now: TownTime) -> Self {
        let Bead { kind, status, since, created: _, work, parent, waits, tries, looks: _ } = bead;
        Self {
            id: id.clone(),
            kind: *kind,
            status: *status,
            for_ms: millis(now.since(*since)),
            title: work.title.clone(),
            role: work.role,
            priority: work.priority,
            parent: parent.clone(),
            blocked_by: waits.blocked_by.iter().cloned().collect(),
            held: waits.held.is_some(),
            waits_for_person: waits.human.is_some(),
            cancelled: waits.cancel,
            attempts: tries.attempts,
            dispatches: tries.dispatches,
            assignee: tries.assignee.clone(),
        }
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
