//! From a journaled record to the envelope that streams carry.
//!
//! Kinds are snake_case in the journal and have a dotted type on streams. A kind that is not in the list goes out under
//! a type made from its name, so that a new kind is never lost; a line here gives it a better sentence and a level.

use std::borrow::Cow;

use serde_json::Value;

use super::super::withheld::withhold;
use super::town;
use crate::alerts::{self, ALERT_EXPIRED, ALERT_FIRED, ALERT_RESOLVED};
use crate::gateway::{
    AGENT_CREATED, AGENT_DELETED, AGENT_PAUSED, AGENT_RESUMED, AGENT_SESSION_FORGOTTEN,
    AGENT_SESSION_STARTED, BUDGET_REACHED, REQUEST_ACCEPTED, REQUEST_FINISHED, SPEND_LOST,
};
use crate::ids::{AgentId, TownId};
use crate::journal::{Record, StreamKind, kinds};
use crate::lifecycle::{self, EventKind};
use crate::live::{Envelope, Level};
use crate::notify::ALARMS_TOLD;
use crate::town::TownEvent;

/// How one kind of record is shown.
struct Shown {
    kind: &'static str,
    r#type: &'static str,
    level: fn(&Value) -> Level,
    summary: fn(&Record) -> String,
}

/// Every kind with a sentence of its own.
const KINDS: &[Shown] = &[
    Shown {
        kind: "access_refused",
        r#type: "access.refused",
        level: |_| Level::Warn,
        summary: access_refused,
    },
    Shown {
        kind: AGENT_CREATED,
        r#type: "agent.created",
        level: info,
        summary: |r| format!("{} made the agent {}", r.actor, text(r, "agent")),
    },
    Shown {
        kind: AGENT_DELETED,
        r#type: "agent.deleted",
        level: info,
        summary: |r| match r.detail["configured"].as_bool() {
            Some(true) => format!("the agent {} gave way to one of the configuration", text(r, "agent")),
            Some(false) | None => format!("{} deleted the agent {}", r.actor, text(r, "agent")),
        },
    },
    Shown {
        kind: AGENT_PAUSED,
        r#type: "agent.paused",
        level: info,
        summary: |r| format!("{} paused {}", r.actor, agents(r)),
    },
    Shown {
        kind: AGENT_RESUMED,
        r#type: "agent.resumed",
        level: info,
        summary: |r| format!("{} resumed {}", r.actor, agents(r)),
    },
    Shown {
        kind: AGENT_SESSION_FORGOTTEN,
        r#type: "agent.session_forgotten",
        level: info,
        summary: |r| format!("agent {} begins the session {} anew", text(r, "agent"), text(r, "session")),
    },
    Shown {
        kind: AGENT_SESSION_STARTED,
        r#type: "agent.session_started",
        level: info,
        summary: |r| {
            let (agent, session) = (text(r, "agent"), text(r, "session"));
            format!("agent {agent} began a conversation of its own for the session {session}")
        },
    },
    Shown {
        kind: ALARMS_TOLD,
        r#type: "alarms.told",
        level: info,
        summary: |r| {
            format!("{} was told of everything up to record {}", text(r, "recipient"), r.detail["through"])
        },
    },
    Shown {
        kind: ALERT_EXPIRED,
        r#type: "alert.expired",
        level: |detail| alerts::level(ALERT_EXPIRED, detail),
        summary: alerts::summary,
    },
    Shown {
        kind: ALERT_FIRED,
        r#type: "alert.fired",
        level: |detail| alerts::level(ALERT_FIRED, detail),
        summary: alerts::summary,
    },
    Shown {
        kind: ALERT_RESOLVED,
        r#type: "alert.resolved",
        level: |detail| alerts::level(ALERT_RESOLVED, detail),
        summary: alerts::summary,
    },
    Shown {
        kind: BUDGET_REACHED,
        r#type: "budget.reached",
        level: |_| Level::Warn,
        summary: |r| {
            let (usd, budget) = (&r.detail["usd"], &r.detail["budgetUsd"]);
            format!(
                "agent {} spent USD {usd} of {budget} and takes no work until the day ends",
                text(r, "agent")
            )
        },
    },
    Shown {
        kind: kinds::END_CUT,
        r#type: "end.cut",
        level: |_| Level::Warn,
        summary: |r| {
            format!("the torn end of the log {} was cut at the start: {}", text(r, "log"), text(r, "cause"))
        },
    },
    Shown {
        kind: kinds::PARTITION_DROPPED,
        r#type: "partition.dropped",
        level: info,
        summary: |r| format!("the oldest part of the log {} was dropped by its retention", text(r, "log")),
    },
    Shown {
        kind: kinds::PARTITION_LOST,
        r#type: "partition.lost",
        level: |_| Level::Error,
        summary: |r| format!("a damaged part of the log {} was moved away", text(r, "log")),
    },
    Shown {
        kind: REQUEST_ACCEPTED,
        r#type: "request.accepted",
        level: info,
        summary: |r| format!("a request to agent {} with an idempotency key was accepted", text(r, "agent")),
    },
    Shown {
        kind: REQUEST_FINISHED,
        r#type: "request.finished",
        level: by_outcome,
        summary: request_finished,
    },
    Shown {
        kind: SPEND_LOST,
        r#type: "spend.lost",
        level: |_| Level::Warn,
        summary: |r| {
            let (requests, agent) = (&r.detail["requests"], text(r, "agent"));
            format!(
                "the journal missed {requests} requests of agent {agent}: what they spent counts all the same"
            )
        },
    },
    Shown {
        kind: "token_created",
        r#type: "token.created",
        level: info,
        summary: |r| format!("{} made the token {}", r.actor, text(r, "name")),
    },
    Shown {
        kind: "token_revoked",
        r#type: "token.revoked",
        level: info,
        summary: |r| format!("{} revoked the token {}", r.actor, text(r, "name")),
    },
];

