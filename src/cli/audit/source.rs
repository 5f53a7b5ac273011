//! Where the records come from: the running server, or the files of a data directory that none uses.

use std::path::Path;
use std::sync::Arc;

use super::super::exit::Failure;
use super::super::target::TargetArgs;
use super::Filter;
use crate::client::{Client, ClientError};
use crate::clock::Timestamp;
use crate::ids::Seq;
use crate::journal::offline::Offline;
use crate::journal::{OpenError, Page, ReadError, Scan, StreamId};

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

    fn limit(&self) -> u64 {
        self.left.unwrap_or(PAGE).min(PAGE)
    }

    /// The question as the journal itself takes it.
    fn scan(&self, disk: &Offline) -> Result<Scan, ReadError> {
        let mut scan = Scan {
            stream: self.stream.clone(),
            kind: self.kind.clone(),
            limit: usize::try_from(self.limit()).unwrap_or(usize::MAX),
            newest_first: self.newest_first,
            ..Scan::default()
        };
        if let Some(from) = self.from {
            scan.from = disk.seq_at(from)?;
        }
        scan.before = self.to.map(|to| disk.seq_at(to)).transpose()?;
        if let Some(cursor) = self.cursor {
            if self.newest_first {
                scan.before = Some(cursor);
            } else {
                scan.from = cursor;
            }
        }
        Ok(scan)
    }

    fn query(&self) -> String {
        let limit = self.limit();
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

/// Who is asked.
pub(in crate::cli) enum Source {
    Server(Client),
    Disk(Arc<Offline>),
}

impl Source {
    /// The server if one runs, else the files of its data directory.
    pub(in crate::cli) async fn open(target: &TargetArgs) -> Result<Self, Failure> {
        let client = target.client()?;
        match client.get("/health").await {
            Err(ClientError::NoServer { dir }) if dir.is_dir() => Ok(Self::Disk(Arc::new(open_disk(&dir)?))),
            Err(error @ ClientError::NoServer { .. }) => Err(error.into()),
            // What else is wrong shows in the answer to the question itself.
            Ok(_) | Err(_) => Ok(Self::Server(client)),
        }
    }

    pub(super) async fn page(&self, question: &Question) -> Result<Page, Failure> {
        match self {
            Self::Server(client) => {
                let answer = client.get(&format!("/audit?{}", question.query())).await?;
                let page = answer.json().await;
                Ok(page.map_err(|error| ClientError::Protocol(error.to_string()))?)
            }
            Self::Disk(disk) => Ok(disk.scan(&question.scan(disk)?)?),
        }
    }
}

/// Opens the files, and says what cannot be read of them.
fn open_disk(dir: &Path) -> Result<Offline, OpenError> {
    let disk = Offline::open(dir)?;
    for what in disk.unreadable() {
        eprintln!("warning: left out, because it cannot be read: {what}");
    }
    Ok(disk)
}
