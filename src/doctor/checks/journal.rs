//! Can this plimsoll read the journal that is there?

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};

use super::super::Verdict;
use super::super::scene::{Scene, Store};
use super::NO_CONFIGURATION;
use crate::journal::offline::Outline;
use crate::journal::{FORMAT, OpenError};

pub(in crate::doctor) fn check(scene: &Scene) -> BoxFuture<'_, Verdict> {
    let verdict = match &scene.store {
        Store::Unknown => Verdict::skip(NO_CONFIGURATION),
        Store::Absent | Store::Empty => Verdict::skip("none yet"),
        Store::Served(None) => Verdict::pass("open in the plimsoll that runs"),
        Store::Served(Some(problem)) => Verdict::fail(
            format!("the plimsoll that runs says: {problem}"),
            "do what its log says; if it only starts, ask again in a moment",
        ),
        Store::Unusable(OpenError::Locked { .. }) => Verdict::skip("locked, see above"),
        Store::Unusable(error @ OpenError::Newer { .. }) => {
            Verdict::fail(error.to_string(), "install the plimsoll that wrote it, or a newer one")
        }
        Store::Unusable(error @ (OpenError::Unknown { .. } | OpenError::Foreign { .. })) => Verdict::fail(
            error.to_string(),
            "name a data directory of plimsoll, or an empty one, with --data-dir",
        ),
        Store::Unusable(
            error @ (OpenError::Io { .. } | OpenError::ReadOnly { .. } | OpenError::Thread { .. }),
        ) => Verdict::fail(crate::doctor::told(error), "let this user read and write all of it"),
        Store::Seen(Outline { partitions, unreadable, .. }) if unreadable.is_empty() => Verdict::pass(
            format!("format {FORMAT}, {partitions} partitions; `plimsoll audit verify` reads them"),
        ),
        Store::Seen(Outline { unreadable, .. }) => Verdict::fail(
            format!("cannot be read: {}", unreadable.join(", ")),
            "see `plimsoll audit verify`; the journal can still be read with `plimsoll audit export`",
        ),
    };
    ready(verdict).boxed()
}
