//! The past of a town, read out of a journal: the state at any moment that is kept, and the events after it.
//!
//! Where retention dropped the first records, the past begins at a snapshot of the fold `towns`. Records are read a page
//! at a time, so that memory follows the state and not the events. Nothing is written. Start at [`History`].

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use serde_json::Value;

use super::cell::Cell;
use super::replay::ReplayError;
use crate::clock::Timestamp;
use crate::ids::{Seq, TownId};
use crate::journal::offline::Offline;
use crate::journal::{Journal, Log, Page, ReadError, Record, Scan, StreamId};
use crate::limits::REPLAY_PAGE_RECORDS;
use crate::town::event::{TownEvent, Unreadable};
use crate::town::state::Town;

/// The name of the fold whose snapshots hold the towns.
pub(super) const TOWNS: &str = "towns";

/// Where the past is read.
#[derive(Clone, Copy)]
pub enum History<'a> {
    /// In the journal of a running server.
    Live(&'a dyn Journal),
    /// In a directory that no server uses.
    Offline(&'a Offline),
}

impl History<'_> {
    fn scan(self, query: &Scan) -> Result<Page, ReadError> {
        match self {
            Self::Live(journal) => journal.scan(query),
            Self::Offline(offline) => offline.scan(query),
        }
    }

    /// The first seq at or after `time`; one after the last record if there is none.
    pub(super) fn seq_at(self, time: Timestamp) -> Result<Seq, ReadError> {
        match self {
            Self::Live(journal) => journal.seq_at(time),
            Self::Offline(offline) => offline.seq_at(time),
        }
    }

    fn kept_from(self, log: Log) -> Result<Seq, ReadError> {
        match self {
            Self::Live(journal) => journal.kept_from(log),
            Self::Offline(offline) => Ok(offline.kept_from(log)),
        }
    }

    fn snapshots(self, fold: &str) -> Result<Vec<Seq>, ReadError> {
        match self {
            Self::Live(journal) => journal.snapshots(fold),
            Self::Offline(offline) => Ok(offline.snapshots(fold)),
        }
    }

    fn snapshot_before(self, fold: &str, before: Seq) -> Result<Option<(Seq, Value)>, ReadError> {
        match self {
            Self::Live(journal) => journal.snapshot_before(fold, before),
            Self::Offline(offline) => Ok(offline.snapshot_before(fold, before)),
        }
    }
}

/// A town as far as it is folded, and what came of its events.
#[derive(Debug, Clone, Default)]
pub(super) struct Folded {
    pub(super) town: Town,
    pub(super) events: u64,
    pub(super) rejected: u64,
}

impl Folded {
    /// Takes the next record in. Answers its event, unless the town did not accept it.
    pub(super) fn take(&mut self, record: &Record) -> Option<TownEvent> {
        self.events += 1;
        let event = TownEvent::parse(&record.kind, record.version, &record.detail).ok();
        let taken = event.filter(|event| self.town.apply(record.seq, record.time, event).is_ok());
        self.rejected += u64::from(taken.is_none());
        taken
    }
}

/// What a snapshot of the fold keeps of one town, as far as it matters here.
#[derive(Deserialize)]
struct Kept {
    town: Value,
    /// Records that were in line: not in the town yet.
    #[serde(default)]
    pending: VecDeque<Record>,
}

fn folded_of(part: &Value) -> Result<Folded, String> {
    let Kept { town, pending } = Kept::deserialize(part).map_err(|error| error.to_string())?;
    let mut folded = Folded { town: Town::restore(&town)?, ..Folded::default() };
    for record in &pending {
        folded.take(record);
    }
    Ok(folded)
}

/// The snapshot that was read last: it holds every town, and each of many reads its own part.
#[derive(Debug, Default)]
pub(super) struct LastRead(Mutex<Option<(Seq, Arc<Value>)>>);

impl LastRead {
    fn before(&self, history: History<'_>, before: Seq) -> Result<Option<(Seq, Arc<Value>)>, ReadError> {
        let newest = history.snapshots(TOWNS)?.into_iter().rev().find(|at| *at < before);
        // A panic while it was read left nothing here.
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref().is_none_or(|(at, _)| newest != Some(*at)) {
            *last = history.snapshot_before(TOWNS, before)?.map(|(at, towns)| (at, Arc::new(towns)));
        }
        Ok(last.clone())
    }
}

