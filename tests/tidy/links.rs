//! Links between documents lead somewhere, headings included.

use std::path::{Component, Path, PathBuf};

use crate::source::{Source, read, sources};
use crate::{exactly, none};

/// Complaints about the relative links of one document. `text_of` gives a file's text, or `None` if there is none.
fn check(source: &Source, text_of: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut complaints = Vec::new();
    for (number, target) in targets(&source.text) {
        let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
        let path = if path.is_empty() { source.path.clone() } else { resolve(&source.path, path) };
        match text_of(&path) {
            None => complaints.push(format!("{}:{number}: `{target}` leads nowhere", source.path)),
            Some(text) if !anchor.is_empty() && !anchors(&text).any(|known| known == anchor) => {
                complaints.push(format!("{}:{number}: `{target}`: no such heading", source.path));
            }
            Some(_) => {}
        }
    }
    complaints
}

/// Relative link targets outside code blocks, with their lines.
fn targets(text: &str) -> Vec<(usize, &str)> {
    let (mut found, mut fenced) = (Vec::new(), false);
    for (line, number) in text.lines().zip(1..) {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        let links =
            line.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
        found.extend(
            links
                .filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
                .map(|t| (number, t)),
        );
    }
    found
}

fn resolve(from: &str, to: &str) -> String {
    let mut path = PathBuf::from(from);
    path.pop();
    for part in Path::new(to).components() {
        match part {
            Component::ParentDir => drop(path.pop()),
            Component::Normal(part) => path.push(part),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    path.to_string_lossy().into_owned()
}

/// The anchors that GitHub gives to headings.
fn anchors(text: &str) -> impl Iterator<Item = String> + '_ {
    let headings =
        text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    headings.map(|heading| {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    })
}

#[test]
fn links_between_documents_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text_of = |path: &str| match root.join(path) {
        folder if folder.is_dir() => Some(String::new()),
        file if file.is_file() => Some(if path.ends_with(".md") { read(path).text } else { String::new() }),
        _ => None,
    };
    let documents = sources(&[".", "docs", "alerts", "benches"], ".md");
    none(&documents.iter().flat_map(|source| check(source, text_of)).collect::<Vec<_>>());
}

#[test]
fn a_dead_link_and_a_dead_anchor_are_found() {
    let text_of = |path: &str| (path == "docs/a.md").then(|| "# Two words, one\n".to_owned());
    let check = |text: &str| check(&Source::example("docs/b.md", text), text_of);
    none(&check("[a](a.md) [b](a.md#two-words-one) [c](https://example.org)\n```\n[d](x.md)\n```"));
    none(&check("[a](../docs/a.md)"));
    exactly(&check("[a](missing.md)"), "leads nowhere");
    exactly(&check("[a](a.md#three)"), "no such heading");
}
