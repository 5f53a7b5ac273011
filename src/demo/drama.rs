//! Carries out what the cycle of breaches says: people at its pace, strain on the town, damage, a batch nobody can do in time.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::breach::{Breach, Cycle, Scene};
use super::cast::BATCH_AGENT;
use super::crew;
use super::people::{People, keep_busy};
use crate::client::{Client, ClientError, Connection, Incoming};
use crate::reconciler::{Drill, Strain};

/// How soon a damage is tried again where nobody in the town is idle, and a batch that could not be handed in.
const AGAIN: Duration = Duration::from_millis(200);

/// Requests of the batch that wait or run at any time: past the 50 that may wait, whatever else is asked.
const BATCH: usize = 90;

/// Sessions of the batch: in none of them more waits than a lane takes.
const BATCH_SESSIONS: usize = 10;

/// What acts on the demo's town, and on what.
pub struct Drama {
    /// Where people do what they do.
    pub client: Client,
    /// What goes wrong goes wrong by this.
    pub drill: Drill,
    /// What goes wrong when.
    pub cycle: Cycle,
}

impl Drama {
    /// Plays until `stop` is cancelled.
    pub async fn play(&self, mut people: People, stop: &CancellationToken) {
        let mut before = None;
        for scene in self.cycle.scenes() {
            tell(before, scene.breach);
            before = scene.breach;
            self.drill.strain(scene.breach.map(Breach::strain).unwrap_or_default());
            people.set_pace(scene.pace);
            self.act(scene, &mut people, &stop.child_token()).await;
            if stop.is_cancelled() {
                break;
            }
        }
        self.drill.strain(Strain::default());
    }

    async fn act(&self, scene: Scene, people: &mut People, over: &CancellationToken) {
        let end = async {
            // Its error is that the time has come.
            let _ = tokio::time::timeout(scene.lasts, over.cancelled()).await;
            over.cancel();
        };
        let wrong = async {
            match scene.breach {
                Some(Breach::Queue) => self.batch(over).await,
                Some(Breach::Invariant) => self.damage(scene.damage_every, over).await,
                Some(Breach::Tick) | None => {}
            }
        };
        tokio::join!(end, keep_busy(&self.client, people, over), wrong);
    }

    /// Damages the town again and again.
    async fn damage(&self, every: Duration, over: &CancellationToken) {
        let town = crew::town();
        while !over.is_cancelled() {
            let wait = if self.drill.damage(&town).await { every } else { AGAIN };
            // Its error is that the time has come.
            let _ = tokio::time::timeout(wait, over.cancelled()).await;
        }
    }

    /// Hands in a batch that is larger than what its agent gets done, and takes back what is left of it at the end.
    async fn batch(&self, over: &CancellationToken) {
        while !over.is_cancelled() {
            // What ends it is a connection that is lost: a new one brings a batch of its own.
            let _ = over.run_until_cancelled(self.hand_in()).await;
            let _ = tokio::time::timeout(AGAIN, over.cancelled()).await;
        }
    }

    async fn hand_in(&self) -> Result<(), ClientError> {
        let mut connection = self.client.connect().await?;
        for number in 0..BATCH {
            ask(&mut connection, number).await?;
        }
        let mut number = BATCH;
        loop {
            // Whatever an answer is, something new takes its place; after a failure not at once.
            let Incoming::Answer { outcome, .. } = connection.next().await? else { continue };
            if outcome.is_err() {
                tokio::time::sleep(AGAIN).await;
            }
            ask(&mut connection, number).await?;
            number += 1;
        }
    }
}

/// Requests of a connection that goes away are cancelled.
async fn ask(connection: &mut Connection, number: usize) -> Result<(), ClientError> {
    let params: Value = json!({
        "agent": BATCH_AGENT,
        "message": format!("File report {number}"),
        "session": format!("batch-{}", number % BATCH_SESSIONS),
        "onDisconnect": "cancel",
    });
    connection.call("agent.send", params).await.map(drop)
}

/// Tells in the log, and to who follows the events, what is wrong from now on.
fn tell(before: Option<Breach>, now: Option<Breach>) {
    if let Some(breach) = before {
        tracing::info!(source = "demo", breach = name(breach), "a breach ends: its alerts resolve");
    }
    if let Some(breach) = now {
        let alerts = breach.alerts().join(", ");
        tracing::info!(
            source = "demo",
            breach = name(breach),
            alerts,
            "a breach begins: its alerts will fire"
        );
    }
}

fn name(breach: Breach) -> &'static str {
    match breach {
        Breach::Tick => "tick",
        Breach::Queue => "queue",
        Breach::Invariant => "invariant",
    }
}
