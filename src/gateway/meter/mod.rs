//! Budgets and rates of agents: asked when a request arrives and when its turn comes, told when it ends.
//!
//! What is spent is a fold of the journal, and beside it what the journal does not hold yet ([`account`]). Nothing here
//! waits. All of it, what records say and what is asked now, stands on one [`Timeline`]: clocks that are set wrong forget
//! nothing. Start at [`Meter::arrive`].

mod account;
mod day;
mod lost;
mod reached;
mod window;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Notify;

use super::record::{REQUEST_FINISHED, RequestFinished};
use super::recorded::Recorded;
use super::timeline::Timeline;
use super::usage::{self, Usage};
use super::{AgentConfig, Rejection, UsageQuery, UsageReport};
use crate::clock::{Clock, Timestamp};
use crate::ids::{AgentId, RequestId};
use crate::journal::{Fold, Record, StreamKind};
use crate::provider::ModelUsed;
use crate::units::Money;
use account::{Account, Asking, Ended, Folded, Life, Limit, Limits, Seen, Spent};
use lost::SpendLost;
use reached::BudgetReached;

pub(super) use day::{Day, Zone};
pub use lost::SPEND_LOST;
pub use reached::BUDGET_REACHED;

/// The configuration keys of the limits, as labels of the limits that were hit.
pub(super) const LIMITS: [&str; 3] =
    [Limit::UsdPerDay.key(), Limit::TokensPerMin.key(), Limit::RequestsPerMin.key()];

/// See the module.
pub(super) struct Meter {
    clock: Clock,
    time_zone: String,
    zone: Zone,
    /// A std mutex suffices: a hold is a few map operations, and a snapshot of some thousand numbers.
    state: Mutex<State>,
    /// A std mutex suffices: a hold is a few map operations. What takes longer works on a clone.
    usage: Mutex<Usage>,
    /// Set when there is something to write: the journal has lost a record, or a budget is used up.
    lost: Notify,
    /// Held by who writes what was lost.
    writing: tokio::sync::Mutex<()>,
}

struct State {
    accounts: BTreeMap<AgentId, Account>,
    today: Day,
    timeline: Timeline,
    /// Budgets that are used up and of which there is no record yet: at most one for each agent.
    reached: Vec<BudgetReached>,
    /// Whether a request has arrived: what is folded before that is of earlier lives.
    life: Life,
}

/// The form of a snapshot.
#[derive(Deserialize)]
struct Stored {
    /// The time of the latest record.
    last: Timestamp,
    accounts: BTreeMap<AgentId, Folded>,
    usage: usage::Stored,
}

/// The same to be written.
#[derive(Serialize)]
struct Storing {
    last: Timestamp,
    accounts: Value,
    usage: usage::Stored,
}

/// What an agent has spent today, and what it may.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spending {
    pub(super) usd: f64,
    pub(super) budget: Option<f64>,
}

/// A request that a meter let in. It counts once it is [kept](Place::keep); dropped before, it never was.
pub(super) struct Place {
    meter: Arc<Meter>,
    agent: AgentId,
    at: Timestamp,
    kept: bool,
}

impl Place {
    pub(super) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.kept {
            let mut state = self.meter.state();
            state.accounts.entry(self.agent.clone()).or_default().take_back(self.at);
        }
    }
}

impl Meter {
    /// # Panics
    /// When there is no such zone, which the check of the configuration rules out.
    pub(super) fn new(clock: Clock, time_zone: &str) -> Arc<Self> {
        let zone = Zone::named(time_zone).expect("the configuration was checked");
        let today = zone.day_of(clock.now());
        let (accounts, timeline) = (BTreeMap::new(), Timeline::default());
        let state = State { accounts, today, timeline, reached: Vec::new(), life: Life::Earlier };
        let usage = Mutex::new(Usage::new(zone.clone()));
        Arc::new(Self {
            clock,
            time_zone: time_zone.to_owned(),
            zone,
            state: Mutex::new(state),
            usage,
            lost: Notify::new(),
            writing: tokio::sync::Mutex::default(),
        })
    }

    /// Holds an agent to the limits of its configuration. What it spent before, under this id, counts.
    pub(super) fn limit(&self, agent: &AgentId, config: &AgentConfig) {
        let limits = Limits {
            usd_per_day: config.usd_per_day.map(Money::of_usd),
            tokens_per_min: config.tokens_per_min,
            requests_per_min: config.requests_per_min.map(u64::from),
        };
        self.state().accounts.entry(agent.clone()).or_default().limits = limits;
    }

