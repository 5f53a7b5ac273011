//! What this build is.

/// The line that `plimsoll --version` prints after the name: version, commit where the build knew it, platform.
pub(crate) fn long() -> String {
    let commit =
        option_env!("PLIMSOLL_COMMIT").filter(|commit| !commit.is_empty()).unwrap_or("unknown commit");
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    format!(
        "{} ({commit}, {}-{}, {profile})",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::ARCH,
        std::env::consts::OS
    )
}
