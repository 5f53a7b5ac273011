//! A journal that is still being opened, so that the server can listen before it.
//!
//! Nothing is decided on records that are not read yet, so it refuses everything until then. Start at
//! [`LateJournal::open`].

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::sync::broadcast;
use tokio::task::spawn_blocking;

use super::data_dir::{DataDir, OpenError};
use super::writer::BACKOFF;
use super::{
    Append, AppendError, Appended, Config, Head, Journal, JournalDeps, Log, Page, ReadError, Record, Scan,
    SledJournal, Status, Verified, VerifyError,
};
use crate::clock::Timestamp;
use crate::ids::Seq;

/// The journal on disk, from the moment that it is open.
pub struct LateJournal {
    opened: OnceLock<SledJournal>,
    /// What it waits for. A std mutex suffices: nothing waits while it is held.
    waits: Mutex<String>,
}

impl Default for LateJournal {
    fn default() -> Self {
        Self { opened: OnceLock::new(), waits: Mutex::new("the journal is being opened".to_owned()) }
    }
}

impl LateJournal {
    /// Opens it, off the runtime. Where the disk is so full that not even reading is possible, this waits for space,
    /// and says so in the log and in [`Journal::status`].
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(&self, data_dir: DataDir, config: Config, deps: JournalDeps) -> Result<(), OpenError> {
        let data_dir = Arc::new(data_dir);
        let mut pause = BACKOFF.0;
        loop {
            let (dir, deps) = (Arc::clone(&data_dir), deps.clone());
            let opened = spawn_blocking(move || SledJournal::open_in(dir, &config, deps)).await;
            match opened.unwrap_or_else(|lost| std::panic::resume_unwind(lost.into_panic())) {
                Ok(journal) => {
                    let again = self.opened.set(journal).is_err();
                    assert!(!again, "it is opened once");
                    return Ok(());
                }
                Err(error) if error.is_full() => self.wait_for_space(&error),
                Err(error) => return Err(error),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BACKOFF.1);
        }
    }

    fn wait_for_space(&self, error: &OpenError) {
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        let cause = format!("{error}: plimsoll waits until there is space");
        if *waits != cause {
            tracing::error!(source = "journal", cause, "the journal cannot be opened yet");
            *waits = cause;
        }
    }

    fn waits(&self) -> String {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn readable(&self) -> Result<&SledJournal, ReadError> {
        self.opened.get().ok_or_else(|| ReadError::Unavailable(self.waits()))
    }

    fn writable(&self) -> Result<&SledJournal, AppendError> {
        self.opened.get().ok_or_else(|| AppendError::Unavailable(self.waits()))
    }
}

impl Journal for LateJournal {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Appended, AppendError>> {
        match self.writable() {
            Ok(journal) => journal.append(append),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    fn offer(&self, append: Append) -> Result<(), AppendError> {
        self.writable()?.offer(append)
    }

    fn catch_up(&self) -> BoxFuture<'_, ()> {
        self.opened.get().map_or_else(|| Box::pin(std::future::ready(())) as _, Journal::catch_up)
    }

    fn scan(&self, query: &Scan) -> Result<Page, ReadError> {
        self.readable()?.scan(query)
    }

    fn seq_at(&self, time: Timestamp) -> Result<Seq, ReadError> {
        self.readable()?.seq_at(time)
    }

    fn kept_from(&self, log: Log) -> Result<Seq, ReadError> {
        self.readable()?.kept_from(log)
    }

    fn snapshots(&self, fold: &str) -> Result<Vec<Seq>, ReadError> {
        self.readable()?.snapshots(fold)
    }

    fn snapshot_before(&self, fold: &str, before: Seq) -> Result<Option<(Seq, Value)>, ReadError> {
        self.readable()?.snapshot_before(fold, before)
    }

    /// Before it is open, one that ends at once.
    fn tail(&self) -> broadcast::Receiver<Arc<Record>> {
        self.opened.get().map_or_else(|| broadcast::channel(1).1, Journal::tail)
    }

    /// 1970 before it is open.
    fn now(&self) -> Timestamp {
        self.opened.get().map_or_else(Timestamp::default, Journal::now)
    }

    fn status(&self) -> Status {
        let waiting =
            || Status { first: Seq(1), last: Seq(0), degraded: Some(self.waits()), damaged: false, bytes: 0 };
        self.opened.get().map_or_else(waiting, Journal::status)
    }

    fn head(&self, log: Log) -> Result<Head, ReadError> {
        self.readable()?.head(log)
    }

    fn verify_while(
        &self,
        log: Log,
        expected: &[Head],
        go_on: &dyn Fn() -> bool,
    ) -> Result<Verified, VerifyError> {
        let journal = self.readable().map_err(|error| VerifyError::Unavailable(error.to_string()))?;
        journal.verify_while(log, expected, go_on)
    }

    fn close(&self) {
        if let Some(journal) = self.opened.get() {
            journal.close();
        }
    }
}
