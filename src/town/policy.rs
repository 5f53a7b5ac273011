//! Every number that the planner decides by: the configuration key of a town, what `policy_changed` carries, and what a
//! replay may ask "what if" with.
//!
//! Each has a default and a range. Read strictly where people write it; an event or a snapshot of a later plimsoll may
//! hold keys that are not known here, which [`Policy::of_event`] and [`Policy::of_snapshot`] pass over.

#[cfg(test)]
mod tests;

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;

use super::words::{OnBlockerFailed, Recovery};
use crate::limits::TOWN_BACKOFF_STEPS_MAX;
use crate::units::Period;

/// The policy of a town.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// How often and how long a bead is tried.
    pub dispatch: DispatchPolicy,
    /// When dispatching stops because everything fails.
    pub breaker: BreakerPolicy,
    /// When a worker counts as lost.
    pub lost: LostPolicy,
    /// Whether and how often work is reviewed.
    pub review: ReviewPolicy,
    /// When a batch has failed.
    pub convoy: ConvoyPolicy,
    /// What is done about work that does not move.
    pub stuck: StuckPolicy,
    /// When agents that nobody needs are collected.
    pub collect: CollectPolicy,
    /// What is done about a violated invariant.
    pub recovery: RecoveryPolicy,
}

/// `dispatch:`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DispatchPolicy {
    /// Attempts that may fail before a bead has failed; 1 to 100.
    pub attempts_max: u32,
    /// How long a bead waits after its first failed attempt, its second, and so on; the last one holds for all further.
    /// 1 to 20 periods, each 0 s to 24 h.
    pub backoff: Vec<Period>,
    /// How long one dispatch may take; 1 s to 7 d.
    pub deadline: Period,
    /// What becomes of a bead when one that it waits for fails.
    pub on_blocker_failed: OnBlockerFailed,
}

/// `breaker:`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerPolicy {
    /// So many beads with a failed attempt within the window open it; 1 to 10,000.
    pub beads: u32,
    /// The window; 1 s to 24 h.
    pub window: Period,
    /// How long after it opened, or after the last probe failed, one bead is tried; 1 s to 24 h.
    pub probe_after: Period,
}

/// `lost:`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LostPolicy {
    /// A worker of which nothing runs is lost after so long without progress; 1 s to 24 h.
    pub quiet_after: Period,
    /// What hosts a worker may be unknown to its host for so long; 0 s to 24 h.
    pub not_found_grace: Period,
}

/// `review:`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ReviewPolicy {
    /// Whether a done task is reviewed before it closes.
    pub enabled: bool,
    /// Reviews of one task before a person is asked; 1 to 100.
    pub rounds_max: u32,
}

/// `convoy:`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ConvoyPolicy {
    /// Whether one failed bead fails the convoy.
    pub one_failure_fails: bool,
}

/// `stuck:`. The first three grow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StuckPolicy {
    /// The agent is nudged after so long without progress; 1 s to 7 d.
    pub nudge_after: Period,
    /// A person is told; 1 s to 7 d.
    pub escalate_after: Period,
    /// The agent is stopped; 1 s to 7 d.
    pub stop_after: Period,
    /// No tier comes twice within this; 1 s to 7 d.
    pub repeat_after: Period,
    /// How long after an agent ended its answer may come, before it is asked for; 0 s to 1 h.
    pub ending_grace: Period,
}

/// `collect:`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CollectPolicy {
    /// How long a dynamic agent may be idle before it is collected; 1 m to 365 d.
    pub idle_after: Period,
}

/// `recovery:`: what is done about each invariant when it is violated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RecoveryPolicy {
    /// 2: a terminal bead is hooked.
    pub terminal_bead_hooked: Recovery,
    /// 7: an agent works without a hook.
    pub working_without_hook: Recovery,
    /// 8: a hook points nowhere.
    pub hook_points_nowhere: Recovery,
    /// All others: `off` or `suggest`, nothing of them can be repaired by itself.
    pub others: Recovery,
}

impl Default for CollectPolicy {
    fn default() -> Self {
        Self { idle_after: Period::from_secs(24 * 3_600) }
    }
}

impl Default for DispatchPolicy {
    fn default() -> Self {
        let backoff = [30, 60, 120, 300, 600].map(Period::from_secs).to_vec();
        let deadline = Period::from_secs(2 * 3_600);
        Self { attempts_max: 5, backoff, deadline, on_blocker_failed: OnBlockerFailed::Fail }
    }
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self { beads: 20, window: Period::from_secs(30 * 60), probe_after: Period::from_secs(5 * 60) }
    }
}

impl Default for LostPolicy {
    fn default() -> Self {
        Self { quiet_after: Period::from_secs(90), not_found_grace: Period::from_secs(180) }
    }
}

impl Default for ReviewPolicy {
    fn default() -> Self {
        Self { enabled: false, rounds_max: 5 }
    }
}

impl Default for StuckPolicy {
    fn default() -> Self {
        Self {
            nudge_after: Period::from_secs(15 * 60),
            escalate_after: Period::from_secs(3_600),
            stop_after: Period::from_secs(2 * 3_600),
            repeat_after: Period::from_secs(3_600),
            ending_grace: Period::from_secs(10),
        }
    }
}

impl Default for RecoveryPolicy {
    fn default() -> Self {
        Self {
            terminal_bead_hooked: Recovery::Auto,
            working_without_hook: Recovery::Auto,
            hook_points_nowhere: Recovery::Auto,
            others: Recovery::Suggest,
        }
    }
}

/// A number of a policy that is out of its range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} {rule}")]
pub struct PolicyProblem {
    /// Its key, with dots.
    pub key: &'static str,
    /// What it must be.
    pub rule: String,
}

