//! What many parts are built on, and the share that each takes of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::alerts::Alerts;
use crate::clock::Clock;
use crate::config::{Config, secrets};
use crate::gateway::{self, Gateway, GatewayParts};
use crate::journal::{Fold, Journal, JournalDeps};
use crate::lifecycle::{Hosts, Instances, InstancesParts};
use crate::live::Live;
use crate::notify::{Notifier, NotifierParts, WebhookConfig};
use crate::process::Processes;
use crate::provider::{Mask, ProviderDeps};
use crate::reconciler::ReconcilerParts;
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
            templates: BTreeMap::new(),
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

    /// Takes alerts in once the journal is open.
    pub(super) fn alerts(&self) -> Arc<Alerts> {
        Arc::new(Alerts::new(&self.registry, &self.shared, self.clock.clone()))
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
        }
    }
}

/// What every provider gets.
pub(super) fn provider_deps(
    config: &Config,
    live: &Arc<Live>,
    clock: &Clock,
    processes: Processes,
) -> ProviderDeps {
    let mask = Mask::new(secrets(config, &|name| std::env::var_os(name)));
    let prices = Arc::new(config.prices.clone());
    ProviderDeps { prices, live: Arc::clone(live), clock: clock.clone(), mask, processes }
}
