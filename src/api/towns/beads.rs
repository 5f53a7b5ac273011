//! Beads: added, listed, shown, held, released, cancelled.

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
use crate::limits::{TOWN_PAGE_DEFAULT, TOWN_PAGE_MAX};
use crate::reconciler::{BeadDetail, BeadPage, BeadQuery};
use crate::town::TownEvent;
use crate::town::state::Rejected;
use crate::town::words::{BeadKind, BeadStatus, CancelStatus, Role};

/// The priority of a bead of which none is said: two are more urgent, two less.
const PRIORITY: u8 = 2;

/// Which beads.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListBeadsParams {
    /// The town.
    town: TownId,
    /// Only where they stand so; without it all that have not ended.
    status: Option<BeadStatus>,
    /// Only these.
    kind: Option<BeadKind>,
    /// `next` of the page before.
    cursor: Option<BeadId>,
    /// At most so many; 1 to 1,000 (100).
    limit: Option<usize>,
}

pub(crate) struct ListBeads;

impl Operation for ListBeads {
    const ACCESS: Access = Access::Viewer;
    const SUMMARY: &'static str = "Lists beads by id, each with why it waits.";
    type Params = ListBeadsParams;
    type Answer = BeadPage;

    async fn run(caller: Caller, params: ListBeadsParams) -> Result<BeadPage, Refusal> {
        let ListBeadsParams { town, status, kind, cursor, limit } = params;
        let query = BeadQuery { status, kind, after: cursor, limit: page(limit)? };
        let page = caller.state.reconciler.beads(&town, &query);
        let page = page.ok_or_else(|| Refusal::no_town(&caller.state, &town))?;
        Ok(if caller.is_operator() { page } else { page.without_words() })
    }
}

/// How much one page holds.
pub(super) fn page(limit: Option<usize>) -> Result<usize, Refusal> {
    let limit = limit.unwrap_or(TOWN_PAGE_DEFAULT);
    if (1..=TOWN_PAGE_MAX).contains(&limit) {
        return Ok(limit);
    }
    Err(Refusal::malformed("limit", &format!("expected 1 to {TOWN_PAGE_MAX}")))
}

/// Which bead.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BeadParams {
    /// The town.
    town: TownId,
    /// The bead.
    bead: BeadId,
}

pub(crate) struct ShowBead;

impl Operation for ShowBead {
    const ACCESS: Access = Access::Viewer;
    const SUMMARY: &'static str =
        "Shows a bead; to operators also what its agent is told, and why its last attempt failed.";
    type Params = BeadParams;
    type Answer = BeadDetail;

    async fn run(caller: Caller, BeadParams { town, bead }: BeadParams) -> Result<BeadDetail, Refusal> {
        let found = caller.state.reconciler.bead(&town, &bead);
        let found = found.ok_or_else(|| Refusal::no_town(&caller.state, &town))?;
        let detail = found.ok_or_else(|| Refusal::from(Rejected::UnknownBead(bead)))?;
        Ok(if caller.is_operator() { detail } else { detail.without_words() })
    }
}

/// A task.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct AddBeadParams {
    /// The town.
    town: TownId,
    /// Its id, of at most 48 characters; without it one is made.
    id: Option<BeadId>,
    /// A line that says what it is, of at most 512 bytes.
    title: String,
    /// What its agent is told, at most 64 KiB.
    #[serde(default)]
    instructions: String,
    /// Who may do it; a worker if nothing is said.
    #[serde(default)]
    role: Role,
    /// 0, the most urgent, to 4; 2 if nothing is said.
    priority: Option<u8>,
    /// The convoy that it belongs to.
    convoy: Option<BeadId>,
    /// What must end before it begins.
    #[serde(default)]
    blocked_by: BTreeSet<BeadId>,
    /// The caller's own name for this call, as in the header `Idempotency-Key`: sent again within 24 h, it adds one task.
    idempotency_key: Option<IdempotencyKey>,
}

