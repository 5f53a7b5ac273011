//! `request_finished` read back from the journal, of every version there was.

use serde::Deserialize;

use super::record::{Outcome, REQUEST_FINISHED, REQUEST_FINISHED_VERSION};
use crate::ids::{AgentId, RequestId, SessionId};
use crate::journal::Record;
use crate::provider::ModelUsed;

/// What version 1 says of who was asked: nothing.
const UNKNOWN: &str = "unknown";

/// A request that ended, as far as sums over requests want to know it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Recorded {
    pub(super) request_id: RequestId,
    pub(super) agent: AgentId,
    pub(super) session: SessionId,
    pub(super) outcome: Outcome,
    pub(super) timings: Took,
    pub(super) models: Vec<ModelUsed>,
}

/// How long it took.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Took {
    pub(super) total_ms: f64,
}

/// Why a record cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("version {version} of request_finished cannot be read: {problem}")]
pub(super) struct Unreadable {
    version: u16,
    problem: String,
}

impl Recorded {
    /// Reads a record; `None` if it is of another kind.
    pub(super) fn read(record: &Record) -> Option<Result<Self, Unreadable>> {
        if record.kind != REQUEST_FINISHED {
            return None;
        }
        let read = match record.version {
            1 => First::deserialize(&record.detail).map(Self::from).map_err(|e| e.to_string()),
            REQUEST_FINISHED_VERSION => Self::deserialize(&record.detail).map_err(|e| e.to_string()),
            _ => Err("a later plimsoll wrote it".to_owned()),
        };
        Some(read.map_err(|problem| Unreadable { version: record.version, problem }))
    }
}

/// Version 1, which knows sums over all models only.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct First {
    request_id: RequestId,
    agent: AgentId,
    session: SessionId,
    outcome: Outcome,
    timings: Took,
    tokens: FirstTokens,
    cost_usd: Option<f64>,
    model_calls: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FirstTokens {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
}

impl From<First> for Recorded {
    fn from(first: First) -> Self {
        let First { request_id, agent, session, outcome, timings, tokens, cost_usd, model_calls } = first;
        let FirstTokens { input_tokens, output_tokens } = tokens;
        let unless = |known: bool| if known { 0 } else { model_calls };
        let used = ModelUsed {
            provider: UNKNOWN.to_owned(),
            model: UNKNOWN.to_owned(),
            calls: model_calls,
            input_tokens: input_tokens.unwrap_or(0),
            output_tokens: output_tokens.unwrap_or(0),
            cache_read_tokens: 0,
            cache_write_tokens: 0,
            cost_usd,
            unpriced: unless(cost_usd.is_some()),
            unreported: unless(input_tokens.is_some() && output_tokens.is_some()),
            ..ModelUsed::default()
        };
        let models = if model_calls == 0 { Vec::new() } else { vec![used] };
        Self { request_id, agent, session, outcome, timings, models }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::clock::Timestamp;
    use crate::ids::Seq;
    use crate::journal::{Actor, RecordHash, StreamId};

    /// A record of the journal.
    pub(in crate::gateway) fn record(version: u16, time: u64, detail: Value) -> Record {
        Record {
            seq: Seq(1),
            time: Timestamp::from_millis(time),
            stream: StreamId::request(),
            kind: REQUEST_FINISHED.to_owned(),
            version,
            actor: Actor::Local,
            trace_id: None,
            detail,
            prev_hash: RecordHash::default(),
        }
    }

    /// As the first version wrote it: never to be changed.
    fn first() -> Value {
        json!({
            "requestId": "01KAH5V0000000000000000000",
            "agent": "a",
            "session": "s",
            "channel": "http",
            "outcome": "failed",
            "code": -32007,
            "timings": {"queuedMs": 1.5, "firstTokenMs": 20.0, "totalMs": 100.25},
            "tokens": {"inputTokens": 12, "outputTokens": null},
            "costUsd": null,
            "modelCalls": 2,
            "tools": {"done": 1, "failed": 1},
        })
    }

    #[test]
    fn a_record_of_version_1_is_read_as_one_unknown_model() {
        let recorded = Recorded::read(&record(1, 0, first())).expect("its kind").expect("read");
        assert_eq!((recorded.outcome, recorded.timings.total_ms), (Outcome::Failed, 100.25));
        let [used] = recorded.models.as_slice() else { panic!("one model") };
        assert_eq!((used.provider.as_str(), used.model.as_str()), (UNKNOWN, UNKNOWN));
        assert_eq!((used.calls, used.input_tokens, used.output_tokens), (2, 12, 0));
        assert_eq!((used.cost_usd, used.unpriced, used.unreported), (None, 2, 2));
    }

    #[test]
    fn version_1_without_a_model_call_says_nothing_of_models() {
        let mut detail = first();
        detail["modelCalls"] = json!(0);
        let recorded = Recorded::read(&record(1, 0, detail)).expect("its kind").expect("read");
        assert_eq!(recorded.models, []);
    }

    #[test]
    fn other_kinds_are_passed_over_and_later_versions_said() {
        let mut other = record(1, 0, first());
        other.kind = "request_accepted".to_owned();
        assert_eq!(Recorded::read(&other), None);
        let later = Recorded::read(&record(REQUEST_FINISHED_VERSION + 1, 0, first())).expect("its kind");
        assert!(later.expect_err("not read").to_string().contains("a later plimsoll"));
    }
}
