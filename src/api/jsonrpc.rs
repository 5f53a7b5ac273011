//! JSON-RPC 2.0 on the wire (<https://www.jsonrpc.org/specification>): bytes to calls, results to bytes.
//!
//! Pure, and bounded before memory is spent: nesting and batch size are looked at first, parameters stay raw text
//! until their method reads them. It knows no method. Start at [`read`].

use std::borrow::Cow;

use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::limits::{JSON_DEPTH_MAX, RPC_ID_BYTES_MAX};

/// A message from a client.
#[derive(Debug)]
pub enum Incoming<'a> {
    /// One call.
    Single(Result<Call<'a>, Malformed>),
    /// A batch, in its order.
    Batch(Vec<Result<Call<'a>, Malformed>>),
}

/// One call, not yet looked up.
#[derive(Debug)]
pub struct Call<'a> {
    /// Where the answer belongs; a notification has none and gets none.
    pub id: Option<Id>,
    /// The method's name.
    pub method: Cow<'a, str>,
    /// Its parameters: an object or an array, if there are any.
    pub params: Option<&'a RawValue>,
}

/// The id of a call: a string, a number or `null`, given back as it came.
#[derive(Debug, Clone)]
pub struct Id(Box<RawValue>);

impl Id {
    /// The id `null`.
    #[must_use]
    pub fn null() -> Self {
        Self(RawValue::NULL.to_owned())
    }

    /// The id as JSON.
    #[must_use]
    pub fn as_json(&self) -> &str {
        self.0.get()
    }
}

/// A message or a call that is not JSON-RPC 2.0.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{problem}")]
pub struct Malformed {
    /// −32700 or −32600.
    pub code: i32,
    /// What is wrong, and what would be right.
    pub problem: String,
    /// The call's id, where it could be read.
    pub id: Option<Id>,
}

/// The code for text that is not JSON.
pub const PARSE_ERROR: i32 = -32700;
/// The code for JSON that is not a call.
pub const INVALID_REQUEST: i32 = -32600;
/// The code for a method that does not exist.
pub const METHOD_NOT_FOUND: i32 = -32601;
/// The code for parameters that a method does not take.
pub const INVALID_PARAMS: i32 = -32602;
/// The code for a bug on our side.
pub const INTERNAL_ERROR: i32 = -32603;

/// Reads a message of at most `batch_max` calls.
///
/// # Errors
/// [`Malformed`] if there is no call at all: not JSON, nested too deep, an empty or too large batch. What is wrong
/// with one call of a batch is said in its place.
pub fn read(text: &[u8], batch_max: usize) -> Result<Incoming<'_>, Malformed> {
    if depth(text) > JSON_DEPTH_MAX {
        return Err(invalid(format!("the message is nested more than {JSON_DEPTH_MAX} deep")));
    }
    let text = std::str::from_utf8(text).map_err(|_| not_json("the message is not UTF-8"))?;
    match text.trim_ascii_start().as_bytes().first() {
        Some(b'[') => read_batch(text, batch_max).map(Incoming::Batch),
        Some(_) => {
            let whole: &RawValue = serde_json::from_str(text).map_err(|e| not_json(&e.to_string()))?;
            Ok(Incoming::Single(read_call(whole)))
        }
        None => Err(not_json("the message is empty")),
    }
}

fn read_batch(text: &str, batch_max: usize) -> Result<Vec<Result<Call<'_>, Malformed>>, Malformed> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let batch =
        reader.deserialize_seq(BatchVisitor { max: batch_max }).and_then(|b| reader.end().map(|()| b));
    match batch.map_err(|e| not_json(&e.to_string()))? {
        Some(calls) if calls.is_empty() => Err(invalid("a batch holds at least one call".to_owned())),
        Some(calls) => Ok(calls.into_iter().map(read_call).collect()),
        None => Err(invalid(format!("a batch holds at most {batch_max} calls: send several"))),
    }
}

/// Collects up to `max` raw elements; `None` if there are more.
struct BatchVisitor {
    max: usize,
}

impl<'de> Visitor<'de> for BatchVisitor {
    type Value = Option<Vec<&'de RawValue>>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a batch of calls")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut calls = Vec::new();
        while let Some(call) = seq.next_element::<&RawValue>()? {
            if calls.len() == self.max {
                while seq.next_element::<de::IgnoredAny>()?.is_some() {}
                return Ok(None);
            }
            calls.push(call);
        }
        Ok(Some(calls))
    }
}

