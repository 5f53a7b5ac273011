//! The lane scheduler: which request runs next. Pure: no clock, no async, no IO; time is an argument.
//!
//! A lane is the queue of one session of one agent. It is first in, first out, and runs one request at a time. Turns go
//! round between agents first and between the lanes of an agent second, so that an agent with 500 full lanes delays
//! nobody but itself. What has no turn (its lane runs, its agent is at its cap) stands in no queue, so a turn costs
//! O(log n) however much waits. It does not know what a request is: see [`Ticket`]. Start at [`Lanes`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use crate::ids::{AgentId, SessionId};

/// The shortest hint to try again: below it a refused caller would only add to the load.
const RETRY_AFTER_MIN: Duration = Duration::from_millis(100);

/// The longest hint to try again: what is known about the load is older than that by then.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// A place in a lane. Tickets are given in ascending order, so the smallest of a lane is its oldest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

/// Names one lane.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct LaneKey {
    /// The agent that answers.
    pub(super) agent: AgentId,
    /// The conversation.
    pub(super) session: SessionId,
}

/// What the scheduler never goes beyond.
#[derive(Debug, Clone, Copy)]
pub(super) struct LaneLimits {
    /// Requests that run at once over all agents.
    pub(super) running_max: usize,
    /// Requests that wait over all lanes.
    pub(super) queued_max: usize,
    /// Requests that wait in one lane.
    pub(super) lane_depth_max: usize,
}

/// A request that got a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Queued {
    /// Its place.
    pub(super) ticket: Ticket,
    /// How many of its lane stand before it, the running one included.
    pub(super) ahead: usize,
}

/// Why a request got no place, and when it may be worth another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// The lane holds as many as it may.
    Lane {
        /// How many wait in it.
        depth: usize,
        /// About when the next place comes free.
        retry_after: Duration,
    },
    /// All lanes together hold as many as they may.
    Gateway {
        /// How many wait in all.
        queued: usize,
        /// About when the next place comes free.
        retry_after: Duration,
    },
}

/// What a ticket that leaves had been doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// It was waiting.
    Waiting,
    /// It was running; its lane is free now.
    Running,
}

/// All lanes of all agents.
#[derive(Debug)]
pub(super) struct Lanes {
    limits: LaneLimits,
    agents: HashMap<AgentId, AgentLanes>,
    /// Agents that could run another request now, by turn.
    turns: BTreeMap<u64, AgentId>,
    waiting: BTreeMap<Ticket, Place>,
    running: HashMap<Ticket, Place>,
    lanes: usize,
    last_ticket: u64,
    last_turn: u64,
    /// Moving average of how long a request runs; what the retry hints are made from.
    run_time: Duration,
}

#[derive(Debug)]
struct Place {
    key: LaneKey,
    /// When it came.
    enqueued: Duration,
    /// When its turn began, for one that runs.
    since: Duration,
}

#[derive(Debug)]
struct AgentLanes {
    concurrent_max: usize,
    running: usize,
    lanes: HashMap<SessionId, Lane>,
    /// Lanes whose first may run and where nobody runs, by turn.
    ready: BTreeMap<u64, SessionId>,
    turn: Option<u64>,
}

#[derive(Debug, Default)]
struct Lane {
    waiting: BTreeSet<Ticket>,
    /// Those of them that may not run yet. Whoever stands behind one waits too: a lane keeps its order.
    held: BTreeSet<Ticket>,
    running: Option<Ticket>,
    turn: Option<u64>,
}

impl Lanes {
    /// No lanes yet.
    pub(super) fn new(limits: LaneLimits) -> Self {
        Self {
            limits,
            agents: HashMap::new(),
            turns: BTreeMap::new(),
            waiting: BTreeMap::new(),
            running: HashMap::new(),
            lanes: 0,
            last_ticket: 0,
            last_turn: 0,
            run_time: Duration::ZERO,
        }
    }

    /// Lets at most `concurrent_max` requests of an agent run at once; without this, only the global cap holds.
    pub(super) fn cap_agent(&mut self, agent: &AgentId, concurrent_max: usize) {
        self.agent_mut(agent).concurrent_max = concurrent_max;
        self.settle(agent, None);
    }

