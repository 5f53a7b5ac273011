//! Imports go one way: a module names only those in rows below its own.

use crate::source::{Source, sources};
use crate::{exactly, none};

/// From the top of the house to its ground. Modules in one row do not know each other.
const ROWS: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["app", "demo"],
    &["doctor"],
    &["config", "rules"],
    &["catalogue"],
    &["api", "client"],
    &["reconciler"],
    &["gateway", "notify", "alerts"],
    &["provider", "lifecycle"],
    &["live", "journal"],
    &["telemetry"],
    &["process"],
    &["town"],
    &["ids", "outgoing"],
    &["clock", "limits", "secret", "units"],
];

fn check(source: &Source) -> Vec<String> {
    let modules = module_path(&source.path);
    let Some(own) = modules.first() else { return Vec::new() };
    let Some(row) = row_of(own) else {
        return vec![format!("{}: module `{own}` has no row in tests/tidy/layers.rs", source.path)];
    };
    let mut complaints = Vec::new();
    for (number, line) in imports(source, modules.len()) {
        let place = format!("{}:{number}", source.path);
        match row_of(&line) {
            None => complaints.push(format!("{place}: `{line}` has no row in tests/tidy/layers.rs")),
            Some(other) if line != *own && other <= row => complaints.push(format!(
                "{place}: `{own}` imports `{line}`, which does not stand below it: pass a value or a channel"
            )),
            Some(_) => {}
        }
    }
    complaints
}

fn row_of(module: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&module))
}

/// `src/api/rpc/mod.rs` is `["api", "rpc"]`; `src/lib.rs` is the root.
fn module_path(path: &str) -> Vec<String> {
    let inner = path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    if inner == "lib" { Vec::new() } else { inner.split('/').map(str::to_owned).collect() }
}

/// The top-level modules that the code names, with their lines: by `crate::`, by `plimsoll::`, or by enough `super::`.
fn imports(source: &Source, depth: usize) -> Vec<(usize, String)> {
    let lines = source.code_lines();
    let text: String = lines.iter().map(|(_, line)| format!("{}\n", without_strings(line))).collect();
    let root_of_supers = "super::".repeat(depth);
    let mut found = Vec::new();
    for root in ["crate::", "plimsoll::", &root_of_supers] {
        for (at, _) in text.match_indices(root) {
            let before = text[..at].chars().next_back().unwrap_or(' ');
            if before.is_alphanumeric() || "_:$".contains(before) {
                continue;
            }
            let number = lines[text[..at].matches('\n').count()].0;
            found.extend(heads(&text[at + root.len()..]).into_iter().map(|head| (number, head)));
        }
    }
    found
}

/// The line with the inside of its string literals taken out.
fn without_strings(line: &str) -> String {
    line.split('"').step_by(2).collect::<Vec<_>>().join("\"\"")
}

/// The first names of a path or of a braced list of paths. A name with a capital is an item, not a module.
fn heads(rest: &str) -> Vec<String> {
    let Some(list) = rest.strip_prefix('{') else { return name(rest).into_iter().collect() };
    let (mut depth, mut start, mut found) = (1_u32, 0, Vec::new());
    for (at, character) in list.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 || (depth == 1 && character == ',') {
            found.extend(name(list[start..at].trim()));
            start = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    found
}

fn name(path: &str) -> Option<String> {
    let name: String = path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    name.starts_with(|c: char| c.is_ascii_lowercase())
        .then_some(name)
        .filter(|name| name != "self" && name != "super")
}

#[test]
fn modules_import_only_from_below() {
    none(&sources(&["src"], ".rs").iter().flat_map(check).collect::<Vec<_>>());
}

#[test]
fn an_import_from_above_is_found_in_each_form() {
    let bad = [
        "use crate::gateway::Gateway;",
        "use crate::{ids::AgentId, gateway::{Gateway, Snapshot}};",
        "fn f() { crate::gateway::start(); }",
        "use super::super::gateway::Gateway;",
        "use crate::{\n    gateway::Gateway,\n    ids,\n};",
        "use crate::provider::Provider;",
    ];
    for text in bad {
        exactly(&check(&Source::example("src/journal/writer.rs", text)), "imports `");
    }
    exactly(&check(&Source::example("src/journal/writer.rs", "use crate::live::Live;")), "imports `live`");
    exactly(&check(&Source::example("src/strange.rs", "")), "no row");
    exactly(&check(&Source::example("src/api/mod.rs", "use crate::strange::X;")), "`strange` has no row");
}

#[test]
fn an_import_from_below_a_comment_and_a_test_are_fine() {
    let good = [
        "use crate::telemetry::Registry;\nuse super::Record;\nuse super::super::ids;",
        "// crate::gateway decides",
        "fn f() { say(\"plimsoll::gateway=debug\") }",
        "#[cfg(test)]\nmod tests {\n    use crate::gateway::Gateway;\n}",
    ];
    for text in good {
        none(&check(&Source::example("src/journal/writer.rs", text)));
    }
}
