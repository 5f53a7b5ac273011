//! The files that the rules read.

use std::fs;
use std::path::Path;

/// One file of the repository.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// Its path from the root of the repository, with `/`.
    pub(crate) path: String,
    /// Its text.
    pub(crate) text: String,
}

impl Source {
    /// A made-up file, for examples.
    pub(crate) fn example(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    /// Its lines with their numbers, without those of `#[cfg(test)]` items; none if all of it is tests.
    pub(crate) fn production_lines(&self) -> Vec<(usize, &str)> {
        if !self.path.starts_with("src/") || self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
        {
            return Vec::new();
        }
        let mut kept = Vec::new();
        let mut lines = self.text.lines().zip(1..).map(|(line, number)| (number, line)).peekable();
        while let Some((number, line)) = lines.next() {
            if line != "#[cfg(test)]" {
                kept.push((number, line));
                continue;
            }
            // The item ends with a line that ends in `;`, or with the first `}` in its own column.
            for (_, line) in lines.by_ref() {
                if line.starts_with('}') || (!line.starts_with(' ') && line.ends_with(';')) {
                    break;
                }
            }
        }
        kept
    }

    /// The production lines that are not comments.
    pub(crate) fn code_lines(&self) -> Vec<(usize, &str)> {
        let mut lines = self.production_lines();
        lines.retain(|(_, line)| !line.trim_start().starts_with("//"));
        lines
    }
}

/// Every file under `folders` whose name ends so; a folder of `.` is the root itself, without what is below it.
pub(crate) fn sources(folders: &[&str], ending: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for folder in folders {
        collect(root, folder, ending, &mut found);
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!found.is_empty(), "no {ending} file in {folders:?}: the rule would check nothing");
    found
}

/// All Rust of the repository.
pub(crate) fn rust() -> Vec<Source> {
    sources(&["src", "tests", "benches/src"], ".rs")
}

/// One file.
pub(crate) fn read(path: &str) -> Source {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path));
    Source { path: path.to_owned(), text: text.unwrap_or_else(|error| panic!("{path}: {error}")) }
}

fn collect(root: &Path, folder: &str, ending: &str, found: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(root.join(folder)) else { return };
    for entry in entries {
        let path = entry.expect("an entry").path();
        let name = path.strip_prefix(root).expect("below the root").to_string_lossy().replace('\\', "/");
        let name = name.trim_start_matches("./").to_owned();
        if path.is_dir() && folder != "." {
            collect(root, &name, ending, found);
        } else if path.is_file() && name.ends_with(ending) {
            found.push(read(&name));
        }
    }
}

#[test]
fn production_lines_leave_out_test_items() {
    let text = "//! Doc.\nfn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n#[cfg(test)]\nmod more;\nfn d() {}\n";
    let source = Source::example("src/x.rs", text);
    let lines: Vec<_> = source.code_lines().into_iter().map(|(_, line)| line).collect();
    assert_eq!(lines, ["fn a() {}", "fn c() {}", "fn d() {}"]);
}
