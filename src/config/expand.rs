//! `${VAR}` in the scalars of a merged configuration, once, never read again as YAML.
//!
//! `${VAR}` needs the variable; `${VAR:-default}` stands for the default and `${VAR:?message}` ends with the message
//! where it is not set or empty; `$${` is a literal `${`. Keys are not expanded. A value without quotes may become a
//! number or a truth value by it; without quotes and empty after it, it counts as not set. Start at [`expand`].

use std::ffi::OsString;

use super::problem::{ConfigProblem, KeyPath};
use super::tree::{Node, Scalar, Value};
use crate::limits::{CONFIG_EXPANDED_BYTES_MAX, CONFIG_PROBLEMS_MAX};

/// Looks an environment variable up.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Expands every scalar of the tree; what cannot be expanded becomes a problem and is looked at no more.
pub(crate) fn expand(root: &mut Node, environment: Environment<'_>) -> Vec<ConfigProblem> {
    let mut expander = Expander { environment, bytes_left: CONFIG_EXPANDED_BYTES_MAX, problems: Vec::new() };
    expander.node(root, &KeyPath::default());
    expander.problems
}

struct Expander<'a> {
    environment: Environment<'a>,
    bytes_left: usize,
    problems: Vec<ConfigProblem>,
}

impl Expander<'_> {
    fn node(&mut self, node: &mut Node, path: &KeyPath) {
        match &mut node.value {
            Value::Map(map) => {
                map.iter_mut().for_each(|(key, entry)| self.node(&mut entry.node, &path.key(key)));
            }
            Value::List(list) => {
                list.iter_mut().enumerate().for_each(|(index, node)| self.node(node, &path.index(index)));
            }
            Value::Scalar(scalar) if scalar.text.contains("${") => match self.scalar(scalar) {
                Ok(value) => node.value = value,
                Err(message) => {
                    if self.problems.len() < CONFIG_PROBLEMS_MAX {
                        self.problems.push(ConfigProblem::new(Some(node.at.clone()), path.clone(), message));
                    }
                    node.value = Value::Refused;
                }
            },
            Value::Scalar(_) | Value::Null | Value::Refused => {}
        }
    }

    fn scalar(&mut self, scalar: &Scalar) -> Result<Value, String> {
        let mut text = String::new();
        let mut shown = Shown::default();
        for piece in pieces(&scalar.text)? {
            match piece {
                Piece::Literal(literal) => {
                    text.push_str(&literal);
                    shown.literal(&literal);
                }
                Piece::Variable { name, otherwise } => {
                    let value = self.variable(name, otherwise)?;
                    self.bytes_left = self.bytes_left.checked_sub(value.len()).ok_or_else(|| {
                        format!("environment variables add more than {CONFIG_EXPANDED_BYTES_MAX} bytes")
                    })?;
                    text.push_str(&value);
                    shown.variable(name);
                }
            }
        }
        if text.is_empty() && scalar.plain {
            return Ok(Value::Null);
        }
        Ok(Value::Scalar(Scalar { text, plain: scalar.plain, shown: shown.finish() }))
    }

    fn variable(&self, name: &str, otherwise: Otherwise<'_>) -> Result<String, String> {
        let value = (self.environment)(name).map(|value| {
            value.into_string().map_err(|_| format!("the environment variable {name} is not UTF-8 text"))
        });
        let value = value.transpose()?;
        match (value, otherwise) {
            (Some(value), Otherwise::Needed) => Ok(value),
            (None, Otherwise::Needed) => Err(format!(
                "the environment variable {name} is not set: set it, or write ${{{name}:-default}}"
            )),
            (Some(value), _) if !value.is_empty() => Ok(value),
            (_, Otherwise::Default(default)) => Ok(default.to_owned()),
            (_, Otherwise::Refuse(message)) => {
                Err(format!("the environment variable {name} is not set: {message}"))
            }
        }
    }
}

/// How a secret made of these pieces is shown: variables by their name, anything else as stars.
#[derive(Default)]
struct Shown {
    text: String,
    variables: usize,
}

impl Shown {
    fn literal(&mut self, literal: &str) {
        if !literal.is_empty() {
            self.text.push_str("***");
        }
    }

    fn variable(&mut self, name: &str) {
        self.variables += 1;
        self.text.push_str("${");
        self.text.push_str(name);
        self.text.push('}');
    }

    fn finish(self) -> Option<String> {
        (self.variables > 0).then_some(self.text)
    }
}

enum Piece<'a> {
    Literal(String),
    Variable { name: &'a str, otherwise: Otherwise<'a> },
}

