//! Words that do not stand in finished code.

use crate::source::{Source, rust};
use crate::{exactly, none};

/// `allow` hides a lint for ever; `expect` complains when it is no longer needed. Tests may allow, with a reason.
fn silenced(source: &Source) -> Vec<String> {
    let tests = source.path.starts_with("tests/");
    let bare = |line: &str| {
        let opens = line.trim_start();
        let silences =
            opens.starts_with(concat!("#[", "allow(")) || opens.starts_with(concat!("#![", "allow("));
        silences && !(tests && line.contains("reason = "))
    };
    complain(source, bare, "silence a lint with #[expect(lint, reason = \"...\")]")
}

fn unfinished(source: &Source) -> Vec<String> {
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
    ];
    let open = |line: &str| marks.iter().any(|mark| line.contains(mark)) && !line.contains("https://");
    complain(source, open, "finish it, or link the issue that will")
}

fn commented_out(source: &Source) -> Vec<String> {
    let code = |line: &str| {
        let comment = line.trim_start().strip_prefix("// ").unwrap_or("").trim_end();
        ["let ", "fn ", "use ", "if ", "for ", "match ", "return "]
            .iter()
            .any(|word| comment.starts_with(word))
            && (comment.ends_with(';') || comment.ends_with('{'))
    };
    complain(source, code, "code that is commented out belongs to the history")
}

fn complain(source: &Source, bad: impl Fn(&str) -> bool, advice: &str) -> Vec<String> {
    let lines = source.text.lines().zip(1..).filter(|(line, _)| bad(line));
    lines.map(|(line, number)| format!("{}:{number}: `{}`: {advice}", source.path, line.trim())).collect()
}

#[test]
fn lints_are_silenced_with_expect() {
    none(&rust().iter().flat_map(silenced).collect::<Vec<_>>());
    let bad = concat!("#[", "allow(dead_code)]");
    exactly(&silenced(&Source::example("src/a.rs", bad)), "expect(lint");
    exactly(
        &silenced(&Source::example("src/a.rs", concat!("#![", "allow(dead_code, reason = \"x\")]"))),
        "expect(lint",
    );
    exactly(&silenced(&Source::example("tests/it/a.rs", bad)), "expect(lint");
    none(&silenced(&Source::example("tests/it/a.rs", concat!("#![", "allow(dead_code, reason = \"x\")]"))));
}

#[test]
fn nothing_is_left_open_without_a_link() {
    none(&rust().iter().flat_map(unfinished).collect::<Vec<_>>());
    exactly(&unfinished(&Source::example("src/a.rs", concat!("// TO", "DO: later"))), "finish it");
    exactly(&unfinished(&Source::example("src/a.rs", concat!("todo", "!()"))), "finish it");
    none(&unfinished(&Source::example("src/a.rs", concat!("// TO", "DO https://example.org/1"))));
}

#[test]
fn no_code_is_commented_out() {
    none(&rust().iter().flat_map(commented_out).collect::<Vec<_>>());
    exactly(&commented_out(&Source::example("src/a.rs", "    // let x = 1;")), "commented out");
    none(&commented_out(&Source::example("src/a.rs", "// for every agent there is one lane")));
}
