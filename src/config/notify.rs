//! What `notify:` and `telemetry.sentry:` may say, and the secrets and files that they name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::Config;
use super::problem::{ConfigProblem, KeyPath};
use super::secrets::{Findings, secret_file};
use super::tree::Node;
use super::validate::{Checks, HOUR, MS, SECOND};
use crate::limits::{NOTIFY_WEBHOOKS_MAX, SENTRY_ENVIRONMENT_BYTES_MAX};
use crate::notify::{SENTRY, WebhookConfig, check_ca_file, check_dsn};
use crate::secret::Secret;
use crate::telemetry::SentryConfig;

impl Checks<'_> {
    pub(super) fn webhooks(&mut self, webhooks: &BTreeMap<String, WebhookConfig>) {
        if webhooks.len() > NOTIFY_WEBHOOKS_MAX {
            self.wrong(&KeyPath::of(&["notify"]), format!("at most {NOTIFY_WEBHOOKS_MAX} webhooks"));
        }
        for (name, config) in webhooks {
            self.webhook(name, config);
        }
    }

    fn webhook(&mut self, name: &str, config: &WebhookConfig) {
        let WebhookConfig {
            url,
            url_file,
            form: _,
            secret,
            secret_file,
            ca_file: _,
            kinds,
            interval,
            timeout,
        } = config;
        let path = KeyPath::of(&["notify", name]);
        if !is_name(name) {
            self.wrong(&path, "the name of a webhook has 1 to 64 characters of a-z, 0-9, '-' and '_'");
        }
        if name == SENTRY {
            self.wrong(&path, "counters call Sentry so: choose another name");
        }
        match (url.is_some(), url_file.is_some()) {
            (true, true) => self.wrong(&path.key("url_file"), "give either `url` or `url_file`, not both"),
            (false, false) if !self.has(&path.key("url")) && !self.has(&path.key("url_file")) => {
                self.wrong(&path.key("url"), "the key is missing: `url`, or `url_file`");
            }
            (true, false) | (false, true | false) => {}
        }
        if secret.is_some() && secret_file.is_some() {
            self.wrong(&path.key("secret_file"), "give either `secret` or `secret_file`, not both");
        }
        let whole = !self.root.get(&path.key("kinds").0).is_some_and(Node::has_refused);
        if kinds.as_ref().is_some_and(BTreeSet::is_empty) && whole {
            self.wrong(&path.key("kinds"), "expected at least one kind; leave the key out for all of them");
        }
        self.period(&path.key("interval"), *interval, 0..=HOUR);
        self.period(&path.key("timeout"), *timeout, 100 * MS..=60 * SECOND);
    }

    pub(super) fn sentry(&mut self, config: &SentryConfig) {
        let SentryConfig { dsn, dsn_file, environment, ca_file: _ } = config;
        let key = |key: &str| KeyPath::of(&["telemetry", "sentry", key]);
        if dsn.is_some() && dsn_file.is_some() {
            self.wrong(&key("dsn_file"), "give either `dsn` or `dsn_file`, not both");
        }
        if let Some(environment) = environment {
            let fits = (1..=SENTRY_ENVIRONMENT_BYTES_MAX).contains(&environment.len());
            // What Sentry does not take for a name.
            if !fits || environment.contains(['/', ' ', '\n', '\r']) || environment == "None" {
                self.wrong(
                    &key("environment"),
                    "expected a name of 1 to 64 bytes without spaces and slashes",
                );
            }
        }
    }

    fn has(&self, path: &KeyPath) -> bool {
        self.root.get(&path.0).is_some()
    }
}

fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    (1..=64).contains(&name.len()) && name.bytes().all(fits)
}

