//! What carries a town: ticks, restarts, and what is checked after each.

use plimsoll::ids::AgentId;
use plimsoll::town::event::TownEvent;
use plimsoll::town::invariant::{Scope, check_fold, episodes};
use plimsoll::town::plan::{Effect, plan};
use plimsoll::town::state::Town;
use plimsoll::town::words::{
    AgentReason, AgentStatus, CancelStatus, CompletionStatus, ContainerStatus, Entity, LostCause, Origin,
    Role,
};
use serde_json::json;

use crate::journal::{Fold, Saved, reread};
use crate::sim::Sim;

/// A tick that comes so much later than planned skips time.
const LATE_MS: u64 = 60_000;
/// How long a town may take to come to rest once nothing fails: until a clock that was set back is where it was, then the
/// longest ladder and the longest waits, and room.
const TICKS_TO_REST_MAX: u64 = 6_000;
/// How many plans one tick tries before it leaves the rest to the next.
const PLANS_MAX: u32 = 4;

impl Sim {
    /// Observe, drain, plan, apply, hand over the effects, check the invariants.
    pub(crate) fn tick(&mut self) {
        // An event of a clock that was ahead for a moment moves the town's time too, so that counts like the wall's.
        self.drain();
        let latest = self.wall.max(self.fold.town.time().as_millis());
        let late = latest.saturating_sub(self.planned);
        if late > LATE_MS {
            self.append(TownEvent::TimeSkipped { ms: late });
        }
        self.planned = latest + 5_000;
        self.observe();
        for _ in 0..PLANS_MAX {
            self.drain();
            self.find_orphans();
            if self.act() {
                break;
            }
            self.tally.fault("something gets between plan and append");
        }
        self.follow_violations();
    }

    /// A status becomes an event when it differs from the last one of that agent and dispatch.
    fn observe(&mut self) {
        let mut seen = Vec::new();
        for (id, agent) in self.fold.town.agents() {
            let Some(hook) = agent.hook.as_ref().filter(|_| can_be_seen(id)) else { continue };
            let waits = |(_, effect): &(u64, Effect)| matches!(effect, Effect::Dispatch { dispatch_id, .. } if *dispatch_id == hook.dispatch_id);
            if self.effects.iter().any(waits) {
                continue;
            }
            let process = self.processes.iter().find(|process| process.dispatch == hook.dispatch_id);
            let status = process.map_or(ContainerStatus::NotFound, |process| process.host);
            let last = agent.container.as_ref();
            let last = last.filter(|last| last.dispatch_id.as_ref() == Some(&hook.dispatch_id));
            if last.is_none_or(|last| last.status != status) {
                let dispatch_id = Some(hook.dispatch_id.clone());
                let (agent, exit_reason, report) = (id.clone(), None, None);
                seen.push(TownEvent::ContainerStatus { agent, dispatch_id, status, exit_reason, report });
            }
        }
        seen.into_iter().for_each(|event| self.append(event));
    }

    /// Takes in what is not yet; what is refused is told once.
    pub(crate) fn drain(&mut self) {
        loop {
            self.fold_pending();
            self.fold.forget_told();
            if self.fold.untold.is_empty() {
                return;
            }
            if !self.calm && self.roll.chance(40) {
                self.tally.fault("a crash before a refusal is told");
                self.rebuild();
            }
            for (seq, error) in std::mem::take(&mut self.fold.untold) {
                self.append(TownEvent::EventRejected { seq, error: error.into() });
            }
        }
    }

    pub(crate) fn fold_pending(&mut self) {
        while self.fold.next < self.journal.entries.len() {
            if let Err(code) = self.fold_next() {
                *self.tally.refusals.entry(code).or_default() += 1;
            }
        }
    }

