//! What coding agents print, one JSON object a line: four dialects, read into the same few facts. And how each is asked.
//!
//! Pure: lines in, facts out. No dialect knows processes, deadlines or who asked, none panics whatever the bytes, and
//! none keeps more than a bounded part of what it read. Words of an agent leave only as text of the answer and as what a
//! [`ProviderError`] quotes, unmasked so far ([`ProviderError::masked`]). Start at [`Reader`]; what agents really print
//! is in `tests/fixtures/agents`, with how it was recorded.

mod claude_code;
mod codex;
mod gemini;
mod loose;
mod messages;
mod own;
mod speech;
mod tally;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::time::Duration;

use self::speech::Speech;
use super::Dialect;
use crate::limits::{AGENT_SESSION_BYTES_MAX, LABEL_BYTES_MAX};
use crate::process::Exit;
use crate::provider::ProviderError;
use crate::provider::call::{Reading, Used};
use crate::provider::quote::WORDS_BYTES_MAX;

/// What is said of a tool that was not allowed to run.
const DENIED: &str = "denied";

/// How an agent is asked for one turn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Invocation<'a> {
    /// The model, where the operator named one.
    pub(super) model: Option<&'a str>,
    /// Instructions before the conversation.
    pub(super) system: Option<&'a str>,
    /// What [`Heard::Session`] told in the turn before.
    pub(super) resume: Option<&'a str>,
    /// The operator's own arguments.
    pub(super) args: &'a [String],
}

/// What one line says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Heard {
    /// The agent's own name for this conversation: short, without control characters, and no option of a command line.
    Session(String),
    /// A piece of the answer; not empty.
    Delta(String),
    /// It began to use a tool.
    ToolStart {
        /// Pairs it with its end.
        id: String,
        /// The tool's name.
        name: String,
    },
    /// A tool that was begun has ended.
    ToolEnd {
        /// The id it started with.
        id: String,
        /// The tool's name.
        name: String,
        /// Fixed words such as `exit code 2`, nothing that the tool said.
        error: Option<String>,
    },
    /// It tries its model again.
    Retry {
        /// From 1.
        attempt: u32,
        /// How long from now.
        after: Duration,
        /// Fixed words.
        cause: String,
    },
    /// A line that means nothing to this reader: to be counted.
    Unknown,
}

/// How a turn ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Finished {
    /// Whether it was answered.
    pub(super) result: Result<(), ProviderError>,
    /// What it used, one entry a model; never empty.
    pub(super) used: Vec<Used>,
    /// Whether a model was called.
    pub(super) called: Called,
}

/// Whether a turn called a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Called {
    /// It did, or may have.
    Maybe,
    /// It failed before.
    Never,
}

/// What a dialect says about how a turn ended.
enum Verdict {
    /// It said that it is done.
    Done,
    /// It said why it is not.
    Failed(ProviderError),
    /// It said nothing of its end.
    Silent,
}

/// Reads one dialect.
trait Read: Send {
    /// Takes one line that is a JSON object; adds to what was heard.
    fn line(&mut self, line: &str, speech: &mut Speech) -> Line;

    /// All that was heard so far has been passed on.
    fn told(&mut self) {}

    /// What the first model call used, where that is told apart from later ones.
    fn first_call(&self) -> Option<Used> {
        None
    }

    /// What was used so far; may be empty.
    fn used(&self) -> Vec<Used>;

    /// The model that it said it would ask, before it asked any.
    fn model(&self) -> Option<&str> {
        None
    }

    /// Whether a next turn will say what this one used and has not said.
    fn is_charged_later(&self) -> bool {
        false
    }

    /// How it ended.
    fn verdict(&mut self, exit: Exit) -> Verdict;
}

/// Whether a line was understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Known,
    Unknown,
}

/// Reads what an agent prints in one turn.
pub(super) struct Reader {
    dialect: Box<dyn Read>,
    speech: Speech,
    /// Whether the turn goes on with a conversation.
    resumed: bool,
    /// Bytes of text.
    text_bytes: usize,
    /// Whether it printed anything.
    printed: bool,
    /// Whether it said that it tries its model again.
    retried: bool,
}

