//! What somebody outside is told: one alarm, read from one record of the journal.
//!
//! It holds ids, numbers and words of closed sets; of what people and agents wrote it holds nothing. Start at
//! [`Alarm::of`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::clock::Timestamp;
use crate::ids::{AgentId, BeadId, Seq, TownId};
use crate::journal::{Record, StreamKind};
use crate::lifecycle::{EventKind, summary};
use crate::town::TownEvent;
use crate::town::invariant::Violation;
use crate::town::words::{BeadReason, BeadStatus, Entity, StuckClass};

/// What sort of thing happened; a webhook may ask for some of them only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlarmKind {
    /// A person has to decide about a bead.
    Escalation,
    /// An invariant of a town does not hold, or holds again.
    Violation,
    /// An instance fails again and again.
    CrashLoop,
    /// An agent spent what it may spend in a day.
    Budget,
}

impl AlarmKind {
    /// The name in the configuration and on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Escalation => "escalation",
            Self::Violation => "violation",
            Self::CrashLoop => "crash_loop",
            Self::Budget => "budget",
        }
    }
}

/// Whether it begins or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It happened, or began.
    Opened,
    /// It is over.
    Resolved,
}

impl Phase {
    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Resolved => "resolved",
        }
    }
}

/// How much it matters: as the alerts of Prometheus have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Now.
    Critical,
    /// Today.
    Warning,
    /// Good to know.
    Info,
}

impl Level {
    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

/// Something that somebody outside is told.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Alarm {
    /// What sort of thing.
    pub kind: AlarmKind,
    /// Whether it begins or ends.
    pub phase: Phase,
    /// What it is about: the beginning and the end of one thing share it, and nothing else has it.
    pub key: String,
    /// How much it matters.
    pub level: Level,
    /// Whom it is about.
    #[serde(flatten)]
    pub about: About,
    /// One sentence.
    pub title: String,
    /// What else is known.
    pub facts: BTreeMap<&'static str, Value>,
    /// Its record in the journal.
    pub seq: Seq,
    /// When it happened.
    #[serde(serialize_with = "rfc3339")]
    pub time: Timestamp,
}

/// Whom an alarm is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct About {
    /// The town.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub town: Option<TownId>,
    /// The agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentId>,
    /// The bead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bead: Option<BeadId>,
}

fn rfc3339<S: serde::Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

impl Alarm {
    /// Its name towards one recipient: the same in every life of plimsoll, and of no other alarm.
    #[must_use]
    pub fn id(&self, recipient: &str) -> [u8; 32] {
        let Self { kind, phase, key, seq, .. } = self;
        let text = format!("{recipient}\n{}\n{}\n{key}\n{seq}", kind.as_str(), phase.as_str());
        Sha256::digest(text).into()
    }

    /// What a record gives cause for; none where it is no news for anybody outside, or cannot be read.
    #[must_use]
    pub fn of(record: &Record) -> Option<Self> {
        match record.stream.kind() {
            StreamKind::Town => of_town(record),
            StreamKind::Instance => of_instance(record),
            StreamKind::Request => of_request(record),
            StreamKind::Operator | StreamKind::Alert => None,
        }
    }
}

fn of_instance(record: &Record) -> Option<Alarm> {
    let kind = EventKind::CrashLoop;
    let agent = record.stream.instance_id().filter(|_| record.kind == kind.as_str())?;
    Some(Alarm {
        kind: AlarmKind::CrashLoop,
        phase: Phase::Opened,
        key: format!("crash_loop/{agent}"),
        level: Level::Critical,
        title: summary(kind, agent.as_str(), &record.detail),
        about: About { agent: Some(agent), ..About::default() },
        facts: BTreeMap::from([("failures", record.detail["failures"].clone())]),
        seq: record.seq,
        time: record.time,
    })
}

/// That a budget is used up: a record of the gateway.
const BUDGET_REACHED: &str = "budget_reached";

fn of_request(record: &Record) -> Option<Alarm> {
    let detail = &record.detail;
    let agent = AgentId::parse(detail["agent"].as_str()?).ok().filter(|_| record.kind == BUDGET_REACHED)?;
    let until = Timestamp::from_millis(detail["until"].as_u64()?);
    let (usd, budget) = (detail["usd"].as_f64()?, detail["budgetUsd"].as_f64()?);
    Some(Alarm {
        kind: AlarmKind::Budget,
        phase: Phase::Opened,
        key: format!("budget/{agent}/{until}"),
        level: Level::Warning,
        title: format!("agent {agent} spent USD {usd:.2} of {budget:.2} and takes no work until {until}"),
        about: About { agent: Some(agent), ..About::default() },
        facts: BTreeMap::from([
            ("usd", json!(usd)),
            ("budgetUsd", json!(budget)),
            ("until", json!(until.to_string())),
        ]),
        seq: record.seq,
        time: record.time,
    })
}