const SECOND: u64 = 1;
const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;

impl Policy {
    /// What people may not ask for: numbers out of their ranges, and a recovery that there is not.
    #[must_use]
    pub fn problems(&self) -> Vec<PolicyProblem> {
        let mut problems = self.out_of_range();
        if self.recovery.others == Recovery::Auto {
            let rule = "must be off or suggest: nothing of these can be repaired by itself".to_owned();
            problems.push(PolicyProblem { key: "recovery.others", rule });
        }
        problems
    }

    /// Every number that is out of its range: no event may bring such a one.
    #[must_use]
    pub fn out_of_range(&self) -> Vec<PolicyProblem> {
        let Self { dispatch, breaker, lost, review, convoy: _, stuck, collect, recovery: _ } = self;
        let mut problems = Vec::new();
        let counts = [
            ("dispatch.attempts_max", u64::from(dispatch.attempts_max), 100),
            ("dispatch.backoff", count(dispatch.backoff.len()), count(TOWN_BACKOFF_STEPS_MAX)),
            ("breaker.beads", u64::from(breaker.beads), 10_000),
            ("review.rounds_max", u64::from(review.rounds_max), 100),
        ];
        for (key, number, max) in counts {
            if !(1..=max).contains(&number) {
                problems.push(PolicyProblem { key, rule: format!("must be 1 to {max}") });
            }
        }
        let periods = [
            ("dispatch.deadline", dispatch.deadline, SECOND, 7 * DAY),
            ("breaker.window", breaker.window, SECOND, DAY),
            ("breaker.probe_after", breaker.probe_after, SECOND, DAY),
            ("lost.quiet_after", lost.quiet_after, SECOND, DAY),
            ("lost.not_found_grace", lost.not_found_grace, 0, DAY),
            ("stuck.nudge_after", stuck.nudge_after, SECOND, 7 * DAY),
            ("stuck.escalate_after", stuck.escalate_after, SECOND, 7 * DAY),
            ("stuck.stop_after", stuck.stop_after, SECOND, 7 * DAY),
            ("stuck.repeat_after", stuck.repeat_after, SECOND, 7 * DAY),
            ("stuck.ending_grace", stuck.ending_grace, 0, HOUR),
            ("collect.idle_after", collect.idle_after, 60, 365 * DAY),
        ];
        let steps = dispatch.backoff.iter().map(|step| ("dispatch.backoff", *step, 0, DAY));
        for (key, Period(period), min, max) in periods.into_iter().chain(steps) {
            if period < Duration::from_secs(min) || period > Duration::from_secs(max) {
                let (min, max) = (Period::from_secs(min), Period::from_secs(max));
                problems.push(PolicyProblem { key, rule: format!("must be {min} to {max}") });
            }
        }
        if stuck.nudge_after >= stuck.escalate_after || stuck.escalate_after >= stuck.stop_after {
            let rule = "must be longer than nudge_after and shorter than stop_after".to_owned();
            problems.push(PolicyProblem { key: "stuck.escalate_after", rule });
        }
        problems
    }

    /// This policy with some keys changed, read as strictly as people's. Its numbers are not checked.
    ///
    /// # Errors
    /// Says which key is unknown, or what does not fit.
    pub fn changed(&self, changes: &Value) -> Result<Self, String> {
        let mut whole = serde_json::to_value(self).map_err(|error| error.to_string())?;
        overlay(&mut whole, changes);
        serde_json::from_value(whole).map_err(|error| error.to_string())
    }

    /// How long a bead waits after this many failed attempts.
    #[must_use]
    pub fn backoff(&self, failed_attempts: u32) -> Duration {
        let Some(index) = failed_attempts.checked_sub(1) else { return Duration::ZERO };
        let steps = &self.dispatch.backoff;
        let step = steps.get(usize::try_from(index).unwrap_or(usize::MAX)).or(steps.last());
        step.map_or(Duration::ZERO, |Period(wait)| *wait)
    }

    /// What is done when the invariant of this number is violated.
    #[must_use]
    pub fn recovery(&self, invariant: u8) -> Recovery {
        match invariant {
            2 => self.recovery.terminal_bead_hooked,
            7 => self.recovery.working_without_hook,
            8 => self.recovery.hook_points_nowhere,
            _ => self.recovery.others,
        }
    }

    /// Reads the policy of an event, as [`Policy::of_snapshot`] does.
    ///
    /// # Errors
    /// What a deserializer says of a value that does not fit.
    pub fn of_event<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<Self>, D::Error> {
        Self::of_snapshot(deserializer).map(Box::new)
    }

    /// Reads what plimsoll wrote: keys that are not known here are passed over.
    ///
    /// # Errors
    /// What a deserializer says of a value that does not fit.
    pub fn of_snapshot<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        let known = serde_json::to_value(Self::default()).map_err(de::Error::custom)?;
        forget_unknown(&mut value, &known);
        serde_json::from_value(value).map_err(de::Error::custom)
    }
}

fn overlay(value: &mut Value, changes: &Value) {
    match (value, changes) {
        (Value::Object(value), Value::Object(changes)) => {
            for (key, change) in changes {
                overlay(value.entry(key.clone()).or_insert(Value::Null), change);
            }
        }
        (value, change) => *value = change.clone(),
    }
}

fn forget_unknown(value: &mut Value, known: &Value) {
    let (Value::Object(value), Value::Object(known)) = (value, known) else { return };
    value.retain(|key, _| known.contains_key(key));
    for (key, inner) in value {
        forget_unknown(inner, &known[key]);
    }
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
