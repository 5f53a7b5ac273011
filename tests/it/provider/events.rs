//! Hears the events that have a source, on the thread of one test.

use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

/// What was heard: each event as `name=value` pairs.
#[derive(Clone, Default)]
pub(crate) struct Heard(Arc<Mutex<Vec<(Level, String)>>>);

impl Heard {
    /// Listens on this thread until the guard is dropped.
    pub(crate) fn listen(&self) -> DefaultGuard {
        tracing::subscriber::set_default(tracing_subscriber::registry().with(Ear(self.clone())))
    }

    /// The error events so far.
    pub(crate) fn errors(&self) -> Vec<String> {
        let heard = self.0.lock().expect("no panic under it");
        heard.iter().filter(|(level, _)| *level == Level::ERROR).map(|(_, text)| text.clone()).collect()
    }
}

struct Ear(Heard);

impl<S: Subscriber> Layer<S> for Ear {
    fn on_event(&self, event: &Event<'_>, _ctx: Context<'_, S>) {
        let mut fields = Fields(String::new());
        event.record(&mut fields);
        if fields.0.contains("source=") {
            self.0.0.lock().expect("no panic under it").push((*event.metadata().level(), fields.0));
        }
    }
}

struct Fields(String);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        let _ = write!(self.0, "{field}={value} ");
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, "{field}={value:?} ");
    }
}
