//! One instance: its machine, who waits for it, and the task that carries out its orders.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, OptionFuture};
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::scribe::Pen;
use super::search::Search;
use super::{Cause, FailureView, InstanceView, Kept, Unavailable};
use crate::clock::Clock;
use crate::ids::AgentId;
use crate::lifecycle::config::HostKind;
use crate::lifecycle::ledger::InstanceCounts;
use crate::lifecycle::machine::{
    Exit, Failure, FailureKind, Input, Machine, Order, Refused, Run, State, Step, StopReason, Verdict, Wanted,
};
use crate::lifecycle::runner::{Found, Runner, Up};
use crate::limits::JOURNAL_APPEND_WAIT;

/// What is said of a bug in a runner; the log has the rest.
const PANICKED: &str = "a bug in plimsoll: its runner panicked, the log says where";

/// See the module.
pub(super) struct Instance {
    id: AgentId,
    runner: Arc<dyn Runner>,
    /// A std mutex suffices: a hold is one step of the machine.
    core: Mutex<Core>,
    /// Wakes the task: there is an order, or an earlier alarm.
    wake: Notify,
    pen: Pen,
    clock: Clock,
    /// Cancelled once nothing of it runs, and never will again.
    over: CancellationToken,
    /// Cancelled once it is known what an earlier plimsoll left running of it.
    known: CancellationToken,
}

struct Core {
    machine: Machine,
    waiting: Vec<oneshot::Sender<Result<Lease, Unavailable>>>,
    order: Option<Order>,
    /// Where the run that is up answers.
    address: Option<SocketAddr>,
    /// Who or what caused the order under way, and who or what will have caused the next start.
    cause: Cause,
    next: Option<Cause>,
    /// When the task wakes by itself.
    armed: Option<Duration>,
}

/// Answers that are sent once nothing is locked: one that nobody takes is dropped, and a lease locks then.
type Answers = Vec<(oneshot::Sender<Result<Lease, Unavailable>>, Result<Lease, Unavailable>)>;

/// Keeps an instance up until it is dropped.
pub struct Lease {
    instance: Arc<Instance>,
    run: Run,
    address: Option<SocketAddr>,
}

impl Lease {
    /// Whether the run that it keeps up is still up: one can end by itself, or be stopped.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.instance.core().machine.is_up(self.run)
    }

    /// Where the instance answers, for one that is asked over the network.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.instance.tell(Input::Released(self.run), None);
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease").field("instance", &self.instance.id).field("run", &self.run).finish()
    }
}

impl Instance {
    pub(super) fn new(id: AgentId, Kept { policy, runner }: Kept, pen: Pen, clock: Clock) -> Self {
        let core = Core {
            machine: Machine::new(policy),
            waiting: Vec::new(),
            order: None,
            address: None,
            cause: Cause::system(),
            next: None,
            armed: None,
        };
        let (wake, over, known) = (Notify::new(), CancellationToken::new(), CancellationToken::new());
        Self { id, runner, core: Mutex::new(core), wake, pen, clock, over, known }
    }

    pub(super) async fn acquire(self: &Arc<Self>, cause: Cause) -> Result<Lease, Unavailable> {
        let answer = {
            let mut core = self.core();
            let now = self.clock.elapsed();
            self.forget_who_went(&mut core, now);
            let (wanted, step) = core.machine.want(now);
            if wanted == Wanted::Waits {
                core.next.get_or_insert(cause);
            }
            let answers = self.follow(&mut core, step, &Cause::system());
            debug_assert!(answers.is_empty(), "to want something ends nobody's wait");
            match wanted {
                Wanted::Up(run) => return Ok(self.lease(run, core.address)),
                Wanted::Refused(refused) => return Err(self.refusal(refused)),
                Wanted::Waits => {
                    let (sender, answer) = oneshot::channel();
                    core.waiting.push(sender);
                    answer
                }
            }
        };
        answer.await.unwrap_or_else(|_| {
            Err(Unavailable::Stopped { instance: self.id.clone(), reason: StopReason::Shutdown })
        })
    }

