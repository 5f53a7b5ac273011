//! What ties beads together: convoys, and that one waits for another.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::access::Access;
use super::naming::Named;
use super::refusal::Refusal;
use super::{Caller, Operation, Taken};
use crate::ids::{BeadId, IdempotencyKey, Seq, TownId};
use crate::town::TownEvent;

/// A batch of tasks.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ConvoyParams {
    /// The town.
    town: TownId,
    /// Its id, of at most 48 characters; without it one is made.
    id: Option<BeadId>,
    /// A line that says what it is, of at most 512 bytes.
    title: String,
    /// Its tasks, at most 1,000: they exist and belong to no other.
    beads: BTreeSet<BeadId>,
    /// The caller's own name for this call, as in the header `Idempotency-Key`: sent again within 24 h, it makes one batch.
    idempotency_key: Option<IdempotencyKey>,
}

/// A convoy that was started.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ConvoyMade {
    /// Its id: a convoy is a bead.
    convoy: BeadId,
    /// The event that made it.
    seq: Seq,
    /// Whether an earlier call with the same key made it.
    repeated: bool,
}

pub(crate) struct StartConvoy;

impl Operation for StartConvoy {
    const ACCESS: Access = Access::Operator;
    const SUMMARY: &'static str = "Makes a batch of tasks that are there, and ends with them.";
    const STATUS: StatusCode = StatusCode::CREATED;
    const KEYED: bool = true;
    type Params = ConvoyParams;
    type Answer = ConvoyMade;

    fn status(answer: &ConvoyMade) -> StatusCode {
        if answer.repeated { StatusCode::OK } else { Self::STATUS }
    }

    async fn run(caller: Caller, params: ConvoyParams) -> Result<ConvoyMade, Refusal> {
        let ConvoyParams { town, id, title, beads, idempotency_key } = params;
        let title: Arc<str> = title.into();
        let event = |convoy, report| TownEvent::ConvoyStarted {
            convoy,
            title: title.clone(),
            beads: beads.clone(),
            report,
        };
        let Named { bead: convoy, seq, repeated } =
            caller.submit_named(&town, id, idempotency_key, event).await?;
        Ok(ConvoyMade { convoy, seq, repeated })
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
