//! `docs/cli.md` is what `--help` says, word for word.

use std::fmt::Write as _;
use std::path::Path;

use crate::support::server::clean_command;

fn help(path: &[String]) -> String {
    let output = clean_command().args(path).arg("--help").output().expect("plimsoll runs");
    assert!(output.status.success(), "{path:?}");
    String::from_utf8(output.stdout).expect("help is UTF-8")
}

/// The commands listed under `Commands:`, without `help`.
fn subcommands(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let entries = listed.take_while(|line| line.starts_with("  "));
    let names =
        entries.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

fn document(path: &mut Vec<String>, into: &mut String) {
    let text = help(path);
    let name = ["plimsoll"].into_iter().chain(path.iter().map(String::as_str)).collect::<Vec<_>>().join(" ");
    let text: Vec<&str> = text.lines().map(str::trim_end).collect();
    let _ = write!(into, "\n## `{name}`\n\n```text\n{}\n```\n", text.join("\n").trim_end());
    for name in subcommands(&text.join("\n")) {
        path.push(name);
        document(path, into);
        path.pop();
    }
}

#[test]
fn the_manual_says_what_help_says() {
    let mut manual = "# The command line\n\nWhat `plimsoll --help` says, for every command. \
        `PLIMSOLL_BLESS=1 cargo test the_manual` writes this file anew.\n"
        .to_owned();
    document(&mut Vec::new(), &mut manual);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cli.md");
    if std::env::var_os("PLIMSOLL_BLESS").is_some() {
        std::fs::write(&path, &manual).expect("docs/cli.md is written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == manual, "docs/cli.md is not what --help says: PLIMSOLL_BLESS=1 cargo test the_manual");
}

#[test]
fn every_command_shows_an_example() {
    let mut open = subcommands(&help(&[])).into_iter().map(|name| vec![name]).collect::<Vec<_>>();
    while let Some(path) = open.pop() {
        let text = help(&path);
        let below = subcommands(&text);
        if below.is_empty() {
            assert!(text.contains("Example"), "`plimsoll {}` shows no example", path.join(" "));
        }
        open.extend(below.into_iter().map(|name| path.iter().cloned().chain([name]).collect()));
    }
}