    pub(super) fn join(self: &Arc<Self>) -> Option<Lease> {
        let mut core = self.core();
        let run = core.machine.join()?;
        Some(self.lease(run, core.address))
    }

    pub(super) fn state(&self) -> State {
        self.core().machine.state()
    }

    pub(super) fn may_run(&self) -> bool {
        self.core().machine.may_run()
    }

    /// What it does, and how many wait for it.
    pub(super) fn load(&self) -> (State, usize) {
        let core = self.core();
        (core.machine.state(), core.machine.waiting())
    }

    pub(super) fn view(&self, counts: InstanceCounts) -> InstanceView {
        let core = self.core();
        let now = self.clock.elapsed();
        let failure = core.machine.failed().map(|(failure, retry_at)| FailureView {
            kind: failure.kind.as_str(),
            error: Arc::clone(&failure.error),
            retry_in_ms: u64::try_from(retry_at.saturating_sub(now).as_millis()).unwrap_or(u64::MAX),
        });
        let (start, state) = (core.machine.start(), core.machine.state());
        InstanceView { mode: self.runner.kind(), start, state, counts, failure }
    }

    /// What hosts it.
    pub(super) fn mode(&self) -> HostKind {
        self.runner.kind()
    }

    /// Whether an operator may stop it.
    pub(super) fn may_stop(&self) -> Result<(), Unavailable> {
        let instance = || self.id.clone();
        self.runner.may_stop().map_err(|why| Unavailable::Kept { instance: instance(), why })
    }

    /// Waits until nothing of it runs, and never will again.
    pub(super) async fn over(&self) {
        self.over.cancelled().await;
    }

    /// Waits until it is known what an earlier plimsoll left running of it, or until it is over.
    pub(super) async fn known(&self) {
        tokio::select! {
            () = self.known.cancelled() => {}
            () = self.over.cancelled() => {}
        }
    }

    /// Something happened, and follows from this, if from anything new.
    pub(super) fn tell(self: &Arc<Self>, input: Input, cause: Option<Cause>) {
        let answers = {
            let mut core = self.core();
            let now = self.clock.elapsed();
            self.forget_who_went(&mut core, now);
            let orders = matches!(input, Input::Stop(_) | Input::Alarm);
            if matches!(input, Input::Start) {
                core.next = core.next.take().or(cause.clone());
            }
            let step = core.machine.on(now, rand::random(), input);
            if orders && step.order.is_some() {
                core.cause = cause.clone().unwrap_or_else(Cause::system);
            }
            // What the order under way came to is for who gave it; all else for who tells it.
            let cause = cause.filter(|_| !orders).unwrap_or_else(|| core.cause.clone());
            self.follow(&mut core, step, &cause)
        };
        for (waiter, answer) in answers {
            // One that went away meanwhile drops its lease, which is then free again.
            let _ = waiter.send(answer);
        }
    }

