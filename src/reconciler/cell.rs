//! One town while plimsoll runs: its state, and the records that are not in it yet.
//!
//! The journal's writer only puts records in line; whoever needs the state takes them in first. What a town does not
//! accept is kept until `event_rejected` tells of it, and holds up nothing behind it.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::coalescing::Coalescing;
use crate::ids::{Seq, TownId};
use crate::journal::Record;
use crate::limits::TOWN_NOTE_BYTES_MAX;
use crate::town::{Town, TownEvent};

/// See the module. Where several locks are taken, `unread` comes first, then the book, then the line.
pub(super) struct Cell {
    pub(super) id: TownId,
    /// A std lock suffices: who writes applies what is in line, who reads plans or copies, and nobody waits meanwhile.
    book: RwLock<Book>,
    /// A std mutex suffices: a hold is a push or a pop, and while a snapshot is taken as long as that takes.
    line: Mutex<VecDeque<Record>>,
    /// Records that no plan knew of yet.
    pending: AtomicU64,
    /// Its first record; 0 before that.
    created: AtomicU64,
    /// How often it was written down.
    snapshots: AtomicU64,
    /// See [`Self::is_broken`].
    broken: AtomicBool,
    /// Reports of progress that are not written.
    pub(super) coalescing: Coalescing,
    /// See [`Self::unread`]. A std mutex suffices: nothing waits while it is held.
    unread: Mutex<Option<Unread>>,
    /// Held by who appends beside a turn; a turn that was crossed again and again holds it alone.
    pub(super) door: tokio::sync::RwLock<()>,
    /// Whether there is something to be looked at.
    woken: AtomicBool,
    signal: Notify,
    /// What a test has it do.
    #[cfg(test)]
    fault: Mutex<Option<Fault>>,
}

/// What a test has a town do.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It panics when it plans next.
    PlanPanics,
    /// It refuses what its planner decides.
    PlanRefused,
}

/// A town as far as it is folded.
#[derive(Default)]
pub(super) struct Book {
    pub(super) town: Town,
    /// The last record that was looked at.
    pub(super) at: Seq,
    /// What was refused, and of which no `event_rejected` tells yet.
    pub(super) untold: VecDeque<Refused>,
}

/// An event that the town did not accept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Refused {
    pub(super) seq: Seq,
    pub(super) error: String,
}

/// What a snapshot holds of a town that cannot be read.
struct Unread {
    part: Value,
    cause: String,
}

/// What a snapshot keeps of a cell.
#[derive(Deserialize)]
struct Kept {
    town: Value,
    created: Seq,
    at: Seq,
    untold: VecDeque<Refused>,
    pending: VecDeque<Record>,
}

impl Book {
    /// Takes the next record in.
    pub(super) fn take(&mut self, record: &Record) {
        self.at = record.seq;
        let event = TownEvent::parse(&record.kind, record.version, &record.detail);
        let taken = event.map_err(|unreadable| unreadable.to_string()).and_then(|event| {
            let applied = self.town.apply(record.seq, record.time, &event);
            applied.map_err(|rejected| rejected.to_string())
        });
        match taken {
            Err(mut error) => {
                error.truncate(error.floor_char_boundary(TOWN_NOTE_BYTES_MAX));
                self.untold.push_back(Refused { seq: record.seq, error });
            }
            Ok(()) => {
                let told = self.town.counts().rejected_last;
                while self.untold.front().is_some_and(|refused| refused.seq <= told) {
                    self.untold.pop_front();
                }
            }
        }
    }
}

#[cfg(test)]
impl Book {
    fn take_but_plans(&mut self, record: &Record) {
        if record.actor == crate::journal::Actor::Planner {
            self.at = record.seq;
            self.untold.push_back(Refused { seq: record.seq, error: "a test asked for it".to_owned() });
        } else {
            self.take(record);
        }
    }
}

impl Cell {
    pub(super) fn new(id: TownId) -> Self {
        Self {
            id,
            book: RwLock::default(),
            line: Mutex::default(),
            pending: AtomicU64::new(0),
            created: AtomicU64::new(0),
            snapshots: AtomicU64::new(0),
            broken: AtomicBool::new(false),
            coalescing: Coalescing::default(),
            unread: Mutex::default(),
            door: tokio::sync::RwLock::new(()),
            woken: AtomicBool::new(false),
            signal: Notify::new(),
            #[cfg(test)]
            fault: Mutex::default(),
        }
    }

