//! Refusals without a valid token: counted, and told to the journal at most once a minute, whoever knocks.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;

use crate::journal::{Actor, Append, NewRecord, StreamId};

/// Counts refusals between two summaries.
#[derive(Default)]
pub(crate) struct Refusals {
    missing: AtomicU64,
    wrong: AtomicU64,
    limited: AtomicU64,
}

impl Refusals {
    pub(crate) fn note_missing(&self) {
        self.missing.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn note_wrong(&self) {
        self.wrong.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn note_limited(&self) {
        self.limited.fetch_add(1, Ordering::Relaxed);
    }

    /// What there is to append, and starts from zero; nothing if nobody was refused.
    pub(crate) fn summary(&self) -> Option<Append> {
        let [missing, wrong, limited] =
            [&self.missing, &self.wrong, &self.limited].map(|count| count.swap(0, Ordering::Relaxed));
        if missing + wrong + limited == 0 {
            return None;
        }
        let record = NewRecord {
            kind: "access_refused",
            version: 1,
            actor: Actor::System,
            trace_id: None,
            detail: json!({"missing": missing, "wrong": wrong, "limited": limited}),
        };
        Some(Append { stream: StreamId::operator(), expected_last_seq: None, records: vec![record] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_refusals_make_one_record_and_none_make_none() {
        let refusals = Refusals::default();
        assert!(refusals.summary().is_none());
        (0..1_000).for_each(|_| refusals.note_missing());
        refusals.note_wrong();
        let append = refusals.summary().expect("somebody was refused");
        assert_eq!(append.records.len(), 1);
        assert_eq!(append.records[0].detail, json!({"missing": 1000, "wrong": 1, "limited": 0}));
        assert!(refusals.summary().is_none(), "told once");
    }
}
