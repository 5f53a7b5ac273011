//! What a record says, short enough for a line of a table: whom it is about, and what happened.

use serde_json::{Map, Value};

use crate::gateway::REQUEST_FINISHED;
use crate::journal::{Record, StreamKind};

/// Characters at most, the name of a container not counted: with the columns before it a line stays below 145.
const TOLD_MAX: usize = 72;

/// Hashes are longer than any id, and say nothing to a person.
const VALUE_MAX: usize = 36;

/// The agent that a record is about, if it is about one.
pub(super) fn agent(record: &Record) -> String {
    let hosted = || record.stream.instance_id().map(|id| id.to_string());
    record.detail["agent"].as_str().map(str::to_owned).or_else(hosted).unwrap_or_default()
}

/// What happened.
pub(super) fn told(record: &Record) -> String {
    match (record.kind.as_str(), record.detail.as_object()) {
        (REQUEST_FINISHED, _) => cut(finished(&record.detail)),
        (_, Some(detail)) if record.stream.kind() == StreamKind::Instance => of_instance(detail),
        (_, Some(detail)) => cut(plain(detail)),
        (_, None) => String::new(),
    }
}

fn cut(told: String) -> String {
    match told.char_indices().nth(TOLD_MAX) {
        Some((end, _)) => format!("{}…", &told[..end]),
        None => told,
    }
}

/// How a request ended, how long it took, and what it used.
fn finished(detail: &Value) -> String {
    let mut said = detail["outcome"].as_str().unwrap_or("?").to_owned();
    if let Some(ms) = detail["timings"]["totalMs"].as_f64() {
        let took = if ms < 1_000.0 { format!("{ms:.0} ms") } else { format!("{:.1} s", ms / 1_000.0) };
        said += &format!(" after {took}");
    }
    if detail["modelCalls"].as_u64() == Some(0) {
        return said;
    }
    let tokens = |key: &str| detail["tokens"][key].as_u64().map_or("?".to_owned(), |count| count.to_string());
    said += &format!(", {} + {} tokens", tokens("inputTokens"), tokens("outputTokens"));
    format!("{said}, {}", cost(detail))
}

/// What it cost; else what is known, what is estimated, and that something has no price.
fn cost(detail: &Value) -> String {
    if let Some(usd) = detail["costUsd"].as_f64() {
        return format!("USD {usd:.4}");
    }
    let models = detail["models"].as_array().map_or(&[][..], Vec::as_slice);
    let sum = |key: &str| models.iter().filter_map(|model| model[key].as_f64()).sum::<f64>();
    let (known, estimated, unpriced) = (sum("costUsd"), sum("estimatedUsd"), sum("unpriced"));
    let parts = [
        (known > 0.0).then(|| format!("USD {known:.4}")),
        (estimated > 0.0).then(|| format!("about USD {estimated:.4}")),
        (unpriced > 0.0).then(|| "unpriced".to_owned()),
    ];
    let said = parts.into_iter().flatten().collect::<Vec<_>>().join(" + ");
    if said.is_empty() { "cost unknown".to_owned() } else { said }
}

/// What happened to an instance. The name of its container is longer than other values, and stands there whole, at the
/// end: it is what one looks for next.
fn of_instance(detail: &Map<String, Value>) -> String {
    let mut rest = detail.clone();
    let name = ["container", "name"].into_iter().find_map(|key| match rest.remove(key)? {
        Value::String(name) => Some(format!("{key}={name}")),
        _ => None,
    });
    let said = [Some(cut(plain(&rest))), name].into_iter().flatten().filter(|said| !said.is_empty());
    said.collect::<Vec<_>>().join(" ")
}

/// What the record's own columns say already: `now` is the time by which a planner decided.
const SAID_BESIDE: [&str; 2] = ["agent", "now"];

