//! One event of each kind, with every field set, and any event for property tests.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::select;

use super::{Report, TownEvent};
use crate::ids::{AgentId, BeadId, DispatchId, IdempotencyKey, Seq, TemplateId};
use crate::town::policy::Policy;
use crate::town::words::{
    AgentReason, AgentStatus, BeadReason, BeadStatus, CancelStatus, CompletionStatus, ContainerStatus,
    Entity, LostCause, Origin, Outcome, Role, StuckClass, Tier, Verdict,
};

pub(crate) fn agent(id: &str) -> AgentId {
    AgentId::parse(id).expect("a valid id")
}

pub(crate) fn bead(id: &str) -> BeadId {
    BeadId::parse(id).expect("a valid id")
}

pub(crate) fn dispatch(id: &str) -> DispatchId {
    DispatchId::parse(id).expect("a valid id")
}

fn report(key: &str) -> Option<Box<Report>> {
    let key = IdempotencyKey::parse(key).expect("a valid key");
    Some(Box::new(Report { by: "runtime".into(), key, body: "0a".repeat(32).into() }))
}

/// One of each kind, in the order of [`KINDS`](super::KINDS).
pub(in crate::town) fn samples() -> Vec<TownEvent> {
    let mut samples = from_outside();
    samples.extend(of_agents());
    samples.extend(of_dispatches());
    samples.extend(of_care());
    samples
}

fn from_outside() -> Vec<TownEvent> {
    let (worker, fix) = (agent("worker-1"), bead("fix-login"));
    vec![
        TownEvent::TownCreated { policy: Box::default() },
        TownEvent::PolicyChanged { policy: Box::new(Policy::default()) },
        TownEvent::DrainStarted { reason: Some("upgrade".into()) },
        TownEvent::DrainEnded {},
        TownEvent::AgentRegistered {
            agent: worker.clone(),
            role: Role::Worker,
            origin: Origin::Configured,
            nudges: true,
            template: Some(TemplateId::parse("coder").expect("a valid id")),
        },
        TownEvent::AgentRemoved { agent: worker },
        TownEvent::BeadCreated {
            bead: fix.clone(),
            title: "Fix the login".into(),
            instructions: "The page says 500.\nFind out why.".into(),
            role: Role::Worker,
            priority: 2,
            convoy: Some(bead("release")),
            blocked_by: BTreeSet::from([bead("find-cause")]),
            report: report("k5"),
        },
        TownEvent::BeadCancelled {
            bead: fix.clone(),
            cancel_status: CancelStatus::Closed,
            reason: Some("not needed".into()),
        },
        TownEvent::BeadHeld { bead: fix.clone(), reason: Some("wait for legal".into()) },
        TownEvent::BeadReleased { bead: fix.clone() },
        TownEvent::DependencyAdded { bead: fix.clone(), blocked_by: bead("find-cause") },
        TownEvent::ConvoyStarted {
            convoy: bead("release"),
            title: "Release 2".into(),
            beads: BTreeSet::from([fix, bead("find-cause")]),
            report: report("k6"),
        },
    ]
}

fn of_agents() -> Vec<TownEvent> {
    let (worker, id) = (agent("worker-1"), dispatch("fix-login.2"));
    vec![
        TownEvent::AgentDone {
            agent: worker.clone(),
            dispatch_id: id.clone(),
            outcome: Outcome::Done,
            summary: Some("it was a typo".into()),
            report: report("k1"),
        },
        TownEvent::AgentCompleted {
            agent: worker.clone(),
            dispatch_id: id.clone(),
            status: CompletionStatus::Failed,
            reason: Some("exit code 1".into()),
            report: report("k2"),
        },
        TownEvent::AgentProgress { agent: worker.clone(), dispatch_id: id.clone(), report: report("k3") },
        TownEvent::ContainerStatus {
            agent: worker.clone(),
            dispatch_id: Some(id.clone()),
            status: ContainerStatus::Exited,
            exit_reason: Some("oom".into()),
            report: report("k4"),
        },
        TownEvent::ContainerEviction {
            agent: worker,
            dispatch_id: id,
            reason: Some("disk pressure".into()),
            report: report("k8"),
        },
        TownEvent::ReviewDone {
            agent: agent("reviewer-1"),
            dispatch_id: dispatch("fix-login.r1.1"),
            verdict: Verdict::Changes,
            notes: Some("add a test".into()),
            report: report("k7"),
        },
    ]
}

