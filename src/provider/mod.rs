//! Providers: what an agent's answer is made by. One trait, one file per kind.
//!
//! A provider knows one wire protocol and nothing of lanes, sessions or who asked. Start at [`Provider`].

mod anthropic;
mod call;
mod calls;
mod config;
mod echo;
mod emit;
mod error;
mod exec;
mod openai;
mod quote;
mod remote;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use serde::Serialize;
use serde_json::Value;
use tracing::Span;

use crate::clock::Clock;
use crate::ids::{AgentId, RequestId, SessionId, TraceId};
use crate::live::{Heard, Live};
use crate::process::Processes;

pub(crate) use call::price_of;
pub use calls::{CallsUsed, ModelUsed, OTHER_MODELS, RequestCalls};
pub use config::{AnthropicConfig, Config, EchoConfig, OpenAiConfig, Price, RemoteConfig};
pub use error::ProviderError;
pub use exec::{Dialect, ExecConfig, MessageRoad};
pub use quote::{Edges, Mask};

/// The model that is asked for where an agent names none: a server with one model takes any name, and a program has one
/// of its own.
const MODEL_DEFAULT: &str = "default";

/// Makes answers.
pub trait Provider: Send + Sync {
    /// Its kind, as in the configuration.
    fn kind(&self) -> &'static str;

    /// Where its agents work.
    fn hosting(&self) -> Hosting {
        Hosting::Remote
    }

    /// Who is asked by an agent that names this model, or none.
    fn asks<'a>(&'a self, model: Option<&'a str>) -> Asked<'a>;

    /// Why it cannot take this message at all, or these instructions that came with it, for whoever sent them; `None`
    /// if it can.
    fn refuses(&self, message: &str, system: Option<&str>) -> Option<Refusal> {
        let _ = (message, system);
        None
    }

    /// Answers one message. Nothing happens before the stream is polled; dropping it cancels the call and records it
    /// as cancelled, or as what [`RequestCalls::stop`] said. The stream ends after [`ProviderEvent::End`].
    fn send(&self, turn: Turn) -> BoxStream<'static, ProviderEvent>;

    /// Looks whether it would answer, without asking for an answer; says in a few words what it found.
    ///
    /// # Errors
    /// [`ProviderError`], in words for an operator.
    fn check(&self) -> BoxFuture<'_, Result<String, ProviderError>>;

    /// Waits until nothing is left of the turns that ended or were dropped; bounded. To be called when no more come.
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// What cannot be taken, and what is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// `message` or `system`.
    pub field: &'static str,
    /// What would be right.
    pub problem: &'static str,
}

/// Where an agent works. From it follow how long it may take and how much it may do at once where nobody says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hosting {
    /// At a model's API, or inside plimsoll itself: minutes, and many at once.
    Remote,
    /// In a process of its own on this machine: an hour, and one at a time, because two runs in one directory spoil
    /// each other.
    Process,
}

/// Who is asked for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked<'a> {
    /// `gen_ai.provider.name`.
    pub provider: &'a str,
    /// `gen_ai.request.model`.
    pub model: &'a str,
    /// `server.address` and `server.port`, where there is a server.
    pub server: Option<(&'a str, u16)>,
}

/// What a provider needs to answer one message.
#[derive(Debug, Clone)]
pub struct Turn {
    /// Who answers.
    pub agent: AgentId,
    /// The conversation.
    pub session: SessionId,
    /// The request.
    pub request_id: RequestId,
    /// The trace of the request.
    pub trace_id: TraceId,
    /// The span that model calls and tool calls stand in.
    pub span: Span,
    /// The model to ask for, where the agent names one.
    pub model: Option<String>,
    /// Instructions that come before the conversation.
    pub system: Option<String>,
    /// What was said before, oldest first.
    pub history: Vec<Message>,
    /// The agent's own name for this conversation, as it told it before ([`ProviderEvent::AgentSession`]).
    pub agent_session: Option<String>,
    /// Whether a next turn may go on with the conversation.
    pub remembered: bool,
    /// The directory that the agent works in, for one that runs on this machine.
    pub cwd: Option<PathBuf>,
    /// What is said now.
    pub message: Arc<str>,
    /// The JSON Schema of the whole answer, for a provider whose models take one: every key required, and no others.
    pub answer_schema: Option<Arc<Value>>,
    /// How long the answer may take; nothing is tried again that could not end before.
    pub remaining: Duration,
    /// Where its model calls enter themselves.
    pub calls: RequestCalls,
    /// Asked before a call that failed goes out again.
    pub retry: MayRetry,
    /// Where the agent's instance answers, for one that has one.
    pub at: Option<At>,
}

