//! Where the records come from: the running server.

use serde::Deserialize;
use serde_json::Value;

use super::super::exit::Failure;
use super::super::target::TargetArgs;
use super::Filter;
use crate::client::{Client, ClientError};
use crate::clock::Timestamp;
use crate::ids::{Seq, TraceId};
use crate::journal::{Actor, StreamId};

/// Records that are asked for at once: the most that the server gives.
const PAGE: u64 = 1_000;

/// A question, and how far its answer has come.
#[derive(Debug)]
pub(super) struct Question {
    stream: Option<StreamId>,
    kind: Option<String>,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    newest_first: bool,
    cursor: Option<Seq>,
    left: Option<u64>,
}

impl Question {
    pub(super) fn new(filter: &Filter, newest_first: bool, limit: Option<u64>) -> Self {
        let Filter { stream, kind, from, to } = filter;
        Self {
            stream: stream.clone(),
            kind: kind.clone(),
            from: *from,
            to: *to,
            newest_first,
            cursor: None,
            left: limit,
        }
    }

    /// Moves on to the next page, if there is to be one.
    pub(super) fn go_on(&mut self, next: Seq, got: usize) -> bool {
        self.cursor = Some(next);
        self.left = self.left.map(|left| left.saturating_sub(got as u64));
        self.left != Some(0)
    }

    fn query(&self) -> String {
        let limit = self.left.unwrap_or(PAGE).min(PAGE);
        let pairs = [
            ("limit", Some(limit.to_string())),
            ("order", Some(if self.newest_first { "desc" } else { "asc" }.to_owned())),
            ("stream", self.stream.as_ref().map(ToString::to_string)),
            ("kind", self.kind.clone()),
            ("from", self.from.map(|at| at.to_string())),
            ("to", self.to.map(|at| at.to_string())),
            ("cursor", self.cursor.map(|seq| seq.to_string())),
        ];
        super::super::query(&pairs)
    }
}

/// A record, as the server tells it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Record {
    pub(super) seq: Seq,
    pub(super) time: Timestamp,
    pub(super) stream: StreamId,
    pub(super) kind: String,
    pub(super) version: u16,
    pub(super) actor: Actor,
    #[serde(default)]
    pub(super) trace_id: Option<TraceId>,
    pub(super) detail: Value,
    pub(super) prev_hash: String,
}

/// Some of the records.
#[derive(Debug, Deserialize)]
pub(super) struct Page {
    pub(super) records: Vec<Record>,
    pub(super) next: Option<Seq>,
}

/// Who is asked.
pub(super) enum Source {
    Server(Client),
}

impl Source {
    pub(super) fn open(target: &TargetArgs) -> Result<Self, Failure> {
        Ok(Self::Server(target.client()?))
    }

    pub(super) async fn page(&self, question: &Question) -> Result<Page, Failure> {
        match self {
            Self::Server(client) => {
                let answer = client.get(&format!("/audit?{}", question.query())).await?;
                let page = answer.json().await;
                Ok(page.map_err(|error| ClientError::Protocol(error.to_string()))?)
            }
        }
    }
}
