//! What a client asks (<https://platform.openai.com/docs/api-reference/chat/create>), as far as an agent can be asked
//! it.
//!
//! A parameter that would change what the answer is, and cannot be honoured, is refused by name; one that is only a wish
//! or a note is passed over. The two lists are below; what is on neither is refused, too, as OpenAI does.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::super::jsonrpc;
use super::super::response::Problem;
use super::super::rpc;
use super::fault::Fault;
use crate::limits::JSON_DEPTH_MAX;
use crate::provider::{Message, Speaker};

/// Parameters that are taken and change nothing: the agent's own configuration says how its model is asked.
pub(super) const PASSED_OVER: &[&str] = &[
    "frequency_penalty",
    "max_completion_tokens",
    "max_tokens",
    "metadata",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "reasoning_effort",
    "safety_identifier",
    "seed",
    "service_tier",
    "store",
    "temperature",
    "top_p",
    "user",
    "verbosity",
];

/// Whether a value asks for nothing.
type AsksForNothing = fn(&Value) -> bool;

/// Parameters that cannot be honoured, unless they ask for nothing.
pub(super) const REFUSED: &[(&str, AsksForNothing)] = &[
    ("audio", Value::is_null),
    ("function_call", asks_for_no_tool),
    ("functions", is_empty),
    ("logit_bias", is_empty),
    ("logprobs", is_empty),
    ("modalities", |value| value.is_null() || *value == serde_json::json!(["text"])),
    ("moderation", Value::is_null),
    ("n", |value| value.is_null() || *value == 1),
    ("response_format", |value| value.is_null() || value["type"] == "text"),
    ("stop", is_empty),
    ("tool_choice", asks_for_no_tool),
    ("tools", is_empty),
    ("top_logprobs", is_empty),
    ("web_search_options", Value::is_null),
];

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
    }
}

fn asks_for_no_tool(value: &Value) -> bool {
    value.is_null() || value == "none" || value == "auto"
}

/// The body of a request: what is read of it. Other parameters of the OpenAI API are passed over or refused.
#[derive(Deserialize, JsonSchema)]
#[expect(dead_code, reason = "the contract's picture of a request; it is read by `Body`")]
pub(crate) struct ChatRequest {
    /// The agent.
    model: String,
    /// The conversation; the last message is the user's.
    messages: Vec<ChatMessage>,
    /// Whether the answer comes as server-sent events.
    stream: Option<bool>,
    /// How.
    stream_options: Option<StreamOptions>,
}

/// One message.
#[derive(Deserialize, JsonSchema)]
#[expect(dead_code, reason = "the contract's picture of a message; it is read as `Said`")]
pub(crate) struct ChatMessage {
    /// `system` or `developer`, `user`, `assistant`.
    role: String,
    /// A text, or parts of the type `text`.
    content: Value,
}

/// How an answer is streamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
pub(crate) struct StreamOptions {
    /// Whether the tokens come in a last chunk.
    #[serde(default)]
    pub(super) include_usage: bool,
}

/// What an agent is asked.
#[derive(Debug, PartialEq)]
pub(super) struct Asked {
    pub(super) model: String,
    /// The last message of the user.
    pub(super) message: String,
    /// All instructions, wherever they stood.
    pub(super) system: Option<String>,
    /// What was said before, without instructions and without what is empty.
    pub(super) history: Vec<Message>,
    /// Whether the answer is streamed.
    pub(super) stream: Option<StreamOptions>,
}

/// Reads a body.
///
/// # Errors
/// [`Fault`], which names the parameter.
pub(super) fn read(text: &[u8]) -> Result<Asked, Fault> {
    if jsonrpc::depth(text) > JSON_DEPTH_MAX {
        return Err(
            Problem::bad_request(format!("the body is nested more than {JSON_DEPTH_MAX} deep")).into()
        );
    }
    // What is right is most of it: only for a complaint is it read with the path to each value.
    let body: Body = serde_json::from_slice(text).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => complaint(text),
        _ => Problem::bad_request(format!("the body is not JSON: {error}")).into(),
    })?;
    if let Some(name) = body.unknown {
        return Err(Fault::unknown_parameter(&name));
    }
    if let Some(name) = body.refused {
        return Err(Fault::unsupported(name));
    }
    let stream = body.stream.then_some(body.stream_options);
    let Conversation { message, system, history } = converse(body.messages)?;
    Ok(Asked { model: body.model, message, system, history, stream })
}

/// What is wrong with a body that is JSON, and where.
fn complaint(text: &[u8]) -> Fault {
    match rpc::read_named::<Body>(&mut serde_json::Deserializer::from_slice(text)) {
        Err((field, problem)) => Fault::invalid(&field, format!("{field}: {problem}")),
        Ok(_) => Problem::internal().into(),
    }
}

struct Conversation {
    message: String,
    system: Option<String>,
    history: Vec<Message>,
}

