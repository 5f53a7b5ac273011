//! What one agent has spent and may still spend. Pure: time is an argument.
//!
//! A request counts from the moment it ends. Its record becomes durable a little later, or never: until then what it
//! spent stands apart, and moves to what the journal says once the record is seen. So the sum is always what the
//! journal holds and what it does not hold yet, each once. What the journal lost stays apart too, until a record of its
//! own ([`Lost`]) says it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::day::Day;
use super::window::{Minute, Quarters, frees_at, quarter};
use crate::clock::Timestamp;
use crate::ids::RequestId;
use crate::limits::{METER_PENDING_MAX, METER_QUARTERS_MAX, RATE_WINDOW_SECS, UNPRICED_MODELS_MAX};
use crate::provider::ModelUsed;
use crate::units::Money;

/// What an agent may do; without a limit where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Limits {
    pub(super) usd_per_day: Option<Money>,
    pub(super) tokens_per_min: Option<u64>,
    pub(super) requests_per_min: Option<u64>,
}

/// A limit of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    UsdPerDay,
    TokensPerMin,
    RequestsPerMin,
}

/// A limit that is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reached {
    pub(super) limit: Limit,
    /// When it is no longer, if nothing more is spent.
    pub(super) frees_at: Timestamp,
}

/// When it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asking {
    /// A request arrives: if it is let in, it counts.
    Arrival,
    /// Its turn has come. It is among the requests of its minute already.
    Turn,
}

/// What a request spent: what its model calls said, and beside it what they did not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::gateway) struct Spent {
    pub(super) usd: Money,
    pub(super) estimated_usd: Money,
    /// Cache included.
    pub(super) input_tokens: u64,
    pub(super) output_tokens: u64,
    pub(super) estimated_tokens: u64,
}

impl Spent {
    pub(super) fn of(models: &[ModelUsed]) -> Self {
        let of_model = |used: &ModelUsed| Self {
            usd: Money::of_usd(used.cost_usd.unwrap_or(0.0)),
            estimated_usd: Money::of_usd(used.estimated_usd.unwrap_or(0.0)),
            input_tokens: used.input_tokens,
            output_tokens: used.output_tokens,
            estimated_tokens: used.estimated_tokens,
        };
        models.iter().map(of_model).fold(Self::default(), Self::plus)
    }

    /// What counts in a budget.
    fn money(&self) -> Money {
        self.usd.plus(self.estimated_usd)
    }

    /// What counts in a rate.
    fn tokens(&self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens).saturating_add(self.estimated_tokens)
    }

    fn plus(self, more: Self) -> Self {
        Self {
            usd: self.usd.plus(more.usd),
            estimated_usd: self.estimated_usd.plus(more.estimated_usd),
            input_tokens: self.input_tokens.saturating_add(more.input_tokens),
            output_tokens: self.output_tokens.saturating_add(more.output_tokens),
            estimated_tokens: self.estimated_tokens.saturating_add(more.estimated_tokens),
        }
    }
}

/// What the records of an agent say: the part that survives a restart.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Folded {
    spent: Quarters,
    tokens: Minute,
    requests: Minute,
    /// Until when the day's budget is recorded as used up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reached: Option<Timestamp>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Account {
    pub(super) limits: Limits,
    folded: Folded,
    /// What this process spent and the journal does not hold.
    apart: Apart,
    /// Requests that were let in before this process began.
    before: Minute,
    /// Requests that this process let in.
    taken: Minute,
    told: Told,
}

#[derive(Debug, Default)]
struct Apart {
    spent: Quarters,
    tokens: Minute,
    /// Whose records are to be seen yet; names may come again, so each has a number beside it.
    pending: BTreeMap<(RequestId, u64), Ended>,
    next: u64,
    /// Whose records are lost, by the quarter of an hour.
    lost: BTreeMap<u64, Lost>,
    /// What of it is being written.
    writing: Vec<Lost>,
}

/// A request that ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended {
    pub(super) at: Timestamp,
    /// When it was let in.
    pub(super) accepted: Timestamp,
    pub(super) spent: Spent,
}

/// What requests spent whose records are lost.
#[derive(Debug, Clone, Default)]
pub(super) struct Lost {
    pub(super) requests: u64,
    /// When the last of them ended.
    pub(super) at: Timestamp,
    pub(super) spent: Spent,
    /// The same by the second, for the limits of a minute: their tokens, and when they were let in.
    pub(super) tokens: Minute,
    pub(super) arrivals: Minute,
}

/// What was said of it, so that it is said once.
#[derive(Debug, Default)]
struct Told {
    /// The day whose budget is used up.
    day: Option<Timestamp>,
    tokens: Option<Timestamp>,
    requests: Option<Timestamp>,
    /// Models without a price, of that day.
    unpriced: (Timestamp, BTreeSet<(String, String)>),
}

