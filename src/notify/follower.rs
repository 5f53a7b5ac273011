//! Follows the journal and tells what is news: each record once, in its order, also those that came too fast.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::alarm::{Alarm, AlarmKind, Phase};
use super::courier::Mailbox;
use super::cursor::Cursors;
use super::post::Recipient as _;
use super::sentry::{SENTRY, Sentry};
use super::told::Told;
use super::webhook::Webhook;
use crate::clock::{Clock, Timestamp};
use crate::ids::Seq;
use crate::journal::{Journal, Page, ReadError, Record, Scan, StreamId};
use crate::limits::{JOURNAL_GROUP_RECORDS_MAX, NOTIFY_LAST_EVENTS, NOTIFY_LOOK_BACK};

/// See the module.
pub(super) struct Follower {
    pub(super) journal: Arc<dyn Journal>,
    pub(super) clock: Clock,
    pub(super) webhooks: Vec<(Arc<Webhook>, Mailbox)>,
    pub(super) sentry: Option<Arc<Sentry>>,
    pub(super) told: Told,
    pub(super) cursors: Arc<Cursors>,
    /// The record that was not looked at yet.
    pub(super) next: Seq,
}

impl Follower {
    /// Goes on until it is stopped, and then through what there is.
    pub(super) async fn run(mut self, mut tail: broadcast::Receiver<Arc<Record>>, stop: CancellationToken) {
        self.go_back().await;
        loop {
            let due = self.told.next().map(|at| at.saturating_sub(self.clock.elapsed()));
            tokio::select! {
                heard = tail.recv() => match heard {
                    Ok(record) => self.look_at(&record).await,
                    Err(RecvError::Lagged(_)) => self.read_back().await,
                    Err(RecvError::Closed) => return,
                },
                () = tokio::time::sleep(due.unwrap_or_default()), if due.is_some() => {
                    for alarm in self.told.due(self.clock.elapsed()) {
                        self.tell(&alarm);
                    }
                    self.cursors.looked(Seq(0), self.told.held());
                }
                () = stop.cancelled() => break,
            }
        }
        loop {
            match tail.try_recv() {
                Ok(record) => self.look_at(&record).await,
                Err(TryRecvError::Lagged(_)) => self.read_back().await,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    async fn look_at(&mut self, record: &Record) {
        if record.seq < self.next {
            return;
        }
        self.next = record.seq.next();
        if let Some(alarm) = Alarm::of(record) {
            self.tell_sentry(&alarm).await;
            if let Some(alarm) = self.told.hear(alarm, self.clock.elapsed()) {
                self.tell(&alarm);
            }
        }
        self.cursors.looked(record.seq, self.told.held());
    }

    /// Looks at what an earlier plimsoll did not tell everybody of, unless that is too old to be news.
    async fn go_back(&mut self) {
        let (cursors, journal, end) =
            (Arc::clone(&self.cursors), Arc::clone(&self.journal), Seq(self.next.0 - 1));
        let webhooks = self.webhooks.iter().map(|(webhook, _)| webhook.name().to_owned());
        let names: Vec<String> = webhooks.chain(self.sentry.iter().map(|_| SENTRY.to_owned())).collect();
        let oldest = Timestamp::from_millis(
            self.journal
                .now()
                .as_millis()
                .saturating_sub(u64::try_from(NOTIFY_LOOK_BACK.as_millis()).unwrap_or(u64::MAX)),
        );
        let first = spawn_blocking(move || {
            let first = cursors.open(&names, end)?;
            if first > end { Ok(first) } else { journal.seq_at(oldest).map(|oldest| first.max(oldest)) }
        });
        match first.await.unwrap_or_else(|lost| Err(ReadError::Unavailable(lost.to_string()))) {
            Ok(first) if first < self.next => {
                self.next = first;
                self.read_back().await;
            }
            Ok(_) => {}
            Err(error) => {
                tracing::error!(source = "notify", %error, "what an earlier plimsoll did not tell cannot be read: nobody outside is told of it");
            }
        }
    }

    /// Looks at what the tail had no room for.
    async fn read_back(&mut self) {
        loop {
            let scan = Scan { from: self.next, limit: JOURNAL_GROUP_RECORDS_MAX, ..Scan::default() };
            let page = match self.scan(scan).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::error!(
                        source = "notify",
                        from = self.next.0,
                        %error,
                        "what came too fast cannot be read back: nobody outside is told of it"
                    );
                    return;
                }
            };
            for record in &page.records {
                self.look_at(record).await;
            }
            let Some(next) = page.next else { return };
            self.next = self.next.max(next);
        }
    }

    async fn scan(&self, scan: Scan) -> Result<Page, ReadError> {
        let journal = Arc::clone(&self.journal);
        let read = spawn_blocking(move || journal.scan(&scan)).await;
        read.unwrap_or_else(|lost| Err(ReadError::Unavailable(lost.to_string())))
    }

    fn tell(&self, alarm: &Alarm) {
        let is_open = |name: &str| self.cursors.is_open(name, alarm.seq);
        for (webhook, mailbox) in self.webhooks.iter().filter(|(webhook, _)| webhook.wants(alarm)) {
            if is_open(webhook.name()) {
                mailbox.post(webhook.letter(alarm));
            }
        }
    }

    /// Sentry gets every episode that begins: it puts those of one fingerprint together by itself.
    async fn tell_sentry(&self, alarm: &Alarm) {
        if let Some(sentry) = &self.sentry
            && self.cursors.is_open(SENTRY, alarm.seq)
            && (alarm.kind, alarm.phase) == (AlarmKind::Violation, Phase::Opened)
        {
            sentry.violated(alarm, self.last_events(alarm).await);
        }
    }

    /// What happened in the town up to then: kinds and places in the journal, and nothing of what they hold.
    async fn last_events(&self, alarm: &Alarm) -> Value {
        let Some(town) = &alarm.about.town else { return json!([]) };
        let scan = Scan {
            stream: Some(StreamId::town(town)),
            before: Some(Seq(alarm.seq.0 + 1)),
            limit: NOTIFY_LAST_EVENTS,
            newest_first: true,
            ..Scan::default()
        };
        let read = tokio::time::timeout(LAST_EVENTS_DEADLINE, self.scan(scan)).await;
        let records = read.ok().and_then(Result::ok).map(|page| page.records).unwrap_or_default();
        let line = |record: &Record| json!({"seq": record.seq, "kind": record.kind});
        records.iter().rev().map(line).collect()
    }
}

/// An alarm goes out without them if the disk hangs.
const LAST_EVENTS_DEADLINE: Duration = Duration::from_secs(2);
