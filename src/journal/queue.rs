//! What waits for the writer: appends, already encoded, with the one who waits for the answer.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::encoding;
use super::{Append, AppendError, Appended, NewRecord, StreamId};
use crate::ids::Seq;
use crate::limits::{JOURNAL_GROUP_BYTES_MAX, JOURNAL_GROUP_RECORDS_MAX, JOURNAL_QUEUE_APPENDS_MAX};

/// Who hears how an append ended.
pub(super) type Answer = oneshot::Sender<Result<Appended, AppendError>>;

/// An append on its way to the writer.
pub(super) struct Pending {
    pub(super) stream: StreamId,
    pub(super) expected_last_seq: Option<Seq>,
    /// Each record with where its body ends in `bodies`.
    pub(super) records: Vec<(NewRecord, usize)>,
    pub(super) bodies: Vec<u8>,
    /// Nobody waits for what was offered.
    pub(super) answer: Option<Answer>,
}

impl Pending {
    /// Checks and encodes an append: the caller's time, not the writer's.
    pub(super) fn new(append: Append, answer: Option<Answer>) -> Result<Self, AppendError> {
        let Append { stream, expected_last_seq, records } = append;
        let count = records.len();
        if count == 0 || count > JOURNAL_GROUP_RECORDS_MAX {
            return Err(AppendError::Invalid(format!(
                "{count} records, expected 1 to {JOURNAL_GROUP_RECORDS_MAX}"
            )));
        }
        let mut bodies = Vec::with_capacity(256 * count);
        let mut with_ends = Vec::with_capacity(count);
        for new in records {
            encoding::body(&stream, &new, &mut bodies).map_err(AppendError::Invalid)?;
            with_ends.push((new, bodies.len()));
        }
        if bodies.len() > JOURNAL_GROUP_BYTES_MAX {
            return Err(AppendError::Invalid(format!(
                "{} bytes, at most {JOURNAL_GROUP_BYTES_MAX} in one append",
                bodies.len()
            )));
        }
        Ok(Self { stream, expected_last_seq, records: with_ends, bodies, answer })
    }
}

/// Whether somebody waits for the append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Urgency {
    Awaited,
    /// Offered: the last quarter of the queue is not for it.
    Offered,
}

/// The sending end of the bounded queue.
pub(super) struct Queue {
    // Taken at close. A std mutex suffices: it is held for a send that never waits.
    sender: Mutex<Option<SyncSender<Pending>>>,
    waiting: AtomicUsize,
}

impl Queue {
    pub(super) fn new() -> (Self, Receiver<Pending>) {
        let (sender, receiver) = sync_channel(JOURNAL_QUEUE_APPENDS_MAX);
        (Self { sender: Mutex::new(Some(sender)), waiting: AtomicUsize::new(0) }, receiver)
    }

    /// Puts an append in, or refuses at once.
    pub(super) fn push(&self, pending: Pending, urgency: Urgency) -> Result<(), AppendError> {
        let room = match urgency {
            Urgency::Awaited => JOURNAL_QUEUE_APPENDS_MAX,
            Urgency::Offered => JOURNAL_QUEUE_APPENDS_MAX / 4 * 3,
        };
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = sender.as_ref().ok_or(AppendError::Closed)?;
        if self.waiting.load(Ordering::Relaxed) >= room {
            return Err(AppendError::QueueFull);
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        sender.try_send(pending).map_err(|error| {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            match error {
                TrySendError::Full(_) => AppendError::QueueFull,
                TrySendError::Disconnected(_) => AppendError::Closed,
            }
        })
    }

    /// Tells the writer to end once it has drained the queue.
    pub(super) fn close(&self) {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn taken(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the writer found in the queue.
pub(super) enum Drained {
    Group(Vec<Pending>),
    Nothing,
    Closed,
}

/// The receiving end, which makes groups.
pub(super) struct Groups {
    receiver: Receiver<Pending>,
    /// Did not fit the last group.
    held: Option<Pending>,
}

impl Groups {
    pub(super) fn new(receiver: Receiver<Pending>) -> Self {
        Self { receiver, held: None }
    }

    /// The next group: what waits now, up to the cap; an append is never split. Waits at most `patience` for the first.
    pub(super) fn next(&mut self, queue: &Queue, patience: Duration) -> Drained {
        let first = match self.held.take() {
            Some(held) => held,
            None => match self.receiver.recv_timeout(patience) {
                Ok(pending) => {
                    queue.taken();
                    pending
                }
                Err(RecvTimeoutError::Timeout) => return Drained::Nothing,
                Err(RecvTimeoutError::Disconnected) => return Drained::Closed,
            },
        };
        let (mut records, mut bytes) = (first.records.len(), first.bodies.len());
        let mut group = vec![first];
        while records < JOURNAL_GROUP_RECORDS_MAX {
            match self.receiver.try_recv() {
                Ok(pending) => {
                    queue.taken();
                    records += pending.records.len();
                    bytes += pending.bodies.len();
                    if records > JOURNAL_GROUP_RECORDS_MAX || bytes > JOURNAL_GROUP_BYTES_MAX {
                        self.held = Some(pending);
                        break;
                    }
                    group.push(pending);
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        Drained::Group(group)
    }
}
