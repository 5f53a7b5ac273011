//! What a town really did in a window, beside what would be done at its end.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use schemars::JsonSchema;
use serde::Serialize;

use crate::clock::Timestamp;
use crate::ids::Seq;
use crate::journal::{Actor, Record};
use crate::limits::REPLAY_LISTED_MAX;
use crate::town::event::TownEvent;
use crate::town::plan::{Action, ActionKind};
use crate::town::words::Entity;

/// The comparison. Lists hold the latest 1,000 actions.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Compared {
    /// What the planner did in the window, the latest last.
    pub actions: Vec<TakenAction>,
    /// Earlier ones that are left out.
    pub actions_left_out: usize,
    /// How many of each type there were, those included.
    pub actions_by_type: BTreeMap<ActionKind, usize>,
    /// What was done in the window and would be done again at its end.
    pub in_both: Vec<Deed>,
    /// What would be done at the end and was not done before.
    pub only_planned: Vec<Deed>,
    /// What was done and would not be done again.
    pub only_taken: Vec<Deed>,
}

/// Something that was done.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TakenAction {
    /// Its event.
    pub seq: Seq,
    /// When.
    pub time: Timestamp,
    /// What, and to whom.
    #[serde(flatten)]
    pub deed: Deed,
}

/// An action by its type, and whom it is done to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Deed {
    /// What.
    #[serde(rename = "type")]
    pub kind: ActionKind,
    /// To whom; none if it is the town itself.
    pub entity: Option<Entity>,
}

/// What was seen of a window so far.
#[derive(Debug, Default)]
pub(super) struct Taken {
    latest: VecDeque<TakenAction>,
    by_type: BTreeMap<ActionKind, usize>,
}

impl Taken {
    /// Takes note of an event that the town accepted.
    pub(super) fn note(&mut self, record: &Record, event: &TownEvent) {
        if record.actor != Actor::Planner {
            return;
        }
        let Some((kind, entity)) = ActionKind::of_event(event) else { return };
        *self.by_type.entry(kind).or_default() += 1;
        if self.latest.len() == REPLAY_LISTED_MAX {
            self.latest.pop_front();
        }
        let (seq, time) = (record.seq, record.time);
        self.latest.push_back(TakenAction { seq, time, deed: Deed { kind, entity } });
    }

    pub(super) fn against(self, planned: &[Action]) -> Compared {
        let Self { latest, by_type } = self;
        let deed = |action: &Action| Deed { kind: action.kind, entity: action.entity.clone() };
        let planned: BTreeSet<Deed> = planned.iter().map(deed).collect();
        let taken: BTreeSet<Deed> = latest.iter().map(|action| action.deed.clone()).collect();
        let total: usize = by_type.values().sum();
        Compared {
            actions_left_out: total - latest.len(),
            actions: latest.into(),
            actions_by_type: by_type,
            in_both: planned.intersection(&taken).cloned().collect(),
            only_planned: planned.difference(&taken).cloned().collect(),
            only_taken: taken.difference(&planned).cloned().collect(),
        }
    }
}
