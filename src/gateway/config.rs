//! The configuration keys `gateway:` and `agents:`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::lifecycle::InstanceConfig;
use crate::units::{Bytes, Period};

/// `gateway:`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Requests that may run at once over all agents; 1 to 100,000.
    pub running_max: usize,
    /// Requests that may wait over all lanes; 1 to 1,000,000.
    pub queued_max: usize,
    /// Requests that may wait in one lane; 1 to 100,000.
    pub lane_depth_max: usize,
    /// Bytes of one message; 1 to 16 MiB.
    pub message_bytes_max: Bytes,
    /// Bytes of the messages of all requests under way, waiting or running; [`Config::message_bytes_max`] to 64 GiB.
    pub active_bytes_max: Bytes,
    /// Sessions kept in memory; the one idle longest goes first; 1 to 1,000,000.
    pub sessions_max: usize,
    /// A session idle for this long is forgotten; 1 s to 30 d.
    pub session_idle: Period,
    /// Messages of history kept per session; 0 to 10,000.
    pub history_messages_max: usize,
    /// Bytes of history kept per session; 0 to 64 MiB.
    pub history_bytes_max: Bytes,
    /// Bytes of history kept over all sessions; the one idle longest goes first; [`Config::history_bytes_max`] to
    /// 64 GiB.
    pub sessions_bytes_max: Bytes,
    /// How long a request may take where neither it nor its agent says, for agents at a model's API; 1 s to 24 h.
    pub deadline: Period,
    /// The same for agents that work in a process of their own; 1 s to 24 h.
    pub deadline_process: Period,
    /// How long the end of a request can be asked for (`request.get`); 0 s to 24 h.
    pub answers_kept: Period,
    /// Ends of requests kept for that; past it the oldest of whoever has the most goes first; 0 to 1,000,000.
    pub answers_max: usize,
    /// Bytes of the answers among them; 0 to 64 GiB.
    pub answers_bytes_max: Bytes,
    /// The time zone in which a day of a budget begins: an IANA name.
    pub time_zone: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            running_max: 1_024,
            queued_max: 10_000,
            lane_depth_max: 200,
            message_bytes_max: Bytes(1 << 20),
            active_bytes_max: Bytes(256 << 20),
            sessions_max: 10_000,
            session_idle: Period::from_secs(3_600),
            history_messages_max: 100,
            history_bytes_max: Bytes(256 << 10),
            sessions_bytes_max: Bytes(256 << 20),
            deadline: Period::from_secs(300),
            deadline_process: Period::from_secs(3_600),
            answers_kept: Period::from_secs(3_600),
            answers_max: 10_000,
            answers_bytes_max: Bytes(64 << 20),
            time_zone: "UTC".to_owned(),
        }
    }
}

/// One entry of `agents:`, keyed by the agent's id.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// The key of an entry under `providers:`.
    pub provider: String,
    /// The model to ask for; a provider of `kind: openai` needs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Instructions sent before the conversation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// What it is for, in a word; shown by `GET /agents`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The directory that it works in; an agent of a provider of `kind: exec` needs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<PathBuf>,
    /// Requests of this agent that may run at once; 1 to `gateway.running_max`. Where an agent works in a process of
    /// its own, 1 unless this says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrent: Option<usize>,
    /// US dollars that it may spend in a day; 0 to 1,000,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usd_per_day: Option<f64>,
    /// Tokens, read and written, that it may use in a minute; 1 to 1,000,000,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_min: Option<u64>,
    /// Requests that it takes in a minute; 1 to 1,000,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_min: Option<u32>,
    /// How long one of its requests may take; 1 s to 24 h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Period>,
    /// Names of tools it is known to have; `/health` counts them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<String>,
    /// The process or the container that hosts it, for one whose provider is of `kind: openai` and has no `base_url`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceConfig>,
}

impl AgentConfig {
    /// Whether it has a process or a container of its own beside plimsoll.
    #[must_use]
    pub fn is_beside(&self) -> bool {
        self.instance.as_ref().is_some_and(|instance| instance.scripted.is_none())
    }

    /// An agent with nothing but a provider.
    #[must_use]
    pub fn of_provider(provider: &str) -> Self {
        Self {
            provider: provider.to_owned(),
            model: None,
            system: None,
            role: None,
            cwd: None,
            max_concurrent: None,
            usd_per_day: None,
            tokens_per_min: None,
            requests_per_min: None,
            deadline: None,
            tools: Vec::new(),
            instance: None,
        }
    }
}
