//! What holds for plans of any town.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::super::RULES;
use super::*;
use crate::limits::{BEAD_INSTRUCTIONS_BYTES_MAX, TOWN_OPEN_BEADS_MAX, TOWN_TEXT_BYTES_MAX};
use crate::town::state::tests::properties::steps;

/// A plan speaks of each agent and bead at most once, each of its events is taken in, and it says of every bead why it
/// waits.
fn sound(play: &Play) -> Plan {
    let plan = play.plan();
    assert_eq!(plan, play.plan(), "the same town gives the same plan");
    let said: Vec<_> = plan.actions.iter().filter_map(|action| action.entity.clone()).collect();
    assert_eq!(said.iter().collect::<BTreeSet<_>>().len(), said.len(), "{said:?}");
    assert!(plan.report.keys().eq(play.town.beads().keys()));
    assert!(!plan.report.values().any(|wait| *wait == Wait::Astray), "{:?}", plan.report);
    let mut after = play.clone();
    for action in &plan.actions {
        assert!(!action.event().from_outside());
        let told = ActionKind::of_event(action.event());
        assert_eq!(told, Some((action.kind, action.entity.clone())), "{:?}", action.event());
        after.takes(action.event().clone());
    }
    plan
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_plan_is_sound_and_comes_to_rest(steps in steps(100), every in 1_usize..9) {
        let mut play = Play::with(|p| (p.review.enabled, p.breaker.beads) = (true, 4));
        for (index, step) in steps.iter().enumerate() {
            let _ = play.step(step);
            if index % every == 0 {
                sound(&play);
                play.tick();
            }
        }
        play.settles();
    }

    /// Agents answer at random, and then all goes well: every task ends.
    #[test]
    fn every_bead_ends_once_nothing_fails_any_more(seed in any::<u64>(), review in any::<bool>()) {
        let mut play = Play::with(|p| (p.review.enabled, p.breaker.beads) = (review, 6));
        let mut roll = seed;
        for n in 0..24 {
            play.creates(&format!("t{n}"));
            if n % 3 == 2 {
                play.takes(depends(&format!("t{n}"), &format!("t{}", n / 2)));
            }
        }
        play.takes(convoy("con", &["t1", "t2", "t3"]));
        for turn in 0..900 {
            roll = roll.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let dice = if turn < 150 { usize::try_from(roll >> 60).expect("four bits") } else { 0 };
            play.after(31);
            sound(&play);
            play.tick();
            answer(&mut play, dice);
            people(&mut play);
        }
        play.settles();
        prop_assert!(play.town.beads().is_empty(), "{:?}", play.plan().report);
    }
}

/// Every agent at work answers, or does not.
fn answer(play: &mut Play, dice: usize) {
    let hooks = play.town.agents().iter().filter_map(|(id, agent)| Some((id.clone(), agent.hook.clone()?)));
    for (index, (by, hook)) in hooks.collect::<Vec<_>>().into_iter().enumerate() {
        let (by, id) = (by.as_str(), hook.dispatch_id.to_string());
        let event = match (by, dice.saturating_sub(index)) {
            ("r1", 0..9) => reviewed(&id, Verdict::Approved, ""),
            ("r1", 9..12) => reviewed(&id, Verdict::Changes, "again"),
            (_, 0..6) => done(by, &id, Outcome::Done),
            (_, 6..9) => done(by, &id, Outcome::Failed),
            (_, 9) => done(by, &id, Outcome::NeedsHuman),
            (_, 10) => completed(by, &id, CompletionStatus::Completed),
            (_, 11) => failed(&id),
            (_, 12) => lost(&id, LostCause::Restart),
            _ => continue,
        };
        play.takes(event);
    }
}

/// People let go on what waits for them, and close what they were told.
fn people(play: &mut Play) {
    for (id, wait) in play.plan().report {
        match wait {
            Wait::WaitingOnHuman { .. } => _ = play.takes(TownEvent::BeadReleased { bead: id }),
            Wait::Escalated { .. } => _ = play.takes(cancelled(id.as_str(), CancelStatus::Closed)),
            _ => {}
        }
    }
}

#[test]
fn entities_of_an_open_violation_get_no_action() {
    let mut play = Play::new();
    play.creates("a").creates("b");
    let entities = BTreeSet::from([Entity::Bead(bead("a")), Entity::Agent(agent("w1"))]);
    let message = "for the test".into();
    play.takes(TownEvent::ViolationOpened { invariant: 9, entities: entities.clone(), message });
    assert_eq!(dispatched(&play.tick()), ["b.1 to w2"]);
    assert_eq!(play.waits("a"), Wait::Violated);
    play.takes(TownEvent::ViolationResolved { invariant: 9, entities });
    assert_eq!(dispatched(&play.tick()), ["a.1 to w1"]);
}

