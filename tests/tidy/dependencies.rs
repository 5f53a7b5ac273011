//! Every dependency has its line in CONTRIBUTING.md: what it saves and who keeps it.

use std::collections::BTreeSet;

use crate::source::read;
use crate::{exactly, none};

fn check(manifest: &str, contributing: &str) -> Vec<String> {
    let (wanted, explained) = (dependencies(manifest), explanations(contributing));
    let missing = wanted
        .difference(&explained)
        .map(|name| format!("CONTRIBUTING.md does not say why `{name}` is a dependency"));
    let stale = explained
        .difference(&wanted)
        .map(|name| format!("CONTRIBUTING.md explains `{name}`, which is no dependency"));
    missing.chain(stale).collect()
}

fn dependencies(manifest: &str) -> BTreeSet<&str> {
    let mut inside = false;
    let mut found = BTreeSet::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.ends_with("dependencies]");
        } else if let (true, Some((name, _))) = (inside, line.split_once(" = ")) {
            found.insert(name);
        }
    }
    found
}

/// The names before the dash in the lines `- `name`, `name`: why` under the heading "Dependencies".
fn explanations(contributing: &str) -> BTreeSet<&str> {
    let section =
        contributing.split("\n## ").find(|section| section.starts_with("Dependencies\n")).unwrap_or("");
    let entries =
        section.lines().filter(|line| line.starts_with("- `")).filter_map(|line| line.split_once("`: "));
    entries
        .flat_map(|(names, _)| names.trim_start_matches("- ").split(", ").map(|name| name.trim_matches('`')))
        .collect()
}

#[test]
fn every_dependency_is_explained() {
    none(&check(&read("Cargo.toml").text, &read("CONTRIBUTING.md").text));
    none(&check(
        "[dependencies]\na = \"1\"\n[dev-dependencies]\nb = \"1\"\n[lints.rust]\nc = \"warn\"\n",
        "\n## Dependencies\n- `a`, `b`: why.\n",
    ));
}

#[test]
fn an_unexplained_and_a_stale_one_are_found() {
    exactly(&check("[dependencies]\na = \"1\"\n", "\n## Dependencies\n"), "why `a`");
    exactly(&check("[dependencies]\n", "\n## Dependencies\n- `a`: why.\n"), "`a`, which is no dependency");
}