fn info(_: &Value) -> Level {
    Level::Info
}

fn by_outcome(detail: &Value) -> Level {
    match detail["outcome"].as_str() {
        Some("ok") => Level::Info,
        Some("cancelled" | "deadline") => Level::Warn,
        Some(_) | None => Level::Error,
    }
}

fn text<'r>(record: &'r Record, field: &str) -> &'r str {
    record.detail[field].as_str().unwrap_or("?")
}

fn request_finished(record: &Record) -> String {
    let took = record.detail["timings"]["totalMs"].as_f64();
    let took = took.map_or_else(String::new, |ms| format!(" after {ms:.0} ms"));
    format!("a request to agent {} ended: {}{took}", text(record, "agent"), text(record, "outcome"))
}

/// Whom a pause or its end was for.
fn agents(record: &Record) -> String {
    if record.detail["all"] == true {
        return "all agents".to_owned();
    }
    let named = record.detail["agents"].as_array().into_iter().flatten().filter_map(Value::as_str);
    format!("agent {}", named.collect::<Vec<_>>().join(", "))
}

fn access_refused(record: &Record) -> String {
    let count = |field: &str| record.detail[field].as_u64().unwrap_or(0);
    let (missing, wrong, limited) = (count("missing"), count("wrong"), count("limited"));
    format!(
        "requests refused in the last minute: {missing} without a token, {wrong} with a wrong one, {limited} for trying too often"
    )
}

/// The envelope of a journaled record.
pub(crate) fn envelope(record: &Record) -> Envelope {
    if let Some(envelope) = of_instance(record) {
        return envelope;
    }
    if let Some(envelope) = of_town(record) {
        return envelope;
    }
    let shown = KINDS.iter().find(|shown| shown.kind == record.kind);
    let named = record.stream.as_str().split_once('/').map(|(_, id)| id);
    let of_kind = |kind: StreamKind| named.filter(|_| record.stream.kind() == kind);
    Envelope {
        r#type: shown.map_or_else(
            || Cow::Owned(record.kind.replacen('_', ".", 1)),
            |shown| Cow::Borrowed(shown.r#type),
        ),
        ts: record.time,
        level: shown.map_or(Level::Info, |shown| (shown.level)(&record.detail)),
        source: Cow::Borrowed(record.stream.kind().as_str()),
        instance: of_kind(StreamKind::Instance).and_then(|id| AgentId::parse(id).ok()),
        town: of_kind(StreamKind::Town).and_then(|id| TownId::parse(id).ok()),
        summary: shown.map_or_else(
            || format!("{}: {}", record.stream, record.kind.replace('_', " ")),
            |shown| (shown.summary)(record),
        ),
        detail: told(record),
        trace_id: record.trace_id,
        seq: Some(record.seq),
    }
}