/// Where an instance answers, over plain HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At {
    /// An IP address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What the paths of its API stand under: begins with `/`, or is empty.
    pub path: String,
}

impl At {
    fn url(&self, path: &str) -> Option<reqwest::Url> {
        let Self { host, port, path: base } = self;
        let bracketed = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        reqwest::Url::parse(&format!("http://{bracketed}:{port}{}/{path}", base.trim_end_matches('/'))).ok()
    }
}

/// Says whether a call may go out again: what its agent may spend can be spent meanwhile.
#[derive(Clone)]
pub struct MayRetry(Arc<dyn Fn() -> bool + Send + Sync>);

impl MayRetry {
    /// As this says.
    pub fn new(may: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(may))
    }

    fn now(&self) -> bool {
        (self.0)()
    }
}

impl std::fmt::Debug for MayRetry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MayRetry")
    }
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Message {
    /// Who said it.
    pub role: Speaker,
    /// What was said.
    pub text: Arc<str>,
}

/// Who said something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Speaker {
    /// The caller.
    User,
    /// The agent.
    Assistant,
}

/// What happens while an answer is made, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum ProviderEvent {
    /// A piece of the answer; not empty.
    Delta(String),
    /// The agent began to use a tool.
    ToolStart {
        /// Pairs it with its end.
        id: String,
        /// The tool's name.
        name: String,
    },
    /// A tool ended.
    ToolEnd {
        /// The id it started with.
        id: String,
        /// The tool's name.
        name: String,
        /// Why it failed, if it did.
        error: Option<String>,
    },
    /// The model asked for a tool that nobody here runs; the answer says so.
    ToolRequested {
        /// The tool's name.
        name: String,
    },
    /// The agent keeps this conversation itself, under this name; it wants to hear it next time. At most
    /// [`AGENT_SESSION_BYTES_MAX`](crate::limits::AGENT_SESSION_BYTES_MAX), no control characters.
    AgentSession(String),
    /// It will be tried again.
    Retry {
        /// From 1.
        attempt: u32,
        /// How long from now.
        after: Duration,
        /// What went wrong, for the caller.
        cause: String,
    },
    /// The answer is complete, or will not be.
    End(Result<(), ProviderError>),
}

/// What all providers share.
#[derive(Clone)]
pub struct ProviderDeps {
    /// US dollars per million tokens, by model.
    pub prices: Arc<BTreeMap<String, Price>>,
    /// Where model calls are recorded.
    pub live: Arc<Live>,
    /// Measures model calls.
    pub clock: Clock,
    /// Takes every secret of the configuration out of what servers and programs say.
    pub mask: Mask,
    /// The programs that run for agents.
    pub processes: Processes,
}

impl ProviderDeps {
    /// Keeps what instances print, for the operator who looks over an agent's shoulder.
    #[must_use]
    pub fn heard(&self) -> Heard {
        let (live, mask) = (Arc::clone(&self.live), self.mask.clone());
        Arc::new(move |agent, stream, line| {
            live.record_output(agent, None, stream, &mask.hide(&String::from_utf8_lossy(line)));
        })
    }
}

/// Why a provider cannot be made from its configuration.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Its address is none, or a file cannot be used.
    #[error("provider {name}: {problem}")]
    Invalid {
        /// Its key under `providers:`.
        name: String,
        /// What is wrong and what would be right.
        problem: String,
    },
}

/// Makes every provider, by its name.
///
/// # Errors
/// See [`build`].
pub fn build_all(
    configs: &BTreeMap<String, Config>,
    deps: &ProviderDeps,
) -> Result<BTreeMap<String, Arc<dyn Provider>>, BuildError> {
    configs.iter().map(|(name, config)| Ok((name.clone(), build(name, config, deps)?))).collect()
}

/// Makes the provider of one entry under `providers:`.
///
/// # Errors
/// [`BuildError`] when a file it names cannot be read, or its address is none.
pub fn build(name: &str, config: &Config, deps: &ProviderDeps) -> Result<Arc<dyn Provider>, BuildError> {
    match config {
        Config::Echo(echo) => Ok(Arc::new(echo::Echo::new(echo.clone(), deps.clone()))),
        Config::OpenAi(config) => Ok(Arc::new(openai::build(name, config, deps)?)),
        Config::Anthropic(config) => Ok(Arc::new(anthropic::build(name, config, deps)?)),
        Config::Exec(config) => Ok(Arc::new(exec::Exec::new(config, deps))),
    }
}
