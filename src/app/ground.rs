//! What many parts are built on, and the share that each takes of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::clock::Clock;
use crate::gateway::{self, Gateway, GatewayParts};
use crate::journal::{Fold, Journal, JournalDeps};
use crate::lifecycle::{Hosts, Instances, InstancesParts};
use crate::live::Live;
use crate::notify::{Notifier, NotifierParts, WebhookConfig};
use crate::reconciler::{ReconcilerParts, Strain};
use crate::telemetry::{Registry, SentryConfig, Shared};

/// See the module.
pub(super) struct Ground {
    pub(super) live: Arc<Live>,
    pub(super) journal: Arc<dyn Journal>,
    pub(super) registry: Registry,
    pub(super) shared: Shared,
    pub(super) clock: Clock,
}

impl Ground {
    /// The parts of a gateway with no agents yet, over what hosts them.
    pub(super) fn gateway(&self, hosts: Hosts) -> GatewayParts {
        let instances = InstancesParts {
            hosts,
            ledger: Arc::default(),
            journal: Arc::clone(&self.journal),
            registry: self.registry.clone(),
            shared: self.shared.clone(),
            clock: self.clock.clone(),
        };
        GatewayParts {
            config: gateway::Config::default(),
            agents: BTreeMap::new(),
            providers: BTreeMap::new(),
            instances: Arc::new(Instances::new(instances)),
            read_entry: Arc::new(|_, _| Err(Vec::new())),
            live: Arc::clone(&self.live),
            journal: Arc::clone(&self.journal),
            registry: self.registry.clone(),
            shared: self.shared.clone(),
            clock: self.clock.clone(),
        }
    }

    /// What the journal is opened with.
    pub(super) fn journal(&self, folds: impl Iterator<Item = Arc<dyn Fold>>) -> JournalDeps {
        JournalDeps { clock: self.clock.clone(), registry: self.registry.clone(), folds: folds.collect() }
    }

    /// Tells people outside from now on; the journal is open.
    pub(super) fn notifier(
        &self,
        webhooks: &BTreeMap<String, WebhookConfig>,
        sentry: &SentryConfig,
    ) -> Notifier {
        Notifier::start(NotifierParts {
            webhooks,
            sentry,
            journal: Arc::clone(&self.journal),
            registry: &self.registry,
            shared: self.shared.clone(),
            clock: self.clock.clone(),
        })
    }

    /// The parts of a reconciler with no towns yet.
    pub(super) fn reconciler(&self, gateway: &Gateway) -> ReconcilerParts {
        ReconcilerParts {
            towns: BTreeMap::new(),
            gateway: gateway.clone(),
            journal: Arc::clone(&self.journal),
            registry: self.registry.clone(),
            clock: self.clock.clone(),
            strain: Strain::default(),
        }
    }
}
