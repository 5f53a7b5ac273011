//! Sessions: the conversations, kept in memory only, bounded in number, messages, bytes (of each and of all together)
//! and idle time.
//!
//! Pure but for its owner's lock: time is an argument. A session with a request under way is never forgotten; of the
//! others the one idle longest goes first.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use serde::Serialize;

use super::lane::LaneKey;
use crate::ids::{AgentId, SessionId};
use crate::provider::Message;

/// One entry of `session.list`.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionSummary {
    /// The agent.
    pub agent: AgentId,
    /// The conversation.
    pub session: SessionId,
    /// Messages kept.
    pub messages: usize,
    /// Bytes kept.
    pub bytes: usize,
    /// Requests under way.
    pub active: usize,
    /// Milliseconds since it was last used; 0 while a request is under way.
    pub idle_ms: f64,
}

/// What is kept of sessions.
#[derive(Debug, Clone, Copy)]
pub(super) struct SessionLimits {
    pub(super) sessions_max: usize,
    pub(super) idle_max: Duration,
    pub(super) messages_max: usize,
    /// Of each.
    pub(super) bytes_max: usize,
    /// Of all together.
    pub(super) all_bytes_max: usize,
}

/// All sessions.
#[derive(Debug)]
pub(super) struct Sessions {
    limits: SessionLimits,
    all: HashMap<LaneKey, Session>,
    /// Of all histories together.
    bytes: usize,
    /// Those without a request under way, the one idle longest first.
    idle: BTreeSet<(Duration, u64)>,
    keys: HashMap<u64, LaneKey>,
    last_number: u64,
}

#[derive(Debug)]
struct Session {
    number: u64,
    history: VecDeque<Message>,
    bytes: usize,
    active: usize,
    used: Duration,
}

impl Sessions {
    pub(super) fn new(limits: SessionLimits) -> Self {
        let (all, idle, keys) = (HashMap::new(), BTreeSet::new(), HashMap::new());
        Self { limits, all, bytes: 0, idle, keys, last_number: 0 }
    }

    /// Begins or goes on with a session. Gives how many others had to be forgotten for lack of room.
    pub(super) fn enter(&mut self, key: &LaneKey, now: Duration) -> usize {
        self.expire(now);
        let new = !self.all.contains_key(key);
        let evicted = self.evict_while(|s| new && s.all.len() >= s.limits.sessions_max);
        let session = self.all.entry(key.clone()).or_insert_with(|| {
            self.last_number += 1;
            self.keys.insert(self.last_number, key.clone());
            Session { number: self.last_number, history: VecDeque::new(), bytes: 0, active: 0, used: now }
        });
        self.idle.remove(&(session.used, session.number));
        session.active += 1;
        session.used = now;
        evicted
    }

    /// Ends one request of a session; `said` is what it adds to the conversation. Gives how many sessions had to be
    /// forgotten, or cut, because all together had become too large.
    pub(super) fn leave(&mut self, key: &LaneKey, said: Option<[Message; 2]>, now: Duration) -> usize {
        const KEPT: &str = "a session with a request under way is kept";
        let limits = self.limits;
        let session = self.all.get_mut(key).expect(KEPT);
        session.active -= 1;
        session.used = now;
        self.bytes -= session.bytes;
        said.into_iter().flatten().for_each(|message| session.push(message, &limits));
        self.bytes += session.bytes;
        let evicted = self.evict_while(|s| s.bytes > s.limits.all_bytes_max);
        let session = self.all.get_mut(key).expect(KEPT);
        let too_large = self.bytes > limits.all_bytes_max;
        // The others are all in use: what they keep was within the limit before this one grew.
        while self.bytes > limits.all_bytes_max {
            self.bytes -= session.forget_oldest();
        }
        if session.active == 0 {
            self.idle.insert((now, session.number));
        }
        evicted + usize::from(too_large)
    }

