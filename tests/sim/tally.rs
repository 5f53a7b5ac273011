//! What a run exercised: a simulation that never does a thing says nothing of it.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

use plimsoll::town::event::KINDS;
use plimsoll::town::plan::ActionKind;
use plimsoll::town::words::{AgentStatus, BeadKind, BeadReason, BeadStatus, LostCause};

type BeadWay = (BeadKind, Option<BeadStatus>, BeadStatus);
type AgentWay = (Option<AgentStatus>, Option<AgentStatus>);

/// How often each thing happened.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) events: BTreeMap<&'static str, u64>,
    pub(crate) actions: BTreeMap<ActionKind, u64>,
    pub(crate) bead_ways: BTreeMap<BeadWay, u64>,
    pub(crate) agent_ways: BTreeMap<AgentWay, u64>,
    pub(crate) reasons: BTreeMap<BeadReason, u64>,
    pub(crate) causes: BTreeMap<LostCause, u64>,
    pub(crate) refusals: BTreeMap<&'static str, u64>,
    pub(crate) faults: BTreeMap<&'static str, u64>,
    /// The most ticks that a town took to come to rest.
    pub(crate) ticks_to_rest: u64,
}

/// Every way of a bead that can be gone.
const BEAD_WAYS: &[BeadWay] = {
    use BeadKind::{Convoy, Escalation, Review, Task};
    use BeadStatus::{Closed, Failed, InProgress, InReview, Open};
    &[
        (Task, None, Open),
        (Task, Some(Open), InProgress),
        (Task, Some(Open), Closed),
        (Task, Some(Open), Failed),
        (Task, Some(InProgress), Open),
        (Task, Some(InProgress), InReview),
        (Task, Some(InProgress), Closed),
        (Task, Some(InProgress), Failed),
        (Task, Some(InReview), Open),
        (Task, Some(InReview), Closed),
        (Task, Some(InReview), Failed),
        (Review, None, Open),
        (Review, Some(Open), InProgress),
        (Review, Some(Open), Closed),
        (Review, Some(Open), Failed),
        (Review, Some(InProgress), Open),
        (Review, Some(InProgress), Closed),
        (Review, Some(InProgress), Failed),
        (Convoy, None, Open),
        (Convoy, Some(Open), Closed),
        (Convoy, Some(Open), Failed),
        (Escalation, None, Open),
        (Escalation, Some(Open), Closed),
        (Escalation, Some(Open), Failed),
    ]
};

/// Every way of an agent that can be gone; none is where it comes from and where it ends.
const AGENT_WAYS: &[AgentWay] = {
    use AgentStatus::{Dead, Idle, Stalled, Working};
    &[
        (None, Some(Idle)),
        (Some(Idle), Some(Working)),
        (Some(Working), Some(Idle)),
        (Some(Working), Some(Stalled)),
        (Some(Stalled), Some(Working)),
        (Some(Stalled), Some(Idle)),
        (Some(Idle), Some(Dead)),
        (Some(Dead), Some(Idle)),
        (Some(Idle), None),
        (Some(Working), None),
        (Some(Stalled), None),
        (Some(Dead), None),
    ]
};

/// What goes wrong in every run of many seeds, beside what agents do.
const FAULTS: &[&str] = &[
    "a crash",
    "a crash before a refusal is told",
    "a crash between append and effects",
    "a dispatch is refused",
    "a dispatch passes its deadline",
    "a dispatch times out and runs",
    "a key that is used for another body is refused",
    "a lost run is found",
    "a repetition is answered",
    "a report comes twice",
    "a shutdown",
    "an agent is damaged",
    "an unreadable record",
    "nonsense",
    "something gets between plan and append",
    "the clock jumps ahead",
    "the clock jumps back",
];

impl Tally {
    pub(crate) fn fault(&mut self, name: &'static str) {
        *self.faults.entry(name).or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: Self) {
        sum(&mut self.events, other.events);
        sum(&mut self.actions, other.actions);
        sum(&mut self.bead_ways, other.bead_ways);
        sum(&mut self.agent_ways, other.agent_ways);
        sum(&mut self.reasons, other.reasons);
        sum(&mut self.causes, other.causes);
        sum(&mut self.refusals, other.refusals);
        sum(&mut self.faults, other.faults);
        self.ticks_to_rest = self.ticks_to_rest.max(other.ticks_to_rest);
    }

    /// What can happen and did not.
    pub(crate) fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        missing.extend(
            KINDS.iter().filter(|kind| !self.events.contains_key(*kind)).map(|k| format!("event {k}")),
        );
        let actions = ActionKind::ALL.iter().filter(|kind| !self.actions.contains_key(kind));
        missing.extend(actions.map(|kind| format!("action {}", kind.as_str())));
        let ways = BEAD_WAYS.iter().filter(|way| !self.bead_ways.contains_key(way));
        missing.extend(ways.map(|way| format!("bead {}", bead_way(*way))));
        let ways = AGENT_WAYS.iter().filter(|way| !self.agent_ways.contains_key(way));
        missing.extend(ways.map(|way| format!("agent {}", agent_way(*way))));
        let reasons = BeadReason::ALL.iter().filter(|reason| !self.reasons.contains_key(reason));
        missing.extend(reasons.map(|reason| format!("reason {reason}")));
        let causes = LostCause::ALL.iter().filter(|cause| !self.causes.contains_key(cause));
        missing.extend(causes.map(|cause| format!("lost because of {cause}")));
        let faults = FAULTS.iter().filter(|fault| !self.faults.contains_key(*fault));
        missing.extend(faults.map(|fault| format!("fault: {fault}")));
        missing
    }

    /// Ways that were gone though they should not be there.
    pub(crate) fn unknown(&self) -> Vec<String> {
        let beads = self.bead_ways.keys().filter(|way| !BEAD_WAYS.contains(way)).map(|way| bead_way(*way));
        let agents =
            self.agent_ways.keys().filter(|way| !AGENT_WAYS.contains(way)).map(|way| agent_way(*way));
        beads.chain(agents).collect()
    }

    pub(crate) fn told(&self) -> String {
        let mut text = String::new();
        section(&mut text, "events", self.events.iter());
        section(&mut text, "actions", self.actions.iter().map(|(kind, count)| (kind.as_str(), count)));
        section(&mut text, "beads", self.bead_ways.iter().map(|(way, count)| (bead_way(*way), count)));
        section(&mut text, "agents", self.agent_ways.iter().map(|(way, count)| (agent_way(*way), count)));
        section(&mut text, "reasons", self.reasons.iter());
        section(&mut text, "lost", self.causes.iter());
        section(&mut text, "refused", self.refusals.iter());
        section(&mut text, "faults", self.faults.iter());
        let _ = write!(text, "at rest after at most {} ticks", self.ticks_to_rest);
        text
    }
}

fn sum<K: Ord>(into: &mut BTreeMap<K, u64>, from: BTreeMap<K, u64>) {
    for (key, count) in from {
        *into.entry(key).or_default() += count;
    }
}

fn section<'a, K: Display>(text: &mut String, title: &str, counts: impl Iterator<Item = (K, &'a u64)>) {
    let counts: Vec<String> = counts.map(|(key, count)| format!("{key} {count}")).collect();
    let _ = writeln!(text, "{title}: {}", counts.join(", "));
}

fn bead_way((kind, from, to): BeadWay) -> String {
    format!("{kind}: {}->{to}", from.map_or("new", BeadStatus::as_str))
}

fn agent_way((from, to): AgentWay) -> String {
    format!("{}->{}", from.map_or("new", AgentStatus::as_str), to.map_or("gone", AgentStatus::as_str))
}
