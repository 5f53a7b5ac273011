//! Whether a program is there, before anybody runs it.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// What was found under the name of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Executable,
    NotExecutable,
    Nothing,
}

/// Looks for a program as the system does (execvp(3)): a name in the directories of `PATH`, a path where it says. Without
/// a `PATH` of its own, the program has plimsoll's.
pub(crate) fn look_for(program: &str, own_path: Option<&str>) -> Found {
    let name = OsStr::new(program);
    if program.contains('/') {
        return look_at(Path::new(name));
    }
    let path = own_path.map(OsString::from).or_else(|| std::env::var_os("PATH")).unwrap_or_default();
    let places = std::env::split_paths(&path).map(|folder| folder.join(name));
    let found: Vec<Found> = places.map(|file: PathBuf| look_at(&file)).collect();
    let best = [Found::Executable, Found::NotExecutable].into_iter().find(|best| found.contains(best));
    best.unwrap_or(Found::Nothing)
}

fn look_at(file: &Path) -> Found {
    match file.metadata() {
        Ok(about) if about.is_file() && about.permissions().mode() & 0o111 != 0 => Found::Executable,
        Ok(_) => Found::NotExecutable,
        Err(_) => Found::Nothing,
    }
}