impl Limit {
    /// The configuration key.
    pub(super) const fn key(self) -> &'static str {
        match self {
            Self::UsdPerDay => "usd_per_day",
            Self::TokensPerMin => "tokens_per_min",
            Self::RequestsPerMin => "requests_per_min",
        }
    }
}

impl Account {
    /// Lets a request in, or names the limit that is reached.
    pub(super) fn admit(&mut self, asking: Asking, now: Timestamp, today: &Day) -> Result<(), Reached> {
        if let Some(reached) = self.reached(asking, now, today) {
            return Err(reached);
        }
        if asking == Asking::Arrival {
            self.taken.add(now, 1);
        }
        Ok(())
    }

    /// A request that was let in at `at` found no place: it does not count.
    pub(super) fn take_back(&mut self, at: Timestamp) {
        self.taken.take_back(at, 1);
    }

    fn reached(&self, asking: Asking, now: Timestamp, today: &Day) -> Option<Reached> {
        let Limits { usd_per_day, tokens_per_min, requests_per_min } = self.limits;
        if usd_per_day.is_some_and(|budget| self.spent(today) >= budget) {
            return Some(Reached { limit: Limit::UsdPerDay, frees_at: today.end });
        }
        let full = |limit, max: Option<u64>, minutes: [&Minute; 2]| {
            let max = max?;
            let sum = minutes.iter().fold(0u64, |sum, minute| sum.saturating_add(minute.sum(now)));
            (sum >= max).then(|| Reached { limit, frees_at: frees_at(&minutes, now, max) })
        };
        let tokens = [&self.folded.tokens, &self.apart.tokens];
        full(Limit::TokensPerMin, tokens_per_min, tokens).or_else(|| match asking {
            Asking::Arrival => full(Limit::RequestsPerMin, requests_per_min, [&self.before, &self.taken]),
            Asking::Turn => None,
        })
    }

    /// What was spent in a day.
    pub(super) fn spent(&self, day: &Day) -> Money {
        self.folded.spent.sum(day).plus(self.apart.spent.sum(day))
    }

    /// A request ended: what it spent counts from now on.
    pub(super) fn ended(&mut self, request: RequestId, ended: Ended) {
        let Apart { spent: money, tokens, pending, next, .. } = &mut self.apart;
        money.add(ended.at, ended.spent.money());
        tokens.add(ended.at, ended.spent.tokens());
        if pending.len() < METER_PENDING_MAX {
            pending.insert((request, *next), ended);
            *next += 1;
        }
    }

    /// The record of a request that ended is lost. Whether there is something to write about it.
    pub(super) fn record_lost(&mut self, request: &RequestId, spent: Spent) -> bool {
        let Some(Ended { at, accepted, spent }) = self.apart.take(request, spent) else { return false };
        let (mut tokens, mut arrivals) = (Minute::default(), Minute::default());
        tokens.add(at, spent.tokens());
        arrivals.add(accepted, 1);
        self.apart.lose(Lost { requests: 1, at, spent, tokens, arrivals });
        true
    }

    /// What is to be written of lost records. Handed out once: it comes back only if [that fails](Account::writing_failed).
    pub(super) fn take_lost(&mut self) -> Vec<Lost> {
        let Apart { lost, writing, .. } = &mut self.apart;
        let taken: Vec<_> = std::mem::take(lost).into_values().collect();
        writing.extend(taken.iter().cloned());
        taken
    }

    /// This is not in the journal.
    pub(super) fn writing_failed(&mut self, taken: &[Lost]) {
        for Lost { at, .. } in taken {
            if let Some(lost) = self.apart.written(*at) {
                self.apart.lose(lost);
            }
        }
    }

    /// Takes in what a record says of lost records.
    pub(super) fn fold_lost(&mut self, lost: &Lost, life: Life) {
        let Lost { requests: _, at, spent, tokens, arrivals } = lost;
        self.folded.spent.add(*at, spent.money());
        self.folded.tokens.add_all(tokens);
        self.folded.requests.add_all(arrivals);
        match life {
            Life::Earlier => self.before.add_all(arrivals),
            Life::This => {
                // By its time alone: what a record says of money is rounded.
                if let Some(lost) = self.apart.written(*at) {
                    self.apart.spent.take_back(*at, lost.spent.money());
                    self.apart.tokens.take_back_all(&lost.tokens);
                }
            }
        }
    }

    /// Takes in what a record says of a request.
    pub(super) fn fold(&mut self, seen: &Seen<'_>, life: Life) {
        let Seen { request, ended: Ended { at, accepted, spent } } = *seen;
        self.folded.spent.add(at, spent.money());
        self.folded.tokens.add(at, spent.tokens());
        self.folded.requests.add(accepted, 1);
        match life {
            Life::Earlier => self.before.add(accepted, 1),
            Life::This => self.apart.resolve(request, spent),
        }
    }