    /// Carries out the orders, one at a time, until there will be no more.
    pub(super) async fn drive(self: Arc<Self>) {
        let _over = self.over.clone().drop_guard();
        if self.core().machine.is_hot() {
            self.tell(Input::Start, Some(Cause::system()));
        }
        let mut ended: OptionFuture<BoxFuture<'static, (Run, Exit)>> = None.into();
        let mut search = Search::default();
        loop {
            // Before it is started or is over, what is left of it is looked for once more.
            let (state, now) = (self.state(), self.clock.elapsed());
            if matches!(state, State::Ready | State::Idle) {
                // What was left is what runs now.
                search.end();
            }
            if search.is_due(state, now, self.is_ending()) {
                ended = self.find(&mut search).await;
            }
            let (order, alarm) = {
                let mut core = self.core();
                if core.order.is_none() && core.machine.is_over() {
                    break;
                }
                core.armed = core.machine.alarm();
                (core.order.take(), core.armed)
            };
            match order {
                Some(Order::Start(_)) if let Some(failure) = &search.failed => {
                    // What may run already is not started once more.
                    self.tell(Input::StartFailed(failure.clone()), None);
                }
                Some(Order::Start(run)) => {
                    ended = self.start(run, &mut search).await;
                }
                Some(Order::Stop(_)) if self.runner.may_stop().is_err() => {
                    ended = None.into();
                    self.tell(Input::LetGo, None);
                }
                Some(Order::Stop(run)) => {
                    // What ends now was told to.
                    ended = None.into();
                    let span = tracing::info_span!(
                        parent: &self.core().cause.span,
                        "instance.stop",
                        agent = %self.id,
                        plimsoll.instance.mode = self.runner.kind().as_str(),
                    );
                    let stopping = AssertUnwindSafe(self.runner.stop(run)).catch_unwind();
                    let stopped = stopping.instrument(span).await;
                    let stopped = stopped.unwrap_or_else(|_| Err(PANICKED.into()));
                    self.tell(stopped.map_or_else(Input::StopFailed, |()| Input::Stopped), None);
                }
                None => tokio::select! {
                    () = self.wake.notified() => {}
                    Some(()) = self.until(alarm) => self.tell(Input::Alarm, Some(Cause::system())),
                    Some(()) = self.until(search.again) => {}
                    Some((run, exit)) = &mut ended => {
                        ended = None.into();
                        self.tell(Input::Exited(run, exit), Some(Cause::system()));
                        if self.runner.kind() == HostKind::Container {
                            let retry_at = self.core().machine.failed().map(|(_, retry_at)| retry_at);
                            search.begins_again(self.clock.elapsed(), retry_at);
                        }
                    }
                },
            }
        }
        if self.core().machine.is_removed() {
            let removed = AssertUnwindSafe(self.runner.remove()).catch_unwind().await;
            if let Err(error) = removed.unwrap_or_else(|_| Err(PANICKED.into())) {
                tracing::error!(source = "lifecycle", instance = %self.id, %error, "something is left of an instance");
            }
        }
    }

    /// Whether nothing of it is wanted any more.
    fn is_ending(&self) -> bool {
        self.core().machine.is_over()
    }

