//! What the journal keeps of an instance, one record for each step, in the stream `instance/<id>`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::machine::{Exit, Fact, Failure, FailureKind, LostAction, StopReason};
use crate::ids::TraceId;
use crate::journal::{Actor, NewRecord};

/// The kinds of these records; each is a label of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// It was started: `{latency_ms, start_ms}`.
    LazyStart,
    /// It could not be started: `{error, kind, attempt, retry_in_ms}`.
    LazyStartFailed,
    /// It was stopped: `{idle_seconds, reason}`.
    LazyStop,
    /// It could not be stopped: `{error}`.
    LazyStopFailed,
    /// It ended by itself: `{exit_code, oom, signal?}`.
    Exited,
    /// It fails again and again: `{failures}`.
    CrashLoop,
    /// An earlier plimsoll left it running, and it is kept again: `{container}`.
    Adopted,
    /// An earlier plimsoll left it running, and it is not kept: `{action, container?}`.
    Lost,
    /// A container is about to be made for it: `{name, image}`.
    ContainerPlanned,
    /// A container that somebody else made is about to be started: `{name}`.
    ContainerStarting,
    /// That container is gone: `{name}`.
    ContainerRemoved,
    /// Its agent was deleted: `{}`. What is counted begins again.
    Removed,
}

/// The version of their details.
const VERSION: u16 = 1;

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 12] = [
        Self::LazyStart,
        Self::LazyStartFailed,
        Self::LazyStop,
        Self::LazyStopFailed,
        Self::Exited,
        Self::CrashLoop,
        Self::Adopted,
        Self::Lost,
        Self::ContainerPlanned,
        Self::ContainerStarting,
        Self::ContainerRemoved,
        Self::Removed,
    ];

    /// The name in the journal, in counters and in `last_event`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LazyStart => "lazy_start",
            Self::LazyStartFailed => "lazy_start_failed",
            Self::LazyStop => "lazy_stop",
            Self::LazyStopFailed => "lazy_stop_failed",
            Self::Exited => "exited",
            Self::CrashLoop => "crash_loop",
            Self::Adopted => "adopted",
            Self::Lost => "lost",
            Self::ContainerPlanned => "container_planned",
            Self::ContainerStarting => "container_starting",
            Self::ContainerRemoved => "container_removed",
            Self::Removed => "removed",
        }
    }

    /// The name on the event stream.
    #[must_use]
    pub const fn on_stream(self) -> &'static str {
        match self {
            Self::LazyStart => "container.lazy_started",
            Self::LazyStartFailed => "container.lazy_start_failed",
            Self::LazyStop => "container.lazy_stopped",
            Self::LazyStopFailed => "container.lazy_stop_failed",
            Self::Exited => "container.exited",
            Self::CrashLoop => "container.crash_loop",
            Self::Adopted => "container.adopted",
            Self::Lost => "container.lost",
            Self::ContainerPlanned => "container.planned",
            Self::ContainerStarting => "container.starting",
            Self::ContainerRemoved => "container.removed",
            Self::Removed => "agent.removed",
        }
    }

    /// Whether it happened to the instance, and is counted.
    #[must_use]
    pub const fn is_counted(self) -> bool {
        !matches!(
            self,
            Self::ContainerPlanned | Self::ContainerStarting | Self::ContainerRemoved | Self::Removed
        )
    }

    /// The kind of this name in the journal.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// What a record says, for people.
