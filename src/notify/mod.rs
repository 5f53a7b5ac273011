//! Tells people outside what happened: webhooks of `notify:` in the configuration, and Sentry.
//!
//! It follows the journal: a fact is written once, and what somebody is told follows from the record. It knows records,
//! not who made them, and no content: ids, numbers and words of closed sets are all that leaves. What was not delivered
//! when plimsoll ends is counted as dropped, and told after the next start: how far everybody was told is kept in the
//! journal (`cursor`). Start at [`Notifier::start`]; what is news is decided in `alarm`, what is told twice in `told`.

mod alarm;
mod config;
mod courier;
mod cursor;
mod follower;
pub mod metrics;
mod post;
mod sentry;
mod signature;
mod told;
mod webhook;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::sentry::Sentry;
use crate::clock::Clock;
use crate::ids::Seq;
use crate::journal::Journal;
use crate::provider::Mask;
use crate::telemetry::{Registry, SentryConfig, Shared};
use courier::{Gear, Pace, courier};
use cursor::Cursors;
use follower::Follower;
use metrics::Outcomes;
use post::{Answer, post_and_read};
use told::Told;
use webhook::Webhook;

pub use self::sentry::{SENTRY, check_dsn};
pub use alarm::{About, Alarm, AlarmKind, Level, Phase};
pub use config::{Form, WebhookConfig, WebhookProblem, check_ca_file};
pub use cursor::ALARMS_TOLD;

/// How long after the deadline of a stop what was cut may take to end.
const CUT_END: Duration = Duration::from_secs(1);

/// What a notifier is made from.
pub struct NotifierParts<'a> {
    /// `notify:`.
    pub webhooks: &'a BTreeMap<String, WebhookConfig>,
    /// `telemetry.sentry:`.
    pub sentry: &'a SentryConfig,
    /// What is followed; it is open.
    pub journal: Arc<dyn Journal>,
    /// Where its metrics go.
    pub registry: &'a Registry,
    /// Counts what is dropped.
    pub shared: Shared,
    /// The clock.
    pub clock: Clock,
}

/// Tells people outside; has to be stopped, so that what waits is still told.
pub struct Notifier {
    /// Ends the follower.
    follow: CancellationToken,
    gear: Gear,
    follower: JoinSet<()>,
    couriers: JoinSet<()>,
    /// Kept for the panic hook.
    _sentry: Option<Arc<Sentry>>,
}

impl Notifier {
    /// Follows the journal from now on, and reports panics. What of the configuration cannot be used is left out with a
    /// line in the log: the check of the configuration has told it.
    #[must_use]
    pub fn start(parts: NotifierParts<'_>) -> Self {
        Self::start_at(parts, Pace::DEFAULT, &|name| std::env::var(name).ok())
    }

    fn start_at(parts: NotifierParts<'_>, pace: Pace, env: &dyn Fn(&str) -> Option<String>) -> Self {
        let NotifierParts { webhooks, sentry, journal, registry, shared, clock } = parts;
        // Before the tail begins: what comes between the two is looked at once.
        let next = Seq(journal.status().last.0 + 1);
        let tail = journal.tail();
        let gear = Gear {
            outcomes: Outcomes::new(registry),
            shared,
            clock: clock.clone(),
            pace,
            cursors: Arc::new(Cursors::new(Arc::clone(&journal))),
            stop: CancellationToken::new(),
            cut: CancellationToken::new(),
        };
        gear.expect_drops();
        let mut couriers = JoinSet::new();
        let mut reached = Vec::new();
        for (name, config) in webhooks {
            match Webhook::new(name, config).map(Arc::new) {
                Ok(webhook) => {
                    let (mailbox, work) = courier(Arc::clone(&webhook) as _, gear.clone());
                    couriers.spawn(work);
                    reached.push((webhook, mailbox));
                }
                Err(problem) => unusable(name, &problem),
            }
        }
        let sentry = match Sentry::connect(sentry, env, gear.clone()) {
            Ok(connected) => connected.map(|(sentry, work)| {
                couriers.spawn(work);
                sentry
            }),
            Err(problem) => {
                unusable(SENTRY, &problem);
                None
            }
        };
        if let Some(sentry) = &sentry {
            self::sentry::report_panics(sentry);
        }
        let follow = CancellationToken::new();
        let mut follower = JoinSet::new();
        if !reached.is_empty() || sentry.is_some() {
            let told = Told::default();
            let cursors = Arc::clone(&gear.cursors);
            let work =
                Follower { journal, clock, webhooks: reached, sentry: sentry.clone(), told, cursors, next };
            follower.spawn(work.run(tail, follow.clone()));
        }
        Self { follow, gear, follower, couriers, _sentry: sentry }
    }

    /// Tells what was journaled until now, and ends within the deadline. Each letter that was not tried yet is tried once;
    /// one that was, and waits for its next try, has failed. What the deadline cuts is counted as dropped.
    pub async fn stop(self, deadline: Duration) {
        let Self { follow, gear, follower, couriers, _sentry: sentry } = self;
        follow.cancel();
        let told = async {
            joined(follower).await;
            gear.stop.cancel();
        };
        let mut couriers = couriers;
        let delivered = async {
            told.await;
            while let Some(ended) = couriers.join_next().await {
                say_if_panicked(ended);
            }
        };
        if timeout(deadline, delivered).await.is_err() {
            gear.stop.cancel();
            gear.cut.cancel();
            let _late = timeout(CUT_END, joined(couriers)).await;
        }
        gear.cursors.write_all();
        drop(sentry);
    }
}

async fn joined(mut tasks: JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        say_if_panicked(ended);
    }
}

fn say_if_panicked(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(source = "notify", %error, "a part of the notifications panicked");
    }
}

fn unusable(name: &str, problem: &str) {
    tracing::error!(source = "notify", recipient = name, cause = problem, "nobody is told by this way");
}

/// What came of a test alarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tested {
    /// The webhook.
    pub name: String,
    /// Whether it was taken.
    pub taken: bool,
    /// What the other side said, without what is secret.
    pub said: String,
}

/// Sends a test alarm to a webhook, once.
pub async fn test(name: &str, config: &WebhookConfig, clock: &Clock) -> Tested {
    let tested = |taken, said| Tested { name: name.to_owned(), taken, said };
    let webhook = match Webhook::new(name, config) {
        Ok(webhook) => webhook,
        Err(problem) => return tested(false, problem),
    };
    let now = clock.now();
    let (answer, words) = post_and_read(&webhook, &webhook.test_letter(now), now).await;
    let words = words.map(|words| format!(": {words}")).unwrap_or_default();
    let mask = Mask::new([&config.url, &config.secret].into_iter().flatten().cloned());
    tested(matches!(answer, Answer::Taken(_)), mask.hide(&format!("{}{words}", answer.told())))
}
