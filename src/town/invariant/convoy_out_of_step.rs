//! 5: a convoy's status and counts match its beads.
//!
//! Nobody asks the beads whether a convoy is over: its counts say so, and they are all that is left of beads that ended
//! long ago. A count too low and it never ends, too high and it ends before its work.

use std::collections::BTreeMap;

use super::{Broken, named};
use crate::ids::BeadId;
use crate::town::state::{Progress, Town};
use crate::town::words::{BeadKind, BeadReason, BeadStatus, Entity};

pub(super) fn check(town: &Town) -> Vec<Broken> {
    let mut open_tasks: BTreeMap<&BeadId, Vec<&BeadId>> = BTreeMap::new();
    let mut wrong: BTreeMap<&BeadId, String> = BTreeMap::new();
    for (id, bead) in town.beads() {
        match (bead.kind, &bead.parent) {
            (BeadKind::Task, Some(convoy)) => open_tasks.entry(convoy).or_default().push(id),
            (BeadKind::Convoy, _) => match (bead.status, town.convoys().contains_key(id)) {
                (BeadStatus::Open, true) => {}
                (BeadStatus::Open, false) => _ = wrong.insert(id, format!("convoy {id} has no counts")),
                (status, _) => _ = wrong.insert(id, format!("convoy {id} is {status}, and not open")),
            },
            (BeadKind::Task | BeadKind::Review | BeadKind::Escalation, _) => {}
        }
    }
    for (id, progress) in town.convoys() {
        let open = open_tasks.get(id).map_or(0, Vec::len);
        if let Some(message) = miscounted(town, id, *progress, open) {
            wrong.insert(id, message);
        }
    }
    for (id, tasks) in &open_tasks {
        let ended = town.closed().get(*id).filter(|convoy| convoy.reason == BeadReason::ConvoyEnded);
        if ended.is_some() {
            wrong.insert(id, format!("convoy {id} has ended, and of its tasks are open {}", named(tasks)));
        }
    }
    let told = |(id, message): (&BeadId, String)| Broken::new([Entity::Bead(id.clone())], message);
    wrong.into_iter().map(told).collect()
}

fn miscounted(town: &Town, id: &BeadId, progress: Progress, open: usize) -> Option<String> {
    if town.beads().get(id).is_none_or(|bead| bead.kind != BeadKind::Convoy) {
        return Some(format!("there are counts of {id}, which is no open convoy"));
    }
    let Progress { total, closed, failed } = progress;
    let told = [closed, failed].map(u64::from).into_iter().sum::<u64>();
    let counted = told.saturating_add(u64::try_from(open).unwrap_or(u64::MAX));
    (counted != u64::from(total)).then(|| {
        format!("convoy {id} counts {total} tasks: {closed} closed, {failed} failed, and {open} are open")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::town::invariant::check_all;
    use crate::town::invariant::tests::{broken, told};

    #[test]
    fn a_convoy_that_counts_wrong_is_found() {
        let town = broken(|town| town["convoys"]["con"]["closed"] = json!(1));
        assert_eq!(
            told(&check_all(&town)),
            ["5 bead/con: convoy con counts 2 tasks: 1 closed, 0 failed, and 2 are open"]
        );
    }

    #[test]
    fn a_convoy_without_counts_and_counts_without_a_convoy_are_found() {
        let town = broken(|town| _ = town["convoys"].as_object_mut().expect("a map").remove("con"));
        assert_eq!(told(&check_all(&town)), ["5 bead/con: convoy con has no counts"]);
        let town = broken(|town| town["convoys"]["ghost"] = json!({"total": 0, "closed": 0, "failed": 0}));
        assert_eq!(
            told(&check_all(&town)),
            ["5 bead/ghost: there are counts of ghost, which is no open convoy"]
        );
    }

    #[test]
    fn a_convoy_that_ended_before_its_tasks_is_found() {
        let town = broken(|town| {
            town["beads"].as_object_mut().expect("a map").remove("con");
            town["convoys"].as_object_mut().expect("a map").remove("con");
            town["closed"]["con"] =
                json!({"kind": "convoy", "status": "closed", "reason": "convoy_ended", "at": 1, "seq": 2});
        });
        assert_eq!(
            told(&check_all(&town)),
            ["5 bead/con: convoy con has ended, and of its tasks are open d, e"]
        );
    }

    #[test]
    fn a_convoy_that_is_worked_on_is_found() {
        let town = broken(|town| town["beads"]["con"]["status"] = json!("in_review"));
        assert!(
            told(&check_all(&town)).contains(&"5 bead/con: convoy con is in_review, and not open".into())
        );
    }
}
