//! What is told of each agent.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::floor::AgentLoad;
use super::service::{Agent, Gateway, Inner};
use crate::ids::AgentId;
use crate::lifecycle::{HostKind, InstanceView, Start};

/// One entry of `agent.list`.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentSummary {
    /// The agent.
    pub id: AgentId,
    /// The kind of its provider; of one whose provider is gone, the key that it stood under.
    pub provider: String,
    /// The model it asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Requests of it that may run at once; absent where only the gateway's own cap holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrent: Option<usize>,
    /// Whether an operator paused it: it takes no new work.
    pub paused: bool,
    /// Requests of it that run.
    pub running: usize,
    /// Requests of it that wait.
    pub queued: usize,
    /// Tools it is known to have.
    pub tools: Vec<String>,
    /// Where it lives: `host` (inside plimsoll, or at a model's API), `process` or `container`.
    pub mode: &'static str,
    /// When its instance starts.
    pub start: Start,
    /// Its instance, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceView>,
    /// Whether it was made over the API, and can be deleted there.
    pub made: bool,
    /// Why it takes no messages, of one that was made over the API and does not fit the configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unfit: Option<String>,
}

impl Gateway {
    /// Every agent, by id.
    #[must_use]
    pub fn agents(&self) -> Vec<AgentSummary> {
        let load = self.inner.floor.load_by_agent();
        let show = |(id, agent): (&AgentId, &Arc<Agent>)| {
            let AgentLoad { running, queued } = load.get(id).copied().unwrap_or_default();
            let instance = self.inner.instances.view(id);
            AgentSummary {
                id: id.clone(),
                provider: agent.provider.kind().to_owned(),
                model: agent.config.model.clone(),
                role: agent.config.role.clone(),
                max_concurrent: agent.config.max_concurrent,
                paused: self.inner.pauses.is_paused(id),
                running,
                queued,
                tools: agent.config.tools.clone(),
                mode: instance.as_ref().map_or("host", |instance| instance.mode.as_str()),
                start: instance.as_ref().map_or(Start::Hot, |instance| instance.start),
                instance,
                made: self.inner.made.contains(id),
                unfit: None,
            }
        };
        let mut shown: Vec<_> = self.inner.agents.all().iter().map(show).collect();
        let unfit = self.inner.made.unfit().into_iter();
        shown.extend(unfit.map(|(id, entry, why)| self.inner.unfit(id, &entry, why)));
        shown.sort_by(|a, b| a.id.cmp(&b.id));
        shown
    }
}

impl Inner {
    /// One that does not serve, as far as its entry can be read.
    fn unfit(&self, id: AgentId, entry: &Value, why: String) -> AgentSummary {
        let text = |key: &str| Some(entry.get(key)?.as_str()?.to_owned());
        let provider = text("provider").unwrap_or_default();
        let kind = self.providers.get(&provider).map(|provider| provider.kind().to_owned());
        let instance = entry.get("instance").filter(|instance| instance.is_object());
        let hosts = HostKind::ALL.map(HostKind::as_str);
        let mode = |instance: &Value| hosts.into_iter().find(|host| instance.get(host).is_some());
        let start = |instance: &Value| Start::deserialize(instance.get("start")?).ok();
        let tools = entry.get("tools").and_then(Value::as_array).into_iter().flatten();
        AgentSummary {
            provider: kind.unwrap_or(provider),
            model: text("model"),
            role: text("role"),
            max_concurrent: entry.get("max_concurrent").and_then(|max| usize::deserialize(max).ok()),
            paused: self.pauses.is_paused(&id),
            running: 0,
            queued: 0,
            tools: tools.filter_map(|tool| Some(tool.as_str()?.to_owned())).collect(),
            mode: instance.and_then(mode).unwrap_or("host"),
            start: instance.and_then(start).unwrap_or(Start::Hot),
            instance: None,
            made: true,
            unfit: Some(why),
            id,
        }
    }
}
