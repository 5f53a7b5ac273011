//! Container engines for tests: the machine's, and one that may be killed. Images are made here; none is fetched.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::server::until;
use crate::support::tools::{needs, needs_package};

/// busybox as `/bin/busybox` and under the names that the scripts use.
pub(crate) const IMAGE: &str = "plimsoll-test/busybox:it";
/// The same with a HEALTHCHECK that succeeds once there is a file `/tmp/healthy`.
pub(crate) const CHECKED: &str = "plimsoll-test/checked:it";

const APPLETS: [&str; 8] = ["sh", "httpd", "sleep", "tail", "test", "touch", "cat", "nc"];

/// An engine that answers.
#[derive(Clone)]
pub(crate) struct Engine {
    pub(crate) address: String,
    pub(crate) network: String,
}

impl Engine {
    /// The machine's own with the images, or `None` after saying that the test is skipped.
    pub(crate) fn of_machine() -> Option<Self> {
        static IMAGES: Mutex<()> = Mutex::new(());
        let (_, busybox) = (needs("docker")?, needs("busybox")?);
        let address =
            std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
        let engine = Self { address, network: "bridge".to_owned() };
        let answers = engine.tries(&["version"]).is_ok();
        if !needs_package("a Docker engine that runs", answers) {
            return None;
        }
        let _one_at_a_time = IMAGES.lock();
        engine.has_images(&busybox);
        Some(engine)
    }

    fn has_images(&self, busybox: &Path) {
        if self.tries(&["image", "inspect", IMAGE, CHECKED]).is_ok() {
            return;
        }
        let root = tempfile::tempdir().expect("a temporary directory");
        for dir in ["bin", "www", "tmp"] {
            fs::create_dir(root.path().join(dir)).expect("made");
        }
        fs::copy(busybox, root.path().join("bin/busybox")).expect("copied");
        for applet in APPLETS {
            std::os::unix::fs::symlink("busybox", root.path().join("bin").join(applet)).expect("linked");
        }
        fs::write(root.path().join("www/index.html"), "hello\n").expect("written");
        let tar = Command::new("tar").arg("-C").arg(root.path()).args(["-c", "."]).output().expect("packed");
        let check = "HEALTHCHECK --interval=1s --timeout=5s --retries=2 CMD test -e /tmp/healthy";
        for (image, changes) in [(IMAGE, vec![]), (CHECKED, vec!["--change", check])] {
            let mut import = self.command();
            import.arg("import").args(changes).args(["-", image]).stdin(Stdio::piped()).stdout(Stdio::null());
            let mut import = import.spawn().expect("docker runs");
            import.stdin.take().expect("piped").write_all(&tar.stdout).expect("taken");
            assert!(import.wait().expect("it ends").success());
        }
    }

    /// What `docker` says.
    pub(crate) fn docker(&self, args: &[&str]) -> String {
        self.tries(args).unwrap_or_else(|error| panic!("docker {args:?}: {error}"))
    }

