//! What was used, by agent, model, session and day: sums over the records of finished requests.
//!
//! By the hour for two days, then by the day; an hour in which a day ends is two, so that days are whole. Sessions stand
//! beside, by the day, for a week. Everything is bounded, whatever comes from outside: what is past a limit is summed up
//! under no name. Pure: time comes with the records. Start at [`Usage::add`] and [`Usage::report`].

mod amounts;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::meter::{Day, Zone};
use super::recorded::Recorded;
use crate::clock::Timestamp;
use crate::ids::{AgentId, SessionId};
use crate::limits::{
    USAGE_DAYS_KEPT, USAGE_HOURS_KEPT, USAGE_MODELS_MAX, USAGE_ROWS_MAX, USAGE_SESSION_DAYS_KEPT,
    USAGE_SESSIONS_MAX,
};
use crate::provider::OTHER_MODELS;

pub use amounts::UsageAmounts;

const HOUR_MS: u64 = 3_600_000;

/// What the rows of a report are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UsageBy {
    /// One row for each agent.
    Agent,
    /// One row for each model of a provider.
    Model,
    /// One row for each session of an agent, for the last week.
    Session,
    /// One row for each day in the configured zone.
    Day,
}

/// What is asked about usage.
#[derive(Debug, Clone)]
pub struct UsageQuery {
    /// What the rows are.
    pub by: UsageBy,
    /// From when on; the hour or day that holds it is included whole.
    pub since: Timestamp,
    /// Only this agent.
    pub agent: Option<AgentId>,
}

/// What was used.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsageReport {
    /// What the rows are.
    pub by: UsageBy,
    /// From when on, in epoch milliseconds: the start of the hour or day that holds what was asked for.
    pub since: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// The zone of the days.
    pub time_zone: String,
    /// The rows: days in order, all else by cost with what is estimated, the most expensive first.
    pub rows: Vec<UsageRow>,
    /// All of it.
    pub total: UsageAmounts,
    /// Models without a price that were called.
    pub unpriced_models: Vec<UnpricedModel>,
}

/// A row of a report. It has the names that it is by; one without them sums up what is past a limit.
#[derive(Debug, Clone, PartialEq, Default, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsageRow {
    /// The day, such as `2026-11-21`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub day: Option<String>,
    /// The agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentId>,
    /// The session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// Whose model it is (`gen_ai.provider.name`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// What was used.
    #[serde(flatten)]
    pub amounts: UsageAmounts,
}

/// A model without a price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct UnpricedModel {
    /// Whose model it is.
    pub provider: String,
    /// The model.
    pub model: String,
    /// How many calls of it may be billed and are in no dollars.
    pub calls: u64,
}

