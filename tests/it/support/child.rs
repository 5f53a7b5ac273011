//! Programs that a test starts, and none of which outlives it.

use std::process::{Child, Command};

/// A running program; killed when dropped.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// # Panics
    /// When it does not start.
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}")))
    }

    /// Whether it has not ended by itself.
    pub(crate) fn runs(&mut self) -> bool {
        self.0.try_wait().expect("the child can be asked").is_none()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
