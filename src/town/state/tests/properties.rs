//! What holds for any events, likely and unlikely ones.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::town::event::samples::any_event;
use crate::town::state::Said;
use crate::town::state::index::Indices;
use crate::town::words::{BeadKind, StuckClass, Tier};

/// A step of a random story: any event, or one that is likely to be taken by the town as it stands.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Any(Box<TownEvent>),
    Likely(u32),
}

pub(crate) fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        1 => any_event().prop_map(|event| Step::Any(Box::new(event))),
        4 => any::<u32>().prop_map(Step::Likely),
    ];
    prop::collection::vec(step, 0..most)
}

impl Play {
    pub(crate) fn step(&mut self, step: &Step) -> Result<(), Rejected> {
        let event = self.of(step);
        self.tries(event)
    }

    /// The event of a step, 7 s after the one before.
    fn of(&mut self, step: &Step) -> TownEvent {
        self.after(7);
        match step {
            Step::Any(event) => (**event).clone(),
            Step::Likely(pick) => self.likely(*pick),
        }
    }

    /// An event that fits the town, chosen by `pick`.
    fn likely(&self, pick: u32) -> TownEvent {
        let (kind, choice) = (pick % 10, usize::try_from(pick / 10).expect("small"));
        let new = format!("n{}", self.seq);
        let found = match kind {
            0 => Some(created(&new, u8::try_from(choice % 5).expect("small"), &[])),
            1..=3 => self.likely_dispatch(choice),
            4..=6 => self.likely_of_a_holder(choice),
            7 => self.likely_settlement(choice),
            8 => self.any_open(choice).map(|id| TownEvent::BeadReleased { bead: bead(&id) }),
            _ => self.likely_bond(choice, &new),
        };
        found.unwrap_or_else(|| created(&new, 2, &[]))
    }

    fn any_open(&self, choice: usize) -> Option<String> {
        let beads = self.town.beads();
        beads.keys().nth(choice % beads.len().max(1)).map(|id| id.to_string())
    }

    fn likely_dispatch(&self, choice: usize) -> Option<TownEvent> {
        let role = Role::ALL[choice % 2];
        let (id, _) = self.town.queue(role).nth(choice / 2 % 3)?;
        let (to, _) = self.town.agents_that_are(AgentStatus::Idle, role).next()?;
        Some(self.dispatch_of(id.as_str(), to.as_str()))
    }

    fn likely_of_a_holder(&self, choice: usize) -> Option<TownEvent> {
        let holders: Vec<_> = self.town.agents().iter().filter(|(_, agent)| agent.hook.is_some()).collect();
        let (id, holder) = holders.get(choice % holders.len().max(1))?;
        let hook = holder.hook.as_ref()?;
        let (dispatch, by) = (hook.dispatch_id.to_string(), id.as_str());
        let review = hook.bead.as_str().contains(".r");
        Some(match choice / 7 % 11 {
            0 | 8.. if review => reviewed(&dispatch, Verdict::ALL[choice % 2], "see above"),
            0 | 1 | 8.. => done(by, &dispatch, Outcome::ALL[choice % 3]),
            2 => completed(by, &dispatch, CompletionStatus::ALL[choice % 2]),
            3 => lost(&dispatch, LostCause::ALL[choice % LostCause::ALL.len()]),
            4 => failed(&dispatch),
            5 => cancelled(hook.bead.as_str(), CancelStatus::ALL[choice % 2]),
            6 => TownEvent::NudgeSent {
                agent: (*id).clone(),
                dispatch_id: hook.dispatch_id.clone(),
                tier: Tier::ALL[choice % Tier::ALL.len()],
                class: StuckClass::Stalled,
                quiet_ms: 1,
                skipped: None,
            },
            7 => TownEvent::AgentProgress {
                agent: (*id).clone(),
                dispatch_id: hook.dispatch_id.clone(),
                report: None,
            },
        })
    }

