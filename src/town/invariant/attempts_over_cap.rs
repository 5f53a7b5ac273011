//! 10: a bead's attempts never exceed the cap.
//!
//! The cap is what ends work that cannot be done, and what it costs. It counts as it stood when the bead was last
//! dispatched: a policy that lowers it later makes no attempt wrong that was allowed.

use super::Broken;
use crate::town::state::Town;
use crate::town::words::Entity;

pub(super) fn check(town: &Town) -> Vec<Broken> {
    let over = town.beads().iter().filter(|(_, bead)| bead.tries.attempts > bead.tries.attempts_max);
    over.map(|(id, bead)| {
        let (attempts, max) = (bead.tries.attempts, bead.tries.attempts_max);
        let message = format!("bead {id} was tried {attempts} times, and may be {max} times");
        Broken::new([Entity::Bead(id.clone())], message)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::town::event::TownEvent;
    use crate::town::invariant::check_all;
    use crate::town::invariant::tests::{broken, busy, told};
    use crate::town::policy::Policy;

    #[test]
    fn a_bead_that_was_tried_too_often_is_found() {
        let town = broken(|town| town["beads"]["g"]["tries"]["attempts"] = json!(6));
        assert_eq!(told(&check_all(&town)), ["10 bead/g: bead g was tried 6 times, and may be 5 times"]);
        let town = broken(|town| town["beads"]["g"]["tries"]["attempts"] = json!(5));
        assert_eq!(told(&check_all(&town)), [""; 0]);
    }

    #[test]
    fn a_cap_that_was_lowered_later_makes_no_attempt_wrong() {
        let mut play = busy();
        play.after(30).dispatches("g", "w2");
        let mut policy = Policy::default();
        policy.dispatch.attempts_max = 1;
        play.takes(TownEvent::PolicyChanged { policy: Box::new(policy) });
        assert_eq!(play.bead("g").tries.attempts, 2);
        assert_eq!(told(&check_all(&play.town)), [""; 0]);
    }
}
