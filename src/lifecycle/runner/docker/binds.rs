//! What of the file system a container may see. Links can be swapped at any time, and the engine follows them when it
//! starts a container: so nobody but the operator may be able to swap what lies on the way. Pure: files are looked at by
//! an argument.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::lifecycle::EngineConfig;

/// Sockets of engines, whichever is asked, and the directories in which users have theirs: whoever reaches one has all of
/// the machine.
const SOCKETS: [&str; 10] = [
    "/run/docker.sock",
    "/var/run/docker.sock",
    "/run/docker",
    "/var/run/docker",
    "/run/containerd",
    "/var/run/containerd",
    "/run/podman",
    "/var/run/podman",
    "/run/user",
    "/var/run/user",
];

/// Bits of a mode: others than the owner may write (with an access control list, the group's bit says what the list allows
/// at most), and only its owner may rename or remove what is in it.
const OTHERS_WRITE: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// What containers may be made of and may see.
pub(super) struct Allowed<'a> {
    pub(super) engine: &'a EngineConfig,
    /// What none may see, besides the engine's socket.
    pub(super) data_dir: &'a Path,
    /// What containers may write to.
    pub(super) writable: &'a [PathBuf],
    pub(super) files: &'a dyn Files,
}

/// A file system.
pub(super) trait Files {
    /// Follows links.
    fn real(&self, path: &Path) -> io::Result<PathBuf>;
    /// Whose it is and who may write to it.
    fn rights(&self, path: &Path) -> io::Result<Rights>;
    /// Which user plimsoll is.
    fn me(&self) -> u32;
}

/// Whose a directory is, and who may write to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rights {
    pub(super) user: u32,
    pub(super) mode: u32,
}

/// The file system of this machine.
pub(super) struct Machine;

impl Files for Machine {
    fn real(&self, path: &Path) -> io::Result<PathBuf> {
        path.canonicalize()
    }

    fn rights(&self, path: &Path) -> io::Result<Rights> {
        let found = path.symlink_metadata()?;
        Ok(Rights { user: found.uid(), mode: found.mode() })
    }

    fn me(&self) -> u32 {
        rustix::process::geteuid().as_raw()
    }
}

impl Allowed<'_> {
    /// Where a bind leads once links are followed.
    ///
    /// # Errors
    /// Why no container may see it.
    pub(super) fn source(&self, source: &Path) -> Result<PathBuf, String> {
        let Some(socket) = self.engine.address.strip_prefix("unix://") else {
            return Err("nothing may be bound: an engine at another address than unix:// has its own file \
                        system, which plimsoll cannot look at"
                .to_owned());
        };
        let real = |path: &Path| {
            self.files.real(path).map_err(|error| format!("{} cannot be bound: {error}", path.display()))
        };
        let root =
            self.engine.bind_root.as_deref().ok_or("nothing may be bound: `engine.bind_root` is not set")?;
        let (root, real) = (real(root)?, real(source)?);
        let refused = |why: &str| Err(format!("{} may not be bound: {why}", source.display()));
        if root == Path::new("/") {
            return refused("`engine.bind_root` leads to /, which is everything");
        }
        if !real.starts_with(&root) {
            return refused(&format!("it leads to {}, outside of `engine.bind_root`", real.display()));
        }
        // What is not there can be bound by nobody, but what will stand there can be seen through its parent.
        let sockets = SOCKETS.map(|path| (Path::new(path), "the socket of an engine"));
        let secrets = [(Path::new(socket), "the engine's socket"), (self.data_dir, "the data directory")];
        for (path, name) in secrets.into_iter().chain(sockets) {
            let place = self.files.real(path).unwrap_or_else(|_| path.to_owned());
            if place.starts_with(&real) || real.starts_with(&place) {
                return refused(&format!("it would show {name}"));
            }
        }
        match self.swappable(&root, &real) {
            Some(why) => refused(&why),
            None => Ok(real),
        }
    }

    /// How somebody could put something else in the place of `real`, if somebody could: the operator is root, plimsoll's
    /// own user, or whose the root of all binds is. As strict as sshd is with the way to a key (`StrictModes`,
    /// sshd_config(5)).
    fn swappable(&self, root: &Path, real: &Path) -> Option<String> {
        for writable in self.writable {
            let writable = self.files.real(writable).unwrap_or_else(|_| writable.clone());
            if real != writable && real.starts_with(&writable) {
                let shown = writable.display();
                return Some(format!("a container may write to {shown}, and swap what lies in it"));
            }
        }
        let unseen =
            |path: &Path, error: io::Error| format!("{} cannot be looked at: {error}", path.display());
        let operator = match self.files.rights(root) {
            Ok(rights) => [0, self.files.me(), rights.user],
            Err(error) => return Some(unseen(root, error)),
        };
        let way: Vec<&Path> = real.ancestors().collect();
        for step in way.windows(2) {
            let [inner, outer] = [step[0], step[1]];
            let rights = match self.files.rights(outer) {
                Ok(rights) => rights,
                Err(error) => return Some(unseen(outer, error)),
            };
            let Rights { user, mode } = rights;
            let shown = outer.display();
            if !operator.contains(&user) {
                return Some(format!("{shown} is user {user}'s, who could swap what lies in it"));
            }
            let is_fixed = mode & STICKY != 0
                && self.files.rights(inner).is_ok_and(|inner| operator.contains(&inner.user));
            if mode & OTHERS_WRITE != 0 && !is_fixed {
                return Some(format!(
                    "others may write to {shown}, and swap what lies in it: `chmod go-w {shown}`"
                ));
            }
        }
        None
    }
}