    fn fold_next(&mut self) -> Result<(), &'static str> {
        let entry = &self.journal.entries[self.fold.next];
        let taken = self.fold.step(entry);
        if taken.is_ok() {
            self.watch.note(&self.fold.town, entry, &mut self.tally);
        }
        taken
    }

    /// Appends what must come right behind what is folded, and takes it in. False if something got in between.
    fn append_and_fold(&mut self, events: Vec<TownEvent>) -> bool {
        let entries = events.into_iter().map(|event| self.entry(event)).collect();
        let appended = self.journal.append_after(self.fold.at(), entries);
        while appended && self.fold.next < self.journal.entries.len() {
            if let Err(code) = self.fold_next() {
                let event = &self.journal.entries[self.fold.next - 1].event;
                panic!("the reconciler's own event is refused ({code}): {event:?}");
            }
        }
        appended
    }

    /// Plans and does it. False if something got in between.
    fn act(&mut self) -> bool {
        let made = plan(&self.fold.town, self.now());
        self.watch.check_plan(&self.fold.town, &made, self.mono, self.jumps);
        if !self.calm && self.roll.chance(60) {
            self.someone_acts();
        }
        let events: Vec<TownEvent> = made.actions.iter().map(|action| action.event().clone()).collect();
        let crashes = !self.calm && !events.is_empty() && self.roll.chance(8);
        if crashes {
            let entries = events.into_iter().map(|event| self.entry(event)).collect();
            if self.journal.append_after(self.fold.at(), entries) {
                self.tally.fault("a crash between append and effects");
            }
            self.restart();
            return true;
        }
        if !self.append_and_fold(events) {
            return false;
        }
        for action in made.actions {
            *self.tally.actions.entry(action.kind).or_default() += 1;
            if let Some(effect) = action.effect {
                let takes = if self.roll.chance(800) { 0 } else { self.roll.secs(0, 40) };
                self.effects.push((self.mono + takes, effect));
            }
        }
        true
    }

    /// Violations become episodes, and end.
    fn follow_violations(&mut self) {
        let found = self.watch.check(&self.fold.town);
        self.checked = self.fold.next;
        let events = episodes(&self.fold.town, &found, Scope::Town).events;
        self.append_and_fold(events);
        let named =
            |id: &_| found.iter().any(|found| found.entities.contains(&Entity::Agent(Clone::clone(id))));
        self.watch.damaged.retain(named);
    }

    /// A run that nobody waits for is stopped once it is found.
    fn find_orphans(&mut self) {
        let Some(index) = self.processes.iter().position(|process| process.orphan) else { return };
        if self.calm || self.roll.chance(400) {
            self.tally.fault("a lost run is found");
            self.processes.remove(index);
        }
    }

    /// plimsoll ends, in order or not, and begins again with a snapshot and what came after it.
    pub(crate) fn restart(&mut self) {
        let cause = self.roll.any(&[LostCause::Restart, LostCause::Restart, LostCause::Shutdown]);
        self.tally.fault(if cause == LostCause::Shutdown { "a shutdown" } else { "a crash" });
        self.rebuild();
        self.effects.clear();
        let down = if self.roll.chance(700) { self.roll.secs(0, 20) } else { self.roll.secs(20, 900) };
        self.pass(down);
        self.drain();
        let held = self.fold.town.agents().iter().filter_map(|(id, agent)| Some((id, agent.hook.as_ref()?)));
        let held: Vec<_> = held.map(|(id, hook)| (id.clone(), hook.clone())).collect();
        let is_held = |process: &crate::runtime::Process| {
            held.iter().any(|(id, hook)| *id == process.agent && hook.dispatch_id == process.dispatch)
        };
        let mut kept = Vec::new();
        for mut process in std::mem::take(&mut self.processes) {
            let (holds, survives) = (is_held(&process), self.roll.chance(400));
            // What is left running without a hook is found later.
            process.orphan = process.orphan || !holds || self.roll.chance(150);
            if survives {
                kept.push(process);
            }
        }
        self.processes = kept;
        for (agent, hook) in held {
            let runs =
                |process: &crate::runtime::Process| process.dispatch == hook.dispatch_id && !process.orphan;
            let open = hook.said.is_none() && hook.ended.is_none();
            if !open || self.processes.iter().any(runs) {
                continue;
            }
            let dispatch_id = hook.dispatch_id;
            self.append(match hook.asked {
                0 => TownEvent::DispatchLost { dispatch_id, cause },
                // Its work is done, and the question how it ended was cut.
                _ => {
                    let (status, reason, report) = (CompletionStatus::Failed, None, None);
                    TownEvent::AgentCompleted { agent, dispatch_id, status, reason, report }
                }
            });
        }
        self.drain();
    }

    /// The town from its snapshot and what came after it is the one that lived.
    fn rebuild(&mut self) {
        self.fold_pending();
        self.fold.forget_told();
        let again = Fold::rebuilt(&self.saved, &self.journal);
        assert!(again.town == self.fold.town, "snapshot and tail make another town");
        // What is the same has the same hash; that costs more to see.
        if self.roll.chance(300) {
            assert_eq!(again.town.hash(), self.fold.town.hash());
        }
        assert_eq!(again.untold, self.fold.untold);
        self.fold = again;
        if self.roll.chance(400) {
            self.saved = Saved::of(&self.fold);
        }
    }

    /// Something that is no event changes the town: a fault of the disk, or of a plimsoll before this one.
    pub(crate) fn damage(&mut self) {
        self.drain();
        let idle = self.fold.town.agents().iter();
        let idle = idle.filter(|(_, agent)| agent.status == AgentStatus::Idle && agent.hook.is_none());
        let idle: Vec<_> = idle.map(|(id, _)| id.clone()).collect();
        let Some(agent) = self.roll.pick(&idle) else { return };
        let mut snapshot = self.fold.town.snapshot();
        let broken = &mut snapshot["town"]["agents"][agent.as_str()];
        broken["status"] = json!("working");
        if self.roll.chance(500) {
            let Some(bead) = self.fold.town.closed().keys().next() else { return };
            let bead = if self.roll.chance(500) { bead.as_str() } else { "nowhere" };
            broken["hook"] = json!({"bead": bead, "dispatch_id": format!("{bead}.999"), "since": 0, "progress": 0,
                "said": null, "ended": null, "asked": 0, "tiers": {}});
        }
        self.tally.fault("an agent is damaged");
        self.fold.town = Town::restore(&snapshot).expect("a snapshot");
        self.watch.damaged.insert(agent);
        self.watch.adopt(&self.fold.town);
        (self.saved, self.base) = (Saved::of(&self.fold), Saved::of(&self.fold));
    }

    pub(crate) fn check(&mut self) {
        if self.checked != self.fold.next {
            self.watch.check(&self.fold.town);
            self.checked = self.fold.next;
        }
        self.check_world();
        if self.roll.chance(3) {
            self.watch.check_ended(&self.fold.town);
        }
        if self.roll.chance(1) {
            self.check_refold(false);
        }
    }

    /// Invariant 1.
    fn check_refold(&mut self, reads: bool) {
        let mut folded = Fold {
            town: Town::restore(&self.base.snapshot).expect("a snapshot"),
            next: self.base.next,
            untold: Vec::new(),
        };
        while folded.next < self.fold.next {
            let mut entry = self.journal.entries[folded.next].clone();
            if reads {
                entry.event = entry.event.as_ref().map(reread);
            }
            let _ = folded.step(&entry);
        }
        assert_eq!(check_fold(&self.fold.town, &folded.town), []);
    }

    /// Faults stop and people answer: every bead ends, and every episode resolves.
    pub(crate) fn rest(&mut self) {
        self.calm = true;
        let mut ticks = 0;
        loop {
            self.tick();
            self.check();
            self.world_acts();
            let settled = self.fold.town.beads().is_empty() && self.fold.town.episodes().next().is_none();
            if settled && self.fold.next == self.journal.entries.len() && self.watch.damaged.is_empty() {
                break;
            }
            ticks += 1;
            let open = || plan(&self.fold.town, self.now()).report;
            assert!(ticks < TICKS_TO_REST_MAX, "no rest after {ticks} ticks: {:#?}", open());
            self.everyone_answers();
            let live = plan(&self.fold.town, self.now()).has_work();
            let wait = if live { 5_000 } else { 60_000 };
            self.pass(wait);
            self.planned = self.wall.max(self.fold.town.time().as_millis());
            self.world_acts();
        }
        self.tally.ticks_to_rest = ticks;
        self.watch.check_ended(&self.fold.town);
        self.check_refold(true);
    }

    fn everyone_answers(&mut self) {
        let town = &self.fold.town;
        let mut events = Vec::new();
        if town.draining().is_some() {
            events.push(TownEvent::DrainEnded {});
        }
        for (agent, known) in town.agents() {
            if known.status == AgentStatus::Dead {
                let (agent, reason) = (agent.clone(), AgentReason::Usable);
                let (from, to) = (AgentStatus::Dead, AgentStatus::Idle);
                events.push(TownEvent::AgentTransitioned { agent, from, to, reason });
            }
        }
        for (id, bead) in town.beads() {
            let bead_id = id.clone();
            if bead.kind == plimsoll::town::words::BeadKind::Escalation {
                let cancel_status = CancelStatus::Closed;
                events.push(TownEvent::BeadCancelled { bead: bead_id, cancel_status, reason: None });
            } else if bead.waits.held.is_some() || bead.waits.human.is_some() {
                events.push(TownEvent::BeadReleased { bead: bead_id });
            }
        }
        let missing: Vec<Role> = Role::ALL
            .iter()
            .filter(|role| !town.agents().values().any(|a| a.role == **role))
            .copied()
            .collect();
        events.into_iter().for_each(|event| self.append(event));
        missing.into_iter().for_each(|role| self.register(role, Origin::Configured));
    }
}

/// Every fourth agent runs where nobody can look.
pub(crate) fn can_be_seen(agent: &AgentId) -> bool {
    let number: u64 = agent.as_str()[1..].parse().expect("an agent is called a and a number");
    !number.is_multiple_of(4)
}
