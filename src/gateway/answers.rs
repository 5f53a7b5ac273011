//! The ends of requests, kept for a while, so that whoever went away before the answer finds it.
//!
//! In memory only, bounded in time, number and bytes; the oldest leaves first. What is kept is shared with whoever was
//! waiting, never copied. Start at [`Answers`].

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::{Answer, Config, Fingerprint, Rejection};
use crate::clock::Timestamp;
use crate::ids::{AgentId, RequestId, SessionId};

/// How a request ended, shared by everybody who asked for it.
pub type Ended = Result<Arc<Answer>, Arc<Rejection>>;

/// What an entry costs beside its texts: two table rows, the answer's own fields, ids. Rounded up.
const ENTRY_BYTES: usize = 1_024;

/// A request that ended.
#[derive(Debug)]
pub(super) struct EndedRequest {
    pub(super) agent: AgentId,
    pub(super) session: SessionId,
    pub(super) key: Option<Fingerprint>,
    pub(super) accepted_at: Timestamp,
    pub(super) ended_at: Timestamp,
    pub(super) result: Ended,
}

impl EndedRequest {
    fn bytes(&self) -> usize {
        let texts = match &self.result {
            Ok(answer) => {
                let tools: usize = answer.tool_calls.iter().map(|tool| tool.name.len()).sum();
                answer.text.capacity() + tools
            }
            Err(rejection) => {
                let length = |text: Option<&str>| text.map_or(0, str::len);
                length(rejection.partial()) + length(rejection.quoted())
            }
        };
        ENTRY_BYTES + texts
    }
}

/// Tells everybody who waits for a request how it ended.
#[derive(Debug, Default)]
pub(super) struct End {
    ended: OnceLock<Arc<EndedRequest>>,
    changed: Notify,
}

impl End {
    /// Sets how it ended, unless that is known already.
    pub(super) fn set(&self, ended: impl FnOnce() -> EndedRequest) -> Arc<EndedRequest> {
        let ended = Arc::clone(self.ended.get_or_init(|| Arc::new(ended())));
        self.changed.notify_waiters();
        ended
    }

    /// Whether it is known how it ended.
    pub(super) fn is_set(&self) -> bool {
        self.ended.get().is_some()
    }

    /// Waits for the end. Safe to drop at any time.
    pub(super) async fn wait(&self) -> Arc<EndedRequest> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From here on nothing is missed, so a look now and a wait after it see every end.
            changed.as_mut().enable();
            if let Some(ended) = self.ended.get() {
                return Arc::clone(ended);
            }
            changed.await;
        }
    }
}

/// How many ends had to leave before their time, by the limit that made them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Evicted {
    pub(super) by_number: usize,
    pub(super) by_bytes: usize,
}

/// The ends that are kept. A std mutex suffices: every hold is a few map operations.
pub(super) struct Answers {
    kept_for: Duration,
    number_max: usize,
    bytes_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    by_request: HashMap<RequestId, (u64, Arc<EndedRequest>)>,
    /// The oldest first.
    order: VecDeque<Place>,
    bytes: usize,
    last_number: u64,
}

struct Place {
    number: u64,
    since: Duration,
    request: RequestId,
    bytes: usize,
}

impl Answers {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            kept_for: config.answers_kept.0,
            number_max: config.answers_max,
            bytes_max: usize::try_from(config.answers_bytes_max.0).unwrap_or(usize::MAX),
            kept: Mutex::default(),
        }
    }

    /// Keeps an end. `now` is monotonic. A caller's own request id that comes again names the newest.
    pub(super) fn keep(&self, request: &RequestId, ended: &Arc<EndedRequest>, now: Duration) -> Evicted {
        if self.number_max == 0 || self.bytes_max == 0 || self.kept_for.is_zero() {
            return Evicted::default();
        }
        let bytes = ended.bytes();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.expire(now, self.kept_for);
        if bytes > self.bytes_max {
            return Evicted { by_number: 0, by_bytes: 1 };
        }
        let by_number = kept.evict_while(|kept| kept.order.len() >= self.number_max);
        let by_bytes = kept.evict_while(|kept| kept.bytes + bytes > self.bytes_max);
        kept.last_number += 1;
        let number = kept.last_number;
        kept.by_request.insert(request.clone(), (number, Arc::clone(ended)));
        kept.order.push_back(Place { number, since: now, request: request.clone(), bytes });
        kept.bytes += bytes;
        Evicted { by_number, by_bytes }
    }

    /// The end of this request, if it is kept.
    pub(super) fn get(&self, request: &RequestId, now: Duration) -> Option<Arc<EndedRequest>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.expire(now, self.kept_for);
        kept.by_request.get(request).map(|(_, ended)| Arc::clone(ended))
    }
}

impl Kept {
    fn expire(&mut self, now: Duration, kept_for: Duration) {
        while self.order.front().is_some_and(|oldest| now.saturating_sub(oldest.since) >= kept_for) {
            self.forget_oldest();
        }
    }