    /// Holds an agent to no limit any more. What it spent stays until its day and its minute are over; those who have
    /// nothing to remember and are not `known` are forgotten.
    pub(super) fn retire(&self, agent: &AgentId, known: impl Fn(&AgentId) -> bool) {
        let mut state = self.state();
        let now = state.timeline.now_of(&self.clock);
        if let Some(account) = state.accounts.get_mut(agent) {
            account.limits = Limits::default();
        }
        state.accounts.retain(|id, account| known(id) || !account.is_idle(now));
    }

    /// Asks for a request that arrives.
    ///
    /// # Errors
    /// [`Rejection::Limited`].
    pub(super) fn arrive(self: &Arc<Self>, agent: &AgentId) -> Result<Place, Rejection> {
        let at = self.admit(agent, Asking::Arrival)?;
        Ok(Place { meter: Arc::clone(self), agent: agent.clone(), at, kept: false })
    }

    /// Asks again for one whose turn has come.
    ///
    /// # Errors
    /// [`Rejection::Limited`].
    pub(super) fn take_turn(&self, agent: &AgentId) -> Result<(), Rejection> {
        self.admit(agent, Asking::Turn).map(drop)
    }

    /// When it was let in.
    fn admit(&self, agent: &AgentId, asking: Asking) -> Result<Timestamp, Rejection> {
        let (reached, news, now) = {
            let mut state = self.state();
            state.life = Life::This;
            let (now, today) = state.now(&self.clock, &self.zone);
            let Some(account) = state.accounts.get_mut(agent) else { return Ok(now) };
            let Err(reached) = account.admit(asking, now, &today) else { return Ok(now) };
            let news = account.is_news(reached.limit, now, &today);
            if news && reached.limit == Limit::UsdPerDay && !account.is_reached(now) {
                let (spent, budget) = (account.spent(&today), account.limits.usd_per_day.unwrap_or_default());
                let until = reached.frees_at;
                state.reached.push(BudgetReached::new(agent, spent, budget, until));
                self.lost.notify_one();
            }
            (reached, news, now)
        };
        let limit = reached.limit.key();
        let retry_after = reached.frees_at.since(now).max(Duration::from_millis(1));
        // As the clock on the wall will show it.
        let frees_at = self.clock.now().after(retry_after);
        if news {
            tracing::warn!(
                source = "agent.budget",
                %agent,
                limit,
                until = %frees_at,
                "an agent reached a limit and takes no work"
            );
        }
        let advice = format!("it takes work again at {frees_at}, or when an operator raises the limit");
        Err(Rejection::Limited { limit, advice, retry_after })
    }

    /// Counts what a request spent, at the moment that it ended. Its record is to be seen, or told to be
    /// [lost](Meter::record_lost).
    pub(super) fn ended(&self, facts: &RequestFinished) -> Spent {
        let RequestFinished { request_id, agent, models, timings, .. } = facts;
        let spent = Spent::of(models);
        let unpriced: Vec<_> = {
            let mut state = self.state();
            let (now, today) = state.now(&self.clock, &self.zone);
            let Some(account) = state.accounts.get_mut(agent) else { return spent };
            let accepted = before(now, timings.total_ms);
            account.ended(request_id.clone(), Ended { at: now, accepted, spent });
            account.newly_unpriced(models, &today)
        };
        for used in unpriced {
            tracing::warn!(
                source = "agent.budget",
                %agent,
                provider = used.provider,
                model = used.model,
                "a call's cost is not known and the budget cannot count it: see `prices:`"
            );
        }
        spent
    }

    /// What each configured agent has spent today.
    pub(super) fn spending(&self, agent: &AgentId) -> Spending {
        let mut state = self.state();
        let (_, today) = state.now(&self.clock, &self.zone);
        let account = state.accounts.get(agent);
        let usd = account.map_or(0.0, |account| account.spent(&today).usd());
        Spending { usd, budget: account.and_then(|account| account.limits.usd_per_day).map(Money::usd) }
    }

    /// Whether it was ever used, or is configured.
    pub(super) fn knows(&self, agent: &AgentId) -> bool {
        self.state().accounts.contains_key(agent)
    }

