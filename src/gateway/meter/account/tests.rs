//! Limits, restarts and once-only words; and that no dollar is lost or counted twice, whatever becomes of the records.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::super::day::Zone;
use super::*;
use crate::gateway::timeline::Timeline;

fn at(secs: u64) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000 + secs * 1_000)
}

fn day_of(now: Timestamp) -> Day {
    Zone::named("UTC").expect("it exists").day_of(now)
}

fn id(n: u64) -> RequestId {
    RequestId::parse(&format!("r{n}")).expect("valid")
}

fn usd(usd: f64) -> Spent {
    Spent { usd: Money::of_usd(usd), ..Spent::default() }
}

fn tokens(tokens: u64) -> Spent {
    Spent { input_tokens: tokens, ..Spent::default() }
}

fn both(usd: f64, input_tokens: u64) -> Spent {
    Spent { usd: Money::of_usd(usd), input_tokens, ..Spent::default() }
}

fn ended(account: &mut Account, request: RequestId, at: Timestamp, spent: Spent) {
    account.ended(request, Ended { at, accepted: at, spent });
}

fn limited(usd_per_day: Option<f64>, tokens_per_min: Option<u64>, requests_per_min: Option<u64>) -> Account {
    let limits = Limits { usd_per_day: usd_per_day.map(Money::of_usd), tokens_per_min, requests_per_min };
    Account { limits, ..Account::default() }
}

fn arrives(account: &mut Account, now: Timestamp) -> Result<(), Reached> {
    account.admit(Asking::Arrival, now, &day_of(now))
}

fn seen(account: &mut Account, request: &RequestId, now: Timestamp, spent: Spent, life: Life) {
    account.fold(&Seen { request, ended: Ended { at: now, accepted: now, spent } }, life);
}

#[test]
fn a_budget_refuses_from_its_last_picodollar_until_the_day_ends() {
    let mut account = limited(Some(0.01), None, None);
    ended(&mut account, id(1), at(0), usd(0.009_999_999_999));
    assert_eq!(arrives(&mut account, at(1)), Ok(()));
    ended(&mut account, id(2), at(1), usd(0.000_000_000_001));
    let end = day_of(at(1)).end;
    assert_eq!(arrives(&mut account, at(2)), Err(Reached { limit: Limit::UsdPerDay, frees_at: end }));
    let last = Timestamp::from_millis(end.as_millis() - 1);
    assert!(arrives(&mut account, last).is_err());
    assert_eq!(arrives(&mut account, end), Ok(()));
}

#[test]
fn a_budget_of_nothing_lets_nobody_in() {
    assert!(arrives(&mut limited(Some(0.0), None, None), at(0)).is_err());
    assert_eq!(arrives(&mut limited(None, None, None), at(0)), Ok(()));
}

#[test]
fn tokens_of_a_minute_refuse_until_enough_of_them_are_a_minute_old() {
    let mut account = limited(None, Some(100), None);
    ended(&mut account, id(1), at(0), tokens(60));
    assert_eq!(arrives(&mut account, at(10)), Ok(()));
    ended(&mut account, id(2), at(10), tokens(60));
    let reached = Reached { limit: Limit::TokensPerMin, frees_at: at(60) };
    assert_eq!(arrives(&mut account, at(20)), Err(reached));
    assert!(arrives(&mut account, at(59)).is_err());
    assert_eq!(arrives(&mut account, at(60)), Ok(()));
}

#[test]
fn requests_of_a_minute_count_from_their_arrival_and_not_again_when_their_turn_comes() {
    let mut account = limited(None, None, Some(2));
    assert_eq!(arrives(&mut account, at(0)), Ok(()));
    assert_eq!(arrives(&mut account, at(1)), Ok(()));
    let reached = Reached { limit: Limit::RequestsPerMin, frees_at: at(60) };
    assert_eq!(arrives(&mut account, at(2)), Err(reached));
    assert_eq!(account.admit(Asking::Turn, at(2), &day_of(at(2))), Ok(()));
    account.take_back(at(1));
    assert_eq!(arrives(&mut account, at(2)), Ok(()), "one found no place");
}

