//! Of whole configurations: from files and variables to values, or to every problem at once.

mod files;
mod instances;
mod secrets;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;

use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

fn read(text: &str, variables: &[(&str, &str)]) -> Result<Value, Vec<String>> {
    let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
    load_text(text.as_bytes(), &|name| variables.get(name).map(OsString::from))
        .map(|config| serde_json::to_value(config).expect("it is written"))
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

fn value(text: &str, pointer: &str) -> Value {
    let config = read(text, &[]).unwrap_or_else(|problems| panic!("{text}: {problems:#?}"));
    config.pointer(pointer).cloned().unwrap_or(Value::Null)
}

fn problems(text: &str) -> String {
    read(text, &[]).map(|_| ()).expect_err(text).join("\n")
}

/// A directory with files, and a request that sees nothing but it.
struct World {
    dir: TempDir,
    variables: BTreeMap<String, OsString>,
}

impl World {
    fn of(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("the folder is made");
            fs::write(path, text).expect("the file is written");
        }
        let home = dir.path().join("home").into_os_string();
        Self { dir, variables: BTreeMap::from([("HOME".to_owned(), home)]) }
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.into());
        self
    }

    fn load(&self, file: Option<&str>) -> Result<Loaded, Vec<String>> {
        load(&LoadRequest {
            file: file.map(PathBuf::from),
            data_dir: None,
            environment: &|name| self.variables.get(name).cloned(),
            cwd: self.dir.path().to_owned(),
        })
        .map_err(|problems| {
            let prefix = format!("{}/", self.dir.path().display());
            problems.iter().map(|problem| problem.to_string().replace(&prefix, "")).collect()
        })
    }

    fn loaded(&self) -> Loaded {
        self.load(None).unwrap_or_else(|problems| panic!("{problems:#?}"))
    }
}

#[test]
fn no_file_at_all_is_the_built_in_default() {
    let loaded = World::of(&[]).loaded();
    let default = serde_json::to_value(Config::default()).expect("it is written");
    assert_eq!(serde_json::to_value(&loaded.config).expect("it is written"), default);
    assert!(loaded.files.is_empty());
    assert!(loaded.data_dir.ends_with("home/.local/state/plimsoll"));
}

#[test]
fn an_empty_file_and_keys_without_values_are_the_default_too() {
    let default = serde_json::to_value(Config::default()).expect("it is written");
    for text in ["", "server:\nagents:\nproviders: ~\n", "server: {tls: null}\n"] {
        assert_eq!(read(text, &[]), Ok(default.clone()), "{text:?}");
    }
}

#[test]
fn every_problem_is_told_at_once_with_its_place_and_the_nearest_key() {
    let text = "\
server:
  lisen: 127.0.0.1:1
  connections_max: many
  header_timeout: 5 parsecs
  batch_max: 0
  insecure_plaintext: yes
gatway: {}
providers:
  main: {kind: openai, base_url: 'ftp://h', retries: 11, key: x}
  other: {kind: opnai}
agents:
  a: {provider: mian}
  B: {provider: main}
  c: {model: x}
auth:
  tokens:
    - {name: t, role: oprator, sha256: abc}
    - {name: t, role: viewer, sha256: abc}
";
    assert_eq!(
        problems(text),
        "\
plimsoll.yaml:2:3: server.lisen: unknown key, did you mean `listen`?
plimsoll.yaml:3:20: server.connections_max: expected a whole number
plimsoll.yaml:4:19: server.header_timeout: expected a length of time with its unit, such as 250ms, 30s, 5m, 1h or 30d
plimsoll.yaml:5:3: server.batch_max: expected 1 to 1000
plimsoll.yaml:6:23: server.insecure_plaintext: expected true or false
plimsoll.yaml:7:1: gatway: unknown key, did you mean `gateway`?
plimsoll.yaml:9:24: providers.main.base_url: expected an address that begins with http:// or https://
plimsoll.yaml:9:45: providers.main.retries: expected 0 to 10
plimsoll.yaml:9:58: providers.main.key: unknown key, did you mean `api_key_file`?
plimsoll.yaml:10:17: providers.other.kind: expected one of anthropic, echo, exec, openai
plimsoll.yaml:12:7: agents.a.provider: no such key under `providers:`, did you mean `main`?
plimsoll.yaml:13:3: agents.B: an agent id has 1 to 64 characters of a-z, 0-9, '-', '_', '.', and begins with a letter or a digit
plimsoll.yaml:14:3: agents.c.provider: the key is missing
plimsoll.yaml:17:23: auth.tokens[0].role: expected viewer or operator or agent or ingest, did you mean operator?
plimsoll.yaml:18:31: auth.tokens[1].sha256: expected 64 hexadecimal digits, as `plimsoll token hash` prints"
    );
}

