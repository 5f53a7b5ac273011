//! Every town that the journal tells of: its fold.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard};

use serde_json::{Map, Value};

use super::cell::Cell;
use super::metrics::Metrics;
use crate::ids::{Seq, TownId};
use crate::journal::{Fold, Record, StreamKind};

/// See the module.
#[derive(Default)]
pub struct Towns {
    /// A std lock suffices: it is written when a town comes.
    all: RwLock<BTreeMap<TownId, Arc<Cell>>>,
    /// Violations that were ever opened, by town and invariant.
    opened: Mutex<BTreeMap<TownId, BTreeMap<u8, u64>>>,
    /// Steps with each violation, once those of before stand there too.
    metrics: OnceLock<Metrics>,
}

impl Towns {
    pub(super) fn get(&self, town: &TownId) -> Option<Arc<Cell>> {
        self.all().get(town).cloned()
    }

    /// All of them, by id.
    pub(super) fn list(&self) -> Vec<Arc<Cell>> {
        self.all().values().cloned().collect()
    }

    /// The cell of a town that is configured, which may have no event yet.
    pub(super) fn open(&self, town: &TownId) -> Arc<Cell> {
        if let Some(cell) = self.get(town) {
            return cell;
        }
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(town.clone()).or_insert_with(|| Arc::new(Cell::new(town.clone()))))
    }

    /// Makes the restored counters stand at what was counted before, and step from now on. To be called once, when the
    /// journal is open.
    pub(super) fn publish(&self, metrics: &Metrics) {
        // Under the lock: no record comes between what was counted and the next step.
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let mut cells = self.list();
        // The first towns have series of their own: the same ones as before a restart.
        cells.sort_by_key(|cell| cell.created());
        for cell in cells {
            cell.settle();
            let town = metrics.town(&cell.id);
            for (invariant, times) in opened.get(&cell.id).into_iter().flatten() {
                town.violated(*invariant, *times);
            }
        }
        let first = self.metrics.set(metrics.clone());
        assert!(first.is_ok(), "what was counted is published once");
    }

    fn all(&self) -> RwLockReadGuard<'_, BTreeMap<TownId, Arc<Cell>>> {
        self.all.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an episode that the town took in.
    fn count(&self, cell: &Cell, record: &Record) {
        let refused = || cell.drained().untold.iter().any(|refused| refused.seq == record.seq);
        if record.kind != "violation_opened" || refused() {
            return;
        }
        let town = &cell.id;
        let invariant = record.detail["invariant"].as_u64().and_then(|number| u8::try_from(number).ok());
        let Some(invariant) = invariant else { return };
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let times = opened.entry(town.clone()).or_default().entry(invariant).or_default();
        *times = times.saturating_add(1);
        if let Some(metrics) = self.metrics.get() {
            metrics.town(town).violated(invariant, 1);
        }
    }
}

