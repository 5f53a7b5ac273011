//! Tells a release build which commit it is made from, for `plimsoll --version`. `PLIMSOLL_COMMIT` wins, and outside
//! a clone nothing is told.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=PLIMSOLL_COMMIT");
    let told = std::env::var_os("PLIMSOLL_COMMIT").is_some();
    // A debug build would be compiled anew after each commit.
    if told || std::env::var("PROFILE").as_deref() != Ok("release") {
        return;
    }
    // Sources that lie within another project's clone are not of its commit.
    if git(&["rev-parse", "--show-prefix"]).as_deref() != Some("") {
        return;
    }
    let Some(commit) = git(&["rev-parse", "--short", "HEAD"]) else { return };
    println!("cargo:rustc-env=PLIMSOLL_COMMIT={commit}");
    // It grows with each commit and each checkout.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]).filter(|log| Path::new(log).exists()) {
        println!("cargo:rerun-if-changed={log}");
    }
}

fn git(arguments: &[&str]) -> Option<String> {
    let output =
        Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