fn of_dispatches() -> Vec<TownEvent> {
    let (worker, fix, id) = (agent("worker-1"), bead("fix-login"), dispatch("fix-login.2"));
    vec![
        TownEvent::BeadDispatched {
            bead: fix.clone(),
            agent: worker.clone(),
            dispatch_id: id.clone(),
            attempt: 1,
        },
        TownEvent::DispatchFailed { dispatch_id: id.clone(), error: "the lane is full".into() },
        TownEvent::DispatchLost { dispatch_id: id.clone(), cause: LostCause::Restart },
        TownEvent::TimeSkipped { ms: 61_000 },
        TownEvent::BeadTransitioned {
            bead: fix.clone(),
            from: BeadStatus::Open,
            to: BeadStatus::Failed,
            reason: BeadReason::AttemptsExhausted,
            escalation: Some(bead("fix-login.e1")),
        },
        TownEvent::AgentTransitioned {
            agent: worker.clone(),
            from: AgentStatus::Working,
            to: AgentStatus::Stalled,
            reason: AgentReason::Silent,
        },
        TownEvent::AgentUnhooked { agent: worker, bead: fix },
    ]
}

fn of_care() -> Vec<TownEvent> {
    let (worker, fix, id) = (agent("worker-1"), bead("fix-login"), dispatch("fix-login.2"));
    let entities = BTreeSet::from([Entity::Agent(worker.clone()), Entity::Bead(fix.clone())]);
    vec![
        TownEvent::ReviewOpened { bead: fix.clone(), review: bead("fix-login.r1"), round: 1 },
        TownEvent::NudgeSent {
            agent: worker.clone(),
            dispatch_id: id,
            tier: Tier::Nudge,
            class: StuckClass::Stalled,
            quiet_ms: 900_000,
            skipped: Some("it does not say how it is nudged".into()),
        },
        TownEvent::Escalated {
            escalation: bead("fix-login.e1"),
            bead: fix,
            class: StuckClass::Stuck,
            quiet_ms: 3_600_000,
            reason: "nothing was heard for an hour".into(),
        },
        TownEvent::AgentCollected { agent: worker, idle_ms: 86_400_000 },
        TownEvent::BreakerOpened { failed_beads: 20 },
        TownEvent::BreakerClosed {},
        TownEvent::ViolationOpened {
            invariant: 7,
            entities: entities.clone(),
            message: "an agent works without a hook".into(),
        },
        TownEvent::ViolationResolved { invariant: 7, entities },
        TownEvent::EventRejected { seq: Seq(12), error: "no such bead".into() },
    ]
}

/// Ids from few names, so that events meet.
pub(in crate::town) fn any_bead() -> impl Strategy<Value = BeadId> {
    select(vec!["a", "b", "c", "d", "con", "a.r1", "b.r1", "a.e1", "z"]).prop_map(bead)
}

pub(in crate::town) fn any_agent() -> impl Strategy<Value = AgentId> {
    select(vec!["w1", "w2", "w3", "r1", "nobody"]).prop_map(agent)
}

pub(in crate::town) fn any_dispatch() -> impl Strategy<Value = DispatchId> {
    (any_bead(), 1_u32..5).prop_map(|(bead, n)| dispatch(&format!("{bead}.{n}")))
}

fn word<T: Copy + std::fmt::Debug + 'static>(all: &'static [T]) -> impl Strategy<Value = T> {
    select(all)
}

fn any_note() -> impl Strategy<Value = Option<std::sync::Arc<str>>> {
    prop::option::of("[a-z \\n\"é]{0,9}".prop_map(Into::into))
}

fn any_report() -> impl Strategy<Value = Option<Box<Report>>> {
    prop::option::of(select(vec!["k1", "k2", "k3"])).prop_map(|key| key.and_then(report))
}

fn any_template() -> impl Strategy<Value = Option<TemplateId>> {
    prop::option::of(Just(TemplateId::parse("coder").expect("an id")))
}