    /// Puts a record in line; the journal calls this before whoever appended hears of it.
    pub(super) fn push(&self, record: Record) {
        // Only the first one finds it unset.
        let _ = self.created.compare_exchange(0, record.seq.0, Ordering::SeqCst, Ordering::SeqCst);
        // Nothing is decided from a sign of progress alone, and a tick that leaves time out is under way.
        let stirs = !["agent_progress", "time_skipped"].contains(&record.kind.as_str());
        self.line().push_back(record);
        self.pending.fetch_add(1, Ordering::SeqCst);
        if stirs {
            self.wake();
        }
    }

    /// The state with everything in it that is durable by now.
    pub(super) fn drained(&self) -> RwLockReadGuard<'_, Book> {
        self.drain();
        self.read()
    }

    /// Takes in what is in line. A record that makes this panic is the last one that is looked at: it stays in line, and
    /// the town is broken.
    pub(super) fn drain(&self) {
        #[cfg(test)]
        if self.has(Fault::PlanRefused) {
            return self.fold(Book::take_but_plans);
        }
        self.fold(Book::take);
    }

    pub(super) fn fold(&self, take: impl Fn(&mut Book, &Record)) {
        if self.line().is_empty() || self.is_broken() {
            return;
        }
        let mut book = self.write();
        // Under the book's lock: nobody takes a later record in before.
        while let Some(record) = self.next_in_line() {
            if catch_unwind(AssertUnwindSafe(|| take(&mut book, &record))).is_err() {
                self.broken.store(true, Ordering::SeqCst);
                tracing::error!(source = "reconciler", town = %self.id, seq = record.seq.0, kind = record.kind, "a town panicked over an event: this is a bug in plimsoll");
                self.line().push_front(record);
                self.wake();
                return;
            }
        }
    }

    /// Whether an event, or the snapshot, cannot be folded: nothing behind it ever is, and nothing may be decided.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::SeqCst)
    }

    /// Why its part of a snapshot cannot be read, if it cannot: nobody knows what the town is.
    pub(super) fn unread(&self) -> Option<String> {
        self.unread_part().as_ref().map(|unread| unread.cause.clone())
    }

    /// Whether something of this kind waits to be taken in.
    pub(super) fn awaits(&self, is_it: impl Fn(&str, &Value) -> bool) -> bool {
        let held = self.unread_part().as_ref().is_some_and(|Unread { part, .. }| {
            let held = part["pending"].as_array().into_iter().flatten();
            held.into_iter()
                .any(|record| is_it(record["kind"].as_str().unwrap_or_default(), &record["detail"]))
        });
        held || self.line().iter().any(|record| is_it(&record.kind, &record.detail))
    }

    /// Takes in what is in line, of which a plan need not be told: what was there before anybody plans.
    pub(super) fn settle(&self) {
        self.drain();
        self.pending.store(0, Ordering::SeqCst);
    }

    fn next_in_line(&self) -> Option<Record> {
        self.line().pop_front()
    }

    /// The state as far as it is folded.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Book> {
        self.book.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its first record; 0 before that.
    pub(super) fn created(&self) -> Seq {
        Seq(self.created.load(Ordering::SeqCst))
    }

    /// How many records no plan knew of yet.
    pub(super) fn pending(&self) -> u64 {
        self.pending.load(Ordering::SeqCst)
    }

    /// A plan knows of so many of them now.
    pub(super) fn decided(&self, records: u64) {
        let less = |pending: u64| Some(pending.saturating_sub(records));
        // The closure always answers.
        let _ = self.pending.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
    }

    /// Has the town looked at soon.
    pub(super) fn wake(&self) {
        self.woken.store(true, Ordering::SeqCst);
        self.signal.notify_one();
    }

    /// Waits until there is something to be looked at.
    pub(super) async fn told(&self) {
        while !self.woken.swap(false, Ordering::SeqCst) {
            self.signal.notified().await;
        }
    }

    /// How often it was written down since it is here.
    pub(super) fn snapshots(&self) -> u64 {
        self.snapshots.load(Ordering::SeqCst)
    }

    /// Puts another state in the place of this one, which no event does.
    #[cfg(test)]
    pub(super) fn replace(&self, change: impl FnOnce(&Town) -> Option<Town>) -> bool {
        self.drain();
        let mut book = self.write();
        let Some(town) = change(&book.town) else { return false };
        book.town = town;
        true
    }

    /// Has it do this from now on, or nothing of the kind.
    #[cfg(test)]
    pub(super) fn break_down(&self, fault: Option<Fault>) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    #[cfg(test)]
    fn has(&self, fault: Fault) -> bool {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) == Some(fault)
    }

    /// Panics where a test wants that.
    #[cfg(test)]
    pub(super) fn trip(&self) {
        assert!(!self.has(Fault::PlanPanics), "a test asked for it");
    }

    /// Has the town be what its events up to this record make; false if it has looked at later ones.
    pub(super) fn adopt(&self, town: &Town, at: Seq) -> bool {
        let mut book = self.write();
        let fits = book.at == at;
        if fits {
            book.town = town.clone();
        }
        fits
    }

    /// Everything, for a snapshot of the journal.
    pub(super) fn snapshot(&self) -> Value {
        self.snapshots.fetch_add(1, Ordering::SeqCst);
        if let Some(Unread { part, .. }) = &*self.unread_part() {
            return with_pending(part.clone(), &self.line());
        }
        let book = self.read();
        let Book { town, at, untold } = &*book;
        let town = town.snapshot();
        // Last, and for a moment: whoever wants the state looks into the line. Nobody takes anything out of it meanwhile, and
        // who puts something in is the journal's writer, which asks for this.
        let line = self.line();
        json!({"town": town, "created": self.created(), "at": at, "untold": untold, "pending": &*line})
    }

    /// The cell of a snapshot.
    ///
    /// # Errors
    /// Says why it cannot be used.
    pub(super) fn restore(id: TownId, snapshot: &Value) -> Result<Self, String> {
        let Kept { town, created, at, untold, pending } =
            Kept::deserialize(snapshot).map_err(|e| e.to_string())?;
        let book = Book { town: Town::restore(&town)?, at, untold };
        let count = u64::try_from(pending.len()).unwrap_or(u64::MAX);
        let cell = Self::new(id);
        *cell.write() = book;
        *cell.line() = pending;
        cell.pending.store(count, Ordering::SeqCst);
        cell.created.store(created.0, Ordering::SeqCst);
        Ok(cell)
    }

    /// The cell of a snapshot that cannot be read. It stands in each later snapshot as it is, with what came since: a plimsoll
    /// that can read it goes on from there.
    pub(super) fn unreadable(id: TownId, part: Value, cause: String) -> Self {
        let cell = Self::new(id);
        // It has a first record, wherever that was.
        cell.created.store(part["created"].as_u64().unwrap_or_default().max(1), Ordering::SeqCst);
        cell.broken.store(true, Ordering::SeqCst);
        *cell.unread_part() = Some(Unread { part, cause });
        cell
    }

    /// Puts what the events make in the place of a snapshot that could not be read.
    pub(super) fn heal(&self, healed: &Self) {
        let mut unread = self.unread_part();
        let mut book = self.write();
        *book = std::mem::take(&mut *healed.write());
        let mut line = self.line();
        line.retain(|record| record.seq > book.at);
        self.pending.store(u64::try_from(line.len()).unwrap_or(u64::MAX), Ordering::SeqCst);
        self.created.store(healed.created().0, Ordering::SeqCst);
        self.broken.store(false, Ordering::SeqCst);
        *unread = None;
    }

    fn unread_part(&self) -> MutexGuard<'_, Option<Unread>> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Book> {
        self.book.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self) -> MutexGuard<'_, VecDeque<Record>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A part of a snapshot with these records behind those in line.
