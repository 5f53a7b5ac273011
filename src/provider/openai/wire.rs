//! The wire format: what is sent, and as much of what comes back as anybody needs. Lenient in what it reads: what a
//! server leaves out or sends as `null` is absent.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::call::Report;
use super::super::remote::{self, Mode, Piece, ReadAnswer, Said as Part, Unusable, bytes, name};
use super::super::{MODEL_DEFAULT, Message, Speaker, Turn};

#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    messages: Vec<Said<'a>>,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<Value>,
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

/// The body of a request for an answer.
pub(super) fn request(turn: &Turn, mode: Mode, schema: Option<&Value>) -> Vec<u8> {
    let system = turn.system.iter().map(|text| Said { role: "system", content: text });
    let now = Said { role: "user", content: &turn.message };
    let request = Request {
        model: turn.model.as_deref().unwrap_or(MODEL_DEFAULT),
        messages: system.chain(turn.history.iter().map(said)).chain([now]).collect(),
        stream: mode == Mode::Stream,
        stream_options: (mode == Mode::Stream).then_some(StreamOptions { include_usage: true }),
        response_format: schema.map(response_format),
    };
    serde_json::to_vec(&request).expect("text is plain JSON")
}

/// <https://platform.openai.com/docs/guides/structured-outputs>
fn response_format(schema: &Value) -> Value {
    json!({"type": "json_schema", "json_schema": {"name": "answer", "strict": true, "schema": schema}})
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
struct Chunk {
    id: Option<String>,
    model: Option<String>,
    choices: Option<Vec<Choice>>,
    usage: Option<Usage>,
    error: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Choice {
    #[serde(alias = "message")]
    delta: Option<Delta>,
    finish_reason: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Delta {
    content: Option<String>,
    refusal: Option<String>,
    /// Thoughts, as vLLM and DeepSeek name them, and as others do.
    reasoning_content: Option<Value>,
    reasoning: Option<Value>,
    tool_calls: Option<Vec<ToolCall>>,
}

#[derive(Debug, Deserialize)]
struct ToolCall {
    function: Option<Function>,
}

#[derive(Debug, Deserialize)]
struct Function {
    name: Option<String>,
    arguments: Option<Value>,
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

/// Reads one answer: each chunk stands for itself.
pub(super) struct Answer;

impl ReadAnswer for Answer {
    fn take(&mut self, data: &[u8], mode: Mode, report: &mut Report) -> Result<Piece, Unusable> {
        if data.trim_ascii() == b"[DONE]" {
            return Ok(Piece { complete: true, done: true, ..Piece::default() });
        }
        let mut chunk: Chunk = remote::parse(data, mode, "It usually ends in /v1")?;
        if let Some(error) = chunk.error.take().filter(|error| !error.is_null()) {
            return Err(Unusable::Reported(error));
        }
        chunk.report(report);
        let mut piece = Piece::default();
        // One answer was asked for: others, and the empty list of the chunk that holds the usage, say nothing.
        let Some(choice) = chunk.choices.unwrap_or_default().into_iter().next() else { return Ok(piece) };
        piece.begun = true;
        if let Some(mut delta) = choice.delta {
            piece.besides = delta.besides();
            piece.said.extend(delta.text().map(Part::Text));
            piece.said.extend(delta.tools().map(Part::Tool));
        }
        if let Some(reason) = choice.finish_reason.and_then(name) {
            report.used.finish_reason = Some(reason);
            piece.complete = true;
        }
        Ok(piece)
    }
}

impl Chunk {
    /// Adds to the report what this piece says about the call.
    fn report(&mut self, Report { used, response_id }: &mut Report) {
        used.model = self.model.take().and_then(name).or(used.model.take());
        *response_id = self.id.take().and_then(name).or(response_id.take());
        if let Some(usage) = self.usage.take() {
            used.input_tokens = usage.prompt_tokens;
            used.output_tokens = usage.completion_tokens;
            used.cached_tokens = usage.prompt_tokens_details.and_then(|details| details.cached_tokens);
        }
    }
}

impl Delta {
    /// What is said in it, a refusal too; not empty.
    fn text(&mut self) -> Option<String> {
        let said = |text: &String| !text.is_empty();
        self.content.take().filter(said).or_else(|| self.refusal.take().filter(said))
    }

    /// Bytes of thoughts, which some servers send under both names, and of arguments of tools.
    fn besides(&self) -> usize {
        let thoughts = bytes(self.reasoning_content.as_ref()).max(bytes(self.reasoning.as_ref()));
        let functions = self.tool_calls.iter().flatten().filter_map(|call| call.function.as_ref());
        thoughts + functions.map(|function| bytes(function.arguments.as_ref())).sum::<usize>()
    }

    /// The names of the tools that are asked for. Only the first piece of a call names it.
    fn tools(&mut self) -> impl Iterator<Item = String> {
        let calls = self.tool_calls.take().unwrap_or_default().into_iter();
        calls.filter_map(|call| call.function?.name).filter_map(name)
    }
}