    /// What a planner would do about what a holder said.
    fn likely_settlement(&self, choice: usize) -> Option<TownEvent> {
        use BeadStatus::{Closed, InProgress, Open};
        let hooks = self.town.agents().values().filter_map(|agent| agent.hook.as_ref());
        // Mostly of those who said something, as a planner would.
        let hooks: Vec<_> = hooks.filter(|hook| hook.said.is_some() || choice.is_multiple_of(16)).collect();
        let hook = hooks.get(choice % hooks.len().max(1))?;
        let (id, held) = (hook.bead.as_str(), self.town.beads().get(&hook.bead)?);
        if let Some(status) = held.waits.cancel {
            return Some(moved(id, InProgress, status.into(), BeadReason::Cancelled));
        }
        let (to, reason) = match &hook.said {
            Some(Said::Outcome(Outcome::Done))
                if !choice.is_multiple_of(3) && held.kind == BeadKind::Task =>
            {
                let round = held.looks.reviews + 1;
                let review = bead(&format!("{id}.r{round}"));
                return Some(TownEvent::ReviewOpened { bead: hook.bead.clone(), review, round });
            }
            Some(Said::Outcome(Outcome::Done)) => (Closed, BeadReason::Done),
            Some(Said::Outcome(Outcome::Failed)) => (Open, BeadReason::AttemptFailed),
            Some(Said::Outcome(Outcome::NeedsHuman)) => (Open, BeadReason::NeedsHuman),
            Some(Said::Verdict { verdict: Verdict::Approved, .. }) => (Closed, BeadReason::Approved),
            Some(Said::Verdict { verdict: Verdict::Changes, .. }) => (Closed, BeadReason::Changes),
            None => (Open, BeadReason::Unreadable),
        };
        Some(moved(id, InProgress, to, reason))
    }

    fn likely_bond(&self, choice: usize, new: &str) -> Option<TownEvent> {
        let (one, other) = (self.any_open(choice)?, self.any_open(choice / 5)?);
        Some(match choice % 7 {
            0 | 1 => convoy(new, &[&one, &other]),
            2 => cancelled(&one, CancelStatus::ALL[choice / 3 % 2]),
            3 => TownEvent::BeadHeld { bead: bead(&one), reason: None },
            4 => TownEvent::TimeSkipped { ms: 5_000 },
            _ => depends(&one, &other),
        })
    }
}

fn reported(key: &str, body: &str) -> TownEvent {
    let key = crate::ids::IdempotencyKey::parse(key).expect("a key");
    let report = crate::town::event::Report { by: "ci".into(), key, body: body.into() };
    let (agent, dispatch_id, report) = (agent("w1"), dispatch("n1.1"), Some(Box::new(report)));
    TownEvent::AgentProgress { agent, dispatch_id, report }
}

