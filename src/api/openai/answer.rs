//! What a client gets: a whole completion, or its chunks as server-sent events
//! (<https://platform.openai.com/docs/api-reference/chat/object>).

use bytes::{BufMut as _, BytesMut};
use schemars::JsonSchema;
use serde::Serialize;

use crate::clock::Timestamp;
use crate::gateway::{self, Answer};
use crate::ids::{AgentId, RequestId};

/// What stands in every object of one answer.
pub(super) struct Form {
    id: String,
    created: u64,
    model: AgentId,
}

/// A whole answer.
#[derive(Serialize, JsonSchema)]
pub(crate) struct ChatCompletion<'a> {
    /// `chatcmpl-` and the id of the request.
    id: &'a str,
    /// `chat.completion`.
    object: &'static str,
    /// When it was accepted, in epoch seconds.
    created: u64,
    /// The agent.
    model: &'a str,
    /// One.
    choices: [Choice<'a>; 1],
    /// Absent where the provider does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

#[derive(Serialize, JsonSchema)]
struct Choice<'a> {
    index: u32,
    message: Message<'a>,
    logprobs: Option<()>,
    /// `stop`, `length` or `content_filter`.
    finish_reason: &'static str,
}

#[derive(Serialize, JsonSchema)]
struct Message<'a> {
    /// `assistant`.
    role: &'static str,
    content: &'a str,
    refusal: Option<()>,
}

/// Tokens, as the provider reports them.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
}

/// A piece of an answer.
#[derive(Serialize)]
struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: &'a [Piece<'a>],
    /// `null` in each piece but the last, and there only for those who asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
}

#[derive(Serialize)]
struct Piece<'a> {
    index: u32,
    delta: Delta<'a>,
    logprobs: Option<()>,
    finish_reason: Option<&'static str>,
}

#[derive(Default, Serialize)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
}

/// Whether the chunks name tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tokens {
    Named,
    Left,
}

impl Form {
    pub(super) fn new(request_id: &RequestId, accepted: Timestamp, model: AgentId) -> Self {
        Self { id: format!("chatcmpl-{request_id}"), created: accepted.as_millis() / 1_000, model }
    }

    /// A whole answer as JSON.
    pub(super) fn whole(&self, answer: &Answer) -> Vec<u8> {
        let message = Message { role: "assistant", content: &answer.text, refusal: None };
        let finish_reason = finish_reason(answer);
        let completion = ChatCompletion {
            id: &self.id,
            object: "chat.completion",
            created: self.created,
            model: self.model.as_str(),
            choices: [Choice { index: 0, message, logprobs: None, finish_reason }],
            usage: Usage::of(answer.usage),
        };
        serde_json::to_vec(&completion).expect("texts and numbers are JSON")
    }

    /// The first chunk: who speaks.
    pub(super) fn opening(&self, out: &mut BytesMut, tokens: Tokens) {
        let delta = Delta { role: Some("assistant"), content: Some("") };
        self.piece(out, delta, None, tokens);
    }

    /// A piece of the text.
    pub(super) fn text(&self, out: &mut BytesMut, text: &str, tokens: Tokens) {
        self.piece(out, Delta { content: Some(text), ..Delta::default() }, None, tokens);
    }

    /// The last chunks: why it stopped, and its tokens.
    pub(super) fn closing(&self, out: &mut BytesMut, answer: &Answer, tokens: Tokens) {
        self.piece(out, Delta::default(), Some(finish_reason(answer)), tokens);
        if let (Tokens::Named, Some(usage)) = (tokens, Usage::of(answer.usage)) {
            self.chunk(out, &[], Some(Some(usage)));
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    fn piece(
        &self,
        out: &mut BytesMut,
        delta: Delta<'_>,
        finish_reason: Option<&'static str>,
        tokens: Tokens,
    ) {
        let piece = Piece { index: 0, delta, logprobs: None, finish_reason };
        self.chunk(out, &[piece], (tokens == Tokens::Named).then_some(None));
    }

    fn chunk(&self, out: &mut BytesMut, choices: &[Piece<'_>], usage: Option<Option<Usage>>) {
        let chunk = Chunk {
            id: &self.id,
            object: "chat.completion.chunk",
            created: self.created,
            model: self.model.as_str(),
            choices,
            usage,
        };
        frame(out, &chunk);
    }
}

/// One event of a stream. JSON has no line breaks, so one `data:` line holds it.
pub(super) fn frame(out: &mut BytesMut, data: &impl Serialize) {
    out.extend_from_slice(b"data: ");
    serde_json::to_writer((&mut *out).writer(), data)
        .expect("texts and numbers are JSON, and memory takes them");
    out.extend_from_slice(b"\n\n");
}

impl Usage {
    /// Only where both numbers are known: a client adds them up, and half of them would be a wrong sum.
    fn of(usage: gateway::Usage) -> Option<Self> {
        let (prompt_tokens, completion_tokens) = (usage.input_tokens?, usage.output_tokens?);
        let total_tokens = prompt_tokens.saturating_add(completion_tokens);
        Some(Self { prompt_tokens, completion_tokens, total_tokens })
    }
}

/// Why a model stopped, in the words of this API. Each provider has its own, and tools that an agent uses are its own
/// affair: what is no limit and no filter is an end.
fn finish_reason(answer: &Answer) -> &'static str {
    match answer.finish_reason.as_deref() {
        Some("length" | "max_tokens" | "model_context_window_exceeded" | "MAX_TOKENS") => "length",
        Some("content_filter" | "refusal" | "SAFETY") => "content_filter",
        Some(_) | None => "stop",
    }
}
