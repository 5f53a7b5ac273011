//! What of a record only operators see: what agents are told and what they say.

use serde_json::Value;

use crate::gateway::{AGENT_CREATED, AGENT_CREATED_CONFIG};
use crate::journal::Record;

/// The fields of each kind.
const WITHHELD: &[(&str, &str)] = &[
    ("agent_completed", "reason"),
    (AGENT_CREATED, AGENT_CREATED_CONFIG),
    ("agent_done", "summary"),
    ("bead_created", "instructions"),
    ("container_eviction", "reason"),
    ("container_status", "exit_reason"),
    ("review_done", "notes"),
];

/// Takes it out of a record's detail.
pub(crate) fn withhold(record: &Record, detail: &mut Value) {
    let Some(detail) = detail.as_object_mut() else { return };
    for (_, field) in WITHHELD.iter().filter(|(kind, _)| *kind == record.kind) {
        detail.remove(*field);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::town::event::KINDS;

    #[test]
    fn what_a_runtime_says_of_an_exit_is_for_operators() {
        let town = crate::ids::TownId::parse("main").expect("an id");
        let detail = serde_json::json!({"agent": "a", "status": "exited", "exit_reason": "SECRET"});
        let record = Record::example(crate::journal::StreamId::town(&town), "container_status", detail);
        let mut shown = record.detail.clone();
        withhold(&record, &mut shown);
        assert_eq!(shown, serde_json::json!({"agent": "a", "status": "exited"}));
    }

    #[test]
    fn every_kind_of_a_town_that_is_named_is_one() {
        let ours = WITHHELD.iter().filter(|(kind, _)| *kind != AGENT_CREATED);
        let unknown: Vec<_> = ours.filter(|(kind, _)| !KINDS.contains(kind)).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}