#[test]
fn what_earlier_lives_let_in_counts_once_and_their_spend_too() {
    let mut before = limited(Some(1.0), Some(100), Some(3));
    for n in 0..3 {
        let spent = both(0.25, 10);
        assert_eq!(arrives(&mut before, at(n)), Ok(()));
        ended(&mut before, id(n), at(n), spent);
        seen(&mut before, &id(n), at(n), spent, Life::This);
    }
    assert!(arrives(&mut before, at(3)).is_err());
    let mut after = limited(Some(1.0), Some(100), Some(3));
    after.restore(before.folded().clone());
    assert_eq!(after.spent(&day_of(at(3))), Money::of_usd(0.75));
    assert_eq!(arrives(&mut after, at(3)), arrives(&mut before, at(3)));
    // A record after the snapshot, read back.
    seen(&mut after, &id(9), at(4), usd(0.25), Life::Earlier);
    assert_eq!(arrives(&mut after, at(70)).map_err(|reached| reached.limit), Err(Limit::UsdPerDay));
}

#[test]
fn each_limit_is_told_once_in_its_window() {
    let mut account = limited(Some(0.0), Some(1), Some(1));
    let today = day_of(at(0));
    assert!(account.is_news(Limit::UsdPerDay, at(0), &today));
    assert!(!account.is_news(Limit::UsdPerDay, at(3_600), &today));
    assert!(account.is_news(Limit::UsdPerDay, today.end, &day_of(today.end)));
    assert!(account.is_news(Limit::TokensPerMin, at(0), &today));
    assert!(account.is_news(Limit::RequestsPerMin, at(0), &today), "each by itself");
    assert!(!account.is_news(Limit::TokensPerMin, at(59), &today));
    assert!(account.is_news(Limit::TokensPerMin, at(60), &today));
}

#[test]
fn a_model_without_a_price_is_told_once_a_day_where_there_is_a_budget() {
    let used = [ModelUsed { model: "m".to_owned(), calls: 1, unpriced: 1, ..ModelUsed::default() }];
    let (today, tomorrow) = (day_of(at(0)), day_of(day_of(at(0)).end));
    let mut account = limited(Some(1.0), None, None);
    assert_eq!(account.newly_unpriced(&used, &today).len(), 1);
    assert_eq!(account.newly_unpriced(&used, &today).len(), 0);
    assert_eq!(account.newly_unpriced(&used, &tomorrow).len(), 1);
    assert_eq!(limited(None, None, None).newly_unpriced(&used, &today).len(), 0);
}

/// A quarter of an hour of tokens, of which no minute held more than the limit.
#[test]
fn tokens_that_were_lost_count_in_the_minute_they_were_spent_in() {
    let mut account = limited(None, Some(10), None);
    for n in 0..10 {
        ended(&mut account, id(n), at(60 * n), tokens(9));
        assert!(account.record_lost(&id(n), tokens(9)));
    }
    let [lost] = &account.take_lost()[..] else { panic!("of one quarter") };
    let lost = Lost { tokens: lost.tokens.at(lost.at), ..lost.clone() };
    for (life, mut account) in [(Life::Earlier, limited(None, Some(10), None)), (Life::This, account)] {
        account.fold_lost(&lost, life);
        assert_eq!(arrives(&mut account, at(541)), Ok(()));
        assert_eq!(account.folded.tokens.sum(at(541)) + account.apart.tokens.sum(at(541)), 9);
    }
}

/// Dollars are written as a float: from some thousands on it is not the same in picodollars.
#[test]
fn what_was_written_of_lost_money_is_known_again_whatever_the_amount() {
    let mut account = limited(None, None, None);
    let spent =
        Spent { usd: Money::of_usd(2_251.8).plus(Money::of_usd(0.000_000_000_001)), ..Spent::default() };
    for (n, more) in (0..200).map(|n| (n, Money::of_usd(n as f64 / 1e12))) {
        let spent = Spent { usd: spent.usd.plus(more), ..spent };
        ended(&mut account, id(n), at(n), spent);
        assert!(account.record_lost(&id(n), spent));
        let [lost] = &account.take_lost()[..] else { panic!("one") };
        let read = Spent { usd: Money::of_usd(lost.spent.usd.usd()), ..lost.spent };
        account.fold_lost(&Lost { spent: read, ..lost.clone() }, Life::This);
        assert!(account.apart.writing.is_empty(), "{n}");
        assert_eq!(account.apart.spent.sum(&day_of(at(0))), Money::default(), "{n}");
    }
}