    /// Looks for what an earlier plimsoll left running. Gives the end of what is kept. At the end nothing is, and a look
    /// that is under way then begins again.
    async fn find(self: &Arc<Self>, search: &mut Search) -> OptionFuture<BoxFuture<'static, (Run, Exit)>> {
        let keep = !self.is_ending();
        let found = tokio::select! {
            biased;
            found = AssertUnwindSafe(self.runner.find(keep)).catch_unwind() => found,
            () = self.ends(), if keep => AssertUnwindSafe(self.runner.find(false)).catch_unwind().await,
        };
        let Found { adopted, lost, untold } = found.unwrap_or_else(|_| {
            let failure = Failure { kind: FailureKind::NotStarted, error: PANICKED.into() };
            Found { untold: Some(failure), ..Found::default() }
        });
        // At the end of this, once what was found is kept.
        let _known = untold.is_none().then(|| self.known.clone().drop_guard());
        for (action, container) in lost {
            self.tell(Input::Lost { action, container }, Some(Cause::system()));
        }
        match untold {
            None => search.found(self.clock.elapsed()),
            Some(failure) => {
                tracing::warn!(
                    source = "lifecycle", instance = %self.id, error = &*failure.error,
                    "whether an instance was left running cannot be told yet"
                );
                search.failed(failure, self.clock.elapsed());
            }
        }
        let Some((container, Up { address, start: _, ended })) = adopted else { return None.into() };
        self.core().address = address;
        self.tell(Input::Adopted(container), Some(Cause::system()));
        let mut core = self.core();
        let Some(run) = core.machine.up() else { return None.into() };
        // The start that was ordered has come true.
        core.order.take_if(|order| matches!(order, Order::Start(_)));
        let ended: BoxFuture<'static, _> = Box::pin(async move { (run, ended.await) });
        Some(ended).into()
    }

    /// Starts it, unless a new order comes first. Gives its end.
    async fn start(
        self: &Arc<Self>,
        run: Run,
        search: &mut Search,
    ) -> OptionFuture<BoxFuture<'static, (Run, Exit)>> {
        let span = tracing::info_span!(
            parent: &self.core().cause.span,
            "instance.start",
            agent = %self.id,
            plimsoll.instance.mode = self.runner.kind().as_str(),
            error.type = tracing::field::Empty,
            otel.status_code = tracing::field::Empty,
        );
        if self.runner.kind() == HostKind::Container {
            // Its runner writes by itself, which comes after what is told already.
            let _late = tokio::time::timeout(JOURNAL_APPEND_WAIT, self.pen.flush()).await;
        }
        let started = tokio::select! {
            biased;
            () = self.ordered() => return None.into(),
            started = AssertUnwindSafe(self.runner.start(run)).catch_unwind().instrument(span.clone()) => started,
        };
        let started = match started {
            Ok(started) => started,
            Err(_) => {
                // What it may have begun; it cannot tell more than it did.
                let _ = AssertUnwindSafe(self.runner.stop(run)).catch_unwind().await;
                Err(Failure { kind: FailureKind::NotStarted, error: PANICKED.into() })
            }
        };
        match started {
            Ok(Up { address, start, ended }) => {
                self.core().address = address;
                self.tell(Input::Started(start), None);
                let ended: BoxFuture<'static, _> = Box::pin(async move { (run, ended.await) });
                Some(ended).into()
            }
            Err(failure) => {
                span.record("error.type", failure.kind.as_str());
                span.record("otel.status_code", "ERROR");
                drop(span);
                if failure.kind == FailureKind::Engine {
                    // It may run all the same.
                    *search = Search::default();
                    search.failed(failure.clone(), self.clock.elapsed());
                }
                self.tell(Input::StartFailed(failure), None);
                None.into()
            }
        }
    }

    async fn ends(&self) {
        while !self.is_ending() {
            self.wake.notified().await;
        }
    }

    async fn ordered(&self) {
        while self.core().order.is_none() {
            self.wake.notified().await;
        }
    }

    async fn until(&self, alarm: Option<Duration>) -> Option<()> {
        tokio::time::sleep(alarm?.saturating_sub(self.clock.elapsed())).await;
        Some(())
    }

    /// Does what a step says, but for the answers.
    fn follow(self: &Arc<Self>, core: &mut Core, step: Step, cause: &Cause) -> Answers {
        let Step { order, verdict, facts } = step;
        for fact in facts {
            self.pen.write(&self.id, fact.record(cause.actor.clone(), cause.trace_id));
        }
        if let Some(Order::Start(_)) = order {
            core.cause = core.next.take().unwrap_or(Cause::system());
        } else if core.machine.waiting() == 0 && core.machine.state() != State::Stopping {
            core.next = None;
        }
        let alarm = core.machine.alarm();
        let sooner = alarm.is_some_and(|alarm| core.armed.is_none_or(|armed| alarm < armed));
        if order.is_some() || sooner || core.machine.is_over() {
            core.order = order.or(core.order.take());
            self.wake.notify_one();
        }
        let Some(verdict) = verdict else { return Vec::new() };
        core.next = None;
        let address = core.address;
        let answer = || match &verdict {
            Verdict::Serve(run) => Ok(self.lease(*run, address)),
            Verdict::Failed(failure, retry_in) => {
                Err(self.refusal(Refused::Failed(failure.clone(), *retry_in)))
            }
            Verdict::Stopped(reason) => Err(self.refusal(Refused::Gone(*reason))),
        };
        core.waiting.drain(..).map(|waiter| (waiter, answer())).collect()
    }

    /// Requests that wait no more make room.
    fn forget_who_went(&self, core: &mut Core, now: Duration) {
        let before = core.waiting.len();
        core.waiting.retain(|waiter| !waiter.is_closed());
        for _ in core.waiting.len()..before {
            core.machine.on(now, 0.0, Input::GaveUp);
        }
    }

    fn lease(self: &Arc<Self>, run: Run, address: Option<SocketAddr>) -> Lease {
        Lease { instance: Arc::clone(self), run, address }
    }

    fn refusal(&self, refused: Refused) -> Unavailable {
        let instance = self.id.clone();
        match refused {
            Refused::Failed(failure, retry_in) => Unavailable::Failed { instance, failure, retry_in },
            Refused::Full => Unavailable::Full { instance },
            Refused::Gone(reason) => Unavailable::Stopped { instance, reason },
        }
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
