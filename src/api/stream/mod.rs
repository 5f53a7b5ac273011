//! Following events: one implementation for SSE and for WebSocket subscriptions.
//!
//! A follower gets journaled events in seq order without gaps: it listens first, reads its backlog from the journal,
//! then goes on with what it heard; if it falls behind, it reads back what it missed. Live events are not kept: a
//! follower that falls behind loses some and is told how many. Start at [`Follower`].

mod envelope;
mod town;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::json;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::ids::{AgentId, Seq, TownId};
use crate::journal::{Journal, Page, ReadError, Record, Scan};
use crate::limits::{STREAM_BACKLOG_RECORDS_MAX, STREAM_PAGE_RECORDS};
use crate::live::{Envelope, Level, Live};
use crate::telemetry::Shared;

pub(crate) use envelope::envelope;

/// Which events a follower wants. All conditions hold at once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    /// Only these types; all if empty.
    pub(crate) types: Vec<String>,
    pub(crate) instance: Option<AgentId>,
    pub(crate) town: Option<TownId>,
    /// Exactly this level.
    pub(crate) level: Option<Level>,
}

impl Filter {
    fn wants(&self, event: &Envelope) -> bool {
        let Self { types, instance, town, level } = self;
        (types.is_empty() || types.iter().any(|wanted| *wanted == event.r#type))
            && (instance.is_none() || *instance == event.instance)
            && (town.is_none() || *town == event.town)
            && level.is_none_or(|wanted| wanted == event.level)
    }
}

/// Where events come from.
pub(crate) struct Sources {
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) live: Arc<Live>,
    pub(crate) shared: Shared,
    pub(crate) clock: Clock,
    /// Cancelled when the server stops: streams end then.
    pub(crate) stop: CancellationToken,
}

/// Follows events for one client. Dropping it ends everything it did.
pub(crate) struct Follower {
    sources: Arc<Sources>,
    filter: Filter,
    records: Receiver<Arc<Record>>,
    live: Receiver<Arc<Envelope>>,
    /// The next journaled event that the client has not seen.
    next: Seq,
    /// Up to here the journal has to be read back, because the tail began later or ran away.
    behind: bool,
    ready: VecDeque<Arc<Envelope>>,
}

impl Follower {
    /// Follows from now on, or from after `after`.
    pub(crate) fn new(sources: &Arc<Sources>, filter: Filter, after: Option<Seq>) -> Self {
        // Listening comes first: what is appended from here on is heard, or read back, never lost.
        let (records, live) = (sources.journal.tail(), sources.live.subscribe());
        let status = sources.journal.status();
        let mut ready = VecDeque::new();
        let next = match after {
            None => status.last.next(),
            Some(after) if resumable(after, status.first, status.last) => after.next(),
            Some(_) => {
                ready.push_back(Arc::new(reset(sources, status.first, status.last)));
                status.last.next()
            }
        };
        let behind = next <= status.last;
        Self { sources: Arc::clone(sources), filter, records, live, next, behind, ready }
    }

    /// The next event for this client; `None` when the server stops.
    pub(crate) async fn next(&mut self) -> Option<Arc<Envelope>> {
        let stop = self.sources.stop.clone();
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.behind {
                tokio::select! {
                    () = stop.cancelled() => return None,
                    () = self.read_back() => continue,
                }
            }
            tokio::select! {
                () = stop.cancelled() => return None,
                record = self.records.recv() => match record {
                    Ok(record) => self.heard(&record),
                    Err(RecvError::Lagged(_)) => self.behind = true,
                    Err(RecvError::Closed) => return None,
                },
                event = self.live.recv() => match event {
                    // What is journaled comes by its own road, in order.
                    Ok(event) if event.seq.is_none() => self.offer(event),
                    Ok(_) => {}
                    Err(RecvError::Lagged(count)) => self.lost(count),
                    Err(RecvError::Closed) => return None,
                },
            }
        }
    }

    /// Where a client resumes that has got everything so far, also what its filter left out; `None` while something is
    /// ready for it.
    pub(crate) fn place(&self) -> Option<Seq> {
        self.ready.is_empty().then(|| Seq(self.next.0.saturating_sub(1)))
    }

    fn heard(&mut self, record: &Record) {
        if record.seq < self.next {
            return;
        }
        if record.seq > self.next {
            self.behind = true;
            return;
        }
        self.next = record.seq.next();
        self.offer(Arc::new(envelope(record)));
    }

    fn offer(&mut self, event: Arc<Envelope>) {
        if self.filter.wants(&event) {
            self.ready.push_back(event);
        }
    }

    fn lost(&mut self, count: u64) {
        self.sources.shared.dropped("live_event", "slow_client", count);
        let summary = format!("{count} live events were left out because this client reads too slowly");
        self.ready.push_back(Arc::new(notice(
            &self.sources,
            "stream.dropped",
            Level::Warn,
            summary,
            json!({"count": count}),
        )));
    }

    /// Reads one page of what was missed.
    async fn read_back(&mut self) {
        let status = self.sources.journal.status();
        if self.next < status.first && self.next.0 > 0 {
            // Retention was faster than this client.
            self.ready.push_back(Arc::new(reset(&self.sources, status.first, status.last)));
            self.next = status.last.next();
            self.behind = false;
            return;
        }
        let query = Scan { from: self.next, limit: STREAM_PAGE_RECORDS, ..Scan::default() };
        let journal = Arc::clone(&self.sources.journal);
        let page = tokio::task::spawn_blocking(move || journal.scan(&query)).await;
        match page {
            Ok(Ok(page)) => self.take_page(&page),
            Ok(Err(error)) => self.unreadable(&error),
            Err(_panic) => self.unreadable(&ReadError::Unavailable("the reader failed".to_owned())),
        }
    }

