//! 3: at most one review of a task is in progress.
//!
//! Two reviewers at once can say two things of the same work: one closes the task and the other reopens it, and which
//! of them counts would be chance.

use std::collections::BTreeMap;

use super::{Broken, named};
use crate::ids::BeadId;
use crate::town::state::Town;
use crate::town::words::{BeadKind, BeadStatus, Entity};

pub(super) fn check(town: &Town) -> Vec<Broken> {
    let mut reviews: BTreeMap<&BeadId, Vec<&BeadId>> = BTreeMap::new();
    for (id, bead) in town.beads_that_are(BeadStatus::InProgress) {
        if let (BeadKind::Review, Some(task)) = (bead.kind, &bead.parent) {
            reviews.entry(task).or_default().push(id);
        }
    }
    let twice = reviews.into_iter().filter(|(_, reviews)| reviews.len() > 1);
    twice
        .map(|(task, reviews)| {
            let message = format!("of task {task} are in progress the reviews {}", named(&reviews));
            let beads = reviews.into_iter().chain([task]);
            Broken::new(beads.cloned().map(Entity::Bead), message)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::town::invariant::check_all;
    use crate::town::invariant::tests::{broken, hook, told};

    #[test]
    fn two_reviews_of_one_task_in_progress_are_found() {
        let town = broken(|town| {
            town["beads"]["f.r2"] = town["beads"]["f.r1"].clone();
            town["agents"]["w3"]["role"] = json!("reviewer");
            hook(town, "w3", "f.r2");
        });
        assert_eq!(
            told(&check_all(&town)),
            ["3 bead/f bead/f.r1 bead/f.r2: of task f are in progress the reviews f.r1, f.r2"]
        );
    }

    #[test]
    fn one_that_waits_beside_one_in_progress_is_none() {
        let town = broken(|town| {
            town["beads"]["f.r2"] = town["beads"]["f.r1"].clone();
            town["beads"]["f.r2"]["status"] = json!("open");
        });
        assert_eq!(told(&check_all(&town)), [""; 0]);
    }
}