/// What happens where a variable is not set.
#[derive(Clone, Copy)]
enum Otherwise<'a> {
    Needed,
    Default(&'a str),
    Refuse(&'a str),
}

fn pieces(text: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let after = &rest[start + 2..];
        if rest[..start].ends_with('$') {
            pieces.push(Piece::Literal(format!("{}{{", &rest[..start])));
            rest = after;
            continue;
        }
        pieces.push(Piece::Literal(rest[..start].to_owned()));
        let end = after
            .find('}')
            .ok_or("`${` has no `}`: close it, or write `$${` for the two signs themselves")?;
        pieces.push(variable(&after[..end])?);
        rest = &after[end + 1..];
    }
    pieces.push(Piece::Literal(rest.to_owned()));
    Ok(pieces)
}

fn variable(inner: &str) -> Result<Piece<'_>, String> {
    let name_end = inner.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(inner.len());
    let (name, rest) = inner.split_at(name_end);
    let otherwise = match (rest.strip_prefix(":-"), rest.strip_prefix(":?")) {
        _ if rest.is_empty() => Otherwise::Needed,
        (Some(default), _) if !default.contains("${") => Otherwise::Default(default),
        (_, Some(message)) if !message.contains("${") => Otherwise::Refuse(message),
        _ => return Err(FORMS.to_owned()),
    };
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(FORMS.to_owned());
    }
    Ok(Piece::Variable { name, otherwise })
}

const FORMS: &str = "expected ${NAME}, ${NAME:-default} or ${NAME:?message}, one not inside another; `$${` stands for the two signs themselves";

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::config::problem::Origin;

    fn expanded(text: &str, plain: bool, value: Option<&str>) -> Result<Value, String> {
        let scalar = Scalar { text: text.to_owned(), plain, shown: None };
        let mut node = Node::new(Value::Scalar(scalar), Origin::file(Path::new("f")));
        let problems = expand(&mut node, &|name| value.filter(|_| name == "V").map(OsString::from));
        match problems.into_iter().next() {
            Some(problem) => Err(problem.message),
            None => Ok(node.value),
        }
    }

    fn text(written: &str, value: Option<&str>) -> String {
        match expanded(written, false, value) {
            Ok(Value::Scalar(scalar)) => scalar.text,
            other => panic!("{written}: {other:?}"),
        }
    }

    #[test]
    fn the_forms_expand_as_documented() {
        for (written, value, expected) in [
            ("${V}", Some("x"), "x"),
            ("${V}", Some(""), ""),
            ("a${V}b${V}", Some("x"), "axbx"),
            ("${V:-d}", None, "d"),
            ("${V:-d}", Some(""), "d"),
            ("${V:-d}", Some("x"), "x"),
            ("${V:-}", None, ""),
            ("${V:-http://h:1}", None, "http://h:1"),
            ("${V:?say}", Some("x"), "x"),
            ("$${V}", Some("x"), "${V}"),
            ("$$${V}", Some("x"), "$${V}"),
            ("$V $ {V} $", Some("x"), "$V $ {V} $"),
        ] {
            assert_eq!(text(written, value), expected, "{written}");
        }
    }

    #[test]
    fn what_cannot_be_expanded_says_what_to_do() {
        for (written, value, part) in [
            ("${V}", None, "V is not set: set it, or write ${V:-default}"),
            ("${V:?bring one}", None, "V is not set: bring one"),
            ("${V:?bring one}", Some(""), "V is not set: bring one"),
            ("${V", Some("x"), "has no `}`"),
            ("${}", Some("x"), "expected ${NAME}"),
            ("${1}", Some("x"), "expected ${NAME}"),
            ("${V:-${V}}", Some("x"), "expected ${NAME}"),
            ("${V-x}", Some("x"), "expected ${NAME}"),
        ] {
            let message = expanded(written, true, value).expect_err(written);
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn an_empty_value_without_quotes_is_not_set_and_with_quotes_is_empty_text() {
        assert_eq!(expanded("${V:-}", true, None), Ok(Value::Null));
        assert_eq!(text("${V:-}", None), "");
    }

    #[test]
    fn a_secret_shows_names_and_never_what_stands_around_them() {
        let shown = |written: &str| match expanded(written, true, Some("hunter2")) {
            Ok(Value::Scalar(scalar)) => scalar.shown,
            other => panic!("{other:?}"),
        };
        assert_eq!(shown("${V}").as_deref(), Some("${V}"));
        assert_eq!(shown("${V:-sk-literal}").as_deref(), Some("${V}"));
        assert_eq!(shown("Bearer ${V}").as_deref(), Some("***${V}"));
        assert_eq!(shown("$${V}"), None);
    }

    proptest! {
        #[test]
        fn any_value_arrives_as_it_is(value in "[^\u{0}]{1,40}") {
            prop_assert_eq!(text("${V}", Some(&value)), value);
        }

        #[test]
        fn no_text_panics(written in "[${}:?V a-]{0,20}") {
            let _ = expanded(&written, true, Some("x"));
        }
    }
}