/// One town's past.
pub(super) struct Past<'a> {
    pub(super) history: History<'a>,
    pub(super) town: &'a TownId,
    /// Asked before each page whether this is still wanted.
    pub(super) go_on: &'a dyn Fn() -> bool,
    /// Where the snapshot that was read last is kept for others who want it.
    pub(super) last_read: Option<&'a LastRead>,
}

impl Past<'_> {
    /// # Errors
    /// [`ReplayError::UnknownTown`] if the journal knows of no such town.
    pub(super) fn check_known(&self) -> Result<(), ReplayError> {
        let query = Scan { limit: 1, newest_first: true, ..self.events_from(Seq(0)) };
        let known = !self.history.scan(&query)?.records.is_empty()
            || self
                .history
                .snapshot_before(TOWNS, Seq(u64::MAX))?
                .is_some_and(|(_, towns)| towns.get(self.town.as_str()).is_some());
        if known { Ok(()) } else { Err(ReplayError::UnknownTown(self.town.clone())) }
    }

    /// The town as all its events before this place made it.
    ///
    /// # Errors
    /// [`ReplayError::BeforeHistory`] if that cannot be told any more.
    pub(super) fn state_before(&self, until: Seq) -> Result<Town, ReplayError> {
        self.folded_from(until, until)
    }

    /// The same from an older snapshot than so many of the newest, or from the first event: what they were made from.
    ///
    /// # Errors
    /// [`ReplayError::BeforeHistory`] if nothing older is kept.
    pub(super) fn folded_anew(&self, until: Seq, newest: usize) -> Result<Town, ReplayError> {
        let snapshots = self.history.snapshots(TOWNS)?;
        let oldest = snapshots.iter().rev().take(newest).next_back();
        self.folded_from(oldest.map_or(until, |oldest| until.min(*oldest)), until)
    }

    /// The same from the first event, or from the oldest snapshot that serves.
    ///
    /// # Errors
    /// [`ReplayError::BeforeHistory`] if there is none.
    pub(super) fn folded_whole(&self, until: Seq) -> Result<Town, ReplayError> {
        let kept_from = self.history.kept_from(Log::Work)?;
        if kept_from <= Seq(1) {
            return self.folded_from(Seq(0), until);
        }
        let oldest = self.history.snapshots(TOWNS)?.into_iter().find(|at| at.next() >= kept_from);
        self.folded_from(oldest.map_or(until, |oldest| until.min(oldest.next())), until)
    }

    /// The same from the newest snapshot before a place.
    fn folded_from(&self, before: Seq, until: Seq) -> Result<Town, ReplayError> {
        let (mut folded, at) = self.snapshot_before(before)?;
        self.each((at.next(), until), |record| {
            folded.take(record);
            true
        })?;
        Ok(folded.town)
    }

    /// The newest state before this place that is written down, and up to which record it goes.
    fn snapshot_before(&self, until: Seq) -> Result<(Folded, Seq), ReplayError> {
        self.newest_before(until, folded_of, Folded::default)
    }

    /// The town as it is kept while plimsoll runs, as all its events made it, from the newest snapshot that can be read; `None`
    /// if not all of them can be taken in, because a later plimsoll wrote them or one makes it panic.
    ///
    /// # Errors
    /// [`ReplayError::BeforeHistory`] if none can, and its first events are not kept.
    pub(super) fn cell(&self) -> Result<Option<Cell>, ReplayError> {
        let (read, new) =
            (|part: &_| Cell::restore(self.town.clone(), part), || Cell::new(self.town.clone()));
        let (cell, at) = self.newest_before(Seq(u64::MAX), read, new)?;
        let mut is_known = true;
        self.each((at.next(), Seq(u64::MAX)), |record| {
            let event = TownEvent::parse(&record.kind, record.version, &record.detail);
            is_known = !matches!(event, Err(Unreadable::Kind { .. } | Unreadable::Version { .. }));
            if is_known {
                cell.push(record.clone());
                cell.settle();
            }
            is_known && !cell.is_broken()
        })?;
        cell.settle();
        Ok(Some(cell).filter(|cell| is_known && !cell.is_broken()))
    }

    /// What the newest snapshot before this place holds of the town that can be read, and up to which record it goes; `new`
    /// makes what it was before its first event.
    fn newest_before<T>(
        &self,
        until: Seq,
        read: impl Fn(&Value) -> Result<T, String>,
        new: impl Fn() -> T,
    ) -> Result<(T, Seq), ReplayError> {
        let kept_from = self.history.kept_from(Log::Work)?;
        let mut before = until;
        loop {
            // A snapshot takes a while to read.
            if !(self.go_on)() {
                return Err(ReplayError::Stopped);
            }
            let Some((at, towns)) = self.towns_before(before)? else { break };
            if at.next() < kept_from {
                break;
            }
            match towns.get(self.town.as_str()).map_or_else(|| Ok(new()), &read) {
                Ok(kept) => return Ok((kept, at)),
                Err(cause) => {
                    tracing::warn!(%at, cause, "a town's snapshot cannot be read, an older one is tried");
                }
            }
            before = at;
        }
        if kept_from <= Seq(1) {
            return Ok((new(), Seq(0)));
        }
        Err(ReplayError::BeforeHistory { first: self.first_instant(kept_from)? })
    }

    fn towns_before(&self, before: Seq) -> Result<Option<(Seq, Arc<Value>)>, ReadError> {
        match self.last_read {
            Some(last) => last.before(self.history, before),
            None => Ok(self.history.snapshot_before(TOWNS, before)?.map(|(at, towns)| (at, Arc::new(towns)))),
        }
    }

    /// Whether every record of the log from this moment on is kept. What was dropped may be as late as the first record
    /// that was not.
    ///
    /// # Errors
    /// [`ReplayError::BeforeHistory`] if not.
    pub(super) fn check_kept(&self, from: Timestamp) -> Result<(), ReplayError> {
        let kept_from = self.history.kept_from(Log::Work)?;
        if kept_from <= Seq(1)
            || self.one(Scan { from: kept_from, ..Scan::default() })?.is_some_and(|at| at < from)
        {
            return Ok(());
        }
        Err(ReplayError::BeforeHistory { first: self.first_instant(kept_from)? })
    }

    /// The first moment whose state can be told: after everything that was dropped, and after what is in the first
    /// snapshot that serves.
    fn first_instant(&self, kept_from: Seq) -> Result<Option<Timestamp>, ReadError> {
        let usable = self.history.snapshots(TOWNS)?.into_iter().find(|at| at.next() >= kept_from);
        let Some(at) = usable else { return Ok(None) };
        let before = Some(at.next());
        let latest = self.one(Scan { from: kept_from, before, newest_first: true, ..Scan::default() })?;
        let moment = match latest {
            None => self.one(Scan { from: kept_from, ..Scan::default() })?,
            latest => latest,
        };
        Ok(moment.map(|moment| moment.after(MOMENT)))
    }

    /// When the first record was that a query finds.
    fn one(&self, query: Scan) -> Result<Option<Timestamp>, ReadError> {
        let page = self.history.scan(&Scan { limit: 1, ..query })?;
        Ok(page.records.first().map(|record| record.time))
    }

    /// Reads the town's records in this range, in order, until `each` does not want more.
    ///
    /// # Errors
    /// [`ReplayError::Read`], or [`ReplayError::Stopped`].
    pub(super) fn each(
        &self,
        (from, until): (Seq, Seq),
        mut each: impl FnMut(&Record) -> bool,
    ) -> Result<(), ReplayError> {
        let mut next = Some(from);
        while let Some(from) = next.filter(|from| *from < until) {
            if !(self.go_on)() {
                return Err(ReplayError::Stopped);
            }
            let page = self.history.scan(&Scan { before: Some(until), ..self.events_from(from) })?;
            if !page.records.iter().all(&mut each) {
                return Ok(());
            }
            next = page.next;
        }
        Ok(())
    }

    fn events_from(&self, from: Seq) -> Scan {
        let stream = Some(StreamId::town(self.town));
        Scan { stream, from, limit: REPLAY_PAGE_RECORDS, ..Scan::default() }
    }
}

/// The shortest time that timestamps tell apart.
pub(super) const MOMENT: std::time::Duration = std::time::Duration::from_millis(1);