#[test]
fn what_is_broken_is_mended_once_its_violation_is_open_and_nothing_else_is_done_to_it() {
    let mut play = Play::new();
    play.creates("a").creates("b").dispatches("a", "w1");
    let mut broken = play.town.snapshot();
    broken["town"]["beads"].as_object_mut().expect("an object").remove("a");
    broken["town"]["agents"]["w2"]["status"] = serde_json::json!("working");
    play.town = crate::town::Town::restore(&broken).expect("readable");
    for (invariant, id) in [(8, "w1"), (7, "w2"), (6, "r1")] {
        let entities = BTreeSet::from([Entity::Agent(agent(id))]);
        play.takes(TownEvent::ViolationOpened { invariant, entities, message: "".into() });
    }
    let plan = play.tick();
    assert_eq!(told(&plan.actions), ["free_agent w2", "unhook_agent w1"]);
    for Action { kind, entity, event, .. } in &plan.actions {
        assert_eq!(ActionKind::of_event(event), Some((*kind, entity.clone())));
    }
    assert!(plan.actions.iter().all(|action| action.effect.is_some()), "what runs is stopped");
    assert_eq!(play.plan().actions, [], "until the violation resolves");
    for id in ["w1", "w2"] {
        assert_eq!(play.agent(id).status, crate::town::words::AgentStatus::Idle);
    }
}

/// A town that refused its own plan would make the same one again at once, for ever.
#[test]
fn a_full_town_takes_in_what_its_planner_says_of_the_beads_that_it_has() {
    let mut play = Play::with(|p| (p.review.enabled, p.dispatch.attempts_max) = (true, 1));
    fill_with_text(&mut play);
    assert_eq!(play.refuses(created("more", 0, &[])), "full");
    assert_eq!(dispatched(&play.tick()), ["t0.1 to w1", "t1.1 to w2"]);
    play.takes(done("w1", "t0.1", Outcome::Done)).takes(done("w2", "t1.1", Outcome::Failed));
    assert_eq!(told(&play.tick().actions)[..2], ["open_review t0", "fail_bead t1"]);
    let mut play = Play::new();
    for n in 0..TOWN_OPEN_BEADS_MAX {
        play.creates(&format!("t{n}"));
    }
    assert_eq!(play.refuses(created("more", 0, &[])), "full");
    assert_eq!(dispatched(&play.tick()), ["t0.1 to w1", "t1.1 to w2"]);
    play.sees("t1.1", "w2", ContainerStatus::Running).after(900).takes(done(
        "w1",
        "t0.1",
        Outcome::NeedsHuman,
    ));
    play.tick();
    assert_eq!(play.status("t0.e1"), BeadStatus::Open);
    assert_eq!(told(&play.after(2_700).tick().actions)[..1], ["escalate_bead t1"]);
}

/// Beads of as much text as fits, to the byte; all share one text in memory.
fn fill_with_text(play: &mut Play) {
    let long: Arc<str> = "x".repeat(BEAD_INSTRUCTIONS_BYTES_MAX).into();
    let mut left = TOWN_TEXT_BYTES_MAX;
    for n in 0.. {
        let mut event = created(&format!("t{n}"), 2, &[]);
        let TownEvent::BeadCreated { title, instructions, .. } = &mut event else { unreachable!() };
        *title = "t".into();
        *instructions = long[..long.len().min(left.saturating_sub(1))].into();
        if instructions.len() == long.len() {
            *instructions = Arc::clone(&long);
        }
        left -= title.len() + instructions.len();
        play.takes(event);
        if left == 0 {
            return;
        }
    }
}

#[test]
fn agents_that_nobody_needed_for_a_day_go_if_they_were_made() {
    let mut play = Play::new();
    play.registers("d1", Role::Worker, Origin::Dynamic).after(1);
    play.registers("d2", Role::Worker, Origin::Dynamic).after(86_399);
    play.takes(TownEvent::DrainStarted { reason: None });
    assert_eq!(play.plan().actions, []);
    play.takes(TownEvent::DrainEnded {});
    assert_eq!(told(&play.tick().actions), ["collect_agent d1"]);
    assert_eq!(told(&play.after(1).tick().actions), ["collect_agent d2"]);
    assert_eq!(play.town.agents().len(), 3);
}

#[test]
fn another_policy_asks_what_if_and_changes_only_the_plan() {
    let mut play = Play::new();
    play.creates("a").dispatches("a", "w1").after(60);
    let mut supposed = play.town.clone();
    let mut policy = supposed.policy().clone();
    policy.lost.quiet_after = crate::units::Period::from_secs(30);
    supposed.suppose(policy);
    assert_eq!(told(&plan(&supposed, play.at()).actions), ["drop_dispatch a"]);
    assert_eq!(play.plan().actions, []);
}

#[test]
fn names_of_rules_and_actions_are_kept() {
    let rules: Vec<_> = RULES.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        rules,
        [
            "recover", "cancel", "settle", "lost", "stuck", "dropout", "convoy", "breaker", "dispatch",
            "collect",
        ]
    );
    for kind in ActionKind::ALL {
        assert_eq!(serde_json::json!(kind), kind.as_str());
    }
}

#[test]
fn a_plan_is_written_with_its_reasons() {
    let mut play = Play::new();
    play.creates("a").creates("b").takes(created("c", 1, &["a"]));
    play.tick();
    play.after(2).takes(done("w1", "a.1", Outcome::Failed)).creates("d");
    let plan = play.plan();
    let sentences: Vec<_> = plan.actions.iter().map(|action| action.reason.to_string()).collect();
    let waits: Vec<_> = plan.report.iter().map(|(id, wait)| format!("{id}: {wait}")).collect();
    insta::assert_json_snapshot!((plan, sentences, waits));
}
