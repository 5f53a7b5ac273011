//! What the demo's people do, as a pure function of a seed: who is asked what, when, and who loses patience.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::cast::{AGENTS, Member};

/// One thing that somebody does.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// How long after the step before it.
    pub after: Duration,
    /// Who is asked. Now and then nobody by that name.
    pub agent: &'static str,
    /// The conversation.
    pub session: String,
    /// What is said.
    pub message: String,
    /// How long the asker waits for an answer, where it is not the server's default.
    pub deadline: Option<Duration>,
    /// When the asker loses interest, if at all.
    pub cancel_after: Option<Duration>,
    /// The road it takes.
    pub road: Road,
    /// The caller's own id of the request, unique in the plan.
    pub request_id: String,
}

/// How a message gets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Road {
    /// Over one of the open WebSockets, streamed.
    WebSocket,
    /// By one `POST /rpc`.
    Http,
}

/// Sessions per agent: enough to run side by side, few enough that lanes fill.
const SESSIONS: u32 = 12;

/// One step in this many begins a burst.
const BURST_ONE_IN: u32 = 60;

/// Messages of a burst, at most: under the default depth of a lane, so that a quiet lane takes it all.
const BURST_MAX: u32 = 40;

const OPENINGS: [&str; 6] = [
    "Summarise what changed since",
    "Review the patch for",
    "What is the state of",
    "Write a short note about",
    "Find out who owns",
    "Explain in two sentences",
];

const THEMES: [&str; 6] = [
    "the parser",
    "last night's build",
    "the billing export",
    "the login page",
    "the retry logic",
    "the backlog",
];

/// An endless sequence of steps; the same seed and rate give the same steps.
#[derive(Debug)]
pub struct Plan {
    random: StdRng,
    seed: u64,
    rate: f64,
    made: u64,
    burst: Option<Burst>,
}

/// Many messages at once: to one session (its lane grows) or over all sessions of an agent.
#[derive(Debug)]
struct Burst {
    left: u32,
    agent: &'static Member,
    session: Option<u32>,
}

impl Plan {
    /// A plan of `rate` messages a second on average, 0.01 to 100,000.
    #[must_use]
    pub fn new(seed: u64, rate: f64) -> Self {
        let rate = rate.clamp(0.01, 100_000.0);
        Self { random: StdRng::seed_from_u64(seed), seed, rate, made: 0, burst: None }
    }

    /// The time to the next message of people who do not know of each other (exponentially distributed).
    fn pause(&mut self) -> Duration {
        let uniform: f64 = self.random.random_range(f64::EPSILON..1.0);
        Duration::from_secs_f64((-uniform.ln() / self.rate).min(60.0))
    }

    fn member(&mut self) -> &'static Member {
        let total: u32 = AGENTS.iter().map(|member| member.weight).sum();
        let mut drawn = self.random.random_range(0..total);
        for member in AGENTS {
            match drawn.checked_sub(member.weight) {
                None => return member,
                Some(rest) => drawn = rest,
            }
        }
        unreachable!("the drawn number is below the sum of all weights")
    }

    fn message(&mut self) -> String {
        let opening = OPENINGS[self.random.random_range(0..OPENINGS.len())];
        let theme = THEMES[self.random.random_range(0..THEMES.len())];
        format!("{opening} {theme} ({})", self.made)
    }

    fn step(&mut self, after: Duration, member: &'static Member, session: u32) -> Step {
        self.made += 1;
        let impatient = self.random.random_ratio(1, 25);
        let hurried = self.random.random_ratio(1, 20);
        let lost = self.random.random_ratio(1, 200);
        let patience = Duration::from_millis(self.random.random_range(20..1_500));
        Step {
            after,
            agent: if lost { "nobody" } else { member.name },
            session: format!("{}-{session}", member.name),
            message: self.message(),
            deadline: hurried.then_some(patience * 2),
            cancel_after: impatient.then_some(patience),
            road: if self.random.random_ratio(1, 4) { Road::Http } else { Road::WebSocket },
            request_id: format!("demo-{}-{}", self.seed, self.made),
        }
    }

    fn begin_burst(&mut self) -> Burst {
        let agent = self.member();
        let left = self.random.random_range(5..BURST_MAX);
        let session = self.random.random_ratio(1, 2).then(|| self.random.random_range(0..SESSIONS));
        Burst { left, agent, session }
    }
}

impl Iterator for Plan {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        if let Some(mut burst) = self.burst.take() {
            burst.left -= 1;
            let session = burst.session.unwrap_or_else(|| self.random.random_range(0..SESSIONS));
            let step = self.step(Duration::ZERO, burst.agent, session);
            self.burst = (burst.left > 0).then_some(burst);
            return Some(step);
        }
        if self.random.random_ratio(1, BURST_ONE_IN) {
            self.burst = Some(self.begin_burst());
        }
        let after = self.pause();
        let member = self.member();
        let session = self.random.random_range(0..SESSIONS);
        Some(self.step(after, member, session))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_plan() {
        let first: Vec<Step> = Plan::new(7, 10.0).take(2_000).collect();
        assert_eq!(first, Plan::new(7, 10.0).take(2_000).collect::<Vec<_>>());
        assert_ne!(first, Plan::new(8, 10.0).take(2_000).collect::<Vec<_>>());
    }

    #[test]
    fn a_plan_has_everything_in_it() {
        let steps: Vec<Step> = Plan::new(1, 10.0).take(5_000).collect();
        for member in AGENTS.iter().filter(|member| member.weight > 0) {
            assert!(steps.iter().any(|step| step.agent == member.name), "{}", member.name);
        }
        assert!(steps.iter().any(|step| step.agent == "nobody"));
        assert!(steps.iter().any(|step| step.deadline.is_some()));
        assert!(steps.iter().any(|step| step.cancel_after.is_some()));
        assert!(steps.iter().any(|step| step.road == Road::Http));
        let burst = steps.windows(5).any(|few| few.iter().all(|step| step.after.is_zero()));
        assert!(burst, "no burst in 5,000 steps");
    }

    #[test]
    fn request_ids_are_unique() {
        let ids: std::collections::HashSet<String> =
            Plan::new(3, 10.0).take(3_000).map(|step| step.request_id).collect();
        assert_eq!(ids.len(), 3_000);
    }

    #[test]
    fn the_rate_is_the_mean_outside_of_bursts() {
        let steps: Vec<Step> = Plan::new(5, 20.0).filter(|step| !step.after.is_zero()).take(4_000).collect();
        let total: f64 = steps.iter().map(|step| step.after.as_secs_f64()).sum();
        let rate = 4_000.0 / total;
        assert!((18.0..22.0).contains(&rate), "{rate} a second");
    }
}