fn any_entities() -> impl Strategy<Value = BTreeSet<Entity>> {
    let entity = prop_oneof![any_bead().prop_map(Entity::Bead), any_agent().prop_map(Entity::Agent)];
    prop::collection::btree_set(entity, 0..3)
}

/// Any event, likely or not.
pub(in crate::town) fn any_event() -> impl Strategy<Value = TownEvent> {
    prop_oneof![any_outside(), any_answer(), any_dispatching(), any_care()]
}

/// But for a drill, which is made to break what everything else keeps.
fn any_reason() -> impl Strategy<Value = AgentReason> {
    word(AgentReason::ALL).prop_filter("no drill", |reason| *reason != AgentReason::Drill)
}

fn any_policy() -> impl Strategy<Value = Box<Policy>> {
    (0_u32..8, any::<bool>()).prop_map(|(attempts_max, enabled)| {
        let mut policy = Policy::default();
        policy.dispatch.attempts_max = attempts_max;
        policy.review.enabled = enabled;
        Box::new(policy)
    })
}

fn any_outside() -> impl Strategy<Value = TownEvent> {
    let beads = || prop::collection::btree_set(any_bead(), 0..3);
    prop_oneof![
        1 => any_policy().prop_map(|policy| TownEvent::TownCreated { policy }),
        1 => any_policy().prop_map(|policy| TownEvent::PolicyChanged { policy }),
        1 => any_note().prop_map(|reason| TownEvent::DrainStarted { reason }),
        2 => Just(TownEvent::DrainEnded {}),
        6 => (any_agent(), word(Role::ALL), word(Origin::ALL), any::<bool>(), any_template())
            .prop_map(|(agent, role, origin, nudges, template)| {
                TownEvent::AgentRegistered { agent, role, origin, nudges, template }
            }),
        1 => any_agent().prop_map(|agent| TownEvent::AgentRemoved { agent }),
        8 => (any_bead(), any_note(), word(Role::ALL), 0_u8..6, prop::option::of(any_bead()), beads(), any_report()).prop_map(
            |(bead, text, role, priority, convoy, blocked_by, report)| TownEvent::BeadCreated {
                bead,
                title: text.clone().unwrap_or_default(),
                instructions: text.unwrap_or_default(),
                role,
                priority,
                convoy,
                blocked_by,
                report,
            }
        ),
        2 => (any_bead(), word(CancelStatus::ALL), any_note()).prop_map(|(bead, cancel_status, reason)| {
            TownEvent::BeadCancelled { bead, cancel_status, reason }
        }),
        1 => (any_bead(), any_note()).prop_map(|(bead, reason)| TownEvent::BeadHeld { bead, reason }),
        2 => any_bead().prop_map(|bead| TownEvent::BeadReleased { bead }),
        3 => (any_bead(), any_bead())
            .prop_map(|(bead, blocked_by)| TownEvent::DependencyAdded { bead, blocked_by }),
        3 => (any_bead(), any_note(), beads(), any_report()).prop_map(|(convoy, title, beads, report)| TownEvent::ConvoyStarted {
            convoy,
            title: title.unwrap_or_default(),
            beads,
            report,
        }),
    ]
}

fn any_answer() -> impl Strategy<Value = TownEvent> {
    prop_oneof![
        (any_agent(), any_dispatch(), word(Outcome::ALL), any_note(), any_report()).prop_map(
            |(agent, dispatch_id, outcome, summary, report)| TownEvent::AgentDone {
                agent,
                dispatch_id,
                outcome,
                summary,
                report
            }
        ),
        (any_agent(), any_dispatch(), word(CompletionStatus::ALL), any_note(), any_report()).prop_map(
            |(agent, dispatch_id, status, reason, report)| TownEvent::AgentCompleted {
                agent,
                dispatch_id,
                status,
                reason,
                report
            }
        ),
        (any_agent(), any_dispatch(), any_report())
            .prop_map(|(agent, dispatch_id, report)| TownEvent::AgentProgress { agent, dispatch_id, report }),
        (any_agent(), prop::option::of(any_dispatch()), word(ContainerStatus::ALL), any_note(), any_report())
            .prop_map(|(agent, dispatch_id, status, exit_reason, report)| {
                TownEvent::ContainerStatus { agent, dispatch_id, status, exit_reason, report }
            }),
        (any_agent(), any_dispatch(), any_note(), any_report()).prop_map(
            |(agent, dispatch_id, reason, report)| TownEvent::ContainerEviction {
                agent,
                dispatch_id,
                reason,
                report
            }
        ),
        (any_agent(), any_dispatch(), word(Verdict::ALL), any_note(), any_report()).prop_map(
            |(agent, dispatch_id, verdict, notes, report)| TownEvent::ReviewDone {
                agent,
                dispatch_id,
                verdict,
                notes,
                report
            }
        ),
    ]
}

