//! What an agent is told: the work, and how to say how it ended.
//!
//! The forms of an ending are no JSON themselves: an agent that only repeats what it was told has said nothing.

use serde_json::Value;

use super::ending;
use crate::ids::BeadId;
use crate::town::Town;
use crate::town::state::Bead;
use crate::town::words::BeadKind;

/// How a worker ends its turn.
const WORK_ENDING: &str = "When you are finished, end your answer with one JSON object and nothing after it: \
    {\"outcome\": X, \"summary\": Y}, where X is \"done\" if the work is done, \"failed\" if it cannot be done, or \
    \"needs_human\" if a person has to decide something first, and Y is one or two sentences about it.";

/// How a reviewer ends its turn.
const REVIEW_ENDING: &str = "When you are finished, end your answer with one JSON object and nothing after it: \
    {\"verdict\": X, \"notes\": Y}, where X is \"approved\" if the work is good as it is, or \"changes\" if something has to \
    be done first, and Y says in a few sentences what.";

/// The message that gives a bead to an agent; `None` if there is no such bead any more.
pub(super) fn dispatch(town: &Town, id: &BeadId) -> Option<String> {
    let bead = town.beads().get(id)?;
    let parts = match bead.kind {
        BeadKind::Review => review(town, id, bead),
        BeadKind::Task | BeadKind::Convoy | BeadKind::Escalation => task(id, bead),
    };
    Some(parts.join("\n\n"))
}

fn task(id: &BeadId, bead: &Bead) -> Vec<String> {
    let mut parts = vec![format!("Task {id}: {}", bead.work.title)];
    parts.extend(instructions(bead));
    parts.extend(again(bead));
    if let Some(notes) = &bead.looks.notes {
        parts.push(format!("A reviewer looked at your work and asks for changes: {notes}"));
    }
    parts.push(WORK_ENDING.to_owned());
    parts
}

fn review(town: &Town, id: &BeadId, review: &Bead) -> Vec<String> {
    let task = review.parent.as_ref().and_then(|task| Some((task, town.beads().get(task)?)));
    let Some((task_id, task)) = task else {
        return vec![format!("Review {id}: {}", review.work.title), REVIEW_ENDING.to_owned()];
    };
    let mut parts = vec![format!("Review the work on task {task_id}: {}", task.work.title)];
    parts.extend(instructions(task).map(|told| format!("What was asked for: {told}")));
    parts.extend(again(review));
    if let Some(notes) = &task.looks.notes {
        parts.push(format!("What the last review asked for: {notes}"));
    }
    if let Some(summary) = &task.looks.summary {
        parts.push(format!("What the agent that did it says of it: {summary}"));
    }
    parts.push(REVIEW_ENDING.to_owned());
    parts
}

fn instructions(bead: &Bead) -> Option<String> {
    let told = bead.work.instructions.trim();
    (!told.is_empty()).then(|| told.to_owned())
}

/// Which attempt it is, if it is not the first.
fn again(bead: &Bead) -> Option<String> {
    let attempts = bead.tries.attempts;
    (attempts > 1).then(|| format!("This is attempt {attempts}: those before did not succeed."))
}

/// The message that asks once more how the work ended, and the JSON Schema of the answer to it; `None` if there is no such
/// bead any more.
pub(super) fn ask_ending(town: &Town, id: &BeadId) -> Option<(String, Value)> {
    let (ending, schema) = match town.beads().get(id)?.kind {
        BeadKind::Review => (REVIEW_ENDING, ending::schema_of_review()),
        BeadKind::Task | BeadKind::Convoy | BeadKind::Escalation => (WORK_ENDING, ending::schema_of_work()),
    };
    let message = format!(
        "Your last answer did not say how the work on {id} ended. Do not work on it any further. {ending}"
    );
    Some((message, schema))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_repeats_what_it_was_told_has_said_nothing() {
        for told in [WORK_ENDING, REVIEW_ENDING] {
            assert_eq!(ending::read(told), None, "{told}");
        }
    }
}