#[test]
fn what_is_being_written_of_lost_records_is_handed_out_once() {
    let mut account = limited(None, None, None);
    let lose = |account: &mut Account, n| {
        ended(account, id(n), at(n), usd(1.0));
        assert!(account.record_lost(&id(n), usd(1.0)));
    };
    lose(&mut account, 1);
    let first = account.take_lost();
    assert_eq!((first.len(), account.take_lost().len()), (1, 0));
    lose(&mut account, 2);
    let second = account.take_lost();
    account.writing_failed(&second);
    account.fold_lost(&first[0], Life::This);
    assert_eq!(account.take_lost().iter().map(|lost| lost.at).collect::<Vec<_>>(), [at(2)]);
    assert_eq!(account.spent(&day_of(at(0))).usd(), 2.0);
}

#[test]
fn requests_whose_records_were_lost_count_in_the_minute_after_a_restart() {
    let mut before = limited(None, None, Some(1));
    assert_eq!(arrives(&mut before, at(0)), Ok(()));
    ended(&mut before, id(1), at(0), Spent::default());
    assert!(before.record_lost(&id(1), Spent::default()), "it is written although it spent nothing");
    let lost = before.take_lost();
    before.fold_lost(&lost[0], Life::This);
    let mut restored = limited(None, None, Some(1));
    restored.restore(before.folded().clone());
    let mut replayed = limited(None, None, Some(1));
    replayed.fold_lost(&lost[0], Life::Earlier);
    for mut account in [before, restored, replayed] {
        assert!(arrives(&mut account, at(59)).is_err());
        assert_eq!(arrives(&mut account, at(60)), Ok(()));
    }
}

#[test]
fn what_is_pending_is_bounded_and_stays_counted() {
    let mut account = limited(None, None, None);
    let requests = METER_PENDING_MAX as u64 + 10;
    (0..requests).for_each(|n| ended(&mut account, id(n), at(0), usd(0.5)));
    assert_eq!(account.apart.pending.len(), METER_PENDING_MAX);
    assert_eq!(account.spent(&day_of(at(0))).usd(), requests as f64 * 0.5);
}

/// What can happen to an agent's requests and to their records.
#[derive(Debug, Clone)]
enum Step {
    /// A request ends and spends so many hundredths of a cent.
    Ends(u64),
    /// The oldest record that is under way becomes durable.
    Lands,
    /// The one after it does, out of order.
    Overtakes,
    /// The oldest one is lost.
    IsLost,
    /// What is lost is written, well or not.
    WritesLost(bool),
    /// So many seconds pass.
    Passes(u64),
    /// The clock on the wall is set by so many seconds.
    Jumps(i64),
    /// The process is killed: what is under way is lost, and what the journal holds is read back from a snapshot and
    /// the records after it.
    Dies,
    /// A snapshot is taken.
    Snapshot,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0u64..50).prop_map(Step::Ends),
        4 => Just(Step::Lands),
        1 => Just(Step::Overtakes),
        2 => Just(Step::IsLost),
        1 => any::<bool>().prop_map(Step::WritesLost),
        2 => (0u64..40_000).prop_map(Step::Passes),
        2 => (0u64..30).prop_map(Step::Passes),
        1 => (-100_000i64..100_000).prop_map(Step::Jumps),
        1 => (-100i64..100).prop_map(Step::Jumps),
        1 => Just(Step::Dies),
        1 => Just(Step::Snapshot),
    ];
    proptest::collection::vec(step, 1..200)
}

/// The world around an account: the truth that it must tell.
struct World {
    account: Account,
    timeline: Timeline,
    wall: u64,
    elapsed: Duration,
    /// The journal's own line.
    last: (Timestamp, Duration),
    /// How often the wall clock was set forward.
    leaps: u64,
    under_way: VecDeque<(RequestId, Spent)>,
    /// What the journal holds.
    journal: Vec<(Timestamp, Entry)>,
    /// What this life spent without a record.
    apart: Vec<Fact>,
    /// Requests among those whose records are lost.
    lost: BTreeSet<RequestId>,
    snapshot: (Folded, Timestamp, usize),
    next: u64,
}