/// Makes paths absolute and reads secrets from their files; then looks at what they hold.
pub(super) fn resolve(
    config: &mut Config,
    root: &Node,
    absolute: &dyn Fn(&mut PathBuf, &KeyPath),
    findings: &mut Findings,
) {
    let mut read = |value: &mut Option<Secret>, file: &mut Option<PathBuf>, key: &KeyPath| {
        let Some(mut file) = file.take() else { return };
        absolute(&mut file, key);
        if value.is_none() {
            *value = secret_file(&file, root.origin(key), key, findings);
        }
    };
    for (name, webhook) in &mut config.notify {
        let path = KeyPath::of(&["notify", name]);
        read(&mut webhook.url, &mut webhook.url_file, &path.key("url_file"));
        read(&mut webhook.secret, &mut webhook.secret_file, &path.key("secret_file"));
        if let Some(file) = &mut webhook.ca_file {
            absolute(file, &path.key("ca_file"));
        }
    }
    let sentry = &mut config.telemetry.sentry;
    let path = KeyPath::of(&["telemetry", "sentry"]);
    read(&mut sentry.dsn, &mut sentry.dsn_file, &path.key("dsn_file"));
    if let Some(file) = &mut sentry.ca_file {
        absolute(file, &path.key("ca_file"));
    }
    look_at_secrets(config, root, findings);
}

fn look_at_secrets(config: &Config, root: &Node, findings: &mut Findings) {
    let said = |path: &KeyPath, key: &str| {
        // A secret that was read from a file stands under the key with `_file` at its end.
        let (key, file) = (path.key(key), path.key(&format!("{key}_file")));
        if root.get(&file.0).is_some() { file } else { key }
    };
    let problem = |path: KeyPath, message: String| ConfigProblem::new(root.origin(&path), path, message);
    for (name, webhook) in &config.notify {
        let path = KeyPath::of(&["notify", name]);
        let wrong = webhook.problems().into_iter().map(|(key, message)| problem(said(&path, key), message));
        findings.problems.extend(wrong);
        if webhook.is_open() {
            let message = "alarms go there unencrypted: whoever is on the way can read them; use https://";
            findings.warnings.push(problem(said(&path, "url"), message.to_owned()));
        }
    }
    if let Some(Err(message)) = config.telemetry.sentry.dsn.as_ref().map(|dsn| check_dsn(dsn.expose())) {
        findings.problems.push(problem(said(&KeyPath::of(&["telemetry", "sentry"]), "dsn"), message));
    }
}

/// Reads the certificates that are to be trusted, so that what cannot be used is told before it starts.
pub(super) fn look_at_certificates(config: &Config, root: &Node) -> Findings {
    let mut findings = Findings::default();
    let mut look = |file: Option<&Path>, path: KeyPath| {
        if let Some(Err(error)) = file.map(check_ca_file) {
            findings.problems.push(ConfigProblem::new(root.origin(&path), path, error));
        }
    };
    for (name, webhook) in &config.notify {
        look(webhook.ca_file.as_deref(), KeyPath::of(&["notify", name, "ca_file"]));
    }
    let sentry = KeyPath::of(&["telemetry", "sentry", "ca_file"]);
    look(config.telemetry.sentry.ca_file.as_deref(), sentry);
    findings
}

