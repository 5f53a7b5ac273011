//! What fires and what is over: a fold of the journal, and what is to be journaled of what was posted. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::alert::{Annotations, Identity, Labels, Source, bytes};
use super::body::{PostedAlert, PostedStatus};
use super::record::{self, ALERT_EXPIRED, ALERT_FIRED, ALERT_RESOLVED, Expired, Fired, Resolved};
use crate::clock::Timestamp;
use crate::ids::Seq;
use crate::journal::{Actor, NewRecord, Record};
use crate::limits::alerts::{
    ALERT_EXPIRES_AFTER, ALERT_STALE_AFTER, ALERTS_AT_ONCE_MAX, ALERTS_EXPIRED_BYTES_MAX,
    ALERTS_FIRING_BYTES_MAX, ALERTS_FIRING_MAX, ALERTS_OVER_MAX,
};

/// An alert of which somebody said that it fires, and nobody that it is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Standing {
    #[serde(flatten)]
    pub(super) fired: Fired,
    pub(super) first_received: Timestamp,
    /// In memory only, but for snapshots: what is told again is not journaled.
    pub(super) last_received: Timestamp,
}

/// One that is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Over {
    #[serde(flatten)]
    pub(super) was: Standing,
    /// When that was written.
    pub(super) over_at: Timestamp,
    /// Whether nobody said so, but nobody told of it any more either.
    pub(super) expired: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Book {
    standing: BTreeMap<Identity, Standing>,
    /// The last that ended, the newest first; at most [`ALERTS_OVER_MAX`].
    over: VecDeque<Over>,
    /// The last record that was taken in.
    last: Seq,
}

#[derive(Deserialize)]
struct Snapshot {
    standing: Vec<Standing>,
    over: VecDeque<Over>,
    last: Seq,
}

/// The present, as decisions take it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) at: Timestamp,
    /// Since when this plimsoll listens: before that nobody could have told it anything.
    pub(super) listening_since: Timestamp,
}

/// One alert as it was posted, with its identity.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) id: Identity,
    pub(super) alert: PostedAlert,
}

/// What is to be done about what was posted.
#[derive(Debug, Default)]
pub(super) struct Decision {
    /// To be appended, all or none; at most twice as many as were posted, and [`ALERTS_AT_ONCE_MAX`] more.
    pub(super) records: Vec<NewRecord>,
    /// What fires already and was told again.
    pub(super) repeated: Vec<Identity>,
    pub(super) fired: u64,
    pub(super) resolved: u64,
    pub(super) not_firing: u64,
    pub(super) no_place: u64,
    pub(super) expired: u64,
}

impl Standing {
    /// How long nobody has told of it.
    fn silent_for(&self, now: Now) -> Duration {
        now.at.since(self.last_received.max(now.listening_since))
    }

    /// Whether nobody says any more that it fires, although nobody said that it is over.
    pub(super) fn is_stale(&self, now: Now) -> bool {
        self.fired.ends_at.is_some_and(|end| end < now.at) || self.silent_for(now) >= ALERT_STALE_AFTER
    }

    fn bytes(&self) -> usize {
        bytes(&self.fired.labels) + self.fired.annotations.bytes()
    }
}

impl Book {
    pub(super) fn standing(&self) -> impl Iterator<Item = (&Identity, &Standing)> {
        self.standing.iter()
    }

    pub(super) fn over(&self) -> impl Iterator<Item = &Over> {
        self.over.iter()
    }

    pub(super) fn last(&self) -> Seq {
        self.last
    }