#[cfg(test)]
pub(super) mod double {
    use super::*;

    /// A file system in which some names are links, and some directories somebody else's.
    pub(in super::super) struct Linked;

    impl Files for Linked {
        fn real(&self, path: &Path) -> io::Result<PathBuf> {
            let target = match path.to_str() {
                Some("/srv/agents/root") => "/",
                Some("/srv/agents/etc") => "/etc",
                Some("/srv/agents/back") => "/srv/agents/worker",
                Some("/srv/agents/socket" | "/run/docker.sock") => "/run/real/docker.sock",
                Some("/srv/agents/data" | "/var/lib/plimsoll") => "/srv/agents/store/plimsoll",
                Some("/srv/agents/missing") => return Err(io::ErrorKind::NotFound.into()),
                _ => return Ok(path.to_owned()),
            };
            Ok(target.into())
        }

        fn rights(&self, path: &Path) -> io::Result<Rights> {
            let (user, mode) = match path.to_str() {
                // The root of all binds is a person's.
                Some("/srv/agents") => (1_000, 0o755),
                Some("/srv/agents/mine") => (6, 0o755),
                Some("/srv/agents/alien") => (1_001, 0o755),
                Some("/srv/agents/team") => (0, 0o775),
                Some("/srv/agents/open") => (0, 0o777),
                Some("/srv/agents/tmp") => (0, 0o1777),
                Some("/srv/agents/tmp/alien") => (1_001, 0o755),
                _ => (0, 0o755),
            };
            Ok(Rights { user, mode })
        }

        fn me(&self) -> u32 {
            6
        }
    }
}

#[cfg(test)]
mod tests {
    use super::double::Linked;
    use super::*;

    fn engine(bind_root: &str) -> EngineConfig {
        EngineConfig {
            address: "unix:///run/docker.sock".to_owned(),
            bind_root: Some(bind_root.into()),
            ..EngineConfig::default()
        }
    }

    fn source(engine: &EngineConfig, source: &str) -> Result<PathBuf, String> {
        let writable = ["/srv/agents/shared".into(), "/srv/agents/back".into()];
        let data_dir = Path::new("/var/lib/plimsoll");
        Allowed { engine, data_dir, writable: &writable, files: &Linked }.source(Path::new(source))
    }

