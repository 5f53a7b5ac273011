//! What an earlier plimsoll left running, and what a start left that the engine did not answer: kept, or stopped.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};

use super::container::Seen;
use super::failures::{failure, trouble};
use super::output::Past;
use super::{DockerRunner, body};
use crate::lifecycle::Orphans;
use crate::lifecycle::machine::{Failure, FailureKind, LostAction};
use crate::lifecycle::runner::Found;

impl DockerRunner {
    /// Keeps or stops what an earlier plimsoll left running, and what a start left that the engine did not answer.
    pub(super) async fn look(&self, keep: bool) -> Found {
        let name = self.host.name.as_deref();
        let may_be_up = name.is_none_or(|name| self.book.may_be_up(&self.instance, name))
            || self.launched.load(Ordering::Relaxed);
        let mut found = Found::default();
        if self.may_halt().is_err() || !may_be_up {
            return found;
        }
        self.engine.until_not_discarding(&self.instance).await;
        let names = self.names();
        for name in &names {
            if let Err(failure) = self.look_at(name, keep, &mut found).await {
                found.untold = Some(failure);
                break;
            }
        }
        let lost = std::mem::take(&mut *self.lost()).into_iter();
        found.lost = lost.map(|name| (LostAction::Stopped, Some(name.into()))).collect();
        if found.untold.is_some() && found.lost.is_empty() {
            return found;
        }
        // Later, what was up may have ended while plimsoll looked, and its row is on its way.
        let first = !self.looked.swap(true, Ordering::Relaxed);
        if first && found.adopted.is_none() && found.lost.is_empty() && self.book.was_up(&self.instance, name)
        {
            let only = names.first().filter(|_| names.len() == 1);
            found.lost.push((LostAction::Gone, only.map(|name| name.as_str().into())));
        }
        found
    }

    /// Keeps one container, or stops it.
    async fn look_at(&self, name: &str, keep: bool, found: &mut Found) -> Result<(), Failure> {
        let seen = self.engine.inspect(name).await.map_err(|error| trouble(&error))?;
        let Some(seen) = seen.filter(|seen| seen.may_run && self.is_ours(seen)) else { return Ok(()) };
        if keep && !seen.is_running {
            let error = format!(
                "the engine is about to start container {name} again by itself: wait for that, or `docker stop {name}`"
            );
            return Err(failure(FailureKind::NotStarted, error));
        }
        if keep && found.adopted.is_none() && self.is_kept(&seen).await? {
            let now = i64::try_from(self.clock.now().as_millis()).unwrap_or(i64::MAX);
            let past = Past {
                after: seen.finished_at.parse().ok(),
                // What it printed under this plimsoll, nobody has told.
                told: (!self.looked.load(Ordering::Relaxed))
                    .then(|| jiff::Timestamp::from_millisecond(now).ok())
                    .flatten(),
            };
            if let Ok(up) = self.up(name, past, None).await {
                self.launched.store(true, Ordering::Relaxed);
                found.adopted = Some((name.into(), up));
                return Ok(());
            }
        }
        self.lost().insert(name.to_owned());
        self.halt(name).await.map_err(|error| {
            self.lost().remove(name);
            trouble(&error)
        })
    }

    /// Whether a container that runs is what would be made now.
    async fn is_kept(&self, seen: &Seen) -> Result<bool, Failure> {
        if self.engine.config().orphans == Orphans::Stop {
            return Ok(false);
        }
        if self.host.name.is_some() {
            return Ok(true);
        }
        let wanted = match self.image_there().await {
            Ok(image) => self.wanted(&image),
            Err(failure) => Err(failure),
        };
        match wanted {
            Ok(wanted) => Ok(seen.has(body::CONFIG_LABEL, &wanted.hash)),
            Err(failure) if failure.kind == FailureKind::Engine => Err(failure),
            Err(_) => Ok(false),
        }
    }

    fn lost(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
