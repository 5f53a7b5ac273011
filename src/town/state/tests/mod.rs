//! A town that is played with, and what its events do to it.

mod beads;
mod dispatches;
pub(crate) mod properties;
mod reviews;
mod snapshots;
mod whole;

use std::collections::BTreeSet;

use crate::clock::Timestamp;
use crate::ids::{AgentId, Seq};
use crate::town::event::TownEvent;
use crate::town::event::samples::{agent, bead, dispatch};
use crate::town::policy::Policy;
use crate::town::state::{Agent, Bead, Rejected, Town};
use crate::town::words::{
    AgentStatus, BeadReason, BeadStatus, CancelStatus, CompletionStatus, LostCause, Origin, Outcome, Role,
    Verdict,
};

/// A town with its journal: each event comes after the one before, at a time that the test moves.
#[derive(Debug, Clone)]
pub(crate) struct Play {
    pub(crate) town: Town,
    pub(crate) log: Vec<(Seq, Timestamp, TownEvent)>,
    pub(crate) ms: u64,
    seq: u64,
}

impl Play {
    pub(crate) fn empty() -> Self {
        Self { town: Town::default(), log: Vec::new(), ms: 1_000_000_000, seq: 0 }
    }

    /// A town with workers `w1` and `w2` and reviewer `r1`.
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(policy: impl FnOnce(&mut Policy)) -> Self {
        let mut play = Self::empty();
        let mut chosen = Policy::default();
        policy(&mut chosen);
        play.takes(TownEvent::TownCreated { policy: Box::new(chosen) });
        for (id, role) in [("w1", Role::Worker), ("w2", Role::Worker), ("r1", Role::Reviewer)] {
            play.registers(id, role, Origin::Configured);
        }
        play
    }

    /// Lets time pass.
    pub(crate) fn after(&mut self, secs: u64) -> &mut Self {
        self.ms += secs * 1_000;
        self
    }

    pub(crate) fn at(&self) -> Timestamp {
        Timestamp::from_millis(self.ms)
    }

    pub(crate) fn tries(&mut self, event: TownEvent) -> Result<(), Rejected> {
        self.seq += 1;
        let (seq, time) = (Seq(self.seq), self.at());
        let result = self.town.apply(seq, time, &event);
        self.log.push((seq, time, event));
        result
    }

    pub(crate) fn takes(&mut self, event: TownEvent) -> &mut Self {
        let told = format!("{event:?}");
        assert_eq!(self.tries(event), Ok(()), "{told}");
        self
    }

    /// The code of the refusal. Nothing is changed by it.
    pub(crate) fn refuses(&mut self, event: TownEvent) -> &'static str {
        let before = self.town.clone();
        let told = format!("{event:?}");
        let rejected = self.tries(event).expect_err(&told);
        assert_eq!(self.town, before, "{told}");
        assert!(!rejected.to_string().is_empty());
        rejected.code()
    }

    pub(crate) fn registers(&mut self, id: &str, role: Role, origin: Origin) -> &mut Self {
        self.takes(TownEvent::AgentRegistered {
            agent: agent(id),
            role,
            origin,
            nudges: false,
            template: None,
        })
    }

    pub(crate) fn creates(&mut self, id: &str) -> &mut Self {
        self.takes(created(id, 2, &[]))
    }

    /// The bead's next dispatch goes to this agent.
    pub(crate) fn dispatches(&mut self, id: &str, to: &str) -> &mut Self {
        let event = self.dispatch_of(id, to);
        self.takes(event)
    }

    pub(crate) fn dispatch_of(&self, id: &str, to: &str) -> TownEvent {
        let tries = &self.bead(id).tries;
        TownEvent::BeadDispatched {
            bead: bead(id),
            agent: agent(to),
            dispatch_id: dispatch(&format!("{id}.{}", tries.dispatches + 1)),
            attempt: tries.attempts + 1,
        }
    }

    pub(crate) fn moves(
        &mut self,
        id: &str,
        from: BeadStatus,
        to: BeadStatus,
        reason: BeadReason,
    ) -> &mut Self {
        self.takes(moved(id, from, to, reason))
    }

    pub(crate) fn bead(&self, id: &str) -> &Bead {
        &self.town.beads()[&bead(id)]
    }

    pub(crate) fn agent(&self, id: &str) -> &Agent {
        &self.town.agents()[&agent(id)]
    }

    /// How a bead stands, ended or not.
    pub(crate) fn status(&self, id: &str) -> BeadStatus {
        let ended = self.town.closed().get(&bead(id)).map(|closed| closed.status);
        ended.unwrap_or_else(|| self.bead(id).status)
    }

    pub(crate) fn queue(&self, role: Role) -> Vec<&str> {
        self.town.queue(role).map(|(id, _)| id.as_str()).collect()
    }
}

pub(crate) fn created(id: &str, priority: u8, blocked_by: &[&str]) -> TownEvent {
    TownEvent::BeadCreated {
        bead: bead(id),
        title: format!("do {id}").into(),
        instructions: "with care".into(),
        role: Role::Worker,
        priority,
        convoy: None,
        blocked_by: blocked_by.iter().map(|id| bead(id)).collect(),
        report: None,
    }
}

pub(crate) fn moved(id: &str, from: BeadStatus, to: BeadStatus, reason: BeadReason) -> TownEvent {
    TownEvent::BeadTransitioned { bead: bead(id), from, to, reason, escalation: None }
}

pub(crate) fn done(by: &str, id: &str, outcome: Outcome) -> TownEvent {
    let (agent, dispatch_id) = (agent(by), dispatch(id));
    TownEvent::AgentDone { agent, dispatch_id, outcome, summary: None, report: None }
}

pub(crate) fn completed(by: &str, id: &str, status: CompletionStatus) -> TownEvent {
    let (agent, dispatch_id) = (agent(by), dispatch(id));
    TownEvent::AgentCompleted { agent, dispatch_id, status, reason: None, report: None }
}

pub(crate) fn lost(id: &str, cause: LostCause) -> TownEvent {
    TownEvent::DispatchLost { dispatch_id: dispatch(id), cause }
}

pub(crate) fn failed(id: &str) -> TownEvent {
    TownEvent::DispatchFailed { dispatch_id: dispatch(id), error: "the lane is full".into() }
}

pub(crate) fn cancelled(id: &str, cancel_status: CancelStatus) -> TownEvent {
    TownEvent::BeadCancelled { bead: bead(id), cancel_status, reason: None }
}

pub(crate) fn depends(id: &str, on: &str) -> TownEvent {
    TownEvent::DependencyAdded { bead: bead(id), blocked_by: bead(on) }
}

pub(crate) fn convoy(id: &str, beads: &[&str]) -> TownEvent {
    let beads: BTreeSet<_> = beads.iter().map(|id| bead(id)).collect();
    TownEvent::ConvoyStarted { convoy: bead(id), title: "a batch".into(), beads, report: None }
}

pub(crate) fn reviewed(id: &str, verdict: Verdict, notes: &str) -> TownEvent {
    let (agent, dispatch_id) = (agent("r1"), dispatch(id));
    TownEvent::ReviewDone { agent, dispatch_id, verdict, notes: Some(notes.into()), report: None }
}

fn idle(agents: &Town) -> Vec<&AgentId> {
    let roles = Role::ALL.iter().flat_map(|role| agents.agents_that_are(AgentStatus::Idle, *role));
    roles.map(|(id, _)| id).collect()
}