/// The detail, but for what only operators see, in `/audit`.
fn told(record: &Record) -> Value {
    let mut detail = record.detail.clone();
    withhold(record, &mut detail);
    detail
}

/// What happened to a town has its sentences in one place, by its types.
fn of_town(record: &Record) -> Option<Envelope> {
    let id = record.stream.town_id()?;
    let event = TownEvent::parse(&record.kind, record.version, &record.detail).ok()?;
    Some(Envelope {
        r#type: Cow::Owned(record.kind.replacen('_', ".", 1)),
        ts: record.time,
        level: town::level(&event),
        source: Cow::Borrowed(record.stream.kind().as_str()),
        instance: None,
        summary: format!("town {id}: {}", town::summary(&record.actor.to_string(), &event)),
        town: Some(id),
        detail: told(record),
        trace_id: record.trace_id,
        seq: Some(record.seq),
    })
}

/// What happened to an instance has its names and sentences where it is decided.
fn of_instance(record: &Record) -> Option<Envelope> {
    let instance = record.stream.instance_id()?;
    let kind = EventKind::parse(&record.kind)?;
    Some(Envelope {
        r#type: Cow::Borrowed(kind.on_stream()),
        ts: record.time,
        level: match kind {
            EventKind::LazyStartFailed | EventKind::LazyStopFailed | EventKind::CrashLoop => Level::Error,
            EventKind::Exited | EventKind::Lost => Level::Warn,
            EventKind::LazyStart
            | EventKind::LazyStop
            | EventKind::Adopted
            | EventKind::ContainerPlanned
            | EventKind::ContainerStarting
            | EventKind::ContainerRemoved
            | EventKind::Removed => Level::Info,
        },
        source: Cow::Borrowed(record.stream.kind().as_str()),
        summary: lifecycle::summary(kind, instance.as_str(), &record.detail),
        instance: Some(instance),
        town: None,
        detail: record.detail.clone(),
        trace_id: record.trace_id,
        seq: Some(record.seq),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::ids::Seq;
    use crate::journal::StreamId;
    use serde_json::json;

    fn record(stream: &str, kind: &str, detail: Value) -> Record {
        let stream = StreamId::parse(stream).expect("a stream");
        Record { seq: Seq(7), time: Timestamp::from_millis(1_000), ..Record::example(stream, kind, detail) }
    }

    #[test]
    fn kinds_are_sorted_and_unique() {
        assert!(KINDS.windows(2).all(|pair| pair[0].kind < pair[1].kind));
    }

    #[test]
    fn a_finished_request_is_told_in_one_sentence() {
        let detail = json!({"agent": "echo", "outcome": "failed", "timings": {"totalMs": 12.4}});
        let shown = envelope(&record("request", "request_finished", detail));
        assert_eq!((shown.r#type.as_ref(), shown.level), ("request.finished", Level::Error));
        assert_eq!(shown.summary, "a request to agent echo ended: failed after 12 ms");
        assert_eq!(shown.seq, Some(Seq(7)));
    }

    #[test]
    fn who_was_paused_and_whose_conversation_began_is_told() {
        let summary = |kind: &str, detail: Value| envelope(&record("operator", kind, detail)).summary;
        assert_eq!(
            summary("agent_paused", json!({"agents": ["a", "b"], "all": false})),
            "local paused agent a, b"
        );
        assert_eq!(
            summary("agent_resumed", json!({"agents": ["a"], "all": true})),
            "local resumed all agents"
        );
        let (made, gone) = (json!({"agent": "a", "config": {"provider": "p"}}), json!({"agent": "a"}));
        assert_eq!(summary("agent_created", made.clone()), "local made the agent a");
        let told = envelope(&record("operator", "agent_created", made)).detail;
        assert_eq!(told, json!({"agent": "a"}), "what it was made with is for operators");
        assert_eq!(summary("agent_deleted", gone), "local deleted the agent a");
        let yields = json!({"agent": "a", "configured": true});
        assert_eq!(summary("agent_deleted", yields), "the agent a gave way to one of the configuration");
        let started = json!({"agent": "a", "session": "s", "agentSession": "x"});
        let told = summary("agent_session_started", started);
        assert_eq!(told, "agent a began a conversation of its own for the session s");
    }

    #[test]
    fn an_alert_is_as_urgent_on_the_stream_as_its_rule_says() {
        let shown = |severity: &str| {
            let detail = json!({"labels": {"alertname": "Down", "severity": severity}, "annotations": {"summary": "gone"}});
            let shown = envelope(&record("alert", "alert_fired", detail));
            (shown.r#type.to_string(), shown.level, shown.summary)
        };
        let told = |severity: &str| format!("the alert Down ({severity}) fires: gone");
        for (severity, level) in [
            ("critical", Level::Error),
            ("warning", Level::Warn),
            ("page", Level::Warn),
            ("info", Level::Info),
        ] {
            assert_eq!(shown(severity), ("alert.fired".to_owned(), level, told(severity)));
        }
        let over = envelope(&record("alert", "alert_resolved", json!({"labels": {"severity": "critical"}})));
        assert_eq!((over.r#type.as_ref(), over.level), ("alert.resolved", Level::Info));
        assert_eq!(envelope(&record("alert", "alert_expired", json!({}))).level, Level::Warn);
    }

    #[test]
    fn a_kind_that_is_not_in_the_list_is_not_lost() {
        let shown = envelope(&record("instance/web", "of_later_times", json!({})));
        assert_eq!(shown.r#type, "of.later_times");
        assert_eq!(shown.instance.map(|i| i.to_string()).as_deref(), Some("web"));
        assert_eq!(shown.summary, "instance/web: of later times");
    }

    #[test]
    fn what_happened_to_a_town_is_told_without_what_agents_hear_and_say() {
        let of = |kind: &str, detail: Value| envelope(&record("town/lab", kind, detail));
        let bead =
            json!({"bead": "a", "title": "Fix", "instructions": "secret", "role": "worker", "priority": 2});
        let shown = of("bead_created", bead);
        assert_eq!((shown.r#type.as_ref(), shown.level), ("bead.created", Level::Info));
        assert_eq!(shown.summary, "town lab: local added a: Fix");
        assert_eq!(shown.town.map(|town| town.to_string()).as_deref(), Some("lab"));
        assert!(!shown.detail.to_string().contains("secret"), "{}", shown.detail);
        let said = json!({"agent": "x", "dispatch_id": "a.1", "outcome": "failed", "summary": "secret"});
        let shown = of("agent_done", said);
        assert_eq!(
            (shown.level, shown.summary.as_str()),
            (Level::Warn, "town lab: agent x says of a.1: failed")
        );
        assert!(!shown.detail.to_string().contains("secret"), "{}", shown.detail);
        let violated = json!({"invariant": 7, "entities": ["agent/x"], "message": "x works on nothing"});
        let shown = of("violation_opened", violated);
        assert_eq!((shown.r#type.as_ref(), shown.level), ("violation.opened", Level::Error));
        let later = of("of_later_times", json!({}));
        assert_eq!(later.summary, "town/lab: of later times");
    }

    #[test]
    fn what_happened_to_an_instance_is_told_with_its_own_words() {
        let detail = json!({"error": "no answer", "kind": "not_ready", "attempt": 2, "retry_in_ms": 1_500});
        let shown = envelope(&record("instance/web", "lazy_start_failed", detail));
        assert_eq!((shown.r#type.as_ref(), shown.level), ("container.lazy_start_failed", Level::Error));
        assert_eq!(shown.instance.map(|i| i.to_string()).as_deref(), Some("web"));
        let told = "web did not start (attempt 2; the next is possible in 1500 ms): no answer";
        assert_eq!(shown.summary, told);
    }
}
