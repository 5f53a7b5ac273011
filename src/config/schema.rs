//! Fills the schema from a tree, and finds everything that does not fit, not only the first.
//!
//! Where a value does not fit, it is put aside with a problem and the rest is read again. Start at [`fill`].

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Error as _};

use super::Config;
use super::de::{Fault, Reader, What, side_by_side, unknown_key};
use super::problem::{ConfigProblem, KeyPath, Step};
use super::tree::{Node, Value};
use crate::gateway::AgentConfig;
use crate::ids::{AgentId, TownId};
use crate::limits::CONFIG_PROBLEMS_MAX;
use crate::provider::{self, AnthropicConfig, EchoConfig, ExecConfig, OpenAiConfig};
use crate::reconciler::{TownConfig, settle_towns};

/// The keys at the top.
pub(crate) const KEYS: [&str; 15] = [
    "data_dir",
    "server",
    "auth",
    "metrics",
    "journal",
    "gateway",
    "live",
    "telemetry",
    "notify",
    "providers",
    "prices",
    "engine",
    "agents",
    "templates",
    "towns",
];

type ReadProvider = fn(&Node) -> Result<provider::Config, Fault>;

/// The kinds of providers: a new one is one line here.
const PROVIDER_KINDS: [(&str, ReadProvider); 4] = [
    ("anthropic", |node| {
        let (own, remote) = side_by_side(node)?;
        Ok(provider::Config::Anthropic(AnthropicConfig { remote, ..own }))
    }),
    ("echo", |node| EchoConfig::deserialize(Reader(node)).map(provider::Config::Echo)),
    ("exec", |node| ExecConfig::deserialize(Reader(node)).map(provider::Config::Exec)),
    ("openai", |node| {
        let (own, remote) = side_by_side(node)?;
        Ok(provider::Config::OpenAi(OpenAiConfig { remote, ..own }))
    }),
];

/// What is expected where the type itself says too little.
const EXPECTED: [(&str, &str); 3] = [
    ("server.listen", "expected an IP address and a port, such as 127.0.0.1:1876 or [::1]:1876"),
    ("server.trusted_proxies", "expected networks, such as 10.0.0.0/8 or 192.0.2.1/32"),
    ("server.allowed_hosts", "expected names, such as plimsoll or plimsoll:1876"),
];

/// Fills the schema. Values that do not fit become problems and are left in the tree as refused.
pub(crate) fn fill(root: &mut Node, problems: &mut Vec<ConfigProblem>) -> Config {
    let unknown: Vec<String> = root.keys().filter(|key| !KEYS.contains(key)).map(str::to_owned).collect();
    let mut filler = Filler { root, problems };
    for key in unknown {
        let path = KeyPath::of(&[&key]);
        filler.note(&path, unknown_key(&key, &KEYS));
        filler.refuse(&path);
    }
    let providers = filler.providers();
    let agents = filler.agents(&providers);
    let towns = filler.towns(&agents);
    Config {
        data_dir: filler.section("data_dir"),
        server: filler.section("server"),
        auth: filler.section("auth"),
        metrics: filler.section("metrics"),
        journal: filler.section("journal"),
        gateway: filler.section("gateway"),
        live: filler.section("live"),
        telemetry: filler.section("telemetry"),
        notify: filler.section("notify"),
        prices: filler.section("prices"),
        engine: filler.section("engine"),
        templates: filler.section("templates"),
        providers,
        agents,
        towns,
    }
}

/// The town that there is where nothing is said of towns.
pub(crate) fn usual_towns(agents: &BTreeMap<AgentId, AgentConfig>) -> BTreeMap<TownId, TownConfig> {
    let main = TownId::parse("main").expect("it keeps the rule");
    let mut towns = BTreeMap::from([(main, TownConfig::default())]);
    settle_towns(&mut towns, agents.keys());
    towns
}

/// The same for a tree with nothing but `agents`.
pub(crate) fn fill_agents(
    root: &mut Node,
    problems: &mut Vec<ConfigProblem>,
) -> BTreeMap<AgentId, AgentConfig> {
    Filler { root, problems }.section("agents")
}

struct Filler<'a> {
    root: &'a mut Node,
    problems: &'a mut Vec<ConfigProblem>,
}