#[must_use]
pub fn summary(kind: EventKind, instance: &str, detail: &Value) -> String {
    let text = |field: &str| detail[field].as_str().unwrap_or("?");
    let number = |field: &str| detail[field].as_i64().unwrap_or_default();
    match kind {
        EventKind::LazyStart => format!("{instance} is ready after {} ms", number("latency_ms")),
        EventKind::LazyStartFailed => format!(
            "{instance} did not start (attempt {}; the next is possible in {} ms): {}",
            number("attempt"),
            number("retry_in_ms"),
            text("error")
        ),
        EventKind::LazyStop => {
            let why = match text("reason") {
                "idle" => format!("after {} s without a request", number("idle_seconds")),
                "operator" => "by an operator".to_owned(),
                "shutdown" => "because plimsoll ends".to_owned(),
                "removed" => "because its agent was deleted".to_owned(),
                other => format!("({other})"),
            };
            format!("{instance} was stopped {why}")
        }
        EventKind::LazyStopFailed => format!("{instance} does not stop: {}", text("error")),
        EventKind::Exited => ended(instance, detail),
        EventKind::CrashLoop => {
            format!("{instance} failed {} times in a row: look at what it prints", number("failures"))
        }
        EventKind::Adopted => {
            format!("{instance} was still running in container {}, and is kept", text("container"))
        }
        EventKind::Lost => {
            let place = detail["container"].as_str();
            let place = place.map_or_else(String::new, |container| format!(" in container {container}"));
            match text("action") {
                "gone" => format!("{instance} ended{place} while no plimsoll was there to see it"),
                _ => format!("{instance} was left running{place} by an earlier plimsoll, and was stopped"),
            }
        }
        EventKind::ContainerPlanned => {
            format!("{instance} gets container {} of image {}", text("name"), text("image"))
        }
        EventKind::ContainerStarting => format!("{instance} is started in container {}", text("name")),
        EventKind::ContainerRemoved => format!("container {} of {instance} is gone", text("name")),
        EventKind::Removed => format!("the agent of {instance} was deleted"),
    }
}

fn ended(instance: &str, detail: &Value) -> String {
    if detail["oom"] == true {
        return format!("{instance} was ended because it used more memory than it may");
    }
    match (detail["signal"].as_i64(), detail["exit_code"].as_i64()) {
        (Some(signal), _) => format!("{instance} was ended by signal {signal}"),
        (None, Some(code)) => format!("{instance} ended by itself with exit code {code}"),
        (None, None) => format!("{instance} ended by itself"),
    }
}

/// That the agent of an instance was deleted.
#[must_use]
pub fn removed(actor: Actor) -> NewRecord {
    let kind = EventKind::Removed.as_str();
    NewRecord { kind, version: VERSION, actor, trace_id: None, detail: json!({}) }
}

impl FailureKind {
    /// Every kind.
    pub const ALL: [Self; 13] = [
        Self::NotStarted,
        Self::Exited,
        Self::NotReady,
        Self::NotStopped,
        Self::Crashed,
        Self::Engine,
        Self::ImageMissing,
        Self::PullRefused,
        Self::NameConflict,
        Self::PortInUse,
        Self::Unreachable,
        Self::Foreign,
        Self::Refused,
    ];

    /// The name in records and labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotStarted => "not_started",
            Self::Exited => "exited",
            Self::NotReady => "not_ready",
            Self::NotStopped => "not_stopped",
            Self::Crashed => "crashed",
            Self::Engine => "engine",
            Self::ImageMissing => "image_missing",
            Self::PullRefused => "pull_refused",
            Self::NameConflict => "name_conflict",
            Self::PortInUse => "port_in_use",
            Self::Unreachable => "unreachable",
            Self::Foreign => "foreign",
            Self::Refused => "refused",
        }
    }
}

impl LostAction {
    /// The name in records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Gone => "gone",
        }
    }
}

impl StopReason {
    /// The name in records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Operator => "operator",
            Self::Shutdown => "shutdown",
            Self::Removed => "removed",
        }
    }
}

impl Fact {
    /// The kind of its record.
    #[must_use]
    pub fn kind(&self) -> EventKind {
        match self {
            Self::Started { .. } => EventKind::LazyStart,
            Self::StartFailed { .. } => EventKind::LazyStartFailed,
            Self::Stopped { .. } => EventKind::LazyStop,
            Self::StopFailed { .. } => EventKind::LazyStopFailed,
            Self::Exited(_) => EventKind::Exited,
            Self::Adopted { .. } => EventKind::Adopted,
            Self::Lost { .. } => EventKind::Lost,
            Self::ContainerPlanned { .. } => EventKind::ContainerPlanned,
            Self::ContainerStarting { .. } => EventKind::ContainerStarting,
            Self::ContainerRemoved { .. } => EventKind::ContainerRemoved,
            Self::CrashLoop { .. } => EventKind::CrashLoop,
        }
    }