/// A bead that was added.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct BeadAdded {
    /// Its id.
    bead: BeadId,
    /// The event that made it.
    seq: Seq,
    /// Whether an earlier call with the same key made it.
    repeated: bool,
}

pub(crate) struct AddBead;

impl Operation for AddBead {
    const ACCESS: Access = Access::Operator;
    const SUMMARY: &'static str = "Adds a task, which an idle agent of its role gets.";
    const STATUS: StatusCode = StatusCode::CREATED;
    const KEYED: bool = true;
    type Params = AddBeadParams;
    type Answer = BeadAdded;

    fn status(answer: &BeadAdded) -> StatusCode {
        if answer.repeated { StatusCode::OK } else { Self::STATUS }
    }

    async fn run(caller: Caller, params: AddBeadParams) -> Result<BeadAdded, Refusal> {
        let AddBeadParams {
            town,
            id,
            title,
            instructions,
            role,
            priority,
            convoy,
            blocked_by,
            idempotency_key,
        } = params;
        let (title, instructions): (Arc<str>, Arc<str>) = (title.into(), instructions.into());
        let event = |bead, report| TownEvent::BeadCreated {
            bead,
            title: title.clone(),
            instructions: instructions.clone(),
            role,
            priority: priority.unwrap_or(PRIORITY),
            convoy: convoy.clone(),
            blocked_by: blocked_by.clone(),
            report,
        };
        let Named { bead, seq, repeated } = caller.submit_named(&town, id, idempotency_key, event).await?;
        Ok(BeadAdded { bead, seq, repeated })
    }
}

/// Which bead is cancelled.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CancelBeadParams {
    /// The town.
    town: TownId,
    /// The bead.
    bead: BeadId,
    /// How it ends: `failed`, unless something else is said.
    status: Option<CancelStatus>,
    /// Why.
    reason: Option<String>,
}

pub(crate) struct CancelBead;

impl Operation for CancelBead {
    const ACCESS: Access = Access::Operator;
    const SUMMARY: &'static str = "Cancels a bead; an agent that works on it is stopped at once.";
    type Params = CancelBeadParams;
    type Answer = Taken;

    async fn run(caller: Caller, params: CancelBeadParams) -> Result<Taken, Refusal> {
        let CancelBeadParams { town, bead, status, reason } = params;
        let cancel_status = status.unwrap_or(CancelStatus::Failed);
        let event = TownEvent::BeadCancelled { bead, cancel_status, reason: reason.map(Into::into) };
        Ok(Taken { seq: caller.submit(&town, event).await? })
    }
}

/// Which bead is held.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HoldBeadParams {
    /// The town.
    town: TownId,
    /// The bead.
    bead: BeadId,
    /// Why.
    reason: Option<String>,
}

pub(crate) struct HoldBead;

impl Operation for HoldBead {
    const ACCESS: Access = Access::Operator;
    const SUMMARY: &'static str = "Holds a bead: it is not dispatched until it is released.";
    type Params = HoldBeadParams;
    type Answer = Taken;

    async fn run(caller: Caller, params: HoldBeadParams) -> Result<Taken, Refusal> {
        let HoldBeadParams { town, bead, reason } = params;
        let event = TownEvent::BeadHeld { bead, reason: reason.map(Into::into) };
        Ok(Taken { seq: caller.submit(&town, event).await? })
    }
}

pub(crate) struct ReleaseBead;

impl Operation for ReleaseBead {
    const ACCESS: Access = Access::Operator;
    const SUMMARY: &'static str =
        "Lets a bead go on that was held, or that waited for a person; its attempts begin anew then.";
    type Params = BeadParams;
    type Answer = Taken;

    async fn run(caller: Caller, BeadParams { town, bead }: BeadParams) -> Result<Taken, Refusal> {
        Ok(Taken { seq: caller.submit(&town, TownEvent::BeadReleased { bead }).await? })
    }
}
