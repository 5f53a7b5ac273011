//! What a town decides, played tick by tick.

mod dispatching;
mod endings;
mod ladder;
mod losses;
mod trouble;
mod whole;

use super::{Action, ActionKind, Effect, Plan, Wait, plan};
use crate::town::event::TownEvent;
use crate::town::event::samples::{agent, bead, dispatch};
use crate::town::state::tests::{
    Play, cancelled, completed, convoy, created, depends, done, failed, lost, reviewed,
};
use crate::town::words::{
    BeadReason, BeadStatus, CancelStatus, CompletionStatus, ContainerStatus, Entity, LostCause, Origin,
    Outcome, Role, StuckClass, Verdict,
};

impl Play {
    fn plan(&self) -> Plan {
        plan(&self.town, self.at())
    }

    /// One plan, all of it taken in.
    fn tick(&mut self) -> Plan {
        let plan = self.plan();
        for action in &plan.actions {
            self.takes(action.event().clone());
        }
        plan
    }

    /// Plans until there is nothing to do at this moment.
    fn settles(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        for _ in 0..50 {
            let plan = self.tick();
            if plan.actions.is_empty() {
                return actions;
            }
            actions.extend(plan.actions);
        }
        panic!("there is always something to do: {:?}", self.plan().actions);
    }

    fn waits(&self, id: &str) -> Wait {
        self.plan().report[&bead(id)].clone()
    }

    fn sees(&mut self, id: &str, of: &str, status: ContainerStatus) -> &mut Self {
        self.takes(TownEvent::ContainerStatus {
            agent: agent(of),
            dispatch_id: Some(dispatch(id)),
            status,
            exit_reason: None,
            report: None,
        })
    }
}

/// What a plan does, in few words: `dispatch_bead a`.
fn told(actions: &[Action]) -> Vec<String> {
    let told = actions.iter().map(|action| match &action.entity {
        Some(Entity::Bead(id)) => format!("{} {id}", action.kind.as_str()),
        Some(Entity::Agent(id)) => format!("{} {id}", action.kind.as_str()),
        None => action.kind.as_str().to_owned(),
    });
    told.collect()
}

/// Who gets what: `a to w1`.
fn dispatched(plan: &Plan) -> Vec<String> {
    let events = plan.actions.iter().map(Action::event);
    let told = events.filter_map(|event| match event {
        TownEvent::BeadDispatched { agent, dispatch_id, .. } => Some(format!("{dispatch_id} to {agent}")),
        _ => None,
    });
    told.collect()
}
