//! Metrics of towns.
//!
//! The first towns have series of their own, [`TOWN_SERIES_MAX`] of them; the others share `other`, where counters and
//! histograms add up and gauges show the worst of them, or the sum of what is counted. Start at [`Metrics`].

mod declared;
mod gauges;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use declared::CATALOGUE;
use declared::{
    ACTIONS, AGENTS, AGENTS_BY_CLASS, BEADS, EFFECT_SECONDS, EFFECTS, EVENTS_DRAINED, LAST_TICK_SECONDS,
    OBSERVE_SECONDS, OUTCOMES, PENDING_EVENTS, REJECTED_EVENTS, STATUS_SUPPRESSED, TICK_OVERDUE_SECONDS,
    TICK_RUNNING_SECONDS, TICK_SECONDS, VIOLATIONS, VIOLATIONS_OPEN,
};
pub use gauges::TownGauges;

use crate::ids::TownId;
use crate::limits::TOWN_SERIES_MAX;
use crate::telemetry::Registry;
use crate::telemetry::metric::{Counters, Gauges, Histograms};
use crate::town::invariant::INVARIANTS;
use crate::town::plan::ActionKind;
use crate::town::words::{AgentStatus, BeadStatus, StuckClass};

/// The label that towns without series of their own share. A town of this name is always one of them.
const OTHER: &str = "other";

/// The metrics of all towns. Cheap to clone.
#[derive(Clone)]
pub struct Metrics(Arc<Families>);

struct Families {
    /// The labels of [`INVARIANTS`], by number.
    invariants: BTreeMap<u8, String>,
    slots: Mutex<Slots>,
    ticks: Histograms<1>,
    observations: Histograms<1>,
    effect_seconds: Histograms<1>,
    drained: Counters<1>,
    actions: Counters<2>,
    effects: Counters<2>,
    rejected: Counters<1>,
    suppressed: Counters<1>,
    violations: Counters<2>,
    last_tick: Gauges<1>,
    running: Gauges<1>,
    overdue: Gauges<1>,
    pending: Gauges<1>,
    open: Gauges<2>,
    agents: Gauges<2>,
    classes: Gauges<2>,
    beads: Gauges<2>,
}

/// Who has series. A std mutex suffices: a hold is a look-up.
#[derive(Default)]
struct Slots {
    /// Towns with series of their own.
    own: BTreeSet<TownId>,
    /// Whether any town ever had none.
    shared: bool,
}

/// What is counted of one town. Cheap to clone.
#[derive(Clone)]
pub struct TownMetrics(Arc<Handles>);

struct Handles {
    ticks: metrics::Histogram,
    observations: metrics::Histogram,
    effect_seconds: metrics::Histogram,
    drained: metrics::Counter,
    actions: BTreeMap<ActionKind, metrics::Counter>,
    attempted: metrics::Counter,
    succeeded: metrics::Counter,
    failed: metrics::Counter,
    rejected: metrics::Counter,
    suppressed: metrics::Counter,
    violations: BTreeMap<u8, metrics::Counter>,
}

impl Metrics {
    /// No town yet.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        let label = |number: u8, name: &str| (number, format!("{number}_{name}"));
        Self(Arc::new(Families {
            invariants: INVARIANTS.iter().map(|known| label(known.number, known.name)).collect(),
            slots: Mutex::default(),
            ticks: registry.histograms(&TICK_SECONDS),
            observations: registry.histograms(&OBSERVE_SECONDS),
            effect_seconds: registry.histograms(&EFFECT_SECONDS),
            drained: registry.counters(&EVENTS_DRAINED),
            actions: registry.counters(&ACTIONS),
            effects: registry.counters(&EFFECTS),
            rejected: registry.counters(&REJECTED_EVENTS),
            suppressed: registry.counters(&STATUS_SUPPRESSED),
            violations: registry.counters(&VIOLATIONS),
            last_tick: registry.gauges(&LAST_TICK_SECONDS),
            running: registry.gauges(&TICK_RUNNING_SECONDS),
            overdue: registry.gauges(&TICK_OVERDUE_SECONDS),
            pending: registry.gauges(&PENDING_EVENTS),
            open: registry.gauges(&VIOLATIONS_OPEN),
            agents: registry.gauges(&AGENTS),
            classes: registry.gauges(&AGENTS_BY_CLASS),
            beads: registry.gauges(&BEADS),
        }))
    }

    /// What is counted of this town, at 0 where nothing was. At boot it is called in the order in which the towns were made,
    /// so that each finds its series again after a restart.
    #[must_use]
    pub fn town(&self, town: &TownId) -> TownMetrics {
        let families = &*self.0;
        let (label, birth) = families.slots().admit(town);
        if birth == Birth::Now {
            families.show(label, &TownGauges::none(town.clone()));
        }
        TownMetrics(Arc::new(families.handles(label)))
    }

    /// Brings the gauges of all towns up to date. Called before rendering, with every town there is.
    pub fn show(&self, towns: &[TownGauges]) {
        let families = &*self.0;
        let slots = families.slots();
        let (own, others): (Vec<_>, Vec<_>) =
            towns.iter().partition(|gauges| slots.own.contains(&gauges.town));
        let shared = slots.shared;
        drop(slots);
        for gauges in own {
            families.show(gauges.town.as_str(), gauges);
        }
        if shared {
            let other = TownId::parse(OTHER).expect("a word of small letters");
            let worst = others.into_iter().fold(TownGauges::none(other), TownGauges::or_worse);
            families.show(OTHER, &worst);
        }
    }
}

