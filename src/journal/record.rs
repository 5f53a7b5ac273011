//! What stands in the journal: streams, records, and what is asked to be appended.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clock::Timestamp;
use crate::ids::{AgentId, Seq, TokenName, TownId, TraceId};

/// The two logs, each with its own retention, so that a flood of work never evicts the history of operators.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Log {
    /// Lifecycle, operators, alerts.
    Audit,
    /// Requests and town events.
    Work,
}

/// What a stream is about: a closed set, fit for a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StreamKind {
    /// `instance/<id>`: the transitions of one instance.
    Instance,
    /// `town/<id>`: the events of one town.
    Town,
    /// `request`: what was asked of agents and how it ended.
    Request,
    /// `operator`: what people did, and what plimsoll did to its own store.
    Operator,
    /// `alert`: alerts received.
    Alert,
}

impl Log {
    /// Both logs.
    pub const ALL: [Self; 2] = [Self::Audit, Self::Work];

    /// The name, as in a folder, a label and a head.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Audit => "audit",
            Self::Work => "work",
        }
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl StreamKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Instance, Self::Town, Self::Request, Self::Operator, Self::Alert];

    /// The log that holds streams of this kind.
    #[must_use]
    pub const fn log(self) -> Log {
        match self {
            Self::Instance | Self::Operator | Self::Alert => Log::Audit,
            Self::Town | Self::Request => Log::Work,
        }
    }

    /// The name, as in a stream id and as a label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Instance => "instance",
            Self::Town => "town",
            Self::Request => "request",
            Self::Operator => "operator",
            Self::Alert => "alert",
        }
    }
}

/// One stream of the journal, such as `operator` or `instance/reviewer`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StreamId {
    kind: StreamKind,
    text: Arc<str>,
}

impl StreamId {
    /// The stream `request`.
    #[must_use]
    pub fn request() -> Self {
        Self { kind: StreamKind::Request, text: StreamKind::Request.as_str().into() }
    }

    /// The stream `operator`.
    #[must_use]
    pub fn operator() -> Self {
        Self { kind: StreamKind::Operator, text: StreamKind::Operator.as_str().into() }
    }

    /// The stream `alert`.
    #[must_use]
    pub fn alert() -> Self {
        Self { kind: StreamKind::Alert, text: StreamKind::Alert.as_str().into() }
    }

    /// The stream of one instance.
    #[must_use]
    pub fn instance(id: &AgentId) -> Self {
        Self { kind: StreamKind::Instance, text: format!("instance/{id}").into() }
    }

    /// The stream of one town.
    #[must_use]
    pub fn town(id: &TownId) -> Self {
        Self { kind: StreamKind::Town, text: format!("town/{id}").into() }
    }

    /// Reads a stream id.
    ///
    /// # Errors
    /// [`UnknownStream`], which lists the forms there are.
    pub fn parse(text: &str) -> Result<Self, UnknownStream> {
        match text.split_once('/') {
            None => match text {
                "request" => Ok(Self::request()),
                "operator" => Ok(Self::operator()),
                "alert" => Ok(Self::alert()),
                _ => Err(UnknownStream),
            },
            Some(("instance", id)) => {
                AgentId::parse(id).map(|id| Self::instance(&id)).map_err(|_| UnknownStream)
            }
            Some(("town", id)) => TownId::parse(id).map(|id| Self::town(&id)).map_err(|_| UnknownStream),
            Some(_) => Err(UnknownStream),
        }
    }

    /// The instance whose stream this is.
    #[must_use]
    pub fn instance_id(&self) -> Option<AgentId> {
        let (_, id) = self.text.split_once('/').filter(|_| self.kind == StreamKind::Instance)?;
        AgentId::parse(id).ok()
    }

    /// The town whose stream this is.
    #[must_use]
    pub fn town_id(&self) -> Option<TownId> {
        let (_, id) = self.text.split_once('/').filter(|_| self.kind == StreamKind::Town)?;
        TownId::parse(id).ok()
    }

    /// What the stream is about.
    #[must_use]
    pub fn kind(&self) -> StreamKind {
        self.kind
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// The text names no stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a stream is one of request, operator, alert, instance/<agent>, town/<town>")]
pub struct UnknownStream;

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamId({})", self.text)
    }
}

impl TryFrom<String> for StreamId {
    type Error = UnknownStream;

    fn try_from(text: String) -> Result<Self, UnknownStream> {
        Self::parse(&text)
    }
}

impl From<StreamId> for String {
    fn from(id: StreamId) -> Self {
        id.text.as_ref().to_owned()
    }
}

