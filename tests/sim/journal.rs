//! A journal in memory, and a town that is folded from it.

use plimsoll::clock::Timestamp;
use plimsoll::ids::Seq;
use plimsoll::town::event::{TownEvent, VERSION};
use plimsoll::town::state::Town;
use serde_json::Value;

/// A record.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) time: Timestamp,
    /// When it was really written: no clock that jumps.
    pub(crate) mono: u64,
    /// How often the clock had jumped ahead by then.
    pub(crate) jumps: u64,
    /// None if nobody can read it.
    pub(crate) event: Option<TownEvent>,
}

/// All records; the first has seq 1.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    pub(crate) entries: Vec<Entry>,
}

impl Journal {
    pub(crate) fn last(&self) -> Seq {
        Seq(u64::try_from(self.entries.len()).expect("few"))
    }

    pub(crate) fn append(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    /// Appends all or nothing: nothing if something got in between.
    pub(crate) fn append_after(&mut self, last: Seq, entries: Vec<Entry>) -> bool {
        let fits = last == self.last();
        if fits {
            self.entries.extend(entries);
        }
        fits
    }
}

/// A town and how far it is folded.
#[derive(Debug, Clone)]
pub(crate) struct Fold {
    pub(crate) town: Town,
    pub(crate) next: usize,
    /// Events that were refused, and of which no `event_rejected` tells yet.
    pub(crate) untold: Vec<(Seq, String)>,
}

impl Fold {
    pub(crate) fn at(&self) -> Seq {
        Seq(u64::try_from(self.next).expect("few"))
    }

    /// Takes in the next record. The code of the refusal if it cannot.
    pub(crate) fn step(&mut self, entry: &Entry) -> Result<(), &'static str> {
        self.next += 1;
        let seq = self.at();
        let (code, error) = match &entry.event {
            None => ("unreadable", "nobody can read it".to_owned()),
            Some(event) => match self.town.apply(seq, entry.time, event) {
                Ok(()) => return Ok(()),
                Err(rejected) => (rejected.code(), rejected.to_string()),
            },
        };
        self.untold.push((seq, error));
        Err(code)
    }

    /// From a snapshot and what came after it.
    pub(crate) fn rebuilt(saved: &Saved, journal: &Journal) -> Self {
        let town = Town::restore(&saved.snapshot).expect("its own snapshot");
        let mut fold = Self { town, next: saved.next, untold: saved.untold.clone() };
        for entry in &journal.entries[saved.next..] {
            let _ = fold.step(entry);
        }
        fold.forget_told();
        fold
    }

    /// What was told up to a place was told whole.
    pub(crate) fn forget_told(&mut self) {
        let last = self.town.counts().rejected_last;
        self.untold.retain(|(seq, _)| *seq > last);
    }
}

/// A snapshot and its place.
#[derive(Debug, Clone)]
pub(crate) struct Saved {
    pub(crate) snapshot: Value,
    pub(crate) next: usize,
    pub(crate) untold: Vec<(Seq, String)>,
}

impl Saved {
    pub(crate) fn of(fold: &Fold) -> Self {
        Self { snapshot: fold.town.snapshot(), next: fold.next, untold: fold.untold.clone() }
    }
}

/// An event written down and read back.
pub(crate) fn reread(event: &TownEvent) -> TownEvent {
    TownEvent::parse(event.kind(), VERSION, &event.detail()).expect("what was written can be read")
}
