//! What became of a batch: why spans were lost, and how many of them a collector left out of a request it took.
//!
//! The library says so only in events of its own, so a [`Listener`] hears those while it sends. They do not reach the
//! log lines: plimsoll counts each loss and warns once instead.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::LevelFilter;

/// Why spans were lost, as the label says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// More ended than the queue holds.
    QueueFull,
    /// The collector could not be reached in time, or was not ready.
    Unreachable,
    /// The collector asked to wait for longer than spans are kept.
    Throttled,
    /// The collector refused the request.
    Rejected,
    /// The collector refused these spans of a good request.
    Partial,
    /// plimsoll ended first.
    Shutdown,
}

impl Reason {
    pub(super) const ALL: [Self; 6] =
        [Self::QueueFull, Self::Unreachable, Self::Throttled, Self::Rejected, Self::Partial, Self::Shutdown];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Unreachable => "unreachable",
            Self::Throttled => "throttled",
            Self::Rejected => "rejected",
            Self::Partial => "partial",
            Self::Shutdown => "shutdown",
        }
    }
}

/// What was heard while one batch was sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// Spans that the collector left out.
    pub(super) rejected: u64,
    /// Why the batch was given up.
    pub(super) reason: Option<Reason>,
    /// What went wrong on the way, in the words of the HTTP client.
    pub(super) cause: Option<String>,
}

/// Where what is heard gathers.
#[derive(Debug, Clone, Default)]
pub(super) struct Verdict(Arc<Mutex<Heard>>);

impl Verdict {
    pub(super) fn note(&self, write: impl FnOnce(&mut Heard)) {
        write(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What was heard since the last time.
    pub(super) fn take(&self) -> Heard {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Hears the library's warnings, and nothing else.
pub(super) struct Listener(pub(super) Verdict);

impl Subscriber for Listener {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= Level::WARN && metadata.target() == "opentelemetry-otlp"
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::WARN)
    }

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        self.0.note(|heard| match event.metadata().name() {
            "HttpTraceClient.PartialSuccess" | "TonicTracesClient.PartialSuccess" => {
                heard.rejected = fields.rejected;
            }
            "Export.Failed.NonRetryable" => heard.reason = Some(Reason::Rejected),
            name if name.starts_with("Export.Failed.") => {
                heard.reason = Some(if fields.throttled { Reason::Throttled } else { Reason::Unreachable });
            }
            _ => {}
        });
    }

    fn new_span(&self, _attributes: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}
    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}
    fn enter(&self, _span: &Id) {}
    fn exit(&self, _span: &Id) {}
}

/// The fields that matter.
#[derive(Default)]
struct Fields {
    rejected: u64,
    throttled: bool,
}

impl Visit for Fields {
    fn record_i64(&mut self, field: &Field, value: i64) {
        if field.name() == "rejected_spans" {
            self.rejected = u64::try_from(value).unwrap_or(0);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.throttled = value.contains("during throttle");
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.throttled = format!("{value:?}").contains("during throttle");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(say: impl FnOnce()) -> Heard {
        let verdict = Verdict::default();
        tracing::subscriber::with_default(Listener(verdict.clone()), say);
        verdict.take()
    }

    #[test]
    fn only_what_the_library_says_is_heard() {
        let ours = heard(|| tracing::warn!(name: "Export.Failed.NonRetryable", target: "plimsoll", "no"));
        assert_eq!(ours, Heard::default());
        let finer =
            heard(|| tracing::info!(name: "Export.Failed.NonRetryable", target: "opentelemetry-otlp", "no"));
        assert_eq!(finer, Heard::default());
    }

    #[test]
    fn a_batch_given_up_has_its_reason() {
        let refused = heard(
            || tracing::warn!(name: "Export.Failed.NonRetryable", target: "opentelemetry-otlp", "lost"),
        );
        assert_eq!(refused.reason, Some(Reason::Rejected));
        let [backoff, throttle] = ["exceeded during backoff", "exceeded during throttle"].map(|message| {
            heard(|| {
                tracing::warn!(
                    name: "Export.Failed.DeadlineExceeded", target: "opentelemetry-otlp", message = message
                );
            })
        });
        assert_eq!(backoff.reason, Some(Reason::Unreachable));
        assert_eq!(throttle.reason, Some(Reason::Throttled));
    }

    #[test]
    fn what_was_heard_is_told_once() {
        let verdict = Verdict::default();
        verdict.note(|heard| heard.rejected = 3);
        assert_eq!(verdict.take().rejected, 3);
        assert_eq!(verdict.take(), Heard::default());
    }
}
