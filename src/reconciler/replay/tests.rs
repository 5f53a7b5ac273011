//! Windows of towns whose past stands in a journal.

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use proptest::prelude::*;
use serde_json::json;

use super::super::history::TOWNS;
use super::*;
use crate::clock::{Clock, ManualTime};
use crate::journal::{
    Actor, Append, Fold, Journal as _, MemoryJournal, NewRecord, Record, Scan, StreamId, StreamKind,
};
use crate::town::event::VERSION;
use crate::town::event::samples::{agent, bead, dispatch};
use crate::town::state::tests::properties::steps;
use crate::town::state::tests::{Play, created, done};
use crate::town::words::{Origin, Outcome, Role};

/// Snapshots as the fold of all towns writes them: a town that is folded now and then, and the records in line.
#[derive(Default)]
struct Towns(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    folded: Folded,
    at: Seq,
    line: Vec<Record>,
    /// What a snapshot is said to hold in place of that.
    forged: Option<Value>,
}

impl Fold for Towns {
    fn name(&self) -> &'static str {
        TOWNS
    }

    fn wants(&self) -> StreamKind {
        StreamKind::Town
    }

    fn apply(&self, record: &Record) {
        let mut kept = self.0.lock().expect("no panic");
        kept.line.push(record.clone());
        if record.seq.0.is_multiple_of(3) {
            for record in std::mem::take(&mut kept.line) {
                kept.at = record.seq;
                kept.folded.take(&record);
            }
        }
    }

    fn snapshot(&self) -> Value {
        let Kept { folded, at, line, forged } = &*self.0.lock().expect("no panic");
        let town = forged.clone().unwrap_or_else(|| folded.town.snapshot());
        json!({"t": {"town": town, "at": at, "untold": [], "pending": line}})
    }

    fn restore(&self, _snapshot: &Value) -> Result<(), String> {
        Ok(())
    }

    fn records_lost(&self) {}
}

/// A journal that holds what happened in one town, among other things.
pub(crate) struct Told {
    pub(crate) journal: MemoryJournal,
    towns: Arc<Towns>,
    hand: Arc<ManualTime>,
}

pub(crate) fn town() -> TownId {
    TownId::parse("t").expect("a valid id")
}

pub(crate) fn record_of(event: &TownEvent, actor: Actor) -> NewRecord {
    let mut detail = event.detail();
    detail["now"] = 1.into();
    NewRecord { kind: event.kind(), version: VERSION, actor, trace_id: None, detail }
}

/// Something that is no town's.
fn noted() -> NewRecord {
    NewRecord { kind: "noted", version: 1, actor: Actor::System, trace_id: None, detail: json!({}) }
}

impl Told {
    pub(crate) fn new() -> Self {
        let (clock, hand) = Clock::manual(Timestamp::from_millis(1));
        let towns = Arc::<Towns>::default();
        Self { journal: MemoryJournal::new(clock, vec![Arc::clone(&towns) as _]), towns, hand }
    }

    pub(crate) fn of(play: &Play) -> Self {
        let told = Self::new();
        told.tell(play, 0..play.log.len());
        told
    }

    /// Writes part of a story down; what its planner does has this actor.
    pub(crate) fn tell(&self, play: &Play, part: Range<usize>) {
        for (_, time, event) in &play.log[part] {
            let actor = if event.from_outside() { Actor::Local } else { Actor::Planner };
            self.write(*time, StreamId::town(&town()), record_of(event, actor));
            if event.kind() == "bead_created" {
                self.write(*time, StreamId::request(), noted());
            }
        }
    }

    fn write(&self, time: Timestamp, stream: StreamId, record: NewRecord) -> Seq {
        self.hand.set_wall(time);
        let append = Append { stream, expected_last_seq: None, records: vec![record] };
        let appended = self.journal.append(append).now_or_never().expect("in memory");
        appended.expect("it is taken").first
    }

    /// Has snapshots hold this in place of the town.
    pub(crate) fn forge(&self, town: Option<Value>) {
        self.towns.0.lock().expect("no panic").forged = town;
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        let query = Scan { stream: Some(StreamId::town(&town())), limit: 100_000, ..Scan::default() };
        self.journal.scan(&query).expect("readable").records
    }

    fn replay(&self, request: &ReplayRequest) -> Result<Replay, ReplayError> {
        replay(History::Live(&self.journal), &town(), request, &|| true)
    }
}