fn any_dispatching() -> impl Strategy<Value = TownEvent> {
    prop_oneof![
        3 => (any_agent(), any_dispatch(), 1_u32..4).prop_map(|(agent, dispatch_id, attempt)| {
            TownEvent::BeadDispatched { bead: dispatch_id.bead().clone(), agent, dispatch_id, attempt }
        }),
        1 => (any_dispatch(), any_note()).prop_map(|(dispatch_id, error)| TownEvent::DispatchFailed {
            dispatch_id,
            error: error.unwrap_or_default()
        }),
        1 => (any_dispatch(), word(LostCause::ALL))
            .prop_map(|(dispatch_id, cause)| TownEvent::DispatchLost { dispatch_id, cause }),
        1 => (0_u64..100_000).prop_map(|ms| TownEvent::TimeSkipped { ms }),
        3 => (
            any_bead(),
            word(BeadStatus::ALL),
            word(BeadStatus::ALL),
            word(BeadReason::ALL),
            prop::option::of(any_bead())
        )
            .prop_map(|(bead, from, to, reason, escalation)| TownEvent::BeadTransitioned {
                bead,
                from,
                to,
                reason,
                escalation
            }),
        2 => (any_agent(), word(AgentStatus::ALL), word(AgentStatus::ALL), any_reason()).prop_map(
            |(agent, from, to, reason)| TownEvent::AgentTransitioned { agent, from, to, reason }
        ),
        1 => (any_agent(), any_bead()).prop_map(|(agent, bead)| TownEvent::AgentUnhooked { agent, bead }),
    ]
}

fn any_care() -> impl Strategy<Value = TownEvent> {
    let quiet = || 0_u64..10_000_000;
    prop_oneof![
        4 => (any_bead(), any_bead(), 1_u32..3)
            .prop_map(|(bead, review, round)| TownEvent::ReviewOpened { bead, review, round }),
        1 => (any_agent(), any_dispatch(), word(Tier::ALL), word(StuckClass::ALL), quiet(), any_note()).prop_map(
            |(agent, dispatch_id, tier, class, quiet_ms, skipped)| TownEvent::NudgeSent {
                agent,
                dispatch_id,
                tier,
                class,
                quiet_ms,
                skipped
            }
        ),
        2 => (any_bead(), any_bead(), word(StuckClass::ALL), quiet()).prop_map(
            |(escalation, bead, class, quiet_ms)| TownEvent::Escalated {
                escalation,
                bead,
                class,
                quiet_ms,
                reason: "silent".into()
            }
        ),
        1 => (any_agent(), quiet())
            .prop_map(|(agent, idle_ms)| TownEvent::AgentCollected { agent, idle_ms }),
        1 => (0_u32..30).prop_map(|failed_beads| TownEvent::BreakerOpened { failed_beads }),
        2 => Just(TownEvent::BreakerClosed {}),
        1 => (0_u8..12, any_entities(), any_note()).prop_map(|(invariant, entities, message)| {
            TownEvent::ViolationOpened { invariant, entities, message: message.unwrap_or_default() }
        }),
        1 => (0_u8..12, any_entities())
            .prop_map(|(invariant, entities)| TownEvent::ViolationResolved { invariant, entities }),
        1 => (0_u64..99, any_note()).prop_map(|(seq, error)| TownEvent::EventRejected {
            seq: Seq(seq),
            error: error.unwrap_or_default()
        }),
    ]
}