/// What of it must be masked in what others say.
pub(super) fn secrets(config: &Config) -> impl Iterator<Item = Secret> {
    let of_webhooks = config.notify.values().flat_map(|webhook| [&webhook.url, &webhook.secret]);
    of_webhooks.chain([&config.telemetry.sentry.dsn]).flatten().cloned()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::config::{load_text, secrets};

    fn problems(text: &str) -> Vec<String> {
        let loaded = load_text(text.as_bytes(), &|_| None);
        let problems = loaded.err().unwrap_or_default();
        problems.iter().map(|problem| format!("{}: {}", problem.key, problem.message)).collect()
    }

    #[test]
    fn each_mistake_is_told_at_its_key() {
        let url = "url: https://h/x";
        for (text, told) in [
            ("notify: {ops: {}}", "notify.ops.url: the key is missing: `url`, or `url_file`"),
            (
                "notify: {ops: {url: here}}",
                "notify.ops.url: expected an address such as https://host:port/path",
            ),
            (
                "notify: {ops: {url: 'ftp://h/x'}}",
                "notify.ops.url: expected an address that begins with http:// or https://",
            ),
            (
                &format!("notify: {{ops: {{{url}, url_file: f}}}}"),
                "notify.ops.url_file: give either `url` or `url_file`, not both",
            ),
            (
                &format!("notify: {{ops: {{{url}, secret: short}}}}"),
                "notify.ops.secret: expected a secret of 16 to 256 bytes, such as `openssl rand -hex 32` prints",
            ),
            (
                &format!("notify: {{ops: {{{url}, kinds: []}}}}"),
                "notify.ops.kinds: expected at least one kind; leave the key out for all of them",
            ),
            (
                &format!("notify: {{ops: {{{url}, kinds: [violations]}}}}"),
                "notify.ops.kinds[0]: expected escalation or violation or crash_loop or budget, did you mean violation?",
            ),
            (&format!("notify: {{ops: {{{url}, interval: 2h}}}}"), "notify.ops.interval: expected 0ms to 1h"),
            (
                &format!("notify: {{ops: {{{url}, timeout: 1ms}}}}"),
                "notify.ops.timeout: expected 100ms to 1m",
            ),
            (&format!("notify: {{ops: {{{url}, form: teams}}}}"), "notify.ops.form: expected json or slack"),
            (
                &format!("notify: {{sentry: {{{url}}}}}"),
                "notify.sentry: counters call Sentry so: choose another name",
            ),
            (
                &format!("notify: {{Ops: {{{url}}}}}"),
                "notify.Ops: the name of a webhook has 1 to 64 characters of a-z, 0-9, '-' and '_'",
            ),
            (
                "telemetry: {sentry: {dsn: 'https://h/1'}}",
                "telemetry.sentry.dsn: expected a DSN such as https://KEY@HOST/PROJECT",
            ),
            (
                "telemetry: {sentry: {environment: 'a b'}}",
                "telemetry.sentry.environment: expected a name of 1 to 64 bytes without spaces and slashes",
            ),
        ] {
            assert_eq!(problems(text), [told], "{text}");
        }
    }

    #[test]
    fn one_webhook_more_than_may_be_is_refused() {
        let webhooks = |count: usize| {
            let one = |number| format!("  w{number}: {{url: 'https://h/x'}}\n");
            format!("notify:\n{}", (0..count).map(one).collect::<String>())
        };
        assert_eq!(problems(&webhooks(super::NOTIFY_WEBHOOKS_MAX)), [""; 0]);
        assert_eq!(problems(&webhooks(super::NOTIFY_WEBHOOKS_MAX + 1)), ["notify: at most 20 webhooks"]);
    }

    #[test]
    fn what_is_secret_comes_from_files_and_is_masked() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).expect("written");
            path.display().to_string()
        };
        let url = file("url", "https://hooks.example/services/T0/B0/XyZ\n");
        let (secret, dsn) = (file("secret", &"k".repeat(32)), file("dsn", "https://abcdef@sentry.example/7"));
        let text = format!(
            "notify: {{ops: {{url_file: {url}, secret_file: {secret}, form: slack}}}}\n\
             telemetry: {{sentry: {{dsn_file: {dsn}}}}}"
        );
        let config = load_text(text.as_bytes(), &|_| None).expect("good");
        let masked: Vec<String> =
            secrets(&config, &|_| None).iter().map(|secret| secret.expose().to_owned()).collect();
        let all =
            ["https://hooks.example/services/T0/B0/XyZ", &"k".repeat(32), "https://abcdef@sentry.example/7"];
        assert!(all.iter().all(|secret| masked.iter().any(|known| known == secret)), "{masked:?}");
        let shown = serde_json::to_string(&config).expect("plain JSON");
        assert!(all.iter().all(|secret| !shown.contains(secret)), "{shown}");
        assert!(shown.contains(&format!("file:{url}")), "{shown}");
    }
}
