//! What is seen of the agents that hold beads, and of those that could: pure. Only what differs from what was recorded
//! last becomes an event.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ids::{AgentId, DispatchId};
use crate::town::event::TownEvent;
use crate::town::state::Town;
use crate::town::words::{AgentReason, AgentStatus, ContainerStatus};

/// What hosts an agent, as it was seen for one dispatch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sight {
    pub(super) agent: AgentId,
    pub(super) dispatch_id: DispatchId,
    pub(super) status: ContainerStatus,
    pub(super) exit_reason: Option<Arc<str>>,
}

/// What the sights come to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Observed {
    /// In the order in which they were seen.
    pub(super) events: Vec<TownEvent>,
    /// Sights that say what was known.
    pub(super) suppressed: u64,
}

/// The sights that say something new. Several of one agent are compared with each other: no change is missed.
pub(super) fn news(town: &Town, sights: impl IntoIterator<Item = Sight>) -> Observed {
    let mut observed = Observed::default();
    let mut last: BTreeMap<AgentId, (DispatchId, ContainerStatus)> = BTreeMap::new();
    for Sight { agent, dispatch_id, status, exit_reason } in sights {
        let known = last.get(&agent).cloned().or_else(|| recorded(town, &agent));
        if known == Some((dispatch_id.clone(), status)) {
            observed.suppressed += 1;
            continue;
        }
        last.insert(agent.clone(), (dispatch_id.clone(), status));
        let dispatch_id = Some(dispatch_id);
        observed.events.push(TownEvent::ContainerStatus {
            agent,
            dispatch_id,
            status,
            exit_reason,
            report: None,
        });
    }
    observed
}

fn recorded(town: &Town, agent: &AgentId) -> Option<(DispatchId, ContainerStatus)> {
    let seen = town.agents().get(agent)?.container.as_ref()?;
    Some((seen.dispatch_id.clone()?, seen.status))
}

/// Agents without a bead that can be used no more, or again, as `usable` says; `None` where nobody here can tell.
pub(super) fn fitness(town: &Town, usable: impl Fn(&AgentId) -> Option<bool>) -> Vec<TownEvent> {
    let free = town.agents().iter().filter(|(_, agent)| agent.hook.is_none());
    let turned = free.filter_map(|(id, agent)| {
        let (from, to, reason) = match (agent.status, usable(id)?) {
            (AgentStatus::Idle, false) => (AgentStatus::Idle, AgentStatus::Dead, AgentReason::Unusable),
            (AgentStatus::Dead, true) => (AgentStatus::Dead, AgentStatus::Idle, AgentReason::Usable),
            (AgentStatus::Idle, true)
            | (AgentStatus::Dead, false)
            | (AgentStatus::Working | AgentStatus::Stalled, _) => return None,
        };
        Some(TownEvent::AgentTransitioned { agent: id.clone(), from, to, reason })
    });
    turned.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::town::event::samples::agent;
    use crate::town::state::tests::Play;
    use crate::town::words::{Origin, Role};

    fn sight(id: &str, bead: &str, status: ContainerStatus) -> Sight {
        let dispatch_id = DispatchId::parse(&format!("{bead}.1")).expect("an id");
        Sight { agent: agent(id), dispatch_id, status, exit_reason: None }
    }

    fn statuses(observed: &Observed) -> Vec<ContainerStatus> {
        let status = |event: &TownEvent| match event {
            TownEvent::ContainerStatus { status, .. } => *status,
            other => panic!("{} was not seen", other.kind()),
        };
        observed.events.iter().map(status).collect()
    }

    /// Ten agents at work, each on a bead of its own.
    fn ten() -> Play {
        let mut play = Play::new();
        for n in 0..10 {
            let (agent, bead) = (format!("a{n}"), format!("b{n}"));
            play.registers(&agent, Role::Worker, Origin::Configured).creates(&bead).dispatches(&bead, &agent);
        }
        play
    }

    #[test]
    fn an_hour_of_looks_at_agents_that_work_is_a_hundredth_of_their_rows() {
        let mut play = ten();
        let (mut rows, mut suppressed) = (0, 0);
        for _ in 0..720 {
            play.after(5);
            let sights = (0..10).map(|n| sight(&format!("a{n}"), &format!("b{n}"), ContainerStatus::Running));
            let observed = news(&play.town, sights);
            rows += observed.events.len();
            suppressed += observed.suppressed;
            observed.events.into_iter().for_each(|event| _ = play.takes(event));
        }
        assert_eq!((rows, suppressed), (10, 7_190));
    }

    #[test]
    fn no_change_between_two_looks_is_missed() {
        use ContainerStatus::{Exited, Running};
        let mut play = ten();
        let seen =
            |all: &[ContainerStatus]| all.iter().map(|status| sight("a0", "b0", *status)).collect::<Vec<_>>();
        let observed = news(&play.town, seen(&[Running, Exited, Running, Exited]));
        assert_eq!(statuses(&observed), [Running, Exited, Running, Exited]);
        observed.events.into_iter().for_each(|event| _ = play.takes(event));
        assert_eq!(news(&play.town, seen(&[Exited])), Observed { events: Vec::new(), suppressed: 1 });
        assert_eq!(statuses(&news(&play.town, seen(&[Running]))), [Running]);
    }

    #[test]
    fn who_holds_nothing_is_dead_while_it_cannot_be_used_and_others_are_left_alone() {
        let mut play = ten();
        play.registers("free", Role::Worker, Origin::Configured);
        let usable = |id: &AgentId| (id.as_str() != "w2").then_some(false);
        let turned = fitness(&play.town, usable);
        let named: Vec<_> = turned.iter().map(|event| event.detail()["agent"].clone()).collect();
        assert_eq!(named, ["free", "r1", "w1"], "w2 is of another runtime, and ten work");
        turned.into_iter().for_each(|event| _ = play.takes(event));
        assert_eq!(fitness(&play.town, usable), []);
        let back = fitness(&play.town, |_| Some(true));
        assert_eq!(back.len(), 3);
    }
}
