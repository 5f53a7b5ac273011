//! Gemini CLI, `--output-format stream-json`.
//!
//! It says text in pieces and its tokens, model by model, in `result`. Thoughts are charged as output, but counted only
//! in the total, so the output is what the total holds besides the input. A model's error reaches us with its status in
//! its words, or as the last byte of it in the exit code: 145 is 401.

use serde::Deserialize;

use super::loose::{Loose, Table};
use super::speech::Speech;
use super::tally::Tally;
use super::{DENIED, Exit, Invocation, Line, Read, Used, Verdict, api_error, name, tool_error, words};
use crate::provider::ProviderError;

/// The exit code of one that reached its limit of turns (`FatalTurnLimitedError`).
const EXIT_TURNS: i32 = 53;

/// Statuses of the Gemini API (<https://ai.google.dev/gemini-api/docs/troubleshooting>) and of proxies before it, which an
/// exit code may hold.
const STATUSES: &[u16] = &[400, 401, 403, 404, 408, 429, 500, 502, 503, 504, 529];

/// See the module.
#[derive(Default)]
pub(super) struct Reader {
    model: Option<String>,
    tally: Tally,
    /// It used a tool, so there was more than one call.
    worked: bool,
    /// A piece of the message that is being said has come.
    piecewise: bool,
    done: bool,
    turns_over: bool,
    /// What it said of its failure.
    failure: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Said {
    #[serde(rename = "type")]
    kind: Loose<String>,
    session_id: Loose<String>,
    model: Loose<String>,
    role: Loose<String>,
    content: Loose<String>,
    delta: Loose<bool>,
    tool_name: Loose<String>,
    tool_id: Loose<String>,
    status: Loose<String>,
    severity: Loose<String>,
    message: Loose<String>,
    error: Loose<Failure>,
    stats: Loose<Stats>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Failure {
    #[serde(rename = "type")]
    kind: Loose<String>,
    message: Loose<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Stats {
    models: Loose<Table<Loose<Tokens>>>,
    total_tokens: Loose<u64>,
    input_tokens: Loose<u64>,
    output_tokens: Loose<u64>,
    cached: Loose<u64>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Tokens {
    total_tokens: Loose<u64>,
    input_tokens: Loose<u64>,
    output_tokens: Loose<u64>,
    cached: Loose<u64>,
}

/// The message comes on standard input; what is said by `--prompt` would be added to it.
pub(super) fn arguments(invocation: &Invocation<'_>) -> Vec<String> {
    let Invocation { model, system: _, resume, args } = *invocation;
    let mut all = ["--output-format", "stream-json"].map(str::to_owned).to_vec();
    if let Some(model) = model {
        all.extend(["--model".to_owned(), model.to_owned()]);
    }
    if let Some(resume) = resume {
        all.extend(["--resume".to_owned(), resume.to_owned()]);
    }
    all.extend(args.iter().cloned());
    all
}

impl Reader {
    fn message(&mut self, said: Said, speech: &mut Speech) {
        if said.role.0.as_deref() != Some("assistant") {
            return;
        }
        match said.delta.0 {
            Some(true) => {
                self.piecewise = true;
                speech.say(said.content.0);
            }
            // The whole of what has come in pieces.
            _ if self.piecewise => self.piecewise = false,
            _ => {
                speech.paragraph();
                speech.say(said.content.0);
            }
        }
    }

    fn result(&mut self, said: Said) {
        let Stats { models, total_tokens, input_tokens, output_tokens, cached } =
            said.stats.0.unwrap_or_default();
        let models = models.0.map(|models| models.0).unwrap_or_default();
        if models.is_empty() {
            let all = Tokens { total_tokens, input_tokens, output_tokens, cached };
            self.tally.add(all.used(self.model.clone()));
        }
        for (model, tokens) in models {
            self.tally.add(tokens.0.unwrap_or_default().used(Some(model)));
        }
        match said.status.0.as_deref() {
            Some("success") => self.done = true,
            _ => {
                let failure = said.error.0.unwrap_or_default();
                self.turns_over |= failure.kind.0.as_deref() == Some("FatalTurnLimitedError");
                self.failure = Some(words(failure.message.0.unwrap_or_default()));
            }
        }
    }

    fn error(&mut self, said: Said) {
        // Warnings are not the end.
        if said.severity.0.as_deref() == Some("error") {
            let message = said.message.0.unwrap_or_default();
            self.turns_over |= message == "Maximum session turns exceeded";
            self.failure = Some(words(message));
        }
    }
}

impl Read for Reader {
    fn line(&mut self, line: &str, speech: &mut Speech) -> Line {
        let Ok(said) = serde_json::from_str::<Said>(line) else { return Line::Unknown };
        match said.kind.0.as_deref() {
            Some("init") => {
                self.model = said.model.0.and_then(name);
                speech.session(said.session_id.0);
            }
            Some("message") => self.message(said, speech),
            Some("tool_use") => {
                (self.piecewise, self.worked) = (false, true);
                speech.paragraph();
                speech.tool_start(said.tool_id.0, said.tool_name.0);
            }
            Some("tool_result") => {
                // A command that fails is a success here, and nothing tells its exit code.
                let failed = said.status.0.as_deref() == Some("error");
                let denied =
                    said.error.0.and_then(|error| error.kind.0).as_deref() == Some("policy_violation");
                let error = if denied { DENIED.to_owned() } else { tool_error(None) };
                speech.tool_end(said.tool_id.0, failed.then_some(error));
            }
            Some("error") => self.error(said),
            Some("result") => self.result(said),
            _ => return Line::Unknown,
        }
        Line::Known
    }

    fn used(&self) -> Vec<Used> {
        self.tally.used()
    }

    fn first_call(&self) -> Option<Used> {
        let [used] = <[Used; 1]>::try_from(self.tally.used()).ok()?;
        (!self.worked).then_some(used)
    }

    fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    fn verdict(&mut self, exit: Exit) -> Verdict {
        let failure = self.failure.take();
        if self.turns_over || exit == Exit::Code(EXIT_TURNS) {
            let quoted = failure.unwrap_or_default();
            return Verdict::Failed(ProviderError::Stopped { reason: "max_turns", quoted });
        }
        if self.done {
            return Verdict::Done;
        }
        match failure {
            Some(failure) => {
                let status = status(&failure).or_else(|| status_of_exit(exit));
                Verdict::Failed(api_error(status, failure))
            }
            None => Verdict::Silent,
        }
    }
}

impl Tokens {
    fn used(self, model: Option<String>) -> Used {
        let Self { total_tokens, input_tokens, output_tokens, cached } = self;
        let rest = total_tokens.0.zip(input_tokens.0).map(|(total, input)| total.saturating_sub(input));
        Used {
            model,
            input_tokens: input_tokens.0,
            cached_tokens: cached.0,
            output_tokens: output_tokens.0.max(rest),
            ..Used::default()
        }
    }
}

/// The status in Google's error, which the words hold as JSON: `[API Error: {"error":{"code":429,...}}]`.
fn status(words: &str) -> Option<u64> {
    let (_, after) = words.split_once("\"code\":")?;
    after.trim_start().split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// An exit code keeps the last byte of the status that Gemini CLI exits with.
fn status_of_exit(exit: Exit) -> Option<u64> {
    let Exit::Code(code) = exit else { return None };
    let found = STATUSES.iter().find(|status| i32::from(**status & 0xff) == code);
    found.map(|status| u64::from(*status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_in_the_words_or_in_the_exit_code() {
        assert_eq!(status(r#"[API Error: {"error":{"code":429,"message":"m"}}]"#), Some(429));
        assert_eq!(status("[API Error: no]"), None);
        for (code, status) in
            [(145, Some(401)), (173, Some(429)), (247, Some(503)), (17, Some(529)), (1, None), (-1, None)]
        {
            assert_eq!(status_of_exit(Exit::Code(code)), status, "{code}");
        }
        assert_eq!(status_of_exit(Exit::Signal(145)), None);
    }
}