/// The kinds of a town that may be news; the details of others are not read.
const TOWN_KINDS: [&str; 4] = ["escalated", "bead_transitioned", "violation_opened", "violation_resolved"];

fn of_town(record: &Record) -> Option<Alarm> {
    let kind = record.kind.as_str();
    let town = record.stream.town_id().filter(|_| TOWN_KINDS.contains(&kind))?;
    let Record { seq, time, .. } = *record;
    let alarm = |part: Part| Alarm {
        kind: part.kind,
        phase: part.phase,
        key: part.key,
        level: part.level,
        about: About { town: Some(town.clone()), ..part.about },
        title: part.title,
        facts: part.facts,
        seq,
        time,
    };
    match TownEvent::parse(kind, record.version, &record.detail).ok()? {
        TownEvent::Escalated { escalation, bead, class, quiet_ms, .. } => {
            Some(alarm(silence(&town, &escalation, bead, (class, quiet_ms))))
        }
        TownEvent::BeadTransitioned { bead, from, to, reason, escalation: Some(escalation) } => {
            let subject = subject(&escalation, bead, reason);
            Some(alarm(escalated(&town, &escalation, subject, (from, to, reason))))
        }
        TownEvent::ViolationOpened { invariant, entities, message } => {
            let broken = Violation { invariant, entities, message };
            Some(alarm(violation(&town, &broken, Phase::Opened)))
        }
        TownEvent::ViolationResolved { invariant, entities } => {
            let mended = Violation { invariant, entities, message: "".into() };
            Some(alarm(violation(&town, &mended, Phase::Resolved)))
        }
        _ => None,
    }
}

/// An alarm of a town, without what all of them have.
struct Part {
    kind: AlarmKind,
    phase: Phase,
    key: String,
    level: Level,
    about: About,
    title: String,
    facts: BTreeMap<&'static str, Value>,
}

fn silence(town: &TownId, escalation: &BeadId, bead: BeadId, (class, quiet_ms): (StuckClass, u64)) -> Part {
    let minutes = Duration::from_millis(quiet_ms).as_secs() / 60;
    Part {
        title: format!(
            "bead {bead} in town {town} needs a person: nothing was heard for {minutes} min, it is {class}"
        ),
        facts: BTreeMap::from([
            ("escalation", json!(escalation)),
            ("class", json!(class)),
            ("quietMs", json!(quiet_ms)),
        ]),
        ..escalation_of(town, escalation, bead)
    }
}

fn escalated(
    town: &TownId,
    escalation: &BeadId,
    bead: BeadId,
    (from, to, reason): (BeadStatus, BeadStatus, BeadReason),
) -> Part {
    Part {
        title: format!("bead {bead} in town {town} needs a person: {}", why(reason)),
        facts: BTreeMap::from([
            ("escalation", json!(escalation)),
            ("from", json!(from)),
            ("to", json!(to)),
            ("reason", json!(reason)),
        ]),
        ..escalation_of(town, escalation, bead)
    }
}

/// The bead that an escalation is about. A review that wants changes once too often is over: that is about its task, after
/// which the escalation is named.
fn subject(escalation: &BeadId, moved: BeadId, reason: BeadReason) -> BeadId {
    let task = escalation.as_str().rsplit_once('.').and_then(|(task, _)| BeadId::parse(task).ok());
    if reason == BeadReason::Changes { task.unwrap_or(moved) } else { moved }
}

fn escalation_of(town: &TownId, escalation: &BeadId, bead: BeadId) -> Part {
    Part {
        kind: AlarmKind::Escalation,
        phase: Phase::Opened,
        key: format!("escalation/{town}/{escalation}"),
        level: Level::Warning,
        about: About { bead: Some(bead), ..About::default() },
        title: String::new(),
        facts: BTreeMap::new(),
    }
}

/// What a reason means to somebody who was not there.
const fn why(reason: BeadReason) -> &'static str {
    match reason {
        BeadReason::Done => "it is done",
        BeadReason::Approved => "it was approved",
        BeadReason::Changes => "its reviews go round and round",
        BeadReason::AttemptFailed => "an attempt failed",
        BeadReason::AttemptsExhausted => "every attempt failed",
        BeadReason::NeedsHuman => "its agent asks for one",
        BeadReason::Unreadable => "its agent ended, and how cannot be read",
        BeadReason::Cancelled => "it was cancelled",
        BeadReason::BlockerFailed => "a bead that it waits for failed",
        BeadReason::ConvoyEnded => "its convoy ended",
        BeadReason::ConvoyFailed => "its convoy failed",
        BeadReason::SubjectEnded => "what it is about ended",
    }
}

