//! What stands in the journal is kept, read back, and within its limits.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::samples::{any_event, bead, samples};
use super::*;

#[test]
fn each_kind_has_a_sample_and_the_samples_are_kept() {
    let kinds: Vec<_> = samples().iter().map(TownEvent::kind).collect();
    assert_eq!(kinds, KINDS);
    let lines: Vec<String> = samples()
        .iter()
        .map(|event| {
            let by = if event.from_outside() { "outside" } else { "reconciler" };
            format!("{} v{VERSION} ({by})\n  {}", event.kind(), event.detail())
        })
        .collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn a_field_of_a_later_plimsoll_is_passed_over() {
    for event in samples() {
        let mut detail = event.detail();
        detail["weather"] = json!({"sun": true});
        assert_eq!(TownEvent::parse(event.kind(), VERSION, &detail), Ok(event));
    }
}

#[test]
fn a_later_version_an_unknown_kind_and_a_damaged_detail_are_told_apart() {
    let kind = || "bead_dreamt".to_owned();
    assert_eq!(TownEvent::parse("bead_dreamt", 1, &json!({})), Err(Unreadable::Kind { kind: kind() }));
    let later = TownEvent::parse("drain_ended", VERSION + 1, &json!({}));
    assert_eq!(later, Err(Unreadable::Version { kind: "drain_ended", version: VERSION + 1 }));
    for detail in [json!({}), json!({"bead": "A"}), json!({"bead": 1}), json!([]), Value::Null] {
        let read = TownEvent::parse("bead_held", 1, &detail);
        assert!(matches!(read, Err(Unreadable::Detail { kind: "bead_held", .. })), "{detail} {read:?}");
    }
}

#[test]
fn fields_are_accepted_at_their_limit_and_refused_beyond_it() {
    let created = |id: usize, title: usize, instructions: usize, priority: u8, blockers: usize| {
        let event = TownEvent::BeadCreated {
            bead: bead(&"b".repeat(id)),
            title: "t".repeat(title).into(),
            instructions: "i".repeat(instructions).into(),
            role: Role::Worker,
            priority,
            convoy: None,
            blocked_by: (0..blockers).map(|n| bead(&format!("x{n}"))).collect(),
            report: None,
        };
        event.check_bounds().err().map(|out| out.field)
    };
    assert_eq!(created(48, 512, 65_536, 4, 100), None);
    assert_eq!(created(1, 1, 0, 0, 0), None);
    assert_eq!(created(49, 1, 0, 0, 0), Some("bead"));
    assert_eq!(created(1, 0, 0, 0, 0), Some("title"));
    assert_eq!(created(1, 513, 0, 0, 0), Some("title"));
    assert_eq!(created(1, 1, 65_537, 0, 0), Some("instructions"));
    assert_eq!(created(1, 1, 0, 5, 0), Some("priority"));
    assert_eq!(created(1, 1, 0, 0, 101), Some("blocked_by"));
    let note = |bytes: usize| {
        let event = TownEvent::BeadHeld { bead: bead("b"), reason: Some("r".repeat(bytes).into()) };
        event.check_bounds().is_ok()
    };
    assert_eq!((note(0), note(4_096), note(4_097)), (true, true, false));
    let convoy = |beads: usize| {
        let beads = (0..beads).map(|n| bead(&format!("x{n}"))).collect();
        let event = TownEvent::ConvoyStarted { convoy: bead("c"), title: "t".into(), beads, report: None };
        event.check_bounds().is_ok()
    };
    assert_eq!((convoy(0), convoy(1), convoy(1_000), convoy(1_001)), (false, true, true, false));
    let violation = |invariant: u8| {
        let (entities, message) = (BTreeSet::new(), "".into());
        TownEvent::ViolationOpened { invariant, entities, message }.check_bounds().is_ok()
    };
    assert_eq!((violation(0), violation(1), violation(10), violation(11)), (false, true, true, false));
}

#[test]
fn every_sample_is_within_its_limits() {
    for event in samples() {
        assert_eq!(event.check_bounds(), Ok(()), "{}", event.kind());
    }
}

proptest! {
    #[test]
    fn an_event_is_read_as_it_was_written(event in any_event()) {
        let text = event.detail().to_string();
        let detail: Value = serde_json::from_str(&text).expect("JSON");
        prop_assert_eq!(TownEvent::parse(event.kind(), VERSION, &detail), Ok(event));
    }
}
