//! How an agent says that its work ended: the last JSON object of its answer.

use serde::Deserialize;
use serde_json::{Deserializer, Value, json};

use crate::town::words::{Outcome, Verdict};

/// Objects that are tried, from the end of an answer backwards: the ending stands last.
const TRIED_MAX: usize = 50;

/// Bytes that are kept of what an agent says about its work: it is content, and a person reads the start.
pub(super) const WORDS_BYTES_MAX: usize = 1 << 10;

/// How an agent says that its work ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ending {
    /// Of a task, or of anything that it could not do.
    Work { outcome: Outcome, summary: Option<String> },
    /// Of a review.
    Review { verdict: Verdict, notes: Option<String> },
}

/// The ending in an answer; `None` if nothing in it can be read as one.
pub(super) fn read(text: &str) -> Option<Ending> {
    let braces = text.rmatch_indices('{').map(|(at, _)| at).take(TRIED_MAX);
    braces.filter_map(|at| object(&text[at..])).find_map(|value| of(&value))
}

/// A JSON Schema of [`Ending::Work`].
pub(super) fn schema_of_work() -> Value {
    schema("outcome", Outcome::ALL.iter().map(|outcome| outcome.as_str()).collect(), "summary")
}

/// A JSON Schema of [`Ending::Review`].
pub(super) fn schema_of_review() -> Value {
    schema("verdict", Verdict::ALL.iter().map(|verdict| verdict.as_str()).collect(), "notes")
}

/// Both keys are required and there are no others: that is what APIs of models take.
fn schema(word: &str, words: Vec<&str>, text: &str) -> Value {
    json!({
        "type": "object",
        "properties": {word: {"type": "string", "enum": words}, text: {"type": "string"}},
        "required": [word, text],
        "additionalProperties": false,
    })
}

/// The JSON value that begins here.
fn object(text: &str) -> Option<Value> {
    Deserializer::from_str(text).into_iter::<Value>().next()?.ok()
}

fn of(value: &Value) -> Option<Ending> {
    let words = |key: &str| value.get(key).and_then(Value::as_str).map(cut).filter(|text| !text.is_empty());
    if let Some(outcome) = value.get("outcome") {
        let outcome = Outcome::deserialize(outcome).ok()?;
        return Some(Ending::Work { outcome, summary: words("summary") });
    }
    let verdict = Verdict::deserialize(value.get("verdict")?).ok()?;
    Some(Ending::Review { verdict, notes: words("notes") })
}

/// The start of what was said.
pub(super) fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(WORDS_BYTES_MAX)].trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(outcome: Outcome, summary: Option<&str>) -> Option<Ending> {
        Some(Ending::Work { outcome, summary: summary.map(str::to_owned) })
    }

    #[test]
    fn the_last_object_that_says_how_it_ended_counts() {
        for (text, ending) in [
            (r#"{"outcome":"done","summary":"it works"}"#, work(Outcome::Done, Some("it works"))),
            ("I looked.\n```json\n{\"outcome\": \"failed\"}\n```\n", work(Outcome::Failed, None)),
            (
                r#"{"outcome":"failed"} no: {"outcome":"needs_human","summary":" "}"#,
                work(Outcome::NeedsHuman, None),
            ),
            (r#"{"outcome":"done","summary":"see {x: 1}"}"#, work(Outcome::Done, Some("see {x: 1}"))),
            (r#"{"outcome":"done"} and {"other": 1}"#, work(Outcome::Done, None)),
            (
                r#"{"verdict":"changes","notes":"add a test"}"#,
                Some(Ending::Review { verdict: Verdict::Changes, notes: Some("add a test".to_owned()) }),
            ),
        ] {
            assert_eq!(read(text), ending, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_says_nothing() {
        for text in [
            "",
            "done",
            "{",
            r#"{"outcome":"Done"}"#,
            r#"{"outcome":"perhaps"}"#,
            r#"{"verdict":1}"#,
            "{}{}[}",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(read(&"{".repeat(1 << 20)), None, "and costs little");
    }

    #[test]
    fn what_an_agent_says_is_cut() {
        let long = format!(r#"{{"outcome":"done","summary":"{}"}}"#, "é".repeat(1_000));
        let Some(Ending::Work { summary: Some(summary), .. }) = read(&long) else { panic!("it can be read") };
        assert_eq!(summary.len(), WORDS_BYTES_MAX);
    }
}