    /// Keeps nothing of an agent, unless it still has somebody in a lane.
    pub(super) fn forget_agent(&mut self, agent: &AgentId) {
        if self.agents.get(agent).is_some_and(|lanes| lanes.lanes.is_empty()) {
            self.agents.remove(agent);
        }
    }

    /// Takes a place at the end of a lane. `now` is monotonic.
    ///
    /// # Errors
    /// [`Full`], and nothing has changed.
    pub(super) fn enqueue(&mut self, key: LaneKey, now: Duration) -> Result<Queued, Full> {
        if self.waiting.len() >= self.limits.queued_max {
            return Err(Full::Gateway { queued: self.waiting.len(), retry_after: self.retry_after() });
        }
        let depth = self.lane(&key).map_or(0, |lane| lane.waiting.len());
        if depth >= self.limits.lane_depth_max {
            return Err(Full::Lane { depth, retry_after: retry_hint(self.run_time) });
        }
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        let agent = self.agent_mut(&key.agent);
        let known = agent.lanes.len();
        let lane = agent.lanes.entry(key.session.clone()).or_default();
        lane.waiting.insert(ticket);
        let ahead = depth + usize::from(lane.running.is_some());
        self.lanes += self.agents[&key.agent].lanes.len() - known;
        self.settle(&key.agent, Some(&key.session));
        self.waiting.insert(ticket, Place { key, enqueued: now, since: now });
        Ok(Queued { ticket, ahead })
    }

    /// Gives a waiting ticket no turn until it is released; it keeps its place.
    pub(super) fn hold(&mut self, ticket: Ticket) {
        self.set_held(ticket, true);
    }

    /// Ends that.
    pub(super) fn release(&mut self, ticket: Ticket) {
        self.set_held(ticket, false);
    }

    /// Takes the turn back from a ticket that runs: it stands at the head of its lane again, and gets no turn until it is
    /// released. Nobody of its lane goes before it.
    pub(super) fn park(&mut self, ticket: Ticket) {
        let Some(Place { key, enqueued, since }) = self.running.remove(&ticket) else { return };
        let lane = self.lane_mut(&key).expect("a place belongs to a lane");
        assert_eq!(lane.running.take(), Some(ticket), "a running ticket runs in its lane");
        lane.waiting.insert(ticket);
        lane.held.insert(ticket);
        assert_eq!(lane.waiting.first(), Some(&ticket), "who ran stands before all who waited");
        self.agent_mut(&key.agent).running -= 1;
        self.settle(&key.agent, Some(&key.session));
        self.waiting.insert(ticket, Place { key, enqueued, since });
    }

    fn set_held(&mut self, ticket: Ticket, held: bool) {
        let Some(Place { key, .. }) = self.waiting.get(&ticket) else { return };
        let key = key.clone();
        let lane = self.lane_mut(&key).expect("a place belongs to a lane");
        if held {
            lane.held.insert(ticket)
        } else {
            lane.held.remove(&ticket)
        };
        self.settle(&key.agent, Some(&key.session));
    }

    /// Gives the next turn: the ticket that runs from now on, if any may. Call it until it gives none.
    pub(super) fn start_next(&mut self, now: Duration) -> Option<Ticket> {
        if self.running.len() >= self.limits.running_max {
            return None;
        }
        let (_, agent_id) = self.turns.pop_first()?;
        let agent = self.agent_mut(&agent_id);
        agent.turn = None;
        let (_, session) = agent.ready.pop_first().expect("an agent with a turn has a ready lane");
        let lane = agent.lanes.get_mut(&session).expect("a ready lane exists");
        lane.turn = None;
        let ticket = lane.waiting.pop_first().expect("a ready lane has somebody waiting");
        assert!(lane.running.is_none(), "a ready lane runs nothing");
        lane.running = Some(ticket);
        agent.running += 1;
        assert!(agent.running <= agent.concurrent_max, "an agent at its cap has no turn");
        let place = self.waiting.remove(&ticket).expect("a ticket in a lane has a place");
        self.running.insert(ticket, Place { since: now, ..place });
        self.settle(&agent_id, None);
        Some(ticket)
    }

