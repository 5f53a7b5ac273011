//! The wire format: what is sent, and as much of what comes back as anybody needs. Lenient in what it reads: what a
//! server leaves out or sends as `null` is absent.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::call::Report;
use super::super::{Message, Speaker, Turn};
use crate::limits::LABEL_BYTES_MAX;

/// The model asked for where the agent names none: a server with one model takes any name.
pub(super) const MODEL_DEFAULT: &str = "default";

#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    messages: Vec<Said<'a>>,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
}

#[derive(Serialize)]
struct Said<'a> {
    role: &'static str,
    content: &'a str,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

/// Whether an answer is asked for as a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Stream,
    Whole,
}

/// The body of a request for an answer.
pub(super) fn request(turn: &Turn, mode: Mode) -> Vec<u8> {
    let system = turn.system.iter().map(|text| Said { role: "system", content: text });
    let now = Said { role: "user", content: &turn.message };
    let request = Request {
        model: turn.model.as_deref().unwrap_or(MODEL_DEFAULT),
        messages: system.chain(turn.history.iter().map(said)).chain([now]).collect(),
        stream: mode == Mode::Stream,
        stream_options: (mode == Mode::Stream).then_some(StreamOptions { include_usage: true }),
    };
    serde_json::to_vec(&request).expect("text is plain JSON")
}

fn said(message: &Message) -> Said<'_> {
    let role = match message.role {
        Speaker::User => "user",
        Speaker::Assistant => "assistant",
    };
    Said { role, content: &message.text }
}

/// A whole answer, or one piece of a streamed one.
#[derive(Debug, Deserialize)]
pub(super) struct Chunk {
    id: Option<String>,
    model: Option<String>,
    pub(super) choices: Option<Vec<Choice>>,
    usage: Option<Usage>,
    pub(super) error: Option<Value>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Choice {
    #[serde(alias = "message")]
    pub(super) delta: Option<Delta>,
    pub(super) finish_reason: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Delta {
    content: Option<String>,
    refusal: Option<String>,
    tool_calls: Option<Vec<ToolCall>>,
}

#[derive(Debug, Deserialize)]
struct ToolCall {
    function: Option<Function>,
}

#[derive(Debug, Deserialize)]
struct Function {
    name: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Usage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<PromptDetails>,
}

#[derive(Debug, Deserialize)]
struct PromptDetails {
    cached_tokens: Option<u64>,
}

impl Chunk {
    /// Adds to the report what this piece says about the call.
    pub(super) fn report(&mut self, report: &mut Report) {
        report.model = self.model.take().and_then(name).or(report.model.take());
        report.response_id = self.id.take().and_then(name).or(report.response_id.take());
        if let Some(usage) = self.usage.take() {
            report.input_tokens = usage.prompt_tokens;
            report.output_tokens = usage.completion_tokens;
            report.cached_tokens = usage.prompt_tokens_details.and_then(|details| details.cached_tokens);
        }
    }
}

/// A name from outside: kept in rings and spans, so it is cut; an empty one is none.
pub(super) fn name(mut text: String) -> Option<String> {
    text.truncate(text.floor_char_boundary(LABEL_BYTES_MAX));
    (!text.is_empty()).then_some(text)
}

impl Delta {
    /// What is said in it, a refusal too; not empty.
    pub(super) fn text(&mut self) -> Option<String> {
        let said = |text: &String| !text.is_empty();
        self.content.take().filter(said).or_else(|| self.refusal.take().filter(said))
    }

    /// The names of the tools that are asked for. Only the first piece of a call names it.
    pub(super) fn tools(&mut self) -> impl Iterator<Item = String> {
        let calls = self.tool_calls.take().unwrap_or_default().into_iter();
        calls.filter_map(|call| call.function?.name).filter_map(name)
    }
}
