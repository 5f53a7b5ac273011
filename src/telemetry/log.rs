//! Log lines: text for people on a terminal, one JSON object a line elsewhere.
//!
//! Whoever logs never waits: lines go through a bounded queue to a thread that writes them, and what does not fit is
//! counted in `plimsoll_dropped_total{what="log_lines"}`. Nothing from outside can move a terminal's cursor or turn
//! its text around: see [`escaped`].

use std::fmt::Write as _;
use std::io::Write;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use serde_json::{Map, Value};
use tracing::{Dispatch, Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::field::each_field;
use super::metrics::LOG_EVENTS;
use super::registry::Registry;
use super::shared::Shared;
use super::span::ContextLookup;
use crate::clock::Clock;
use crate::limits::LOG_LINES_MAX;

/// How a line looks, once it is known where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineFormat {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

/// Makes lines of events.
pub(super) struct LogLayer {
    format: LineFormat,
    lines: LineQueue,
    counts: [metrics::Counter; LEVELS.len()],
    clock: Clock,
    lookup: ContextLookup,
}

const LEVELS: [(Level, &str); 5] = [
    (Level::ERROR, "error"),
    (Level::WARN, "warn"),
    (Level::INFO, "info"),
    (Level::DEBUG, "debug"),
    (Level::TRACE, "trace"),
];

fn index_of(level: Level) -> usize {
    LEVELS.iter().position(|(known, _)| *known == level).expect("all five levels are listed")
}

impl LogLayer {
    pub(super) fn new(
        format: LineFormat,
        lines: LineQueue,
        registry: &Registry,
        (clock, lookup): (Clock, ContextLookup),
    ) -> Self {
        let events = registry.counters(&LOG_EVENTS);
        Self { format, lines, counts: LEVELS.map(|(_, name)| events.with([name])), clock, lookup }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LogLayer {
    fn on_register_dispatch(&self, dispatch: &Dispatch) {
        self.lookup.register(dispatch);
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        let level = index_of(*event.metadata().level());
        self.counts[level].increment(1);
        let mut fields = Fields::default();
        each_field(event, |name, value| fields.put(name, value));
        let target = fields.bridged_target.take();
        let trace_id = ctx.event_span(event).and_then(|span| self.lookup.trace_id(&span));
        let line = Line {
            timestamp: self.clock.now().to_string(),
            level: LEVELS[level].1,
            target: target.as_deref().unwrap_or(event.metadata().target()),
            trace_id: trace_id.map(|id| id.to_string()),
            fields,
        };
        self.lines.push(match self.format {
            LineFormat::Text => line.text(),
            LineFormat::Json => line.json(),
        });
    }
}

/// What each JSON line says itself, on one level with the event's fields; a field of such a name gets an underscore.
const RESERVED: [&str; 5] = ["timestamp", "level", "target", "message", "trace_id"];

struct Line<'a> {
    timestamp: String,
    level: &'static str,
    target: &'a str,
    trace_id: Option<String>,
    fields: Fields,
}

impl Line<'_> {
    fn text(self) -> String {
        let Self { timestamp, level, target, trace_id, fields } = self;
        let mut line = format!("{timestamp} {:>5} {target}: {}", level.to_ascii_uppercase(), fields.message);
        let trace_id = trace_id.map(|id| ("trace_id".to_owned(), Value::String(id)));
        for (name, value) in fields.others.into_iter().chain(trace_id) {
            // Writing to a String cannot fail.
            let _ok = match value {
                Value::String(text) if is_one_word(&text) => write!(line, " {name}={text}"),
                Value::String(text) => write!(line, " {name}={text:?}"),
                other => write!(line, " {name}={other}"),
            };
        }
        let mut line = escaped(&line, |line, character| {
            let _ok = write!(line, "{}", character.escape_default());
        });
        line.push('\n');
        line
    }

    fn json(self) -> String {
        let Self { timestamp, level, target, trace_id, fields } = self;
        let (taken, mut object): (Map<_, _>, Map<_, _>) =
            fields.others.into_iter().partition(|(name, _)| RESERVED.contains(&name.as_str()));
        for (mut name, value) in taken {
            while RESERVED.contains(&name.as_str()) || object.contains_key(&name) {
                name.push('_');
            }
            object.insert(name, value);
        }
        let trace_id = trace_id.map(Value::String);
        let own = [timestamp.into(), level.into(), target.into(), fields.message.into()].map(Some);
        for (name, value) in RESERVED.into_iter().zip(own.into_iter().chain([trace_id])) {
            if let Some(value) = value {
                object.insert(name.to_owned(), value);
            }
        }
        let mut line = escaped(&Value::Object(object).to_string(), |line, character| {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ok = write!(line, "\\u{unit:04x}");
            }
        });
        line.push('\n');
        line
    }
}