/// The keys of every API and those of one kind are two structs; nobody who writes a file need know.
#[test]
fn the_keys_of_an_api_are_told_of_as_one_list() {
    let text = "\
providers:
  a: {kind: anthropic, max_token: 1, retries: many, max_tokens: 0}
  o: {kind: openai, max_tokens: 1, idle_timeout: 1, stream: [x]}
  q: {kind: anthropic, wat: 1, connect_timeout: {a: 1}}
  r: {kind: anthropic, api_key: [1], max_tokens: x}
agents: {}
";
    assert_eq!(
        problems(text),
        "\
plimsoll.yaml:2:24: providers.a.max_token: unknown key, did you mean `max_tokens`?
plimsoll.yaml:2:47: providers.a.retries: expected a whole number
plimsoll.yaml:2:53: providers.a.max_tokens: expected 1 to 1000000
plimsoll.yaml:3:21: providers.o.max_tokens: unknown key: expected one of base_url, api_key, api_key_file, ca_file, stream, json_schema, retries, connect_timeout, idle_timeout
plimsoll.yaml:3:50: providers.o.idle_timeout: expected a length of time with its unit, such as 250ms, 30s, 5m, 1h or 30d
plimsoll.yaml:3:61: providers.o.stream: expected true or false, found a list
plimsoll.yaml:4:24: providers.q.wat: unknown key: expected one of base_url, max_tokens, api_key, api_key_file, ca_file, stream, json_schema, retries, connect_timeout, idle_timeout
plimsoll.yaml:4:49: providers.q.connect_timeout: expected text, found keys and values
plimsoll.yaml:5:33: providers.r.api_key: expected text, found a list
plimsoll.yaml:5:50: providers.r.max_tokens: expected a whole number"
    );
}

#[test]
fn no_problem_quotes_a_value() {
    let variables = [("KEY", "hunter2")];
    for text in [
        "server: {listen: hunter2}",
        "server: {connections_max: hunter2}",
        "server: {insecure_plaintext: '${KEY}'}",
        "server: {header_timeout: '${KEY}', body_bytes_max: hunter2}",
        "telemetry: {log: {format: '${KEY}', level: '[hunter2'}}",
        "providers: {p: {kind: hunter2}}",
        "providers: {p: {kind: openai, base_url: 'http://u:hunter2@h'}}",
        "providers: {p: {kind: openai, base_url: 'http://h', api_key: [hunter2]}}",
        "agents: {a: {provider: hunter2}}",
        "providers: hunter2",
        "auth: {tokens: [{name: 'HUNTER2 hunter2', role: viewer, sha256: hunter2}]}",
        "hunter2",
        "a: \"hunter2",
    ] {
        let told = read(text, &variables).expect_err(text).join("\n");
        assert!(!told.contains("hunter2"), "{told}");
    }
}

#[test]
fn the_field_says_what_a_scalar_is() {
    assert_eq!(value("agents: {a: {provider: echo, model: 4.10, role: no}}", "/agents/a/model"), "4.10");
    assert_eq!(value("agents: {a: {provider: echo, model: 4.10, role: no}}", "/agents/a/role"), "no");
    let digits = "7".repeat(64);
    let text = format!("auth: {{tokens: [{{name: t, role: viewer, sha256: {digits}}}]}}");
    assert_eq!(value(&text, "/auth/tokens/0/sha256"), digits.as_str());
    assert!(problems("server: {connections_max: '5'}").contains("without quotes"));
}

#[test]
fn a_variable_fills_a_number_a_truth_value_and_a_list_element() {
    let text = "\
server: {connections_max: \"${N}\"}
";
    assert!(read(text, &[("N", "5")]).is_err(), "with quotes it stays text");
    let text = "\
server:
  listen: 127.0.0.1:${PORT}
  connections_max: ${N}
  insecure_plaintext: ${YES}
  allowed_hosts:
    - ${HOST}
prices:
  m:
    input: ${PRICE}
    output: 1
";
    let read = read(text, &[("N", "5"), ("YES", "true"), ("HOST", "h:1"), ("PORT", "99"), ("PRICE", "0.5")])
        .expect("it is read");
    assert_eq!(read["server"]["connections_max"], 5);
    assert_eq!(read["server"]["insecure_plaintext"], true);
    assert_eq!(read["server"]["allowed_hosts"], json!(["h:1"]));
    assert_eq!(read["server"]["listen"], "127.0.0.1:99");
    assert_eq!(read["prices"]["m"]["input"], 0.5);
}

