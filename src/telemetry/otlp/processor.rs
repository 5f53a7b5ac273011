//! From ended spans to the collector: a bounded queue, and one thread that empties it in batches.
//!
//! Whoever ends a span never waits. What the queue cannot take, what the collector refuses and what is left at the
//! end is counted by reason in `plimsoll_dropped_total{what="spans"}`.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio_util::sync::CancellationToken;

use super::super::shared::{Health, Shared};
use super::settings::{Batch, Settings};
use super::transport::{SendError, Transport, TransportError};
use super::verdict::Reason;

/// Hands ended spans to the exporting thread.
pub(super) struct Processor {
    queue: mpsc::Sender<SpanData>,
    stop: Arc<Stop>,
    worker: Mutex<Option<(JoinHandle<()>, std::sync::mpsc::Receiver<()>)>>,
    losses: Losses,
}

/// How the thread is told to end: send what is left, but no longer than this.
#[derive(Default)]
struct Stop {
    asked: CancellationToken,
    within: OnceLock<Duration>,
}

/// Counts lost spans.
#[derive(Clone)]
struct Losses(Shared);

impl Losses {
    fn count(&self, reason: Reason, spans: usize) {
        self.0.dropped("spans", reason.as_str(), spans as u64);
    }
}

impl Processor {
    /// Starts the exporting thread.
    pub(super) fn start(
        settings: &Settings,
        resource: &Resource,
        shared: Shared,
    ) -> Result<Self, TransportError> {
        Reason::ALL.iter().for_each(|reason| shared.expect_dropped("spans", reason.as_str()));
        shared.component(COMPONENT, Health::Up);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|cause| TransportError::Client(cause.into()))?;
        let transport = {
            let _inside = runtime.enter();
            Transport::new(settings, resource)
        };
        let transport = match transport {
            Ok(transport) => transport,
            Err(cause) => {
                // Dropping a runtime waits, which is forbidden inside the caller's.
                runtime.shutdown_background();
                return Err(cause);
            }
        };
        let (queue, ended) = mpsc::channel(settings.batch.queue_spans_max);
        let (stop, losses) = (Arc::new(Stop::default()), Losses(shared));
        let exporter = Exporter { transport, losses: losses.clone(), health: None };
        let worker = Worker { ended, batch: settings.batch, stop: Arc::clone(&stop), exporter };
        let (done_tx, done) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("otlp".to_owned())
            .spawn(move || {
                runtime.block_on(worker.run());
                // Nobody waits any more if this fails.
                let _nobody_waits = done_tx.send(());
            })
            .map_err(|cause| TransportError::Client(cause.into()))?;
        Ok(Self { queue, stop, worker: Mutex::new(Some((thread, done))), losses })
    }
}

impl fmt::Debug for Processor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Processor")
    }
}

impl SpanProcessor for Processor {
    fn on_start(&self, _span: &mut Span, _ctx: &Context) {}

    fn on_end(&self, span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        match self.queue.try_send(span) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => self.losses.count(Reason::QueueFull, 1),
            Err(TrySendError::Closed(_)) => self.losses.count(Reason::Shutdown, 1),
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        let worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((thread, done)) = worker else { return Err(OTelSdkError::AlreadyShutdown) };
        // Set once: the worker was taken above.
        let _first = self.stop.within.set(timeout);
        self.stop.asked.cancel();
        // The thread keeps the deadline itself; a little more lets it count what it could not send.
        match done.recv_timeout(timeout + COUNTING_TIME) {
            Ok(()) => {
                thread.join().map_err(|_| OTelSdkError::InternalFailure("exporter panicked".to_owned()))
            }
            Err(_) => Err(OTelSdkError::Timeout(timeout)),
        }
    }
}

/// What the exporter is called in `plimsoll_component_up`; it is up until something is lost.
const COMPONENT: &str = "otlp";

const COUNTING_TIME: Duration = Duration::from_millis(250);

/// What runs on the thread.
struct Worker {
    ended: mpsc::Receiver<SpanData>,
    batch: Batch,
    stop: Arc<Stop>,
    exporter: Exporter,
}

impl Worker {
    async fn run(self) {
        let Self { mut ended, batch, stop, mut exporter } = self;
        let too_late = async {
            stop.asked.cancelled().await;
            tokio::time::sleep(stop.within.get().copied().unwrap_or_default()).await;
        };
        tokio::pin!(too_late);
        let mut undelivered = 0;
        loop {
            let spans = gather(&mut ended, batch, &stop.asked).await;
            if spans.is_empty() {
                break;
            }
            let count = spans.len();
            tokio::select! {
                taken = exporter.export(spans) => {
                    if !taken && stop.asked.is_cancelled() {
                        undelivered += count;
                    }
                }
                () = &mut too_late => {
                    let left = count + ended.len();
                    exporter.losses.count(Reason::Shutdown, left);
                    undelivered += left;
                    break;
                }
            }
        }
        if undelivered > 0 {
            tracing::warn!(
                source = "otlp",
                spans = undelivered,
                "the collector is away: the last spans are lost"
            );
        }
    }
}

/// The next batch: full, or as old as the delay allows, or what there is when asked to stop. Empty: nothing is left.
async fn gather(
    ended: &mut mpsc::Receiver<SpanData>,
    batch: Batch,
    stop: &CancellationToken,
) -> Vec<SpanData> {
    let mut spans = Vec::new();
    tokio::select! {
        _count = ended.recv_many(&mut spans, batch.batch_spans_max) => {}
        () = stop.cancelled() => {}
    }
    if !stop.is_cancelled() {
        let fill = async {
            while spans.len() < batch.batch_spans_max {
                let room = batch.batch_spans_max - spans.len();
                ended.recv_many(&mut spans, room).await;
            }
        };
        tokio::select! {
            _full_or_old = tokio::time::timeout(batch.delay, fill) => {}
            () = stop.cancelled() => {}
        }
    }
    if stop.is_cancelled() {
        ended.close();
        let room = batch.batch_spans_max.saturating_sub(spans.len());
        if room > 0 {
            ended.recv_many(&mut spans, room).await;
        }
    }
    spans
}

/// Sends batches, and counts what does not arrive.
struct Exporter {
    transport: Transport,
    losses: Losses,
    health: Option<Health>,
}

impl Exporter {
    /// Whether the collector answered that it took them.
    async fn export(&mut self, spans: Vec<SpanData>) -> bool {
        let count = spans.len();
        match self.transport.send(spans).await {
            Ok(rejected) => {
                if rejected > 0 {
                    let rejected = usize::try_from(rejected).unwrap_or(usize::MAX);
                    self.losses.count(Reason::Partial, rejected.min(count));
                }
                self.now(Health::Up, "");
                true
            }
            Err(error) => {
                self.lost(count, &error);
                false
            }
        }
    }

    fn lost(&mut self, count: usize, error: &SendError) {
        self.losses.count(error.reason, count);
        self.now(Health::Down, &error.detail);
    }

    /// Says once that the collector went, and once that it is back.
    fn now(&mut self, health: Health, cause: &str) {
        if self.health.replace(health) == Some(health) {
            return;
        }
        self.losses.0.component(COMPONENT, health);
        match health {
            Health::Up => tracing::info!("traces arrive at the collector"),
            Health::Down => {
                tracing::warn!(source = "otlp", cause, "traces are lost: the collector does not take them")
            }
        }
    }
}
