//! Providers: what an agent's answer is made by. One trait, one file per kind.
//!
//! A provider knows one wire protocol and nothing of lanes, sessions or who asked. Start at [`Provider`].

mod call;
mod calls;
mod config;
mod echo;
mod emit;
mod error;
mod openai;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use serde::Serialize;
use tracing::Span;

use crate::clock::Clock;
use crate::ids::{AgentId, RequestId, SessionId, TraceId};
use crate::live::Live;

pub use calls::{CallsUsed, RequestCalls};
pub use config::{Config, EchoConfig, OpenAiConfig, Price};
pub use error::ProviderError;

/// Makes answers.
pub trait Provider: Send + Sync {
    /// Its kind, as in the configuration.
    fn kind(&self) -> &'static str;

    /// Who is asked by an agent that names this model, or none.
    fn asks<'a>(&'a self, model: Option<&'a str>) -> Asked<'a>;

    /// Answers one message. Nothing happens before the stream is polled; dropping it cancels the call and records it
    /// as cancelled, or as what [`RequestCalls::stop`] said. The stream ends after [`ProviderEvent::End`].
    fn send(&self, turn: Turn) -> BoxStream<'static, ProviderEvent>;

    /// Looks whether it would answer, without asking for an answer; says in a few words what it found.
    ///
    /// # Errors
    /// [`ProviderError`], in words for an operator.
    fn check(&self) -> BoxFuture<'_, Result<String, ProviderError>>;
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
    /// What is said now.
    pub message: Arc<str>,
    /// How long the answer may take; nothing is tried again that could not end before.
    pub remaining: Duration,
    /// Where its model calls enter themselves.
    pub calls: RequestCalls,
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

/// Makes the provider of one entry under `providers:`.
///
/// # Errors
/// [`BuildError`] when a file it names cannot be read, or its address is none.
pub fn build(name: &str, config: &Config, deps: &ProviderDeps) -> Result<Arc<dyn Provider>, BuildError> {
    match config {
        Config::Echo(echo) => Ok(Arc::new(echo::Echo::new(echo.clone(), deps.clone()))),
        Config::OpenAi(config) => Ok(Arc::new(openai::OpenAi::new(name, config, deps)?)),
    }
}