impl Families {
    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handles(&self, town: &str) -> Handles {
        let action = |kind: ActionKind| (kind, self.actions.with([town, kind.as_str()]));
        let violation = |(number, label): (&u8, &String)| (*number, self.violations.with([town, label]));
        let [attempted, succeeded, failed] = OUTCOMES.map(|outcome| self.effects.with([town, outcome]));
        Handles {
            ticks: self.ticks.with([town]),
            observations: self.observations.with([town]),
            effect_seconds: self.effect_seconds.with([town]),
            drained: self.drained.with([town]),
            actions: ActionKind::ALL.into_iter().map(action).collect(),
            attempted,
            succeeded,
            failed,
            rejected: self.rejected.with([town]),
            suppressed: self.suppressed.with([town]),
            violations: self.invariants.iter().map(violation).collect(),
        }
    }

    fn show(&self, label: &str, gauges: &TownGauges) {
        let TownGauges { town: _, pending, running, overdue, last_tick, open, agents, classes, beads } =
            gauges;
        self.pending.with([label]).set(*pending as f64);
        self.running.with([label]).set(running.as_secs_f64());
        self.overdue.with([label]).set(overdue.as_secs_f64());
        self.last_tick.with([label]).set(last_tick.as_secs_f64());
        for (number, invariant) in &self.invariants {
            self.open.with([label, invariant]).set(count(open, number));
        }
        for status in AgentStatus::ALL {
            self.agents.with([label, status.as_str()]).set(count(agents, status));
        }
        for class in StuckClass::ALL {
            self.classes.with([label, class.as_str()]).set(count(classes, class));
        }
        for status in BeadStatus::ALL {
            self.beads.with([label, status.as_str()]).set(count(beads, status));
        }
    }
}

fn count<K: Ord>(counts: &BTreeMap<K, u64>, key: &K) -> f64 {
    counts.get(key).copied().unwrap_or_default() as f64
}

/// When the series of a label were made.
#[derive(PartialEq, Eq)]
enum Birth {
    Now,
    Before,
}

impl Slots {
    /// The label of a town: its own name if there is room, from now on.
    fn admit<'a>(&mut self, town: &'a TownId) -> (&'a str, Birth) {
        if self.own.contains(town) {
            return (town.as_str(), Birth::Before);
        }
        if self.own.len() < TOWN_SERIES_MAX && town.as_str() != OTHER {
            self.own.insert(town.clone());
            return (town.as_str(), Birth::Now);
        }
        let birth = if self.shared { Birth::Before } else { Birth::Now };
        self.shared = true;
        (OTHER, birth)
    }
}

impl TownMetrics {
    /// A tick ended, and took so long.
    pub fn tick_ended(&self, wall: Duration) {
        self.0.ticks.record(wall.as_secs_f64());
    }

    /// What hosts the agents was looked at, which took so long.
    pub fn observed(&self, took: Duration) {
        self.0.observations.record(took.as_secs_f64());
    }

    /// An effect begins.
    pub fn effect_attempted(&self) {
        self.0.attempted.increment(1);
    }

    /// An effect ended after so long.
    pub fn effect_ended(&self, took: Duration, succeeded: bool) {
        self.0.effect_seconds.record(took.as_secs_f64());
        let outcome = if succeeded { &self.0.succeeded } else { &self.0.failed };
        outcome.increment(1);
    }

    /// So many events were folded.
    pub fn drained(&self, events: u64) {
        self.0.drained.increment(events);
    }

    /// An action was accepted.
    pub fn acted(&self, action: ActionKind) {
        self.0.actions.get(&action).expect("each kind has a handle").increment(1);
    }

    /// So many events were rejected.
    pub fn rejected(&self, events: u64) {
        self.0.rejected.increment(events);
    }

    /// So many observations said nothing new.
    pub fn status_suppressed(&self, observations: u64) {
        self.0.suppressed.increment(observations);
    }

    /// So many episodes of this invariant were opened: one by one once their record is durable, and all that the fold
    /// counted at boot, before anything is served. A number that is no invariant's counts nowhere.
    pub fn violated(&self, invariant: u8, times: u64) {
        if let Some(violations) = self.0.violations.get(&invariant) {
            violations.increment(times);
        }
    }
}
