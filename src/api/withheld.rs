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
    fn every_kind_of_a_town_that_is_named_is_one() {
        let ours = WITHHELD.iter().filter(|(kind, _)| *kind != AGENT_CREATED);
        let unknown: Vec<_> = ours.filter(|(kind, _)| !KINDS.contains(kind)).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}
