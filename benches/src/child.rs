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

/// A number that `/proc/<pid>/status` names, such as `VmRSS:` in KiB (proc(5)).
pub(crate) fn status(pid: u32, key: &str) -> Result<u64, String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"));
    let text = text.map_err(|error| format!("the process {pid} cannot be looked at: {error}"))?;
    let number =
        text.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| format!("/proc names no {key}"))
}
