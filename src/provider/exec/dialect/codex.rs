//! Codex, `codex exec --json`.
//!
//! Its usage counts the whole thread, also what earlier turns used, and survives `resume`. So the name under which the
//! thread is remembered carries those sums, `THREAD@INPUT,CACHED,WRITTEN,OUTPUT`, and each turn is charged with what came
//! after them. A turn that ended without usage is charged to the next one, and not estimated: nothing is lost or paid twice.
//!
//! It prints whole messages, never pieces. Its `Reconnecting...` errors are retries; `turn.failed` is the end.

use std::time::Duration;

use serde::Deserialize;

use super::loose::Loose;
use super::speech::Speech;
use super::{DENIED, Exit, Heard, Invocation, Line, Read, Used, Verdict, api_error, retry_cause, tool_error};
use crate::provider::ProviderError;

/// See the module.
#[derive(Default)]
pub(super) struct Reader {
    /// The thread that was resumed, and what it had used.
    resumed: Option<(String, Sums)>,
    thread: Option<String>,
    used: Option<Used>,
    /// What was used, while the sums that say so are on their way to who remembers them.
    untold: Option<Used>,
    done: bool,
    error: Option<ProviderError>,
    tries: u32,
}

/// Tokens of a thread so far: read, of them from a cache, of them to a cache, written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Sums([u64; 4]);

