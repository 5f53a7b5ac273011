//! Processes that a bench starts and looks at.

use std::fs;
use std::process::Child;

/// A running process; killed when dropped.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Seconds of CPU time that this thread has used: beside other work they say more than the clock (proc(5), `schedstat`).
pub(crate) fn cpu_seconds() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos: Option<f64> = text.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
    nanos.unwrap_or(f64::NAN) / 1e9
}

/// Seconds of CPU time that all threads of a process have used (proc(5), `schedstat` of each).
pub(crate) fn process_cpu_seconds(pid: u32) -> Result<f64, String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let tasks = tasks.map_err(|error| format!("the process {pid} cannot be looked at: {error}"))?;
    let nanos = tasks.flatten().filter_map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    });
    Ok(nanos.sum::<f64>() / 1e9)
}

/// A number that `/proc/<pid>/status` names, such as `VmRSS:` in KiB (proc(5)).
pub(crate) fn status(pid: u32, key: &str) -> Result<u64, String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"));
    let text = text.map_err(|error| format!("the process {pid} cannot be looked at: {error}"))?;
    let number =
        text.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| format!("/proc names no {key}"))
}