proptest! {
    #[test]
    fn no_value_of_a_variable_changes_anything_else(value in "[^\u{0}]{1,40}", quoted in any::<bool>()) {
        let quote = if quoted { "\"" } else { "" };
        let text = format!("agents:\n  a:\n    provider: echo\n    model: {quote}${{V}}{quote}\n    role: x\n");
        let mut expected = read(&text, &[("V", "y")]).expect("it is read");
        expected["agents"]["a"]["model"] = json!(value);
        prop_assert_eq!(read(&text, &[("V", &value)]), Ok(expected));
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = load_text(&bytes, &|_| None);
    }

    #[test]
    fn no_text_near_the_schema_panics(words in prop::collection::vec(
        prop::sample::select(vec![
            "server", "agents", "providers", "prices", "auth", "tokens", "kind", "echo", "openai", ":", ": ", "\n", "\n  ",
            "\n    ", "- ", "[", "]", "{", "}", ", ", "null", "1", "true", "${X}", "${X:-5}", "&a ", "*a", "'", "\"", "<<", "5s",
        ]), 0..40,
    )) {
        let _ = load_text(words.concat().as_bytes(), &|_| Some("7".into()));
    }
}

#[test]
fn yaml_syntax_quotes_and_dollars_in_a_value_change_nothing_else() {
    let text = "agents:\n  a:\n    provider: echo\n    model: ${V}\n";
    for hostile in
        ["x, system: y", "{a: b}", "'", "\"", "${V}", "${HOME", "- a\n- b", "null", "# x", "*a", "a: b\nc: d"]
    {
        let config = read(text, &[("V", hostile)]).expect(hostile);
        assert_eq!(config["agents"], json!({"a": {"provider": "echo", "model": hostile}}));
    }
}

#[test]
fn beyond_loopback_needs_tls_or_the_plain_word() {
    assert!(problems("server: {listen: '0.0.0.0:1'}").contains("server.listen: beyond loopback it needs"));
    assert!(problems("server: {listen: '[::]:1'}").contains("beyond loopback"));
    for fine in
        ["{listen: '[::1]:1'}", "{listen: 127.0.0.9:1}", "{listen: 0.0.0.0:1, insecure_plaintext: true}"]
    {
        assert!(read(&format!("server: {fine}"), &[]).is_ok(), "{fine}");
    }
}

#[test]
fn the_echo_agent_is_there_until_agents_or_providers_are_given() {
    assert_eq!(value("live: {events: 1}", "/agents"), json!({"echo": {"provider": "echo"}}));
    assert_eq!(value("agents: {a: {provider: echo}}", "/agents"), json!({"a": {"provider": "echo"}}));
    let other = "providers: {p: {kind: openai, base_url: http://h}}";
    assert_eq!(value(other, "/agents"), json!({}));
}

#[test]
fn an_agent_of_an_openai_server_names_its_model() {
    let with = |agent: &str| {
        problems(&format!(
            "providers: {{p: {{kind: openai, base_url: 'http://h'}}}}\nagents: {{a: {agent}}}\n"
        ))
    };
    for agent in ["{provider: p}", "{provider: p, model: ''}"] {
        let said = with(agent);
        assert!(said.contains("agents.a.model: the key is missing"), "{said}");
    }
    assert!(!with("{provider: p, model: [m]}").contains("is missing"), "one mistake is told once");
    let good = "providers: {p: {kind: openai, base_url: 'http://h'}}\nagents: {a: {provider: p, model: m}}\n";
    assert!(read(good, &[]).is_ok());
}

#[test]
fn a_word_that_is_no_level_is_no_filter() {
    let level = |level: &str| format!("telemetry: {{log: {{level: '{level}'}}}}");
    for (filter, near) in [("inf", "info"), ("Warning", "warn"), ("info,trce", "trace")] {
        let said = problems(&level(filter));
        let wanted = format!("off, or a filter such as info,plimsoll::journal=debug; did you mean `{near}`?");
        assert!(
            said.contains("expected error, warn, info, debug, trace") && said.ends_with(&wanted),
            "{said}"
        );
    }
    for filter in ["info", "WARN", "off", "info,plimsoll::journal=debug", "plimsoll=trace", "off,warp=debug"]
    {
        assert!(read(&level(filter), &[]).is_ok(), "{filter}");
    }
}