fn violation(town: &TownId, violation: &Violation, phase: Phase) -> Part {
    let Violation { invariant, entities, message } = violation;
    let name = violation.name();
    // As the metrics call it.
    let label = format!("{invariant}_{name}");
    let mut facts = BTreeMap::from([("invariant", json!(label)), ("entities", json!(entities))]);
    if phase == Phase::Opened {
        facts.insert("message", json!(message));
    }
    Part {
        kind: AlarmKind::Violation,
        phase,
        key: format!("violation/{town}/{invariant}/{}", digest(entities)),
        level: match phase {
            Phase::Opened => Level::Critical,
            Phase::Resolved => Level::Info,
        },
        about: only(entities),
        title: match phase {
            Phase::Opened => format!("invariant {name} does not hold in town {town}: {message}"),
            Phase::Resolved => format!("invariant {name} holds again in town {town}"),
        },
        facts,
    }
}

/// The one bead that it is about, if it is one.
fn only(entities: &BTreeSet<Entity>) -> About {
    let mut named = entities.iter();
    match (named.next(), named.next()) {
        (Some(Entity::Bead(bead)), None) => About { bead: Some(bead.clone()), ..About::default() },
        (Some(Entity::Agent(agent)), None) => About { agent: Some(agent.clone()), ..About::default() },
        (None | Some(_), _) => About::default(),
    }
}

/// Tells sets of entities apart in a short text.
fn digest(entities: &BTreeSet<Entity>) -> String {
    let mut hash = Sha256::new();
    entities.iter().for_each(|entity| hash.update(format!("{entity}\n")));
    hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::StreamId;

    fn record(stream: &str, kind: &str, detail: Value) -> Record {
        let stream = StreamId::parse(stream).expect("a stream");
        Record { seq: Seq(7), ..Record::example(stream, kind, detail) }
    }

    fn events() -> Vec<Record> {
        let town = |kind, detail| record("town/main", kind, detail);
        vec![
            town(
                "escalated",
                json!({"escalation": "b1.e1", "bead": "b1", "class": "stuck", "quiet_ms": 3_720_000, "reason": "SECRET", "now": 5}),
            ),
            town(
                "bead_transitioned",
                json!({"bead": "b1", "from": "open", "to": "failed", "reason": "attempts_exhausted", "escalation": "b1.e2"}),
            ),
            town(
                "violation_opened",
                json!({"invariant": 10, "entities": ["bead/b1"], "message": "bead b1 was tried 6 times, and may be 5 times"}),
            ),
            town("violation_resolved", json!({"invariant": 10, "entities": ["bead/b1"]})),
            record("instance/reviewer", "crash_loop", json!({"failures": 5})),
            record(
                "request",
                "budget_reached",
                json!({"agent": "reviewer", "usd": 5.012_5, "budgetUsd": 5.0, "until": 86_400_000}),
            ),
        ]
    }

    #[test]
    fn each_record_that_is_news_has_its_alarm() {
        let alarms: Vec<Alarm> = events().iter().filter_map(Alarm::of).collect();
        insta::assert_snapshot!(serde_json::to_string_pretty(&alarms).expect("plain JSON"));
    }

    #[test]
    fn a_task_that_was_reviewed_too_often_is_named_and_not_its_review() {
        let last_review = json!({
            "bead": "t.1.r5", "from": "in_progress", "to": "closed", "reason": "changes", "escalation": "t.1.e1",
        });
        let alarm = Alarm::of(&record("town/main", "bead_transitioned", last_review)).expect("news");
        assert_eq!(alarm.about.bead.as_ref().map(BeadId::as_str), Some("t.1"));
        let says = "bead t.1 in town main needs a person: its reviews go round and round";
        assert_eq!((alarm.title.as_str(), &alarm.facts["escalation"]), (says, &json!("t.1.e1")));
    }

    #[test]
    fn what_people_and_agents_wrote_is_in_no_alarm() {
        let told = serde_json::to_string(&events().iter().filter_map(Alarm::of).collect::<Vec<_>>());
        assert!(!told.expect("plain JSON").contains("SECRET"));
    }

    #[test]
    fn the_beginning_and_the_end_of_an_episode_share_their_key_and_no_other_has_it() {
        let keys: Vec<String> = events().iter().filter_map(Alarm::of).map(|alarm| alarm.key).collect();
        assert_eq!(keys[2], keys[3]);
        assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len() - 1);
        let other = json!({"invariant": 10, "entities": ["bead/b2"]});
        let other = Alarm::of(&record("town/main", "violation_resolved", other)).expect("news");
        assert!(!keys.contains(&other.key));
    }

    #[test]
    fn all_else_is_no_news() {
        let quiet = [
            record("town/main", "event_rejected", json!({"seq": 3, "error": "x"})),
            record(
                "town/main",
                "bead_transitioned",
                json!({"bead": "b1", "from": "open", "to": "failed", "reason": "cancelled"}),
            ),
            record("town/main", "violation_opened", json!({"invariant": "ten"})),
            record("instance/reviewer", "exited", json!({"exit_code": 1, "oom": false})),
            record("request", "request_finished", json!({})),
        ];
        assert_eq!(quiet.iter().filter_map(Alarm::of).collect::<Vec<_>>(), []);
    }
}
