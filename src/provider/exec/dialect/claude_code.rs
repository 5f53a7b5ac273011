//! Claude Code, `claude -p --output-format stream-json --verbose --include-partial-messages`
//! (<https://docs.anthropic.com/en/docs/claude-code/sdk/sdk-headless>).
//!
//! Text comes in pieces (`stream_event`), and again as whole messages, which count only where no piece of them came; the
//! text of `result` counts where nothing was said before. What sub-agents say (`parent_tool_use_id`) is no answer, but
//! their tools and tokens count. `"subtype":"success"` stands beside `"is_error":true`. The truth of tokens and money is
//! in `result`, model by model; until it comes, what the messages told.

use std::time::Duration;

use serde::Deserialize;

use super::loose::{List, Loose, Table};
use super::messages::{Messages, Tokens};
use super::speech::Speech;
use super::tally::{Tally, dollars};
use super::{
    DENIED, Exit, Heard, Invocation, Line, Read, Used, Verdict, api_error, name, retry_cause, tool_error,
    words,
};
use crate::provider::ProviderError;
use crate::provider::call::unmarked;

/// The model of messages that no model made.
const SYNTHETIC: &str = "<synthetic>";

/// How `result` names why it stopped, and what it is called here.
const STOPS: &[(&str, &str)] = &[
    ("error_max_turns", "max_turns"),
    ("error_max_budget_usd", "max_budget"),
    ("error_max_structured_output_retries", "max_structured_output_retries"),
    ("error_during_execution", "execution_error"),
];

/// What it says where it cannot resume: its sessions are kept by directory and home, and not for ever.
const SESSION_GONE: &[&str] =
    &["No conversation found with session ID", "--resume requires a valid session ID"];

