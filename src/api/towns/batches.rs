//! What ties beads together: convoys, and that one waits for another.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::access::Access;
use super::refusal::Refusal;
use super::{Caller, Operation, Taken};
use crate::ids::{BeadId, Seq, TownId};
use crate::town::TownEvent;

/// A batch of tasks.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConvoyParams {
    /// The town.
    town: TownId,
    /// Its id, of at most 48 characters; without it one is made.
    id: Option<BeadId>,
    /// A line that says what it is, of at most 512 bytes.
    title: String,
    /// Its tasks, at most 1,000: they exist and belong to no other.
    beads: BTreeSet<BeadId>,
}

/// A convoy that was started.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ConvoyMade {
    /// Its id: a convoy is a bead.
    convoy: BeadId,
    /// The event that made it.
    seq: Seq,
}

pub(crate) struct StartConvoy;

impl Operation for StartConvoy {
    const ACCESS: Access = Access::Operator;
    const SUMMARY: &'static str = "Makes a batch of tasks that are there, and ends with them.";
    const STATUS: StatusCode = StatusCode::CREATED;
    type Params = ConvoyParams;
    type Answer = ConvoyMade;

    async fn run(caller: Caller, params: ConvoyParams) -> Result<ConvoyMade, Refusal> {
        let ConvoyParams { town, id, title, beads } = params;
        let title: Arc<str> = title.into();
        let event = |convoy| TownEvent::ConvoyStarted { convoy, title: title.clone(), beads: beads.clone() };
        let (convoy, seq) = caller.submit_named(&town, id, event).await?;
        Ok(ConvoyMade { convoy, seq })
    }
}

/// Which bead waits for which.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct DependencyParams {
    /// The town.
    town: TownId,
    /// The bead that waits.
    bead: BeadId,
    /// The one that it waits for.
    blocked_by: BeadId,
}

pub(crate) struct AddDependency;

impl Operation for AddDependency {
    const ACCESS: Access = Access::Operator;
    const SUMMARY: &'static str = "Has a bead wait until another one ended.";
    const STATUS: StatusCode = StatusCode::CREATED;
    type Params = DependencyParams;
    type Answer = Taken;

    async fn run(caller: Caller, params: DependencyParams) -> Result<Taken, Refusal> {
        let DependencyParams { town, bead, blocked_by } = params;
        Ok(Taken { seq: caller.submit(&town, TownEvent::DependencyAdded { bead, blocked_by }).await? })
    }
}
