//! Takes alerts in: reads, decides, makes it durable, and only then says so.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use tokio::time::timeout;

use super::alert::{Identity, Source, WATCHDOG, name};
use super::body::{self, Body, BodyError, PostedAlert, PostedStatus};
use super::book::{Book, Decision, Now, Told};
use super::list::{AlertList, Watchdog};
use super::metrics::{LIMITS, Outcome, Outcomes};
use crate::clock::{Clock, Timestamp};
use crate::ids::Seq;
use crate::journal::{Actor, Append, AppendError, Fold, Journal, NewRecord, Record, StreamId, StreamKind};
use crate::limits::JOURNAL_APPEND_WAIT;
use crate::limits::alerts::{ALERTS_AT_ONCE_MAX, ALERTS_FIRING_MAX};
use crate::telemetry::{Registry, Shared};

/// How often it is decided anew because another post came between: each time, that one went ahead.
const TRIES_MAX: usize = 16;

/// The alerts there are.
pub struct Alerts {
    /// A std mutex suffices: a hold is one decision, or a copy of what is listed.
    book: Mutex<Book>,
    watchdog: Mutex<Option<Timestamp>>,
    truncated: AtomicU64,
    no_place: AtomicU64,
    listening_since: Timestamp,
    clock: Clock,
    outcomes: Outcomes,
    shared: Shared,
}

/// What became of the alerts of one body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Taken {
    /// Began to fire.
    pub fired: u64,
    /// Fire already, and left no record.
    pub repeated: u64,
    /// Are over.
    pub resolved: u64,
    /// Are said to be over and did not fire; they left no record.
    pub not_firing: u64,
    /// Were the watchdog, which leaves no record.
    pub watchdog: u64,
    /// Were left out by their sender.
    pub truncated: u64,
}

/// Why a body, or a part of it, was not taken. Sending it again is always safe.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// Nothing of it was taken.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// What is not durable was not taken.
    #[error("the alerts could not be written")]
    Journal(#[source] AppendError),
    /// The disk hangs; whether they were taken is not known.
    #[error("the journal did not answer in time")]
    Late,
    /// Others posted all the time.
    #[error("too many post alerts at once: send it again")]
    Busy,
    /// All but these were taken.
    #[error(
        "{0} alerts found no place: {ALERTS_FIRING_MAX} fire at most, or fewer with long texts; make rules that tell of many things at once, and send it again"
    )]
    NoPlace(u64),
}

impl Alerts {
    /// No alerts, listening from now on. Give it to the journal as a fold.
    #[must_use]
    pub fn new(registry: &Registry, shared: &Shared, clock: Clock) -> Self {
        LIMITS.iter().for_each(|limit| shared.expect_limit(limit));
        Self {
            book: Mutex::default(),
            watchdog: Mutex::default(),
            truncated: AtomicU64::new(0),
            no_place: AtomicU64::new(0),
            listening_since: clock.now(),
            outcomes: Outcomes::new(registry),
            shared: shared.clone(),
            clock,
        }
    }

    /// Takes a body in. When this returns `Ok`, all that changed is durable.
    ///
    /// # Errors
    /// See [`IntakeError`].
    pub async fn receive(
        &self,
        journal: &dyn Journal,
        actor: &Actor,
        bytes: &[u8],
    ) -> Result<Taken, IntakeError> {
        let Body { source, alerts, truncated } =
            body::read(bytes).inspect_err(|error| self.refused(error))?;
        self.truncated.fetch_add(truncated, Ordering::Relaxed);
        self.outcomes.add(Outcome::Truncated, truncated);
        if truncated > 0 {
            tracing::warn!(
                source = "alerts",
                truncated,
                "a sender left alerts out: raise its `max_alerts`, or group them"
            );
        }
        let (watchdogs, mut alerts): (Vec<_>, Vec<_>) = alerts.into_iter().partition(is_watchdog);
        let mut taken = Taken { truncated, watchdog: watchdogs.len() as u64, ..Taken::default() };
        self.heard_watchdogs(&watchdogs);
        // What ends makes room for what begins, also where a body is cut into parts.
        alerts.sort_by_key(|alert| alert.status == PostedStatus::Firing);
        let told: Vec<Told> =
            alerts.into_iter().map(|alert| Told { id: Identity::of(&alert.labels), alert }).collect();
        let mut no_place = 0;
        for part in told.chunks(ALERTS_AT_ONCE_MAX) {
            no_place += self.take(journal, actor, source, part, &mut taken).await?;
        }
        if no_place > 0 { Err(self.found_no_place(no_place)) } else { Ok(taken) }
    }

