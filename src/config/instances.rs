//! What `engine:` and `agents.<id>.instance:` may be, and what must fit together.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::path::Path;

use super::Config;
use super::problem::KeyPath;
use super::validate::{Checks, DAY, HOUR, MIB, MINUTE, MS, SECOND, TIB};
use crate::gateway::AgentConfig;
use crate::lifecycle::{
    BindConfig, ContainerHost, EngineConfig, InstanceConfig, ProcessHost, ReadyConfig, ScriptedAct,
    ScriptedHost, Start, Trust,
};
use crate::provider::{self, OpenAiConfig};

impl Checks<'_> {
    pub(super) fn engine(&mut self, config: &EngineConfig) {
        let EngineConfig {
            address,
            trust: _,
            images,
            pull: _,
            pull_timeout,
            bind_root,
            network,
            timeout,
            orphans: _,
        } = config;
        let key = |key: &str| KeyPath::of(&["engine", key]);
        let socket = address.strip_prefix("unix://").is_some_and(|path| path.starts_with('/'));
        if !socket && !is_tcp(address) {
            self.wrong(&key("address"), "expected unix:///path/of/a/socket or tcp://host:port");
        }
        for (index, image) in self.places(&key("images"), images.len()).zip(images) {
            if !is_image(image) {
                self.wrong(&key("images").index(index), "expected an image, such as ghcr.io/acme/agent:1.2");
            }
        }
        self.period(&key("pull_timeout"), *pull_timeout, SECOND..=DAY);
        self.period(&key("timeout"), *timeout, 100 * MS..=10 * MINUTE);
        if bind_root.as_deref().is_some_and(|root| !root.is_absolute() || root == Path::new("/")) {
            self.wrong(&key("bind_root"), "expected an absolute directory, and not the root of everything");
        }
        if network == "host" || network == "none" || network.contains(':') || network.is_empty() {
            self.wrong(
                &key("network"),
                "expected the name of a network that the engine made, such as bridge: containers share neither \
                 this machine's nor another container's",
            );
        }
    }

    /// Whether an agent, its provider and its instance fit together.
    pub(super) fn hosting(
        &mut self,
        path: &KeyPath,
        agent: &AgentConfig,
        provider: Option<&provider::Config>,
        engine: &EngineConfig,
    ) {
        let without_address =
            matches!(provider, Some(provider::Config::OpenAi(OpenAiConfig { base_url: None, .. })));
        match (&agent.instance, provider) {
            (Some(instance), _) => {
                if provider.is_some() && instance.scripted.is_none() && !without_address {
                    self.wrong(
                        &path.key("provider"),
                        "an agent with an `instance` is asked there: name a provider with `kind: openai` and without `base_url`",
                    );
                }
                if instance.scripted.is_some() && without_address {
                    self.wrong(
                        &path.key("provider"),
                        "a scripted instance answers nothing: name another provider",
                    );
                }
                self.instance(&path.key("instance"), instance, engine);
            }
            (None, Some(_)) if without_address => self.wrong(
                &path.key("provider"),
                "this provider has no `base_url`: give it one, or give the agent an `instance`",
            ),
            (None, _) => {}
        }
    }

    /// Two processes cannot answer on one port.
    pub(super) fn ports(&mut self, config: &Config) {
        let mut taken: BTreeMap<u16, KeyPath> = BTreeMap::new();
        for (path, agent) in config.every_agent() {
            let Some(InstanceConfig { port, process: Some(_), .. }) = &agent.instance else { continue };
            match taken.entry(*port) {
                Slot::Vacant(free) => _ = free.insert(path),
                Slot::Occupied(other) => {
                    let message = format!("the process of {} answers on this port already", other.get());
                    self.wrong(&path.key("instance").key("port"), message);
                }
            }
        }
    }

    /// What many agents are made of.
    pub(super) fn template(&mut self, path: &KeyPath, template: &AgentConfig) {
        let container = template.instance.as_ref().and_then(|instance| instance.container.as_ref());
        if container.is_some_and(|container| container.name.is_some()) {
            self.wrong(
                &path.key("instance").key("container").key("name"),
                "a container that somebody else made is one agent's own: give a template an `image`",
            );
        }
    }

    fn instance(&mut self, path: &KeyPath, config: &InstanceConfig, engine: &EngineConfig) {
        let InstanceConfig {
            start,
            idle_after,
            port,
            path: base,
            ready,
            ready_timeout,
            stop_grace,
            waiting_max,
            process,
            container,
            scripted,
        } = config;
        self.period(&path.key("idle_after"), *idle_after, SECOND..=30 * DAY);
        let ports = if scripted.is_some() { 0..=0 } else { 1..=u16::MAX };
        self.range(&path.key("port"), *port, ports);
        self.path(&path.key("path"), base);
        self.period(&path.key("ready_timeout"), *ready_timeout, 100 * MS..=HOUR);
        self.period(&path.key("stop_grace"), *stop_grace, 0..=10 * MINUTE);
        self.range(&path.key("waiting_max"), *waiting_max, 1..=100_000);
        self.ready(&path.key("ready"), ready, container.is_some());
        match (process, container, scripted) {
            (Some(process), None, None) => self.process(&path.key("process"), process),
            (None, None, Some(script)) => self.script(&path.key("scripted"), script),
            (None, Some(container), None) => {
                self.container(&path.key("container"), container, engine);
                if *start == Start::Lazy && engine.trust == Trust::Observe {
                    self.wrong(
                        &path.key("start"),
                        "plimsoll may only look at containers, so it starts none: set `engine.trust` to \
                         start_stop or create, or `start: hot` for one that others keep up",
                    );
                }
            }
            _ => self.wrong(path, "give it one of `process`, `container` and `scripted`"),
        }
    }

    fn script(&mut self, path: &KeyPath, config: &ScriptedHost) {
        let ScriptedHost { starts, stops } = config;
        for (key, acts) in [("starts", starts), ("stops", stops)] {
            for (index, act) in self.places(&path.key(key), acts.len()).zip(acts) {
                let ScriptedAct { takes, fails: _ } = act;
                self.period(&path.key(key).index(index).key("takes"), *takes, 0..=HOUR);
            }
        }
    }

    /// The path of a URL, or nothing.
    fn path(&mut self, path: &KeyPath, text: &str) {
        let fits = text.is_empty() || text.parse::<http::uri::PathAndQuery>().is_ok();
        if !fits || !(text.is_empty() || text.starts_with('/')) {
            self.wrong(path, "expected a path that begins with /, such as /v1");
        }
    }

    fn ready(&mut self, path: &KeyPath, config: &ReadyConfig, in_container: bool) {
        let ReadyConfig { http, line, healthcheck } = config;
        if [http.is_some(), line.is_some(), *healthcheck].into_iter().filter(|given| *given).count() > 1 {
            self.wrong(
                path,
                "give one of `http`, `line` and `healthcheck`, or none: then its port is looked at",
            );
        }
        if let Some(http) = http {
            self.path(&path.key("http"), http);
        }
        if line.as_deref().is_some_and(str::is_empty) {
            self.wrong(&path.key("line"), "expected a part of the line that says that it is ready");
        }
        if *healthcheck && !in_container {
            self.wrong(&path.key("healthcheck"), "only a container has one");
        }
    }

    fn process(&mut self, path: &KeyPath, config: &ProcessHost) {
        let ProcessHost { program, args, env_pass, env } = config;
        if program.is_empty() || program.contains('\0') {
            self.wrong(&path.key("program"), "expected the name or the path of a program");
        }
        self.arguments(&path.key("args"), args);
        self.variables(path, env_pass, env.keys());
    }

    fn container(&mut self, path: &KeyPath, config: &ContainerHost, engine: &EngineConfig) {
        let ContainerHost { name, image, command, env, binds, user, memory_max, cpus, pids_max } = config;
        match (name, image) {
            (Some(name), None) => {
                if !is_container_name(name) {
                    self.wrong(&path.key("name"), "expected the name of a container");
                }
                if is_name_of_ours(name) {
                    self.wrong(
                        &path.key("name"),
                        "containers of such names are plimsoll's own, and removed when no agent needs them: rename it",
                    );
                }
                let limits = ["memory_max", "cpus", "pids_max"];
                let limited = limits.into_iter().any(|key| self.root.get(&path.key(key).0).is_some());
                let made = !command.is_empty() || !env.is_empty() || !binds.is_empty() || user.is_some();
                if made || limited {
                    self.wrong(
                        path,
                        "a container that somebody else made is as it is: leave out all but `name`",
                    );
                }
            }
            (None, Some(image)) => {
                if engine.trust != Trust::Create {
                    self.wrong(&path.key("image"), "to make containers, set `engine.trust: create`");
                }
                if !engine.images.contains(image) {
                    self.wrong(
                        &path.key("image"),
                        "containers are made of images that `engine.images` lists",
                    );
                }
            }
            (Some(_), Some(_)) | (None, None) => self.wrong(path, "give it either a `name` or an `image`"),
        }
        self.arguments(&path.key("command"), command);
        self.variables(path, &[], env.keys());
        for (index, bind) in self.places(&path.key("binds"), binds.len()).zip(binds) {
            self.bind(&path.key("binds").index(index), bind, engine);
        }
        if binds.iter().any(|bind| bind.writable) && !config.is_not_root() {
            self.wrong(
                &path.key("user"),
                "what root in a container writes is root's outside too, also a program that makes its caller root: where a \
                 bind is writable, give the number of another user, such as \"1000:1000\"",
            );
        }
        self.bytes(&path.key("memory_max"), *memory_max, 6 * MIB..=TIB);
        self.range(&path.key("cpus"), *cpus, 0.01..=1_024.0);
        self.range(&path.key("pids_max"), *pids_max, 1..=1_000_000);
    }

    fn bind(&mut self, path: &KeyPath, bind: &BindConfig, engine: &EngineConfig) {
        let BindConfig { source, target, writable: _ } = bind;
        if engine.bind_root.is_none() {
            self.wrong(path, "what containers may see lies under `engine.bind_root`, which is not set");
        }
        if is_tcp(&engine.address) {
            self.wrong(
                path,
                "an engine that is not at unix:// has its own file system, which plimsoll cannot look at: bind nothing",
            );
        }
        if !source.is_absolute() {
            self.wrong(&path.key("source"), "expected an absolute path");
        }
        if !target.starts_with('/') || target == "/" || target.contains([':', '\0']) {
            self.wrong(&path.key("target"), "expected an absolute path in the container, without a colon");
        }
    }
}

fn is_tcp(address: &str) -> bool {
    address.strip_prefix("tcp://").is_some_and(|host| {
        let authority = host.parse::<http::uri::Authority>().ok();
        authority.is_some_and(|authority| authority.port_u16().is_some() && !host.contains('@'))
    })
}

/// The letters that a reference to an image may hold
/// (<https://github.com/distribution/reference/blob/main/regexp.go>).
fn is_image(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
    text.len() <= 512 && text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(fits)
}

/// Whether plimsoll itself calls its containers so: `plimsoll-<agent>-<32 hexadecimal digits>`.
fn is_name_of_ours(text: &str) -> bool {
    let random = text.strip_prefix("plimsoll-").and_then(|rest| rest.rsplit_once('-'));
    random.is_some_and(|(_agent, random)| random.len() == 32 && random.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// As Docker has it: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
fn is_container_name(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    (2..=255).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(fits)
}