/// What one agent used in an hour or a day.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct AgentUsage {
    /// Its requests alone; the calls stand with their models.
    requests: UsageAmounts,
    models: Vec<ModelUsage>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct ModelUsage {
    provider: String,
    model: String,
    amounts: UsageAmounts,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct SessionUsage {
    agent: AgentId,
    /// None for those past the limit.
    session: Option<SessionId>,
    amounts: UsageAmounts,
}

type SessionDay = BTreeMap<(AgentId, Option<SessionId>), UsageAmounts>;

/// By agent, in one hour or day.
type Span = BTreeMap<AgentId, AgentUsage>;

/// See the module. Cheap to clone: what is summed up goes on with a clone, and copies what a record changes meanwhile.
#[derive(Debug, Clone)]
pub(super) struct Usage {
    zone: Zone,
    /// By when each hour or day begins.
    spans: BTreeMap<Timestamp, Arc<Span>>,
    sessions: BTreeMap<Timestamp, Arc<SessionDay>>,
    /// The day and the hour that run.
    today: Day,
    hour: Timestamp,
}

/// The form of a snapshot.
#[derive(Serialize, Deserialize)]
pub(super) struct Stored {
    spans: Vec<(Timestamp, Span)>,
    sessions: Vec<(Timestamp, Vec<SessionUsage>)>,
}

impl Usage {
    pub(super) fn new(zone: Zone) -> Self {
        let today = zone.day_of(Timestamp::default());
        let hour = Timestamp::default();
        Self { zone, spans: BTreeMap::new(), sessions: BTreeMap::new(), today, hour }
    }

    /// Adds requests whose records are lost: nothing is known of their models and sessions.
    pub(super) fn add_lost(&mut self, at: Timestamp, agent: &AgentId, lost: &UsageAmounts) {
        let usage = self.of_agent(at, agent);
        usage.requests.add(&UsageAmounts { requests: lost.requests, ..UsageAmounts::default() });
        usage.of_model(OTHER_MODELS, OTHER_MODELS).add(lost);
    }

    /// Adds a request that ended at `at`.
    pub(super) fn add(&mut self, at: Timestamp, request: &Recorded) {
        let Recorded { agent, session, outcome, models, .. } = request;
        let once = UsageAmounts::of_request(*outcome);
        let usage = self.of_agent(at, agent);
        usage.requests.add(&once);
        for used in models {
            let amounts = usage.of_model(&used.provider, &used.model);
            amounts.add(&once);
            amounts.add_calls(used);
        }
        let day = Arc::make_mut(self.sessions.entry(self.today.start).or_default());
        let key = (agent.clone(), Some(session.clone()));
        let key = if day.len() < USAGE_SESSIONS_MAX || day.contains_key(&key) { key } else { (key.0, None) };
        let amounts = day.entry(key).or_default();
        amounts.add(&once);
        models.iter().for_each(|used| amounts.add_calls(used));
    }

    /// What an agent used in the hour that holds a moment.
    fn of_agent(&mut self, at: Timestamp, agent: &AgentId) -> &mut AgentUsage {
        if !self.today.holds(at) {
            self.today = self.zone.day_of(at);
            self.thin_out(at);
        }
        // An hour that began yesterday begins anew with the day.
        let hour = Timestamp::from_millis(at.as_millis() / HOUR_MS * HOUR_MS);
        self.hour = hour.max(self.today.start);
        let span = Arc::make_mut(self.spans.entry(self.hour).or_default());
        if !span.contains_key(agent) {
            span.insert(agent.clone(), AgentUsage::default());
        }
        span.get_mut(agent).expect("it was put there")
    }

    /// Drops what is too old, and makes days of the hours that are over for long.
    fn thin_out(&mut self, now: Timestamp) {
        let before = |hours: u64| Timestamp::from_millis(now.as_millis().saturating_sub(hours * HOUR_MS));
        self.spans = self.spans.split_off(&before(USAGE_DAYS_KEPT * 24));
        self.sessions = self.sessions.split_off(&before(USAGE_SESSION_DAYS_KEPT * 24));
        let recent = self.spans.split_off(&self.zone.day_of(before(USAGE_HOURS_KEPT)).start);
        for (start, hour) in std::mem::replace(&mut self.spans, recent) {
            let day = Arc::make_mut(self.spans.entry(self.zone.day_of(start).start).or_default());
            for (agent, usage) in Arc::unwrap_or_clone(hour) {
                day.entry(agent).or_default().add(usage);
            }
        }
    }

    /// What was used since a moment.
    pub(super) fn report(&self, query: &UsageQuery, now: Timestamp, time_zone: &str) -> UsageReport {
        let UsageQuery { by, since, agent } = query;
        let asked = |id: &AgentId| agent.as_ref().is_none_or(|agent| agent == id);
        let first = self.start_of(*since);
        let mut sums = Sums::new(&self.zone);
        for (start, agents) in self.spans.range(first..) {
            for (id, usage) in agents.iter().filter(|(id, _)| asked(id)) {
                sums.add(*by, *start, id, usage);
            }
        }
        let mut since = first;
        if *by == UsageBy::Session {
            since = self.zone.day_of(first).start;
            let all = self.sessions.range(since..).flat_map(|(_, day)| &**day);
            all.filter(|((id, _), _)| asked(id)).for_each(|(key, amounts)| sums.add_session(key, amounts));
            since = self.sessions.first_key_value().map_or(since, |(oldest, _)| since.max(*oldest));
        }
        let unpriced_models = sums.unpriced();
        let (rows, total) = sums.rows(*by);
        let time_zone = time_zone.to_owned();
        UsageReport { by: *by, since, until: now, time_zone, rows, total, unpriced_models }
    }

    /// When the day begins that holds a moment if it is kept by the day, else its hour.
    fn start_of(&self, moment: Timestamp) -> Timestamp {
        let kept = self.spans.range(..=moment).next_back().map(|(start, _)| *start);
        let kept = kept.filter(|start| self.span_of(*start).holds(moment));
        kept.unwrap_or_else(|| self.hour_of(moment))
    }

    /// When the hour begins that holds a moment; one that began yesterday begins anew with the day.
    fn hour_of(&self, moment: Timestamp) -> Timestamp {
        let hour = Timestamp::from_millis(moment.as_millis() / HOUR_MS * HOUR_MS);
        hour.max(self.zone.day_of(moment).start)
    }

    /// What begins at `start`: an hour or, long after, a day.
    fn span_of(&self, start: Timestamp) -> Day {
        let day = self.zone.day_of(start);
        let newest = self.spans.last_key_value().map_or(start, |(newest, _)| *newest);
        let hours = newest.since(start) < Duration::from_millis(USAGE_HOURS_KEPT * HOUR_MS);
        let next = Timestamp::from_millis((start.as_millis() / HOUR_MS + 1) * HOUR_MS);
        if hours || start != day.start { Day { start, end: next.min(day.end) } } else { day }
    }

    pub(super) fn store(&self) -> Stored {
        let of_day = |day: &SessionDay| {
            let one = |((agent, session), amounts): (&(AgentId, Option<SessionId>), &UsageAmounts)| {
                SessionUsage { agent: agent.clone(), session: session.clone(), amounts: *amounts }
            };
            day.iter().map(one).collect()
        };
        Stored {
            spans: self.spans.iter().map(|(start, agents)| (*start, Span::clone(agents))).collect(),
            sessions: self.sessions.iter().map(|(start, day)| (*start, of_day(day))).collect(),
        }
    }

    pub(super) fn restore(&mut self, stored: Stored) {
        let Stored { spans, sessions } = stored;
        let of_day = |day: Vec<SessionUsage>| {
            let day =
                day.into_iter().map(|SessionUsage { agent, session, amounts }| ((agent, session), amounts));
            Arc::new(day.collect::<SessionDay>())
        };
        self.spans = spans.into_iter().map(|(start, agents)| (start, Arc::new(agents))).collect();
        self.sessions = sessions.into_iter().map(|(start, day)| (start, of_day(day))).collect();
        self.today = self.zone.day_of(Timestamp::default());
    }
}

impl AgentUsage {
    fn of_model(&mut self, provider: &str, model: &str) -> &mut UsageAmounts {
        let find = |models: &[ModelUsage], provider: &str, model: &str| {
            models.iter().position(|usage| usage.model == model && usage.provider == provider)
        };
        let known = find(&self.models, provider, model);
        let (provider, model) = match known {
            None if self.models.len() >= USAGE_MODELS_MAX => (OTHER_MODELS, OTHER_MODELS),
            Some(_) | None => (provider, model),
        };
        let at = known.or_else(|| find(&self.models, provider, model)).unwrap_or_else(|| {
            let amounts = UsageAmounts::default();
            self.models.push(ModelUsage { provider: provider.to_owned(), model: model.to_owned(), amounts });
            self.models.len() - 1
        });
        &mut self.models[at].amounts
    }

    fn add(&mut self, more: Self) {
        self.requests.add(&more.requests);
        for ModelUsage { provider, model, amounts } in more.models {
            self.of_model(&provider, &model).add(&amounts);
        }
    }
}

/// The names that a row is by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Name {
    day: Option<Timestamp>,
    agent: Option<AgentId>,
    session: Option<SessionId>,
    model: Option<(String, String)>,
}