    fn take_page(&mut self, page: &Page) {
        for record in &page.records {
            self.next = record.seq.next();
            self.offer(Arc::new(envelope(record)));
        }
        if let Some(next) = page.next {
            self.next = self.next.max(next);
        } else {
            self.behind = false;
            // A gap that retention made is behind us: what the tail says next is the truth.
            self.next = self.next.max(self.sources.journal.status().first);
        }
    }

    /// A part that cannot be read is passed over, and the client is told.
    fn unreadable(&mut self, error: &ReadError) {
        tracing::warn!(%error, "a stream could not read the journal back");
        let status = self.sources.journal.status();
        self.ready.push_back(Arc::new(reset(&self.sources, status.first, status.last)));
        self.next = status.last.next();
        self.behind = false;
    }
}

/// Whether a client that saw everything up to `after` can be given the rest.
fn resumable(after: Seq, first: Seq, last: Seq) -> bool {
    after <= last && after.next() >= first && last.0 - after.0 <= STREAM_BACKLOG_RECORDS_MAX
}

fn reset(sources: &Sources, first: Seq, last: Seq) -> Envelope {
    let summary = "the journal cannot be followed from there: begin anew, with /audit for what is older";
    let detail = json!({"firstSeq": first, "lastSeq": last});
    notice(sources, "stream.reset", Level::Warn, summary.to_owned(), detail)
}

fn notice(
    sources: &Sources,
    r#type: &'static str,
    level: Level,
    summary: String,
    detail: serde_json::Value,
) -> Envelope {
    Envelope {
        r#type: Cow::Borrowed(r#type),
        ts: sources.clock.now(),
        level,
        source: Cow::Borrowed("api"),
        instance: None,
        town: None,
        summary,
        detail,
        trace_id: None,
        seq: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Actor, Append, MemoryJournal, NewRecord, StreamId};
    use crate::limits::{JOURNAL_TAIL_RECORDS_MAX, STREAM_CLIENT_ENVELOPES_MAX};
    use crate::telemetry::Registry;

    fn sources() -> Arc<Sources> {
        let clock = Clock::system();
        let registry = Registry::new(&[]).expect("no histograms");
        Arc::new(Sources {
            journal: Arc::new(MemoryJournal::new(clock.clone(), Vec::new())),
            live: Live::new(&crate::live::Config::default(), &registry, clock.clone()),
            shared: Shared::new(&registry),
            clock,
            stop: CancellationToken::new(),
        })
    }

    fn append(sources: &Sources, count: usize) {
        for _ in 0..count {
            let record = NewRecord {
                kind: "token_created",
                version: 1,
                actor: Actor::System,
                trace_id: None,
                detail: json!({}),
            };
            let stream = StreamId::operator();
            let append = Append { stream, expected_last_seq: None, records: vec![record] };
            sources.journal.offer(append).expect("memory takes it");
        }
    }

    fn publish(sources: &Sources, count: usize) {
        for _ in 0..count {
            let event = notice(sources, "live.test", Level::Info, String::new(), json!({}));
            sources.live.publish(event);
        }
    }

    async fn seqs(follower: &mut Follower, count: usize) -> Vec<u64> {
        let mut seqs = Vec::new();
        while seqs.len() < count {
            let event = follower.next().await.expect("the server runs");
            seqs.extend(event.seq.map(|seq| seq.0));
        }
        seqs
    }

    #[test]
    fn a_cursor_resumes_inside_what_is_kept_and_within_its_limit() {
        let can = |after, first, last| resumable(Seq(after), Seq(first), Seq(last));
        assert!(can(0, 1, 0), "an empty journal");
        assert!(can(0, 1, 5) && can(5, 1, 5) && can(3, 4, 9));
        assert!(!can(6, 1, 5), "newer than the log");
        assert!(!can(2, 4, 9), "older than what is kept");
        assert!(can(1, 1, 1 + STREAM_BACKLOG_RECORDS_MAX));
        assert!(!can(1, 1, 2 + STREAM_BACKLOG_RECORDS_MAX), "a backlog over its limit");
    }

    #[tokio::test]
    async fn a_follower_that_falls_behind_reads_back_what_it_missed() {
        let sources = sources();
        append(&sources, 3);
        let mut follower = Follower::new(&sources, Filter::default(), Some(Seq(1)));
        assert_eq!(seqs(&mut follower, 1).await, [2]);
        let count = JOURNAL_TAIL_RECORDS_MAX + 500;
        append(&sources, count);
        let last = 3 + count as u64;
        assert_eq!(seqs(&mut follower, count + 1).await, (3..=last).collect::<Vec<_>>(), "no gap, no double");
        append(&sources, 1);
        assert_eq!(seqs(&mut follower, 1).await, [last + 1]);
    }

    #[tokio::test]
    async fn a_follower_that_reads_live_events_too_slowly_is_told_how_many_it_lost() {
        let sources = sources();
        let mut follower = Follower::new(&sources, Filter::default(), None);
        publish(&sources, STREAM_CLIENT_ENVELOPES_MAX + 7);
        let first = follower.next().await.expect("the server runs");
        assert_eq!((first.r#type.as_ref(), &first.detail["count"]), ("stream.dropped", &json!(7)));
        assert_eq!(follower.next().await.expect("the server runs").r#type, "live.test");
        append(&sources, 1);
        assert_eq!(seqs(&mut follower, 1).await, [1], "journaled ones are never dropped");
    }

    #[tokio::test]
    async fn a_follower_ends_with_the_server() {
        let sources = sources();
        let mut follower = Follower::new(&sources, Filter::default(), None);
        sources.stop.cancel();
        assert!(follower.next().await.is_none());
    }
}