    /// What was said so far, oldest first; `None` for a session that is not there.
    pub(super) fn history(&self, key: &LaneKey) -> Option<Vec<Message>> {
        self.all.get(key).map(|session| session.history.iter().cloned().collect())
    }

    /// Forgets what was said; whether there was such a session.
    pub(super) fn reset(&mut self, key: &LaneKey) -> bool {
        let Some(session) = self.all.get_mut(key) else { return false };
        session.history.clear();
        self.bytes -= std::mem::take(&mut session.bytes);
        if session.active == 0 {
            let idle = (session.used, session.number);
            self.forget(idle);
        }
        true
    }

    /// Forgets all sessions of an agent.
    pub(super) fn forget_agent(&mut self, agent: &AgentId) {
        let theirs: Vec<_> = self.all.keys().filter(|key| key.agent == *agent).cloned().collect();
        for key in &theirs {
            self.reset(key);
        }
    }

    /// Every session, by agent and name.
    pub(super) fn list(&mut self, now: Duration) -> Vec<SessionSummary> {
        self.expire(now);
        let show = |(key, session): (&LaneKey, &Session)| {
            let idle = if session.active > 0 { Duration::ZERO } else { now.saturating_sub(session.used) };
            SessionSummary {
                agent: key.agent.clone(),
                session: key.session.clone(),
                messages: session.history.len(),
                bytes: session.bytes,
                active: session.active,
                idle_ms: idle.as_secs_f64() * 1e3,
            }
        };
        let mut shown: Vec<_> = self.all.iter().map(show).collect();
        shown.sort_by(|a, b| (&a.agent, &a.session).cmp(&(&b.agent, &b.session)));
        shown
    }

    /// How many there are.
    pub(super) fn count(&mut self, now: Duration) -> usize {
        self.expire(now);
        self.all.len()
    }

    fn expire(&mut self, now: Duration) {
        while let Some(oldest) = self.idle.first().copied()
            && now.saturating_sub(oldest.0) >= self.limits.idle_max
        {
            self.forget(oldest);
        }
    }

    fn evict_while(&mut self, over: impl Fn(&Self) -> bool) -> usize {
        let mut evicted = 0;
        while over(self)
            && let Some(oldest) = self.idle.first().copied()
        {
            self.forget(oldest);
            evicted += 1;
        }
        evicted
    }

    fn forget(&mut self, idle: (Duration, u64)) {
        assert!(self.idle.remove(&idle), "only an idle session is forgotten");
        let key = self.keys.remove(&idle.1).expect("a session that is kept has its key");
        self.bytes -= self.all.remove(&key).map_or(0, |session| session.bytes);
    }
}

impl Session {
    fn push(&mut self, message: Message, limits: &SessionLimits) {
        self.bytes += message.text.len();
        self.history.push_back(message);
        while self.history.len() > limits.messages_max || self.bytes > limits.bytes_max {
            self.forget_oldest();
        }
    }

