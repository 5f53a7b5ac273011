//! Paths and secrets of a configuration that was read: paths become absolute, `*_file` keys become the secret inside.
//!
//! Start at [`resolve`]; [`secrets`] lists every value that must be masked in what others say.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::problem::{ConfigProblem, KeyPath, Origin};
use super::tree::Node;
use super::{Config, Environment, notify};
use crate::api::{self, TlsError};
use crate::gateway::AgentConfig;
use crate::lifecycle::InstanceConfig;
use crate::limits::SECRET_FILE_BYTES_MAX;
use crate::provider::{self, AnthropicConfig, OpenAiConfig};
use crate::secret::Secret;

/// What reading the files of secrets found.
#[derive(Default)]
pub(crate) struct Findings {
    pub(crate) problems: Vec<ConfigProblem>,
    pub(crate) warnings: Vec<ConfigProblem>,
}

/// Makes paths absolute (a relative one belongs to the file that names it) and reads secrets from their files.
pub(crate) fn resolve(config: &mut Config, root: &Node, folder: &Path) -> Findings {
    let mut findings = Findings::default();
    let absolute = |path: &mut PathBuf, key: &KeyPath| {
        let beside = root.origin(key).and_then(|at| at.file.parent().map(Path::to_owned));
        *path = beside.as_deref().unwrap_or(folder).join(&*path);
    };
    if let Some(path) = &mut config.data_dir {
        absolute(path, &KeyPath::of(&["data_dir"]));
    }
    if let Some(tls) = &mut config.server.tls {
        let path = KeyPath::of(&["server", "tls"]);
        absolute(&mut tls.cert_file, &path.key("cert_file"));
        absolute(&mut tls.key_file, &path.key("key_file"));
    }
    if let Some(path) = &mut config.telemetry.otlp.ca_file {
        absolute(path, &KeyPath::of(&["telemetry", "otlp", "ca_file"]));
    }
    notify::resolve(config, root, &absolute, &mut findings);
    for (name, provider) in &mut config.providers {
        let remote = match provider {
            provider::Config::OpenAi(OpenAiConfig { remote, .. })
            | provider::Config::Anthropic(AnthropicConfig { remote, .. }) => remote,
            provider::Config::Exec(c) => {
                program(&mut c.program, &KeyPath::of(&["providers", name, "program"]), &absolute);
                continue;
            }
            provider::Config::Echo(_) => continue,
        };
        let path = KeyPath::of(&["providers", name]);
        if let Some(file) = &mut remote.ca_file {
            absolute(file, &path.key("ca_file"));
        }
        let Some(mut file) = remote.api_key_file.take() else { continue };
        let key = path.key("api_key_file");
        absolute(&mut file, &key);
        if remote.api_key.is_none() {
            remote.api_key = secret_file(&file, root.origin(&key), &key, &mut findings);
        }
    }
    let agents = config.agents.iter_mut().map(|(id, agent)| (KeyPath::of(&["agents", id.as_str()]), agent));
    let templates = config.templates.iter_mut();
    let templates = templates.map(|(id, agent)| (KeyPath::of(&["templates", id.as_str()]), agent));
    for (path, agent) in agents.chain(templates) {
        if let Some(cwd) = &mut agent.cwd {
            absolute(cwd, &path.key("cwd"));
        }
        let process = agent.instance.as_mut().and_then(|instance| instance.process.as_mut());
        if let Some(process) = process {
            agent.cwd.get_or_insert_with(|| folder.to_owned());
            program(&mut process.program, &path.key("instance").key("process").key("program"), &absolute);
        }
    }
    findings
}

/// A bare name is looked for in PATH.
fn program(program: &mut String, key: &KeyPath, absolute: &dyn Fn(&mut PathBuf, &KeyPath)) {
    if program.contains('/') {
        let mut path = PathBuf::from(&*program);
        absolute(&mut path, key);
        *program = path.to_string_lossy().into_owned();
    }
}

/// Every secret value of the configuration, and those of this environment that programs are handed.
#[must_use]
pub fn secrets(config: &Config, environment: Environment<'_>) -> Vec<Secret> {
    let of_provider = |provider: &provider::Config| -> Vec<Secret> {
        match provider {
            provider::Config::OpenAi(OpenAiConfig { remote, .. })
            | provider::Config::Anthropic(AnthropicConfig { remote, .. }) => {
                remote.api_key.iter().cloned().collect()
            }
            provider::Config::Exec(provider) => handed(&provider.env, &provider.env_pass, environment),
            provider::Config::Echo(_) => Vec::new(),
        }
    };
    let of_agent = |agent: &AgentConfig| {
        let InstanceConfig { process, container, .. } = agent.instance.as_ref()?;
        let process = process.as_ref().map(|process| handed(&process.env, &process.env_pass, environment));
        process.or_else(|| Some(handed(&container.as_ref()?.env, &[], environment)))
    };
    let headers = config.telemetry.otlp.headers.values().cloned();
    let of_agents = config.every_agent().filter_map(|(_, agent)| of_agent(agent)).flatten();
    let mut values: Vec<_> = config
        .providers
        .values()
        .flat_map(of_provider)
        .chain(of_agents)
        .chain(headers)
        .chain(notify::secrets(config))
        .collect();
    values.retain(|secret| !secret.expose().is_empty());
    values.sort_by(|one, other| {
        let key = |secret: &Secret| std::cmp::Reverse(secret.expose().len());
        key(one).cmp(&key(other)).then_with(|| one.expose().cmp(other.expose()))
    });
    values.dedup_by(|one, other| one.expose() == other.expose());
    values
}