impl Fold for Towns {
    fn name(&self) -> &'static str {
        "towns"
    }

    fn wants(&self) -> StreamKind {
        StreamKind::Town
    }

    fn apply(&self, record: &Record) {
        let Some(town) = record.stream.town_id() else { return };
        let cell = self.open(&town);
        cell.push(record.clone());
        if self.metrics.get().is_none() {
            // A journal that opens: nobody plans yet, and what is read back need not be held.
            cell.settle();
        }
        self.count(&cell, record);
    }

    fn snapshot(&self) -> Value {
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let of = |cell: &Arc<Cell>| {
            let mut kept = cell.snapshot();
            let opened = opened.get(&cell.id).map_or(Value::Null, |times| {
                Value::from_iter(times.iter().map(|(invariant, times)| (invariant.to_string(), *times)))
            });
            // What cannot be read may be no object.
            if let Some(kept) = kept.as_object_mut() {
                kept.insert("opened".to_owned(), opened);
            }
            (cell.id.to_string(), kept)
        };
        Value::Object(
            self.list().iter().filter(|cell| cell.created() > Seq(0)).map(of).collect::<Map<_, _>>(),
        )
    }

    fn restore(&self, snapshot: &Value) -> Result<(), String> {
        let towns = snapshot.as_object().ok_or("it is no map of towns")?;
        let (mut all, mut opened) = (BTreeMap::new(), BTreeMap::new());
        for (id, kept) in towns {
            let id = TownId::parse(id).map_err(|error| error.to_string())?;
            let times = kept["opened"].as_object().into_iter().flatten();
            let times =
                times.filter_map(|(invariant, times)| Some((invariant.parse().ok()?, times.as_u64()?)));
            opened.insert(id.clone(), times.collect());
            // One that cannot be read costs the others nothing, and is kept.
            let cell = Cell::restore(id.clone(), kept).unwrap_or_else(|cause| {
                tracing::error!(source = "reconciler", town = %id, cause, "a town's snapshot cannot be read");
                Cell::unreadable(id.clone(), kept.clone(), cause)
            });
            all.insert(id, Arc::new(cell));
        }
        *self.all.write().unwrap_or_else(PoisonError::into_inner) = all;
        *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = opened;
        Ok(())
    }

    /// What a town was told and is lost, nobody can tell: invariants show what does not fit.
    fn records_lost(&self) {
        tracing::error!(source = "reconciler", "the journal is damaged: towns may lack events");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::StreamId;
    use crate::town::{Policy, TownEvent};

    fn record(seq: u64, event: &TownEvent) -> Record {
        let town = TownId::parse("main").expect("an id");
        let record = Record::example(StreamId::town(&town), event.kind(), event.detail());
        Record { seq: Seq(seq), ..record }
    }

    fn created() -> TownEvent {
        TownEvent::TownCreated { policy: Box::new(Policy::default()) }
    }

    fn opened() -> TownEvent {
        TownEvent::ViolationOpened { invariant: 3, entities: [].into(), message: "two".into() }
    }

    #[test]
    fn what_is_read_back_when_the_journal_opens_is_in_the_town_and_waits_for_no_plan() {
        let towns = Towns::default();
        towns.apply(&record(1, &created()));
        towns.apply(&record(2, &TownEvent::DrainStarted { reason: None }));
        let cell = towns.list().remove(0);
        assert_eq!((cell.read().at, cell.pending()), (Seq(2), 0));
        let mut kept = towns.snapshot();
        kept["main"]["pending"] = serde_json::json!([record(3, &TownEvent::DrainEnded {})]);
        let again = Towns::default();
        again.restore(&kept).expect("its own snapshot");
        again.publish(&Metrics::new(&crate::catalogue::registry()));
        let cell = again.list().remove(0);
        assert_eq!((cell.read().at, cell.pending()), (Seq(3), 0));
        again.apply(&record(4, &TownEvent::DrainStarted { reason: None }));
        assert_eq!((cell.read().at, cell.pending()), (Seq(3), 1), "a plan has to look at this one");
    }

    /// Two towns, of which one part was written by another plimsoll.
    #[test]
    fn a_town_whose_snapshot_cannot_be_read_costs_the_others_nothing_and_stands_in_the_next_one_as_it_was() {
        let of = |town: &str, seq, event: &TownEvent| {
            let stream = StreamId::town(&TownId::parse(town).expect("an id"));
            Record { stream, ..record(seq, event) }
        };
        let towns = Towns::default();
        for (seq, town) in [(1, "main"), (2, "other")] {
            towns.apply(&of(town, seq, &created()));
        }
        towns.apply(&of("other", 3, &opened()));
        let mut kept = towns.snapshot();
        kept["other"]["town"]["version"] = 99.into();
        kept["other"]["pending"] =
            serde_json::json!([of("other", 4, &TownEvent::DrainStarted { reason: None })]);
        let again = Towns::default();
        again.restore(&kept).expect("one of two can be read");
        again.publish(&Metrics::new(&crate::catalogue::registry()));
        let late = [of("main", 5, &TownEvent::DrainStarted { reason: None }), of("other", 6, &opened())];
        late.iter().for_each(|record| again.apply(record));
        let main = again.get(&TownId::parse("main").expect("an id")).expect("it is there");
        assert!(main.drained().town.draining().is_some());
        let mut expected = kept["other"].clone();
        expected["pending"].as_array_mut().expect("a list").push(serde_json::json!(late[1]));
        expected["opened"] = serde_json::json!({"3": 2});
        assert_eq!(again.snapshot()["other"], expected);
        let third = Towns::default();
        third.restore(&again.snapshot()).expect("as before");
        assert_eq!(third.snapshot()["other"], expected, "and so on");
    }

    #[test]
    fn an_episode_that_the_town_refuses_is_not_counted() {
        let towns = Towns::default();
        towns.apply(&record(1, &created()));
        towns.apply(&record(2, &opened()));
        towns.apply(&record(3, &opened()));
        assert_eq!(towns.snapshot()["main"]["opened"], serde_json::json!({"3": 1}));
    }
}