fn with_pending(mut part: Value, line: &VecDeque<Record>) -> Value {
    if let Some(kept) = part.as_object_mut() {
        let pending = kept.entry("pending").or_insert_with(|| json!([]));
        if let Some(pending) = pending.as_array_mut() {
            pending.extend(line.iter().map(|record| json!(record)));
        }
    }
    part
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::StreamId;

    fn record(seq: u64) -> Record {
        let town = TownId::parse("main").expect("an id");
        let record = Record::example(StreamId::town(&town), "drain_ended", json!({}));
        Record { seq: Seq(seq), ..record }
    }

    #[test]
    fn an_event_that_cannot_be_folded_is_kept_and_nothing_behind_it_is_taken_in() {
        let cell = Cell::new(TownId::parse("main").expect("an id"));
        cell.push(record(1));
        cell.drain();
        cell.push(record(2));
        cell.fold(|_, _| panic!("a bug"));
        cell.push(record(3));
        assert!(cell.is_broken());
        assert_eq!((cell.drained().at, cell.pending()), (Seq(1), 3));
        let pending: Vec<Record> = Vec::deserialize(&cell.snapshot()["pending"]).expect("records");
        assert_eq!(pending.iter().map(|record| record.seq.0).collect::<Vec<_>>(), [2, 3]);
    }
}
