//! The floor: lanes and the table of what is under way, under one lock.
//!
//! It wakes the tasks whose turn has come. A [`Slot`] is a place on it: dropped, on whatever way out, it frees the lane
//! at once and gives the turn to the next.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::active::Active;
use super::lane::{Full, LaneKey, LaneLimits, Lanes, Ticket};
use super::record::{ACTIVE_BYTES, QUEUED};
use super::{ActiveRequest, Rejection, RequestState};
use crate::clock::Clock;
use crate::ids::{AgentId, RequestId};

/// See the module. A std mutex suffices: every hold is a few map operations.
pub(super) struct Floor {
    state: Mutex<State>,
    /// Told of each end while somebody waits for one.
    left: Notify,
    clock: Clock,
}

struct State {
    lanes: Lanes,
    wakers: HashMap<Ticket, oneshot::Sender<()>>,
    active: HashMap<RequestId, Arc<Active>>,
    /// Of the messages of all in `active`.
    bytes: usize,
    bytes_max: usize,
    open: bool,
    /// Who waits for the requests of an agent to end.
    waiting: usize,
}

/// A request that got onto the floor.
pub(super) struct Admitted {
    /// Its place.
    pub(super) slot: Slot,
    /// How many of its lane stand before it.
    pub(super) ahead: usize,
    /// Answers when its turn has come.
    pub(super) turn: oneshot::Receiver<()>,
}

/// How full the floor is, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) active: usize,
    pub(super) queued: usize,
    pub(super) lanes: usize,
    pub(super) oldest: Duration,
}

/// What an agent has under way, at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct AgentLoad {
    pub(super) running: usize,
    pub(super) queued: usize,
}

impl Floor {
    pub(super) fn new(limits: LaneLimits, bytes_max: usize, clock: Clock) -> Arc<Self> {
        let (lanes, wakers, active) = (Lanes::new(limits), HashMap::new(), HashMap::new());
        let state = State { lanes, wakers, active, bytes: 0, bytes_max, open: true, waiting: 0 };
        Arc::new(Self { state: Mutex::new(state), left: Notify::new(), clock })
    }

    /// Lets so many requests of an agent run at once; without a cap only the global one holds.
    pub(super) fn cap_agent(&self, agent: &AgentId, cap: Option<usize>) {
        let now = self.clock.elapsed();
        let mut state = self.state();
        state.lanes.cap_agent(agent, cap.unwrap_or(usize::MAX));
        state.give_turns(now);
    }

    /// Puts a request into its lane. One that is `held` gets no turn until its slot is released.
    ///
    /// # Errors
    /// [`Rejection::ShuttingDown`], [`Rejection::DuplicateRequest`], [`Rejection::LaneFull`],
    /// [`Rejection::GatewayFull`]; nothing has changed then.
    pub(super) fn admit(self: &Arc<Self>, active: &Arc<Active>, held: bool) -> Result<Admitted, Rejection> {
        let now = self.clock.elapsed();
        let mut state = self.state();
        if !state.open {
            return Err(Rejection::ShuttingDown);
        }
        if state.active.contains_key(&active.id) {
            return Err(Rejection::DuplicateRequest { request_id: active.id.clone() });
        }
        let bytes = state.bytes + active.message_bytes;
        if bytes > state.bytes_max {
            let (queued, retry_after) = (state.lanes.queued(), state.lanes.retry_after());
            return Err(Rejection::GatewayFull { limit: ACTIVE_BYTES, queued, retry_after });
        }
        let queued = state.lanes.enqueue(active.lane(), now).map_err(|full| match full {
            Full::Lane { depth, retry_after } => Rejection::LaneFull { depth, retry_after },
            Full::Gateway { queued, retry_after } => {
                Rejection::GatewayFull { limit: QUEUED, queued, retry_after }
            }
        })?;
        if held {
            state.lanes.hold(queued.ticket);
        }
        state.bytes = bytes;
        let (waker, turn) = oneshot::channel();
        state.wakers.insert(queued.ticket, waker);
        state.active.insert(active.id.clone(), Arc::clone(active));
        state.give_turns(now);
        let slot = Slot { floor: Arc::clone(self), ticket: queued.ticket, request: active.id.clone() };
        Ok(Admitted { slot, ahead: queued.ahead, turn })
    }

    /// The request of this id, if it is under way.
    pub(super) fn find(&self, id: &RequestId) -> Option<Arc<Active>> {
        self.state().active.get(id).cloned()
    }

    /// All that is under way, the oldest first.
    pub(super) fn list(&self) -> Vec<ActiveRequest> {
        let all: Vec<_> = self.state().active.values().cloned().collect();
        let mut shown: Vec<_> = all.iter().map(|active| active.show(&self.clock)).collect();
        shown.sort_by(|a, b| (a.started_at, &a.id).cmp(&(b.started_at, &b.id)));
        shown
    }