/// What a request spent, and when that was last heard of.
#[derive(Debug, Clone)]
struct Fact {
    request: RequestId,
    spent: Spent,
    at: Timestamp,
    elapsed: Duration,
    leaps: u64,
    /// It counted in no minute when it was written down as lost.
    aged: bool,
}

/// A record of the journal.
#[derive(Debug, Clone)]
enum Entry {
    Finished(Fact),
    /// What is written of lost ones, and what they were.
    Lost(Lost, Vec<Fact>),
}

impl Entry {
    fn facts(&self) -> &[Fact] {
        match self {
            Self::Finished(fact) => std::slice::from_ref(fact),
            Self::Lost(_, facts) => facts,
        }
    }
}

fn in_minute(at: Timestamp, now: Timestamp) -> bool {
    at.as_millis() / 1_000 + RATE_WINDOW_SECS > now.as_millis() / 1_000
}

impl World {
    fn new() -> Self {
        Self {
            account: Account::default(),
            timeline: Timeline::default(),
            // What is taken from it stays above nothing.
            wall: 20_000_000,
            elapsed: Duration::ZERO,
            last: (Timestamp::default(), Duration::ZERO),
            leaps: 0,
            under_way: VecDeque::new(),
            journal: Vec::new(),
            apart: Vec::new(),
            lost: BTreeSet::new(),
            snapshot: (Folded::default(), Timestamp::default(), 0),
            next: 0,
        }
    }

    fn now(&self) -> Timestamp {
        self.timeline.now(at(self.wall), self.elapsed)
    }

    fn fact(&self, request: RequestId, at: Timestamp, spent: Spent) -> Fact {
        Fact { request, spent, at, elapsed: self.elapsed, leaps: self.leaps, aged: false }
    }

    /// The time of a record that becomes durable now.
    fn records(&mut self) -> Timestamp {
        let time = at(self.wall).max(self.last.0.after(self.elapsed.saturating_sub(self.last.1)));
        self.last = (time, self.elapsed);
        self.timeline.saw(time, self.elapsed);
        time
    }

    fn land(&mut self, index: usize) {
        let Some((request, spent)) = self.under_way.remove(index) else { return };
        let time = self.records();
        seen(&mut self.account, &request, time, spent, Life::This);
        self.apart.retain(|fact| fact.request != request);
        let fact = self.fact(request, time, spent);
        self.journal.push((time, Entry::Finished(fact)));
    }

    fn write_lost(&mut self, well: bool) {
        let taken = self.account.take_lost();
        if !well {
            return self.account.writing_failed(&taken);
        }
        let now = self.now();
        let time = if taken.is_empty() { now } else { self.records() };
        for lost in taken {
            let lost = Lost { tokens: lost.tokens.at(now), arrivals: lost.arrivals.at(now), ..lost };
            self.account.fold_lost(&lost, Life::This);
            let of_it =
                |fact: &Fact| self.lost.contains(&fact.request) && quarter(fact.at) == quarter(lost.at);
            let (mut facts, apart): (Vec<_>, Vec<_>) = self.apart.drain(..).partition(of_it);
            self.apart = apart;
            // What counted in no minute then counts in none.
            facts.iter_mut().filter(|fact| !in_minute(fact.at, now)).for_each(|fact| fact.aged = true);
            self.journal.push((time, Entry::Lost(lost, facts)));
        }
        self.lost.clear();
    }