    /// Gives how many bytes that freed.
    fn forget_oldest(&mut self) -> usize {
        let oldest = self.history.pop_front().expect("bytes are those of messages");
        self.bytes -= oldest.text.len();
        oldest.text.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::Speaker;

    const LIMITS: SessionLimits = SessionLimits {
        sessions_max: 2,
        idle_max: Duration::from_secs(100),
        messages_max: 4,
        bytes_max: 10,
        all_bytes_max: 20,
    };

    fn key(session: &str) -> LaneKey {
        LaneKey {
            agent: AgentId::parse("a").expect("valid"),
            session: SessionId::parse(session).expect("valid"),
        }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn said(user: &str, assistant: &str) -> Option<[Message; 2]> {
        Some([
            Message { role: Speaker::User, text: user.into() },
            Message { role: Speaker::Assistant, text: assistant.into() },
        ])
    }

    fn talk(sessions: &mut Sessions, session: &str, user: &str, now: u64) -> usize {
        let evicted = sessions.enter(&key(session), at(now));
        sessions.leave(&key(session), said(user, "ok"), at(now));
        evicted
    }

    fn texts(sessions: &Sessions, session: &str) -> Vec<String> {
        let history = sessions.history(&key(session)).unwrap_or_default();
        history.iter().map(|m| m.text.to_string()).collect()
    }

    #[test]
    fn history_keeps_the_newest_within_both_limits() {
        let mut sessions = Sessions::new(LIMITS);
        for (second, user) in ["a", "b", "c"].into_iter().enumerate() {
            talk(&mut sessions, "s", user, second as u64);
        }
        assert_eq!(texts(&sessions, "s"), ["b", "ok", "c", "ok"]);
        talk(&mut sessions, "s", "12345678", 4);
        assert_eq!(texts(&sessions, "s"), ["12345678", "ok"]);
        talk(&mut sessions, "s", "123456789", 5);
        assert_eq!(texts(&sessions, "s"), ["ok"], "what is larger than the limit is not kept");
    }

    #[test]
    fn the_session_idle_longest_makes_room() {
        let mut sessions = Sessions::new(LIMITS);
        talk(&mut sessions, "old", "x", 0);
        talk(&mut sessions, "new", "x", 1);
        assert_eq!(talk(&mut sessions, "third", "x", 2), 1);
        assert_eq!((texts(&sessions, "old").len(), texts(&sessions, "new").len()), (0, 2));
        assert_eq!(sessions.count(at(3)), 2);
    }

    #[test]
    fn all_together_keep_the_bytes_of_the_limit_and_no_more() {
        let mut sessions = Sessions::new(SessionLimits { sessions_max: 9, all_bytes_max: 14, ..LIMITS });
        talk(&mut sessions, "old", "12345", 0);
        talk(&mut sessions, "new", "12345", 1);
        assert_eq!(sessions.bytes, 14, "exactly the limit");
        sessions.enter(&key("busy"), at(2));
        assert_eq!(sessions.leave(&key("busy"), said("1", ""), at(3)), 1, "one idle session too many");
        assert_eq!((texts(&sessions, "old").len(), texts(&sessions, "new").len()), (0, 2));
        sessions.enter(&key("new"), at(4));
        assert!(sessions.reset(&key("busy")));
        sessions.enter(&key("busy"), at(5));
        assert_eq!(sessions.leave(&key("busy"), said("1234567", "8"), at(6)), 1, "no idle session to forget");
        assert_eq!((texts(&sessions, "busy"), sessions.bytes), (vec!["8".to_owned()], 8));
        sessions.leave(&key("new"), None, at(7));
        assert!(sessions.reset(&key("new")) && sessions.reset(&key("busy")));
        assert_eq!(sessions.bytes, 0);
    }

    #[test]
    fn a_session_with_a_request_under_way_is_never_forgotten() {
        let mut sessions = Sessions::new(LIMITS);
        for name in ["busy", "busy too"] {
            sessions.enter(&key(name), at(0));
        }
        talk(&mut sessions, "third", "x", 500);
        assert_eq!(sessions.count(at(1_000)), 2, "only the idle one went");
        sessions.leave(&key("busy"), None, at(1_000));
        assert_eq!(sessions.count(at(1_099)), 2);
        assert_eq!(sessions.count(at(1_100)), 1);
    }

    #[test]
    fn reset_forgets_what_was_said() {
        let mut sessions = Sessions::new(LIMITS);
        talk(&mut sessions, "s", "x", 0);
        assert!(sessions.reset(&key("s")));
        assert!(!sessions.reset(&key("s")));
        sessions.enter(&key("t"), at(0));
        assert!(sessions.reset(&key("t")));
        sessions.leave(&key("t"), said("y", "ok"), at(1));
        assert_eq!(texts(&sessions, "t"), ["y", "ok"]);
    }
}
