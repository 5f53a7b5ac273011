//! Every metric there is: from this list come help texts, buckets, `plimsoll metrics` and the documentation.

use crate::telemetry::Registry;
use crate::telemetry::metric::Definition;
use crate::{alerts, api, gateway, journal, lifecycle, live, notify, reconciler, telemetry};

/// The lists of all modules.
const MODULES: &[&[&Definition]] = &[
    alerts::metrics::CATALOGUE,
    api::metrics::CATALOGUE,
    gateway::metrics::CATALOGUE,
    journal::metrics::CATALOGUE,
    lifecycle::metrics::CATALOGUE,
    live::metrics::CATALOGUE,
    notify::metrics::CATALOGUE,
    reconciler::metrics::CATALOGUE,
    telemetry::metrics::CATALOGUE,
    telemetry::process::CATALOGUE,
];

/// All definitions, in the order of the modules.
#[must_use]
pub fn all() -> Vec<Definition> {
    MODULES.iter().flat_map(|module| module.iter().map(|definition| **definition)).collect()
}

/// A registry that knows them all.
#[must_use]
pub fn registry() -> Registry {
    Registry::new(&all()).expect("a test builds it from the same list")
}