    fn pass(&mut self, secs: u64) {
        self.wall += secs;
        self.elapsed += Duration::from_secs(secs);
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Ends(amount) => {
                let request = id(self.next);
                self.next += 1;
                let spent = both(*amount as f64 / 10_000.0, *amount);
                let now = self.now();
                ended(&mut self.account, request.clone(), now, spent);
                self.apart.push(self.fact(request.clone(), self.now(), spent));
                self.under_way.push_back((request, spent));
            }
            Step::Lands => self.land(0),
            Step::Overtakes => self.land(1),
            Step::IsLost => {
                if let Some((request, spent)) = self.under_way.pop_front() {
                    self.account.record_lost(&request, spent);
                    self.lost.insert(request);
                }
            }
            Step::WritesLost(well) => self.write_lost(*well),
            Step::Passes(secs) => self.pass(*secs),
            Step::Jumps(secs) => {
                self.wall = self.wall.saturating_add_signed(*secs);
                self.leaps += u64::from(*secs > 0);
            }
            Step::Snapshot => {
                self.snapshot = (self.account.folded().clone(), self.timeline.last(), self.journal.len());
            }
            Step::Dies => {
                self.under_way.clear();
                self.apart.clear();
                self.lost.clear();
                self.account = Account::default();
                // A new journal goes on from the last record, not from what elapsed since.
                self.last.1 = self.elapsed;
                let (folded, last, len) = &self.snapshot;
                self.account.restore(folded.clone());
                self.timeline = Timeline::default();
                self.timeline.saw(*last, self.elapsed);
                for (time, entry) in &self.journal[*len..] {
                    self.timeline.saw(*time, self.elapsed);
                    match entry {
                        Entry::Finished(Fact { request, spent, at, .. }) => {
                            seen(&mut self.account, request, *at, *spent, Life::Earlier);
                        }
                        Entry::Lost(lost, _) => self.account.fold_lost(lost, Life::Earlier),
                    }
                }
            }
        }
    }

    /// What is in the journal and what is not, each once.
    fn truth(&self, counts: impl Fn(&Fact) -> bool, of: impl Fn(&Spent) -> u64) -> u64 {
        let all = self.journal.iter().flat_map(|(_, entry)| entry.facts()).chain(&self.apart);
        all.filter(|fact| counts(fact)).map(|fact| of(&fact.spent)).sum()
    }

    /// Whether it was spent less than a minute ago, whatever the clock on the wall says; but one that was set forward
    /// may have made it old.
    fn is_recent(&self, fact: &Fact) -> bool {
        let minute = Duration::from_secs(RATE_WINDOW_SECS - 1);
        fact.leaps == self.leaps && self.elapsed.saturating_sub(fact.elapsed) < minute
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever becomes of the records, and however often the process dies: the sum is what the journal holds and what
    /// this life spent beside it, to the picodollar; and what was spent a moment ago counts, wherever clocks jump.
    #[test]
    fn the_sum_is_the_fold_and_what_is_not_in_it_yet(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            let now = world.now();
            let today = day_of(now);
            let money = |spent: &Spent| (spent.money().usd() * 1e12).round() as u64;
            let expected = world.truth(|fact| fact.at >= today.start, money);
            let spent = Spent { usd: world.account.spent(&today), ..Spent::default() };
            prop_assert_eq!(money(&spent), expected, "{:?}", step);
            let counts = |fact: &Fact| !fact.aged && in_minute(fact.at, now);
            let tokens = world.account.folded.tokens.sum(now) + world.account.apart.tokens.sum(now);
            prop_assert_eq!(tokens, world.truth(counts, Spent::tokens), "{:?}", step);
            let recent = world.truth(|fact| world.is_recent(fact), Spent::tokens);
            prop_assert!(tokens >= recent, "{} of {} tokens count after {:?}", tokens, recent, step);
        }
    }

    /// A budget is passed by no more than what was under way when it was reached.
    #[test]
    fn overshoot_is_at_most_what_is_in_flight(costs in proptest::collection::vec(1u64..40, 1..200), parallel in 1usize..8) {
        let mut account = limited(Some(0.01), None, None);
        let mut running: VecDeque<u64> = VecDeque::new();
        let mut most = 0;
        for (n, cost) in costs.iter().enumerate() {
            if arrives(&mut account, at(0)).is_ok() {
                running.push_back(*cost);
            }
            if running.len() == parallel || n + 1 == costs.len() {
                for cost in running.drain(..) {
                    most = most.max(cost);
                    ended(&mut account, id(n as u64), at(0), usd(cost as f64 / 10_000.0));
                }
            }
        }
        let spent = account.spent(&day_of(at(0))).usd();
        prop_assert!(spent < 0.01 + parallel as f64 * most as f64 / 10_000.0, "{spent}");
    }
}