/// Tells instructions, history and the message apart.
fn converse(messages: Vec<Said>) -> Result<Conversation, Fault> {
    let mut system: Option<String> = None;
    let mut said = Vec::with_capacity(messages.len());
    for (index, Said { role, content, refusal, tool_calls }) in messages.into_iter().enumerate() {
        let asked_for_tools = tool_calls.is_some_and(|calls| !calls.is_empty());
        let text = content.map(|Content(text)| text).or(refusal).unwrap_or_default();
        let speaker = match role {
            Role::System | Role::Developer if text.is_empty() => continue,
            Role::System | Role::Developer => {
                match &mut system {
                    None => system = Some(text),
                    Some(all) => all.extend(["\n\n", &text]),
                }
                continue;
            }
            Role::Tool | Role::Function => return Err(foreign_tools(index)),
            Role::Assistant if asked_for_tools => return Err(foreign_tools(index)),
            Role::Assistant => Speaker::Assistant,
            Role::User => Speaker::User,
        };
        said.push((speaker, text));
    }
    let Some((Speaker::User, message)) = said.pop() else {
        let problem =
            "messages: the last one that is no instruction must be the user's: it is what the agent is sent";
        return Err(Fault::invalid("messages", problem.to_owned()));
    };
    let history = said
        .into_iter()
        .filter(|(_, text)| !text.is_empty())
        .map(|(role, text)| Message { role, text: text.into() })
        .collect();
    Ok(Conversation { message, system, history })
}

fn foreign_tools(index: usize) -> Fault {
    let field = format!("messages[{index}]");
    let problem =
        format!("{field}: agents use tools of their own; calls and results of others are not taken");
    Fault::invalid(&field, problem)
}

/// What is read of a body.
#[derive(Debug, Default)]
struct Body {
    model: String,
    messages: Vec<Said>,
    stream: bool,
    stream_options: StreamOptions,
    refused: Option<&'static str>,
    unknown: Option<String>,
}

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(BodyVisitor)
    }
}

struct BodyVisitor;

impl<'de> Visitor<'de> for BodyVisitor {
    type Value = Body;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Body, A::Error> {
        let mut body = Body::default();
        let (mut model, mut messages) = (None, None);
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "model" if model.is_some() => return Err(de::Error::duplicate_field("model")),
                "model" => model = Some(map.next_value()?),
                "messages" if messages.is_some() => return Err(de::Error::duplicate_field("messages")),
                "messages" => messages = Some(map.next_value()?),
                "stream" => body.stream = map.next_value::<Option<_>>()?.unwrap_or_default(),
                "stream_options" => body.stream_options = map.next_value::<Option<_>>()?.unwrap_or_default(),
                known if PASSED_OVER.contains(&known) => {
                    map.next_value::<IgnoredAny>()?;
                }
                _ => match REFUSED.iter().find(|(refused, _)| *refused == name) {
                    Some((refused, asks_for_nothing)) => {
                        if !asks_for_nothing(&map.next_value()?) {
                            body.refused = Some(refused);
                        }
                    }
                    None => {
                        map.next_value::<IgnoredAny>()?;
                        body.unknown.get_or_insert(name);
                    }
                },
            }
        }
        body.model = model.ok_or_else(|| de::Error::missing_field("model"))?;
        body.messages = messages.ok_or_else(|| de::Error::missing_field("messages"))?;
        Ok(body)
    }
}