#[derive(Deserialize, Default)]
#[serde(default)]
struct Said {
    #[serde(rename = "type")]
    kind: Loose<String>,
    thread_id: Loose<String>,
    message: Loose<String>,
    error: Loose<Failure>,
    usage: Loose<Usage>,
    item: Loose<Item>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Failure {
    message: Loose<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Usage {
    input_tokens: Loose<u64>,
    cached_input_tokens: Loose<u64>,
    cache_write_input_tokens: Loose<u64>,
    output_tokens: Loose<u64>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Item {
    id: Loose<String>,
    #[serde(rename = "type")]
    kind: Loose<String>,
    text: Loose<String>,
    status: Loose<String>,
    exit_code: Loose<i64>,
    server: Loose<String>,
    tool: Loose<String>,
}

/// `exec`, the operator's options, and the thread to go on with. None of the first may follow `resume`, which knows only
/// some of them; and one that takes many values must not take the thread for one.
pub(super) fn arguments(invocation: &Invocation<'_>) -> Vec<String> {
    let Invocation { model, system, resume, args } = *invocation;
    let mut all = vec!["exec".to_owned()];
    all.extend(args.iter().cloned());
    all.extend(["--json", "--skip-git-repo-check"].map(str::to_owned));
    if let Some(model) = model {
        all.extend(["--model".to_owned(), model.to_owned()]);
    }
    if let Some(system) = system {
        all.extend(["--config".to_owned(), format!("developer_instructions={}", toml(system))]);
    }
    if let Some(resume) = resume {
        all.extend(["resume".to_owned(), thread(resume).to_owned()]);
    }
    all
}

/// The thread of a name that was remembered.
pub(super) fn thread(name: &str) -> &str {
    Sums::split(name).0
}

/// A text as TOML writes it (<https://toml.io/en/v1.0.0#string>): as JSON, but for one character.
fn toml(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

impl Reader {
    pub(super) fn new(resume: Option<&str>) -> Self {
        let resumed = resume.map(Sums::split).map(|(thread, sums)| (thread.to_owned(), sums));
        Self { resumed, ..Self::default() }
    }

    /// What this thread had used before the turn.
    fn before(&self) -> Sums {
        let resumed = self.resumed.as_ref().filter(|(thread, _)| Some(thread) == self.thread.as_ref());
        resumed.map_or(Sums::default(), |(_, sums)| *sums)
    }

    fn item(ended: bool, item: Item, speech: &mut Speech) {
        let tool = match item.kind.0.as_deref() {
            Some("agent_message") if ended => {
                speech.paragraph();
                return speech.say(item.text.0);
            }
            Some(kind @ ("command_execution" | "file_change" | "web_search")) => kind.to_owned(),
            Some(kind @ ("mcp_tool_call" | "collab_tool_call")) => match (item.server.0, item.tool.0) {
                (Some(server), Some(tool)) => format!("mcp__{server}__{tool}"),
                (_, Some(tool)) => tool,
                (_, None) => kind.to_owned(),
            },
            // Thoughts, plans and notices are nobody's answer.
            _ => return,
        };
        // Some tools are told only when they have ended.
        speech.tool_start(item.id.0.clone(), Some(tool));
        if ended {
            let code = item.exit_code.0.filter(|code| *code != 0);
            let error = match item.status.0.as_deref() {
                Some("declined") => Some(DENIED.to_owned()),
                Some("failed") => Some(tool_error(code)),
                _ => code.map(|code| tool_error(Some(code))),
            };
            speech.tool_end(item.id.0, error);
        }
    }

    fn turn_completed(&mut self, usage: Option<Usage>, speech: &mut Speech) {
        self.done = true;
        let Some(usage) = usage else { return };
        let told = [
            usage.input_tokens.0,
            usage.cached_input_tokens.0,
            usage.cache_write_input_tokens.0,
            usage.output_tokens.0,
        ];
        let now = Sums(told.map(Option::unwrap_or_default));
        let [input_tokens, cached_tokens, cache_write_tokens, output_tokens] = now.since(self.before(), told);
        self.untold =
            Some(Used { input_tokens, cached_tokens, cache_write_tokens, output_tokens, ..Used::default() });
        speech.session(self.thread.as_ref().map(|thread| now.join(thread)));
    }

    fn error(&mut self, message: Option<String>, speech: &mut Speech) {
        let message = message.unwrap_or_default();
        match message.strip_prefix("Reconnecting... ") {
            Some(which) => {
                // `2/5 (...)`, or `waiting for network (...)` for as long as there is none.
                let number = which.split_once('/').and_then(|(number, _)| number.parse().ok());
                self.tries = number.unwrap_or_else(|| self.tries.saturating_add(1));
                let cause = retry_cause(status(&message));
                speech.tell(Heard::Retry { attempt: self.tries, after: Duration::ZERO, cause });
            }
            None => self.error = Some(api_error(status(&message), message)),
        }
    }
}

impl Read for Reader {
    fn line(&mut self, line: &str, speech: &mut Speech) -> Line {
        let Ok(said) = serde_json::from_str::<Said>(line) else { return Line::Unknown };
        match said.kind.0.as_deref() {
            Some("thread.started") => {
                self.thread = said.thread_id.0.filter(|thread| !thread.contains('@'));
                speech.session(self.thread.as_ref().map(|thread| self.before().join(thread)));
            }
            Some(kind @ ("item.started" | "item.updated" | "item.completed")) => {
                Self::item(kind == "item.completed", said.item.0.unwrap_or_default(), speech);
            }
            Some("turn.completed") => self.turn_completed(said.usage.0, speech),
            Some("turn.failed") => {
                let message = said.error.0.and_then(|error| error.message.0).unwrap_or_default();
                self.error = Some(api_error(status(&message), message));
            }
            Some("error") => self.error(said.message.0, speech),
            Some("turn.started") => {}
            _ => return Line::Unknown,
        }
        Line::Known
    }

    fn told(&mut self) {
        self.used = self.untold.take().or(self.used.take());
    }

    fn used(&self) -> Vec<Used> {
        self.used.clone().into_iter().collect()
    }

    fn is_charged_later(&self) -> bool {
        self.thread.is_some() || self.resumed.is_some()
    }

    fn verdict(&mut self, _exit: Exit) -> Verdict {
        match self.error.take() {
            // An error that it got over is none.
            _ if self.done => Verdict::Done,
            Some(error) => Verdict::Failed(error),
            None => Verdict::Silent,
        }
    }
}

impl Sums {
    /// A thread and its sums, as [`Sums::join`] wrote them; a thread that stands alone has used nothing.
    fn split(name: &str) -> (&str, Self) {
        let Some((thread, sums)) = name.split_once('@') else { return (name, Self::default()) };
        let mut sums = sums.split(',').map(|sum| sum.parse().unwrap_or(0));
        (thread, Self([(); 4].map(|()| sums.next().unwrap_or(0))))
    }

    fn join(self, thread: &str) -> String {
        let Self([input, cached, written, output]) = self;
        if self == Self::default() {
            return thread.to_owned();
        }
        format!("{thread}@{input},{cached},{written},{output}")
    }

    /// What was used after `before`, of the counts that were told. Sums that went back were not those of the thread.
    fn since(self, before: Self, told: [Option<u64>; 4]) -> [Option<u64>; 4] {
        if self.0.iter().zip(before.0).any(|(now, before)| *now < before) {
            return told;
        }
        let mut before = before.0.into_iter();
        told.map(|told| Some(told? - before.next()?))
    }
}

/// The HTTP status in `unexpected status 401 Unauthorized: ...` and `..., last status: 429 Too Many Requests`.
fn status(message: &str) -> Option<u64> {
    let (_, after) = message.split_once("status")?;
    let digits = after.trim_start_matches([':', ' ']).split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok().filter(|_| digits.len() == 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_carries_its_sums_and_survives_without() {
        let sums = Sums([642, 400, 0, 24]);
        assert_eq!(sums.join("t"), "t@642,400,0,24");
        assert_eq!(Sums::split("t@642,400,0,24"), ("t", sums));
        assert_eq!(Sums::split("t"), ("t", Sums::default()));
        assert_eq!(Sums::split("t@x,1"), ("t", Sums([0, 1, 0, 0])));
        assert_eq!(Sums::default().join("t"), "t");
    }

    #[test]
    fn a_status_is_read_where_there_is_one() {
        assert_eq!(status("unexpected status 401 Unauthorized: x"), Some(401));
        assert_eq!(status("exceeded retry limit, last status: 429 Too Many Requests"), Some(429));
        assert_eq!(status("status 40100"), None);
        assert_eq!(status("no route to host"), None);
    }

    #[test]
    fn instructions_are_one_toml_string() {
        assert_eq!(toml("a\"b\n\u{7f}\u{0}"), r#""a\"b\n\u007f\u0000""#);
    }
}
