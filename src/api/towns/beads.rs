//! Beads: added, listed, shown, held, released, cancelled.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::access::Access;
use super::refusal::Refusal;
use super::{Caller, Operation, Taken};
use crate::ids::{BeadId, Seq, TownId};
use crate::limits::{TOWN_PAGE_DEFAULT, TOWN_PAGE_MAX};
use crate::reconciler::{BeadDetail, BeadPage, BeadQuery};
use crate::town::TownEvent;
use crate::town::state::Rejected;
use crate::town::words::{BeadKind, BeadStatus, CancelStatus, Role};

/// The priority of a bead of which none is said: two are more urgent, two less.
const PRIORITY: u8 = 2;

/// How many ids are made before it is said that there is none.
const GENERATED_TRIES: u32 = 3;

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
        caller.state.reconciler.beads(&town, &query).ok_or_else(|| Refusal::unknown_town(&town))
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
    const SUMMARY: &'static str = "Shows a bead; to operators also what its agent is told.";
    type Params = BeadParams;
    type Answer = BeadDetail;

    async fn run(caller: Caller, BeadParams { town, bead }: BeadParams) -> Result<BeadDetail, Refusal> {
        let found = caller.state.reconciler.bead(&town, &bead);
        let found = found.ok_or_else(|| Refusal::unknown_town(&town))?;
        let detail = found.ok_or_else(|| Refusal::from(Rejected::UnknownBead(bead)))?;
        if caller.is_operator() {
            return Ok(detail);
        }
        Ok(BeadDetail { instructions: None, notes: None, summary: None, ..detail })
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
}

/// A bead that was added.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct BeadAdded {
    /// Its id.
    bead: BeadId,
    /// The event that made it.
    seq: Seq,
}

pub(crate) struct AddBead;

impl Operation for AddBead {
    const ACCESS: Access = Access::Operator;
    const SUMMARY: &'static str = "Adds a task, which an idle agent of its role gets.";
    const STATUS: StatusCode = StatusCode::CREATED;
    type Params = AddBeadParams;
    type Answer = BeadAdded;

    async fn run(caller: Caller, params: AddBeadParams) -> Result<BeadAdded, Refusal> {
        let AddBeadParams { town, id, title, instructions, role, priority, convoy, blocked_by } = params;
        let (title, instructions): (Arc<str>, Arc<str>) = (title.into(), instructions.into());
        let event = |bead| TownEvent::BeadCreated {
            bead,
            title: title.clone(),
            instructions: instructions.clone(),
            role,
            priority: priority.unwrap_or(PRIORITY),
            convoy: convoy.clone(),
            blocked_by: blocked_by.clone(),
        };
        let (bead, seq) = caller.submit_named(&town, id, event).await?;
        Ok(BeadAdded { bead, seq })
    }
}

/// A new id: `b-` and eight letters and digits, none of which look like another. Of a hundred thousand beads, one in ten
/// million finds its id taken, and takes another.
fn generate() -> BeadId {
    const LETTERS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    let random: u64 = rand::random();
    let letter = |place: u32| char::from(LETTERS[(random >> (5 * place)) as usize % LETTERS.len()]);
    let id: String = "b-".chars().chain((0..8).map(letter)).collect();
    BeadId::parse(&id).expect("it is short and of letters and digits")
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

impl Caller {
    /// Has a new bead taken in: under this id, or under one that is made and not taken.
    pub(super) async fn submit_named(
        &self,
        town: &TownId,
        id: Option<BeadId>,
        event: impl Fn(BeadId) -> TownEvent,
    ) -> Result<(BeadId, Seq), Refusal> {
        if let Some(id) = id {
            let seq = self.submit(town, event(id.clone())).await?;
            return Ok((id, seq));
        }
        let mut tries = GENERATED_TRIES;
        loop {
            tries -= 1;
            let id = generate();
            match self.submit(town, event(id.clone())).await {
                Err(refusal) if tries > 0 && refusal.code() == "bead_exists" => {}
                outcome => return outcome.map(|seq| (id, seq)),
            }
        }
    }
}