/// The plain values of any other detail.
fn plain(detail: &Map<String, Value>) -> String {
    let rest = detail.iter().filter(|(key, _)| !SAID_BESIDE.contains(&key.as_str()));
    let shown = rest.filter_map(|(key, value)| {
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Bool(true) | Value::Number(_) => value.to_string(),
            Value::Array(list) => list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("+"),
            Value::Null | Value::Bool(false) | Value::Object(_) => return None,
        };
        (value.chars().count() <= VALUE_MAX).then(|| format!("{key}={value}"))
    });
    shown.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ids::AgentId;
    use crate::journal::StreamId;

    fn of(kind: &str, detail: Value) -> String {
        told(&Record::example(StreamId::request(), kind, detail))
    }

    #[test]
    fn the_time_by_which_a_planner_decided_is_not_said_twice() {
        let detail = json!({"bead": "a", "from": "open", "now": 1_795_344_021_819_u64, "to": "closed"});
        assert_eq!(of("bead_transitioned", detail), "bead=a from=open to=closed");
    }

    #[test]
    fn a_request_is_told_by_its_end_its_time_and_its_use() {
        let mut detail = json!({
            "outcome": "ok", "timings": {"totalMs": 1_234.5}, "modelCalls": 1,
            "tokens": {"inputTokens": 312, "outputTokens": null}, "costUsd": 0.010_56,
        });
        assert_eq!(of(REQUEST_FINISHED, detail.clone()), "ok after 1.2 s, 312 + ? tokens, USD 0.0106");
        detail["costUsd"] = Value::Null;
        let mut cost = |models: Value| {
            detail["models"] = models;
            of(REQUEST_FINISHED, detail.clone()).rsplit(", ").next().map(str::to_owned)
        };
        assert_eq!(cost(json!([])).as_deref(), Some("cost unknown"));
        assert_eq!(cost(json!([{"unpriced": 1}])).as_deref(), Some("unpriced"));
        let partly = json!([{"costUsd": 0.01}, {"costUsd": 0.01, "estimatedUsd": 0.1, "unpriced": 0}]);
        assert_eq!(cost(partly).as_deref(), Some("USD 0.0200 + about USD 0.1000"));
        let refused = json!({"outcome": "refused", "timings": {"totalMs": 0.4}, "modelCalls": 0});
        assert_eq!(of(REQUEST_FINISHED, refused), "refused after 0 ms");
    }

    #[test]
    fn a_record_of_an_instance_names_its_agent_and_its_container_whole() {
        let name = format!("plimsoll-reviewer-{}", "0".repeat(32));
        let of = |detail: Value| {
            let stream = StreamId::instance(&AgentId::parse("reviewer").expect("valid"));
            let record = Record::example(stream, "any", detail);
            assert_eq!(agent(&record), "reviewer");
            told(&record)
        };
        assert_eq!(of(json!({"container": name})), format!("container={name}"));
        let lost = of(json!({"action": "stopped", "container": name}));
        assert_eq!(lost, format!("action=stopped container={name}"));
        let planned = of(json!({"image": "acme/agent:1", "name": name}));
        assert_eq!(planned, format!("image=acme/agent:1 name={name}"));
        assert_eq!(of(json!({"action": "gone"})), "action=gone");
        assert_eq!(of(json!({"idle_seconds": 300, "reason": "idle"})), "idle_seconds=300 reason=idle");
    }

    #[test]
    fn another_record_shows_its_plain_values_on_one_short_line() {
        let detail = json!({"name": "laptop", "role": "operator", "sha256": "0".repeat(64)});
        assert_eq!(of("token_created", detail), "name=laptop role=operator");
        assert_eq!(of("agent_paused", json!({"agents": ["a", "b"], "all": true})), "agents=a+b all=true");
        let many = of("x", json!((0..40).map(|n| (format!("k{n}"), json!(n))).collect::<Map<_, _>>()));
        assert_eq!(many.chars().count(), TOLD_MAX + 1);
    }
}
