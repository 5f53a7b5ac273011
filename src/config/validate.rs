//! What values may be: the range of every number, and what must fit together.
//!
//! Each struct is taken apart by name, so that a new key does not compile before somebody says here what it may be.
//! Start at [`validate`].

use std::fmt::Display;
use std::ops::RangeInclusive;

use super::Config;
use super::agents::Surroundings;
use super::problem::{ConfigProblem, KeyPath, nearest};
use super::tree::{Node, Value};
use crate::units::{Bytes, Period};
use crate::{api, gateway, journal, live, provider, telemetry};

pub(super) const MS: u64 = 1;
pub(super) const SECOND: u64 = 1_000;
pub(super) const MINUTE: u64 = 60 * SECOND;
pub(super) const HOUR: u64 = 60 * MINUTE;
pub(super) const DAY: u64 = 24 * HOUR;
pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;
pub(super) const GIB: u64 = 1 << 30;
pub(super) const TIB: u64 = 1 << 40;

/// Checks every value; `root` says where they stand.
pub(crate) fn validate(config: &Config, root: &Node) -> Vec<ConfigProblem> {
    let mut checks = Checks { root, problems: Vec::new() };
    let Config {
        data_dir: _,
        server,
        auth,
        metrics: api::MetricsConfig { public: _ },
        journal,
        gateway,
        live,
        telemetry,
        notify,
        providers,
        prices,
        engine,
        agents: _,
        templates: _,
        towns,
    } = config;
    checks.server(server);
    checks.auth(auth);
    checks.journal(journal);
    checks.gateway(gateway);
    checks.live(live);
    checks.telemetry(telemetry);
    checks.webhooks(notify);
    for (name, provider) in providers {
        checks.provider(&KeyPath::of(&["providers", name]), provider);
    }
    for (model, price) in prices {
        checks.price(&KeyPath::of(&["prices", model]), price);
    }
    let names: Vec<&str> = match root.get(&KeyPath::of(&["providers"]).0) {
        // Also those that do not fit: one mistake is told once.
        Some(node) => node.keys().collect(),
        None => providers.keys().map(String::as_str).collect(),
    };
    checks.engine(engine);
    let place = Surroundings { running_max: gateway.running_max, providers, engine };
    for (path, agent) in config.every_agent() {
        checks.whole_agent(&path, agent, &place, &names);
    }
    for (id, template) in &config.templates {
        checks.template(&KeyPath::of(&["templates", id.as_str()]), template);
    }
    checks.ports(config);
    checks.towns(towns, &config.agents);
    checks.problems
}

pub(super) struct Checks<'a> {
    pub(super) root: &'a Node,
    pub(super) problems: Vec<ConfigProblem>,
}

