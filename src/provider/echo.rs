//! `kind: echo`: answers with the message itself, word by word. For trying out, for demos and for tests.
//!
//! A message that asks for an ending, as a town's does, gets one: the work is done, the review approved.
//!
//! Deterministic: whether an answer fails or calls a tool follows from the seed and the message alone. It asks nobody,
//! but its calls are recorded like any other's.

use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt as _};

use super::call::{Call, Used};
use super::{Asked, EchoConfig, Provider, ProviderDeps, ProviderError, ProviderEvent, Turn};

/// The model it claims to be where the agent names none.
const MODEL: &str = "echo";

/// The tool that it calls.
const TOOL: &str = "lookup";

/// What messages that ask for an ending have in them, and the ending that they get.
const ENDINGS: [(&str, &str); 2] = [
    ("{\"outcome\": X", "\n{\"outcome\":\"done\",\"summary\":\"it was said back\"}"),
    ("{\"verdict\": X", "\n{\"verdict\":\"approved\"}"),
];

/// See the module.
pub(super) struct Echo {
    config: EchoConfig,
    deps: ProviderDeps,
}

impl Echo {
    pub(super) fn new(config: EchoConfig, deps: ProviderDeps) -> Self {
        Self { config, deps }
    }
}

impl Provider for Echo {
    fn kind(&self) -> &'static str {
        "echo"
    }

    fn asks<'a>(&'a self, model: Option<&'a str>) -> Asked<'a> {
        asked(model)
    }

    fn send(&self, turn: Turn) -> BoxStream<'static, ProviderEvent> {
        let script = Script::of(&self.config, &turn.message);
        let state = Playing { script, turn, deps: self.deps.clone(), call: None, next: 0, began: None };
        stream::unfold(state, Playing::step).boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<String, ProviderError>> {
        Box::pin(std::future::ready(Ok("answers by itself".to_owned())))
    }
}

fn asked(model: Option<&str>) -> Asked<'_> {
    Asked { provider: "echo", model: model.unwrap_or(MODEL), server: None }
}

/// What an answer will be, decided before it begins.
struct Script {
    events: Vec<Cue>,
    latency: Duration,
    used: Used,
}

/// One event of a script.
enum Cue {
    ToolStart,
    ToolEnd { error: Option<String> },
    Word(String),
    End { ok: bool },
}

impl Script {
    fn of(config: &EchoConfig, message: &str) -> Self {
        let mut draws = Draws::new(config.seed, message);
        let ok = !draws.hits(config.failure_rate);
        let tool = draws.hits(config.tool_rate);
        let tool_fails = draws.hits(config.tool_failure_rate);
        let ending = ENDINGS.iter().find(|(asked, _)| message.contains(asked)).map(|(_, ending)| *ending);
        let words: Vec<&str> = message.split_inclusive(char::is_whitespace).chain(ending).collect();
        let said = if ok { words.len() } else { words.len() / 2 };
        let mut events = Vec::with_capacity(said + 3);
        if tool {
            let error = tool_fails.then(|| "the echo provider was configured to let tools fail".to_owned());
            events.extend([Cue::ToolStart, Cue::ToolEnd { error }]);
        }
        events.extend(words[..said].iter().map(|word| Cue::Word((*word).to_owned())));
        events.push(Cue::End { ok });
        let count = |n: usize| Some(u64::try_from(n).unwrap_or(u64::MAX));
        let used = Used {
            input_tokens: count(message.split_whitespace().count()),
            output_tokens: count(words[..said].iter().filter(|w| !w.trim().is_empty()).count()),
            finish_reason: Some("stop".to_owned()),
            ..Used::default()
        };
        Self { events, latency: config.latency.0, used }
    }

    /// When an event is due: evenly spread, so that the last falls on the whole latency.
    fn due(&self, index: usize) -> Duration {
        self.latency.mul_f64((index + 1) as f64 / self.events.len() as f64)
    }
}

/// A script being played.
struct Playing {
    script: Script,
    turn: Turn,
    deps: ProviderDeps,
    call: Option<Call>,
    next: usize,
    /// On the monotonic clock.
    began: Option<Duration>,
}

impl Playing {
    async fn step(mut self) -> Option<(ProviderEvent, Self)> {
        if self.next >= self.script.events.len() {
            return None;
        }
        let now = self.deps.clock.elapsed();
        let began = *self.began.get_or_insert(now);
        if self.next == 0 {
            let asked = asked(self.turn.model.as_deref());
            self.call = Some(Call::start(&self.deps, &self.turn, &asked));
        }
        let wait = (began + self.script.due(self.next)).saturating_sub(now);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        let id = || "1".to_owned();
        let event = match &mut self.script.events[self.next] {
            Cue::ToolStart => ProviderEvent::ToolStart { id: id(), name: TOOL.to_owned() },
            Cue::ToolEnd { error } => {
                ProviderEvent::ToolEnd { id: id(), name: TOOL.to_owned(), error: error.take() }
            }
            Cue::Word(word) => {
                self.call.iter_mut().for_each(Call::token_arrived);
                self.call.iter_mut().for_each(|call| call.wrote(word.len()));
                ProviderEvent::Delta(std::mem::take(word))
            }
            Cue::End { ok } => {
                let result = if *ok { Ok(()) } else { Err(ProviderError::Simulated) };
                let mut call = self.call.take().expect("a script ends its call once");
                call.report.used = std::mem::take(&mut self.script.used);
                call.end(&result);
                ProviderEvent::End(result)
            }
        };
        self.next += 1;
        Some((event, self))
    }
}

/// Numbers that look random and follow from seed and message: FNV-1a, stirred by `SplitMix64`
/// (<https://prng.di.unimi.it/splitmix64.c>).
struct Draws(u64);

impl Draws {
    fn new(seed: u64, message: &str) -> Self {
        let start = 0xcbf2_9ce4_8422_2325 ^ seed;
        Self(message.bytes().fold(start, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)))
    }

    fn hits(&mut self, rate: f64) -> bool {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        ((z >> 11) as f64) < rate * (1_u64 << 53) as f64
    }
}
