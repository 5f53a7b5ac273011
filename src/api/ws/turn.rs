//! Answers of one conversation go out in the order in which its messages came in.
//!
//! The gateway finishes them in that order, but each answer has a future of its own, and futures that are ready at the
//! same time are polled in any order. So each waits here for the one before it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::ids::{AgentId, SessionId};

/// A conversation.
type Key = (AgentId, SessionId);

/// The last turn of each conversation that has unanswered messages. A std mutex suffices: nothing waits under it.
#[derive(Default)]
pub(crate) struct Turns {
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    serial: u64,
    ends: HashMap<Key, (u64, oneshot::Receiver<()>)>,
}

/// Waits for the answer before this one.
pub(crate) struct TurnStart(Option<oneshot::Receiver<()>>);

/// Lets the next answer go, when dropped.
pub(crate) struct TurnEnd {
    turns: Arc<Turns>,
    key: Key,
    serial: u64,
    _next: oneshot::Sender<()>,
}

impl Turns {
    /// Takes the next turn of a conversation.
    pub(crate) fn take(self: &Arc<Self>, agent: AgentId, session: SessionId) -> (TurnStart, TurnEnd) {
        let (next, ended) = oneshot::channel();
        let key = (agent, session);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.serial += 1;
        let serial = last.serial;
        let before = last.ends.insert(key.clone(), (serial, ended)).map(|(_, ended)| ended);
        (TurnStart(before), TurnEnd { turns: Arc::clone(self), key, serial, _next: next })
    }
}

impl TurnStart {
    /// Resolves when the answer before this one is on its way; at once the second time.
    pub(crate) async fn wait(&mut self) {
        if let Some(before) = self.0.take() {
            // Sent or dropped, it is over.
            let _ = before.await;
        }
    }
}

impl Drop for TurnEnd {
    fn drop(&mut self) {
        let mut last = self.turns.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.ends.get(&self.key).is_some_and(|(serial, _)| *serial == self.serial) {
            last.ends.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::poll;

    fn key(session: &str) -> Key {
        (AgentId::parse("a").expect("an id"), SessionId::parse(session).expect("an id"))
    }

    #[tokio::test]
    async fn a_turn_waits_for_the_one_before_it_in_its_conversation_only() {
        let turns = Arc::new(Turns::default());
        let take = |session| {
            let (agent, session) = key(session);
            turns.take(agent, session)
        };
        let (mut first, first_end) = take("s");
        let (mut second, second_end) = take("s");
        let (mut other, _other_end) = take("t");
        first.wait().await;
        other.wait().await;
        let mut waiting = Box::pin(second.wait());
        assert!(poll!(&mut waiting).is_pending());
        drop(first_end);
        waiting.await;
        drop(second_end);
        assert_eq!(turns.last.lock().expect("not poisoned").ends.len(), 1, "what is answered is forgotten");
    }
}
