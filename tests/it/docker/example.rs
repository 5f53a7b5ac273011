//! The example `local-container`, built and run as it is written, but for names: its base is made of this machine's Python.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::json;
use tempfile::TempDir;

use super::engine::Engine;
use crate::local::{answers_and_stops, written};
use crate::support::tools::needs;

/// In the place of `python:3.13-slim`.
const BASE: &str = "plimsoll-test/python:it";
pub(crate) const BUILT: &str = "plimsoll-test/local:it";

/// Prints a tar with the Python that runs it: the program, its library and what both are linked with.
const PACK: &str = r#"
import os, subprocess, sys, sysconfig, tarfile
program, library = os.path.realpath(sys.executable), sysconfig.get_path("stdlib")
left_out = {"test", "tests", "site-packages", "dist-packages", "idlelib", "tkinter", "ensurepip", "lib2to3"}
dynamic = os.path.join(library, "lib-dynload")
linked = set()
for file in [program] + [os.path.join(dynamic, name) for name in os.listdir(dynamic) if name.endswith(".so")]:
    for line in subprocess.run(["ldd", file], capture_output=True, text=True).stdout.splitlines():
        linked.update(word for word in line.split() if word.startswith("/"))
def keep(entry):
    name = os.path.basename(entry.name)
    return None if name in left_out or name.startswith("config-") or name.endswith(".a") else entry
with tarfile.open(fileobj=sys.stdout.buffer, mode="w|", dereference=True) as tar:
    tar.add(library, filter=keep)
    for file in linked | {program}:
        tar.add(file)
    link = tarfile.TarInfo("usr/local/bin/python3")
    link.type, link.linkname = tarfile.SYMTYPE, program
    tar.addfile(link)
"#;

fn has_base(engine: &Engine) {
    if engine.tries(&["image", "inspect", BASE]).is_ok() {
        return;
    }
    let tar = Command::new("python3").args(["-c", PACK]).output().expect("python3 runs");
    assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
    let mut import = Command::new("docker");
    import.env("DOCKER_HOST", &engine.address).args(["import", "-", BASE]);
    let mut import = import.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("docker runs");
    import.stdin.take().expect("piped").write_all(&tar.stdout).expect("taken");
    assert!(import.wait().expect("it ends").success());
}

/// Removes what was made of the image of the test.
pub(crate) struct Cleared(pub(crate) Engine);

impl Drop for Cleared {
    fn drop(&mut self) {
        let made = format!("ancestor={BUILT}");
        for container in self.0.tries(&["ps", "-aq", "--filter", &made]).unwrap_or_default().lines() {
            let _ = self.0.tries(&["rm", "-f", "-v", container]);
        }
    }
}

/// What `config init` writes of the example, and the image that it names is built, under the name `BUILT`; `None` after
/// saying that the test is skipped.
pub(crate) fn built(engine: &Engine) -> Option<TempDir> {
    needs("python3")?;
    has_base(engine);
    let dir = written("local-container");
    let file = dir.path().join("Dockerfile");
    let dockerfile = std::fs::read_to_string(&file).expect("it is written");
    assert!(dockerfile.contains("FROM python:3.13-slim\n"));
    std::fs::write(&file, dockerfile.replace("python:3.13-slim", BASE)).expect("written");
    engine.docker(&["build", "--tag", BUILT, &dir.path().to_string_lossy()]);
    Some(dir)
}

#[tokio::test]
async fn the_server_in_a_container_answers_and_stops_when_idle() {
    let Some(engine) = Engine::of_machine() else { return };
    let Some(dir) = built(&engine) else { return };
    let _cleared = Cleared(engine.clone());
    let overlay = json!({
        "server": {"listen": "127.0.0.1:0"},
        "engine": {"address": engine.address, "images": [BUILT]},
        "agents": {"local": {"instance": {"idle_after": "1s", "container": {"image": BUILT}}}},
    });
    answers_and_stops(dir, &overlay).await;
}
