//! How far each recipient was told: kept in the journal, so that what was written before a kill is told after it.
//!
//! What was told and not yet written down comes again, under the same id. Start at [`Cursors::settled`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::json;

use crate::ids::Seq;
use crate::journal::{Actor, Append, Journal, NewRecord, ReadError, Scan, StreamId};
use crate::limits::{JOURNAL_GROUP_RECORDS_MAX, NOTIFY_CURSOR_PAGES_MAX};

/// The kind of the record that says how far a recipient was told.
pub const ALARMS_TOLD: &str = "alarms_told";
/// The version of the detail `{recipient, through}`: no alarm of a record up to `through` has to be told.
const VERSION: u16 = 1;

/// See the module.
pub(super) struct Cursors {
    journal: Arc<dyn Journal>,
    /// A std mutex suffices: a hold is a few map operations.
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    /// The last record that was looked at.
    looked: Seq,
    /// The first record whose alarm is kept quiet for a while.
    held: Option<Seq>,
    of: BTreeMap<String, Cursor>,
}

#[derive(Default)]
struct Cursor {
    /// What is in its queue, and what is under way.
    waiting: BTreeMap<Seq, usize>,
    /// What stands in the journal.
    written: Seq,
    /// Where an earlier plimsoll had come to.
    before: Seq,
}

impl Book {
    /// How far a recipient was told.
    fn through(&self, cursor: &Cursor) -> Seq {
        let open = cursor.waiting.keys().next().copied().into_iter().chain(self.held);
        let before_open = open.map(|seq| Seq(seq.0.saturating_sub(1)));
        before_open.chain([self.looked]).min().unwrap_or_default()
    }
}

impl Cursors {
    pub(super) fn new(journal: Arc<dyn Journal>) -> Self {
        Self { journal, book: Mutex::default() }
    }

    /// Reads where an earlier plimsoll had come to with these recipients, and begins at `end` with those that are new; the
    /// first record that somebody was not told of. Blocks on IO.
    ///
    /// # Errors
    /// [`ReadError`]: all begin at the end then.
    pub(super) fn open(&self, names: &[String], end: Seq) -> Result<Seq, ReadError> {
        let known = self.read(names);
        let (mut first, mut new) = (end.next(), Vec::new());
        {
            let mut book = self.book();
            for name in names {
                let written = known.as_ref().ok().and_then(|known| known.get(name).copied());
                if written.is_none() {
                    new.push(name);
                }
                let before = written.unwrap_or(end).min(end);
                first = first.min(before.next());
                let cursor = Cursor { written: written.unwrap_or_default(), before, ..Cursor::default() };
                book.of.insert(name.clone(), cursor);
            }
            book.looked = Seq(first.0 - 1);
        }
        known?;
        new.into_iter().for_each(|name| self.write(name, end));
        Ok(first)
    }

    fn read(&self, names: &[String]) -> Result<BTreeMap<String, Seq>, ReadError> {
        let (mut found, mut before) = (BTreeMap::new(), None);
        for _ in 0..NOTIFY_CURSOR_PAGES_MAX {
            let page = self.journal.scan(&Scan {
                stream: Some(StreamId::operator()),
                kind: Some(ALARMS_TOLD.to_owned()),
                before,
                limit: JOURNAL_GROUP_RECORDS_MAX,
                newest_first: true,
                ..Scan::default()
            })?;
            for record in &page.records {
                let (recipient, through) = (&record.detail["recipient"], &record.detail["through"]);
                if let (Some(recipient), Some(through)) = (recipient.as_str(), through.as_u64()) {
                    found.entry(recipient.to_owned()).or_insert(Seq(through));
                }
            }
            before = page.next;
            if before.is_none() || names.iter().all(|name| found.contains_key(name)) {
                break;
            }
        }
        Ok(found)
    }

    /// Whether this life has to tell the recipient of a record.
    pub(super) fn is_open(&self, name: &str, seq: Seq) -> bool {
        self.book().of.get(name).is_none_or(|cursor| seq > cursor.before)
    }