    /// Takes a ticket out, whether it waits or runs; `None` if it is not there (any more).
    pub(super) fn leave(&mut self, ticket: Ticket, now: Duration) -> Option<Left> {
        if let Some(place) = self.waiting.remove(&ticket) {
            let lane = self.lane_mut(&place.key).expect("a place belongs to a lane");
            assert!(lane.waiting.remove(&ticket), "a waiting ticket stands in its lane");
            lane.held.remove(&ticket);
            self.settle(&place.key.agent, Some(&place.key.session));
            return Some(Left::Waiting);
        }
        let place = self.running.remove(&ticket)?;
        let ran = now.saturating_sub(place.since);
        self.run_time = if self.run_time.is_zero() { ran } else { (self.run_time * 7 + ran) / 8 };
        let lane = self.lane_mut(&place.key).expect("a place belongs to a lane");
        assert_eq!(lane.running.take(), Some(ticket), "a running ticket runs in its lane");
        self.agent_mut(&place.key.agent).running -= 1;
        self.settle(&place.key.agent, Some(&place.key.session));
        Some(Left::Running)
    }

    /// About when the next place comes free, whichever it is.
    pub(super) fn retry_after(&self) -> Duration {
        let share = u32::try_from(self.running.len().max(1)).unwrap_or(u32::MAX);
        retry_hint(self.run_time / share)
    }

    /// How many wait.
    pub(super) fn queued(&self) -> usize {
        self.waiting.len()
    }

    /// How many run.
    #[cfg(test)]
    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    /// How many lanes hold somebody.
    pub(super) fn lanes(&self) -> usize {
        self.lanes
    }

    /// How long the oldest waiting request has waited; zero if none waits.
    pub(super) fn oldest_age(&self, now: Duration) -> Duration {
        self.waiting.first_key_value().map_or(Duration::ZERO, |(_, place)| now.saturating_sub(place.enqueued))
    }

    /// Brings turns in line with what is so: a lane is ready exactly if its first may run and nobody runs in it; an agent
    /// has a turn exactly if one of its lanes is ready and it is below its cap. Empty lanes go.
    fn settle(&mut self, agent_id: &AgentId, session: Option<&SessionId>) {
        let agent = self.agents.get_mut(agent_id).expect("only known agents are settled");
        if let Some(session) = session
            && let Some(lane) = agent.lanes.get_mut(session)
        {
            let first = lane.waiting.first();
            let ready = lane.running.is_none() && first.is_some_and(|first| !lane.held.contains(first));
            match (ready, lane.turn) {
                (true, None) => {
                    self.last_turn += 1;
                    lane.turn = Some(self.last_turn);
                    agent.ready.insert(self.last_turn, session.clone());
                }
                (false, Some(turn)) => {
                    lane.turn = None;
                    agent.ready.remove(&turn);
                }
                (true, Some(_)) | (false, None) => {}
            }
            if lane.waiting.is_empty() && lane.running.is_none() {
                agent.lanes.remove(session);
                self.lanes -= 1;
            }
        }
        let eligible = !agent.ready.is_empty() && agent.running < agent.concurrent_max;
        match (eligible, agent.turn) {
            (true, None) => {
                self.last_turn += 1;
                agent.turn = Some(self.last_turn);
                self.turns.insert(self.last_turn, agent_id.clone());
            }
            (false, Some(turn)) => {
                agent.turn = None;
                self.turns.remove(&turn);
            }
            (true, Some(_)) | (false, None) => {}
        }
    }

    fn agent_mut(&mut self, agent: &AgentId) -> &mut AgentLanes {
        self.agents.entry(agent.clone()).or_insert_with(|| AgentLanes {
            concurrent_max: usize::MAX,
            running: 0,
            lanes: HashMap::new(),
            ready: BTreeMap::new(),
            turn: None,
        })
    }

    fn lane(&self, key: &LaneKey) -> Option<&Lane> {
        self.agents.get(&key.agent)?.lanes.get(&key.session)
    }

    fn lane_mut(&mut self, key: &LaneKey) -> Option<&mut Lane> {
        self.agents.get_mut(&key.agent)?.lanes.get_mut(&key.session)
    }
}

fn retry_hint(expected: Duration) -> Duration {
    expected.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX)
}

#[cfg(test)]
mod tests;
