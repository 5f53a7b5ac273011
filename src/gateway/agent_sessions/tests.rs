//! Which names are remembered, and which are not.

use super::*;
use crate::clock::Clock;
use crate::journal::MemoryJournal;

fn lane(session: &str) -> LaneKey {
    LaneKey { agent: AgentId::parse("a").expect("valid"), session: SessionId::parse(session).expect("valid") }
}

fn open(sessions_max: usize) -> (Arc<AgentSessions>, MemoryJournal) {
    let sessions = Arc::new(AgentSessions::new(sessions_max));
    let journal = MemoryJournal::new(Clock::system(), vec![Arc::clone(&sessions) as _]);
    (sessions, journal)
}

fn answered(name: &str) -> TurnEnd {
    TurnEnd { told: Some(name.to_owned()), resumed: false, spoke: true, how: How::Answered }
}

fn failed(told: Option<&str>, spoke: bool, how: How) -> TurnEnd {
    TurnEnd { told: told.map(str::to_owned), resumed: true, spoke, how }
}

async fn turn(sessions: &Arc<AgentSessions>, journal: &MemoryJournal, session: &str, turn: TurnEnd) -> bool {
    let (change, _) = sessions.after_turn(&lane(session), "p", turn);
    let changed = change.is_some();
    if let Some(change) = change {
        change.write(journal, &Actor::Local).await;
    }
    changed
}

fn restarted(sessions: &AgentSessions) -> AgentSessions {
    let next = AgentSessions::new(sessions.sessions_max);
    next.restore(&sessions.snapshot()).expect("its own snapshot");
    next
}

#[tokio::test]
async fn a_name_is_given_back_over_a_restart_to_the_same_provider() {
    let (sessions, journal) = open(9);
    assert!(turn(&sessions, &journal, "s", answered("one")).await);
    assert!(!turn(&sessions, &journal, "s", answered("one")).await, "nothing new, no record");
    assert!(turn(&sessions, &journal, "s", answered("two")).await);
    let next = restarted(&sessions);
    assert_eq!(next.resume(&lane("s"), "p").as_deref(), Some("two"));
    assert_eq!(next.resume(&lane("s"), "other"), None, "another program does not know it");
    let page = journal.scan(&crate::journal::Scan { limit: 9, ..Default::default() }).expect("reads");
    let replayed = AgentSessions::new(9);
    page.records.iter().for_each(|record| replayed.apply(record));
    assert_eq!((page.records.len(), replayed.snapshot()), (2, sessions.snapshot()));
}

#[tokio::test]
async fn a_reset_forgets_durably_or_says_that_it_cannot() {
    let (sessions, journal) = open(9);
    turn(&sessions, &journal, "s", answered("one")).await;
    sessions.forget(&lane("s"), &journal, &Actor::Local).await.expect("memory takes it");
    assert!(!sessions.knows(&lane("s")) && !restarted(&sessions).knows(&lane("s")));
    turn(&sessions, &journal, "s", answered("two")).await;
    journal.close();
    assert!(sessions.forget(&lane("s"), &journal, &Actor::Local).await.is_err());
    assert!(sessions.knows(&lane("s")), "nothing has changed");
    assert!(turn(&sessions, &journal, "s", answered("three")).await);
    assert_eq!(sessions.resume(&lane("s"), "p").as_deref(), Some("three"), "memory holds on");
    assert!(sessions.state().pending.is_empty());
}

#[tokio::test]
async fn a_name_that_its_agent_does_not_know_never_sticks() {
    let (sessions, journal) = open(9);
    turn(&sessions, &journal, "s", answered("gone")).await;
    assert!(turn(&sessions, &journal, "s", failed(None, false, How::Unknown)).await);
    assert!(!sessions.knows(&lane("s")));
    // One that does not say why is given a second chance.
    turn(&sessions, &journal, "s", answered("odd")).await;
    assert!(!turn(&sessions, &journal, "s", failed(None, false, How::Failed)).await);
    assert!(sessions.knows(&lane("s")));
    assert!(turn(&sessions, &journal, "s", failed(None, false, How::Failed)).await);
    assert!(!sessions.knows(&lane("s")) && !restarted(&sessions).knows(&lane("s")));
}

#[tokio::test]
async fn a_failure_of_another_kind_keeps_the_name() {
    let (sessions, journal) = open(9);
    turn(&sessions, &journal, "s", answered("one")).await;
    for _ in 0..5 {
        turn(&sessions, &journal, "s", failed(Some("one"), false, How::Failed)).await;
        turn(&sessions, &journal, "s", failed(None, false, How::Stopped)).await;
        turn(&sessions, &journal, "s", failed(None, true, How::Failed)).await;
    }
    assert_eq!(sessions.resume(&lane("s"), "p").as_deref(), Some("one"));
    // Before a word was said there may be nothing to go on with; after one there is.
    turn(&sessions, &journal, "new", failed(Some("empty"), false, How::Failed)).await;
    assert!(!sessions.knows(&lane("new")));
    turn(&sessions, &journal, "new", failed(Some("begun"), true, How::Stopped)).await;
    assert_eq!(sessions.resume(&lane("new"), "p").as_deref(), Some("begun"));
}

#[tokio::test]
async fn the_name_used_longest_ago_leaves_first() {
    let (sessions, journal) = open(2);
    for session in ["old", "new"] {
        turn(&sessions, &journal, session, answered("x")).await;
    }
    sessions.resume(&lane("old"), "p");
    let (change, evicted) = sessions.after_turn(&lane("third"), "p", answered("x"));
    assert_eq!((change.is_some(), evicted), (true, 1));
    assert!(sessions.knows(&lane("old")) && !sessions.state().all.contains_key(&lane("new")));
    assert_eq!(sessions.state().order.len(), 2);
}
