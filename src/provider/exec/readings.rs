//! What the first model call of a turn read, as programs said it: about what one reads that is stopped before it says so.
//!
//! In memory only, for the conversations that were heard of last. Start at [`Readings::expected`].

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::Turn;
use super::super::call::Reading;
use crate::ids::{AgentId, SessionId};
use crate::limits::AGENT_READINGS_MAX;

/// See the module. A std mutex suffices: a hold is a search in a short list.
#[derive(Debug, Default)]
pub(super) struct Readings(Mutex<VecDeque<Known>>);

/// Whose turn it is.
pub(super) struct Asking {
    pub(super) agent: AgentId,
    pub(super) session: SessionId,
    /// Whether it resumes the agent's own conversation.
    pub(super) goes_on: bool,
}

impl Asking {
    pub(super) fn of(turn: &Turn) -> Self {
        let Turn { agent, session, agent_session, .. } = turn;
        Self { agent: agent.clone(), session: session.clone(), goes_on: agent_session.is_some() }
    }
}

#[derive(Debug)]
struct Known {
    agent: AgentId,
    session: SessionId,
    reading: Reading,
}

impl Readings {
    /// Keeps what a turn said that it read.
    pub(super) fn keep(&self, asking: &Asking, reading: Reading) {
        let Asking { agent, session, goes_on: _ } = asking;
        let mut known = self.known();
        known.retain(|known| (&known.agent, &known.session) != (agent, session));
        while known.len() >= AGENT_READINGS_MAX {
            known.pop_front();
        }
        known.push_back(Known { agent: agent.clone(), session: session.clone(), reading });
    }

    /// The least that a turn will read: what the one before it did in a conversation that goes on, else the least of the
    /// agent's others, which is its own instructions and tools.
    pub(super) fn expected(&self, asking: &Asking) -> Option<Reading> {
        let known = self.known();
        let of_agent = || known.iter().filter(|known| known.agent == asking.agent);
        let same = of_agent().find(|known| asking.goes_on && known.session == asking.session);
        let least = same.or_else(|| of_agent().min_by_key(|known| known.reading.input));
        least.map(|known| known.reading)
    }

    fn known(&self) -> MutexGuard<'_, VecDeque<Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: u64) -> Reading {
        Reading { input, ..Reading::default() }
    }

    #[test]
    fn a_conversation_that_goes_on_reads_what_it_did_and_another_the_least_of_its_agents() {
        let readings = Readings::default();
        let turn = |agent: &str, session: &str, goes_on: bool| Asking {
            agent: AgentId::parse(agent).expect("valid"),
            session: SessionId::parse(session).expect("valid"),
            goes_on,
        };
        let expected = |agent, session, goes_on| readings.expected(&turn(agent, session, goes_on));
        assert_eq!(expected("a", "s", true), None);
        for (session, input) in [("s", 900), ("t", 200), ("u", 300), ("s", 1_000)] {
            readings.keep(&turn("a", session, false), read(input));
        }
        assert_eq!(expected("a", "s", true), Some(read(1_000)));
        assert_eq!(expected("a", "s", false), Some(read(200)), "it was reset");
        assert_eq!(expected("a", "new", true), Some(read(200)));
        assert_eq!(expected("b", "s", true), None, "another agent");
        for n in 0..AGENT_READINGS_MAX {
            readings.keep(&turn("b", &format!("s{n}"), false), read(5));
        }
        assert_eq!((expected("a", "s", true), readings.known().len()), (None, AGENT_READINGS_MAX));
    }
}
