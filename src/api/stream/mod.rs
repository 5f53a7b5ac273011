//! Following events: one implementation for SSE and for WebSocket subscriptions.
//!
//! A follower gets journaled events in seq order without gaps: it listens first, reads its backlog from the journal,
//! then goes on with what it heard; if it falls behind, it reads back what it missed. Live events are not kept: a
//! follower that falls behind loses some and is told how many. Start at [`Follower`].

mod envelope;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::json;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::state::ApiState;
use crate::ids::{AgentId, Seq, TownId};
use crate::journal::{Page, ReadError, Record, Scan};
use crate::limits::{STREAM_BACKLOG_RECORDS_MAX, STREAM_PAGE_RECORDS};
use crate::live::{Envelope, Level};

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

/// Follows events for one client. Dropping it ends everything it did.
pub(crate) struct Follower {
    state: Arc<ApiState>,
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
    pub(crate) fn new(state: &Arc<ApiState>, filter: Filter, after: Option<Seq>) -> Self {
        // Listening comes first: what is appended from here on is heard, or read back, never lost.
        let (records, live) = (state.journal.tail(), state.live.subscribe());
        let status = state.journal.status();
        let mut ready = VecDeque::new();
        let next = match after {
            None => status.last.next(),
            Some(after) if resumable(after, status.first, status.last) => after.next(),
            Some(_) => {
                ready.push_back(Arc::new(reset(state, status.first, status.last)));
                status.last.next()
            }
        };
        let behind = next <= status.last;
        Self { state: Arc::clone(state), filter, records, live, next, behind, ready }
    }

    /// The next event for this client; `None` when the server stops.
    pub(crate) async fn next(&mut self) -> Option<Arc<Envelope>> {
        let stop = self.state.stop.clone();
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
        self.state.dropped("live_event", "slow_client", count);
        let summary = format!("{count} live events were left out because this client reads too slowly");
        self.ready.push_back(Arc::new(notice(
            &self.state,
            "stream.dropped",
            Level::Warn,
            summary,
            json!({"count": count}),
        )));
    }

    /// Reads one page of what was missed.
    async fn read_back(&mut self) {
        let status = self.state.journal.status();
        if self.next < status.first && self.next.0 > 0 {
            // Retention was faster than this client.
            self.ready.push_back(Arc::new(reset(&self.state, status.first, status.last)));
            self.next = status.last.next();
            self.behind = false;
            return;
        }
        let query = Scan { from: self.next, limit: STREAM_PAGE_RECORDS, ..Scan::default() };
        let journal = Arc::clone(&self.state.journal);
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
            self.next = self.next.max(self.state.journal.status().first);
        }
    }

    /// A part that cannot be read is passed over, and the client is told.
    fn unreadable(&mut self, error: &ReadError) {
        tracing::warn!(%error, "a stream could not read the journal back");
        let status = self.state.journal.status();
        self.ready.push_back(Arc::new(reset(&self.state, status.first, status.last)));
        self.next = status.last.next();
        self.behind = false;
    }
}

/// Whether a client that saw everything up to `after` can be given the rest.
fn resumable(after: Seq, first: Seq, last: Seq) -> bool {
    after <= last && after.next() >= first && last.0 - after.0 <= STREAM_BACKLOG_RECORDS_MAX
}

fn reset(state: &ApiState, first: Seq, last: Seq) -> Envelope {
    let summary = "the journal cannot be followed from there: begin anew, with /audit for what is older";
    let detail = json!({"firstSeq": first, "lastSeq": last});
    notice(state, "stream.reset", Level::Warn, summary.to_owned(), detail)
}

fn notice(
    state: &ApiState,
    r#type: &'static str,
    level: Level,
    summary: String,
    detail: serde_json::Value,
) -> Envelope {
    Envelope {
        r#type: Cow::Borrowed(r#type),
        ts: state.clock.now(),
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
}
