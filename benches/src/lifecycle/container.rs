//! Containers by hand: what the engine's own client and its socket do without plimsoll.

use std::io::{self, Read as _, Write as _};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::gateway::field;

/// What is made here is called so, with the id of this process.
const NAME: &str = "plimsoll-bench";

/// The engine, asked with `docker`.
pub(super) struct Engine {
    /// As in the configuration.
    pub(super) address: String,
    socket: PathBuf,
}

/// An image of this program and the libraries that it needs; removed when dropped.
pub(super) struct Image<'a> {
    engine: &'a Engine,
    pub(super) name: String,
    /// Where the program is in it.
    pub(super) program: String,
}

/// A container that was made by hand; removed when dropped.
pub(super) struct Container<'a> {
    engine: &'a Engine,
    name: String,
}

impl Engine {
    /// The engine of DOCKER_HOST, or of this machine.
    ///
    /// # Errors
    /// Says why there is none.
    pub(super) fn of_machine() -> Result<Self, String> {
        let address = std::env::var("DOCKER_HOST").unwrap_or("unix:///var/run/docker.sock".to_owned());
        let Some(socket) = address.strip_prefix("unix://").map(PathBuf::from) else {
            return Err(format!("{address} is not the socket of this machine"));
        };
        let engine = Self { address, socket };
        engine.docker(&["version"])?;
        Ok(engine)
    }

    /// Imports this program and its libraries.
    pub(super) fn image(&self) -> Result<Image<'_>, String> {
        let failed = |error: io::Error| format!("no image can be made: {error}");
        let program = std::env::current_exe().map_err(failed)?.display().to_string();
        let needs = Command::new("ldd").arg(&program).output().map_err(failed)?;
        let needs = String::from_utf8_lossy(&needs.stdout).into_owned();
        let libraries = needs.split_whitespace().filter(|word| word.starts_with('/'));
        let name = format!("{NAME}/peer:{}", std::process::id());
        let mut tar = Command::new("tar");
        tar.args(["--dereference", "--absolute-names", "-cf", "-", &program]).args(libraries);
        let mut tar = tar.stdout(Stdio::piped()).spawn().map_err(failed)?;
        let mut import = self.command(&["import", "-", &name]);
        if let Some(archive) = tar.stdout.take() {
            import.stdin(archive);
        }
        let imported = finish(&mut import);
        tar.wait().map_err(failed)?;
        imported.map(|_| Image { engine: self, name, program })
    }

    /// Makes a container with the limits that plimsoll sets.
    pub(super) fn container(&self, image: &Image<'_>, command: &[String]) -> Result<Container<'_>, String> {
        let name = format!("{NAME}-{}", std::process::id());
        let create = ["create", "--name", &name, "--memory", "512m", "--cpus", "1", "--pids-limit", "256"];
        let rights = ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", &image.name];
        let command = command.iter().map(String::as_str);
        let arguments: Vec<&str> = create.into_iter().chain(rights).chain(command).collect();
        self.docker(&arguments)?;
        Ok(Container { engine: self, name })
    }

    /// Removes what a plimsoll made.
    pub(super) fn remove_of(&self, owner: &str) -> Result<(), String> {
        let left = self.docker(&["ps", "-aq", "--filter", &format!("label=io.plimsoll.owner={owner}")])?;
        left.split_whitespace().try_for_each(|id| self.docker(&["rm", "-f", id]).map(drop))
    }

    fn docker(&self, arguments: &[&str]) -> Result<String, String> {
        finish(&mut self.command(arguments))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.args(["-H", &self.address]).args(arguments);
        command
    }

    /// One call of its API. HTTP/1.0, for an answer in one piece.
    fn call(&self, method: &str, path: &str) -> Result<String, String> {
        let asked = || {
            let mut socket = UnixStream::connect(&self.socket)?;
            write!(socket, "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")?;
            let mut answer = String::new();
            socket.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = asked().map_err(|error: io::Error| format!("{path}: {error}"))?;
        let is_good = answer.split(' ').nth(1).is_some_and(|status| status.starts_with('2'));
        if is_good { Ok(answer) } else { Err(format!("{path}: {answer}")) }
    }
}

impl Container<'_> {
    pub(super) fn start(&self) -> Result<(), String> {
        self.engine.call("POST", &format!("/v1.41/containers/{}/start", self.name)).map(drop)
    }

    pub(super) fn address(&self) -> Result<IpAddr, String> {
        let seen = self.engine.call("GET", &format!("/v1.41/containers/{}/json", self.name))?;
        let address = field(&seen, "IPAddress").and_then(|address| address.parse().ok());
        address.ok_or_else(|| format!("{} has no address: {seen}", self.name))
    }

    pub(super) fn kill(&self) -> Result<(), String> {
        self.engine.docker(&["kill", &self.name])?;
        self.engine.docker(&["wait", &self.name]).map(drop)
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        told(self.engine.docker(&["rm", "-f", &self.name]));
    }
}

impl Drop for Image<'_> {
    fn drop(&mut self) {
        told(self.engine.docker(&["rmi", "-f", &self.name]));
    }
}

fn told(removed: Result<String, String>) {
    if let Err(error) = removed {
        eprintln!("something is left at the engine: {error}");
    }
}

/// What a command printed.
fn finish(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