    fn refuses(engine: &EngineConfig, cases: &[(&str, &str)]) {
        for (path, complaint) in cases {
            let refused = source(engine, path).expect_err(path);
            assert!(refused.contains(complaint), "{path}: {refused}");
        }
    }

    #[test]
    fn a_bind_leads_nowhere_but_below_its_root() {
        let engine = engine("/srv/agents");
        let cases = [
            ("/", "outside of `engine.bind_root`"),
            ("/srv", "outside of `engine.bind_root`"),
            ("/srv/agents2", "outside of `engine.bind_root`"),
            ("/srv/agents/root", "it leads to /, outside of `engine.bind_root`"),
            ("/srv/agents/etc", "it leads to /etc, outside of `engine.bind_root`"),
            ("/srv/agents/socket", "it leads to /run/real/docker.sock, outside"),
            ("/srv/agents", "it would show the data directory"),
            ("/srv/agents/store", "it would show the data directory"),
            ("/srv/agents/store/plimsoll/journal", "it would show the data directory"),
            ("/srv/agents/data", "it would show the data directory"),
            ("/srv/agents/missing", "cannot be bound"),
        ];
        refuses(&engine, &cases);
        assert_eq!(source(&engine, "/srv/agents/back"), Ok("/srv/agents/worker".into()));
    }

    #[test]
    fn nobody_but_the_operator_may_swap_what_lies_on_the_way() {
        let engine = engine("/srv/agents");
        let cases = [
            ("/srv/agents/alien/x", "/srv/agents/alien is user 1001's, who could swap"),
            ("/srv/agents/team/x", "others may write to /srv/agents/team, and swap"),
            ("/srv/agents/open/x/y", "`chmod go-w /srv/agents/open`"),
            ("/srv/agents/tmp/alien", "others may write to /srv/agents/tmp"),
            ("/srv/agents/shared/x", "a container may write to /srv/agents/shared, and swap"),
            ("/srv/agents/worker/x/y", "a container may write to /srv/agents/worker, and swap"),
        ];
        refuses(&engine, &cases);
        // What is bound itself is held by the engine, whoever may write to it.
        for path in ["alien", "open", "mine/x", "tmp/own", "tmp/own/x", "shared", "worker", "shared2"] {
            let path = format!("/srv/agents/{path}");
            assert_eq!(source(&engine, &path), Ok(PathBuf::from(&path)));
        }
    }

    #[test]
    fn the_socket_is_not_seen_even_if_it_stands_below_the_root() {
        let socket = engine("/run");
        refuses(
            &socket,
            &["/run/real/docker.sock", "/run/real", "/run"].map(|path| (path, "the engine's socket")),
        );
        let elsewhere = EngineConfig { address: "unix:///opt/engine.sock".to_owned(), ..socket };
        let places = ["/run", "/run/docker.sock", "/run/containerd/x", "/run/podman", "/run/user/1000"];
        refuses(&elsewhere, &places.map(|path| (path, "the socket of an engine")));
        let remote = EngineConfig { address: "tcp://10.0.0.1:2375".to_owned(), ..engine("/srv/agents") };
        refuses(&remote, &[("/srv/agents/worker", "has its own file system")]);
        refuses(&engine("/srv/agents/root"), &[("/srv/agents/worker", "which is everything")]);
    }

    #[test]
    fn the_rights_of_this_machine_are_seen() {
        use std::os::unix::fs::PermissionsExt as _;

        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().canonicalize().expect("there");
        let (open, inner) = (root.join("open"), root.join("open/inner"));
        std::fs::create_dir_all(&inner).expect("made");
        let engine = engine(root.to_str().expect("UTF-8"));
        let allowed =
            Allowed { engine: &engine, data_dir: Path::new("/none"), writable: &[], files: &Machine };
        assert_eq!(allowed.source(&inner), Ok(inner.clone()));
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).expect("set");
        let refused = allowed.source(&inner).expect_err("refused");
        assert!(refused.contains("others may write to"), "{refused}");
    }
}
