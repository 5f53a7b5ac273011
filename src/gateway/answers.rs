//! The ends of requests, kept for a while, so that whoever went away before the answer finds it.
//!
//! In memory only, bounded in time, number and bytes. Where room is needed, the oldest of the caller who holds the most
//! leaves first: who keeps to an even share loses nothing to others. What is kept is shared with whoever was waiting,
//! never copied. Start at [`Answers`].

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::{Answer, Config, Fingerprint, Rejection};
use crate::clock::Timestamp;
use crate::ids::{AgentId, RequestId, SessionId};
use crate::journal::Actor;

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

/// The ends that are kept. A std mutex suffices: every hold is a few map operations, and a look at what each caller holds
/// for every end that has to leave.
pub(super) struct Answers {
    kept_for: Duration,
    number_max: usize,
    bytes_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    by_request: HashMap<RequestId, (u64, Arc<EndedRequest>)>,
    /// By number: the oldest first.
    places: BTreeMap<u64, Place>,
    /// Of the callers who hold anything.
    shares: HashMap<Actor, Share>,
    bytes: usize,
    last_number: u64,
}

struct Place {
    caller: Actor,
    since: Duration,
    request: RequestId,
    bytes: usize,
}

/// What one caller holds.
#[derive(Default)]
struct Share {
    /// The oldest first.
    numbers: VecDeque<u64>,
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
    pub(super) fn keep(
        &self,
        caller: &Actor,
        request: &RequestId,
        ended: &Arc<EndedRequest>,
        now: Duration,
    ) -> Evicted {
        if self.number_max == 0 || self.bytes_max == 0 || self.kept_for.is_zero() {
            return Evicted::default();
        }
        let bytes = ended.bytes();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.expire(now, self.kept_for);
        if bytes > self.bytes_max {
            return Evicted { by_number: 0, by_bytes: 1 };
        }
        let place = Place { caller: caller.clone(), since: now, request: request.clone(), bytes };
        kept.insert(place, ended);
        let by_number =
            kept.evict_while(|kept| kept.places.len() > self.number_max, |share| share.numbers.len());
        let by_bytes = kept.evict_while(|kept| kept.bytes > self.bytes_max, |share| share.bytes);
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
    fn insert(&mut self, place: Place, ended: &Arc<EndedRequest>) {
        self.last_number += 1;
        let number = self.last_number;
        self.by_request.insert(place.request.clone(), (number, Arc::clone(ended)));
        let share = self.shares.entry(place.caller.clone()).or_default();
        share.numbers.push_back(number);
        share.bytes += place.bytes;
        self.bytes += place.bytes;
        self.places.insert(number, place);
    }

    fn expire(&mut self, now: Duration, kept_for: Duration) {
        while let Some((_, oldest)) = self.places.first_key_value()
            && now.saturating_sub(oldest.since) >= kept_for
        {
            let caller = oldest.caller.clone();
            self.forget_oldest_of(&caller);
        }
    }

    /// Takes from whoever holds the most by `weight`; among equals, from whose oldest is the oldest.
    fn evict_while(&mut self, over: impl Fn(&Self) -> bool, weight: impl Fn(&Share) -> usize) -> usize {
        let before = self.places.len();
        while over(self) {
            let heaviest =
                self.shares.iter().max_by_key(|(_, share)| (weight(share), Reverse(share.numbers.front())));
            let Some(caller) = heaviest.map(|(caller, _)| caller.clone()) else { break };
            self.forget_oldest_of(&caller);
        }
        before - self.places.len()
    }

    fn forget_oldest_of(&mut self, caller: &Actor) {
        let Some(share) = self.shares.get_mut(caller) else { return };
        let number = share.numbers.pop_front().expect("who holds nothing has no share");
        let Place { caller: _, since: _, request, bytes } =
            self.places.remove(&number).expect("every number has its place");
        share.bytes -= bytes;
        self.bytes -= bytes;
        if share.numbers.is_empty() {
            self.shares.remove(caller);
        }
        if self.by_request.get(&request).is_some_and(|(kept, _)| *kept == number) {
            self.by_request.remove(&request);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
            assert_eq!(answers.keep(&Actor::Local, &id(name), &failed(""), at(0)), Evicted::default());
        }
        let evicted = answers.keep(&Actor::Local, &id("three"), &failed(""), at(1));
        assert_eq!(evicted, Evicted { by_number: 1, by_bytes: 0 });
        assert_eq!(kept(&answers, 1), ["two", "three"]);
    }

    #[test]
    fn the_bytes_of_all_stay_within_the_limit_and_what_is_larger_is_not_kept() {
        let answers = answers(9, 2 * ENTRY_BYTES + 8);
        answers.keep(&Actor::Local, &id("one"), &failed("1234"), at(0));
        assert_eq!(
            answers.keep(&Actor::Local, &id("two"), &failed("1234"), at(0)),
            Evicted::default(),
            "exactly the limit"
        );
        let evicted = answers.keep(&Actor::Local, &id("three"), &failed("1"), at(0));
        assert_eq!(
            (evicted, kept(&answers, 0)),
            (Evicted { by_number: 0, by_bytes: 1 }, vec!["two", "three"])
        );
        let large = "x".repeat(2 * ENTRY_BYTES);
        assert_eq!(answers.keep(&Actor::Local, &id("four"), &failed(&large), at(0)).by_bytes, 1);
        assert_eq!(kept(&answers, 0), ["two", "three"], "the others stay");
    }

    #[test]
    fn an_end_is_kept_for_its_time_and_no_longer() {
        let answers = answers(9, 1 << 20);
        answers.keep(&Actor::Local, &id("one"), &failed(""), at(0));
        answers.keep(&Actor::Local, &id("two"), &failed(""), at(1));
        assert_eq!(kept(&answers, 99), ["one", "two"]);
        assert_eq!(kept(&answers, 100), ["two"]);
        assert!(kept(&answers, 101).is_empty());
        assert_eq!(answers.kept.lock().expect("no panic under it").bytes, 0);
    }

    #[test]
    fn an_id_that_comes_again_names_the_newest_and_outlives_the_older() {
        let answers = answers(2, 1 << 20);
        answers.keep(&Actor::Local, &id("one"), &failed("old"), at(0));
        let newest = failed("new");
        answers.keep(&Actor::Local, &id("one"), &newest, at(1));
        answers.keep(&Actor::Local, &id("two"), &failed(""), at(2));
        let found = answers.get(&id("one"), at(2)).expect("kept");
        assert!(Arc::ptr_eq(&found, &newest));
    }

    #[test]
    fn a_limit_of_zero_keeps_nothing_and_counts_nothing() {
        for answers in [answers(0, 1 << 20), answers(9, 0)] {
            assert_eq!(answers.keep(&Actor::Local, &id("one"), &failed(""), at(0)), Evicted::default());
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

    /// Callers in the property below.
    fn caller(number: usize) -> Actor {
        [Actor::Local, Actor::Planner, Actor::System][number].clone()
    }

    /// What each caller was answered and has not expired, with its size, the oldest first.
    type Sent = [Vec<(String, usize)>; 3];

    /// Of what a caller was answered, how many of the newest are kept; nothing older is.
    fn newest_kept(answers: &Answers, sent: &[(String, usize)]) -> usize {
        let is_kept = |(name, _): &&(String, usize)| answers.get(&id(name), at(0)).is_some();
        let newest = sent.iter().rev().take_while(is_kept).count();
        assert_eq!(sent.iter().filter(is_kept).count(), newest, "a newer one left before an older one");
        newest
    }

    proptest! {
        #[test]
        fn who_keeps_to_an_even_share_loses_nothing(
            sends in prop::collection::vec((0_usize..3, 0_usize..4_000), 1..60),
            number_max in 1_usize..12,
            bytes_max in 3_000_usize..30_000,
        ) {
            let answers = answers(number_max, bytes_max);
            let mut sent = Sent::default();
            for (index, (from, length)) in sends.into_iter().enumerate() {
                let ended = failed(&"x".repeat(length));
                if ended.bytes() > bytes_max {
                    continue;
                }
                let before: Vec<_> = sent.iter().map(|sent| newest_kept(&answers, sent)).collect();
                let name = format!("r{index}");
                sent[from].push((name.clone(), ended.bytes()));
                let evicted = answers.keep(&caller(from), &id(&name), &ended, at(0));
                let mut held: Vec<_> = before;
                held[from] += 1;
                let of = |who: usize, number: usize| -> usize {
                    sent[who].iter().rev().take(number).map(|(_, bytes)| bytes).sum()
                };
                let callers = held.iter().filter(|number| **number > 0).count();
                let after: Vec<_> = sent.iter().map(|sent| newest_kept(&answers, sent)).collect();
                for who in 0..3 {
                    let even = held[who] * callers <= number_max && of(who, held[who]) * callers <= bytes_max;
                    prop_assert!(!even || after[who] == held[who], "{who} lost some: {held:?} {after:?}");
                }
                let (number, bytes) = (after.iter().sum::<usize>(), (0..3).map(|who| of(who, after[who])).sum::<usize>());
                prop_assert!(number <= number_max && bytes <= bytes_max);
                prop_assert_eq!(held.iter().sum::<usize>() - number, evicted.by_number + evicted.by_bytes);
                let kept = answers.kept.lock().expect("no panic under it");
                prop_assert_eq!((kept.places.len(), kept.by_request.len(), kept.bytes), (number, number, bytes));
                prop_assert!(kept.shares.values().all(|share| !share.numbers.is_empty()));
            }
        }
    }
}
