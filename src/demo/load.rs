//! Drives a plan against a running server over real connections, and counts how each request ended.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::time::DelayQueue;

use super::plan::{Road, Step};
use crate::client::{Client, ClientError, Connection, Incoming};

/// WebSockets that the load keeps open.
const CONNECTIONS: usize = 6;

/// Steps that may wait for one connection: more than the longest burst.
const WAITING_MAX: usize = 64;

/// Calls by `POST /rpc` at once; past it the plan waits.
const POSTS_MAX: usize = 128;

/// How long the last answers are waited for when the load is stopped, and when its plan ends by itself.
const LAST_ANSWERS_STOPPED: Duration = Duration::from_secs(2);
const LAST_ANSWERS_ENDED: Duration = Duration::from_secs(60);

/// How requests ended, seen from their callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tally {
    /// Requests that were sent.
    pub sent: u64,
    /// Answered.
    pub answered: u64,
    /// Failed by the provider.
    pub failed: u64,
    /// Cancelled.
    pub cancelled: u64,
    /// Not answered in time.
    pub deadline: u64,
    /// Refused at the door.
    pub refused: u64,
    /// Neither answered nor refused when the connection or the load ended.
    pub lost: u64,
}

impl Tally {
    fn count(&mut self, outcome: &Result<Value, ClientError>) {
        let slot = match outcome {
            Ok(_) => &mut self.answered,
            Err(ClientError::Rpc { code: -32007, .. }) => &mut self.failed,
            Err(ClientError::Rpc { code: -32005, .. }) => &mut self.cancelled,
            Err(ClientError::Rpc { code: -32004, .. }) => &mut self.deadline,
            Err(ClientError::TokenNeeded | ClientError::Rpc { .. } | ClientError::Status { .. }) => {
                &mut self.refused
            }
            Err(
                ClientError::NoServer { .. }
                | ClientError::Unreachable { .. }
                | ClientError::Tls { .. }
                | ClientError::Setup(_)
                | ClientError::Protocol(_)
                | ClientError::Lost(_),
            ) => &mut self.lost,
        };
        *slot += 1;
    }

    fn add(&mut self, other: Self) {
        let Self { sent, answered, failed, cancelled, deadline, refused, lost } = other;
        self.sent += sent;
        self.answered += answered;
        self.failed += failed;
        self.cancelled += cancelled;
        self.deadline += deadline;
        self.refused += refused;
        self.lost += lost;
    }
}

/// Runs the plan until it ends or `stop` is cancelled, then waits a moment for the last answers.
///
/// # Errors
/// See [`ClientError`]: the first connections could not be made. What happens later is counted, not returned.
pub async fn drive(
    client: &Client,
    plan: impl Iterator<Item = Step>,
    stop: &CancellationToken,
) -> Result<Tally, ClientError> {
    let mut wires = JoinSet::new();
    let mut doors = Vec::new();
    for _ in 0..CONNECTIONS {
        let (steps, waiting) = mpsc::channel(WAITING_MAX);
        wires.spawn(Wire::new(client.connect().await?).run(waiting, stop.clone()));
        doors.push(steps);
    }
    let mut posts = JoinSet::new();
    let mut tally = Tally::default();
    for (index, step) in plan.enumerate() {
        if !step.after.is_zero() {
            // Its error is that the time has come.
            let _ = tokio::time::timeout(step.after, stop.cancelled()).await;
        }
        if stop.is_cancelled() {
            break;
        }
        match step.road {
            Road::WebSocket => {
                // A wire that is gone has counted what it lost; this step never left.
                let _ = doors[index % CONNECTIONS].send(step).await;
            }
            Road::Http => {
                if posts.len() >= POSTS_MAX {
                    posts.join_next().await.into_iter().flatten().for_each(|one| tally.add(one));
                }
                posts.spawn(post(client.clone(), step));
            }
        }
    }
    drop(doors);
    // Its error is that time is up: what is still open then counts as lost.
    let _ = patiently(stop, async {
        while let Some(one) = posts.join_next().await {
            one.into_iter().for_each(|one| tally.add(one));
        }
    })
    .await;
    let open = u64::try_from(posts.len()).unwrap_or(u64::MAX);
    tally.add(Tally { sent: open, lost: open, ..Tally::default() });
    wires.join_all().await.into_iter().for_each(|one| tally.add(one));
    Ok(tally)
}

