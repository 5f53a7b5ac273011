//! What is said to the machine of an instance, and what it says.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

#[cfg(doc)]
use super::Machine;
use crate::lifecycle::Backoff;

/// One start of the instance; later ones have higher numbers. What is said of an earlier one comes too late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Run(pub(in crate::lifecycle) u64);

/// How an instance is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// When it starts.
    pub start: Start,
    /// How long a lazy one stays up without a request.
    pub idle_after: Duration,
    /// How long to wait after it failed.
    pub backoff: Backoff,
    /// Who stays up for so long is well: what failed before is forgotten.
    pub well_after: Duration,
    /// So many failures in a row are a crash loop.
    pub crash_loop_failures: u32,
    /// Requests that may wait for it.
    pub waiting_max: usize,
}

/// When an instance starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// With plimsoll, and again whenever it ends by itself; it never stops for being idle.
    Hot,
    /// With the first request.
    Lazy,
}

/// Why an instance is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// Nobody asked it for long enough.
    Idle,
    /// An operator said so. The next request starts it again.
    Operator,
    /// plimsoll ends.
    Shutdown,
    /// Its agent was deleted.
    Removed,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What sort of thing.
    pub kind: FailureKind,
    /// What happened and what would help, for an operator.
    pub error: Arc<str>,
}

/// The sorts of things that go wrong with an instance; each is a label of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// It cannot be started at all: no such program or image, no permission, a port in use.
    NotStarted,
    /// It ended before it was ready.
    Exited,
    /// It was not ready in time.
    NotReady,
    /// It does not stop.
    NotStopped,
    /// It ended by itself soon after it was ready.
    Crashed,
    /// Nobody can tell: the engine does not answer.
    Engine,
    /// The image is not there.
    ImageMissing,
    /// The image could not be fetched.
    PullRefused,
    /// Something else has its name.
    NameConflict,
    /// Something else has its port.
    PortInUse,
    /// It has no address where it could be asked.
    Unreachable,
    /// What has its name belongs to somebody else.
    Foreign,
    /// The configuration does not allow it.
    Refused,
}

/// How an instance ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exit {
    /// Its exit code, where it had one.
    pub code: Option<i32>,
    /// The signal that ended it, where one did.
    pub signal: Option<i32>,
    /// Whether it had used more memory than it may.
    pub oom: bool,
}

/// What a request that needs the instance does now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Goes on; it holds this run until [`Input::Released`].
    Up(Run),
    /// Waits for the next verdict.
    Waits,
    /// Fails.
    Refused(Refused),
}

/// Why nobody may wait for an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// It failed, and is not tried again before that.
    Failed(Failure, Duration),
    /// As many wait as may.
    Full,
    /// It is not started again.
    Gone(StopReason),
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Someone wants it up, and does not wait.
    Start,
    /// Someone wants it down.
    Stop(StopReason),
    /// A request is done with it.
    Released(Run),
    /// A request that waited does so no more.
    GaveUp,
    /// The order to start ended well. The command itself took so long.
    Started(Duration),
    /// What an earlier plimsoll left running is up, in this container.
    Adopted(Arc<str>),
    /// What an earlier plimsoll left running is not kept.
    Lost {
        /// What was done about it.
        action: LostAction,
        /// The name of its container, for one that is a container.
        container: Option<Arc<str>>,
    },
    /// The order to start failed, and nothing is left of that run.
    StartFailed(Failure),
    /// The order to stop ended well.
    Stopped,
    /// It may not be stopped, and goes on without plimsoll.
    LetGo,
    /// The order to stop failed: something may be left of that run.
    StopFailed(Arc<str>),
    /// It ended by itself.
    Exited(Run, Exit),
    /// The time of [`Machine::alarm`] came.
    Alarm,
}

/// What to do now. A new order ends the one that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Start it, and wait until it is ready.
    Start(Run),
    /// Stop what there is of it.
    Stop(Run),
}

/// What all who waited hear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Go on; each holds this run until [`Input::Released`].
    Serve(Run),
    /// It failed, and is not tried again before that.
    Failed(Failure, Duration),
    /// It was stopped.
    Stopped(StopReason),
}

/// What the journal keeps of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// It is ready.
    Started {
        /// From the order to ready.
        latency: Duration,
        /// Of it, the command itself.
        start: Duration,
    },
    /// It did not start.
    StartFailed {
        /// Why.
        failure: Failure,
        /// From 1, since it was well the last time.
        attempt: u32,
        /// When the next try may be.
        retry_in: Duration,
    },
    /// It was stopped.
    Stopped {
        /// How long nobody had asked it.
        idle: Duration,
        /// Why.
        reason: StopReason,
    },
    /// It does not stop.
    StopFailed {
        /// Why.
        error: Arc<str>,
    },
    /// It ended by itself.
    Exited(Exit),
    /// One that an earlier plimsoll left running is kept again.
    Adopted {
        /// The name of its container.
        container: Arc<str>,
    },
    /// What an earlier plimsoll left running is not kept.
    Lost {
        /// What was done about it.
        action: LostAction,
        /// The name of its container, for one that is a container.
        container: Option<Arc<str>>,
    },
    /// A container of this name is about to be made: from now on what has the name is ours.
    ContainerPlanned {
        /// Its name; nobody can guess it.
        name: Arc<str>,
        /// What it is made of.
        image: Arc<str>,
        /// By which engine: where that listens.
        engine: Arc<str>,
    },
    /// A container that somebody else made is about to be started: from now on it may run because of plimsoll.
    ContainerStarting {
        /// Its name.
        name: Arc<str>,
    },
    /// There is no container of this name any more, and never will be again.
    ContainerRemoved {
        /// Its name.
        name: Arc<str>,
    },
    /// It failed once more, as often as makes a crash loop. Told once until it is well again.
    CrashLoop {
        /// In a row.
        failures: u32,
    },
}

/// What is done about what an earlier plimsoll left running and this one does not keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostAction {
    /// It was stopped.
    Stopped,
    /// It had ended by then.
    Gone,
}

/// What follows from an input.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Step {
    /// What to do.
    pub order: Option<Order>,
    /// What those who wait hear; `None` where they go on waiting.
    pub verdict: Option<Verdict>,
    /// What is written down, in this order.
    pub facts: Vec<Fact>,
}
