//! Towns whose part of a snapshot cannot be read: each is made anew from an older one, or from its first event. Where
//! nothing is left of that, it is put aside, and kept as it was written down for a plimsoll that can read it.

use std::sync::Arc;

use super::cell::Cell;
use super::history::{History, LastRead, Past};
use super::ledger::Towns;
use super::replay::ReplayError;
use super::turn;
use crate::ids::TownId;
use crate::journal::Journal;

/// Makes those anew of which that can be done; to be called before anybody writes to them.
pub(super) async fn heal(towns: &Towns, journal: &Arc<dyn Journal>) {
    let last_read = Arc::<LastRead>::default();
    for cell in towns.list().into_iter().filter(|cell| cell.unread().is_some()) {
        let (id, journal, last_read) = (cell.id.clone(), Arc::clone(journal), Arc::clone(&last_read));
        match turn::blocking(move || made_anew(&id, &*journal, &last_read)).await {
            Ok(Some(healed)) => {
                cell.heal(&healed);
                tracing::warn!(source = "reconciler", town = %cell.id, "a town whose snapshot cannot be read was made anew from its events");
            }
            Ok(None) => {
                tracing::error!(source = "reconciler", town = %cell.id, "a town whose snapshot cannot be read has events that cannot be taken in");
            }
            Err(error) => {
                tracing::error!(source = "reconciler", town = %cell.id, %error, "a town whose snapshot cannot be read cannot be made anew from its events");
            }
        }
    }
}

fn made_anew(
    town: &TownId,
    journal: &dyn Journal,
    last_read: &LastRead,
) -> Result<Option<Cell>, ReplayError> {
    let (history, last_read) = (History::Live(journal), Some(last_read));
    Past { history, town, go_on: &|| true, last_read }.cell()
}