fn window(from: Timestamp, to: Timestamp) -> ReplayRequest {
    ReplayRequest { from, to, policy: None, compare: false, until_violation: false }
}

fn all(play: &Play) -> ReplayRequest {
    window(Timestamp::default(), play.at())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_window_gives_one_answer_from_the_first_event_and_from_a_snapshot(
        steps in steps(80),
        cuts in any::<[prop::sample::Index; 3]>(),
    ) {
        let mut play = Play::new();
        for step in &steps {
            let _ = play.step(step);
        }
        let [cut, from, to] = cuts.map(|cut| cut.index(play.log.len()));
        let (from, to) = (from.min(to), from.max(to));
        let request = window(play.log[from].1, play.log[to].1);
        let whole = Told::of(&play);
        let first = whole.replay(&request).expect("an answer");
        prop_assert_eq!(&first, &whole.replay(&request).expect("an answer"));

        let mut folded = Folded::default();
        for record in whole.records().iter().filter(|record| record.time <= request.to) {
            folded.take(record);
        }
        prop_assert_eq!(&first.hash, &folded.town.hash().to_string());
        let expected: Vec<_> = plan(&folded.town, request.to).actions.iter().map(PlannedAction::from).collect();
        prop_assert_eq!(&first.actions, &expected);
        let inside = whole.records().iter().filter(|r| r.time >= request.from && r.time <= request.to).count();
        prop_assert_eq!(first.events_replayed, inside as u64);

        let resumed = Told::new();
        resumed.tell(&play, 0..cut);
        resumed.journal.take_snapshot();
        let last = resumed.journal.status().last;
        resumed.tell(&play, cut..play.log.len());
        prop_assert_eq!(&first, &resumed.replay(&request).expect("an answer"));
        resumed.journal.drop_before(last.next());
        match resumed.replay(&request) {
            Ok(again) => prop_assert_eq!(&first, &again),
            Err(ReplayError::BeforeHistory { first }) => prop_assert!(first.is_none_or(|at| at > request.from)),
            Err(other) => prop_assert!(false, "{other}"),
        }
    }
}

#[test]
fn a_window_before_what_is_kept_is_told_where_it_may_begin() {
    let mut play = Play::new();
    play.after(10).creates("a").after(10).creates("b");
    let told = Told::of(&play);
    told.journal.take_snapshot();
    told.journal.drop_before(told.journal.status().last.next());
    let of_before = told.replay(&all(&play));
    assert_eq!(of_before, Err(ReplayError::BeforeHistory { first: None }), "the rest is not there yet");
    let (end, kept) = (play.log.len(), play.after(10).at());
    play.creates("c").after(10).creates("d");
    told.tell(&play, end..end + 2);
    let Err(ReplayError::BeforeHistory { first: Some(first) }) = told.replay(&all(&play)) else {
        panic!("the first records are gone");
    };
    assert_eq!(first, kept.after(MOMENT), "others of the first moment that is kept may be gone");
    let later = told.replay(&window(first, play.at())).expect("kept");
    assert_eq!((later.events_replayed, later.state_snapshot.non_terminal_beads.len()), (1, 4));
    assert!(told.replay(&window(kept, play.at())).is_err());
}

#[test]
fn what_the_first_snapshot_holds_is_passed_too() {
    let mut play = Play::new();
    play.after(10).creates("a").after(10).creates("b");
    let (end, cut) = (play.log.len(), play.at());
    play.creates("c");
    let told = Told::new();
    told.tell(&play, 0..end);
    told.journal.take_snapshot();
    told.tell(&play, end..end + 1);
    told.journal.drop_before(Seq(2));
    let Err(ReplayError::BeforeHistory { first: Some(first) }) = told.replay(&all(&play)) else {
        panic!("the first record is gone");
    };
    assert_eq!(first, cut.after(MOMENT));
    assert!(told.replay(&window(first, first)).is_ok_and(|replay| replay.events_replayed == 0));
    assert!(told.replay(&window(cut, first)).is_err());
}