/// The members of a call; each may stand there once. Others are passed over, as the standard allows them.
#[derive(Deserialize)]
struct Members<'a> {
    #[serde(default, borrow, deserialize_with = "given")]
    jsonrpc: Option<&'a RawValue>,
    #[serde(default, borrow, deserialize_with = "given")]
    id: Option<&'a RawValue>,
    #[serde(default, borrow, deserialize_with = "given")]
    method: Option<&'a RawValue>,
    #[serde(default, borrow, deserialize_with = "given")]
    params: Option<&'a RawValue>,
}

/// Tells `null` from absent, which `Option` alone does not.
fn given<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&'a RawValue>::deserialize(deserializer).map(Some)
}

fn read_call(raw: &RawValue) -> Result<Call<'_>, Malformed> {
    if !raw.get().starts_with('{') {
        return Err(invalid("a call is a JSON object".to_owned()));
    }
    let members: Members<'_> =
        serde_json::from_str(raw.get()).map_err(|e| invalid(format!("the call cannot be read: {e}")))?;
    let id = members.id.map(read_id).transpose()?;
    let refuse = |problem: &str| Malformed { id: id.clone(), ..invalid(problem.to_owned()) };
    if members.jsonrpc.map(RawValue::get) != Some("\"2.0\"") {
        return Err(refuse("jsonrpc: expected \"2.0\""));
    }
    let method = members.method.ok_or_else(|| refuse("method: missing"))?;
    let method: Cow<'_, str> = match serde_json::from_str::<&str>(method.get()) {
        Ok(plain) => Cow::Borrowed(plain),
        Err(_) => serde_json::from_str::<String>(method.get())
            .map(Cow::Owned)
            .map_err(|_| refuse("method: expected a string"))?,
    };
    if members.params.is_some_and(|p| !p.get().starts_with(['{', '['])) {
        return Err(refuse("params: expected an object"));
    }
    Ok(Call { id, method, params: members.params })
}

fn read_id(raw: &RawValue) -> Result<Id, Malformed> {
    let text = raw.get();
    if text.len() > RPC_ID_BYTES_MAX {
        return Err(invalid(format!("id: longer than {RPC_ID_BYTES_MAX} bytes")));
    }
    let fits = match text.as_bytes().first() {
        Some(b'"') => serde_json::from_str::<String>(text).is_ok(),
        Some(b'-' | b'0'..=b'9') => true,
        _ => text == "null",
    };
    if fits {
        Ok(Id(raw.to_owned()))
    } else {
        Err(invalid("id: expected a string, a number or null".to_owned()))
    }
}

/// How deep brackets are nested outside strings: one pass, no memory.
pub(super) fn depth(text: &[u8]) -> usize {
    let (mut deepest, mut open, mut in_string, mut escaped) = (0_usize, 0_usize, false, false);
    for byte in text {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => {
                open += 1;
                deepest = deepest.max(open);
            }
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

fn invalid(problem: String) -> Malformed {
    Malformed { code: INVALID_REQUEST, problem, id: None }
}

fn not_json(problem: &str) -> Malformed {
    Malformed { code: PARSE_ERROR, problem: format!("the message is not JSON: {problem}"), id: None }
}

/// The answer to the call `id`: its result, already JSON.
#[must_use]
pub fn result_text(id: &Id, result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, id.as_json())
}

/// The answer to the call `id` (`null` where it could not be read): an error object, already JSON.
#[must_use]
pub fn error_text(id: Option<&Id>, error: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{},"error":{error}}}"#, id.map_or("null", Id::as_json))
}

