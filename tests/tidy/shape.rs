//! The shape of a file: its length, its name, its opening words.

use crate::source::{Source, rust, sources};
use crate::{exactly, none};

/// Production lines of a file; aim at 300.
const FILE_LINES_MAX: usize = 500;
/// The composition root only wires.
const APP_LINES_MAX: usize = 199;
/// Names that say nothing about what stands inside.
const EMPTY_NAMES: &[&str] = &["utils", "util", "helpers", "helper", "common", "types", "misc"];

fn length(source: &Source) -> Vec<String> {
    let max = if source.path == "src/app.rs" { APP_LINES_MAX } else { FILE_LINES_MAX };
    let lines = source.production_lines().len();
    let complaint = || format!("{}: {lines} production lines, at most {max}: split it by noun", source.path);
    (lines > max).then(complaint).into_iter().collect()
}

fn name(source: &Source) -> Vec<String> {
    let parts = source.path.trim_end_matches(".rs").split('/');
    let empty = parts.filter(|part| EMPTY_NAMES.contains(part));
    empty.map(|part| format!("{}: `{part}` does not say what is inside", source.path)).collect()
}

fn opening(source: &Source) -> Vec<String> {
    let opens = source
        .text
        .lines()
        .next()
        .is_some_and(|line| line.strip_prefix("//! ").is_some_and(|doc| doc.len() > 10));
    let complaint = || format!("{}: opens without a module doc that says what it is for", source.path);
    (!opens).then(complaint).into_iter().collect()
}

fn sled(sources: &[Source]) -> Vec<String> {
    let names_it = |source: &&Source| source.code_lines().iter().any(|(_, line)| line.contains("sled::"));
    let naming: Vec<_> = sources.iter().filter(names_it).map(|source| source.path.as_str()).collect();
    if naming.len() > 1 {
        vec![format!("sled is named in more than one file: {naming:?}")]
    } else {
        Vec::new()
    }
}

/// The container engine is spoken to from one directory.
fn bollard(sources: &[Source]) -> Vec<String> {
    let outside = sources.iter().filter(|source| !source.path.starts_with("src/lifecycle/runner/docker/"));
    let naming =
        outside.filter(|source| source.code_lines().iter().any(|(_, line)| line.contains("bollard::")));
    naming.map(|source| format!("{}: bollard is named outside of its directory", source.path)).collect()
}

/// Sentry's crate is spoken to from one file.
fn sentry(sources: &[Source]) -> Vec<String> {
    let outside = sources.iter().filter(|source| source.path != "src/notify/sentry.rs");
    // A module of ours has the same name: paths that lead to it begin with something else.
    let names_it =
        |line: &str| line.match_indices("sentry::").any(|(at, _)| !line[..at].ends_with([':', '_']));
    let naming = outside.filter(|source| source.code_lines().iter().any(|(_, line)| names_it(line)));
    naming.map(|source| format!("{}: sentry is named outside of its file", source.path)).collect()
}

#[test]
fn files_are_short() {
    none(&sources(&["src"], ".rs").iter().flat_map(length).collect::<Vec<_>>());
}

#[test]
fn a_long_file_is_found_at_its_limit_plus_one() {
    none(&length(&Source::example("src/a.rs", &"//\n".repeat(500))));
    exactly(&length(&Source::example("src/a.rs", &"//\n".repeat(501))), "501 production lines");
    none(&length(&Source::example("src/app.rs", &"//\n".repeat(199))));
    exactly(&length(&Source::example("src/app.rs", &"//\n".repeat(200))), "at most 199");
}

#[test]
fn file_names_say_what_is_inside() {
    none(&rust().iter().flat_map(name).collect::<Vec<_>>());
    exactly(&name(&Source::example("src/api/utils.rs", "")), "`utils`");
    exactly(&name(&Source::example("src/common/token.rs", "")), "`common`");
}

#[test]
fn every_file_opens_with_what_it_is_for() {
    none(&rust().iter().flat_map(opening).collect::<Vec<_>>());
    exactly(&opening(&Source::example("src/a.rs", "use std::fs;\n")), "module doc");
    exactly(&opening(&Source::example("src/a.rs", "//! x\n")), "module doc");
    exactly(&opening(&Source::example("src/a.rs", "")), "module doc");
}

#[test]
fn bollard_is_named_in_one_directory() {
    none(&bollard(&sources(&["src"], ".rs")));
    none(&bollard(&[Source::example("src/lifecycle/runner/docker/engine.rs", "use bollard::Docker;\n")]));
    exactly(&bollard(&[Source::example("src/lifecycle/mod.rs", "use bollard::Docker;\n")]), "outside of its");
}

#[test]
fn sentry_is_named_in_one_file() {
    none(&sentry(&sources(&["src"], ".rs")));
    none(&sentry(&[Source::example("src/notify/sentry.rs", "use sentry::Envelope;\n")]));
    none(&sentry(&[Source::example("src/notify/mod.rs", "pub use self::sentry::SENTRY;\n")]));
    exactly(&sentry(&[Source::example("src/app.rs", "use sentry::Envelope;\n")]), "outside of its file");
    exactly(&sentry(&[Source::example("src/app.rs", "let _ = sentry::init(());\n")]), "outside of its file");
}

#[test]
fn sled_is_named_in_one_file() {
    none(&sled(&sources(&["src"], ".rs")));
    let example = |path| Source::example(path, "use sled::Db;\n");
    none(&sled(&[example("src/a.rs"), Source::example("src/b.rs", "// sled::Db is slow\n")]));
    exactly(&sled(&[example("src/a.rs"), example("src/b.rs")]), "more than one");
}