#[test]
fn what_cannot_be_asked_is_refused() {
    let mut play = Play::new();
    play.after(5).creates("a");
    let told = Told::of(&play);
    let later = play.at().after(Duration::from_millis(1));
    assert_eq!(told.replay(&window(later, play.at())), Err(ReplayError::Reversed));
    let other = TownId::parse("other").expect("a valid id");
    let unknown = replay(History::Live(&told.journal), &other, &all(&play), &|| true);
    assert_eq!(unknown, Err(ReplayError::UnknownTown(other)));
    for policy in [json!({"mood": 1}), json!({"dispatch": {"attempts_max": 0}})] {
        let refused = told.replay(&ReplayRequest { policy: Some(policy), ..all(&play) });
        assert!(matches!(refused, Err(ReplayError::Policy(_))), "{refused:?}");
    }
    assert_eq!(
        replay(History::Live(&told.journal), &town(), &all(&play), &|| false),
        Err(ReplayError::Stopped)
    );
    let id = town();
    let past = Past { history: History::Live(&told.journal), town: &id, go_on: &|| true, last_read: None };
    let whole = Window { from: Seq(1), until: Seq(100) };
    let events = u64::try_from(play.log.len()).expect("few");
    assert!(past.fold(whole, false, events).is_ok());
    let refused = past.fold(whole, false, events - 1).map(|_| ());
    assert_eq!(refused, Err(ReplayError::TooLarge { max: events - 1 }));
    assert!(told.replay(&window(later, later)).is_ok_and(|replay| replay.events_replayed == 0));
}

#[test]
fn a_town_that_only_a_snapshot_tells_of_is_known() {
    let mut play = Play::new();
    play.after(5).creates("a");
    let told = Told::of(&play);
    told.journal.take_snapshot();
    told.journal.drop_before(told.journal.status().last.next());
    told.write(play.after(60).at(), StreamId::request(), noted());
    let later = play.after(60).at();
    let replay = told.replay(&window(later, later)).expect("known");
    assert_eq!(replay.state_snapshot.non_terminal_beads[0].id, bead("a"));
}

/// What an operator asks at three in the morning: why does nothing move?
#[test]
fn a_recorded_stuck_state_explains_itself() {
    let mut play = Play::new();
    play.creates("a").takes(created("b", 2, &["a"])).dispatches("a", "w1");
    play.takes(TownEvent::ContainerStatus {
        agent: agent("w1"),
        dispatch_id: Some(dispatch("a.1")),
        status: crate::town::words::ContainerStatus::Running,
        exit_reason: None,
        report: None,
    });
    let told = Told::of(&play);
    let from = play.at();
    let at = |secs: u64| told.replay(&window(from, from.after(Duration::from_secs(secs)))).expect("kept");
    assert_eq!(at(600).actions, []);
    let stuck = at(1_200);
    let words: Vec<_> = stuck.actions.iter().map(|a| (a.kind, a.message.as_str())).collect();
    let silent = "w1 is stalled: it works for 20m, and was last heard 20m ago; what hosts it is running";
    assert_eq!(words, [(ActionKind::MarkStalled, silent)]);
    let waits: Vec<_> = stuck.report.iter().map(|wait| wait.message.as_str()).collect();
    assert_eq!(
        waits,
        ["w1 works on it for 1200 s, and was last heard 1200 s ago (stalled)", "it waits for a"]
    );
    let policy = Some(json!({"stuck": {"nudge_after": "30m"}}));
    let request = ReplayRequest { policy, ..window(from, from.after(Duration::from_secs(1_200))) };
    let supposed = told.replay(&request).expect("kept");
    assert_eq!(supposed.actions, [], "another policy changes the plan");
    assert_eq!((supposed.hash, supposed.state_snapshot), (stuck.hash, stuck.state_snapshot), "and only that");
}

#[test]
fn what_was_done_stands_beside_what_would_be_done() {
    let mut play = Play::new();
    play.creates("a").creates("b").dispatches("a", "w1").takes(done("w1", "a.1", Outcome::Failed));
    let told = Told::of(&play);
    let request = ReplayRequest { compare: true, ..all(&play) };
    let replay = told.replay(&request).expect("kept");
    let compared = replay.compare.expect("asked for");
    let deed =
        |kind, id| super::super::Deed { kind, entity: Some(crate::town::words::Entity::Bead(bead(id))) };
    let dispatched = deed(ActionKind::DispatchBead, "a");
    assert_eq!(compared.only_taken, std::slice::from_ref(&dispatched));
    let planned = [deed(ActionKind::DispatchBead, "b"), deed(ActionKind::RetryBead, "a")];
    assert_eq!(compared.only_planned, planned);
    assert_eq!(compared.in_both, []);
    assert_eq!(compared.actions.into_iter().map(|action| action.deed).collect::<Vec<_>>(), [dispatched]);
    assert_eq!(compared.actions_by_type, BTreeMap::from([(ActionKind::DispatchBead, 1)]));
    assert_eq!(compared.actions_left_out, 0);
}

