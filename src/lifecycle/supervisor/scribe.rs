//! Writes down what happens to instances, in the order in which it happened. No instance waits for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::ids::AgentId;
use crate::journal::{Append, AppendError, Journal, NewRecord, StreamId};
use crate::limits::INSTANCE_RECORDS_QUEUED_MAX;
use crate::telemetry::Shared;

/// What is lost, as it is counted.
const RECORDS: &str = "instance_records";
const QUEUE_FULL: &str = "queue_full";
const REFUSED: &str = "refused";

/// How long to wait before a record is tried again: a disk that is full has space again sooner or later.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What the scribe is told.
enum Said {
    Write(AgentId, NewRecord),
    /// Answers once all that was said before is written.
    Flush(oneshot::Sender<()>),
}

/// Takes records for the [`Scribe`].
#[derive(Clone)]
pub(super) struct Pen {
    said: mpsc::Sender<Said>,
    shared: Shared,
}

/// See the module.
pub(super) struct Scribe {
    pen: Pen,
    task: JoinHandle<()>,
}

impl Pen {
    /// Hands over one record. What finds the queue full is lost, and is told as that.
    pub(super) fn write(&self, instance: &AgentId, record: NewRecord) {
        let kind = record.kind;
        if self.said.try_send(Said::Write(instance.clone(), record)).is_err() {
            self.shared.dropped(RECORDS, QUEUE_FULL, 1);
            tracing::error!(source = "lifecycle", %instance, kind, "the journal takes nothing: a record is lost");
        }
    }

    /// Waits until all that was handed over is written.
    pub(super) async fn flush(&self) {
        let (done, written) = oneshot::channel();
        if self.said.send(Said::Flush(done)).await.is_ok() {
            // A scribe that ended has nothing left to write.
            let _ = written.await;
        }
    }
}

impl Scribe {
    pub(super) fn new(journal: Arc<dyn Journal>, shared: Shared) -> Self {
        let (sender, said) = mpsc::channel(INSTANCE_RECORDS_QUEUED_MAX);
        let task = tokio::spawn(write_all(journal, said, shared.clone()));
        Self { pen: Pen { said: sender, shared }, task }
    }

    pub(super) fn pen(&self) -> Pen {
        self.pen.clone()
    }

    pub(super) async fn flush(&self) {
        self.pen.flush().await;
    }
}

impl Drop for Scribe {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Makes the counters of losses stand at 0 before anything is lost.
pub(super) fn expect_losses(shared: &Shared) {
    shared.expect_dropped(RECORDS, QUEUE_FULL);
    shared.expect_dropped(RECORDS, REFUSED);
}

async fn write_all(journal: Arc<dyn Journal>, mut said: mpsc::Receiver<Said>, shared: Shared) {
    while let Some(said) = said.recv().await {
        match said {
            Said::Write(instance, record) => {
                if !write(&*journal, &instance, record).await {
                    shared.dropped(RECORDS, REFUSED, 1);
                }
            }
            Said::Flush(done) => {
                // Whoever waited may have gone.
                let _ = done.send(());
            }
        }
    }
}

/// Whether it is written.
async fn write(journal: &dyn Journal, instance: &AgentId, record: NewRecord) -> bool {
    let stream = StreamId::instance(instance);
    let append = Append { stream, expected_last_seq: None, records: vec![record] };
    loop {
        match journal.append(append.clone()).await {
            Ok(_) => return true,
            Err(error @ (AppendError::QueueFull | AppendError::Unavailable(_))) => {
                tracing::warn!(source = "lifecycle", %instance, %error, "a record of an instance waits for the journal");
                tokio::time::sleep(RETRY_AFTER).await;
            }
            Err(error @ (AppendError::Conflict { .. } | AppendError::Invalid(_) | AppendError::Closed)) => {
                tracing::error!(source = "lifecycle", %instance, %error, "a record of an instance is lost");
                return false;
            }
        }
    }
}