    /// The detail of its record.
    #[must_use]
    pub fn detail(&self) -> Value {
        match self {
            Self::Started { latency, start } => {
                json!({"latency_ms": millis(*latency), "start_ms": millis(*start)})
            }
            Self::StartFailed { failure: Failure { kind, error }, attempt, retry_in } => json!({
                "error": error,
                "kind": kind.as_str(),
                "attempt": attempt,
                "retry_in_ms": millis(*retry_in),
            }),
            Self::Stopped { idle, reason } => {
                json!({"idle_seconds": idle.as_secs(), "reason": reason.as_str()})
            }
            Self::StopFailed { error } => json!({"error": error}),
            Self::Exited(Exit { code, signal: None, oom }) => json!({"exit_code": code, "oom": oom}),
            Self::Exited(Exit { code, signal, oom }) => {
                json!({"exit_code": code, "oom": oom, "signal": signal})
            }
            Self::Adopted { container } => json!({"container": container}),
            Self::Lost { action, container: None } => json!({"action": action.as_str()}),
            Self::Lost { action, container: Some(container) } => {
                json!({"action": action.as_str(), "container": container})
            }
            Self::ContainerPlanned { name, image, engine } => {
                json!({"name": name, "image": image, "engine": engine})
            }
            Self::ContainerStarting { name } | Self::ContainerRemoved { name } => json!({"name": name}),
            Self::CrashLoop { failures } => json!({"failures": failures}),
        }
    }

    /// Its record, for the stream of the instance.
    #[must_use]
    pub fn record(&self, actor: Actor, trace_id: Option<TraceId>) -> NewRecord {
        let (kind, detail) = (self.kind().as_str(), self.detail());
        NewRecord { kind, version: VERSION, actor, trace_id, detail }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::AgentId;

    fn facts() -> Vec<Fact> {
        let failure = Failure { kind: FailureKind::NotReady, error: "no answer on port 80".into() };
        let exit = |code, signal, oom| Fact::Exited(Exit { code, signal, oom });
        vec![
            Fact::Started { latency: Duration::from_millis(1_234), start: Duration::from_millis(56) },
            Fact::StartFailed { failure, attempt: 2, retry_in: Duration::from_millis(1_750) },
            Fact::Stopped { idle: Duration::from_secs(300), reason: StopReason::Idle },
            Fact::Stopped { idle: Duration::ZERO, reason: StopReason::Operator },
            Fact::Stopped { idle: Duration::ZERO, reason: StopReason::Shutdown },
            Fact::Stopped { idle: Duration::ZERO, reason: StopReason::Removed },
            Fact::StopFailed { error: "the engine does not answer".into() },
            exit(Some(3), None, false),
            exit(None, Some(9), false),
            exit(Some(137), None, true),
            exit(None, None, false),
            Fact::CrashLoop { failures: 5 },
            Fact::Adopted { container: "plimsoll-reviewer-1".into() },
            Fact::Lost { action: LostAction::Stopped, container: None },
            Fact::Lost { action: LostAction::Stopped, container: Some("plimsoll-reviewer-1".into()) },
            Fact::ContainerPlanned {
                name: "plimsoll-reviewer-1".into(),
                image: "acme/agent:1".into(),
                engine: "unix:///run/docker.sock".into(),
            },
            Fact::ContainerRemoved { name: "plimsoll-reviewer-1".into() },
            Fact::Lost { action: LostAction::Gone, container: None },
            Fact::ContainerStarting { name: "acme-agent".into() },
        ]
    }

    #[test]
    fn each_fact_has_its_record_and_its_sentence() {
        let instance = AgentId::parse("reviewer").expect("valid");
        let lines: Vec<String> = facts()
            .iter()
            .map(|fact| {
                let kind = fact.kind();
                let (name, stream, detail) = (kind.as_str(), kind.on_stream(), fact.detail());
                format!("{name} {stream}\n  {detail}\n  {}", summary(kind, instance.as_str(), &detail))
            })
            .collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn names_of_kinds_are_read_back_and_no_two_are_alike() {
        for kind in EventKind::ALL {
            assert_eq!(EventKind::parse(kind.as_str()), Some(kind));
            let alike = EventKind::ALL.iter().filter(|other| other.on_stream() == kind.on_stream());
            assert_eq!(alike.count(), 1, "{kind:?}");
        }
        assert_eq!(EventKind::parse("started"), None);
    }

    #[test]
    fn names_of_failures_are_kept() {
        insta::assert_snapshot!(FailureKind::ALL.map(FailureKind::as_str).join("\n"));
    }
}
