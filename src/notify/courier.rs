//! Carries letters to one recipient, one after the other: a bounded queue, tries with back-off, an end in time.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::cursor::Cursors;
use super::metrics::{Outcome, Outcomes};
use super::post::{Answer, Letter, Recipient, post};
use crate::clock::Clock;
use crate::limits::NOTIFY_QUEUED_MAX;
use crate::telemetry::Shared;

/// What is dropped, as a label.
pub(super) const NOTIFICATION: &str = "notification";
const QUEUE_FULL: &str = "queue_full";
const SHUTDOWN: &str = "shutdown";

/// How often it is tried, and how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// The first wait before another try; each later one is up to twice as long, with jitter.
    pub(super) wait_min: Duration,
    /// The longest, unless the other side asks for a longer one.
    pub(super) wait_max: Duration,
    /// So long after it was handed in, no other try begins.
    pub(super) give_up_after: Duration,
}

impl Pace {
    /// Short enough for an alarm to be news, long enough for a restart of the other side.
    pub(super) const DEFAULT: Self = Self {
        wait_min: Duration::from_secs(1),
        wait_max: Duration::from_secs(120),
        give_up_after: Duration::from_secs(600),
    };
}

/// What couriers need.
#[derive(Clone)]
pub(super) struct Gear {
    pub(super) outcomes: Outcomes,
    pub(super) shared: Shared,
    pub(super) clock: Clock,
    pub(super) pace: Pace,
    pub(super) cursors: Arc<Cursors>,
    /// Once cancelled, what is queued is tried once, and nothing is waited for.
    pub(super) stop: CancellationToken,
    /// Once cancelled, nothing is tried any more.
    pub(super) cut: CancellationToken,
}

/// The way to hand letters in. The courier ends when all of them are dropped, or when it is stopped.
#[derive(Clone)]
pub(super) struct Mailbox {
    name: Arc<str>,
    queue: mpsc::Sender<Posted>,
    gear: Gear,
}

struct Posted {
    letter: Letter,
    /// When, on the clock that never goes back.
    at: Duration,
}

impl Mailbox {
    /// Hands a letter in; one for which there is no room is counted as dropped.
    pub(super) fn post(&self, letter: Letter) {
        let (seq, cursors) = (letter.seq, &self.gear.cursors);
        seq.into_iter().for_each(|seq| cursors.waits(&self.name, seq));
        let posted = Posted { letter, at: self.gear.clock.elapsed() };
        let reason = match self.queue.try_send(posted) {
            Ok(()) => return,
            Err(mpsc::error::TrySendError::Full(_)) => {
                seq.into_iter().for_each(|seq| cursors.settled(&self.name, seq));
                QUEUE_FULL
            }
            // The next start tells of it.
            Err(mpsc::error::TrySendError::Closed(_)) => SHUTDOWN,
        };
        self.gear.dropped(&self.name, reason, 1);
    }
}

impl Gear {
    /// Makes the counters of drops stand at 0.
    pub(super) fn expect_drops(&self) {
        [QUEUE_FULL, SHUTDOWN].iter().for_each(|reason| self.shared.expect_dropped(NOTIFICATION, reason));
    }

    fn dropped(&self, name: &str, reason: &'static str, count: usize) {
        for _ in 0..count {
            self.outcomes.step(name, Outcome::Dropped);
            self.shared.dropped(NOTIFICATION, reason, 1);
        }
    }
}

/// A mailbox, and the work of who empties it.
pub(super) fn courier(to: Arc<dyn Recipient>, gear: Gear) -> (Mailbox, impl Future<Output = ()> + Send) {
    let (queue, letters) = mpsc::channel(NOTIFY_QUEUED_MAX);
    let name: Arc<str> = to.name().into();
    gear.outcomes.expect(&name);
    let mailbox = Mailbox { name: Arc::clone(&name), queue, gear: gear.clone() };
    (mailbox, Courier { to, name, letters, gear }.run())
}

struct Courier {
    to: Arc<dyn Recipient>,
    name: Arc<str>,
    letters: mpsc::Receiver<Posted>,
    gear: Gear,
}

