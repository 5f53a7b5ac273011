//! The wire format (<https://docs.anthropic.com/en/api/messages>, <https://docs.anthropic.com/en/docs/build-with-claude/streaming>):
//! what is sent, and as much of what comes back as anybody needs. Lenient in what it reads: events and blocks of a kind
//! that is not known are passed over, as the API asks its clients to.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::call::{Report, Used};
use super::super::remote::{self, Mode, Piece, ReadAnswer, Said, Unusable, bytes, name};
use super::super::{MODEL_DEFAULT, Speaker, Turn};

/// Errors that come inside a stream, and the status that they have outside of one
/// (<https://docs.anthropic.com/en/api/errors>).
const ERROR_STATUSES: &[(&str, u16)] = &[
    ("invalid_request_error", 400),
    ("authentication_error", 401),
    ("billing_error", 402),
    ("permission_error", 403),
    ("not_found_error", 404),
    ("request_too_large", 413),
    ("rate_limit_error", 429),
    ("api_error", 500),
    ("timeout_error", 504),
    ("overloaded_error", 529),
];

#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    max_tokens: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<&'a str>,
    messages: Vec<Message<'a>>,
    stream: bool,
    /// <https://docs.claude.com/en/docs/build-with-claude/structured-outputs>
    #[serde(skip_serializing_if = "Option::is_none")]
    output_config: Option<Value>,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: Vec<Text<'a>>,
}

#[derive(Serialize)]
struct Text<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    text: &'a str,
}

/// The body of a request for an answer.
pub(super) fn request(turn: &Turn, mode: Mode, max_tokens: u32, schema: Option<&Value>) -> Vec<u8> {
    let request = Request {
        model: turn.model.as_deref().unwrap_or(MODEL_DEFAULT),
        max_tokens,
        system: turn.system.as_deref().filter(|text| !is_blank(text)),
        messages: messages(turn),
        stream: mode == Mode::Stream,
        output_config: schema.map(|schema| json!({"format": {"type": "json_schema", "schema": schema}})),
    };
    serde_json::to_vec(&request).expect("text is plain JSON")
}

/// The conversation as the API takes it: begun by the user, no blank text in it (an answer may be one), and who speaks
/// twice in a row (after an answer that failed) speaks in one message.
fn messages(turn: &Turn) -> Vec<Message<'_>> {
    let history = turn.history.iter().map(|said| (said.role, &*said.text));
    let history =
        history.filter(|(_, text)| !is_blank(text)).skip_while(|(role, _)| *role == Speaker::Assistant);
    let mut messages: Vec<Message<'_>> = Vec::new();
    for (role, text) in history.chain([(Speaker::User, &*turn.message)]) {
        let role = match role {
            Speaker::User => "user",
            Speaker::Assistant => "assistant",
        };
        let text = Text { kind: "text", text };
        match messages.last_mut().filter(|last| last.role == role) {
            Some(last) => last.content.push(text),
            None => messages.push(Message { role, content: vec![text] }),
        }
    }
    messages
}

fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}

