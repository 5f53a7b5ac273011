//! A town that lives: beads come, agents work on them and say so, everything by a seed.

use std::collections::BTreeSet;

use plimsoll::clock::Timestamp;
use plimsoll::ids::{AgentId, BeadId, DispatchId, Seq};
use plimsoll::town::event::TownEvent;
use plimsoll::town::words::{AgentStatus, CancelStatus, ContainerStatus, Origin, Outcome, Role};
use plimsoll::town::{Policy, Town, plan};

/// One event with its place and time.
pub(super) type Told = (Seq, Timestamp, TownEvent);

/// When the stories begin, in milliseconds since the epoch.
pub(super) const START_MS: u64 = 1_800_000_000_000;

pub(super) struct Story {
    pub(super) town: Town,
    seq: u64,
    ms: u64,
    roll: u64,
    beads: u64,
    /// What happened, if it is kept.
    pub(super) log: Option<Vec<Told>>,
    /// Dispatches of which nothing was seen yet.
    unseen: Vec<(AgentId, DispatchId)>,
}

impl Story {
    /// A town with so many workers.
    pub(super) fn new(agents: usize, log: Option<Vec<Told>>) -> Self {
        let (town, unseen) = (Town::default(), Vec::new());
        let mut story = Self { town, seq: 0, ms: START_MS, roll: 7, beads: 0, log, unseen };
        story.take(TownEvent::TownCreated { policy: Box::new(Policy::default()) });
        for number in 0..agents {
            let agent = AgentId::parse(&format!("worker-{number:06}")).expect("a valid id");
            let (role, origin) = (Role::Worker, Origin::Configured);
            story.take(TownEvent::AgentRegistered { agent, role, origin, nudges: false, template: None });
        }
        story
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.ms)
    }

    pub(super) fn pass(&mut self, ms: u64) {
        self.ms += ms;
    }

    /// The next event is one that the town accepts.
    pub(super) fn take(&mut self, event: TownEvent) {
        let (seq, time) = self.place();
        self.town.apply(seq, time, &event).expect("it is accepted");
        if let Some(log) = &mut self.log {
            log.push((seq, time, event));
        }
    }

    /// Where the next event stands.
    pub(super) fn place(&mut self) -> (Seq, Timestamp) {
        self.seq += 1;
        (Seq(self.seq), self.now())
    }

    /// Beads that came and ended at once.
    pub(super) fn close(&mut self, beads: usize) {
        for _ in 0..beads {
            let (bead, created) = self.bead(BTreeSet::new());
            self.take(created);
            let cancel_status = CancelStatus::Closed;
            self.take(TownEvent::BeadCancelled { bead, cancel_status, reason: None });
        }
    }

    /// Open beads: of ten, six can be worked on, three wait for another, and one is held.
    pub(super) fn open(&mut self, beads: usize) {
        let mut last = None;
        for number in 0..beads {
            let waits = (number % 10).checked_sub(7).and(last.clone());
            let (bead, created) = self.bead(waits.into_iter().collect());
            self.take(created);
            if number % 10 == 6 {
                self.take(TownEvent::BeadHeld { bead: bead.clone(), reason: None });
                last = Some(bead);
            }
        }
    }

    fn bead(&mut self, blocked_by: BTreeSet<BeadId>) -> (BeadId, TownEvent) {
        self.beads += 1;
        let bead = BeadId::parse(&format!("bead-{:07}", self.beads)).expect("a valid id");
        let created = TownEvent::BeadCreated {
            bead: bead.clone(),
            title: format!("Make the thing number {} better", self.beads).into(),
            instructions: "Look at it, find out what is wrong with it, mend it, and say what you did.".into(),
            role: Role::Worker,
            priority: u8::try_from(self.beads % 5).expect("small"),
            convoy: None,
            blocked_by,
            report: None,
        };
        (bead, created)
    }

    /// Carries out what is planned, until nothing is left to do at this moment.
    pub(super) fn settle(&mut self) {
        loop {
            let plan = plan(&self.town, self.now());
            if plan.actions.is_empty() {
                return;
            }
            for action in &plan.actions {
                self.carry_out(action.event());
            }
        }
    }

    /// Takes an event of a plan in.
    pub(super) fn carry_out(&mut self, event: &TownEvent) {
        if let TownEvent::BeadDispatched { agent, dispatch_id, .. } = event {
            self.unseen.push((agent.clone(), dispatch_id.clone()));
        }
        self.take(event.clone());
    }

    /// What comes in within a while, not yet taken in: 15 of a hundred are new beads, 15 say that work is done, some what
    /// hosts a new dispatch, and the rest is progress.
    pub(super) fn news(&mut self, events: usize) -> Vec<TownEvent> {
        let busy = self.town.agents_that_are(AgentStatus::Working, Role::Worker);
        let mut busy: Vec<(AgentId, DispatchId)> = busy
            .filter_map(|(id, agent)| Some((id.clone(), agent.hook.as_ref()?.dispatch_id.clone())))
            .collect();
        let mut news = Vec::with_capacity(events);
        for (agent, dispatch_id) in std::mem::take(&mut self.unseen) {
            let (status, dispatch_id) = (ContainerStatus::Running, Some(dispatch_id));
            news.push(TownEvent::ContainerStatus {
                agent,
                dispatch_id,
                status,
                exit_reason: None,
                report: None,
            });
        }
        for _ in 0..(events * 15 / 100).min(busy.len()) {
            let index = self.dice(busy.len());
            let (agent, dispatch_id) = busy.swap_remove(index);
            let outcome = Outcome::Done;
            news.push(TownEvent::AgentDone { agent, dispatch_id, outcome, summary: None, report: None });
            news.push(self.bead(BTreeSet::new()).1);
        }
        while news.len() < events && !busy.is_empty() {
            let (agent, dispatch_id) = busy[self.dice(busy.len())].clone();
            news.push(TownEvent::AgentProgress { agent, dispatch_id, report: None });
        }
        news
    }

    /// Knuth's generator, upper half.
    fn dice(&mut self, sides: usize) -> usize {
        self.roll = self.roll.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.roll >> 33).expect("31 bits") % sides
    }
}

/// What happens in a town with so many agents, until there are so many events.
pub(super) fn events(agents: usize, count: usize) -> Vec<Told> {
    let mut story = Story::new(agents, Some(Vec::with_capacity(count + agents)));
    story.open(agents * 2);
    let told = |story: &Story| story.log.as_ref().map_or(0, Vec::len);
    while told(&story) < count {
        story.pass(5_000);
        story.settle();
        for event in story.news(agents.min(10_000)) {
            story.take(event);
        }
    }
    let mut log = story.log.unwrap_or_default();
    log.truncate(count);
    log
}