/// See the module.
#[derive(Default)]
pub(super) struct Reader {
    /// The model of the conversation itself.
    model: Option<String>,
    messages: Messages,
    result: Option<Tally>,
    end: Option<Result<(), ProviderError>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Said {
    #[serde(rename = "type")]
    kind: Loose<String>,
    subtype: Loose<String>,
    parent_tool_use_id: Loose<String>,
    session_id: Loose<String>,
    model: Loose<String>,
    // Of a retry.
    attempt: Loose<u32>,
    retry_delay_ms: Loose<f64>,
    error_status: Loose<u64>,
    // Of a message, or of a piece of one.
    message: Loose<Message>,
    event: Loose<Event>,
    // Of the end.
    is_error: Loose<bool>,
    api_error_status: Loose<u64>,
    result: Loose<String>,
    errors: Loose<List<Loose<String>>>,
    stop_reason: Loose<String>,
    total_cost_usd: Loose<f64>,
    usage: Loose<Usage>,
    #[serde(rename = "modelUsage")]
    model_usage: Loose<Table<Loose<ModelUsage>>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Message {
    id: Loose<String>,
    model: Loose<String>,
    content: Loose<List<Loose<Block>>>,
    usage: Loose<Usage>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Event {
    #[serde(rename = "type")]
    kind: Loose<String>,
    message: Loose<Message>,
    content_block: Loose<Block>,
    delta: Loose<Delta>,
    usage: Loose<Usage>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Delta {
    #[serde(rename = "type")]
    kind: Loose<String>,
    text: Loose<String>,
    thinking: Loose<String>,
    partial_json: Loose<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Block {
    #[serde(rename = "type")]
    kind: Loose<String>,
    text: Loose<String>,
    id: Loose<String>,
    name: Loose<String>,
    tool_use_id: Loose<String>,
    is_error: Loose<bool>,
    /// What a tool said: only an exit code at its beginning is looked for.
    content: Loose<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Usage {
    input_tokens: Loose<u64>,
    cache_creation_input_tokens: Loose<u64>,
    cache_read_input_tokens: Loose<u64>,
    output_tokens: Loose<u64>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct ModelUsage {
    input_tokens: Loose<u64>,
    cache_creation_input_tokens: Loose<u64>,
    cache_read_input_tokens: Loose<u64>,
    output_tokens: Loose<u64>,
    #[serde(rename = "costUSD")]
    cost_usd: Loose<f64>,
}

/// The message comes on standard input.
pub(super) fn arguments(invocation: &Invocation<'_>) -> Vec<String> {
    let Invocation { model, system, resume, args } = *invocation;
    let mut all = ["-p", "--output-format", "stream-json", "--verbose", "--include-partial-messages"]
        .map(str::to_owned)
        .to_vec();
    for (option, value) in [("--model", model), ("--append-system-prompt", system), ("--resume", resume)] {
        all.extend(value.into_iter().flat_map(|value| [option.to_owned(), value.to_owned()]));
    }
    all.extend(args.iter().cloned());
    all
}

impl Reader {
    fn system(&mut self, said: Said, speech: &mut Speech) {
        match said.subtype.0.as_deref() {
            Some("init") => {
                self.model = said.model.0.and_then(model_name);
                speech.session(said.session_id.0);
            }
            Some("api_retry") => {
                let delay = said.retry_delay_ms.0.unwrap_or(0.0) / 1e3;
                speech.tell(Heard::Retry {
                    attempt: said.attempt.0.unwrap_or(1),
                    after: Duration::try_from_secs_f64(delay).unwrap_or_default(),
                    cause: retry_cause(said.error_status.0),
                });
            }
            // Its state, its hooks, its compactions.
            _ => {}
        }
    }

    fn assistant(&mut self, message: Message, parent: Option<&str>, speech: &mut Speech) {
        if message.model.0.as_deref() == Some(SYNTHETIC) {
            return;
        }
        let id = message.id.0.and_then(name);
        let in_pieces = self.messages.in_pieces(id.as_deref());
        let new = self.begin(id.as_deref(), parent, message.model, message.usage);
        if new && parent.is_none() {
            speech.paragraph();
        }
        for block in blocks(message.content) {
            match block.kind.0.as_deref() {
                Some("text") if parent.is_none() && !in_pieces => speech.say(block.text.0),
                Some("text") => {}
                Some(kind) if kind.ends_with("tool_use") => speech.tool_start(block.id.0, block.name.0),
                _ => tool_end(block, speech),
            }
        }
    }

    fn stream_event(&mut self, event: Event, parent: Option<&str>, speech: &mut Speech) {
        match event.kind.0.as_deref() {
            Some("message_start") => {
                let Message { id, model, usage, content: _ } = event.message.0.unwrap_or_default();
                self.begin(id.0.and_then(name).as_deref(), parent, model, usage);
            }
            Some("message_delta") => {
                let usage = event.usage.0.unwrap_or_default();
                self.messages.tokens_of_last(parent, usage.tokens());
            }
            Some("content_block_delta") => {
                self.messages.wrote(parent, event.delta.0.as_ref().map_or(0, Delta::bytes));
            }
            _ => {}
        }
        // What a sub-agent says is no answer.
        if parent.is_some() {
            return;
        }
        match event.kind.0.as_deref() {
            Some("message_start") => speech.paragraph(),
            Some("content_block_start") => {
                let block = event.content_block.0.unwrap_or_default();
                if block.kind.0.as_deref() != Some("text") {
                    speech.paragraph();
                }
            }
            Some("content_block_delta") => {
                let delta = event.delta.0.unwrap_or_default();
                if delta.kind.0.as_deref() == Some("text_delta") {
                    self.messages.piece();
                    speech.say(delta.text.0);
                }
            }
            _ => {}
        }
    }

    /// Whether the message is a new one.
    fn begin(
        &mut self,
        id: Option<&str>,
        parent: Option<&str>,
        model: Loose<String>,
        usage: Loose<Usage>,
    ) -> bool {
        let new = self.messages.begin(id, parent, model.0.and_then(model_name));
        self.messages.tokens(id, usage.0.unwrap_or_default().tokens());
        new
    }

    fn result(&mut self, said: Said, speech: &mut Speech) {
        let mut tally = Tally::default();
        let models = said.model_usage.0.map(|models| models.0).unwrap_or_default();
        if models.is_empty() {
            let tokens = said.usage.0.unwrap_or_default().tokens();
            tally.add(Used { cost_usd: dollars(said.total_cost_usd.0), ..tokens.used(self.model.clone()) });
        }
        for (model, usage) in models {
            tally.add(usage.0.unwrap_or_default().used(model_name(model)));
        }
        // The reason beside a status is that of a message which no model made.
        let reason = said.stop_reason.0.filter(|_| said.api_error_status.0.is_none());
        tally.finish(self.model.as_deref(), reason.and_then(name));
        self.result = Some(tally);
        let error = said.is_error.0.unwrap_or(said.subtype.0.as_deref() != Some("success"));
        if !error {
            if !speech.said() {
                speech.say(said.result.0);
            }
            self.end = Some(Ok(()));
            return;
        }
        let errors = said.errors.0.map(|errors| errors.0).unwrap_or_default().into_iter();
        let text = said.result.0.or_else(|| errors.filter_map(|error| error.0).next()).unwrap_or_default();
        let stop = STOPS.iter().find(|(subtype, _)| said.subtype.0.as_deref() == Some(subtype));
        self.end = Some(Err(match stop {
            _ if SESSION_GONE.iter().any(|words| text.contains(words)) => {
                ProviderError::Stopped { reason: "session_not_found", quoted: words(text) }
            }
            Some((_, reason)) => ProviderError::Stopped { reason, quoted: words(text) },
            None => api_error(said.api_error_status.0, text),
        }));
    }
}

impl Read for Reader {
    fn line(&mut self, line: &str, speech: &mut Speech) -> Line {
        let Ok(mut said) = serde_json::from_str::<Said>(line) else { return Line::Unknown };
        let parent = said.parent_tool_use_id.0.take().and_then(name);
        match said.kind.0.as_deref() {
            Some("system") => self.system(said, speech),
            Some("assistant") => {
                self.assistant(said.message.0.unwrap_or_default(), parent.as_deref(), speech);
            }
            Some("user") => {
                for block in blocks(said.message.0.unwrap_or_default().content) {
                    tool_end(block, speech);
                }
            }
            Some("stream_event") => {
                self.stream_event(said.event.0.unwrap_or_default(), parent.as_deref(), speech);
            }
            Some("result") => self.result(said, speech),
            Some("rate_limit_event" | "tool_progress" | "tool_use_summary" | "auth_status") => {}
            _ => return Line::Unknown,
        }
        Line::Known
    }

    fn used(&self) -> Vec<Used> {
        self.result.as_ref().map_or_else(|| self.messages.used(), Tally::used)
    }

    fn first_call(&self) -> Option<Used> {
        self.messages.first()
    }

    fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    fn verdict(&mut self, _exit: Exit) -> Verdict {
        match self.end.take() {
            Some(Ok(())) => Verdict::Done,
            Some(Err(error)) => Verdict::Failed(error),
            None => Verdict::Silent,
        }
    }
}

fn blocks(content: Loose<List<Loose<Block>>>) -> impl Iterator<Item = Block> {
    content.0.map(|blocks| blocks.0).unwrap_or_default().into_iter().filter_map(|block| block.0)
}

/// Ends the tool whose result a block is, if it is one. A tool's id is unique, so no text of a user ends any.
fn tool_end(block: Block, speech: &mut Speech) {
    if block.kind.0.as_deref().is_some_and(|kind| kind.ends_with("tool_result")) {
        let failed = block.is_error.0 == Some(true);
        let content = block.content.0.as_deref().unwrap_or_default();
        let error = || if is_denial(content) { DENIED.to_owned() } else { tool_error(exit_code(content)) };
        speech.tool_end(block.tool_use_id.0, failed.then(error));
    }
}

/// The number in `Exit code 2`, which the output of a command that failed begins with.
fn exit_code(content: &str) -> Option<i64> {
    let rest = content.strip_prefix("Exit code ")?;
    rest.lines().next()?.trim().parse().ok()
}

/// Whether a tool was not allowed to run, in Claude Code's own words: `Permission to use Bash has been denied because ..`.
fn is_denial(content: &str) -> bool {
    let tool =
        content.strip_prefix("Permission to use ").and_then(|rest| rest.split_once(" has been denied"));
    tool.is_some_and(|(tool, _)| !tool.contains(char::is_whitespace))
}

/// The model's own name, without Claude Code's mark for a long context (`[1m]`).
fn model_name(text: String) -> Option<String> {
    name(unmarked(&text).to_owned())
}

impl Delta {
    /// What the model wrote, whatever it is.
    fn bytes(&self) -> usize {
        let texts = [&self.text, &self.thinking, &self.partial_json];
        texts.into_iter().filter_map(|text| text.0.as_ref()).map(String::len).sum()
    }
}

impl Usage {
    fn tokens(self) -> Tokens {
        Tokens {
            input: self.input_tokens.0,
            cache_read: self.cache_read_input_tokens.0,
            cache_creation: self.cache_creation_input_tokens.0,
            output: self.output_tokens.0,
        }
    }
}

impl ModelUsage {
    fn used(self, model: Option<String>) -> Used {
        let tokens = Tokens {
            input: self.input_tokens.0,
            cache_read: self.cache_read_input_tokens.0,
            cache_creation: self.cache_creation_input_tokens.0,
            output: self.output_tokens.0,
        };
        Used { cost_usd: dollars(self.cost_usd.0), ..tokens.used(model) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_is_one_only_if_it_is_a_number() {
        assert_eq!(exit_code("Exit code 2\nls: cannot access"), Some(2));
        assert_eq!(exit_code("Exit code sk-secret"), None);
        assert_eq!(exit_code("it said Exit code 2"), None);
    }

    #[test]
    fn a_models_name_loses_the_mark_of_its_context() {
        assert_eq!(model_name("claude-opus-4-8[1m]".to_owned()).as_deref(), Some("claude-opus-4-8"));
        assert_eq!(model_name("[1m]".to_owned()), None);
    }
}