#[test]
fn what_gemini_does_not_take_is_told_by_line_before_anything_runs() {
    let refused = |provider: &str, agent: &str| {
        let config = format!(
            "providers:\n  p:\n    kind: exec\n    program: gemini\n    dialect: gemini\n    message: {provider}\n\
             agents:\n  a:\n    provider: p\n    cwd: /\n    system: {agent}\n"
        );
        let problems = World::of(&[("plimsoll.yaml", &config)]).load(None).map(|_| ()).expect_err("refused");
        problems.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let told = refused("argument", "be brief");
    assert!(told.len() == 2, "{told:?}");
    assert!(told[0].contains("plimsoll.yaml:6") && told[0].contains("providers.p.message: "), "{told:?}");
    assert!(told[1].contains("plimsoll.yaml:11") && told[1].contains("agents.a.system: "), "{told:?}");
}

#[test]
fn a_budget_in_dollars_without_a_price_is_warned_of() {
    let warnings = |agent: &str, dialect: &str| {
        let config = format!(
            "providers:\n  api: {{kind: openai, base_url: http://h}}\n  run: {{kind: exec, program: x, dialect: {dialect}}}\n\
             prices: {{known: {{input: 1.0, output: 1.0}}}}\nagents:\n  a: {agent}\n"
        );
        let loaded = World::of(&[("plimsoll.yaml", &config)]).loaded();
        loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let warned = warnings("{provider: api, model: new, max_concurrent: 2, usd_per_day: 1.0}", "codex");
    assert!(warned.len() == 1 && warned[0].contains("plimsoll.yaml:6"), "{warned:?}");
    assert!(warned[0].contains("agents.a.usd_per_day: cannot be counted"), "{warned:?}");
    for (agent, dialect, expected) in [
        ("{provider: api, model: known, max_concurrent: 2, usd_per_day: 1.0}", "codex", 0),
        ("{provider: api, model: known-2024-08-06, max_concurrent: 2, usd_per_day: 1.0}", "codex", 0),
        ("{provider: api, model: new, max_concurrent: 2, tokens_per_min: 1}", "codex", 0),
        ("{provider: run, cwd: /, usd_per_day: 1.0}", "codex", 1),
        ("{provider: run, cwd: /, model: known, usd_per_day: 1.0}", "codex", 0),
        ("{provider: run, cwd: /, usd_per_day: 1.0}", "claude-code", 0),
        ("{provider: run, cwd: /, usd_per_day: 1.0}", "plimsoll", 0),
    ] {
        assert_eq!(warnings(agent, dialect).len(), expected, "{agent} {dialect}");
    }
    for (dialect, says) in [("claude-code", "cancelled"), ("plimsoll", "cost_usd")] {
        let config = format!(
            "providers: {{run: {{kind: exec, program: x, dialect: {dialect}}}}}\n\
             agents: {{a: {{provider: run, cwd: /, usd_per_day: 1.0}}}}\n"
        );
        let warned = World::of(&[("plimsoll.yaml", &config)]).loaded().warnings;
        assert!(warned.len() == 1 && warned[0].message.contains(says), "{dialect}: {warned:?}");
    }
}

#[test]
fn a_budget_with_nothing_to_bound_its_overshoot_is_warned_of() {
    let warnings = |agent: &str| {
        let config = format!(
            "providers:\n  api: {{kind: openai, base_url: http://h}}\n  run: {{kind: exec, program: x}}\n\
             prices: {{m: {{input: 1.0, output: 1.0}}}}\ngateway: {{running_max: 7}}\nagents:\n  a: {agent}\n"
        );
        let loaded = World::of(&[("plimsoll.yaml", &config)]).loaded();
        loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    for key in ["usd_per_day", "tokens_per_min"] {
        let warned = warnings(&format!("{{provider: api, model: m, {key}: 1}}"));
        assert!(
            warned.len() == 1 && warned[0].contains(&format!("agents.a.{key}: can be over")),
            "{warned:?}"
        );
        assert!(warned[0].contains("up to 7 at once"), "{warned:?}");
        assert_eq!(warnings(&format!("{{provider: api, model: m, max_concurrent: 2, {key}: 1}}")), [""; 0]);
        assert_eq!(warnings(&format!("{{provider: run, model: m, cwd: /, {key}: 1}}")), [""; 0]);
    }
    assert_eq!(warnings("{provider: api, model: m, requests_per_min: 1}"), [""; 0]);
}
