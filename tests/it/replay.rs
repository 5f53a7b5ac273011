//! Replays of a town out of a journal on disk: a running one, a copy of its folder, one that dropped its beginning.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use plimsoll::clock::{Clock, ManualTime, Timestamp};
use plimsoll::ids::{AgentId, BeadId, Seq, TownId};
use plimsoll::journal::offline::Offline;
use plimsoll::journal::{
    Actor, Append, Config, Fold, Journal as _, JournalDeps, Log, NewRecord, Retention, SledJournal, StreamId,
};
use plimsoll::reconciler::{History, ReplayError, ReplayRequest, Towns, replay};
use plimsoll::town::event::{TownEvent, VERSION};
use plimsoll::town::words::{Origin, Role};
use plimsoll::town::{Policy, Town};
use plimsoll::units::{Bytes, Period};

use crate::journal::fixture::{a_time, deps};

struct Story {
    journal: SledJournal,
    hand: Arc<ManualTime>,
    town: Town,
    begin: Timestamp,
    end: Timestamp,
}

fn id() -> TownId {
    TownId::parse("main").expect("valid")
}

fn created(number: usize) -> TownEvent {
    TownEvent::BeadCreated {
        bead: BeadId::parse(&format!("b{number}")).expect("valid"),
        title: "a thing".into(),
        instructions: "do it".into(),
        role: Role::Worker,
        priority: 2,
        convoy: None,
        blocked_by: std::collections::BTreeSet::new(),
        report: None,
    }
}

impl Story {
    /// A town whose journal rolled a few times; of its records the work log keeps those of an hour.
    fn on(dir: &Path) -> Self {
        let (clock, hand) = Clock::manual(a_time());
        let hour = Retention { age_max: Period::from_secs(3_600), bytes_max: Bytes(1 << 30) };
        let config = Config { partition_records_max: 100, work: hour, ..Config::default() };
        let deps = JournalDeps { folds: vec![Arc::<Towns>::default() as Arc<dyn Fold>], ..deps(clock) };
        let journal = SledJournal::open(dir, &config, deps).expect("opens");
        let mut story = Self { journal, hand, town: Town::default(), begin: a_time(), end: a_time() };
        let agent = AgentId::parse("w1").expect("valid");
        story.tell(&[
            TownEvent::TownCreated { policy: Box::new(Policy::default()) },
            TownEvent::AgentRegistered {
                agent,
                role: Role::Worker,
                origin: Origin::Configured,
                nudges: false,
                template: None,
            },
        ]);
        for part in 0..7 {
            story.tell(&(part * 50..part * 50 + 50).map(created).collect::<Vec<_>>());
        }
        story
    }

    fn tell(&mut self, events: &[TownEvent]) {
        self.hand.advance(Duration::from_secs(10));
        let record = |event: &TownEvent| NewRecord {
            kind: event.kind(),
            version: VERSION,
            actor: Actor::Local,
            trace_id: None,
            detail: event.detail(),
        };
        let records = events.iter().map(record).collect();
        let append = Append { stream: StreamId::town(&id()), expected_last_seq: None, records };
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let appended = runtime.block_on(self.journal.append(append)).expect("appended");
        for (seq, event) in (appended.first.0..).map(Seq).zip(events) {
            self.town.apply(seq, appended.time, event).expect("accepted");
        }
        self.end = appended.time;
    }
}

fn window(from: Timestamp, to: Timestamp) -> ReplayRequest {
    ReplayRequest { from, to, policy: None, compare: false, until_violation: false }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("there").flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &target);
        } else if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            std::fs::copy(&path, &target).expect("copied");
        }
    }
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let clock = Clock::system();
    while !holds() {
        assert!(clock.elapsed() < Duration::from_secs(20), "in vain waited until {what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_window_gives_the_hash_of_the_state_also_on_a_copy_of_the_folder() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let story = Story::on(dir.path());
    until("there are snapshots", || story.journal.snapshots("towns").is_ok_and(|seqs| !seqs.is_empty()));
    let middle = story.begin.after(Duration::from_secs(45));
    let live = History::Live(&story.journal);
    let whole = replay(live, &id(), &window(story.begin, story.end), &|| true).expect("an answer");
    assert_eq!(whole.hash, story.town.hash().to_string());
    assert_eq!((whole.events_replayed, whole.rejected), (352, 0));
    let last = replay(live, &id(), &window(middle, story.end), &|| true).expect("an answer");
    assert_eq!((&last.hash, last.events_replayed), (&whole.hash, 200));
    let (begin, end) = (story.begin, story.end);
    drop(story);
    let fork = dir.path().join("fork");
    copy(&dir.path().join("journal"), &fork.join("journal"));
    for name in std::fs::read_dir(dir.path()).expect("there").flatten() {
        if name.path().is_file() {
            std::fs::copy(name.path(), fork.join(name.file_name())).expect("copied");
        }
    }
    let offline = Offline::open(&fork).expect("nobody else has it");
    for (from, known) in [(begin, &whole), (middle, &last)] {
        let again = replay(History::Offline(&offline), &id(), &window(from, end), &|| true);
        assert_eq!(again.as_ref(), Ok(known));
    }
}

#[test]
fn a_window_whose_beginning_was_dropped_is_told_where_it_may_begin() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let mut story = Story::on(dir.path());
    until("the last partition is sealed", || {
        story.journal.snapshots("towns").is_ok_and(|seqs| seqs.last() >= Some(&Seq(300)))
    });
    story.hand.advance(Duration::from_secs(7_200));
    until("old records go", || story.journal.kept_from(Log::Work).is_ok_and(|seq| seq > Seq(300)));
    story.tell(&(350..370).map(created).collect::<Vec<_>>());
    let live = History::Live(&story.journal);
    let whole = replay(live, &id(), &window(story.begin, story.end), &|| true);
    let Err(ReplayError::BeforeHistory { first: Some(first) }) = whole else {
        panic!("its beginning is gone: {whole:?}");
    };
    assert!(first > story.begin && first <= story.end.after(Duration::from_millis(1)), "{first}");
    let later = replay(live, &id(), &window(first, story.end.max(first)), &|| true).expect("kept");
    assert_eq!(later.hash, story.town.hash().to_string());
    let before = Timestamp::from_millis(first.as_millis() - 1);
    assert!(replay(live, &id(), &window(before, story.end), &|| true).is_err());
}
