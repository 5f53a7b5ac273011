//! Can the data directory be used?

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};
use rustix::fs::{Access, access};

use super::super::Verdict;
use super::super::scene::{Scene, Store};
use super::NO_CONFIGURATION;
use crate::journal::OpenError;

pub(in crate::doctor) fn check(scene: &Scene) -> BoxFuture<'_, Verdict> {
    ready(look(scene)).boxed()
}

fn look(scene: &Scene) -> Verdict {
    let Ok(loaded) = &scene.loaded else { return Verdict::skip(NO_CONFIGURATION) };
    let dir = loaded.data_dir.as_path();
    match &scene.store {
        Store::Served(_) => {
            return Verdict::pass(format!("{} (used by the plimsoll that runs)", dir.display()));
        }
        Store::Unusable(OpenError::Locked { holder, .. }) => {
            let holder = holder.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
            return Verdict::fail(
                format!(
                    "{} is locked by {holder}, which does not answer on its control socket",
                    dir.display()
                ),
                "if it is a plimsoll that hangs, stop it; else choose another directory with --data-dir",
            );
        }
        // What lies in it is another check's question.
        Store::Unknown
        | Store::Absent
        | Store::Empty
        | Store::Seen(_)
        | Store::Unusable(
            OpenError::Io { .. }
            | OpenError::ReadOnly { .. }
            | OpenError::Newer { .. }
            | OpenError::Unknown { .. }
            | OpenError::Foreign { .. }
            | OpenError::Thread { .. },
        ) => {}
    }
    writable(dir)
}

fn writable(dir: &Path) -> Verdict {
    // A directory that is not there yet will be made in the nearest one that is.
    let Some(nearest) = dir.ancestors().find(|dir| dir.exists()) else {
        return Verdict::fail(format!("{} cannot be made", dir.display()), "choose another with --data-dir");
    };
    let advice = "let this user write there, or choose another directory with --data-dir";
    if !nearest.is_dir() {
        return Verdict::fail(format!("{} is not a directory", nearest.display()), advice);
    }
    if let Err(error) = access(nearest, Access::WRITE_OK | Access::EXEC_OK) {
        return Verdict::fail(format!("{} is not writable: {error}", nearest.display()), advice);
    }
    if nearest != dir {
        return Verdict::pass(format!("{} (will be made)", dir.display()));
    }
    let mode = dir.metadata().map(|metadata| metadata.permissions().mode() & 0o777).unwrap_or(0o700);
    if mode & 0o077 != 0 {
        return Verdict::warn(
            format!("others may enter {} (mode {mode:03o})", dir.display()),
            format!("chmod 700 {}", dir.display()),
        );
    }
    Verdict::pass(dir.display().to_string())
}