impl Checks<'_> {
    pub(super) fn wrong(&mut self, path: &KeyPath, message: impl Into<String>) {
        self.problems.push(ConfigProblem::new(self.root.origin(path), path.clone(), message));
    }

    pub(super) fn range<T: PartialOrd + Display>(
        &mut self,
        path: &KeyPath,
        value: T,
        range: RangeInclusive<T>,
    ) {
        if !range.contains(&value) {
            self.wrong(path, format!("expected {} to {}", range.start(), range.end()));
        }
    }

    pub(super) fn period(&mut self, path: &KeyPath, value: Period, millis: RangeInclusive<u64>) {
        self.range(path, value, Period::from_millis(*millis.start())..=Period::from_millis(*millis.end()));
    }

    pub(super) fn bytes(&mut self, path: &KeyPath, value: Bytes, bytes: RangeInclusive<u64>) {
        self.range(path, value, Bytes(*bytes.start())..=Bytes(*bytes.end()));
    }

    /// Where the elements of a list stand that were not refused.
    pub(super) fn places(&self, list: &KeyPath, length: usize) -> impl Iterator<Item = usize> + use<> {
        let places: Vec<usize> = match self.root.get(&list.0).map(|node| &node.value) {
            Some(Value::List(nodes)) => {
                (0..nodes.len()).filter(|index| nodes[*index].value != Value::Refused).collect()
            }
            _ => (0..length).collect(),
        };
        places.into_iter()
    }

    fn server(&mut self, config: &api::Config) {
        let api::Config {
            listen,
            allowed_hosts,
            tls,
            insecure_plaintext,
            trusted_proxies: _,
            connections_max,
            body_bytes_max,
            batch_max,
            header_timeout,
            body_timeout,
            idle_timeout,
            requests_per_second: _,
            shutdown_grace,
        } = config;
        let key = |key: &str| KeyPath::of(&["server", key]);
        let exposed = !listen.ip().to_canonical().is_loopback();
        let whole = !self.root.get(&KeyPath::of(&["server"]).0).is_some_and(Node::has_refused);
        if exposed && tls.is_none() && !insecure_plaintext && whole {
            self.wrong(&key("listen"), "beyond loopback it needs `server.tls` with cert_file and key_file; behind a proxy or in a private network say `insecure_plaintext: true`");
        }
        for (index, host) in self.places(&key("allowed_hosts"), allowed_hosts.len()).zip(allowed_hosts) {
            if !is_host(host) {
                self.wrong(
                    &key("allowed_hosts").index(index),
                    "expected a name or name:port, such as plimsoll:1876, without http:// and without a path",
                );
            }
        }
        self.range(&key("connections_max"), *connections_max, 1..=100_000);
        self.bytes(&key("body_bytes_max"), *body_bytes_max, KIB..=64 * MIB);
        self.range(&key("batch_max"), *batch_max, 1..=1_000);
        self.period(&key("header_timeout"), *header_timeout, 100 * MS..=60 * SECOND);
        self.period(&key("body_timeout"), *body_timeout, 100 * MS..=10 * MINUTE);
        self.period(&key("idle_timeout"), *idle_timeout, SECOND..=HOUR);
        self.period(&key("shutdown_grace"), *shutdown_grace, 0..=HOUR);
    }

    fn auth(&mut self, config: &api::AuthConfig) {
        let api::AuthConfig { tokens, failures_per_minute } = config;
        self.range(&KeyPath::of(&["auth", "failures_per_minute"]), *failures_per_minute, 1..=10_000);
        let list = KeyPath::of(&["auth", "tokens"]);
        for (index, (place, token)) in self.places(&list, tokens.len()).zip(tokens).enumerate() {
            let path = list.index(place);
            let api::TokenConfig { name, role, sha256, town, agent } = token;
            if tokens[..index].iter().any(|before| before.name == *name) {
                self.wrong(&path.key("name"), "another token has this name already");
            }
            if sha256.len() != 64 || !sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
                self.wrong(
                    &path.key("sha256"),
                    "expected 64 hexadecimal digits, as `plimsoll token hash` prints",
                );
            }
            for (bound, key) in [(town.is_some(), "town"), (agent.is_some(), "agent")] {
                if bound && *role != api::Role::Agent {
                    self.wrong(&path.key(key), "only a token with `role: agent` can be bound");
                }
            }
        }
    }

    fn journal(&mut self, config: &journal::Config) {
        let journal::Config { audit, work, partition_records_max, partition_bytes_max, partition_age_max } =
            config;
        let key = |key: &str| KeyPath::of(&["journal", key]);
        for (log, journal::Retention { age_max, bytes_max }) in [("audit", audit), ("work", work)] {
            self.period(&key(log).key("age_max"), *age_max, MINUTE..=3_650 * DAY);
            self.bytes(&key(log).key("bytes_max"), *bytes_max, 16 * MIB..=TIB);
        }
        self.range(&key("partition_records_max"), *partition_records_max, 1_000..=10_000_000);
        self.bytes(&key("partition_bytes_max"), *partition_bytes_max, MIB..=16 * GIB);
        self.period(&key("partition_age_max"), *partition_age_max, MINUTE..=30 * DAY);
    }

    fn gateway(&mut self, config: &gateway::Config) {
        let gateway::Config {
            running_max,
            queued_max,
            lane_depth_max,
            message_bytes_max,
            active_bytes_max,
            sessions_max,
            session_idle,
            history_messages_max,
            history_bytes_max,
            sessions_bytes_max,
            deadline,
            deadline_process,
            answers_kept,
            answers_max,
            answers_bytes_max,
            time_zone,
        } = config;
        let key = |key: &str| KeyPath::of(&["gateway", key]);
        self.range(&key("running_max"), *running_max, 1..=100_000);
        self.range(&key("queued_max"), *queued_max, 1..=1_000_000);
        self.range(&key("lane_depth_max"), *lane_depth_max, 1..=100_000);
        self.bytes(&key("message_bytes_max"), *message_bytes_max, 1..=16 * MIB);
        self.bytes(&key("active_bytes_max"), *active_bytes_max, message_bytes_max.0..=64 * GIB);
        self.range(&key("sessions_max"), *sessions_max, 1..=1_000_000);
        self.period(&key("session_idle"), *session_idle, SECOND..=30 * DAY);
        self.range(&key("history_messages_max"), *history_messages_max, 0..=10_000);
        self.bytes(&key("history_bytes_max"), *history_bytes_max, 0..=64 * MIB);
        self.bytes(&key("sessions_bytes_max"), *sessions_bytes_max, history_bytes_max.0..=64 * GIB);
        self.period(&key("deadline"), *deadline, SECOND..=DAY);
        self.period(&key("deadline_process"), *deadline_process, SECOND..=DAY);
        self.period(&key("answers_kept"), *answers_kept, 0..=DAY);
        self.range(&key("answers_max"), *answers_max, 0..=1_000_000);
        self.bytes(&key("answers_bytes_max"), *answers_bytes_max, 0..=64 * GIB);
        if jiff::tz::TimeZone::get(time_zone).is_err() {
            self.wrong(
                &key("time_zone"),
                "expected the IANA name of a time zone, such as UTC or Europe/Berlin",
            );
        }
    }

    fn live(&mut self, config: &live::Config) {
        let live::Config { model_calls, events } = config;
        self.range(&KeyPath::of(&["live", "model_calls"]), *model_calls, 1..=100_000);
        self.range(&KeyPath::of(&["live", "events"]), *events, 1..=100_000);
    }

    fn telemetry(&mut self, config: &telemetry::Config) {
        let telemetry::Config { log, otlp, sentry } = config;
        self.sentry(sentry);
        let telemetry::LogConfig { level, format: _ } = log;
        if let Some(problem) = level_problem(level) {
            self.wrong(&KeyPath::of(&["telemetry", "log", "level"]), problem);
        }
        let telemetry::OtlpConfig { endpoint, protocol: _, headers, timeout, ca_file: _, sample_ratio } =
            otlp;
        let key = |key: &str| KeyPath::of(&["telemetry", "otlp", key]);
        if let Some(endpoint) = endpoint {
            self.url(&key("endpoint"), endpoint);
        }
        for name in headers.keys() {
            if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
                self.wrong(&key("headers").key(name), "expected the name of a header");
            }
        }
        if let Some(timeout) = timeout {
            self.period(&key("timeout"), *timeout, 10 * MS..=60 * SECOND);
        }
        if let Some(ratio) = sample_ratio {
            self.range(&key("sample_ratio"), *ratio, 0.0..=1.0);
        }
    }

    fn provider(&mut self, path: &KeyPath, config: &provider::Config) {
        match config {
            provider::Config::Echo(config) => self.echo(path, config),
            provider::Config::OpenAi(config) => self.openai(path, config),
            provider::Config::Anthropic(config) => self.anthropic(path, config),
            provider::Config::Exec(config) => self.exec(path, config),
        }
    }

    fn echo(&mut self, path: &KeyPath, config: &provider::EchoConfig) {
        let provider::EchoConfig { latency, failure_rate, tool_rate, tool_failure_rate, seed: _ } = config;
        self.period(&path.key("latency"), *latency, 0..=HOUR);
        self.range(&path.key("failure_rate"), *failure_rate, 0.0..=1.0);
        self.range(&path.key("tool_rate"), *tool_rate, 0.0..=1.0);
        self.range(&path.key("tool_failure_rate"), *tool_failure_rate, 0.0..=1.0);
    }

    fn openai(&mut self, path: &KeyPath, config: &provider::OpenAiConfig) {
        let provider::OpenAiConfig { base_url, remote } = config;
        if let Some(base_url) = base_url {
            self.url(&path.key("base_url"), base_url);
        }
        self.remote(path, remote);
    }

    fn anthropic(&mut self, path: &KeyPath, config: &provider::AnthropicConfig) {
        let provider::AnthropicConfig { base_url, max_tokens, remote } = config;
        self.url(&path.key("base_url"), base_url);
        self.range(&path.key("max_tokens"), *max_tokens, 1..=1_000_000);
        self.remote(path, remote);
    }

    fn remote(&mut self, path: &KeyPath, config: &provider::RemoteConfig) {
        let provider::RemoteConfig {
            api_key,
            api_key_file,
            ca_file: _,
            stream: _,
            json_schema: _,
            retries,
            connect_timeout,
            idle_timeout,
        } = config;
        if api_key.is_some() && api_key_file.is_some() {
            self.wrong(&path.key("api_key_file"), "give either `api_key` or `api_key_file`, not both");
        }
        self.range(&path.key("retries"), *retries, 0..=10);
        self.period(&path.key("connect_timeout"), *connect_timeout, 10 * MS..=60 * SECOND);
        self.period(&path.key("idle_timeout"), *idle_timeout, SECOND..=HOUR);
    }

    fn exec(&mut self, path: &KeyPath, config: &provider::ExecConfig) {
        let provider::ExecConfig {
            program,
            dialect: _,
            args,
            message: _,
            env_pass,
            env,
            output_bytes_max,
            line_bytes_max,
            kill_grace,
        } = config;
        if let Some(problem) = config.wrong_road() {
            self.wrong(&path.key("message"), problem);
        }
        if program.is_empty() || program.contains('\0') {
            self.wrong(&path.key("program"), "expected the name or the path of a program");
        }
        self.arguments(&path.key("args"), args);
        self.variables(path, env_pass, env.keys());
        self.bytes(&path.key("output_bytes_max"), *output_bytes_max, 4 * KIB..=16 * GIB);
        self.bytes(&path.key("line_bytes_max"), *line_bytes_max, KIB..=64 * MIB);
        self.period(&path.key("kill_grace"), *kill_grace, 0..=60 * SECOND);
    }

    pub(super) fn arguments(&mut self, path: &KeyPath, arguments: &[String]) {
        for (index, argument) in self.places(path, arguments.len()).zip(arguments) {
            if argument.contains('\0') {
                self.wrong(&path.index(index), "an argument cannot hold a NUL");
            }
        }
    }

    /// The names under `env_pass` and `env`.
    pub(super) fn variables<'e>(
        &mut self,
        path: &KeyPath,
        env_pass: &[String],
        env: impl Iterator<Item = &'e String>,
    ) {
        let names = env_pass.iter().zip(self.places(&path.key("env_pass"), env_pass.len()));
        let names = names.map(|(name, index)| (path.key("env_pass").index(index), name));
        let names: Vec<_> = names.chain(env.map(|name| (path.key("env").key(name), name))).collect();
        for (at, name) in names {
            if !is_variable(name) {
                self.wrong(&at, "expected the name of a variable: letters, digits and _, no digit first");
            } else if name.starts_with("PLIMSOLL_") {
                self.wrong(
                    &at,
                    "variables of plimsoll's own are not handed on: it sets those that an agent needs",
                );
            }
        }
    }

    /// An address to call: it stands in logs and traces, so no credentials may stand in it.
    fn url(&mut self, path: &KeyPath, text: &str) {
        let Some(url) = reqwest::Url::parse(text).ok().filter(|url| url.has_host()) else {
            return self.wrong(path, "expected an address such as https://host:port/path");
        };
        if !matches!(url.scheme(), "http" | "https") {
            self.wrong(path, "expected an address that begins with http:// or https://");
        }
        if !url.username().is_empty() || url.password().is_some() {
            self.wrong(path, "an address holds no user name and no password: give the key apart from it");
        }
    }

    fn price(&mut self, path: &KeyPath, price: &provider::Price) {
        let provider::Price { input, output, cache_read, cache_write } = price;
        let given = [
            ("input", Some(*input)),
            ("output", Some(*output)),
            ("cache_read", *cache_read),
            ("cache_write", *cache_write),
        ];
        for (key, dollars) in given {
            if let Some(dollars) = dollars {
                self.range(&path.key(key), dollars, 0.0..=1_000_000.0);
            }
        }
    }
}

/// Why this is no filter of log lines. A bare word would be taken as the name of a module, and so silence the others.
fn level_problem(filter: &str) -> Option<String> {
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    let is_level = |word: &str| word.parse::<tracing_subscriber::filter::LevelFilter>().is_ok();
    let is_bare = |part: &&str| !part.is_empty() && !part.contains(['=', ':', '[']);
    let bare = filter.split(',').map(str::trim).filter(is_bare).find(|part| !is_level(part));
    if bare.is_none() && tracing_subscriber::EnvFilter::try_new(filter).is_ok() {
        return None;
    }
    let near = bare.and_then(|word| nearest(&word.to_ascii_lowercase(), LEVELS));
    let near = near.map(|level| format!("; did you mean `{level}`?")).unwrap_or_default();
    let levels = LEVELS.join(", ");
    Some(format!("expected {levels}, or a filter such as info,plimsoll::journal=debug{near}"))
}

fn is_variable(name: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.starts_with(|c: char| word(c) && !c.is_ascii_digit()) && name.chars().all(word)
}

fn is_host(text: &str) -> bool {
    let authority = text.parse::<http::uri::Authority>().ok();
    authority.is_some_and(|authority| !authority.as_str().contains('@') && !authority.host().is_empty())
}
