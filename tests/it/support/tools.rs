//! Tools that a test needs and a machine may lack.

use std::path::PathBuf;

/// The tool's path, or `None` after saying that the test is skipped.
///
/// # Panics
/// When the tool is missing and `PLIMSOLL_REQUIRE_TOOLS=1`: then nothing may be skipped.
pub(crate) fn needs(tool: &str) -> Option<PathBuf> {
    needs_tool(tool, None)
}

/// The same for a tool whose path may stand in a variable.
pub(crate) fn needs_tool(tool: &str, variable: Option<&str>) -> Option<PathBuf> {
    let named = variable.and_then(std::env::var_os).map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|dir| dir.join(tool));
    let found = named.into_iter().chain(on_path).find(|file| file.is_file());
    needs_package(tool, found.is_some());
    found
}

/// Whether something that a test needs is installed; says that the test is skipped if not.
///
/// # Panics
/// As [`needs`].
pub(crate) fn needs_package(name: &str, installed: bool) -> bool {
    if !installed {
        let required = std::env::var("PLIMSOLL_REQUIRE_TOOLS").is_ok_and(|value| value == "1");
        assert!(!required, "{name} is missing, and PLIMSOLL_REQUIRE_TOOLS=1");
        println!("skipped: needs {name}");
    }
    installed
}

/// What is counted in hundreds runs small by default, and whole with `PLIMSOLL_SOAK=1`.
pub(crate) fn soak(small: usize, whole: usize) -> usize {
    if std::env::var("PLIMSOLL_SOAK").is_ok_and(|value| value == "1") { whole } else { small }
}