impl Filler<'_> {
    fn section<T: DeserializeOwned + Default>(&mut self, key: &str) -> T {
        self.value(&KeyPath::of(&[key]), |node| T::deserialize(Reader(node))).unwrap_or_default()
    }

    /// Without the key there is one provider `echo`.
    fn providers(&mut self) -> BTreeMap<String, provider::Config> {
        let path = KeyPath::of(&["providers"]);
        let Some(node) = self.root.get(&path.0) else { return Config::default().providers };
        if !matches!(node.value, Value::Map(_)) {
            let _: Option<BTreeMap<String, String>> =
                self.value(&path, |node| Deserialize::deserialize(Reader(node)));
            return BTreeMap::new();
        }
        let names: Vec<String> = node.keys().map(str::to_owned).collect();
        let read = |name: String| Some((name.clone(), self.value(&path.key(&name), provider_config)?));
        names.into_iter().filter_map(read).collect()
    }

    /// Without the key there is one agent `echo`, provided that there is a provider `echo`.
    fn agents(&mut self, providers: &BTreeMap<String, provider::Config>) -> BTreeMap<AgentId, AgentConfig> {
        if self.root.get(&KeyPath::of(&["agents"]).0).is_some() {
            return self.section("agents");
        }
        let mut agents = Config::default().agents;
        agents.retain(|_, agent| providers.contains_key(&agent.provider));
        agents
    }

    /// Without the key there is one town `main`, where every agent works.
    fn towns(&mut self, agents: &BTreeMap<AgentId, AgentConfig>) -> BTreeMap<TownId, TownConfig> {
        if self.root.get(&KeyPath::of(&["towns"]).0).is_none() {
            return usual_towns(agents);
        }
        let mut towns = self.section("towns");
        settle_towns(&mut towns, agents.keys());
        towns
    }

    /// Reads the value at `path`, again and again without what did not fit; `None` if it is not there or is refused
    /// as a whole.
    fn value<T>(&mut self, path: &KeyPath, read: impl Fn(&Node) -> Result<T, Fault>) -> Option<T> {
        loop {
            let node = self.root.get(&path.0).filter(|node| node.value != Value::Refused)?;
            let fault = match read(node) {
                Ok(value) => return Some(value),
                Err(fault) => fault,
            };
            let steps = path.0.iter().cloned().chain(fault.steps.into_iter().rev()).collect();
            let place = KeyPath(steps);
            match fault.what {
                What::Wrong(message) => {
                    let at = fault.at.unwrap_or_else(|| node.at.clone());
                    let message = expectation(&place).map_or(message, str::to_owned);
                    self.push(ConfigProblem::new(Some(at), place.clone(), message));
                }
                What::UnknownKey(message) => self.note(&place, message),
                What::MissingKey(key) => {
                    let missing = place.key(key);
                    // A key that is there and was refused has been told already.
                    if self.root.get(&missing.0).is_none() {
                        self.note(&missing, "the key is missing".to_owned());
                    }
                }
            }
            self.refuse(&place);
        }
    }

    fn note(&mut self, path: &KeyPath, message: String) {
        let at = self.root.origin(path);
        self.push(ConfigProblem::new(at, path.clone(), message));
    }

    fn push(&mut self, problem: ConfigProblem) {
        if self.problems.len() < CONFIG_PROBLEMS_MAX {
            self.problems.push(problem);
        }
    }

    fn refuse(&mut self, path: &KeyPath) {
        let node = self.root.get_mut(&path.0).expect("what was refused stands in the tree");
        node.value = Value::Refused;
    }
}

fn expectation(path: &KeyPath) -> Option<&'static str> {
    let key = path.0.iter().filter(|step| matches!(step, Step::Key(_))).cloned().collect();
    let key = KeyPath(key).to_string();
    EXPECTED.iter().find(|(of, _)| *of == key).map(|(_, text)| *text)
}

/// A provider is read by its kind, so that its keys keep their places.
fn provider_config(node: &Node) -> Result<provider::Config, Fault> {
    let Value::Map(map) = &node.value else {
        return Err(Fault::custom("expected keys and values, at least `kind`"));
    };
    let Some(kind) = map.get("kind") else { return Err(Fault::missing_field("kind")) };
    let read = match &kind.node.value {
        Value::Refused => return Err(Fault::missing_field("kind")),
        Value::Scalar(scalar) => PROVIDER_KINDS.iter().find(|(name, _)| *name == scalar.text),
        Value::Null | Value::List(_) | Value::Map(_) => None,
    };
    let Some((_, read)) = read else {
        let names: Vec<&str> = PROVIDER_KINDS.iter().map(|(name, _)| *name).collect();
        return Err(Fault {
            what: What::Wrong(format!("expected one of {}", names.join(", "))),
            at: Some(kind.node.at.clone()),
            steps: vec![Step::Key("kind".to_owned())],
        });
    };
    let mut rest = map.clone();
    rest.remove("kind");
    read(&Node::new(Value::Map(rest), node.at.clone()))
}
