//! Who gives the demo's town its work: what they do follows from a seed and from what they see of the town.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::crew::TOWN;
use crate::client::{Client, ClientError};

/// Beads that have not ended, past which nobody adds any: the town can catch up.
pub const OPEN_MAX: usize = 60;

/// Between two looks at the town, on average.
pub const PACE: Duration = Duration::from_secs(2);

const WORK: [&str; 6] = [
    "Mend the roof of",
    "Paint the door of",
    "Count what is left in",
    "Write down the rules of",
    "Clean the windows of",
    "Find out what is missing in",
];

const PLACES: [&str; 6] =
    ["the mill", "the school", "the harbour", "the library", "the bakery", "the station"];

/// A bead as `town.beads` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    id: String,
    kind: String,
    held: bool,
    waits_for_person: bool,
}

impl Seen {
    fn is_free_task(&self) -> bool {
        self.kind == "task" && !self.held && !self.waits_for_person
    }
}

/// Something that somebody does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// A task is added.
    Add(Task),
    /// Some are added, and belong together.
    Convoy(String, Vec<Task>),
    /// A bead is held.
    Hold(String),
    /// One that was held, or that waited for a person, may go on.
    Release(String),
    /// Nobody wants a task any more.
    Cancel(String),
    /// Somebody looked after what was escalated.
    Settle(String),
}

/// A task that is added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    title: String,
    priority: u8,
    blocked_by: Option<String>,
}

/// They decide, and nothing else.
#[derive(Debug)]
pub struct People {
    random: StdRng,
    pace: Duration,
    made: u64,
}

impl People {
    /// People who do something every `pace` on average.
    #[must_use]
    pub fn new(seed: u64, pace: Duration) -> Self {
        Self { random: StdRng::seed_from_u64(seed), pace, made: 0 }
    }

    /// From now on they do something every `pace` on average.
    pub fn set_pace(&mut self, pace: Duration) {
        self.pace = pace;
    }

    /// The time until somebody does something again.
    fn pause(&mut self) -> Duration {
        self.pace.mul_f64(self.random.random_range(0.5..1.5))
    }

    /// What is done, with the town as it is.
    pub fn decide(&mut self, open: &[Seen]) -> Deed {
        let full = open.len() >= OPEN_MAX;
        let asked = self.one(open, |bead| bead.waits_for_person || bead.kind == "escalation");
        if let Some(bead) = asked.filter(|_| full || self.random.random_ratio(1, 3)) {
            return if bead.kind == "escalation" { Deed::Settle(bead.id) } else { Deed::Release(bead.id) };
        }
        let held = self.one(open, |bead| bead.held);
        if let Some(bead) = held.filter(|_| full || self.random.random_ratio(1, 5)) {
            return Deed::Release(bead.id);
        }
        let task = self.one(open, Seen::is_free_task);
        match (task, self.random.random_range(0..40)) {
            (Some(task), _) if full => Deed::Hold(task.id),
            (Some(task), 0 | 1) => Deed::Hold(task.id),
            (Some(task), 2) => Deed::Cancel(task.id),
            (_, 3 | 4) => {
                let size = self.random.random_range(2..5);
                let tasks = (0..size).map(|_| self.task(None)).collect();
                Deed::Convoy(format!("Spring in {}", self.any(&PLACES)), tasks)
            }
            (before, 5..=10) => Deed::Add(self.task(before.map(|task| task.id))),
            _ => Deed::Add(self.task(None)),
        }
    }

    fn one(&mut self, open: &[Seen], of: impl Fn(&Seen) -> bool) -> Option<Seen> {
        let some: Vec<&Seen> = open.iter().filter(|bead| of(bead)).collect();
        (!some.is_empty()).then(|| some[self.random.random_range(0..some.len())].clone())
    }