/// Waits for the last answers: long where the plan came to its end, a moment once somebody stops the load.
async fn patiently<T>(stop: &CancellationToken, last: impl Future<Output = T>) -> Option<T> {
    let stopped = async {
        stop.cancelled().await;
        tokio::time::sleep(LAST_ANSWERS_STOPPED).await;
    };
    tokio::select! {
        done = last => Some(done),
        () = stopped => None,
        () = tokio::time::sleep(LAST_ANSWERS_ENDED) => None,
    }
}

fn params(step: &Step) -> Value {
    let mut params = json!({
        "agent": step.agent,
        "message": step.message,
        "session": step.session,
        "requestId": step.request_id,
    });
    if let Some(deadline) = step.deadline {
        params["deadlineMs"] = json!(u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX));
    }
    params
}

async fn post(client: Client, step: Step) -> Tally {
    let mut tally = Tally { sent: 1, ..Tally::default() };
    let answer = client.call("agent.send", params(&step));
    tokio::pin!(answer);
    if let Some(after) = step.cancel_after {
        tokio::select! {
            outcome = &mut answer => {
                tally.count(&outcome);
                return tally;
            }
            () = tokio::time::sleep(after) => {}
        }
        // Whether it came too late shows in the answer to the request itself.
        let _ = client.call("agent.cancel", json!({"requestId": step.request_id})).await;
    }
    tally.count(&answer.await);
    tally
}

/// One WebSocket with the calls that wait for an answer on it.
struct Wire {
    connection: Connection,
    pending: HashMap<u64, Call>,
    cancels: DelayQueue<String>,
    tally: Tally,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Send,
    Cancel,
}

impl Wire {
    fn new(connection: Connection) -> Self {
        Self { connection, pending: HashMap::new(), cancels: DelayQueue::new(), tally: Tally::default() }
    }

    async fn run(mut self, mut steps: mpsc::Receiver<Step>, stop: CancellationToken) -> Tally {
        let ended = self.carry(&mut steps).await;
        if ended.is_ok() {
            let _ = patiently(&stop, self.settle()).await;
        }
        let open = self.pending.values().filter(|call| **call == Call::Send).count();
        self.tally.lost += u64::try_from(open).unwrap_or(u64::MAX);
        self.connection.close().await;
        self.tally
    }

    async fn carry(&mut self, steps: &mut mpsc::Receiver<Step>) -> Result<(), ClientError> {
        loop {
            tokio::select! {
                step = steps.recv() => match step {
                    Some(step) => self.send(&step).await?,
                    None => return Ok(()),
                },
                incoming = self.connection.next() => self.take(incoming?),
                Some(due) = self.cancels.next() => self.cancel(due.into_inner()).await?,
            }
        }
    }

    async fn settle(&mut self) -> Result<(), ClientError> {
        while !self.pending.is_empty() {
            tokio::select! {
                incoming = self.connection.next() => self.take(incoming?),
                Some(due) = self.cancels.next() => self.cancel(due.into_inner()).await?,
            }
        }
        Ok(())
    }

    async fn send(&mut self, step: &Step) -> Result<(), ClientError> {
        let mut params = params(step);
        params["stream"] = json!(true);
        self.tally.sent += 1;
        let id = self.connection.call("agent.send", params).await.inspect_err(|_| self.tally.lost += 1)?;
        self.pending.insert(id, Call::Send);
        if let Some(after) = step.cancel_after {
            self.cancels.insert(step.request_id.clone(), after);
        }
        Ok(())
    }

    async fn cancel(&mut self, request_id: String) -> Result<(), ClientError> {
        let id = self.connection.call("agent.cancel", json!({"requestId": request_id})).await?;
        self.pending.insert(id, Call::Cancel);
        Ok(())
    }

    fn take(&mut self, incoming: Incoming) {
        let Incoming::Answer { id, outcome } = incoming else { return };
        if self.pending.remove(&id) == Some(Call::Send) {
            self.tally.count(&outcome);
        }
    }
}