/// One message; what else stands in it is passed over.
#[derive(Debug, Deserialize)]
struct Said {
    role: Role,
    content: Option<Content>,
    /// What the assistant said where it would not answer.
    refusal: Option<String>,
    tool_calls: Option<Vec<IgnoredAny>>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Role {
    System,
    Developer,
    User,
    Assistant,
    Tool,
    Function,
}

/// The text of a message, its parts put together.
#[derive(Debug)]
struct Content(String);

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, or a list of parts of the type `text`")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Content, E> {
        Ok(Content(text.to_owned()))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Content, E> {
        Ok(Content(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Content, A::Error> {
        let mut text = String::new();
        while let Some(part) = parts.next_element::<Part>()? {
            match (part.kind.as_str(), part.text.or(part.refusal)) {
                ("text" | "refusal", Some(more)) => text.push_str(&more),
                ("text" | "refusal", None) => return Err(de::Error::missing_field("text")),
                _ => {
                    return Err(de::Error::custom(
                        "an agent takes text only: expected parts of the type `text`",
                    ));
                }
            }
        }
        Ok(Content(text))
    }
}

#[derive(Debug, Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
    refusal: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn asked(body: &Value) -> Result<Asked, (String, String)> {
        read(body.to_string().as_bytes()).map_err(|fault| {
            let body = fault.body();
            let text = |key: &str| body["error"][key].as_str().unwrap_or_default().to_owned();
            (text("param"), text("message"))
        })
    }

    fn with(name: &str, value: Value) -> Value {
        let mut body = json!({"model": "a", "messages": [{"role": "user", "content": "hi"}]});
        body[name] = value;
        body
    }

    fn messages(messages: Value) -> Result<Asked, (String, String)> {
        asked(&with("messages", messages))
    }

    fn history(asked: &Asked) -> Vec<(Speaker, &str)> {
        asked.history.iter().map(|message| (message.role, &*message.text)).collect()
    }

    #[test]
    fn instructions_history_and_message_are_told_apart() {
        let asked = messages(json!([
            {"role": "system", "content": "one"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": "x"},
            {"role": "assistant", "content": "c", "refusal": null, "tool_calls": null, "annotations": []},
            {"role": "assistant", "content": null},
            {"role": "developer", "content": "two"},
            {"role": "user", "content": "last"},
            {"role": "system", "content": "three"},
        ]))
        .expect("a conversation");
        assert_eq!((asked.message.as_str(), asked.system.as_deref()), ("last", Some("one\n\ntwo\n\nthree")));
        assert_eq!(history(&asked), [(Speaker::User, "ab"), (Speaker::Assistant, "c")]);
        assert_eq!(asked.stream, None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let image = json!([{"type": "image_url", "image_url": {"url": "data:"}}]);
        let user = json!({"role": "user", "content": "x"});
        for (given, param) in [
            (json!([]), "messages"),
            (json!([{"role": "assistant", "content": "x"}]), "messages"),
            (json!([{"role": "system", "content": "x"}]), "messages"),
            (json!([{"role": "user", "content": image}]), "messages[0].content"),
            (json!([{"role": "user", "content": [{"type": "text"}]}]), "messages[0].content"),
            (json!([{"role": "user", "content": 7}]), "messages[0].content"),
            (json!([{"role": "boss", "content": "x"}]), "messages[0].role"),
            (json!([user, {"role": "tool", "content": "x", "tool_call_id": "1"}, user]), "messages[1]"),
            (json!([user, {"role": "assistant", "tool_calls": [{}]}, user]), "messages[1]"),
            (json!("hi"), "messages"),
        ] {
            let (named, says) = messages(given.clone()).expect_err("refused");
            assert!(named.starts_with(param) && !says.is_empty(), "{given}: {named}: {says}");
        }
        let (named, _) = asked(&json!({"messages": []})).expect_err("no model");
        assert_eq!(named, "model");
        assert_eq!(asked(&with("wheels", json!(4))).expect_err("unknown").0, "wheels");
        assert_eq!(asked(&with("stream", json!("yes"))).expect_err("no boolean").0, "stream");
        let mut deep = "[".repeat(JSON_DEPTH_MAX + 1);
        deep.push_str("{\"role\":");
        assert!(read(deep.as_bytes()).is_err_and(|fault| fault.body().to_string().contains("nested")));
        assert!(read(b"{").is_err_and(|fault| fault.body().to_string().contains("not JSON")));
    }

    #[test]
    fn wishes_are_passed_over_and_what_cannot_be_done_is_refused() {
        for name in PASSED_OVER {
            assert!(asked(&with(name, json!({"any": ["thing"]}))).is_ok(), "{name}");
        }
        for (name, value) in [
            ("audio", json!({"voice": "x"})),
            ("function_call", json!({"name": "f"})),
            ("functions", json!([{"name": "f"}])),
            ("logit_bias", json!({"1": 2})),
            ("logprobs", json!(true)),
            ("modalities", json!(["text", "audio"])),
            ("moderation", json!({})),
            ("n", json!(2)),
            ("response_format", json!({"type": "json_object"})),
            ("stop", json!("x")),
            ("tool_choice", json!("required")),
            ("tools", json!([{"type": "function"}])),
            ("top_logprobs", json!(2)),
            ("web_search_options", json!({})),
        ] {
            assert_eq!(asked(&with(name, value)).expect_err(name).0, name);
            assert!(asked(&with(name, Value::Null)).is_ok(), "{name}: null asks for nothing");
        }
        for (name, value) in [
            ("n", json!(1)),
            ("stop", json!([])),
            ("tool_choice", json!("none")),
            ("modalities", json!(["text"])),
        ] {
            assert!(asked(&with(name, value)).is_ok(), "{name}");
        }
        assert!(asked(&with("response_format", json!({"type": "text"}))).is_ok());
    }

    #[test]
    fn the_document_lists_every_parameter() {
        let document = include_str!("../../../docs/api.md");
        for name in PASSED_OVER.iter().chain(REFUSED.iter().map(|(name, _)| name)) {
            assert!(document.contains(&format!("`{name}`")), "docs/api.md does not name {name}");
        }
    }

    #[test]
    fn tokens_come_for_those_who_ask() {
        let mut body = with("stream", json!(true));
        assert_eq!(asked(&body).expect("good").stream, Some(StreamOptions { include_usage: false }));
        body["stream_options"] = json!({"include_usage": true, "include_obfuscation": false});
        assert_eq!(asked(&body).expect("good").stream, Some(StreamOptions { include_usage: true }));
    }
}