/// What a program is handed that is secret. One written out in the file is a setting, not a secret: most of them are.
fn handed(env: &BTreeMap<String, Secret>, env_pass: &[String], environment: Environment<'_>) -> Vec<Secret> {
    let set = env.values().filter(|value| !value.is_literal());
    let within = set.clone().flat_map(Secret::variables);
    let names = env_pass.iter().map(String::as_str).chain(within);
    let handed = names.filter(|name| !is_ordinary(name)).map(|name| {
        let value = environment(name).unwrap_or_default();
        Secret::new(value.to_string_lossy().into_owned(), format!("${{{name}}}"))
    });
    set.cloned().chain(handed).flat_map(|secret| lines(&secret)).collect()
}

/// A program prints one line at a time.
fn lines(secret: &Secret) -> Vec<Secret> {
    secret.expose().lines().map(|line| Secret::new(line.trim().to_owned(), secret.to_string())).collect()
}

/// Whether a variable is known to name a place or a habit: masked, no path could be read any more.
fn is_ordinary(name: &str) -> bool {
    const NAMES: &[&str] =
        &["PATH", "HOME", "LANG", "TMPDIR", "USER", "LOGNAME", "SHELL", "TERM", "TZ", "PWD", "EDITOR"];
    const ENDS: &[&str] = &["_HOME", "_DIR", "_PATH", "_FILE", "_SOCK"];
    let begins = ["LC_", "XDG_"].iter().any(|begin| name.starts_with(begin));
    begins || NAMES.contains(&name) || ENDS.iter().any(|end| name.ends_with(end))
}

pub(super) fn secret_file(
    file: &Path,
    at: Option<Origin>,
    key: &KeyPath,
    findings: &mut Findings,
) -> Option<Secret> {
    match read(file) {
        Ok(Read { value, mode }) => {
            findings.warnings.extend(readable_by_others(file, mode, at, key));
            Some(Secret::new(value, format!("file:{}", file.display())))
        }
        Err(problem) => {
            let message = format!("the secret in {} cannot be used: {problem}", file.display());
            findings.problems.push(ConfigProblem::new(at, key.clone(), message));
            None
        }
    }
}

fn readable_by_others(file: &Path, mode: u32, at: Option<Origin>, key: &KeyPath) -> Option<ConfigProblem> {
    let message = || format!("others can read {} (mode {:03o}): chmod 600 it", file.display(), mode & 0o777);
    (mode & 0o077 != 0).then(|| ConfigProblem::new(at, key.clone(), message()))
}

/// Reads certificate and key, so that what a server would refuse is told before it starts.
pub(crate) fn look_at_tls(tls: &api::TlsConfig, root: &Node) -> Findings {
    let mut findings = Findings::default();
    let path = KeyPath::of(&["server", "tls"]);
    let key = path.key("key_file");
    match api::check_tls(tls) {
        Ok(()) => {
            let mode = tls.key_file.metadata().map_or(0, |metadata| metadata.permissions().mode());
            findings.warnings.extend(readable_by_others(&tls.key_file, mode, root.origin(&key), &key));
        }
        Err(TlsError::File { path: file, what, problem }) => {
            let key = if file == tls.key_file && what == "private key" { key } else { path.key("cert_file") };
            let message = format!("{} holds no usable PEM {what}: {problem}", file.display());
            findings.problems.push(ConfigProblem::new(root.origin(&key), key, message));
        }
        Err(TlsError::Pair(cause)) => {
            let message = format!("the certificate and the key do not fit together: {cause}");
            findings.problems.push(ConfigProblem::new(root.origin(&path), path, message));
        }
    }
    findings
}

struct Read {
    value: String,
    mode: u32,
}

/// Reads a secret without the newline that editors leave at its end.
fn read(file: &Path) -> Result<Read, String> {
    let open = std::fs::File::open(file).map_err(|error| error.to_string())?;
    let metadata = open.metadata().map_err(|error| error.to_string())?;
    if metadata.is_dir() {
        return Err("it is a directory".to_owned());
    }
    let mut bytes = Vec::new();
    open.take(SECRET_FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > SECRET_FILE_BYTES_MAX {
        return Err(format!("it is larger than {SECRET_FILE_BYTES_MAX} bytes"));
    }
    let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())?;
    let value = text.strip_suffix('\n').unwrap_or(&text);
    let value = value.strip_suffix('\r').unwrap_or(value);
    if value.is_empty() {
        return Err("it is empty".to_owned());
    }
    if value.contains(char::is_control) {
        return Err("it holds more than one line".to_owned());
    }
    Ok(Read { value: value.to_owned(), mode: metadata.permissions().mode() })
}
