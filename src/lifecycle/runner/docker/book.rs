//! Which containers are ours. A label proves nothing: a container is ours if the journal says that one of its name was
//! planned, and the name was in nobody else's hands before that.

use std::path::Path;
use std::sync::Arc;

use tokio::time::timeout;

use crate::clock::Timestamp;
use crate::ids::AgentId;
use crate::journal::{Actor, Append, Journal, StreamId};
use crate::lifecycle::ledger::Planned;
use crate::lifecycle::machine::Fact;
use crate::lifecycle::{EngineConfig, Ledger};
use crate::limits::{CONTAINER_LATE_MAX, JOURNAL_APPEND_WAIT};

/// See the module. One for all instances; it knows the containers of one engine.
#[derive(Clone)]
pub struct ContainerBook {
    ledger: Arc<Ledger>,
    journal: Arc<dyn Journal>,
    engine: Arc<str>,
}

impl ContainerBook {
    /// A book over this journal, whose fold the ledger is.
    #[must_use]
    pub fn new(ledger: Arc<Ledger>, journal: Arc<dyn Journal>, config: &EngineConfig) -> Self {
        Self { ledger, journal, engine: place(&config.address).into() }
    }

    /// The names of containers of this instance that may be there.
    #[must_use]
    pub fn names(&self, instance: &AgentId) -> Vec<String> {
        let planned = self.ledger.containers(instance).into_iter();
        planned.filter(|(_, planned)| *planned.engine == *self.engine).map(|(name, _)| name).collect()
    }

    /// Every instance that containers may be there of.
    #[must_use]
    pub fn instances(&self) -> Vec<AgentId> {
        let mut instances = self.ledger.with_containers();
        instances.retain(|instance| !self.names(instance).is_empty());
        instances
    }

    /// Tells the operator what another engine may have of ours: nothing is done about it.
    pub fn tell_elsewhere(&self) {
        for instance in self.ledger.with_containers() {
            for (container, Planned { engine, at: _ }) in self.ledger.containers(&instance) {
                if *engine != *self.engine {
                    tracing::warn!(
                        source = "lifecycle", %instance, container, engine,
                        "a container of ours may be on an engine that `engine.address` no longer names: name it once \
                         more and start plimsoll to have the container kept or removed"
                    );
                }
            }
        }
    }

    /// Whether a container of this name that is not there may still come: nobody heard what became of the order to make
    /// it.
    pub(super) fn may_come(&self, instance: &AgentId, name: &str, now: Timestamp) -> bool {
        let planned = self.ledger.containers(instance).remove(name);
        planned.is_some_and(|planned| now.since(planned.at) < CONTAINER_LATE_MAX)
    }

    /// Whether the container of this name, which somebody else made, may run because plimsoll started it.
    pub(super) fn may_be_up(&self, instance: &AgentId, name: &str) -> bool {
        self.ledger.may_be_up(instance) && self.ledger.started(instance).as_deref() == Some(name)
    }

    /// Whether it was up, in the container of this name or, without one, in one that was made, and nobody saw its end.
    pub(super) fn was_up(&self, instance: &AgentId, name: Option<&str>) -> bool {
        self.ledger.was_up(instance) && self.ledger.started(instance).as_deref() == name
    }

    /// A container that somebody else made is about to be started. Once this is `Ok`, that is known.
    ///
    /// # Errors
    /// Why it may not be started.
    pub(super) async fn starting(&self, instance: &AgentId, name: &str) -> Result<(), String> {
        self.write(instance, &Fact::ContainerStarting { name: name.into() }).await
    }

    /// A container of this name is about to be made. Once this is `Ok`, that is known for ever.
    ///
    /// # Errors
    /// Why it may not be made.
    pub(super) async fn plan(&self, instance: &AgentId, name: &str, image: &str) -> Result<(), String> {
        let engine = Arc::clone(&self.engine);
        self.write(instance, &Fact::ContainerPlanned { name: name.into(), image: image.into(), engine }).await
    }

    /// There is none of this name any more, and none will come. Where that cannot be written down, it is found out again.
    pub(super) async fn gone(&self, instance: &AgentId, name: &str) {
        if let Err(error) = self.write(instance, &Fact::ContainerRemoved { name: name.into() }).await {
            tracing::warn!(source = "lifecycle", %instance, %error, "that a container is gone is not written down");
        }
    }

    async fn write(&self, instance: &AgentId, fact: &Fact) -> Result<(), String> {
        let stream = StreamId::instance(instance);
        let records = vec![fact.record(Actor::System, None)];
        let appended = self.journal.append(Append { stream, expected_last_seq: None, records });
        match timeout(JOURNAL_APPEND_WAIT, appended).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("the journal took more than {JOURNAL_APPEND_WAIT:?} for it")),
        }
    }
}

/// An address, the same whichever of its names the directory of a socket has (`/var/run` is `/run`), and whether that is
/// there.
fn place(address: &str) -> String {
    let Some(socket) = address.strip_prefix("unix://").map(Path::new) else { return address.to_owned() };
    let real = socket.ancestors().skip(1).find_map(|above| {
        let rest = socket.strip_prefix(above).ok()?;
        Some(above.canonicalize().ok()?.join(rest))
    });
    format!("unix://{}", real.unwrap_or_else(|| socket.to_owned()).display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::journal::MemoryJournal;

    #[tokio::test]
    async fn a_container_may_come_late_and_stays_with_its_engine() {
        let (clock, time) = Clock::manual(Timestamp::from_millis(1_000));
        let ledger = Arc::new(Ledger::default());
        let journal: Arc<dyn Journal> =
            Arc::new(MemoryJournal::new(clock.clone(), vec![Arc::clone(&ledger) as _]));
        let book = |address: &str| {
            let config = EngineConfig { address: address.to_owned(), ..EngineConfig::default() };
            ContainerBook::new(Arc::clone(&ledger), Arc::clone(&journal), &config)
        };
        let (here, there, one) =
            (book("tcp://a:1"), book("tcp://b:1"), AgentId::parse("one").expect("valid"));
        here.plan(&one, "plimsoll-one-1", "acme/agent:1").await.expect("written");
        assert_eq!(
            (here.names(&one), here.instances()),
            (vec!["plimsoll-one-1".to_owned()], vec![one.clone()])
        );
        assert_eq!((there.names(&one), there.instances()), (vec![], vec![]));
        let may_come = || here.may_come(&one, "plimsoll-one-1", clock.now());
        assert!(may_come());
        time.advance(CONTAINER_LATE_MAX);
        assert!(!may_come());
        assert!(!here.may_come(&one, "plimsoll-one-2", clock.now()), "it was not planned");
    }

    #[test]
    fn a_socket_has_one_place_whatever_its_directory_is_called() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path().canonicalize().expect("there");
        std::fs::create_dir(dir.join("run")).expect("made");
        std::os::unix::fs::symlink(dir.join("run"), dir.join("var")).expect("made");
        let of = |name: &str| place(&format!("unix://{}/{name}/docker.sock", dir.display()));
        assert_eq!((of("run"), of("var")), (of("var"), of("run")));
        assert!(of("var").ends_with("/run/docker.sock"), "{}", of("var"));
        assert_eq!(of("var/user"), of("run/user"), "not there yet");
        assert_eq!(place("tcp://engine:2375"), "tcp://engine:2375");
    }
}