impl Dialect {
    /// `gen_ai.provider.name`.
    pub(super) fn provider(self) -> &'static str {
        match self {
            Self::Plimsoll => "plimsoll",
            Self::ClaudeCode => "anthropic",
            Self::Codex => "openai",
            Self::Gemini => "gcp.gemini",
        }
    }

    /// All arguments of the program but the message: that comes on standard input, which each of them reads if it is
    /// given none, or after `--`.
    pub(super) fn arguments(self, invocation: &Invocation<'_>) -> Vec<String> {
        match self {
            Self::Plimsoll => invocation.args.to_vec(),
            Self::ClaudeCode => claude_code::arguments(invocation),
            Self::Codex => codex::arguments(invocation),
            Self::Gemini => gemini::arguments(invocation),
        }
    }

    /// The message as the agent takes it for text and nothing else.
    pub(super) fn message(self, message: &str) -> Cow<'_, str> {
        match self {
            // A slash at the very beginning is a command of theirs, such as `/clear`.
            Self::ClaudeCode | Self::Gemini if message.starts_with('/') => Cow::Owned(format!("\n{message}")),
            Self::Plimsoll | Self::ClaudeCode | Self::Codex | Self::Gemini => Cow::Borrowed(message),
        }
    }

    /// What is told by the environment.
    pub(super) fn variables(self, invocation: &Invocation<'_>) -> Vec<(&'static str, String)> {
        match self {
            Self::Plimsoll => own::variables(invocation),
            Self::ClaudeCode | Self::Codex | Self::Gemini => Vec::new(),
        }
    }

    /// Whether it can be given instructions before the conversation ([`Invocation::system`]).
    pub(super) fn takes_system(self) -> bool {
        match self {
            Self::Plimsoll | Self::ClaudeCode | Self::Codex => true,
            Self::Gemini => false,
        }
    }

    /// Whether it takes the message after `--`.
    pub(super) fn takes_argument(self) -> bool {
        match self {
            Self::Plimsoll | Self::ClaudeCode | Self::Codex => true,
            // Version 0.61.0 passes over what stands after `--`.
            Self::Gemini => false,
        }
    }

    /// Whether these last words of a program say that it does not know the conversation which it was told to resume.
    pub(super) fn says_session_gone(self, words: &str, resume: &str) -> bool {
        let (begin, says, name) = match self {
            // They say so on standard output.
            Self::Plimsoll | Self::ClaudeCode => return false,
            Self::Codex => ("Error: thread/resume", "no rollout found for thread id", codex::thread(resume)),
            Self::Gemini => ("Error resuming session", "", resume),
        };
        words.lines().any(|line| line.starts_with(begin) && line.contains(says) && line.contains(name))
    }

    /// A reader of one turn that was asked so.
    pub(super) fn reader(self, invocation: &Invocation<'_>) -> Reader {
        let dialect: Box<dyn Read> = match self {
            Self::Plimsoll => Box::new(own::Reader::default()),
            Self::ClaudeCode => Box::new(claude_code::Reader::default()),
            Self::Codex => Box::new(codex::Reader::new(invocation.resume)),
            Self::Gemini => Box::new(gemini::Reader::default()),
        };
        let (resumed, speech) = (invocation.resume.is_some(), Speech::default());
        Reader { dialect, speech, resumed, text_bytes: 0, printed: false, retried: false }
    }
}

impl Reader {
    /// Takes one line without its newline. Half a character does not make it unreadable.
    pub(super) fn line(&mut self, line: &[u8]) -> Vec<Heard> {
        let line = line.trim_ascii();
        if line.is_empty() {
            return Vec::new();
        }
        self.printed = true;
        let text = String::from_utf8_lossy(line);
        let known = self.dialect.line(&text, &mut self.speech);
        let mut heard = self.speech.take();
        let texts = heard.iter().map(|heard| if let Heard::Delta(text) = heard { text.len() } else { 0 });
        self.text_bytes = self.text_bytes.saturating_add(texts.sum());
        self.retried |= heard.iter().any(|heard| matches!(heard, Heard::Retry { .. }));
        if known == Line::Unknown {
            heard.push(Heard::Unknown);
        }
        heard
    }

    /// To be called when all that was heard so far has been passed on. A turn that is stopped before is charged with
    /// nothing that the next one will be charged with.
    pub(super) fn told(&mut self) {
        self.dialect.told();
    }