/// A whole answer (`"type": "message"`), or an event of a streamed one.
#[derive(Deserialize)]
struct Body {
    #[serde(rename = "type")]
    kind: Option<String>,
    id: Option<String>,
    model: Option<String>,
    content: Option<Vec<Block>>,
    stop_reason: Option<String>,
    usage: Option<Usage>,
    /// Of `message_start`.
    message: Option<Begun>,
    /// Of `content_block_start`.
    content_block: Option<Block>,
    /// Of `content_block_delta` and `message_delta`.
    delta: Option<Delta>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Begun {
    id: Option<String>,
    model: Option<String>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Block {
    #[serde(rename = "type")]
    kind: Option<String>,
    text: Option<String>,
    name: Option<String>,
}

#[derive(Deserialize)]
struct Delta {
    text: Option<String>,
    thinking: Option<Value>,
    partial_json: Option<Value>,
    stop_reason: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
struct Usage {
    input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    output_tokens: Option<u64>,
}

/// Reads one answer.
#[derive(Default)]
pub(super) struct Answer {
    /// What has been told of the tokens so far: `message_delta` tells the output, and not always the rest again.
    usage: Usage,
}

impl ReadAnswer for Answer {
    fn take(&mut self, data: &[u8], mode: Mode, report: &mut Report) -> Result<Piece, Unusable> {
        let body: Body = remote::parse(data, mode, "It is given without /v1")?;
        let mut piece = Piece::default();
        match body.kind.as_deref() {
            Some("message") => {
                self.begin(Begun { id: body.id, model: body.model, usage: body.usage }, &mut piece, report);
                piece.said = body.content.unwrap_or_default().into_iter().filter_map(Block::said).collect();
                stop(body.stop_reason, &mut piece, &mut report.used);
            }
            Some("message_start") => {
                self.begin(body.message.ok_or_else(other_shape)?, &mut piece, report);
            }
            Some("content_block_start") => piece.said.extend(body.content_block.and_then(Block::said)),
            // A piece of text; thoughts and arguments of tools have no `text`.
            Some("content_block_delta") => {
                if let Some(delta) = body.delta {
                    piece.besides = bytes(delta.thinking.as_ref()) + bytes(delta.partial_json.as_ref());
                    piece.said.extend(delta.text.filter(|text| !text.is_empty()).map(Said::Text));
                }
            }
            Some("message_delta") => {
                self.count(body.usage, &mut report.used);
                stop(body.delta.and_then(|delta| delta.stop_reason), &mut piece, &mut report.used);
            }
            Some("message_stop") => piece.done = true,
            Some("error") => return Err(reported(body.error.unwrap_or_default())),
            // Pings, ends of blocks, and what the API may say some day.
            Some(_) if mode == Mode::Stream => {}
            _ => return Err(other_shape()),
        }
        Ok(piece)
    }
}

impl Answer {
    fn begin(&mut self, begun: Begun, piece: &mut Piece, report: &mut Report) {
        let Begun { id, model, usage } = begun;
        piece.begun = true;
        report.used.model = model.and_then(name);
        report.response_id = id.and_then(name);
        self.count(usage, &mut report.used);
    }

    /// The counts are sums so far. `input_tokens` holds neither what came from a cache nor what went to one
    /// (<https://docs.anthropic.com/en/docs/build-with-claude/prompt-caching#tracking-cache-performance>).
    fn count(&mut self, usage: Option<Usage>, used: &mut Used) {
        let Some(told) = usage else { return };
        let known = &mut self.usage;
        known.input_tokens = told.input_tokens.or(known.input_tokens);
        known.cache_read_input_tokens = told.cache_read_input_tokens.or(known.cache_read_input_tokens);
        known.cache_creation_input_tokens =
            told.cache_creation_input_tokens.or(known.cache_creation_input_tokens);
        known.output_tokens = told.output_tokens.or(known.output_tokens);
        let caches = [known.cache_read_input_tokens, known.cache_creation_input_tokens];
        used.input_tokens =
            known.input_tokens.map(|fresh| caches.into_iter().flatten().fold(fresh, u64::saturating_add));
        [used.cached_tokens, used.cache_write_tokens] = caches;
        used.output_tokens = known.output_tokens;
    }
}

impl Block {
    /// Text or the request of a tool that we would have to run; what the API runs itself is its own matter.
    fn said(self) -> Option<Said> {
        match self.kind.as_deref() {
            Some("text") => self.text.filter(|text| !text.is_empty()).map(Said::Text),
            Some("tool_use") => self.name.and_then(name).map(Said::Tool),
            _ => None,
        }
    }
}

fn stop(reason: Option<String>, piece: &mut Piece, used: &mut Used) {
    if let Some(reason) = reason.and_then(name) {
        used.finish_reason = Some(reason);
        piece.complete = true;
    }
}

fn reported(error: Value) -> Unusable {
    let kind = error.get("type").and_then(Value::as_str);
    match ERROR_STATUSES.iter().find(|(known, _)| Some(*known) == kind) {
        Some((_, status)) => Unusable::Status(*status, error),
        None => Unusable::Reported(error),
    }
}

fn other_shape() -> Unusable {
    Unusable::Unreadable("it has another shape".into())
}
