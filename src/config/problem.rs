//! What is wrong with a configuration, and where: file, line, key, what is expected.
//!
//! A message never quotes a value, because it may be a secret that stands in the wrong place. Start at
//! [`ConfigProblem`].

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// One thing that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// Where it stands; none for what no file says, such as a command-line argument.
    pub at: Option<Origin>,
    /// The key it is about; empty for a file as a whole.
    pub key: KeyPath,
    /// What is wrong and what is expected.
    pub message: String,
}

impl ConfigProblem {
    pub(crate) fn new(at: Option<Origin>, key: KeyPath, message: impl Into<String>) -> Self {
        Self { at, key, message: message.into() }
    }

    /// A problem that no place in a file belongs to.
    pub(crate) fn general(message: impl Into<String>) -> Self {
        Self::new(None, KeyPath::default(), message)
    }
}

impl fmt::Display for ConfigProblem {
    /// `file:line:column: key: message`, without the parts that are not known.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = &self.at {
            write!(f, "{at}: ")?;
        }
        if !self.key.is_root() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// A place in a file. Line and column count from 1; a line of 0 stands for the file as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The file, as it was found.
    pub file: Arc<Path>,
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

impl Origin {
    pub(crate) fn file(file: &Path) -> Self {
        Self { file: file.into(), line: 0, column: 0 }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        Ok(())
    }
}

/// One step from a value to a value inside it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// The value of a key.
    Key(String),
    /// An element of a list, from 0.
    Index(usize),
}

/// Where a value stands in the configuration, such as `server.tls.cert_file` or `auth.tokens[1].role`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct KeyPath(pub(crate) Vec<Step>);

impl KeyPath {
    /// The path of these keys.
    pub(crate) fn of(keys: &[&str]) -> Self {
        Self(keys.iter().map(|key| Step::Key((*key).to_owned())).collect())
    }

    /// The path of a key inside this one.
    #[must_use]
    pub(crate) fn key(&self, key: &str) -> Self {
        self.step(Step::Key(key.to_owned()))
    }

    /// The path of an element of this list.
    #[must_use]
    pub(crate) fn index(&self, index: usize) -> Self {
        self.step(Step::Index(index))
    }

    /// The path one step further.
    #[must_use]
    pub(crate) fn step(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }

    /// Whether it is the configuration as a whole.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |key: &str| {
            !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '/'))
        };
        for (place, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => {
                    let dot = if place > 0 { "." } else { "" };
                    if plain(key) { write!(f, "{dot}{key}")? } else { write!(f, "{dot}{key:?}")? }
                }
            }
        }
        Ok(())
    }
}

/// The word among `known` that `written` most likely stands for, if one is near.
pub(crate) fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Long nonsense is near to nothing, and its distance would be slow to find.
    if written.len() > 64 {
        return None;
    }
    let scored = known.into_iter().map(|word| (strsim::jaro_winkler(written, word), word));
    let best = scored.max_by(|(a, _), (b, _)| a.total_cmp(b))?;
    (best.0 >= 0.75).then_some(best.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_print_as_people_write_them() {
        let path = KeyPath::of(&["auth", "tokens"]).index(1).key("role");
        assert_eq!(path.to_string(), "auth.tokens[1].role");
        assert_eq!(KeyPath::of(&["prices", "gpt-4.1"]).to_string(), "prices.\"gpt-4.1\"");
        assert_eq!(KeyPath::of(&["a\nb"]).to_string(), "\"a\\nb\"", "no key forges a line");
    }

    #[test]
    fn the_nearest_word_is_found_and_nonsense_is_near_to_nothing() {
        assert_eq!(nearest("lisen", ["listen", "tls"]), Some("listen"));
        assert_eq!(nearest("agent", ["auth", "agents", "gateway"]), Some("agents"));
        assert_eq!(nearest("zzz", ["listen", "tls"]), None);
        assert_eq!(nearest(&"x".repeat(100_000), ["listen"]), None);
    }
}