    fn any(&mut self, words: &[&'static str]) -> &'static str {
        words[self.random.random_range(0..words.len())]
    }

    fn task(&mut self, blocked_by: Option<String>) -> Task {
        self.made += 1;
        let title = format!("{} {} ({})", self.any(&WORK), self.any(&PLACES), self.made);
        // Most are neither urgent nor idle.
        let priority = [0, 1, 2, 2, 2, 3, 4][self.random.random_range(0..7)];
        Task { title, priority, blocked_by }
    }
}

/// Has people give the town work until `stop` is cancelled. What is refused is left: they look again.
pub async fn keep_busy(client: &Client, people: &mut People, stop: &CancellationToken) {
    loop {
        // Its error is that the time has come.
        let _ = tokio::time::timeout(people.pause(), stop.cancelled()).await;
        if stop.is_cancelled() {
            return;
        }
        if let Ok(open) = look(client).await {
            // A bead may have ended since the look.
            let _ = act(client, people.decide(&open)).await;
        }
    }
}

async fn look(client: &Client) -> Result<Vec<Seen>, ClientError> {
    let page = client.call("town.beads", json!({"town": TOWN, "limit": 2 * OPEN_MAX})).await?;
    Ok(Vec::deserialize(&page["beads"]).unwrap_or_default())
}

async fn act(client: &Client, deed: Deed) -> Result<(), ClientError> {
    match deed {
        Deed::Add(task) => drop(add(client, &task).await?),
        Deed::Convoy(title, tasks) => {
            let mut beads = Vec::new();
            for task in &tasks {
                beads.push(add(client, task).await?);
            }
            client.call("town.startConvoy", json!({"town": TOWN, "title": title, "beads": beads})).await?;
        }
        Deed::Hold(bead) => {
            let params = json!({"town": TOWN, "bead": bead, "reason": "it rains"});
            client.call("town.holdBead", params).await?;
        }
        Deed::Release(bead) => {
            client.call("town.releaseBead", json!({"town": TOWN, "bead": bead})).await?;
        }
        Deed::Cancel(bead) => {
            let params = json!({"town": TOWN, "bead": bead, "reason": "nobody needs it any more"});
            client.call("town.cancelBead", params).await?;
        }
        Deed::Settle(bead) => {
            let params =
                json!({"town": TOWN, "bead": bead, "status": "closed", "reason": "it is looked after"});
            client.call("town.cancelBead", params).await?;
        }
    }
    Ok(())
}

/// The id of the new bead.
async fn add(client: &Client, task: &Task) -> Result<Value, ClientError> {
    let Task { title, priority, blocked_by } = task;
    let instructions = "Say how it went.";
    let params = json!({"town": TOWN, "title": title, "instructions": instructions, "priority": priority,
        "blockedBy": blocked_by.iter().collect::<Vec<_>>()});
    let mut added = client.call("town.addBead", params).await?;
    Ok(added["bead"].take())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(id: usize, kind: &str) -> Seen {
        Seen { id: format!("b-{id}"), kind: kind.to_owned(), held: false, waits_for_person: false }
    }

    fn deeds(seed: u64, open: &[Seen]) -> Vec<Deed> {
        let mut people = People::new(seed, PACE);
        (0..500).map(|_| people.decide(open)).collect()
    }

    #[test]
    fn the_same_seed_and_the_same_town_give_the_same_deeds() {
        let open = [seen(1, "task"), seen(2, "review")];
        assert_eq!(deeds(7, &open), deeds(7, &open));
        assert_ne!(deeds(7, &open), deeds(8, &open));
    }

    #[test]
    fn people_do_everything_that_can_be_done() {
        let held = Seen { held: true, ..seen(3, "task") };
        let asked = Seen { waits_for_person: true, ..seen(5, "task") };
        let deeds = deeds(1, &[seen(1, "task"), seen(2, "review"), held, seen(4, "escalation"), asked]);
        let has = |of: fn(&Deed) -> bool| assert!(deeds.iter().any(of), "{deeds:?}");
        has(|deed| matches!(deed, Deed::Add(Task { blocked_by: None, .. })));
        has(|deed| matches!(deed, Deed::Add(Task { blocked_by: Some(_), .. })));
        has(|deed| matches!(deed, Deed::Convoy(_, tasks) if tasks.len() > 1));
        has(|deed| matches!(deed, Deed::Hold(id) if id == "b-1"));
        has(|deed| matches!(deed, Deed::Release(id) if id == "b-3"));
        has(|deed| matches!(deed, Deed::Release(id) if id == "b-5"));
        has(|deed| matches!(deed, Deed::Cancel(id) if id == "b-1"));
        has(|deed| matches!(deed, Deed::Settle(id) if id == "b-4"));
    }

    #[test]
    fn a_full_town_gets_no_more_beads_but_goes_on_to_hear_of_people() {
        let full: Vec<_> = (0..OPEN_MAX).map(|id| seen(id, "task")).collect();
        assert!(deeds(1, &full).iter().all(|deed| matches!(deed, Deed::Hold(_))));
        let held: Vec<_> = full.into_iter().map(|bead| Seen { held: true, ..bead }).collect();
        assert!(deeds(1, &held).iter().all(|deed| matches!(deed, Deed::Release(_))));
    }
}
