//! Hears the events that have a source, on the thread of one test.

use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use crate::support::subscriber::listen;

/// What was heard: each event as `name=value` pairs.
#[derive(Clone, Default)]
pub(crate) struct Heard(Arc<Mutex<Vec<(Level, String)>>>);

impl Heard {
    /// Listens on this thread until the guard is dropped.
    pub(crate) fn listen(&self) -> DefaultGuard {
        listen(Ear(self.clone()))
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

#[test]
fn what_another_thread_met_first_is_heard() {
    let say = || tracing::error!(source = "test", "something");
    let heard = Heard::default();
    let _listening = heard.listen();
    std::thread::spawn(say).join().expect("no panic");
    assert!(heard.errors().is_empty(), "it is another's");
    say();
    assert_eq!(heard.errors().len(), 1);
}
