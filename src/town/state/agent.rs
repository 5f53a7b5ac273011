//! What a town knows of an agent.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{BeadId, DispatchId, TemplateId};
use crate::town::time::TownTime;
use crate::town::words::{
    AgentStatus, CompletionStatus, ContainerStatus, Origin, Outcome, Role, Tier, Verdict,
};

/// An agent of a town.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// What it is there for.
    pub role: Role,
    /// Where it comes from.
    pub origin: Origin,
    /// Whether it says how it is nudged.
    pub nudges: bool,
    /// The template of the configuration that the town made it of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<TemplateId>,
    /// What it does.
    pub status: AgentStatus,
    /// Since when.
    pub since: TownTime,
    /// What it holds.
    pub hook: Option<Hook>,
    /// What was last seen of what hosts it.
    pub container: Option<ContainerSeen>,
    /// The dispatch that it held last, if nobody heard its run end: what hosts the agent may still be at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unended: Option<DispatchId>,
}

/// The one bead that an agent holds, and what was heard of its work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Which bead.
    pub bead: BeadId,
    /// As which dispatch.
    pub dispatch_id: DispatchId,
    /// Since when.
    pub since: TownTime,
    /// When something was last heard.
    pub progress: TownTime,
    /// What the agent said of its work. The first word counts, but for `done` before a verdict.
    pub said: Option<Said>,
    /// In its words, of a task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Arc<str>>,
    /// How its run ended.
    pub ended: Option<Ended>,
    /// How often it was asked to say again how its work ended.
    pub asked: u32,
    /// When each tier of the ladder was last reached.
    pub tiers: BTreeMap<Tier, TownTime>,
}

impl Hook {
    /// The hook of a dispatch that begins.
    #[must_use]
    pub fn begun(dispatch_id: DispatchId, now: TownTime) -> Self {
        let bead = dispatch_id.bead().clone();
        Self {
            bead,
            dispatch_id,
            since: now,
            progress: now,
            said: None,
            summary: None,
            ended: None,
            asked: 0,
            tiers: BTreeMap::new(),
        }
    }
}

/// What an agent said of its work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// Of a task, or of anything that it could not do.
    Outcome(Outcome),
    /// Of a review.
    Verdict {
        /// What.
        verdict: Verdict,
        /// In its words.
        notes: Option<Arc<str>>,
    },
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// How.
    pub status: CompletionStatus,
    /// When.
    pub at: TownTime,
    /// Why, if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Arc<str>>,
}

/// What was seen of what hosts an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSeen {
    /// What.
    pub status: ContainerStatus,
    /// How it ended, if it did.
    pub exit_reason: Option<Arc<str>>,
    /// The dispatch that it was looked at for.
    pub dispatch_id: Option<DispatchId>,
    /// Since when it is so.
    pub since: TownTime,
}
