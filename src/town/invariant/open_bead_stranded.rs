//! 9: liveness: every open bead is dispatched, waits for a stated reason, or is escalated.
//!
//! Whatever an open bead waits for must be something that comes: an agent at work, another bead that is open itself, its
//! review, a person, its turn. One that waits for nothing of these is forgotten: no rule ever speaks of it again, and
//! nobody is told.
//!
//! The reasons are those that the state knows. Whether a bead in the queue is held up by its back-off, the breaker, a
//! drain or a want of agents is the planner's to say; each of them is a reason. A task in review without a review is told
//! by invariant 4, and a convoy without counts by invariant 5.

use std::collections::{BTreeMap, BTreeSet};

use super::{Broken, named};
use crate::ids::BeadId;
use crate::town::state::{Bead, Town};
use crate::town::words::{AgentStatus, BeadKind, BeadStatus, Entity};

pub(super) fn check(town: &Town) -> Vec<Broken> {
    let mut found = Vec::new();
    for (id, bead) in town.beads() {
        if let Some(message) = stranded(town, id, bead) {
            found.push(Broken::new([Entity::Bead(id.clone())], message));
        }
    }
    let ring = ring(town);
    if !ring.is_empty() {
        let message = format!("these beads wait for each other, and none can begin: {}", named(&ring));
        found.push(Broken::new(ring.into_iter().cloned().map(Entity::Bead), message));
    }
    found.extend(probe(town));
    found
}

/// Why nothing will ever move a bead on.
fn stranded(town: &Town, id: &BeadId, bead: &Bead) -> Option<String> {
    let held = town.hooked_to(id).next().is_some();
    match bead.status {
        BeadStatus::Closed | BeadStatus::Failed => {
            Some(format!("bead {id} is {}, and stands among the open ones", bead.status))
        }
        BeadStatus::InProgress if !held => Some(format!("bead {id} is in progress, and no agent holds it")),
        BeadStatus::InProgress => idly_held(town, id),
        status @ (BeadStatus::InReview | BeadStatus::Open) if held => {
            Some(format!("bead {id} is {status}, and an agent holds it"))
        }
        BeadStatus::InReview => None,
        BeadStatus::Open if bead.waits.cancel.is_some() => {
            Some(format!("bead {id} is cancelled, and no agent holds it"))
        }
        BeadStatus::Open => never_freed(town, id, bead),
    }
}

/// Its holders' word is heard only while they work, and only on a dispatch of this bead.
fn idly_held(town: &Town, id: &BeadId) -> Option<String> {
    town.hooked_to(id).find_map(|(agent, held)| {
        if !matches!(held.status, AgentStatus::Working | AgentStatus::Stalled) {
            return Some(format!(
                "bead {id} is in progress, and agent {agent}, which holds it, is {}",
                held.status
            ));
        }
        let dispatch = &held.hook.as_ref()?.dispatch_id;
        let other = dispatch.bead() != id;
        other.then(|| format!("bead {id} is in progress, and agent {agent} holds it as dispatch {dispatch}"))
    })
}

fn never_freed(town: &Town, id: &BeadId, bead: &Bead) -> Option<String> {
    let mut gone =
        bead.waits.blocked_by.iter().filter(|blocker| !town.beads().contains_key(*blocker)).peekable();
    gone.peek()?;
    Some(format!("bead {id} waits for beads that are not open: {}", named(gone)))
}

/// Beads that wait for each other, round and round: by their dependencies, and convoys for their tasks.
fn ring(town: &Town) -> BTreeSet<&BeadId> {
    let waits = |bead: &Bead| !bead.waits.blocked_by.is_empty() || bead.kind == BeadKind::Convoy;
    let waiting = town.beads_that_are(BeadStatus::Open).filter(|(_, bead)| waits(bead));
    let mut left: BTreeSet<&BeadId> = waiting.map(|(id, _)| id).collect();
    peel(&mut left, |id| waits_for(town, id), |id| waiting_for(town, id));
    // What is left is rings and what waits for them. The latter may grow by the hour and says nothing new.
    peel(&mut left, |id| waiting_for(town, id), |id| waits_for(town, id));
    left
}

