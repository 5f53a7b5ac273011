//! Which containers are ours. A label proves nothing: a container is ours if the journal says that one of its name was
//! planned, and the name was in nobody else's hands before that.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::time::timeout;

use crate::ids::AgentId;
use crate::journal::{Actor, Append, Journal, StreamId};
use crate::lifecycle::Ledger;
use crate::lifecycle::machine::Fact;
use crate::limits::JOURNAL_APPEND_WAIT;

/// See the module. One for all instances.
#[derive(Clone)]
pub struct ContainerBook {
    ledger: Arc<Ledger>,
    journal: Arc<dyn Journal>,
}

impl ContainerBook {
    /// A book over this journal, whose fold the ledger is.
    #[must_use]
    pub fn new(ledger: Arc<Ledger>, journal: Arc<dyn Journal>) -> Self {
        Self { ledger, journal }
    }

    /// The names of containers of this instance that may be there.
    pub(super) fn names(&self, instance: &AgentId) -> BTreeSet<String> {
        self.ledger.containers(instance)
    }

    /// Every instance that containers may be there of.
    pub(super) fn instances(&self) -> Vec<AgentId> {
        self.ledger.with_containers()
    }

    /// Whether it may run because plimsoll started it.
    pub(super) fn may_be_up(&self, instance: &AgentId) -> bool {
        self.ledger.may_be_up(instance)
    }

    /// Whether it was up, and nobody saw its end.
    pub(super) fn was_up(&self, instance: &AgentId) -> bool {
        self.ledger.was_up(instance)
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
        self.write(instance, &Fact::ContainerPlanned { name: name.into(), image: image.into() }).await
    }

    /// There is none of this name any more.
    ///
    /// # Errors
    /// Why that could not be written down. It will be found out again.
    pub(super) async fn gone(&self, instance: &AgentId, name: &str) -> Result<(), String> {
        self.write(instance, &Fact::ContainerRemoved { name: name.into() }).await
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
