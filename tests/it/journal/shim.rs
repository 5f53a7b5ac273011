//! The shim that is preloaded into a child: built with the system's C compiler, once.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The shared object; `None` (and a line that says so) if there is no C compiler.
pub(crate) fn shim() -> Option<&'static Path> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    BUILT.get_or_init(build).as_deref()
}

fn build() -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shim/disk_shim.c");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("disk_shim-{}.so", std::process::id()));
    let compiler = Command::new("cc")
        .args(["-O1", "-fPIC", "-shared", "-o"])
        .args([&target, &source])
        .args(["-ldl", "-lpthread"])
        .status();
    match compiler {
        Ok(status) => {
            assert!(status.success(), "the shim does not compile");
            Some(target)
        }
        Err(_) => {
            let required = std::env::var_os("PLIMSOLL_REQUIRE_TOOLS").is_some();
            assert!(!required, "needs cc");
            println!("skipped: needs cc");
            None
        }
    }
}
