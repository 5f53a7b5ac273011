//! A dry run says what the planner then says.

use proptest::prelude::*;

use super::super::replay::tests::{record_of, town};
use super::*;
use crate::ids::Seq;
use crate::journal::{Actor, NewRecord, RecordHash, StreamId};
use crate::town::state::tests::Play;
use crate::town::state::tests::properties::steps;

/// The record of an event, as it stands in line.
fn in_line((seq, time, event): &(Seq, Timestamp, crate::town::TownEvent)) -> Record {
    let NewRecord { kind, version, actor, trace_id, detail } = record_of(event, Actor::Local);
    let (kind, stream) = (kind.to_owned(), StreamId::town(&town()));
    let prev_hash = RecordHash::default();
    Record { seq: *seq, time: *time, stream, kind, version, actor, trace_id, detail, prev_hash }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_dry_run_is_the_next_tick(
        steps in steps(80),
        cut in any::<prop::sample::Index>(),
        later in 0_u64..20_000,
    ) {
        let mut play = Play::with(|p| (p.review.enabled, p.breaker.beads) = (true, 4));
        for step in &steps {
            let _ = play.step(step);
        }
        let (folded, line) = play.log.split_at(cut.index(play.log.len()));
        let mut live = Town::default();
        for (seq, time, event) in folded {
            let _ = live.apply(*seq, *time, event);
        }
        let pending = line.len() as u64;
        let fork = Fork { town: live.clone(), line: line.iter().map(in_line).collect(), pending };
        let now = play.after(later).at();
        let dry = dry_run(fork, now);

        let real = plan(&play.town, now);
        let expected: Vec<_> = real.actions.iter().map(PlannedAction::from).collect();
        prop_assert_eq!(&dry.actions, &expected);
        prop_assert_eq!((dry.now, dry.metrics.events_drained), (now, pending));
        prop_assert_eq!((dry.report, dry.report_left_out), (view::waits(&real.report).first, 0));
        for action in &real.actions {
            play.takes(action.event().clone());
        }
        let found = view::violations(&check_all(&play.town));
        prop_assert_eq!((dry.violations, dry.violations_left_out), (found.first, 0));
    }
}

#[test]
fn a_clock_behind_the_last_event_plans_at_that() {
    let mut play = Play::new();
    play.after(60).creates("a");
    let town = play.town.clone();
    let dry = dry_run(Fork { town, ..Fork::default() }, Timestamp::default());
    assert_eq!(dry.now, play.at());
    assert_eq!(dry.metrics.actions_by_type, BTreeMap::from([(ActionKind::DispatchBead, 1)]));
}