/// Who caused a record.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Actor {
    /// The holder of this token.
    Token(TokenName),
    /// A person on the same machine, without a token.
    Local,
    /// The reconciler's planner.
    Planner,
    /// plimsoll itself.
    System,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(name) => name.fmt(f),
            Self::Local => f.write_str("local"),
            Self::Planner => f.write_str("planner"),
            Self::System => f.write_str("system"),
        }
    }
}

impl TryFrom<String> for Actor {
    type Error = crate::ids::InvalidId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.as_str() {
            "local" => Ok(Self::Local),
            "planner" => Ok(Self::Planner),
            "system" => Ok(Self::System),
            name => TokenName::parse(name).map(Self::Token),
        }
    }
}

impl From<Actor> for String {
    fn from(actor: Actor) -> Self {
        actor.to_string()
    }
}

/// SHA-256 of a record's canonical bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct RecordHash(pub [u8; 32]);

impl RecordHash {
    /// Reads 64 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for RecordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for RecordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordHash({self})")
    }
}

impl<'de> Deserialize<'de> for RecordHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("a hash has 64 hexadecimal digits"))
    }
}

impl Serialize for RecordHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A fact to be appended; the journal adds seq, time and hash.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRecord {
    /// What happened: past tense, `snake_case`.
    pub kind: &'static str,
    /// The version of this kind's detail, from 1.
    pub version: u16,
    /// Who caused it.
    pub actor: Actor,
    /// The trace it happened in.
    pub trace_id: Option<TraceId>,
    /// The fact: a JSON object of at most [`JOURNAL_DETAIL_BYTES_MAX`](crate::limits::JOURNAL_DETAIL_BYTES_MAX).
    pub detail: Value,
}

/// A fact in the journal; never changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its place in the total order of all streams.
    pub seq: Seq,
    /// When it was appended; never decreases with `seq`.
    pub time: Timestamp,
    /// The stream it belongs to.
    pub stream: StreamId,
    /// What happened.
    pub kind: String,
    /// The version of this kind's detail.
    pub version: u16,
    /// Who caused it.
    pub actor: Actor,
    /// The trace it happened in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<TraceId>,
    /// The fact.
    pub detail: Value,
    /// The hash of the record before it in its log.
    pub prev_hash: RecordHash,
}

impl Record {
    /// A record as any: for tests that look at what is in one.
    #[cfg(test)]
    pub(crate) fn example(stream: StreamId, kind: &str, detail: Value) -> Self {
        Self {
            seq: Seq(1),
            time: Timestamp::from_millis(0),
            stream,
            kind: kind.to_owned(),
            version: 1,
            actor: Actor::Local,
            trace_id: None,
            detail,
            prev_hash: RecordHash::default(),
        }
    }

    /// The names of [`Record::cells`].
    pub const COLUMNS: [&'static str; 9] =
        ["seq", "time", "stream", "kind", "version", "actor", "trace_id", "detail", "prev_hash"];

    /// The record as a row of a table. No cell begins with a character that a spreadsheet takes for a formula: times,
    /// numbers, slugs, hashes and JSON objects do not.
    #[must_use]
    pub fn cells(&self) -> [String; 9] {
        let Self { seq, time, stream, kind, version, actor, trace_id, detail, prev_hash } = self;
        [
            seq.to_string(),
            time.to_string(),
            stream.to_string(),
            kind.clone(),
            version.to_string(),
            actor.to_string(),
            trace_id.map(|id| id.to_string()).unwrap_or_default(),
            detail.to_string(),
            prev_hash.to_string(),
        ]
    }
}

/// Records to be appended to one stream, all or none.
#[derive(Debug, Clone)]
pub struct Append {
    /// The stream.
    pub stream: StreamId,
    /// If set, the seq that must still be the stream's last ([`Seq`] 0: the stream is empty).
    pub expected_last_seq: Option<Seq>,
    /// One to [`JOURNAL_GROUP_RECORDS_MAX`](crate::limits::JOURNAL_GROUP_RECORDS_MAX) records.
    pub records: Vec<NewRecord>,
}

/// Where appended records stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The first one's seq.
    pub first: Seq,
    /// The last one's seq.
    pub last: Seq,
    /// Their common time.
    pub time: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_ids_print_as_they_are_read() {
        for text in ["request", "operator", "alert", "instance/reviewer", "town/main"] {
            assert_eq!(StreamId::parse(text).map(|s| s.to_string()).as_deref(), Ok(text));
        }
        for text in ["", "requests", "instance/", "instance/../x", "town", "request/1"] {
            assert_eq!(StreamId::parse(text), Err(UnknownStream), "{text:?}");
        }
    }

    #[test]
    fn hashes_print_as_they_are_read() {
        let hash = RecordHash(std::array::from_fn(|i| u8::try_from(i).expect("under 32")));
        assert_eq!(RecordHash::parse(&hash.to_string()), Some(hash));
        assert_eq!(RecordHash::parse("00"), None);
    }
}