    /// What the turn's first model call read, as far as it is known.
    pub(super) fn first_reading(&self) -> Option<Reading> {
        self.dialect.first_call()?.reading()
    }

    /// Whether the program has said which model it will ask.
    pub(super) fn named_model(&self) -> bool {
        self.dialect.model().is_some()
    }

    /// What the turn has used so far, one entry a model; never empty.
    pub(super) fn used(&self) -> Vec<Used> {
        let mut used = self.dialect.used();
        if used.is_empty() {
            // A conversation in which nothing happened yet is not gone on with.
            let goes_on = self.resumed || self.speech.said() || self.speech.worked();
            let charged_later = goes_on && self.dialect.is_charged_later();
            used.push(Used { charged_later, ..Used::default() });
        }
        for used in used.iter_mut().filter(|used| used.model.is_none()) {
            used.model = self.dialect.model().map(str::to_owned);
        }
        if used.iter().all(|used| used.output_tokens.is_none()) {
            used[0].uncounted = used[0].uncounted.max(self.text_bytes);
        }
        used
    }

    /// How the turn ended, once the program has.
    pub(super) fn finish(mut self, exit: Exit) -> Finished {
        self.told();
        let used = self.used();
        let verdict = self.dialect.verdict(exit);
        let called = self.called(&used, &verdict, exit);
        let result = match verdict {
            Verdict::Failed(error) => Err(error),
            // One that only worked is done without a word.
            Verdict::Done if self.speech.said() || self.speech.worked() => Ok(()),
            Verdict::Done | Verdict::Silent => Err(unanswered(exit)),
        };
        Finished { result, used, called }
    }

    /// Nothing is free that is not certain: it must have failed by its own word, or by itself before it said anything.
    fn called(&self, used: &[Used], verdict: &Verdict, exit: Exit) -> Called {
        let failed = match verdict {
            Verdict::Failed(_) => true,
            Verdict::Silent => exit.is_own_failure() && !self.printed,
            Verdict::Done => false,
        };
        let told = self.speech.said() || self.speech.worked() || self.retried;
        if failed && !told && !used.iter().any(Used::is_told) { Called::Never } else { Called::Maybe }
    }
}

/// A name from outside: it is kept, so it is cut; an empty one is none.
fn name(text: String) -> Option<String> {
    cut(text, LABEL_BYTES_MAX)
}

/// An agent's words for an error.
fn words(text: String) -> String {
    cut(text, WORDS_BYTES_MAX).unwrap_or_default()
}

fn cut(mut text: String, bytes_max: usize) -> Option<String> {
    text.truncate(text.floor_char_boundary(bytes_max));
    text.shrink_to_fit();
    (!text.is_empty()).then_some(text)
}

/// A name of a conversation that may be remembered and stand among the arguments of the next turn.
fn session(text: String) -> Option<String> {
    let fits = !text.is_empty() && text.len() <= AGENT_SESSION_BYTES_MAX;
    (fits && !text.starts_with('-') && !text.contains(char::is_control)).then_some(text)
}

/// The error of an agent whose model's API answered with a status, or with none.
fn api_error(status: Option<u64>, text: String) -> ProviderError {
    let quoted = words(text);
    match status.and_then(|status| u16::try_from(status).ok()).filter(|status| (400..600).contains(status)) {
        Some(status) => ProviderError::Status { status, quoted, retry_after: None },
        None => ProviderError::Reported { quoted },
    }
}

/// Why an agent tries its model again, in fixed words.
fn retry_cause(status: Option<u64>) -> String {
    match status.filter(|status| (100..600).contains(status)) {
        Some(status) => format!("the provider answered HTTP {status}"),
        None => "the provider did not answer".to_owned(),
    }
}

/// What may be said of a tool that failed.
fn tool_error(exit_code: Option<i64>) -> String {
    exit_code.map_or_else(|| "failed".to_owned(), |code| format!("exit code {code}"))
}

/// The error of a program that ended without a word about it.
fn unanswered(exit: Exit) -> ProviderError {
    let how = match exit {
        Exit::Code(0) => "with exit code 0, but without an answer".to_owned(),
        Exit::Code(code) => format!("with exit code {code}"),
        Exit::Signal(signal) => format!("by signal {signal}"),
    };
    ProviderError::Exited { how, quoted: String::new() }
}
