//! Instances where a test needs none.

use std::sync::Arc;

use plimsoll::clock::Clock;
use plimsoll::journal::{Journal, MemoryJournal};
use plimsoll::lifecycle::{Instances, InstancesParts};
use plimsoll::telemetry::Registry;

/// None at all.
pub(crate) fn no_instances(
    journal: &Arc<MemoryJournal>,
    registry: &Registry,
    clock: &Clock,
) -> Arc<Instances> {
    let journal = Arc::clone(journal) as Arc<dyn Journal>;
    Arc::new(Instances::new(InstancesParts::bare(Arc::default(), journal, registry, clock)))
}