    /// Takes one record in; kinds of later times pass.
    ///
    /// # Errors
    /// Says why its detail cannot be read; nothing has changed then.
    pub(super) fn apply(&mut self, record: &Record) -> Result<(), serde_json::Error> {
        self.last = record.seq;
        match record.kind.as_str() {
            ALERT_FIRED => {
                let fired = Fired::deserialize(&record.detail)?;
                let id = Identity::of(&fired.labels);
                let standing = Standing { fired, first_received: record.time, last_received: record.time };
                self.standing.insert(id, standing);
            }
            ALERT_RESOLVED => {
                let Resolved { labels, ends_at, .. } = Resolved::deserialize(&record.detail)?;
                self.end(&labels, ends_at, record.time, false);
            }
            ALERT_EXPIRED => {
                let Expired { labels, .. } = Expired::deserialize(&record.detail)?;
                self.end(&labels, None, record.time, true);
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, labels: &Labels, ends_at: Option<Timestamp>, over_at: Timestamp, expired: bool) {
        let Some(mut was) = self.standing.remove(&Identity::of(labels)) else { return };
        was.fired.ends_at = ends_at.or(was.fired.ends_at);
        self.over.push_front(Over { was, over_at, expired });
        self.over.truncate(ALERTS_OVER_MAX);
    }

    /// They were told again.
    pub(super) fn touch(&mut self, told: &[Told], at: Timestamp) {
        for Told { id, alert } in told.iter().filter(|told| told.alert.status == PostedStatus::Firing) {
            if let Some(standing) = self.standing.get_mut(id) {
                standing.last_received = at;
                standing.fired.ends_at = alert.ends_at;
            }
        }
    }

    /// What becomes of what was posted: at most [`ALERTS_AT_ONCE_MAX`]. What ends makes room for what begins.
    pub(super) fn decide(&self, told: &[Told], source: Source, actor: &Actor, now: Now) -> Decision {
        assert!(told.len() <= ALERTS_AT_ONCE_MAX, "the caller cuts bodies into parts");
        let mut sheet = Sheet::new(self, told, now);
        for Told { id, alert } in told.iter().filter(|told| told.alert.status == PostedStatus::Resolved) {
            sheet.resolve(id, alert, source, actor);
        }
        for Told { id, alert } in told.iter().filter(|told| told.alert.status == PostedStatus::Firing) {
            sheet.fire(id, alert, source, actor);
        }
        sheet.decision
    }

    pub(super) fn snapshot(&self) -> Value {
        let standing: Vec<&Standing> = self.standing.values().collect();
        json!({"standing": standing, "over": self.over, "last": self.last})
    }

    /// # Errors
    /// Says why the snapshot cannot be used.
    pub(super) fn restored(snapshot: &Value) -> Result<Self, String> {
        let Snapshot { standing, over, last } =
            Snapshot::deserialize(snapshot).map_err(|error| error.to_string())?;
        let standing = standing.into_iter().map(|one| (Identity::of(&one.fired.labels), one)).collect();
        Ok(Self { standing, over, last })
    }
}

/// A decision while it is made.
struct Sheet<'b> {
    book: &'b Book,
    decision: Decision,
    /// Who fires no more by what is decided, and who fires now.
    ended: BTreeSet<&'b Identity>,
    begun: BTreeSet<Identity>,
    /// Bytes of all that fires then.
    bytes: usize,
    /// Of whom nobody tells any more, the longest silent last.
    silent: Vec<&'b Identity>,
    expired_bytes: usize,
}

impl<'b> Sheet<'b> {
    fn new(book: &'b Book, told: &[Told], now: Now) -> Self {
        let named: BTreeSet<&Identity> = told.iter().map(|told| &told.id).collect();
        let mut silent: Vec<_> =
            book.standing.iter().filter(|(id, one)| one.is_stale(now) && !named.contains(id)).collect();
        silent.sort_by_key(|(_, one)| one.silent_for(now));
        let mut sheet = Self {
            book,
            decision: Decision::default(),
            ended: BTreeSet::new(),
            begun: BTreeSet::new(),
            bytes: book.standing.values().map(Standing::bytes).sum(),
            silent: silent.into_iter().map(|(id, _)| id).collect(),
            expired_bytes: 0,
        };
        while sheet.oldest().is_some_and(|one| one.silent_for(now) >= ALERT_EXPIRES_AFTER) && sheet.expire() {
        }
        sheet
    }

    /// Who fires of those that fired before.
    fn standing(&self, id: &Identity) -> Option<(&'b Identity, &'b Standing)> {
        self.book.standing.get_key_value(id).filter(|(id, _)| !self.ended.contains(id))
    }

    fn oldest(&self) -> Option<&'b Standing> {
        self.silent.last().and_then(|id| self.book.standing.get(id))
    }

    fn resolve(&mut self, id: &Identity, alert: &PostedAlert, source: Source, actor: &Actor) {
        let Some((id, was)) = self.standing(id) else {
            self.decision.not_firing += 1;
            return;
        };
        let detail = Resolved {
            labels: alert.labels.clone(),
            summary: alert.annotations.summary.clone(),
            starts_at: alert.starts_at.or(was.fired.starts_at),
            ends_at: alert.ends_at,
            source,
        };
        self.decision.records.push(record::new(ALERT_RESOLVED, actor.clone(), &detail));
        self.decision.resolved += 1;
        self.end(id, was);
    }

    fn fire(&mut self, id: &Identity, alert: &PostedAlert, source: Source, actor: &Actor) {
        if self.standing(id).is_some() || self.begun.contains(id) {
            self.decision.repeated.push(id.clone());
            return;
        }
        let PostedAlert { status: _, labels, annotations, starts_at, ends_at } = alert.clone();
        let more = bytes(&labels) + annotations.bytes();
        while !self.fits(more) && self.expire() {}
        if !self.fits(more) {
            self.decision.no_place += 1;
            return;
        }
        let detail = Fired { labels, annotations, starts_at, ends_at, source };
        self.decision.records.push(record::new(ALERT_FIRED, actor.clone(), &detail));
        self.decision.fired += 1;
        self.bytes += more;
        self.begun.insert(id.clone());
    }

    fn fits(&self, more: usize) -> bool {
        let count = self.book.standing.len() - self.ended.len() + self.begun.len();
        count < ALERTS_FIRING_MAX && self.bytes + more <= ALERTS_FIRING_BYTES_MAX
    }

    /// Gives up the one of whom nobody has told for longest; false where that is nobody, or enough for one append.
    fn expire(&mut self) -> bool {
        let Some((id, was)) = self.silent.last().and_then(|id| self.standing(id)) else { return false };
        let Standing {
            fired: Fired { labels, annotations: Annotations { summary, .. }, starts_at, source, .. },
            ..
        } = was.clone();
        let detail = Expired { labels, summary, starts_at, last_received: was.last_received, source };
        let record = record::new(ALERT_EXPIRED, Actor::System, &detail);
        let size = record.detail.to_string().len();
        let enough = self.decision.expired as usize >= ALERTS_AT_ONCE_MAX;
        if enough || self.expired_bytes + size > ALERTS_EXPIRED_BYTES_MAX {
            return false;
        }
        self.silent.pop();
        self.expired_bytes += size;
        self.decision.records.push(record);
        self.decision.expired += 1;
        self.end(id, was);
        true
    }

    fn end(&mut self, id: &'b Identity, was: &Standing) {
        self.ended.insert(id);
        self.bytes -= was.bytes();
    }
}
