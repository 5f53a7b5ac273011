//! What `GET /api/alerts` shows.

use schemars::JsonSchema;
use serde::Serialize;

use super::alert::{Annotations, Identity, Labels, Severity, Source, name};
use super::book::{Book, Now, Standing};
use crate::clock::Timestamp;
use crate::limits::alerts::ALERTS_LISTED_MAX;

/// Alerts: those that fire first, then those that nobody tells of any more, then those that are over. Times are in
/// milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlertList {
    /// The worst first and of equals the newest; at most 1,000 that are not over.
    pub alerts: Vec<ListedAlert>,
    /// How many fire, listed or not.
    pub firing: usize,
    /// How many nobody tells of any more.
    pub stale: usize,
    /// The alert that always fires, as a sign that the road from the rules to here is whole.
    pub watchdog: Watchdog,
    /// Alerts that senders left out of their bodies since plimsoll started.
    pub truncated: u64,
    /// Times that an alert found no place since plimsoll started, because too many fire.
    pub no_place: u64,
}

/// One alert.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListedAlert {
    /// Tells it from others, whoever posts it.
    pub id: String,
    /// What is known of it.
    pub status: Status,
    /// How bad it is.
    pub severity: Severity,
    /// The name of its rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// All labels as they were posted first.
    pub labels: Labels,
    /// What people read.
    pub annotations: Annotations,
    /// Since when it fires, as its sender has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub starts_at: Option<Timestamp>,
    /// When it ended, as its sender has it, or will have unless it is told again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<Timestamp>,
    /// When it was first posted.
    pub first_received: Timestamp,
    /// When it was last posted as firing, as far as this plimsoll knows: repetitions are not journaled.
    pub last_received: Timestamp,
    /// When it was known to be over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub over_at: Option<Timestamp>,
    /// Who told of it first.
    pub source: Source,
}

/// What is known of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It fires.
    Firing,
    /// Nobody said that it is over, and nobody has told of it for nine hours, or until the end that was announced: its
    /// sender may be gone.
    Stale,
    /// Its sender said that it is over.
    Resolved,
    /// Nobody told of it for seven days, or it was stale when others needed its place.
    Expired,
}

/// The alert that always fires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Watchdog {
    /// When it last came since plimsoll started; null if it did not.
    pub last_received: Option<Timestamp>,
}

impl Book {
    /// The alerts of a list, with how many fire and how many are stale.
    pub(super) fn list(&self, now: Now) -> (Vec<ListedAlert>, usize, usize) {
        let mut known: Vec<_> = self.standing().map(|(id, one)| (one.is_stale(now), id, one)).collect();
        let stale = known.iter().filter(|(stale, ..)| *stale).count();
        let firing = known.len() - stale;
        let newest_first =
            |one: &Standing| std::cmp::Reverse(one.fired.starts_at.unwrap_or(one.first_received));
        known.sort_by_cached_key(|(stale, id, one)| {
            (*stale, Severity::of(&one.fired.labels), newest_first(one), id.as_str().to_owned())
        });
        let standing = known.into_iter().take(ALERTS_LISTED_MAX).map(|(stale, id, one)| {
            let status = if stale { Status::Stale } else { Status::Firing };
            listed(id, one, status, None)
        });
        let over = self.over().map(|over| {
            let status = if over.expired { Status::Expired } else { Status::Resolved };
            listed(&Identity::of(&over.was.fired.labels), &over.was, status, Some(over.over_at))
        });
        (standing.chain(over).collect(), firing, stale)
    }
}

fn listed(id: &Identity, one: &Standing, status: Status, over_at: Option<Timestamp>) -> ListedAlert {
    let Standing { fired, first_received, last_received } = one.clone();
    ListedAlert {
        id: id.as_str().to_owned(),
        status,
        severity: Severity::of(&fired.labels),
        name: name(&fired.labels).map(str::to_owned),
        labels: fired.labels,
        annotations: fired.annotations,
        starts_at: fired.starts_at,
        ends_at: fired.ends_at,
        first_received,
        last_received,
        over_at,
        source: fired.source,
    }
}