/// A report in the making.
struct Sums<'a> {
    zone: &'a Zone,
    rows: BTreeMap<Name, UsageAmounts>,
    unpriced: BTreeMap<(String, String), u64>,
    total: UsageAmounts,
}

impl<'a> Sums<'a> {
    fn new(zone: &'a Zone) -> Self {
        Self { zone, rows: BTreeMap::new(), unpriced: BTreeMap::new(), total: UsageAmounts::default() }
    }

    fn add(&mut self, by: UsageBy, start: Timestamp, id: &AgentId, usage: &AgentUsage) {
        let mut all = usage.requests;
        for ModelUsage { provider, model, amounts } in &usage.models {
            all.add(&UsageAmounts { requests: 0, failed: 0, ..*amounts });
            let name = || (provider.clone(), model.clone());
            if amounts.unpriced > 0 {
                *self.unpriced.entry(name()).or_default() += amounts.unpriced;
            }
            if by == UsageBy::Model {
                self.row(Name { model: Some(name()), ..Name::default() }, amounts);
            }
        }
        match by {
            UsageBy::Agent => self.row(Name { agent: Some(id.clone()), ..Name::default() }, &all),
            UsageBy::Day => {
                self.row(Name { day: Some(self.zone.day_of(start).start), ..Name::default() }, &all);
            }
            UsageBy::Model => {}
            // The sessions come by themselves, and their total with them.
            UsageBy::Session => return,
        }
        self.total.add(&all);
    }