/// A notification to a client.
///
/// # Errors
/// When `params` cannot be written as JSON.
pub fn notification_text(method: &str, params: &impl Serialize) -> Result<String, serde_json::Error> {
    #[derive(Serialize)]
    struct Notification<'a, P> {
        jsonrpc: &'static str,
        method: &'a str,
        params: &'a P,
    }
    serde_json::to_string(&Notification { jsonrpc: "2.0", method, params })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(text: &str) -> String {
        let call = |call: Result<Call<'_>, Malformed>| match call {
            Ok(call) => {
                format!("{}({})", call.method, call.id.map_or("-".to_owned(), |id| id.as_json().into()))
            }
            Err(bad) => {
                format!("{} {}", bad.code, bad.id.map_or("null".to_owned(), |id| id.as_json().into()))
            }
        };
        match read(text.as_bytes(), 3) {
            Ok(Incoming::Single(one)) => call(one),
            Ok(Incoming::Batch(calls)) => calls.into_iter().map(call).collect::<Vec<_>>().join(", "),
            Err(bad) => bad.code.to_string(),
        }
    }

    #[test]
    fn calls_are_read_as_the_standard_says() {
        for (text, expected) in [
            (r#"{"jsonrpc":"2.0","id":1,"method":"a"}"#, "a(1)"),
            (r#" {"jsonrpc":"2.0","id":"x","method":"a","params":{}} "#, "a(\"x\")"),
            (r#"{"jsonrpc":"2.0","id":null,"method":"a","params":[]}"#, "a(null)"),
            (r#"{"jsonrpc":"2.0","method":"a","extra":{"b":[1]}}"#, "a(-)"),
            (r#"{"jsonrpc":"2.0","id":1.5e3,"method":"\u0061"}"#, "a(1.5e3)"),
            (r#"[{"jsonrpc":"2.0","id":1,"method":"a"},1,{"foo":"boo"}]"#, "a(1), -32600 null, -32600 null"),
        ] {
            assert_eq!(outcome(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_call_is_refused_with_the_standard_code() {
        for (text, expected) in [
            ("", "-32700"),
            ("{", "-32700"),
            ("nonsense", "-32700"),
            (r#"{"jsonrpc":"2.0","id":1,"method":"a"} trailing"#, "-32700"),
            (r#"[{"jsonrpc":"2.0","id":1,"method":"a"},"#, "-32700"),
            ("[]", "-32600"),
            ("[1,2,3,4]", "-32600"),
            ("1", "-32600 null"),
            (r#"{"jsonrpc":"1.0","id":7,"method":"a"}"#, "-32600 7"),
            (r#"{"id":7,"method":"a"}"#, "-32600 7"),
            (r#"{"jsonrpc":"2.0","id":7}"#, "-32600 7"),
            (r#"{"jsonrpc":"2.0","id":7,"method":1}"#, "-32600 7"),
            (r#"{"jsonrpc":"2.0","id":7,"method":"a","params":"bar"}"#, "-32600 7"),
            (r#"{"jsonrpc":"2.0","id":7,"method":"a","params":null}"#, "-32600 7"),
            (r#"{"jsonrpc":"2.0","id":[1],"method":"a"}"#, "-32600 null"),
            (r#"{"jsonrpc":"2.0","id":{},"method":"a"}"#, "-32600 null"),
            (r#"{"jsonrpc":"2.0","id":true,"method":"a"}"#, "-32600 null"),
            (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"a"}"#, "-32600 null"),
            (r#"{"jsonrpc":"2.0","id":"\ud800","method":"a"}"#, "-32600 null"),
        ] {
            assert_eq!(outcome(text), expected, "{text}");
        }
        assert_eq!(read(b"\"\xff\"", 1).map(|_| ()).map_err(|e| e.code), Err(PARSE_ERROR));
    }

    #[test]
    fn an_id_is_echoed_up_to_its_limit() {
        let with_id =
            |len: usize| format!(r#"{{"jsonrpc":"2.0","id":"{}","method":"a"}}"#, "x".repeat(len - 2));
        assert!(outcome(&with_id(RPC_ID_BYTES_MAX)).starts_with("a("));
        assert_eq!(outcome(&with_id(RPC_ID_BYTES_MAX + 1)), "-32600 null");
    }

    #[test]
    fn nesting_is_refused_past_its_limit_and_brackets_in_strings_are_none() {
        let nested = |depth: usize| {
            let inner = depth - 1;
            format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"a","params":{}{}}}"#,
                "[".repeat(inner),
                "]".repeat(inner)
            )
        };
        assert_eq!(outcome(&nested(JSON_DEPTH_MAX)), "a(1)");
        assert_eq!(outcome(&nested(JSON_DEPTH_MAX + 1)), "-32600");
        assert_eq!(outcome(&"[".repeat(10_000)), "-32600");
        let quoted =
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"a","params":{{"m":"\"{}"}}}}"#, "[".repeat(500));
        assert_eq!(outcome(&quoted), "a(1)");
    }

    #[test]
    fn answers_are_json_with_the_id_as_it_came() {
        let Ok(Incoming::Single(Ok(call))) = read(br#"{"jsonrpc":"2.0","id":"\u0041","method":"a"}"#, 1)
        else {
            panic!("a good call");
        };
        let id = call.id.expect("it has an id");
        assert_eq!(result_text(&id, "{}"), r#"{"jsonrpc":"2.0","id":"\u0041","result":{}}"#);
        assert_eq!(error_text(None, "{}"), r#"{"jsonrpc":"2.0","id":null,"error":{}}"#);
    }
}