    fn evict_while(&mut self, over: impl Fn(&Self) -> bool) -> usize {
        let before = self.order.len();
        while !self.order.is_empty() && over(self) {
            self.forget_oldest();
        }
        before - self.order.len()
    }

    fn forget_oldest(&mut self) {
        let Some(Place { number, since: _, request, bytes }) = self.order.pop_front() else { return };
        self.bytes -= bytes;
        if self.by_request.get(&request).is_some_and(|(kept, _)| *kept == number) {
            self.by_request.remove(&request);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{Bytes, Period};

    fn answers(number_max: usize, bytes_max: usize) -> Answers {
        let answers_bytes_max = Bytes(bytes_max as u64);
        let answers_kept = Period::from_secs(100);
        Answers::new(&Config {
            answers_kept,
            answers_max: number_max,
            answers_bytes_max,
            ..Config::default()
        })
    }

    fn id(text: &str) -> RequestId {
        RequestId::parse(text).expect("valid")
    }

    fn failed(partial: &str) -> Arc<EndedRequest> {
        Arc::new(EndedRequest {
            agent: AgentId::parse("a").expect("valid"),
            session: SessionId::parse("s").expect("valid"),
            key: None,
            accepted_at: Timestamp::default(),
            ended_at: Timestamp::default(),
            result: Err(Arc::new(Rejection::Bug { partial: partial.to_owned() })),
        })
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn kept(answers: &Answers, now: u64) -> Vec<&'static str> {
        let all = ["one", "two", "three", "four"];
        all.into_iter().filter(|name| answers.get(&id(name), at(now)).is_some()).collect()
    }

    #[test]
    fn the_oldest_leaves_first_at_exactly_the_number_of_the_limit() {
        let answers = answers(2, 1 << 20);
        for name in ["one", "two"] {
            assert_eq!(answers.keep(&id(name), &failed(""), at(0)), Evicted::default());
        }
        let evicted = answers.keep(&id("three"), &failed(""), at(1));
        assert_eq!(evicted, Evicted { by_number: 1, by_bytes: 0 });
        assert_eq!(kept(&answers, 1), ["two", "three"]);
    }

    #[test]
    fn the_bytes_of_all_stay_within_the_limit_and_what_is_larger_is_not_kept() {
        let answers = answers(9, 2 * ENTRY_BYTES + 8);
        answers.keep(&id("one"), &failed("1234"), at(0));
        assert_eq!(answers.keep(&id("two"), &failed("1234"), at(0)), Evicted::default(), "exactly the limit");
        let evicted = answers.keep(&id("three"), &failed("1"), at(0));
        assert_eq!(
            (evicted, kept(&answers, 0)),
            (Evicted { by_number: 0, by_bytes: 1 }, vec!["two", "three"])
        );
        let large = "x".repeat(2 * ENTRY_BYTES);
        assert_eq!(answers.keep(&id("four"), &failed(&large), at(0)).by_bytes, 1);
        assert_eq!(kept(&answers, 0), ["two", "three"], "the others stay");
    }

    #[test]
    fn an_end_is_kept_for_its_time_and_no_longer() {
        let answers = answers(9, 1 << 20);
        answers.keep(&id("one"), &failed(""), at(0));
        answers.keep(&id("two"), &failed(""), at(1));
        assert_eq!(kept(&answers, 99), ["one", "two"]);
        assert_eq!(kept(&answers, 100), ["two"]);
        assert!(kept(&answers, 101).is_empty());
        assert_eq!(answers.kept.lock().expect("no panic under it").bytes, 0);
    }

    #[test]
    fn an_id_that_comes_again_names_the_newest_and_outlives_the_older() {
        let answers = answers(2, 1 << 20);
        answers.keep(&id("one"), &failed("old"), at(0));
        let newest = failed("new");
        answers.keep(&id("one"), &newest, at(1));
        answers.keep(&id("two"), &failed(""), at(2));
        let found = answers.get(&id("one"), at(2)).expect("kept");
        assert!(Arc::ptr_eq(&found, &newest));
    }

    #[test]
    fn a_limit_of_zero_keeps_nothing_and_counts_nothing() {
        for answers in [answers(0, 1 << 20), answers(9, 0)] {
            assert_eq!(answers.keep(&id("one"), &failed(""), at(0)), Evicted::default());
            assert!(kept(&answers, 0).is_empty());
        }
    }

    #[tokio::test]
    async fn everybody_who_waits_hears_the_end_and_so_does_who_asks_later() {
        let end = Arc::new(End::default());
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let end = Arc::clone(&end);
                tokio::spawn(async move { end.wait().await })
            })
            .collect();
        tokio::task::yield_now().await;
        let first =
            end.set(|| EndedRequest { agent: AgentId::parse("b").expect("valid"), ..take(failed("")) });
        end.set(|| unreachable!("it ended once"));
        for waiter in waiting {
            assert!(Arc::ptr_eq(&waiter.await.expect("no panic"), &first));
        }
        assert!(Arc::ptr_eq(&end.wait().await, &first));
    }

    fn take(ended: Arc<EndedRequest>) -> EndedRequest {
        Arc::into_inner(ended).expect("nobody else has it")
    }
}
