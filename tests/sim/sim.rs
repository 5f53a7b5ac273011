//! The world of one town: two clocks, a journal, what runs agents, and what is under way between them.

use std::collections::BTreeMap;

use plimsoll::clock::Timestamp;
use plimsoll::ids::{AgentId, BeadId, DispatchId, IdempotencyKey};
use plimsoll::town::event::Report;
use plimsoll::town::plan::Effect;
use plimsoll::town::state::{KeyUse, Town};
use plimsoll::town::words::{CompletionStatus, LostCause, Origin, Outcome, Role};
use plimsoll::town::{TownEvent, words::BeadKind};

use crate::journal::{Entry, Fold, Journal, Saved};
use crate::people::policy;
use crate::roll::Roll;
use crate::runtime::{self, Act, Process};
use crate::tally::Tally;
use crate::watch::Watch;

/// See the module.
pub(crate) struct Sim {
    seed: u64,
    pub(crate) roll: Roll,
    pub(crate) tally: Tally,
    pub(crate) watch: Watch,
    /// The clock on the wall, which jumps, and the time that really passed, in milliseconds.
    pub(crate) wall: u64,
    pub(crate) mono: u64,
    /// How often the wall's clock jumped ahead.
    pub(crate) jumps: u64,
    pub(crate) journal: Journal,
    pub(crate) fold: Fold,
    /// The snapshot that a restart begins with, and the one that a refold begins with.
    pub(crate) saved: Saved,
    pub(crate) base: Saved,
    /// Effects under way, in the order in which they were handed over, with when they end.
    pub(crate) effects: Vec<(u64, Effect)>,
    pub(crate) processes: Vec<Process>,
    /// Words that arrive later.
    late: Vec<(u64, TownEvent)>,
    /// When the next tick should come, on the wall.
    pub(crate) planned: u64,
    /// How far the town was folded when its invariants were last checked.
    pub(crate) checked: usize,
    /// Nothing fails any more, and people answer.
    pub(crate) calm: bool,
    made: u64,
}

