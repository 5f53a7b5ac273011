//! People and programs outside: they add work, hold it, let it go, cancel it, and sometimes talk nonsense.

use std::collections::BTreeSet;

use plimsoll::ids::{AgentId, BeadId};
use plimsoll::town::TownEvent;
use plimsoll::town::policy::Policy;
use plimsoll::town::state::Agent;
use plimsoll::town::words::{
    AgentReason, AgentStatus, BeadKind, BeadStatus, CancelStatus, ContainerStatus, OnBlockerFailed, Origin,
    Role,
};
use plimsoll::units::Period;

use crate::roll::Roll;
use crate::shell::can_be_seen;
use crate::sim::Sim;

/// More open beads than this, and people answer instead of asking for more.
const OPEN_MAX: usize = 22;
const AGENTS_MAX: usize = 9;

pub(crate) fn policy(roll: &mut Roll) -> Box<Policy> {
    let mut secs = |from, to| Period::from_secs(roll.between(from, to));
    let mut policy = Policy::default();
    policy.dispatch.backoff = vec![secs(0, 20), secs(5, 60)];
    policy.dispatch.deadline = secs(600, 7_200);
    policy.breaker.window = secs(60, 1_800);
    policy.breaker.probe_after = secs(5, 120);
    policy.lost.quiet_after = secs(30, 180);
    policy.lost.not_found_grace = secs(0, 180);
    let [nudge, escalate, stop] = [secs(60, 300), secs(30, 300), secs(30, 600)].map(|Period(period)| period);
    policy.stuck.nudge_after = Period(nudge);
    policy.stuck.escalate_after = Period(nudge + escalate);
    policy.stuck.stop_after = Period(nudge + escalate + stop);
    policy.stuck.repeat_after = secs(60, 3_600);
    policy.stuck.ending_grace = secs(0, 15);
    policy.collect.idle_after = secs(60, 900);
    policy.dispatch.attempts_max = u32::try_from(roll.between(1, 4)).expect("small");
    policy.breaker.beads = u32::try_from(roll.between(2, 8)).expect("small");
    policy.review.rounds_max = u32::try_from(roll.between(1, 3)).expect("small");
    policy.review.enabled = roll.chance(600);
    policy.convoy.one_failure_fails = roll.chance(400);
    if roll.chance(500) {
        policy.dispatch.on_blocker_failed = OnBlockerFailed::Proceed;
    }
    Box::new(policy)
}

impl Sim {
    /// Somebody does something.
    pub(crate) fn someone_acts(&mut self) {
        if self.fold.town.beads().len() > OPEN_MAX && self.roll.chance(800) {
            return self.someone_answers();
        }
        match self.roll.between(0, 99) {
            0..38 => self.new_bead(),
            38..43 => self.new_convoy(),
            43..50 => {
                if let Some(bead) = self.open_bead() {
                    self.append(TownEvent::BeadHeld { bead, reason: Some("wait".into()) });
                }
            }
            50..66 => self.someone_answers(),
            66..72 => {
                if let Some(bead) = self.open_bead() {
                    let cancel_status = self.roll.any(CancelStatus::ALL);
                    self.append(TownEvent::BeadCancelled { bead, cancel_status, reason: None });
                }
            }
            72..77 => {
                if let (Some(bead), Some(blocked_by)) = (self.open_bead(), self.some_bead()) {
                    self.append(TownEvent::DependencyAdded { bead, blocked_by });
                }
            }
            77..80 => self.drain_turns(),
            80..82 => {
                let policy = policy(&mut self.roll);
                self.append(TownEvent::PolicyChanged { policy });
            }
            82..94 => self.agents_come_and_go(),
            _ => self.nonsense(),
        }
    }

    fn open_bead(&mut self) -> Option<BeadId> {
        let ids: Vec<_> = self.fold.town.beads().keys().cloned().collect();
        self.roll.pick(&ids)
    }

    fn some_bead(&mut self) -> Option<BeadId> {
        if self.roll.chance(800) {
            return self.open_bead();
        }
        let index = self.roll.index(self.fold.town.closed().len());
        self.fold.town.closed().keys().nth(index).cloned()
    }

    fn new_bead(&mut self) {
        let bead = self.fresh_bead("b");
        let convoys: Vec<_> = self.fold.town.convoys().keys().cloned().collect();
        let convoy = if self.roll.chance(200) { self.roll.pick(&convoys) } else { None };
        let mut blocked_by = BTreeSet::new();
        while self.roll.chance(250) {
            blocked_by.extend(self.some_bead());
        }
        let role = if self.roll.chance(150) { Role::Coordinator } else { Role::Worker };
        let priority = u8::try_from(self.roll.between(0, 4)).expect("small");
        let (title, instructions) = ("do it".into(), "with care".into());
        self.append(TownEvent::BeadCreated {
            bead,
            title,
            instructions,
            role,
            priority,
            convoy,
            blocked_by,
            report: None,
        });
    }

    fn new_convoy(&mut self) {
        let convoy = self.fresh_bead("c");
        let tasks = self.fold.town.beads().iter();
        let tasks = tasks.filter(|(_, bead)| bead.kind == BeadKind::Task && bead.parent.is_none());
        let tasks: Vec<_> = tasks.map(|(id, _)| id.clone()).collect();
        let beads: BTreeSet<_> = (0..3).filter_map(|_| self.roll.pick(&tasks)).collect();
        self.append(TownEvent::ConvoyStarted { convoy, title: "a batch".into(), beads, report: None });
    }