/// What no event may break, whatever it says.
fn sound(town: &Town) {
    assert_eq!(town.indices, Indices::of(&town.facts), "indices are what the facts say");
    let mut held = BTreeMap::new();
    for (id, agent) in town.agents() {
        let working = matches!(agent.status, AgentStatus::Working | AgentStatus::Stalled);
        assert_eq!(working, agent.hook.is_some(), "{id} works and has a hook, or neither");
        let Some(hook) = &agent.hook else { continue };
        let bead = town.beads().get(&hook.bead).expect("a hook points to a bead that has not ended");
        assert_eq!(bead.status, BeadStatus::InProgress);
        assert_eq!(bead.tries.assignee.as_ref(), Some(id));
        assert_eq!(hook.dispatch_id.number(), bead.tries.dispatches);
        assert_eq!(held.insert(&hook.bead, id), None, "one agent at a bead");
    }
    for (id, bead) in town.beads() {
        assert!(!bead.status.is_terminal());
        assert!(!town.closed().contains_key(id));
        assert_eq!(bead.status == BeadStatus::InProgress, held.contains_key(id), "{id}");
        assert!(bead.waits.cancel.is_none() || held.contains_key(id), "{id} is cancelled and held by none");
        let reviews = town.children(id).filter(|(_, child)| child.kind == BeadKind::Review).count();
        assert_eq!(reviews, usize::from(bead.status == BeadStatus::InReview), "{id} and its reviews");
        for blocker in &bead.waits.blocked_by {
            assert!(town.beads().contains_key(blocker), "{id} waits for what has not ended");
        }
        if let Some(progress) = town.convoys().get(id) {
            let open = town.children(id).filter(|(_, child)| child.kind == BeadKind::Task).count();
            let open = u32::try_from(open).expect("few");
            assert_eq!(progress.total, progress.closed + progress.failed + open, "{id}");
        }
        assert_eq!(bead.kind == BeadKind::Convoy, town.convoys().contains_key(id), "{id}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_events_break_a_town_and_a_refused_one_changes_nothing(steps in steps(120)) {
        let mut play = Play::new();
        for step in &steps {
            let before = play.town.clone();
            match play.step(step) {
                Ok(()) => sound(&play.town),
                Err(_) => prop_assert_eq!(&play.town, &before),
            }
        }
    }

    /// Of every kind, whoever appends it.
    #[test]
    fn a_check_says_what_taking_an_event_in_would(steps in steps(120), report in any::<u32>()) {
        let mut play = Play::new();
        for step in &steps {
            let event = play.of(step);
            let before = play.town.clone();
            let said = play.town.check(play.at(), &event);
            prop_assert_eq!(&play.town, &before);
            prop_assert_eq!(&said, &play.tries(event), "{:?}", play.log.last());
        }
        // The same report again and again, with a body that changes.
        for n in [0, 0, 1, 86_400, 86_401] {
            let body = if n == 1 { "b" } else { "a" };
            let event = reported(&format!("k{}", report % 3), body);
            play.after(n);
            let said = play.town.check(play.at(), &event);
            prop_assert_eq!(said, play.tries(event));
        }
    }

    #[test]
    fn the_same_events_make_the_same_town_also_from_a_snapshot_in_between(
        steps in steps(80),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut play = Play::new();
        for step in &steps {
            let _ = play.step(step);
        }
        let fold = |town: &mut Town, log: &[(Seq, Timestamp, TownEvent)]| {
            for (seq, time, event) in log {
                let _ = town.apply(*seq, *time, event);
            }
        };
        let mut again = Town::default();
        fold(&mut again, &play.log);
        prop_assert_eq!(again.hash(), play.town.hash());
        let (head, tail) = play.log.split_at(cut.index(play.log.len()));
        let mut resumed = Town::default();
        fold(&mut resumed, head);
        let mut resumed = Town::restore(&resumed.snapshot()).expect("its own snapshot");
        fold(&mut resumed, tail);
        prop_assert_eq!(&resumed, &play.town);
        prop_assert_eq!(resumed.hash(), play.town.hash());
    }
}

/// The likely events do reach every corner, or the properties above say little.
#[test]
fn random_stories_go_every_way_that_a_bead_can_go() {
    use crate::town::state::apply::WAYS;
    let mut play = Play::with(|p| p.dispatch.attempts_max = 100);
    let (mut kinds, mut reasons, mut roll) = (BTreeSet::new(), BTreeSet::new(), 12_345_u64);
    for _ in 0..8_000 {
        // Knuth's generator, upper half: even and repeatable is all that is asked of it.
        roll = roll.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let pick = u32::try_from(roll >> 34).expect("30 bits");
        if play.step(&Step::Likely(pick)).is_ok()
            && let Some((_, _, event)) = play.log.last()
        {
            kinds.insert(event.kind());
            if let TownEvent::BeadTransitioned { reason, .. } = event {
                reasons.insert(*reason);
            }
        }
    }
    sound(&play.town);
    let planned = [
        BeadReason::AttemptsExhausted,
        BeadReason::BlockerFailed,
        BeadReason::ConvoyEnded,
        BeadReason::ConvoyFailed,
        BeadReason::SubjectEnded,
    ];
    let settled = WAYS.iter().map(|(_, _, _, reason)| *reason).filter(|reason| !planned.contains(reason));
    let missing: Vec<_> = settled.filter(|reason| !reasons.contains(reason)).collect();
    assert_eq!(missing, [], "{kinds:?}");
    for kind in ["bead_dispatched", "review_opened", "convoy_started", "dispatch_lost", "time_skipped"] {
        assert!(kinds.contains(kind), "{kind} of {kinds:?}");
    }
}

/// Whether one can get from `from` to `to` over these edges.
fn reaches(edges: &[(usize, usize)], from: usize, to: usize) -> bool {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(next) = open.pop() {
        if next == to {
            return true;
        }
        if seen.insert(next) {
            open.extend(edges.iter().filter(|(a, _)| *a == next).map(|(_, b)| *b));
        }
    }
    false
}

proptest! {
    /// Beads 0 to 8, of which 8 is a convoy that ends after 0, 1 and 2.
    #[test]
    fn a_dependency_is_refused_as_a_cycle_if_and_only_if_it_closes_one(
        wanted in prop::collection::vec((0..8_usize, 0..9_usize), 1..40)
    ) {
        let mut play = Play::new();
        let name = |n: usize| format!("b{n}");
        for n in 0..8 {
            play.creates(&name(n));
        }
        play.takes(convoy(&name(8), &["b0", "b1", "b2"]));
        let mut edges = vec![(8, 0), (8, 1), (8, 2)];
        for (bead, blocker) in wanted {
            let answer = play.tries(depends(&name(bead), &name(blocker)));
            let closes = reaches(&edges, blocker, bead);
            prop_assert_eq!(answer.map_err(|rejected| rejected.code()), if closes { Err("cycle") } else { Ok(()) });
            if !closes {
                edges.push((bead, blocker));
            }
        }
    }
}
