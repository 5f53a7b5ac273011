//! What waits for the writer: appends, already encoded, with the one who waits for the answer.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
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

    /// Appends nothing: its answer says that its turn has come.
    pub(super) fn nothing(answer: Answer) -> Self {
        let stream = StreamId::operator();
        Self {
            stream,
            expected_last_seq: None,
            records: Vec::new(),
            bodies: Vec::new(),
            answer: Some(answer),
        }
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
    /// Appends that are in no group yet, or in one that still grows.
    waiting: AtomicUsize,
    hurry: Hurry,
}

/// Set when the writer shall not wait for more: somebody waits, a group is full, or this is the end.
#[derive(Default)]
struct Hurry {
    // A std mutex suffices: the writer is alone in waiting, and all hold it for one assignment.
    set: Mutex<bool>,
    changed: Condvar,
}

impl Hurry {
    fn set(&self) {
        let mut set = self.lock();
        if !*set {
            *set = true;
            self.changed.notify_one();
        }
    }

    fn clear(&self) {
        *self.lock() = false;
    }

    /// Waits until it is set, at most so long.
    fn wait(&self, at_most: Duration) {
        let waited = self.changed.wait_timeout_while(self.lock(), at_most, |set| !*set);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    pub(super) fn new() -> (Self, Receiver<Pending>) {
        let (sender, receiver) = sync_channel(JOURNAL_QUEUE_APPENDS_MAX);
        (
            Self { sender: Mutex::new(Some(sender)), waiting: AtomicUsize::new(0), hurry: Hurry::default() },
            receiver,
        )
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
        let waiting = self.waiting.fetch_add(1, Ordering::Relaxed) + 1;
        sender.try_send(pending).map_err(|error| {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            match error {
                TrySendError::Full(_) => AppendError::QueueFull,
                TrySendError::Disconnected(_) => AppendError::Closed,
            }
        })?;
        if urgency == Urgency::Awaited || waiting >= JOURNAL_GROUP_RECORDS_MAX {
            self.hurry.set();
        }
        Ok(())
    }

    /// Tells the writer to end once it has drained the queue.
    pub(super) fn close(&self) {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.hurry.set();
    }

    fn taken(&self, appends: usize) {
        self.waiting.fetch_sub(appends, Ordering::Relaxed);
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

    /// The next group: what waits now, up to the cap; an append is never split. Waits at most `patience` for the first,
    /// and, while nobody waits for any of them, at most `linger` for more.
    pub(super) fn next(&mut self, queue: &Queue, patience: Duration, linger: Duration) -> Drained {
        let first = match self.held.take() {
            Some(held) => held,
            None => match self.receiver.recv_timeout(patience) {
                Ok(pending) => pending,
                Err(RecvTimeoutError::Timeout) => return Drained::Nothing,
                Err(RecvTimeoutError::Disconnected) => return Drained::Closed,
            },
        };
        // Before the queue is drained: what comes in later sets it again.
        queue.hurry.clear();
        let (records, bytes) = (first.records.len(), first.bodies.len());
        let mut group = Group { appends: vec![first], records, bytes };
        if self.fill(&mut group) && !group.is_awaited() {
            queue.hurry.wait(linger);
            self.fill(&mut group);
        }
        queue.taken(group.appends.len());
        Drained::Group(group.appends)
    }

    /// Takes what waits now and fits. Answers whether there is room for more, and more may come.
    fn fill(&mut self, group: &mut Group) -> bool {
        while self.held.is_none() && !group.is_full() {
            match self.receiver.try_recv() {
                Ok(pending) => self.held = group.add(pending),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
        false
    }
}

/// A group as it grows.
struct Group {
    appends: Vec<Pending>,
    records: usize,
    bytes: usize,
}

impl Group {
    fn is_full(&self) -> bool {
        self.records >= JOURNAL_GROUP_RECORDS_MAX
    }

    fn is_awaited(&self) -> bool {
        self.appends.iter().any(|pending| pending.answer.is_some())
    }

    /// Gives back what does not fit.
    fn add(&mut self, pending: Pending) -> Option<Pending> {
        let records = self.records + pending.records.len();
        let bytes = self.bytes + pending.bodies.len();
        if records > JOURNAL_GROUP_RECORDS_MAX || bytes > JOURNAL_GROUP_BYTES_MAX {
            return Some(pending);
        }
        (self.records, self.bytes) = (records, bytes);
        self.appends.push(pending);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Actor;

    /// Never over while a test runs: who waits so long hangs.
    const FOREVER: Duration = Duration::from_secs(3_600);

    fn pending(answer: Option<Answer>) -> Pending {
        let record = NewRecord {
            kind: "request_finished",
            version: 1,
            actor: Actor::System,
            trace_id: None,
            detail: serde_json::json!({}),
        };
        let append = Append { stream: StreamId::request(), expected_last_seq: None, records: vec![record] };
        Pending::new(append, answer).expect("valid")
    }

    fn group_of(offered: usize, then: impl FnOnce(&Queue) + Send) -> usize {
        let (queue, receiver) = Queue::new();
        let mut groups = Groups::new(receiver);
        (0..offered).for_each(|_| queue.push(pending(None), Urgency::Offered).expect("room"));
        std::thread::scope(|scope| {
            scope.spawn(|| then(&queue));
            match groups.next(&queue, FOREVER, FOREVER) {
                Drained::Group(group) => group.len(),
                Drained::Nothing | Drained::Closed => 0,
            }
        })
    }

    #[test]
    fn an_awaited_append_takes_along_what_was_offered() {
        let (answer, _hears) = oneshot::channel();
        let append = |queue: &Queue| queue.push(pending(Some(answer)), Urgency::Awaited).expect("room");
        assert_eq!(group_of(3, append), 4);
    }

    #[test]
    fn a_full_group_waits_for_nothing() {
        let rest = |queue: &Queue| {
            (0..JOURNAL_GROUP_RECORDS_MAX)
                .for_each(|_| queue.push(pending(None), Urgency::Offered).expect("room"));
        };
        assert_eq!(group_of(3, rest), JOURNAL_GROUP_RECORDS_MAX);
    }

    #[test]
    fn the_end_waits_for_nothing() {
        assert_eq!(group_of(3, Queue::close), 3);
    }

    #[test]
    fn after_the_end_nothing_is_waited_for() {
        let (queue, receiver) = Queue::new();
        queue.push(pending(None), Urgency::Offered).expect("room");
        queue.close();
        let group = Groups::new(receiver).next(&queue, FOREVER, FOREVER);
        assert!(matches!(group, Drained::Group(group) if group.len() == 1));
    }

    #[test]
    fn without_a_linger_an_offer_is_a_group() {
        let (queue, receiver) = Queue::new();
        queue.push(pending(None), Urgency::Offered).expect("room");
        let group = Groups::new(receiver).next(&queue, FOREVER, Duration::ZERO);
        assert!(matches!(group, Drained::Group(group) if group.len() == 1));
    }
}