    /// Lets something go on that waits for a person, or looks at an escalation.
    pub(crate) fn someone_answers(&mut self) {
        let beads = self.fold.town.beads().iter();
        let waiting = beads.filter(|(_, bead)| {
            let waits = &bead.waits;
            bead.kind == BeadKind::Escalation || waits.human.is_some() || waits.held.is_some()
        });
        let waiting: Vec<_> = waiting.map(|(id, bead)| (id.clone(), bead.kind)).collect();
        if let Some((bead, kind)) = self.roll.pick(&waiting) {
            let cancel_status =
                if self.roll.chance(800) { CancelStatus::Closed } else { CancelStatus::Failed };
            self.append(match kind {
                BeadKind::Escalation => TownEvent::BeadCancelled { bead, cancel_status, reason: None },
                BeadKind::Task | BeadKind::Review | BeadKind::Convoy => TownEvent::BeadReleased { bead },
            });
        }
    }

    fn drain_turns(&mut self) {
        if self.fold.town.draining().is_some() {
            self.append(TownEvent::DrainEnded {});
        } else if self.roll.chance(300) {
            self.append(TownEvent::DrainStarted { reason: Some("upgrade".into()) });
        }
    }

    fn agents_come_and_go(&mut self) {
        let agents: Vec<_> = self.fold.town.agents().iter().map(|(id, a)| (id.clone(), a.status)).collect();
        if agents.len() < AGENTS_MAX && self.roll.chance(600) {
            let role = self.roll.any(&[Role::Worker, Role::Worker, Role::Reviewer, Role::Coordinator]);
            let origin = self.roll.any(Origin::ALL);
            return self.register(role, origin);
        }
        let Some((agent, status)) = self.roll.pick(&agents) else { return };
        let turn = |from, to, reason| TownEvent::AgentTransitioned { agent: agent.clone(), from, to, reason };
        match status {
            AgentStatus::Dead if self.roll.chance(700) => {
                self.append(turn(AgentStatus::Dead, AgentStatus::Idle, AgentReason::Usable));
            }
            AgentStatus::Idle if self.roll.chance(400) => {
                self.append(turn(AgentStatus::Idle, AgentStatus::Dead, AgentReason::Unusable));
            }
            _ if agents.len() > 3 && self.roll.chance(300) => self.remove(agent),
            _ => {}
        }
    }

    pub(crate) fn register(&mut self, role: Role, origin: Origin) {
        let agent = self.fresh_agent();
        let nudges = self.roll.chance(700);
        self.append(TownEvent::AgentRegistered { agent, role, origin, nudges, template: None });
    }

    /// Whoever removes an agent stops it: that is no plan's to say.
    fn remove(&mut self, agent: AgentId) {
        self.stop_agent(&agent);
        self.append(TownEvent::AgentRemoved { agent });
    }

    /// Events that do not fit, and records that nobody can read.
    fn nonsense(&mut self) {
        let ghost = BeadId::parse("ghost").expect("an id");
        let nobody = AgentId::parse("nobody").expect("an id");
        let event = match self.roll.between(0, 6) {
            0 => TownEvent::BeadReleased { bead: ghost },
            1 => TownEvent::AgentRemoved { agent: nobody },
            2 => {
                let Some(bead) = self.some_bead() else { return };
                TownEvent::BeadCancelled { bead, cancel_status: CancelStatus::Closed, reason: None }
            }
            3 => TownEvent::BeadHeld { bead: ghost, reason: Some("x".repeat(5_000).into()) },
            4 => {
                let mut policy = Policy::default();
                policy.dispatch.attempts_max = 0;
                TownEvent::PolicyChanged { policy: Box::new(policy) }
            }
            5 => {
                let Some(bead) = self.open_bead() else { return };
                let (from, to) = (BeadStatus::Open, BeadStatus::Closed);
                let reason = plimsoll::town::words::BeadReason::Done;
                TownEvent::BeadTransitioned { bead, from, to, reason, escalation: None }
            }
            _ => {
                self.tally.fault("an unreadable record");
                return self.append_unreadable();
            }
        };
        self.tally.fault("nonsense");
        self.append(event);
    }

    /// Something of an agent that holds nothing is seen, such as its container that starts before its work. One that is
    /// here and cannot be seen has no host: no word of one would ever be followed by another.
    pub(crate) fn an_idle_host_is_seen(&mut self) {
        let hosted = |id: &_, agent: &Agent| agent.origin == Origin::External || can_be_seen(id);
        let agents = self.fold.town.agents().iter();
        let idle = agents.filter(|(id, agent)| agent.hook.is_none() && hosted(id, agent));
        let idle: Vec<_> = idle.map(|(id, _)| id.clone()).collect();
        if let Some(agent) = self.roll.pick(&idle) {
            let status = self.roll.any(ContainerStatus::ALL);
            self.append(TownEvent::ContainerStatus {
                agent,
                dispatch_id: None,
                status,
                exit_reason: None,
                report: None,
            });
        }
    }
}
