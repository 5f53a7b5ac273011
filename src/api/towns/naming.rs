//! Beads that are new: each gets an id, and comes once for each idempotency key.

use super::Caller;
use super::refusal::Refusal;
use crate::ids::{BeadId, IdempotencyKey, Seq, TownId};
use crate::reconciler::{Reconciler, Submitted};
use crate::town::TownEvent;
use crate::town::event::Report;

/// How many ids are made before it is said that there is none.
const GENERATED_TRIES: u32 = 3;

/// A bead that was taken in.
pub(super) struct Named {
    pub(super) bead: BeadId,
    /// The event that made it.
    pub(super) seq: Seq,
    /// Whether an earlier call with the same key did.
    pub(super) repeated: bool,
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

impl Caller {
    /// Has a new bead taken in: under this id, or under one that is made and not taken.
    pub(super) async fn submit_named(
        &self,
        town: &TownId,
        id: Option<BeadId>,
        key: Option<IdempotencyKey>,
        event: impl Fn(BeadId, Option<Box<Report>>) -> TownEvent,
    ) -> Result<Named, Refusal> {
        let mark = key.map(|key| self.mark(key, id.as_ref(), &event));
        let mut tries = if id.is_some() { 1 } else { GENERATED_TRIES };
        loop {
            tries -= 1;
            let bead = id.clone().unwrap_or_else(generate);
            let event = event(bead.clone(), mark.clone());
            match self.take_in(town, event).await {
                Err(refusal) if tries > 0 && refusal.code() == "bead_exists" => {}
                Err(refusal) => return Err(refusal),
                Ok(Submitted { seq, repeated, .. }) => {
                    let first = mark.as_ref().filter(|_| repeated);
                    let first = first
                        .and_then(|mark| self.state.reconciler.bead_made_with(town, &mark.by, &mark.key));
                    return Ok(Named { bead: first.unwrap_or(bead), seq, repeated });
                }
            }
        }
    }

    /// Who calls, with which key, and for what: an id that is only made here is no part of that.
    fn mark(
        &self,
        key: IdempotencyKey,
        id: Option<&BeadId>,
        event: impl Fn(BeadId, Option<Box<Report>>) -> TownEvent,
    ) -> Box<Report> {
        let plain = event(BeadId::parse("new").expect("an id"), None);
        let asked = id.map_or("", BeadId::as_str);
        let body = format!("{} {asked} {}", plain.kind(), plain.detail());
        Box::new(Reconciler::report(&self.identity.actor, key, body.as_bytes()))
    }
}