    pub(super) fn folded(&self) -> &Folded {
        &self.folded
    }

    /// Whether nothing that records say counts any more: in this minute, or on any day that may come.
    pub(super) fn is_stale(&self, now: Timestamp) -> bool {
        let Folded { spent, tokens, requests, reached: _ } = &self.folded;
        spent.is_before(now) && tokens.sum(now) == 0 && requests.sum(now) == 0
    }

    /// Whether nothing of it counts now, also not what the journal does not hold.
    pub(super) fn is_idle(&self, now: Timestamp) -> bool {
        let Apart { spent, tokens, pending, lost, writing, next: _ } = &self.apart;
        let written = pending.is_empty() && lost.is_empty() && writing.is_empty();
        let nothing = written && spent.is_before(now) && tokens.sum(now) == 0 && self.taken.sum(now) == 0;
        nothing && self.is_stale(now)
    }

    /// Begins from what records said.
    pub(super) fn restore(&mut self, folded: Folded) {
        self.before = folded.requests.clone();
        self.folded = folded;
    }

    /// Whether this is the first time in its window that a limit refuses: for a minute, once a minute.
    pub(super) fn is_news(&mut self, limit: Limit, now: Timestamp, today: &Day) -> bool {
        let (told, until) = match limit {
            Limit::UsdPerDay => (&mut self.told.day, today.end),
            Limit::TokensPerMin => (&mut self.told.tokens, now.after(Duration::from_secs(RATE_WINDOW_SECS))),
            Limit::RequestsPerMin => {
                (&mut self.told.requests, now.after(Duration::from_secs(RATE_WINDOW_SECS)))
            }
        };
        let known = told.is_some_and(|until| now < until);
        if !known {
            *told = Some(until);
        }
        !known
    }

    /// The day's budget is recorded as used up until then.
    pub(super) fn saw_reached(&mut self, until: Timestamp) {
        self.folded.reached = self.folded.reached.max(Some(until));
    }

    /// Whether that is recorded for now.
    pub(super) fn is_reached(&self, now: Timestamp) -> bool {
        self.folded.reached.is_some_and(|until| now < until)
    }

    /// Models whose calls the day's budget cannot count, and of which that was not said today.
    pub(super) fn newly_unpriced<'a>(&mut self, models: &'a [ModelUsed], today: &Day) -> Vec<&'a ModelUsed> {
        let (day, known) = &mut self.told.unpriced;
        if *day != today.start {
            (*day, *known) = (today.start, BTreeSet::new());
        }
        let mut news = Vec::new();
        if self.limits.usd_per_day.is_some() {
            for used in models.iter().filter(|used| used.unpriced > 0) {
                if known.len() < UNPRICED_MODELS_MAX
                    && known.insert((used.provider.clone(), used.model.clone()))
                {
                    news.push(used);
                }
            }
        }
        news
    }
}

/// A request, as its record says it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) request: &'a RequestId,
    pub(super) ended: Ended,
}

/// In whose life a record was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// It is read back at start.
    Earlier,
    /// This process made it.
    This,
}

impl Apart {
    /// The record of a request is seen: what it spent stands in the journal.
    fn resolve(&mut self, request: &RequestId, spent: Spent) {
        if let Some(Ended { at, spent, .. }) = self.take(request, spent) {
            self.spent.take_back(at, spent.money());
            self.tokens.take_back(at, spent.tokens());
        }
    }

    fn take(&mut self, request: &RequestId, spent: Spent) -> Option<Ended> {
        let named = self.pending.range((request.clone(), 0)..=(request.clone(), u64::MAX));
        let key = named.filter(|(_, pending)| pending.spent == spent).map(|(key, _)| key.clone()).next()?;
        self.pending.remove(&key)
    }

    /// What was handed out to be written, by when the last of it ended.
    fn written(&mut self, at: Timestamp) -> Option<Lost> {
        let written = self.writing.iter().position(|lost| lost.at == at)?;
        Some(self.writing.remove(written))
    }

    fn lose(&mut self, more: Lost) {
        let Lost { requests, at, spent, tokens, arrivals } = more;
        let lost = self.lost.entry(quarter(at)).or_default();
        lost.requests += requests;
        lost.at = lost.at.max(at);
        lost.spent = lost.spent.plus(spent);
        lost.tokens.add_all(&tokens);
        lost.arrivals.add_all(&arrivals);
        while self.lost.len() > METER_QUARTERS_MAX {
            self.lost.pop_first();
        }
    }
}

#[cfg(test)]
mod tests;
