//! Which files make up the configuration, and where the data directory is.
//!
//! Looks, and reads nothing but the files themselves. Start at [`locate`].

use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::expand::Environment;
use super::problem::{ConfigProblem, KeyPath, Origin};
use crate::limits::CONFIG_FILE_BYTES_MAX;

/// What the configuration is loaded from.
#[derive(Clone)]
pub struct LoadRequest<'a> {
    /// `--config`.
    pub file: Option<PathBuf>,
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// Environment variables.
    pub environment: Environment<'a>,
    /// The directory that relative arguments and the search begin in.
    pub cwd: PathBuf,
}

impl std::fmt::Debug for LoadRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { file, data_dir, environment: _, cwd } = self;
        f.debug_struct("LoadRequest")
            .field("file", file)
            .field("data_dir", data_dir)
            .field("cwd", cwd)
            .finish_non_exhaustive()
    }
}

impl LoadRequest<'_> {
    /// A variable that is set and not empty, as a path.
    fn path(&self, name: &str) -> Option<PathBuf> {
        (self.environment)(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    /// A directory from the environment: the base directory specification says to ignore relative ones.
    fn directory(&self, name: &str) -> Option<PathBuf> {
        self.path(name).filter(|path| path.is_absolute())
    }
}

/// The files found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The base file: named, or the first found. None is fine.
    pub base: Option<PathBuf>,
    /// The overlay.
    pub overlay: Overlay,
}

/// The file that `PLIMSOLL_ENV` chooses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Overlay {
    /// `PLIMSOLL_ENV` is not set.
    None,
    /// The file is there.
    Found(PathBuf),
    /// `PLIMSOLL_ENV` is set, and there is no file here.
    Missing(PathBuf),
    /// `PLIMSOLL_ENV` is not a name.
    Misnamed,
}

impl Overlay {
    /// The file, if it is there.
    #[must_use]
    pub fn found(&self) -> Option<&Path> {
        match self {
            Self::Found(path) => Some(path),
            Self::None | Self::Missing(_) | Self::Misnamed => None,
        }
    }

    /// Why it cannot be used, if so.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        match self {
            Self::None | Self::Found(_) => None,
            Self::Missing(path) => Some(format!(
                "PLIMSOLL_ENV is set, and its overlay {} does not exist: make it, or unset PLIMSOLL_ENV",
                path.display()
            )),
            Self::Misnamed => Some(
                "PLIMSOLL_ENV is not the name of an overlay: expected letters a-z, 0-9, `-` and `_`"
                    .to_owned(),
            ),
        }
    }
}

/// Finds the base file and its overlay.
#[must_use]
pub fn locate(request: &LoadRequest<'_>) -> Located {
    let named = request.file.clone().or_else(|| request.path("PLIMSOLL_CONFIG"));
    let base = match named {
        Some(file) => Some(request.cwd.join(file)),
        None => searched(request).into_iter().find(|file| file.exists()),
    };
    let folder = match base.as_deref().and_then(Path::parent) {
        Some(folder) => folder.to_owned(),
        None => request.cwd.join("config"),
    };
    Located { overlay: overlay(request, &folder), base }
}

/// Where a base file is looked for, in this order, when none is named.
#[must_use]
pub fn searched(request: &LoadRequest<'_>) -> Vec<PathBuf> {
    let home = request.directory("HOME").map(|home| home.join(".config"));
    let user = request.directory("XDG_CONFIG_HOME").or(home);
    let mut files = vec![request.cwd.join("config/plimsoll.yaml"), request.cwd.join("plimsoll.yaml")];
    files.extend(user.map(|user| user.join("plimsoll/plimsoll.yaml")));
    files.push(PathBuf::from("/etc/plimsoll/plimsoll.yaml"));
    files
}

fn overlay(request: &LoadRequest<'_>, folder: &Path) -> Overlay {
    let Some(name) = (request.environment)("PLIMSOLL_ENV").filter(|name| !name.is_empty()) else {
        return Overlay::None;
    };
    let valid = |name: &&str| {
        name.len() <= 64
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
    };
    let Some(name) = name.to_str().filter(valid) else { return Overlay::Misnamed };
    let path = folder.join(format!("{name}.yaml"));
    if path.exists() { Overlay::Found(path) } else { Overlay::Missing(path) }
}

/// Reads one configuration file, at most one byte more than may be parsed.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, ConfigProblem> {
    let refuse = |error: std::io::Error| {
        let message = format!("cannot be read: {error}");
        ConfigProblem::new(Some(Origin::file(path)), KeyPath::default(), message)
    };
    let file = std::fs::File::open(path).map_err(refuse)?;
    let mut bytes = Vec::new();
    file.take(CONFIG_FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(refuse)?;
    Ok(bytes)
}

/// The data directory: `--data-dir`, else the key, else `$STATE_DIRECTORY` (its first entry), else
/// `$XDG_STATE_HOME/plimsoll`, where `$XDG_STATE_HOME` is `~/.local/state` unless set.
pub(crate) fn data_dir(request: &LoadRequest<'_>, key: Option<&Path>) -> Result<PathBuf, ConfigProblem> {
    if let Some(path) = request.data_dir.as_deref().or(key) {
        return Ok(straight(&request.cwd.join(path)));
    }
    let service = (request.environment)("STATE_DIRECTORY")
        .and_then(|list| std::env::split_paths(&list).next())
        .filter(|path| path.is_absolute());
    let state = || request.directory("XDG_STATE_HOME");
    let home = || request.directory("HOME").map(|home| home.join(".local/state"));
    service.or_else(|| state().or_else(home).map(|state| state.join("plimsoll"))).ok_or_else(|| {
        ConfigProblem::general("no data directory: give --data-dir, or the key `data_dir`, or set HOME")
    })
}

/// The path without `..` and symlinks, as far as it exists already.
pub(crate) fn straight(path: &Path) -> PathBuf {
    let parent = || Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?));
    path.canonicalize().ok().or_else(parent).unwrap_or_else(|| path.to_owned())
}