/// Takes away, one after the other, beads whose links all lead out of `left`. `back` are the same links from behind.
fn peel<'a, L, B>(
    left: &mut BTreeSet<&'a BeadId>,
    links: impl Fn(&'a BeadId) -> L,
    back: impl Fn(&'a BeadId) -> B,
) where
    L: Iterator<Item = &'a BeadId>,
    B: Iterator<Item = &'a BeadId>,
{
    let inside = |id| links(id).filter(|other| left.contains(other)).count();
    let mut counts: BTreeMap<&BeadId, usize> = left.iter().map(|id| (*id, inside(id))).collect();
    let mut loose: Vec<&BeadId> =
        counts.iter().filter(|(_, count)| **count == 0).map(|(id, _)| *id).collect();
    while let Some(id) = loose.pop() {
        if !left.remove(id) {
            continue;
        }
        for other in back(id) {
            let Some(count) = counts.get_mut(other) else { continue };
            *count = count.saturating_sub(1);
            if *count == 0 {
                loose.push(other);
            }
        }
    }
}

fn waits_for<'a>(town: &'a Town, id: &'a BeadId) -> impl Iterator<Item = &'a BeadId> {
    let bead = town.beads().get(id);
    let blockers = bead.into_iter().flat_map(|bead| &bead.waits.blocked_by);
    let convoy = bead.filter(|bead| bead.kind == BeadKind::Convoy);
    let children = convoy.into_iter().flat_map(move |_| town.children(id));
    blockers.chain(children.filter(|(_, child)| child.kind == BeadKind::Task).map(|(id, _)| id))
}

fn waiting_for<'a>(town: &'a Town, id: &'a BeadId) -> impl Iterator<Item = &'a BeadId> {
    let task = town.beads().get(id).filter(|bead| bead.kind == BeadKind::Task);
    let parent = task.and_then(|task| task.parent.as_ref());
    let is_convoy = |id: &&BeadId| town.beads().get(*id).is_some_and(|bead| bead.kind == BeadKind::Convoy);
    town.blocked_by(id).map(|(id, _)| id).chain(parent.filter(is_convoy))
}

/// While a probe is under way nothing else is dispatched. One that nobody carries out stops the town for ever.
fn probe(town: &Town) -> Option<Broken> {
    let probe = town.breaker().open.as_ref()?.probe.as_ref()?;
    if town.holder(probe).is_some() {
        return None;
    }
    let message = format!("the breaker waits for its probe, dispatch {probe}, which no agent holds");
    Some(Broken::new([Entity::Bead(probe.bead().clone())], message))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::town::event::TownEvent;
    use crate::town::invariant::check_all;
    use crate::town::invariant::tests::{broken, busy, hook, told};
    use crate::town::state::tests::depends;

    fn check(edit: impl FnOnce(&mut Value), expected: &str) {
        assert_eq!(told(&check_all(&broken(edit))), [expected]);
    }

    #[test]
    fn a_bead_in_progress_that_nobody_works_on_is_found() {
        check(
            |town| town["beads"]["c"]["status"] = json!("in_progress"),
            "9 bead/c: bead c is in progress, and no agent holds it",
        );
        check(
            |town| town["agents"]["w1"]["status"] = json!("idle"),
            "9 bead/a: bead a is in progress, and agent w1, which holds it, is idle",
        );
        check(
            |town| town["agents"]["w1"]["hook"]["dispatch_id"] = json!("c.1"),
            "9 bead/a: bead a is in progress, and agent w1 holds it as dispatch c.1",
        );
    }

    #[test]
    fn a_bead_that_waits_though_it_is_held_is_found() {
        check(
            |town| {
                hook(town, "w3", "e");
                town["beads"]["e"]["status"] = json!("open");
            },
            "9 bead/e: bead e is open, and an agent holds it",
        );
    }

    #[test]
    fn a_bead_that_waits_for_what_never_comes_is_found() {
        check(
            |town| town["beads"]["c"]["waits"]["blocked_by"] = json!(["d", "done", "ghost"]),
            "9 bead/c: bead c waits for beads that are not open: done, ghost",
        );
        check(
            |town| town["beads"]["c"]["waits"]["cancel"] = json!("closed"),
            "9 bead/c: bead c is cancelled, and no agent holds it",
        );
        check(
            |town| town["beads"]["c"]["status"] = json!("closed"),
            "9 bead/c: bead c is closed, and stands among the open ones",
        );
    }

    #[test]
    fn beads_that_wait_for_each_other_are_found_without_those_behind_them() {
        check(
            |town| town["beads"]["d"]["waits"]["blocked_by"] = json!(["c"]),
            "9 bead/c bead/d: these beads wait for each other, and none can begin: c, d",
        );
        check(
            |town| town["beads"]["d"]["waits"]["blocked_by"] = json!(["d"]),
            "9 bead/d: these beads wait for each other, and none can begin: d",
        );
        // The convoy waits for its task, which waits for the convoy.
        check(
            |town| town["beads"]["e"]["waits"]["blocked_by"] = json!(["con"]),
            "9 bead/con bead/e: these beads wait for each other, and none can begin: con, e",
        );
    }

    #[test]
    fn long_chains_and_many_that_wait_for_one_are_no_ring() {
        let mut play = busy();
        for n in 0..60 {
            play.creates(&format!("x{n}")).creates(&format!("y{n}"));
            play.takes(depends(&format!("y{n}"), "con"));
            if n > 0 {
                play.takes(depends(&format!("x{n}"), &format!("x{}", n - 1)));
            }
        }
        assert_eq!(told(&check_all(&play.town)), [""; 0]);
    }

    #[test]
    fn a_breaker_whose_probe_nobody_carries_out_is_found() {
        let mut play = busy();
        play.takes(TownEvent::BreakerOpened { failed_beads: 20 }).creates("p").dispatches("p", "w2");
        assert_eq!(told(&check_all(&play.town)), [""; 0]);
        check(
            |town| town["breaker"]["open"] = json!({"since": 1, "probe": "g.1", "probed_well": false}),
            "9 bead/g: the breaker waits for its probe, dispatch g.1, which no agent holds",
        );
    }
}