    pub(super) fn load(&self) -> Load {
        let now = self.clock.elapsed();
        let state = self.state();
        Load {
            active: state.active.len(),
            queued: state.lanes.queued(),
            lanes: state.lanes.lanes(),
            oldest: state.lanes.oldest_age(now),
        }
    }

    /// What each agent has under way, of those that have something.
    pub(super) fn load_by_agent(&self) -> BTreeMap<AgentId, AgentLoad> {
        let all: Vec<_> = self.state().active.values().cloned().collect();
        let mut loads: BTreeMap<AgentId, AgentLoad> = BTreeMap::new();
        for active in all {
            let load = loads.entry(active.agent.clone()).or_default();
            match active.progress().state {
                RequestState::Queued => load.queued += 1,
                RequestState::Starting | RequestState::Running => load.running += 1,
            }
        }
        loads
    }

    /// The turns of a lane that are under way do not have their agent's session remembered.
    pub(super) fn forget_sessions(&self, lane: &LaneKey) {
        let of_lane = |active: &&Arc<Active>| active.agent == lane.agent && active.session == lane.session;
        let state = self.state();
        let active = state.active.values().filter(of_lane);
        active.for_each(|active| active.progress().session_reset = true);
    }

    /// Admits nobody from now on.
    pub(super) fn close(&self) {
        self.state().open = false;
    }

    /// Cancels all that is under way.
    pub(super) fn cancel_all(&self, reason: &'static str) {
        let all: Vec<_> = self.state().active.values().cloned().collect();
        all.iter().for_each(|active| active.cancel.raise(reason));
    }

    /// Cancels all that is under way for these agents; how many that is.
    pub(super) fn cancel_of(&self, agents: &[AgentId], reason: &'static str) -> usize {
        let all: Vec<_> = self.state().active.values().cloned().collect();
        let theirs = all.iter().filter(|active| agents.contains(&active.agent));
        theirs.map(|active| active.cancel.raise(reason)).count()
    }

    /// Whether it admits anybody.
    pub(super) fn is_open(&self) -> bool {
        self.state().open
    }

    /// Waits until an agent has nothing under way.
    pub(super) async fn emptied(&self, agent: &AgentId) {
        self.state().waiting += 1;
        let _waiting = Waiting(self);
        loop {
            // Before it looks: what ends after the look is told.
            let mut left = std::pin::pin!(self.left.notified());
            left.as_mut().enable();
            if !self.state().active.values().any(|active| active.agent == *agent) {
                return;
            }
            left.await;
        }
    }

    /// Keeps nothing of an agent that has nothing under way.
    pub(super) fn forget_agent(&self, agent: &AgentId) {
        self.state().lanes.forget_agent(agent);
    }

    fn leave(&self, ticket: Ticket, request: &RequestId) {
        let now = self.clock.elapsed();
        let mut state = self.state();
        state.wakers.remove(&ticket);
        let left = state.active.remove(request).expect("whoever has a slot is under way");
        state.bytes -= left.message_bytes;
        state.lanes.leave(ticket, now);
        state.give_turns(now);
        if state.waiting > 0 {
            self.left.notify_waiters();
        }
        drop(state);
        if !left.end.is_set() {
            left.abandon(self.clock.now());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who waits for requests to end.
struct Waiting<'a>(&'a Floor);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.state().waiting -= 1;
    }
}

impl State {
    fn give_turns(&mut self, now: Duration) {
        while let Some(ticket) = self.lanes.start_next(now) {
            let waker = self.wakers.remove(&ticket).expect("whoever waits in a lane has a waker");
            // Whoever is gone already leaves the lane through the drop of its slot.
            let _ = waker.send(());
        }
    }
}

/// A place on the floor.
pub(super) struct Slot {
    floor: Arc<Floor>,
    ticket: Ticket,
    request: RequestId,
}

impl Slot {
    /// Gives its turn back, and keeps its lane: others run meanwhile. The next turn comes once it is released.
    pub(super) fn park(&self) -> oneshot::Receiver<()> {
        let now = self.floor.clock.elapsed();
        let (waker, turn) = oneshot::channel();
        let mut state = self.floor.state();
        state.lanes.park(self.ticket);
        state.wakers.insert(self.ticket, waker);
        state.give_turns(now);
        turn
    }

    /// From now on its turn may come.
    pub(super) fn release(&self) {
        let now = self.floor.clock.elapsed();
        let mut state = self.floor.state();
        state.lanes.release(self.ticket);
        state.give_turns(now);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.floor.leave(self.ticket, &self.request);
    }
}