fn is_one_word(text: &str) -> bool {
    !text.is_empty() && !text.contains([' ', '"', '='])
}

/// `text` with every character that controls a terminal or the direction of text replaced by what `escape` writes.
fn escaped(text: &str, escape: impl Fn(&mut String, char)) -> String {
    let mut line = String::with_capacity(text.len() + 1);
    for character in text.chars() {
        if steers(character) { escape(&mut line, character) } else { line.push(character) }
    }
    line
}

/// Control characters, line separators, and what changes the direction of text or is invisible
/// (<https://www.unicode.org/reports/tr9/>, <https://www.unicode.org/reports/tr36/>).
fn steers(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
    /// Where a record of the `log` crate says it is from.
    bridged_target: Option<String>,
}

impl Fields {
    fn put(&mut self, name: &str, value: Value) {
        match (name, value) {
            ("message", Value::String(text)) => self.message = text,
            ("log.target", Value::String(text)) => self.bridged_target = Some(text),
            ("log.module_path" | "log.file" | "log.line", _) => {}
            (name, value) => {
                self.others.insert(name.to_owned(), value);
            }
        }
    }
}

/// The queue to the thread that writes.
#[derive(Clone)]
pub(super) struct LineQueue {
    queue: SyncSender<Item>,
    shared: Shared,
}

enum Item {
    Line(String),
    Flush(SyncSender<()>),
}

impl LineQueue {
    /// Starts the thread that writes to `out`. It ends with the last clone of the queue.
    pub(super) fn start(out: Box<dyn Write + Send>, shared: Shared) -> std::io::Result<Self> {
        shared.expect_dropped("log_lines", "queue_full");
        let (queue, items) = sync_channel(LOG_LINES_MAX);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || write_lines(&items, out))?;
        Ok(Self { queue, shared })
    }

    fn push(&self, line: String) {
        match self.queue.try_send(Item::Line(line)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.shared.dropped("log_lines", "queue_full", 1);
            }
        }
    }

    /// Waits until what was logged so far is written, but no longer than `deadline`.
    pub(super) fn flush(&self, deadline: Duration) {
        let (done_tx, done) = sync_channel(1);
        if self.queue.try_send(Item::Flush(done_tx)).is_ok() {
            // Too late means that nobody reads the lines: there is nobody to tell either.
            let _written_or_late = done.recv_timeout(deadline);
        }
    }
}