    /// What fires, and what is over.
    #[must_use]
    pub fn list(&self) -> AlertList {
        let (alerts, firing, stale) = self.book().list(self.now(self.clock.now()));
        AlertList {
            alerts,
            firing,
            stale,
            watchdog: Watchdog {
                last_received: *self.watchdog.lock().unwrap_or_else(PoisonError::into_inner),
            },
            truncated: self.truncated.load(Ordering::Relaxed),
            no_place: self.no_place.load(Ordering::Relaxed),
        }
    }

    /// Takes a part of a body, and says how many found no place.
    async fn take(
        &self,
        journal: &dyn Journal,
        actor: &Actor,
        source: Source,
        told: &[Told],
        taken: &mut Taken,
    ) -> Result<u64, IntakeError> {
        let mut ends = None;
        for _ in 0..TRIES_MAX {
            let (decision, last) = self.decide(told, source, actor, journal.now());
            match self.append(journal, &decision.records, ends.unwrap_or(last)).await {
                Ok(()) => return Ok(self.count(&decision, taken)),
                Err(IntakeError::Journal(AppendError::Conflict { actual, .. })) => ends = Some(actual),
                Err(error) => return Err(error),
            }
        }
        Err(IntakeError::Busy)
    }

    /// What is to be done, and the last record that this was decided upon.
    fn decide(&self, told: &[Told], source: Source, actor: &Actor, at: Timestamp) -> (Decision, Seq) {
        let mut book = self.book();
        book.touch(told, at);
        (book.decide(told, source, actor, self.now(at)), book.last())
    }

    /// Appends if nothing came between.
    async fn append(
        &self,
        journal: &dyn Journal,
        records: &[NewRecord],
        ends: Seq,
    ) -> Result<(), IntakeError> {
        if records.is_empty() {
            return Ok(());
        }
        let append =
            Append { stream: StreamId::alert(), expected_last_seq: Some(ends), records: records.to_vec() };
        match timeout(JOURNAL_APPEND_WAIT, journal.append(append)).await {
            Ok(appended) => appended.map(drop).map_err(IntakeError::Journal),
            Err(_) => Err(IntakeError::Late),
        }
    }

    fn count(&self, decision: &Decision, taken: &mut Taken) -> u64 {
        let Decision { records: _, repeated, fired, resolved, not_firing, no_place, expired } = decision;
        let repeated = repeated.len() as u64;
        taken.fired += fired;
        taken.repeated += repeated;
        taken.resolved += resolved;
        taken.not_firing += not_firing;
        for (outcome, count) in [
            (Outcome::Fired, *fired),
            (Outcome::Repeated, repeated),
            (Outcome::Resolved, *resolved),
            (Outcome::NotFiring, *not_firing),
            (Outcome::NoPlace, *no_place),
            (Outcome::Expired, *expired),
        ] {
            self.outcomes.add(outcome, count);
        }
        *no_place
    }

    fn heard_watchdogs(&self, watchdogs: &[PostedAlert]) {
        self.outcomes.add(Outcome::Watchdog, watchdogs.len() as u64);
        if watchdogs.iter().any(|alert| alert.status == PostedStatus::Firing) {
            *self.watchdog.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.clock.now());
        }
    }

    fn found_no_place(&self, count: u64) -> IntakeError {
        self.no_place.fetch_add(count, Ordering::Relaxed);
        self.shared.limit_hit("alerts_firing");
        tracing::error!(source = "alerts", count, "alerts found no place: too many fire");
        IntakeError::NoPlace(count)
    }

    fn refused(&self, error: &BodyError) {
        self.outcomes.add(Outcome::Unreadable, 1);
        let limit = match error {
            BodyError::Unreadable(_) => return,
            BodyError::TooLong => "alert_body_bytes",
            BodyError::TooManyAlerts(_) => "alerts_per_body",
            BodyError::TooManyLabels(_) => "alert_labels",
            BodyError::TextTooLong(_) => "alert_text_bytes",
            BodyError::TooLarge(_) => "alert_bytes",
        };
        self.shared.limit_hit(limit);
    }

    fn now(&self, at: Timestamp) -> Now {
        Now { at, listening_since: self.listening_since }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_watchdog(alert: &PostedAlert) -> bool {
    name(&alert.labels) == Some(WATCHDOG)
}

impl Fold for Alerts {
    fn name(&self) -> &'static str {
        "alerts"
    }

    fn wants(&self) -> StreamKind {
        StreamKind::Alert
    }

    fn apply(&self, record: &Record) {
        if self.book().apply(record).is_err() {
            tracing::warn!(seq = record.seq.0, kind = record.kind, "a record of an alert cannot be read");
        }
    }

    fn snapshot(&self) -> Value {
        self.book().snapshot()
    }

    fn restore(&self, snapshot: &Value) -> Result<(), String> {
        *self.book() = Book::restored(snapshot)?;
        Ok(())
    }

    fn records_lost(&self) {
        tracing::error!(
            source = "alerts",
            "the journal may lack alerts: what fires comes again when its sender repeats it"
        );
    }
}
