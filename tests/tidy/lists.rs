//! Every Rust file is in a `mod` list: one that is in none is not compiled, and nobody notices.

use std::collections::BTreeMap;

use crate::source::{Source, rust};
use crate::{exactly, none};

fn unlisted(sources: &[Source]) -> Vec<String> {
    let texts: BTreeMap<_, _> =
        sources.iter().map(|source| (source.path.as_str(), source.text.as_str())).collect();
    let listed = |path: &str| {
        let (folder, name) = path.rsplit_once('/').expect("a folder");
        let (folder, name) = match name {
            "main.rs" | "lib.rs" => return true,
            "mod.rs" => folder.rsplit_once('/').expect("a folder"),
            name => (folder, name.trim_end_matches(".rs")),
        };
        let parents = [
            format!("{folder}/mod.rs"),
            format!("{folder}.rs"),
            format!("{folder}/lib.rs"),
            format!("{folder}/main.rs"),
        ];
        let line = format!("mod {name};");
        let names_it = |text: &str| {
            text.lines()
                .any(|l| l.trim().trim_start_matches("pub(crate) ").trim_start_matches("pub ") == line)
        };
        parents.iter().filter_map(|parent| texts.get(parent.as_str()).copied()).any(names_it)
    };
    let missing = texts.keys().filter(|path| !listed(path));
    missing.map(|path| format!("{path}: no `mod` line names it, so it is not compiled")).collect()
}

#[test]
fn every_rust_file_is_compiled() {
    none(&unlisted(&rust()));
}

#[test]
fn a_file_in_no_list_is_found() {
    let root = Source::example("tests/it/main.rs", "mod cli;\nmod support;\n");
    let support = Source::example("tests/it/support/mod.rs", "pub(crate) mod server;\n");
    let listed = ["tests/it/cli.rs", "tests/it/support/server.rs"].map(|path| Source::example(path, ""));
    let good: Vec<_> = [root, support].into_iter().chain(listed).collect();
    none(&unlisted(&good));
    for path in ["tests/it/lonely.rs", "tests/it/support/lonely.rs", "tests/it/lonely/mod.rs"] {
        let mut bad = good.clone();
        bad.push(Source::example(path, ""));
        exactly(&unlisted(&bad), path);
    }
}
