//! 4: a task that is in review has a review that is open or in progress.
//!
//! Only the end of its review moves such a task on. Without one it stays in review for ever, and who waits for it too.

use super::Broken;
use crate::town::state::Town;
use crate::town::words::{BeadKind, BeadStatus, Entity};

pub(super) fn check(town: &Town) -> Vec<Broken> {
    let mut found = Vec::new();
    for (id, _) in town.beads_that_are(BeadStatus::InReview) {
        let mut reviews = town.children(id).filter(|(_, child)| child.kind == BeadKind::Review);
        let moves = |status| matches!(status, BeadStatus::Open | BeadStatus::InProgress);
        if !reviews.any(|(_, review)| moves(review.status)) {
            let message = format!("bead {id} is in review, and no review of it is open or in progress");
            found.push(Broken::new([Entity::Bead(id.clone())], message));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::town::invariant::check_all;
    use crate::town::invariant::tests::{broken, told};

    #[test]
    fn a_task_in_review_whose_review_is_gone_is_found() {
        let town = broken(|town| {
            town["beads"].as_object_mut().expect("a map").remove("f.r1");
            town["agents"]["r1"]["hook"] = json!(null);
            town["agents"]["r1"]["status"] = json!("idle");
        });
        assert_eq!(
            told(&check_all(&town)),
            ["4 bead/f: bead f is in review, and no review of it is open or in progress"]
        );
    }
}