fn write_lines(items: &Receiver<Item>, out: Box<dyn Write + Send>) {
    let mut out = std::io::BufWriter::new(out);
    while let Ok(first) = items.recv() {
        let mut waiting = Vec::new();
        for item in std::iter::once(first).chain(items.try_iter()) {
            match item {
                // A reader that went away is not a reason to stop serving.
                Item::Line(line) => drop(out.write_all(line.as_bytes())),
                Item::Flush(done) => waiting.push(done),
            }
        }
        drop(out.flush());
        for done in waiting {
            let _nobody_waits = done.try_send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt;

    use super::super::span::SpanIds;
    use super::*;
    use crate::clock::Timestamp;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("no panic while held").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn registry() -> Registry {
        let catalogue: Vec<_> = super::super::metrics::CATALOGUE.iter().map(|d| **d).collect();
        Registry::new(&catalogue).expect("valid")
    }

    fn logged(format: LineFormat, emit: impl FnOnce()) -> String {
        let (registry, buffer) = (registry(), Buffer::default());
        let lines =
            LineQueue::start(Box::new(buffer.clone()), Shared::new(&registry)).expect("a thread starts");
        let (clock, _hand) = Clock::manual(Timestamp::from_millis(0));
        let layer = LogLayer::new(format, lines.clone(), &registry, (clock, ContextLookup::default()));
        tracing::subscriber::with_default(
            tracing_subscriber::registry().with(SpanIds::testing()).with(layer),
            emit,
        );
        lines.flush(Duration::from_secs(5));
        String::from_utf8(buffer.0.lock().expect("no panic while held").clone()).expect("lines are UTF-8")
    }

    #[test]
    fn a_text_line_has_message_then_fields_then_trace() {
        let line = logged(LineFormat::Text, || {
            let _span = tracing::info_span!("agent.send").entered();
            tracing::warn!(attempt = 2, cause = "no route", "request failed");
        });
        let (line, trace) = line.trim_end().split_once(" trace_id=").expect("a trace id");
        let expected = "1970-01-01T00:00:00.000Z  WARN plimsoll::telemetry::log::tests: request failed attempt=2 \
                        cause=\"no route\"";
        assert_eq!((line, trace.len()), (expected, 32));
    }

    #[test]
    fn a_json_line_is_one_object_with_the_same_facts() {
        let line = logged(LineFormat::Json, || tracing::error!(ok = false, text = "two\nlines", "failed"));
        let read: Value = serde_json::from_str(&line).expect("one object");
        assert_eq!((&read["level"], &read["message"]), (&"error".into(), &"failed".into()));
        assert_eq!((&read["ok"], &read["text"]), (&Value::Bool(false), &"two\nlines".into()));
        assert_eq!(line.matches('\n').count(), 1);
    }

    #[test]
    fn a_field_never_takes_the_place_of_what_a_json_line_says_itself() {
        let line = logged(LineFormat::Json, || {
            tracing::info!(level = 9, level_ = "there", trace_id = "theirs", target = "b", "a");
        });
        let read: Value = serde_json::from_str(&line).expect("one object");
        let expected = serde_json::json!({
            "timestamp": "1970-01-01T00:00:00.000Z", "level": "info", "message": "a",
            "target": "plimsoll::telemetry::log::tests", "target_": "b",
            "level_": "there", "level__": 9, "trace_id_": "theirs",
        });
        assert_eq!(read, expected);
    }

    #[test]
    fn no_writer_lets_a_character_through_that_steers_a_terminal() {
        let hostile = "a\u{1b}[2Jb\u{202e}c\rd\u{9b}e\u{2066}f\u{200b}g\u{e0041}h\u{7f}i\u{2028}j";
        for format in [LineFormat::Text, LineFormat::Json] {
            let line = logged(format, || {
                tracing::info!(one = hostile, two = ?hostile, three = %hostile, "{hostile}");
            });
            let line = line.strip_suffix('\n').expect("one line");
            assert!(!line.chars().any(steers), "{line:?}");
        }
        let line = logged(LineFormat::Json, || tracing::info!("{hostile}"));
        let read: Value = serde_json::from_str(&line).expect("still JSON");
        assert_eq!(read["message"], hostile);
    }

    /// The writer hangs until the test lets it go; the queue holds its maximum and counts the rest.
    #[test]
    fn a_reader_that_hangs_costs_lines_but_no_time() {
        struct Hangs(Receiver<()>);
        impl Write for Hangs {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                let _let_go = self.0.recv();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let registry = registry();
        let (let_go, held) = sync_channel(0);
        let lines = LineQueue::start(Box::new(Hangs(held)), Shared::new(&registry)).expect("a thread starts");
        let pushed = LOG_LINES_MAX * 3;
        (0..pushed).for_each(|_| lines.push("line\n".repeat(10)));
        let dropped = registry.render();
        let dropped = dropped.lines().find(|line| line.contains("log_lines")).expect("counted");
        let dropped: usize = dropped.rsplit(' ').next().and_then(|n| n.parse().ok()).expect("a number");
        // What the thread took before its buffer filled is not lost.
        assert!(dropped >= LOG_LINES_MAX && dropped <= pushed - LOG_LINES_MAX, "{dropped}");
        drop(let_go);
    }
}