    pub(crate) fn tries(&self, args: &[&str]) -> Result<String, String> {
        let output = self.command().args(args).output().map_err(|error| error.to_string())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    fn command(&self) -> Command {
        let mut command = Command::new("docker");
        command.env("DOCKER_HOST", &self.address);
        command
    }

    /// The names of the containers of an instance: those that run, or all.
    pub(crate) fn containers(&self, instance: &str, which: &[&str]) -> Vec<String> {
        let filter = format!("label=io.plimsoll.instance={instance}");
        let mut args = vec!["ps", "--no-trunc", "--format", "{{.Names}}", "--filter", &filter];
        args.extend(which);
        self.docker(&args).lines().map(str::to_owned).collect()
    }

    pub(crate) fn inspect(&self, container: &str, what: &str) -> String {
        self.docker(&["inspect", "--format", what, container])
    }

    /// Removes every container of an instance, also one that a test that failed left.
    pub(crate) fn clear(&self, instance: &str) {
        let filter = format!("label=io.plimsoll.instance={instance}");
        let left = self.tries(&["ps", "-aq", "--filter", &filter]).unwrap_or_default();
        for container in left.lines() {
            let _ = self.tries(&["rm", "-f", "-v", container]);
        }
    }
}

/// An engine of a test's own, which may be killed. What it runs outlives it (`--live-restore`). It has a network of its
/// own, so that it leaves that of the machine's engine alone: nothing connects to what it runs.
pub(crate) struct OwnEngine {
    pub(crate) engine: Engine,
    /// Keeps the network, and runs the containers.
    keepers: [Child; 2],
    daemon: Child,
    dir: TempDir,
}

impl OwnEngine {
    pub(crate) async fn start() -> Option<Self> {
        let (_, busybox, _) = (needs("docker")?, needs("busybox")?, needs("dockerd")?);
        let (_, _, _) = (needs("containerd")?, needs("unshare")?, needs("nsenter")?);
        let root = rustix::process::geteuid().is_root();
        if !needs_package("root, for a Docker engine", root) {
            return None;
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        let address = format!("unix://{}", dir.path().join("docker.sock").display());
        let engine = Engine { address, network: "bridge".to_owned() };
        let network = quiet(Command::new("unshare").args(["--net", "sleep", "100000"]), dir.path());
        let at = |name: &str| dir.path().join(name);
        let mut containerd = Command::new("containerd");
        containerd.arg("--root").arg(at("c")).arg("--state").arg(at("s")).arg("--address").arg(at("c.sock"));
        let containerd = quiet(&mut containerd, dir.path());
        until("containerd", async || at("c.sock").exists().then_some(())).await;
        let daemon = daemon(dir.path(), &engine.address, &network);
        let own = Self { engine, keepers: [network, containerd], daemon, dir };
        own.until_up().await;
        own.engine.has_images(&busybox);
        Some(own)
    }

    pub(crate) fn kill(&mut self) {
        self.daemon.kill().expect("killed");
        self.daemon.wait().expect("it was ours");
    }

    pub(crate) async fn start_again(&mut self) {
        let _ = fs::remove_file(self.dir.path().join("pid"));
        self.daemon = daemon(self.dir.path(), &self.engine.address, &self.keepers[0]);
        self.until_up().await;
    }

    async fn until_up(&self) {
        until("a Docker engine", async || self.engine.tries(&["version"]).ok()).await;
    }

    /// Every process that was started for this engine.
    fn processes(&self) -> Vec<Pid> {
        let dir = self.dir.path().to_string_lossy().into_owned();
        let ours = |path: &PathBuf| {
            let line = fs::read(path.join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&dir)
        };
        let all = fs::read_dir("/proc").expect("readable").flatten().map(|entry| entry.path());
        let ids = all.filter(ours).filter_map(|path| path.file_name()?.to_str()?.parse().ok());
        ids.filter_map(Pid::from_raw).collect()
    }
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        let all = self.engine.tries(&["ps", "-aq"]).unwrap_or_default();
        for container in all.lines() {
            let _ = self.engine.tries(&["rm", "-f", container]);
        }
        if let Some(pid) = Pid::from_raw(i32::try_from(self.daemon.id()).unwrap_or(0)) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.daemon.wait();
        for keeper in &mut self.keepers {
            let _ = keeper.kill();
            let _ = keeper.wait();
        }
        for process in self.processes() {
            let _ = kill_process(process, Signal::KILL);
        }
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        let places = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        for place in places.filter(|place| Path::new(place).starts_with(self.dir.path())) {
            let _ = Command::new("umount").args(["-l", place]).status();
        }
    }
}

fn daemon(dir: &Path, address: &str, network: &Child) -> Child {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/proc/{}/ns/net", network.id()));
    command.args(["dockerd", "--iptables=false", "--live-restore", "--storage-driver=vfs", "-H", address]);
    for (option, name) in
        [("--containerd", "c.sock"), ("--data-root", "root"), ("--exec-root", "exec"), ("--pidfile", "pid")]
    {
        command.arg(option).arg(dir.join(name));
    }
    quiet(&mut command, dir)
}

fn quiet(command: &mut Command, dir: &Path) -> Child {
    let log = fs::File::options().create(true).append(true).open(dir.join("log")).expect("a log");
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().expect("it runs")
}
