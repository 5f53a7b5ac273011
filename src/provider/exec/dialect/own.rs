//! plimsoll's own schema, for agents that are written for it. One JSON object a line; unknown fields are passed over.
//!
//! | line | meaning |
//! |---|---|
//! | `{"type":"session","id":"s1"}` | the agent's name for this conversation, given back in the next turn |
//! | `{"type":"delta","text":"Hel"}` | a piece of the answer |
//! | `{"type":"tool_start","id":"t1","name":"search"}` | a tool begins |
//! | `{"type":"tool_end","id":"t1"}` | it went well |
//! | `{"type":"tool_end","id":"t1","ok":false,"exit_code":2}` | it failed; `exit_code` if there was one |
//! | `{"type":"retry","attempt":1,"after_ms":500,"status":529}` | the model is tried again; `status` if there was one |
//! | `{"type":"usage","model":"m","input_tokens":12,"cached_tokens":4,"cache_write_tokens":0,"output_tokens":3,"cost_usd":0.01}` | what was used since the line of usage before; caches are included in the input; each field may be left out, and one without a cost is priced by ours |
//! | `{"type":"error","message":"…","status":429}` | the turn failed; `status` if a model's API said so |
//! | `{"type":"end","finish_reason":"stop"}` | the answer is complete |
//!
//! The message comes on standard input. `PLIMSOLL_AGENT_SESSION`, `PLIMSOLL_MODEL` and `PLIMSOLL_SYSTEM` are set where
//! there is something to say. Whoever exits with 0 after a piece of the answer, and without an `error`, has answered too.

use serde::Deserialize;

use super::loose::Loose;
use super::speech::Speech;
use super::tally::{Tally, dollars};
use super::{Exit, Heard, Invocation, Line, Read, Used, Verdict, api_error, name, retry_cause, tool_error};
use crate::provider::ProviderError;
use std::time::Duration;

/// See the module.
#[derive(Default)]
pub(super) struct Reader {
    tally: Tally,
    /// Bytes of text since what was used was last said.
    uncounted: usize,
    error: Option<ProviderError>,
    said: bool,
    ended: bool,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Said {
    #[serde(rename = "type")]
    kind: Loose<String>,
    id: Loose<String>,
    text: Loose<String>,
    name: Loose<String>,
    ok: Loose<bool>,
    exit_code: Loose<i64>,
    attempt: Loose<u32>,
    after_ms: Loose<u64>,
    status: Loose<u64>,
    message: Loose<String>,
    finish_reason: Loose<String>,
    model: Loose<String>,
    input_tokens: Loose<u64>,
    cached_tokens: Loose<u64>,
    cache_write_tokens: Loose<u64>,
    output_tokens: Loose<u64>,
    cost_usd: Loose<f64>,
}

/// What is told by the environment.
pub(super) fn variables(invocation: &Invocation<'_>) -> Vec<(&'static str, String)> {
    let Invocation { model, system, resume, args: _ } = *invocation;
    let told = [("PLIMSOLL_AGENT_SESSION", resume), ("PLIMSOLL_MODEL", model), ("PLIMSOLL_SYSTEM", system)];
    told.into_iter().filter_map(|(name, value)| Some((name, value?.to_owned()))).collect()
}

impl Read for Reader {
    fn line(&mut self, line: &str, speech: &mut Speech) -> Line {
        let Ok(said) = serde_json::from_str::<Said>(line) else { return Line::Unknown };
        match said.kind.0.as_deref() {
            Some("session") => speech.session(said.id.0),
            Some("delta") => {
                self.uncounted = self.uncounted.saturating_add(said.text.0.as_ref().map_or(0, String::len));
                speech.say(said.text.0);
                self.said = speech.said();
            }
            Some("tool_start") => speech.tool_start(said.id.0, said.name.0),
            Some("tool_end") => {
                let failed = said.ok.0 == Some(false) || said.exit_code.0.is_some_and(|code| code != 0);
                speech.tool_end(said.id.0, failed.then(|| tool_error(said.exit_code.0)));
            }
            Some("retry") => speech.tell(Heard::Retry {
                attempt: said.attempt.0.unwrap_or(1),
                after: Duration::from_millis(said.after_ms.0.unwrap_or(0)),
                cause: retry_cause(said.status.0),
            }),
            Some("usage") => {
                self.uncounted = 0;
                self.tally.add(Used {
                    model: said.model.0,
                    input_tokens: said.input_tokens.0,
                    cached_tokens: said.cached_tokens.0,
                    cache_write_tokens: said.cache_write_tokens.0,
                    output_tokens: said.output_tokens.0,
                    cost_usd: dollars(said.cost_usd.0),
                    ..Used::default()
                });
            }
            Some("error") => {
                self.error = Some(api_error(said.status.0, said.message.0.unwrap_or_default()));
            }
            Some("end") => {
                self.ended = true;
                self.finish_reason = said.finish_reason.0.and_then(name);
            }
            _ => return Line::Unknown,
        }
        Line::Known
    }

    fn used(&self) -> Vec<Used> {
        let mut used = self.tally.used();
        if let Some(last) = used.last_mut() {
            last.finish_reason.clone_from(&self.finish_reason);
            last.uncounted = self.uncounted;
        }
        used
    }

    fn verdict(&mut self, exit: Exit) -> Verdict {
        match self.error.take() {
            Some(error) => Verdict::Failed(error),
            None if self.ended || (self.said && exit == Exit::Code(0)) => Verdict::Done,
            None => Verdict::Silent,
        }
    }
}