    fn add_session(&mut self, key: &(AgentId, Option<SessionId>), amounts: &UsageAmounts) {
        let (agent, session) = key.clone();
        self.row(Name { agent: Some(agent), session, ..Name::default() }, amounts);
        self.total.add(amounts);
    }

    fn row(&mut self, name: Name, amounts: &UsageAmounts) {
        self.rows.entry(name).or_default().add(amounts);
    }

    fn unpriced(&mut self) -> Vec<UnpricedModel> {
        let all = std::mem::take(&mut self.unpriced).into_iter();
        all.map(|((provider, model), calls)| UnpricedModel { provider, model, calls }).collect()
    }

    fn rows(self, by: UsageBy) -> (Vec<UsageRow>, UsageAmounts) {
        let Self { zone, rows, unpriced: _, total } = self;
        let mut rows: Vec<_> = rows
            .into_iter()
            .map(|(name, amounts)| {
                let Name { day, agent, session, model } = name;
                let (provider, model) = model.unzip();
                UsageRow {
                    day: day.map(|day| zone.date_of(day)),
                    agent,
                    session,
                    provider,
                    model,
                    amounts: amounts.told(),
                }
            })
            .collect();
        if by != UsageBy::Day {
            // A stable order: names decide where costs do not.
            rows.sort_by(|a, b| b.amounts.all_usd().total_cmp(&a.amounts.all_usd()));
        }
        if rows.len() > USAGE_ROWS_MAX {
            let mut rest = UsageRow::default();
            rows.drain(USAGE_ROWS_MAX - 1..).for_each(|row| rest.amounts.add(&row.amounts));
            rest.amounts = rest.amounts.told();
            rows.push(rest);
        }
        (rows, total.told())
    }
}

/// Reads since when: a length of time before now (`7d`), an RFC 3339 time, or epoch milliseconds.
///
/// # Errors
/// Says what is expected.
pub fn parse_since(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let back = |period: crate::units::Period| {
        let millis = u64::try_from(period.0.as_millis()).unwrap_or(u64::MAX);
        Timestamp::from_millis(now.as_millis().saturating_sub(millis))
    };
    if let Ok(millis) = text.parse() {
        return Ok(Timestamp::from_millis(millis));
    }
    let time = || Timestamp::parse_rfc3339(text).map_err(drop);
    crate::units::Period::parse(text).map(back).map_err(drop).or_else(|()| time()).map_err(|()| {
        "expected a length of time such as 7d, an RFC 3339 time, or epoch milliseconds".to_owned()
    })
}

#[cfg(test)]
mod tests;
