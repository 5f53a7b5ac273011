//! Answers of one conversation go out in the order in which its messages came in.
//!
//! The gateway finishes them in that order, but each answer has a future of its own, and futures that are ready at the
//! same time are polled in any order. So each waits here for those before it. One that has nothing to say in its turn,
//! because it was stopped before it began, need not wait: those behind it wait for those before it all the same.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::ids::{AgentId, SessionId};

/// A conversation.
type Key = (AgentId, SessionId);

/// The messages of one connection that are not answered. A std mutex suffices: nothing waits under it.
#[derive(Default)]
pub(crate) struct Turns {
    unanswered: Mutex<Unanswered>,
    /// Tells those who wait that one was answered.
    answered: Notify,
}

#[derive(Default)]
struct Unanswered {
    last: u64,
    of: HashMap<Key, BTreeSet<u64>>,
}

/// Waits for the answers before this one.
pub(crate) struct TurnStart(Arc<Place>);

/// Lets the next answer go, when dropped.
pub(crate) struct TurnEnd(Arc<Place>);

struct Place {
    turns: Arc<Turns>,
    key: Key,
    number: u64,
}

impl Turns {
    /// Takes the next turn of a conversation.
    pub(crate) fn take(self: &Arc<Self>, agent: AgentId, session: SessionId) -> (TurnStart, TurnEnd) {
        let key = (agent, session);
        let mut unanswered = self.unanswered();
        unanswered.last += 1;
        let number = unanswered.last;
        unanswered.of.entry(key.clone()).or_default().insert(number);
        let place = Arc::new(Place { turns: Arc::clone(self), key, number });
        (TurnStart(Arc::clone(&place)), TurnEnd(place))
    }

    fn unanswered(&self) -> MutexGuard<'_, Unanswered> {
        self.unanswered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TurnStart {
    /// Resolves when all answers before this one are on their way.
    pub(crate) async fn wait(&self) {
        let Place { turns, key, number } = &*self.0;
        loop {
            // Listening comes first: it hears of every answer from here on.
            let answered = turns.answered.notified();
            let first = turns.unanswered().of.get(key).and_then(BTreeSet::first).copied();
            if first.is_none_or(|first| first >= *number) {
                return;
            }
            answered.await;
        }
    }
}

impl Drop for TurnEnd {
    fn drop(&mut self) {
        let Place { turns, key, number } = &*self.0;
        let mut unanswered = turns.unanswered();
        if let Some(numbers) = unanswered.of.get_mut(key) {
            numbers.remove(number);
            if numbers.is_empty() {
                unanswered.of.remove(key);
            }
        }
        drop(unanswered);
        turns.answered.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::poll;

    fn take(turns: &Arc<Turns>, session: &str) -> (TurnStart, TurnEnd) {
        let agent = AgentId::parse("a").expect("an id");
        turns.take(agent, SessionId::parse(session).expect("an id"))
    }

    #[tokio::test]
    async fn a_turn_waits_for_the_one_before_it_in_its_conversation_only() {
        let turns = Arc::new(Turns::default());
        let (first, first_end) = take(&turns, "s");
        let (second, second_end) = take(&turns, "s");
        let (other, _other_end) = take(&turns, "t");
        first.wait().await;
        other.wait().await;
        let mut waiting = Box::pin(second.wait());
        assert!(poll!(&mut waiting).is_pending());
        drop(first_end);
        waiting.await;
        drop(second_end);
        assert_eq!(turns.unanswered().of.len(), 1, "what is answered is forgotten");
    }

    #[tokio::test]
    async fn one_that_leaves_early_lets_nobody_overtake() {
        let turns = Arc::new(Turns::default());
        let (_first, first_end) = take(&turns, "s");
        let (_second, second_end) = take(&turns, "s");
        let (third, _third_end) = take(&turns, "s");
        let mut waiting = Box::pin(third.wait());
        assert!(poll!(&mut waiting).is_pending());
        drop(second_end);
        assert!(poll!(&mut waiting).is_pending());
        drop(first_end);
        waiting.await;
    }
}
