//! Entries of `agents:` that come over the API while plimsoll serves: read and checked as those of the files are.
//!
//! Only the files say which programs run on this machine, and with which variables. Start at [`AgentRules`].

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};

use super::agents::{Surroundings, validate_agent};
use super::problem::{ConfigProblem, KeyPath, Origin};
use super::tree::{Entry, Node, Scalar, Value};
use super::{Config, schema};
use crate::gateway::{AgentConfig, BadKey, ReadEntry};
use crate::ids::AgentId;
use crate::lifecycle::EngineConfig;
use crate::provider;

const PROGRAMS: &str = "only the configuration file says which programs run on this machine";
const VARIABLES: &str = "variables are given in the configuration file only: the journal keeps no secrets";

/// What an agent has to fit: its place in the configuration.
pub struct AgentRules {
    running_max: usize,
    providers: BTreeMap<String, provider::Config>,
    engine: EngineConfig,
}

impl AgentRules {
    fn of(config: &Config) -> Self {
        Self {
            running_max: config.gateway.running_max,
            providers: config.providers.clone(),
            engine: config.engine.clone(),
        }
    }

    /// Reads as the rules of this configuration demand.
    #[must_use]
    pub fn reader(config: &Config) -> ReadEntry {
        let rules = Self::of(config);
        Arc::new(move |id, text| rules.read(id, text))
    }

    /// Reads an entry of `agents:` from JSON; a key `id` beside its keys is passed over. Variables are not expanded.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    fn read(&self, id: &AgentId, text: &str) -> Result<AgentConfig, Vec<BadKey>> {
        let Json(mut entry) = serde_json::from_str(text).map_err(|error| vec![no_json(&error)])?;
        let Value::Map(keys) = &mut entry.value else {
            return Err(vec![bad("", "expected an object with the keys of an agent, at least `provider`")]);
        };
        keys.remove("id");
        let mut root = at_home(id, entry);
        root.prune();
        let mut problems = Vec::new();
        let agent = schema::fill_agents(&mut root, &mut problems).remove(id);
        let place =
            Surroundings { running_max: self.running_max, providers: &self.providers, engine: &self.engine };
        problems.extend(agent.iter().flat_map(|agent| validate_agent(id, agent, &place, &root)));
        let mut found: Vec<_> = problems.into_iter().map(|problem| relative(id, problem)).collect();
        found.extend(agent.iter().flat_map(|agent| self.not_over_the_api(agent)));
        match agent {
            Some(agent) if found.is_empty() => Ok(agent),
            Some(_) | None => Err(found),
        }
    }

    fn not_over_the_api(&self, agent: &AgentConfig) -> Vec<BadKey> {
        let mut found = Vec::new();
        if matches!(self.providers.get(&agent.provider), Some(provider::Config::Exec(_))) {
            found.push(bad("provider", PROGRAMS));
        }
        if agent.cwd.is_some() {
            found.push(bad("cwd", "only an agent of `kind: exec` works in a directory"));
        }
        let Some(instance) = &agent.instance else { return found };
        if instance.process.is_some() {
            found.push(bad("instance.process", PROGRAMS));
        }
        if instance.container.as_ref().is_some_and(|container| !container.env.is_empty()) {
            found.push(bad("instance.container.env", VARIABLES));
        }
        found
    }
}

fn bad(key: &str, problem: &str) -> BadKey {
    BadKey { key: key.to_owned(), problem: problem.to_owned() }
}

fn no_json(error: &serde_json::Error) -> BadKey {
    let text = error.to_string();
    bad("", text.rsplit_once(" at line ").map_or(text.as_str(), |(before, _)| before))
}

/// The tree of a configuration with this entry alone.
fn at_home(id: &AgentId, entry: Node) -> Node {
    let within = |key: &str, node| {
        Node::new(Value::Map(BTreeMap::from([(key.to_owned(), Entry { key_at: place(), node })])), place())
    };
    within("agents", within(id.as_str(), entry))
}

/// As its sender sees it: the keys from the entry on.
fn relative(id: &AgentId, problem: ConfigProblem) -> BadKey {
    let ConfigProblem { at: _, key, message } = problem;
    let own = KeyPath::of(&["agents", id.as_str()]).0;
    let key = key.0.strip_prefix(&own[..]).map_or(key.clone(), |rest| KeyPath(rest.to_vec()));
    BadKey { key: key.to_string(), problem: message }
}

fn place() -> Origin {
    Origin::file(Path::new(""))
}

/// A tree from JSON; a key that is there twice is refused.
struct Json(Node);

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl Reader {
    fn scalar<E>(text: impl ToString, plain: bool) -> Result<Json, E> {
        let scalar = Scalar { text: text.to_string(), plain, shown: None };
        Ok(Json(Node::new(Value::Scalar(scalar), place())))
    }
}

impl<'de> Visitor<'de> for Reader {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json(Node::new(Value::Null, place())))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Self::scalar(value, true)
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Self::scalar(value, true)
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Self::scalar(value, true)
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Self::scalar(value, true)
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Self::scalar(value, false)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json, A::Error> {
        let mut nodes = Vec::new();
        while let Some(Json(node)) = list.next_element()? {
            nodes.push(node);
        }
        Ok(Json(Node::new(Value::List(nodes), place())))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut entries = BTreeMap::new();
        while let Some((key, Json(node))) = map.next_entry::<String, Json>()? {
            if entries.contains_key(&key) {
                return Err(A::Error::custom(format!("the key `{key}` is there twice")));
            }
            entries.insert(key, Entry { key_at: place(), node });
        }
        Ok(Json(Node::new(Value::Map(entries), place())))
    }
}