    /// A record was looked at, and everything up to `held`, if there is one, was told or needs no telling.
    pub(super) fn looked(&self, seq: Seq, held: Option<Seq>) {
        let mut book = self.book();
        (book.looked, book.held) = (book.looked.max(seq), held);
    }

    /// The alarm of a record waits for a recipient.
    pub(super) fn waits(&self, name: &str, seq: Seq) {
        let mut book = self.book();
        *book.of.entry(name.to_owned()).or_default().waiting.entry(seq).or_default() += 1;
    }

    /// It was told, or never will be.
    pub(super) fn settled(&self, name: &str, seq: Seq) {
        let news = {
            let mut book = self.book();
            let Some(cursor) = book.of.get_mut(name) else { return };
            if let Some(count) = cursor.waiting.get_mut(&seq) {
                *count -= 1;
                if *count == 0 {
                    cursor.waiting.remove(&seq);
                }
            }
            book.news(name)
        };
        if let Some(through) = news {
            self.write(name, through);
        }
    }

    /// Writes down how far everybody was told: before an end, so that the next start looks at less again.
    pub(super) fn write_all(&self) {
        let names: Vec<String> = self.book().of.keys().cloned().collect();
        for name in names {
            let news = self.book().news(&name);
            if let Some(through) = news {
                self.write(&name, through);
            }
        }
    }

    /// Nobody waits for it: what is lost of it comes with the next one.
    fn write(&self, name: &str, through: Seq) {
        let detail = json!({"recipient": name, "through": through});
        let (kind, actor) = (ALARMS_TOLD, Actor::System);
        let records = vec![NewRecord { kind, version: VERSION, actor, trace_id: None, detail }];
        let append = Append { stream: StreamId::operator(), expected_last_seq: None, records };
        match self.journal.offer(append) {
            Ok(()) => {
                if let Some(cursor) = self.book().of.get_mut(name) {
                    cursor.written = cursor.written.max(through);
                }
            }
            Err(error) => {
                tracing::debug!(source = "notify", recipient = name, %error, "how far it was told is not written");
            }
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    /// How far a recipient was told, if that is further than the journal has it.
    fn news(&self, name: &str) -> Option<Seq> {
        let cursor = self.of.get(name)?;
        Some(self.through(cursor)).filter(|through| *through > cursor.written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::journal::MemoryJournal;

    fn cursors() -> (Arc<MemoryJournal>, Cursors) {
        let journal = Arc::new(MemoryJournal::new(Clock::system(), Vec::new()));
        let cursors = Cursors::new(Arc::clone(&journal) as _);
        (journal, cursors)
    }

    /// What the next life finds of `ops`.
    fn kept(journal: &Arc<MemoryJournal>) -> Option<u64> {
        let next = Cursors::new(Arc::clone(journal) as _);
        let found = next.read(&["ops".to_owned()]).expect("readable");
        found.get("ops").map(|seq| seq.0)
    }

    #[test]
    fn nobody_new_is_told_of_the_past_and_what_waits_is_not_passed_over() {
        let (journal, cursors) = cursors();
        assert_eq!(cursors.open(&["ops".to_owned()], Seq(5)), Ok(Seq(6)));
        assert_eq!((kept(&journal), cursors.is_open("ops", Seq(5))), (Some(5), false));
        cursors.waits("ops", Seq(7));
        cursors.waits("ops", Seq(9));
        cursors.looked(Seq(12), None);
        cursors.settled("ops", Seq(9));
        assert_eq!(kept(&journal), Some(6), "7 is under way");
        cursors.settled("ops", Seq(7));
        assert_eq!(kept(&journal), Some(12));
    }

    #[test]
    fn what_is_kept_quiet_is_not_passed_over_either() {
        let (journal, cursors) = cursors();
        cursors.open(&["ops".to_owned()], Seq(0)).expect("readable");
        cursors.waits("ops", Seq(4));
        cursors.looked(Seq(4), Some(Seq(3)));
        cursors.settled("ops", Seq(4));
        assert_eq!(kept(&journal), Some(2));
        cursors.looked(Seq(8), None);
        cursors.write_all();
        assert_eq!(kept(&journal), Some(8));
    }
}