impl Courier {
    async fn run(mut self) {
        let (stop, cut) = (self.gear.stop.clone(), self.gear.cut.clone());
        while let Some(posted) = self.next(&stop).await {
            tokio::select! {
                (outcome, settled) = self.deliver(&posted) => {
                    self.gear.outcomes.step(&self.name, outcome);
                    if let Some(seq) = posted.letter.seq.filter(|_| settled) {
                        self.gear.cursors.settled(&self.name, seq);
                    }
                }
                () = cut.cancelled() => {
                    self.letters.close();
                    let mut left = 1;
                    while self.letters.try_recv().is_ok() {
                        left += 1;
                    }
                    return self.gear.dropped(&self.name, SHUTDOWN, left);
                }
            }
            tokio::select! {
                () = sleep(self.to.interval()) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// The next letter; once it is to stop, those that are there.
    async fn next(&mut self, stop: &CancellationToken) -> Option<Posted> {
        tokio::select! {
            biased;
            () = stop.cancelled() => {
                self.letters.close();
                self.letters.recv().await
            }
            posted = self.letters.recv() => posted,
        }
    }

    /// Tries until it is taken or no further try makes sense, at least once; what came of it, and whether that is the end of
    /// it. What the end of plimsoll cuts comes again at the next start.
    async fn deliver(&self, posted: &Posted) -> (Outcome, bool) {
        let Gear { clock, pace, stop, .. } = &self.gear;
        let mut waits = ExponentialBuilder::new()
            .with_min_delay(pace.wait_min)
            .with_max_delay(pace.wait_max)
            .without_max_times()
            .with_jitter()
            .build();
        let give_up = posted.at.saturating_add(pace.give_up_after);
        loop {
            let answer = post(&*self.to, &posted.letter, clock.now()).await;
            let after = match &answer {
                Answer::Taken(_) => return (Outcome::Sent, true),
                Answer::Refused(_) => return (self.failed(&answer), true),
                Answer::Later { after, .. } => after.unwrap_or_default(),
                Answer::None(_) => Duration::ZERO,
            };
            let wait = waits.next().unwrap_or(pace.wait_max).max(after);
            if clock.elapsed().saturating_add(wait) > give_up {
                return (self.failed(&answer), true);
            }
            tokio::select! {
                () = sleep(wait) => {}
                () = stop.cancelled() => return (self.failed(&answer), false),
            }
        }
    }

    fn failed(&self, answer: &Answer) -> Outcome {
        tracing::warn!(
            source = "notify",
            recipient = &*self.name,
            cause = answer.told(),
            "a notification was not delivered: see `plimsoll notify test`"
        );
        Outcome::Failed
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use reqwest::RequestBuilder;
    use rustls::RootCertStore;

    use super::*;
    use crate::clock::Timestamp;
    use crate::journal::MemoryJournal;
    use crate::outgoing;
    use crate::telemetry::Registry;

    /// Somebody who does not take connections.
    struct Nobody(reqwest::Client, String);

    impl Nobody {
        fn new() -> Self {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
            let address = listener.local_addr().expect("bound");
            let client = outgoing::client(RootCertStore::empty())
                .and_then(|builder| builder.build().map_err(|e| e.to_string()));
            Self(client.expect("a client"), format!("http://{address}/"))
        }
    }

    impl Recipient for Nobody {
        fn name(&self) -> &str {
            "nobody"
        }

        fn request(&self, letter: &Letter, _now: Timestamp) -> RequestBuilder {
            self.0.post(&self.1).body(letter.body.clone())
        }

        fn interval(&self) -> Duration {
            Duration::ZERO
        }

        fn timeout(&self) -> Duration {
            Duration::from_secs(5)
        }
    }

    fn gear(registry: &Registry, give_up_after: Duration) -> Gear {
        let wait = Duration::from_millis(10);
        Gear {
            outcomes: Outcomes::new(registry),
            shared: Shared::new(registry),
            clock: Clock::system(),
            pace: Pace { wait_min: wait, wait_max: wait, give_up_after },
            cursors: Arc::new(Cursors::new(Arc::new(MemoryJournal::new(Clock::system(), Vec::new())))),
            stop: CancellationToken::new(),
            cut: CancellationToken::new(),
        }
    }

    fn registry() -> Registry {
        Registry::new(&[
            super::super::metrics::NOTIFICATIONS.0,
            crate::telemetry::metrics::DROPPED.0,
            crate::telemetry::metrics::LIMIT_HITS.0,
            crate::telemetry::metrics::COMPONENT_UP.0,
        ])
        .expect("definitions")
    }

    fn letter() -> Letter {
        Letter { id: "1".to_owned(), body: Bytes::from_static(b"{}"), seq: None }
    }

    #[track_caller]
    fn counted(registry: &Registry, outcome: &str, count: u64) {
        let line =
            format!("plimsoll_notifications_total{{webhook=\"nobody\",outcome=\"{outcome}\"}} {count}\n");
        assert!(registry.render().contains(&line), "{}", registry.render());
    }

    #[tokio::test]
    async fn what_nobody_takes_is_given_up_in_time() {
        let registry = registry();
        let give_up_after = Duration::from_millis(200);
        let (mailbox, work) = courier(Arc::new(Nobody::new()), gear(&registry, give_up_after));
        counted(&registry, "failed", 0);
        let clock = Clock::system();
        mailbox.post(letter());
        drop(mailbox);
        work.await;
        counted(&registry, "failed", 1);
        assert!(clock.elapsed() > give_up_after / 2, "it is tried again: {:?}", clock.elapsed());
    }

    #[tokio::test]
    async fn once_it_is_to_stop_each_letter_is_tried_once_and_no_more_are_taken() {
        let registry = registry();
        let gear = gear(&registry, Duration::from_secs(3_600));
        let (mailbox, work) = courier(Arc::new(Nobody::new()), gear.clone());
        (0..3).for_each(|_| mailbox.post(letter()));
        gear.stop.cancel();
        work.await;
        counted(&registry, "failed", 3);
        mailbox.post(letter());
        counted(&registry, "dropped", 1);
    }
}