/// Two reviews of one task, as only a fault can make them, are a violation once both are under way.
#[test]
fn a_replay_ends_at_the_first_event_that_breaks_an_invariant() {
    let mut play = Play::new();
    play.registers("r2", Role::Reviewer, Origin::Configured);
    play.creates("a").dispatches("a", "w1").takes(done("w1", "a.1", Outcome::Done));
    let opened = TownEvent::ReviewOpened { bead: bead("a"), review: bead("a.r1"), round: 1 };
    play.takes(opened);
    let told = Told::of(&play);
    let mut forged = play.town.snapshot();
    let mut second = forged["town"]["beads"]["a.r1"].clone();
    second["created"] = 1.into();
    forged["town"]["beads"]["a.r9"] = second;
    play.town = Town::restore(&forged).expect("readable");
    told.forge(Some(forged));
    told.journal.take_snapshot();
    let (from, begin) = (play.after(1).at(), play.log.len());
    for n in 0..1_300 {
        play.after(1).creates(&format!("x{n}"));
    }
    play.dispatches("a.r1", "r1").after(1).dispatches("a.r9", "r2");
    let broken_at = play.at();
    for n in 0..1_700 {
        play.after(1).creates(&format!("y{n}"));
    }
    told.tell(&play, begin..play.log.len());
    let whole = told.replay(&window(from, play.at())).expect("kept");
    assert_eq!((whole.events_replayed, whole.stopped_at), (3_002, None));
    assert_eq!(whole.violations[0].name, "reviewed_twice_at_once");
    let request = ReplayRequest { until_violation: true, ..window(from, play.at()) };
    let ended = told.replay(&request).expect("kept");
    assert_eq!((ended.events_replayed, ended.at), (1_302, broken_at));
    assert_eq!(ended.violations[0].name, "reviewed_twice_at_once");
    let again = ReplayRequest { from: broken_at.after(Duration::from_millis(1)), ..request };
    let at_once = told.replay(&again).expect("kept");
    assert_eq!((at_once.events_replayed, at_once.at), (0, again.from), "it did not hold before");
}

#[test]
fn a_replay_that_looks_for_a_violation_ends_where_the_town_noticed_one() {
    let mut play = Play::new();
    play.after(1).creates("a").after(1);
    let entities = std::collections::BTreeSet::from([crate::town::words::Entity::Bead(bead("a"))]);
    play.takes(TownEvent::ViolationOpened { invariant: 9, entities, message: "for the test".into() });
    let noticed = play.at();
    play.after(1).creates("b");
    let told = Told::of(&play);
    let request = ReplayRequest { until_violation: true, ..all(&play) };
    let replay = told.replay(&request).expect("kept");
    assert_eq!((replay.at, replay.state_snapshot.non_terminal_beads.len()), (noticed, 1));
    let known: Vec<_> = replay.violations.iter().map(|found| (found.name, &*found.message)).collect();
    assert_eq!(known, [("open_bead_stranded", "for the test")], "although no event made it");
    let none = ReplayRequest { to: Timestamp::from_millis(noticed.as_millis() - 1), ..request };
    assert_eq!(told.replay(&none).map(|replay| replay.stopped_at), Ok(None));
}

#[test]
fn a_replay_writes_nothing_and_shows_no_instructions() {
    let mut play = Play::new();
    play.creates("a").dispatches("a", "w1");
    let told = Told::of(&play);
    let before = (told.journal.status(), told.records());
    let replay = told.replay(&ReplayRequest { compare: true, until_violation: true, ..all(&play) });
    let text = serde_json::to_string(&replay.expect("kept")).expect("JSON");
    assert!(text.contains("do a") && !text.contains("with care"), "{text}");
    assert_eq!((told.journal.status(), told.records()), before);
}

#[test]
fn an_answer_is_written_so() {
    let mut play = Play::new();
    play.creates("a").takes(created("b", 1, &["a"])).creates("c").dispatches("a", "w1").after(100);
    let request = ReplayRequest { compare: true, ..all(&play) };
    insta::assert_json_snapshot!(Told::of(&play).replay(&request).expect("kept"));
}