    /// What was used, as far as the journal holds it.
    pub(super) fn report(&self, query: &UsageQuery) -> UsageReport {
        let now = self.state().timeline.now_of(&self.clock);
        let usage = self.usage().clone();
        usage.report(query, now, &self.time_zone)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn usage(&self) -> MutexGuard<'_, Usage> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Meter {
    fn fold_lost(&self, record: &Record) {
        let Ok(lost) = SpendLost::deserialize(&record.detail) else {
            tracing::warn!(seq = record.seq.0, "what was lost does not count in budgets and usage");
            return;
        };
        {
            let mut state = self.state();
            state.timeline.saw(record.time, self.clock.elapsed());
            let life = state.life;
            let account = state.accounts.entry(lost.agent.clone()).or_default();
            account.fold_lost(&lost.lost(), life);
        }
        self.usage().add_lost(lost.at, &lost.agent, &lost.used());
    }
}

impl State {
    /// Now, and the day that holds it.
    fn now(&mut self, clock: &Clock, zone: &Zone) -> (Timestamp, Day) {
        let now = self.timeline.now_of(clock);
        if !self.today.holds(now) {
            self.today = zone.day_of(now);
        }
        (now, self.today)
    }
}

impl Fold for Meter {
    fn name(&self) -> &'static str {
        "meter"
    }

    fn wants(&self) -> StreamKind {
        StreamKind::Request
    }

    fn apply(&self, record: &Record) {
        match record.kind.as_str() {
            SPEND_LOST => return self.fold_lost(record),
            BUDGET_REACHED => return self.fold_reached(record),
            _ => {}
        }
        let ended = match Recorded::read(record) {
            None => return,
            Some(Ok(ended)) => ended,
            Some(Err(error)) => {
                tracing::warn!(seq = record.seq.0, %error, "a request does not count in budgets and usage");
                return;
            }
        };
        let (at, spent) = (record.time, Spent::of(&ended.models));
        let accepted = before(at, ended.timings.total_ms);
        {
            let mut state = self.state();
            state.timeline.saw(at, self.clock.elapsed());
            let life = state.life;
            let seen = Seen { request: &ended.request_id, ended: Ended { at, accepted, spent } };
            state.accounts.entry(ended.agent.clone()).or_default().fold(&seen, life);
        }
        self.usage().add(at, &ended);
    }

    fn lost(&self, kind: &str, detail: &Value) {
        if kind == REQUEST_FINISHED
            && let Ok(agent) = AgentId::deserialize(&detail["agent"])
            && let Ok(request) = RequestId::deserialize(&detail["requestId"])
            && let Ok(models) = Vec::<ModelUsed>::deserialize(&detail["models"])
        {
            self.record_lost(&agent, &request, Spent::of(&models));
        }
    }

    fn snapshot(&self) -> Value {
        let (last, accounts) = {
            let state = self.state();
            let now = state.timeline.now_of(&self.clock);
            let kept = state.accounts.iter().filter(|(_, account)| !account.is_stale(now));
            let kept: BTreeMap<_, _> = kept.map(|(id, account)| (id, account.folded())).collect();
            (state.timeline.last(), serde_json::to_value(kept).expect("numbers are JSON"))
        };
        let usage = self.usage().clone().store();
        serde_json::to_value(Storing { last, accounts, usage }).expect("names and numbers are JSON")
    }

    fn restore(&self, snapshot: &Value) -> Result<(), String> {
        let Stored { last, accounts, usage } = Stored::deserialize(snapshot).map_err(|e| e.to_string())?;
        let mut state = self.state();
        state.timeline.saw(last, self.clock.elapsed());
        for (id, folded) in accounts {
            state.accounts.entry(id).or_default().restore(folded);
        }
        self.usage().restore(usage);
        Ok(())
    }

    fn records_lost(&self) {
        tracing::error!(
            source = "agent.budget",
            "the journal may lack requests: budgets and usage know only of those that can be read"
        );
    }
}

/// So many milliseconds before a moment.
fn before(at: Timestamp, millis: f64) -> Timestamp {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a cast of a float saturates, and milliseconds suffice"
    )]
    let before = (at.as_millis() as f64 - millis) as u64;
    Timestamp::from_millis(before)
}

#[cfg(test)]
mod tests;