impl Sim {
    pub(crate) fn new(seed: u64) -> Self {
        let fold = Fold { town: Town::default(), next: 0, untold: Vec::new() };
        let (saved, base) = (Saved::of(&fold), Saved::of(&fold));
        let wall = 1_800_000_000_000;
        let mut sim = Self {
            seed,
            roll: Roll::new(seed),
            tally: Tally::default(),
            watch: Watch::default(),
            wall,
            mono: 0,
            jumps: 0,
            journal: Journal::default(),
            fold,
            saved,
            base,
            effects: Vec::new(),
            processes: Vec::new(),
            late: Vec::new(),
            planned: wall,
            checked: 0,
            calm: false,
            made: 0,
        };
        let policy = policy(&mut sim.roll);
        sim.append(TownEvent::TownCreated { policy });
        for role in [Role::Worker, Role::Worker, Role::Worker, Role::Reviewer, Role::Coordinator] {
            sim.register(role, Origin::Configured);
        }
        sim
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.wall)
    }

    pub(crate) fn entry(&self, event: TownEvent) -> Entry {
        Entry { time: self.now(), mono: self.mono, jumps: self.jumps, event: Some(event) }
    }

    pub(crate) fn append(&mut self, event: TownEvent) {
        let entry = self.entry(event);
        self.journal.append(entry);
    }

    pub(crate) fn append_unreadable(&mut self) {
        let (time, mono, jumps) = (self.now(), self.mono, self.jumps);
        self.journal.append(Entry { time, mono, jumps, event: None });
    }

    pub(crate) fn fresh_bead(&mut self, mark: &str) -> BeadId {
        self.made += 1;
        BeadId::parse(&format!("{mark}{}", self.made)).expect("an id")
    }

    pub(crate) fn fresh_agent(&mut self) -> AgentId {
        self.made += 1;
        AgentId::parse(&format!("a{}", self.made)).expect("an id")
    }

    /// One step of a world in which things fail.
    pub(crate) fn step(&mut self) {
        let passes = self.roll.between(0, 12_000);
        self.pass(passes);
        if self.roll.chance(6) {
            self.clock_jumps();
        }
        self.world_acts();
        if self.roll.chance(260) {
            self.someone_acts();
        }
        if self.roll.chance(8) {
            self.an_idle_host_is_seen();
        }
        if self.roll.chance(2) {
            self.damage();
        }
        if self.roll.chance(550) {
            self.tick();
        }
        if self.roll.chance(4) {
            self.restart();
        }
        self.check();
    }

    pub(crate) fn pass(&mut self, ms: u64) {
        self.wall += ms;
        self.mono += ms;
    }

    fn clock_jumps(&mut self) {
        if self.roll.chance(500) {
            self.tally.fault("the clock jumps ahead");
            self.jumps += 1;
            self.wall += self.roll.secs(1, 7_200);
        } else {
            self.tally.fault("the clock jumps back");
            self.wall -= self.roll.secs(1, 1_200);
        }
    }

    /// Runtimes act, words arrive, effects end.
    pub(crate) fn world_acts(&mut self) {
        let now = self.mono;
        let (arrived, late) = std::mem::take(&mut self.late).into_iter().partition(|(due, _)| *due <= now);
        self.late = late;
        let arrived: Vec<(u64, TownEvent)> = arrived;
        arrived.into_iter().for_each(|(_, event)| self.report(event));
        while let Some(index) = self.processes.iter().position(|process| process.due <= now) {
            let process = &mut self.processes[index];
            let (agent, dispatch) = (process.agent.clone(), process.dispatch.clone());
            if let Some(act) = process.act(now) {
                self.happens(&agent, &dispatch, act);
            }
        }
        let overdue = self.fold.town.policy().dispatch.deadline.0.as_millis();
        let overdue = |process: &Process| process.works && u128::from(now - process.begun) > overdue;
        while let Some(index) = self.processes.iter().position(overdue) {
            let Process { agent, dispatch, .. } = self.processes.remove(index);
            self.tally.fault("a dispatch passes its deadline");
            self.happens(&agent, &dispatch, Act::Ended(CompletionStatus::Failed));
        }
        while let Some(index) = self.effects.iter().position(|(due, _)| *due <= now) {
            let (_, effect) = self.effects.remove(index);
            self.perform(effect);
        }
    }

    fn happens(&mut self, agent: &AgentId, dispatch: &DispatchId, act: Act) {
        let (agent, dispatch_id) = (agent.clone(), dispatch.clone());
        match act {
            Act::Progress => self.says(TownEvent::AgentProgress { agent, dispatch_id, report: None }),
            Act::Done(outcome) => self.says(done(agent, dispatch_id, outcome)),
            Act::Judged(verdict) => {
                let notes = Some("see there".into());
                self.says(TownEvent::ReviewDone { agent, dispatch_id, verdict, notes, report: None });
            }
            Act::Ended(status) => {
                let reason = None;
                self.says(TownEvent::AgentCompleted { agent, dispatch_id, status, reason, report: None });
            }
            Act::DoneForAnother => {
                let other = self.fold.town.agents().values().filter_map(|agent| agent.hook.as_ref());
                let other: Vec<_> = other.map(|hook| hook.dispatch_id.clone()).collect();
                let other = other.into_iter().find(|other| *other != dispatch_id);
                let Some(other) = other else { return };
                self.says(done(agent, other, Outcome::Done));
            }
            Act::DoneForEarlier => {
                let number = std::num::NonZeroU64::new(dispatch_id.number().saturating_sub(1));
                let earlier = number.and_then(|n| DispatchId::of(dispatch_id.bead().clone(), n));
                let Some(earlier) = earlier else { return };
                self.says(done(agent, earlier, Outcome::Done));
            }
            Act::Evicted => {
                let reason = Some("disk pressure".into());
                self.says(TownEvent::ContainerEviction { agent, dispatch_id, reason, report: None });
            }
            Act::Host(_) | Act::Hang => {}
        }
    }

    /// Half of what agents say comes from outside, with a key; and of that some comes twice.
    fn says(&mut self, event: TownEvent) {
        let event = if self.roll.chance(500) { self.keyed(event) } else { event };
        if event.report().is_some() && self.roll.chance(150) {
            self.tally.fault("a report comes twice");
            let due = self.mono + if self.roll.chance(400) { 0 } else { self.roll.secs(0, 600) };
            let mut again = event.clone();
            if self.roll.chance(200) {
                set_body(&mut again, "1b");
            }
            self.late.push((due, again));
        }
        self.report(event);
    }

    fn keyed(&mut self, mut event: TownEvent) -> TownEvent {
        self.made += 1;
        let key = IdempotencyKey::parse(&format!("k{}", self.made)).expect("a key");
        let with = Some(Box::new(Report { by: "runtime".into(), key, body: "0a".repeat(32).into() }));
        if let TownEvent::AgentDone { report, .. }
        | TownEvent::AgentCompleted { report, .. }
        | TownEvent::AgentProgress { report, .. }
        | TownEvent::ContainerEviction { report, .. }
        | TownEvent::ReviewDone { report, .. } = &mut event
        {
            *report = with;
        }
        event
    }

    /// The route: what came before is answered as before. What came before and is not folded yet is found by the fold.
    fn report(&mut self, event: TownEvent) {
        if let Some(report) = event.report() {
            match self.fold.town.reported(&report.by, &report.key, self.now()) {
                Some(KeyUse { body, .. }) if *body == report.body => {
                    return self.tally.fault("a repetition is answered");
                }
                Some(_) => return self.tally.fault("a key that is used for another body is refused"),
                None => {}
            }
        }
        self.append(event);
    }

    /// Does what a plan asked for.
    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Dispatch { agent, dispatch_id, .. } => self.dispatch(agent, dispatch_id),
            Effect::Stop { agent, dispatch_id } => self.stop(&agent, &dispatch_id),
            Effect::StopAgent { agent } => self.stop_agent(&agent),
            Effect::Nudge { agent: _, dispatch_id } => {
                let wakes = self.calm || self.roll.chance(500);
                let review = self.is_review(&dispatch_id);
                let script = runtime::good(&mut self.roll, review, self.calm);
                let hung = |process: &&mut Process| process.dispatch == dispatch_id && process.works;
                if let Some(process) = self.processes.iter_mut().find(hung).filter(|_| wakes) {
                    process.play(self.mono, script);
                }
            }
            Effect::AskEnding { agent: _, dispatch_id } => {
                let review = self.is_review(&dispatch_id);
                let script = runtime::asked(&mut self.roll, review, self.calm);
                let asked = |process: &&mut Process| process.dispatch == dispatch_id;
                if let Some(process) = self.processes.iter_mut().find(asked) {
                    process.play(self.mono, script);
                }
            }
        }
    }

    fn is_review(&self, dispatch: &DispatchId) -> bool {
        self.fold.town.beads().get(dispatch.bead()).is_some_and(|bead| bead.kind == BeadKind::Review)
    }

    /// Hands a bead over. What was asked to stop stops first, and so does what still runs of an earlier dispatch that
    /// the executor lost sight of: those are its duties, whatever the order in which effects end.
    fn dispatch(&mut self, agent: AgentId, dispatch: DispatchId) {
        let stops = |(_, effect): &(u64, Effect)| match effect {
            Effect::Stop { agent: other, dispatch_id } => {
                *other == agent || dispatch_id.bead() == dispatch.bead()
            }
            Effect::StopAgent { agent: other } => *other == agent,
            Effect::Dispatch { .. } | Effect::Nudge { .. } | Effect::AskEnding { .. } => false,
        };
        let withdrawn = |(_, effect): &(u64, Effect)| match effect {
            Effect::Stop { dispatch_id, .. } => *dispatch_id == dispatch,
            Effect::StopAgent { agent: other } => *other == agent,
            Effect::Dispatch { .. } | Effect::Nudge { .. } | Effect::AskEnding { .. } => false,
        };
        // It was taken back before it began, or another run of its agent spoke for it.
        self.fold_pending();
        let hook = self.fold.town.agents().get(&agent).and_then(|agent| agent.hook.as_ref());
        let held = hook.is_some_and(|hook| hook.dispatch_id == dispatch && hook.said.is_none());
        if !held || self.effects.iter().any(withdrawn) {
            return;
        }
        while let Some(index) = self.effects.iter().position(stops) {
            let (_, effect) = self.effects.remove(index);
            self.perform(effect);
        }
        self.processes.retain(|process| {
            let in_the_way = process.agent == agent || process.dispatch.bead() == dispatch.bead();
            !(process.orphan && in_the_way)
        });
        let review = self.is_review(&dispatch);
        let (story, script) = match self.calm {
            true => ("goes well", runtime::good(&mut self.roll, review, true)),
            false => runtime::any(&mut self.roll, review),
        };
        let refused = !self.calm && self.roll.chance(60);
        let unheard = !self.calm && self.roll.chance(30);
        if refused || unheard {
            let (fault, error) = if refused {
                ("a dispatch is refused", "the lane is full")
            } else {
                ("a dispatch times out and runs", "it timed out")
            };
            self.tally.fault(fault);
            let dispatch_id = dispatch.clone();
            // One that takes no work for a while has no part in it.
            let event = if refused && self.roll.chance(500) {
                TownEvent::DispatchLost { dispatch_id, cause: LostCause::Refused }
            } else {
                TownEvent::DispatchFailed { dispatch_id, error: error.into() }
            };
            self.append(event);
        }
        if !refused {
            self.tally.fault(story);
            let mut process = Process::new(agent, dispatch, self.mono, script);
            process.orphan = unheard;
            self.processes.push(process);
        }
    }

    fn stop(&mut self, agent: &AgentId, dispatch: &DispatchId) {
        let asked = |effect: &Effect| matches!(effect, Effect::Dispatch { dispatch_id, .. } if dispatch_id == dispatch);
        self.effects.retain(|(_, effect)| !asked(effect));
        let before = self.processes.len();
        self.processes.retain(|process| process.dispatch != *dispatch);
        if self.processes.len() < before && self.roll.chance(200) {
            // Its last word was on its way.
            let event = TownEvent::AgentCompleted {
                agent: agent.clone(),
                dispatch_id: dispatch.clone(),
                status: self.roll.any(CompletionStatus::ALL),
                reason: None,
                report: None,
            };
            let due = self.mono + self.roll.secs(0, 60);
            self.late.push((due, event));
        }
    }

    pub(crate) fn stop_agent(&mut self, agent: &AgentId) {
        let asked = |effect: &Effect| matches!(effect, Effect::Dispatch { agent: of, .. } if of == agent);
        self.effects.retain(|(_, effect)| !asked(effect));
        self.processes.retain(|process| process.agent != *agent);
    }

    /// Nobody's work is done twice at the same time, and no agent does two things.
    pub(crate) fn check_world(&self) {
        let (mut beads, mut agents) = (BTreeMap::new(), BTreeMap::new());
        for process in self.processes.iter().filter(|process| process.works) {
            let other = beads.insert(process.dispatch.bead(), process);
            assert!(other.is_none(), "worked on twice: {process:?}, {other:?}");
            let other = agents.insert(&process.agent, process);
            assert!(other.is_none(), "one agent does two things: {process:?}, {other:?}");
        }
    }
}

impl Drop for Sim {
    /// What led to a failure.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let last = self.journal.entries.len().saturating_sub(60);
            for (entry, seq) in self.journal.entries[last..].iter().zip(last + 1..) {
                println!("{seq} {} {:?}", entry.time, entry.event);
            }
            println!("seed {}: PLIMSOLL_SIM_SEED={} repeats it", self.seed, self.seed);
        }
    }
}

fn done(agent: AgentId, dispatch_id: DispatchId, outcome: Outcome) -> TownEvent {
    TownEvent::AgentDone { agent, dispatch_id, outcome, summary: None, report: None }
}

fn set_body(event: &mut TownEvent, digits: &str) {
    if let TownEvent::AgentDone { report: Some(report), .. }
    | TownEvent::AgentCompleted { report: Some(report), .. }
    | TownEvent::AgentProgress { report: Some(report), .. }
    | TownEvent::ContainerEviction { report: Some(report), .. }
    | TownEvent::ReviewDone { report: Some(report), .. } = event
    {
        report.body = digits.repeat(32).into();
    }
}
