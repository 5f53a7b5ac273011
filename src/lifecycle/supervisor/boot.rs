//! The beginning: what became of instances since the last record of them, and the instances of the configuration.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::{Instances, Kept};
use crate::ids::AgentId;
use crate::journal::{Actor, Append, AppendError, NewRecord, StreamId};
use crate::lifecycle::config::{HostKind, InstanceConfig};
use crate::lifecycle::machine::{Fact, LostAction};
use crate::lifecycle::{hosts, record};
use crate::process::LeftBehind;

/// An instance as the configuration has it.
#[derive(Debug, Clone)]
pub struct Configured {
    /// Its own keys.
    pub config: InstanceConfig,
    /// Where a process works.
    pub cwd: Option<PathBuf>,
}

impl Configured {
    /// Whether it could be kept: looks at nothing but the configuration.
    ///
    /// # Errors
    /// Says what is wrong with what hosts it.
    pub fn check(&self) -> Result<(), String> {
        hosts::host(&self.config, self.cwd.as_deref()).map(drop)
    }

    /// Whether containers are made for it: what is there of these is its runner's affair.
    fn makes_containers(&self) -> bool {
        self.config.container.as_ref().is_some_and(|container| container.name.is_none())
    }
}

/// Why an instance cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the instance of agent {instance} cannot be kept: {problem}")]
pub struct Unkept {
    /// The agent.
    pub instance: AgentId,
    /// Why, and what would help.
    pub problem: String,
}

impl Instances {
    /// Begins, once the journal is open: writes down which agents are gone and what an earlier plimsoll lost, publishes
    /// what was counted, then keeps these; hot ones start. Those that are `known` are not gone, and not kept either.
    ///
    /// # Errors
    /// [`Unkept`]; nothing is kept then.
    pub async fn open(
        &self,
        configured: impl IntoIterator<Item = (AgentId, Configured)>,
        known: &BTreeSet<AgentId>,
    ) -> Result<(), Unkept> {
        let (mut all, mut making) = (Vec::new(), known.clone());
        for (id, configured) in configured {
            if configured.makes_containers() {
                making.insert(id.clone());
            }
            let kept = self.kept(&id, &configured)?;
            all.push((id, kept));
        }
        for id in self.ledger.known() {
            if !known.contains(&id) && !all.iter().any(|(kept, _)| *kept == id) {
                // Where it cannot be written, the next start tries again.
                let _ = self.write(&id, record::removed(Actor::System)).await;
            }
        }
        for (id, kept) in &all {
            if let Some(lost) = self.lost(id, kept) {
                let _ = self.write(id, lost).await;
            }
        }
        self.ledger.publish(&self.metrics);
        self.remove_left(self.book.instances().into_iter().filter(|id| !making.contains(id)));
        self.book.tell_elsewhere();
        all.into_iter().for_each(|(id, kept)| self.keep(id, kept));
        Ok(())
    }

    /// One more, made after the beginning.
    ///
    /// # Errors
    /// [`Unkept`].
    pub fn add(&self, id: &AgentId, configured: &Configured) -> Result<(), Unkept> {
        let kept = self.kept(id, configured)?;
        if configured.makes_containers() {
            self.leavings.spare(id);
        }
        self.keep(id.clone(), kept);
        Ok(())
    }

    /// Whether something is counted of an instance of this name.
    #[must_use]
    pub fn remembers(&self, id: &AgentId) -> bool {
        self.ledger.known().contains(id)
    }

    /// Writes down that its agent was deleted: what was counted begins again.
    ///
    /// # Errors
    /// [`AppendError`]; what was counted is remembered then.
    pub async fn erase(&self, id: &AgentId, actor: Actor) -> Result<(), AppendError> {
        self.write(id, record::removed(actor)).await
    }

    /// Removes the containers that are left of one that is no longer kept, beside all else.
    pub fn remove_left_of(&self, id: &AgentId) {
        self.remove_left(Some(id.clone()).filter(|id| !self.book.names(id).is_empty()));
    }

    fn kept(&self, id: &AgentId, Configured { config, cwd }: &Configured) -> Result<Kept, Unkept> {
        let runner = self.hosts.runner(id, config, cwd.as_deref(), &self.book);
        let runner = runner.map_err(|problem| Unkept { instance: id.clone(), problem })?;
        Ok(Kept { policy: config.policy(), runner })
    }

    /// What became of a process: it cannot outlive plimsoll. A container can, and is looked for by its runner.
    fn lost(&self, id: &AgentId, kept: &Kept) -> Option<NewRecord> {
        if kept.runner.kind() != HostKind::Process {
            return None;
        }
        let action = match (self.hosts.left_behind(id), self.ledger.was_up(id)) {
            (Some(LeftBehind::Ended), _) => LostAction::Stopped,
            (None, true) => LostAction::Gone,
            // One that may run still is not lost: what was seen of it is in the log.
            (Some(LeftBehind::Stays), _) | (None, false) => return None,
        };
        Some(Fact::Lost { action, container: None }.record(Actor::System, None))
    }

    fn remove_left(&self, gone: impl IntoIterator<Item = AgentId>) {
        let mut gone = gone.into_iter().peekable();
        if gone.peek().is_some() {
            self.leavings.remove(gone, || (self.hosts.engine(), self.book.clone()));
        }
    }

    async fn write(&self, id: &AgentId, record: NewRecord) -> Result<(), AppendError> {
        let append =
            Append { stream: StreamId::instance(id), expected_last_seq: None, records: vec![record] };
        let written = self.journal.append(append).await.map(drop);
        written.inspect_err(|error| {
            tracing::error!(source = "lifecycle", instance = %id, %error, "what became of an instance is not written");
        })
    }
}
