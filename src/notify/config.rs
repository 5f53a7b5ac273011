//! The configuration key `notify:`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::AlarmKind;
use super::signature::Key;
use crate::outgoing;
use crate::secret::Secret;
use crate::units::Period;

/// One entry of `notify:`, keyed by a name that counters and `plimsoll notify test` use.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhookConfig {
    /// Where alarms are posted to: http or https. A secret, because those who know the address of a Slack webhook can
    /// write to its channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<Secret>,
    /// A file that holds the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_file: Option<PathBuf>,
    /// What is posted.
    pub form: Form,
    /// What alarms are signed with; without it they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// A file that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
    /// A file of PEM certificates to trust besides the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The kinds of alarms that are posted; without it all are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kinds: Option<BTreeSet<AlarmKind>>,
    /// How long at least from one post to the next; 0 to 1 h.
    pub interval: Period,
    /// How long one post may take; 100 ms to 60 s.
    pub timeout: Period,
}

impl Default for WebhookConfig {
    fn default() -> Self {
        Self {
            url: None,
            url_file: None,
            form: Form::Json,
            secret: None,
            secret_file: None,
            ca_file: None,
            kinds: None,
            // What Slack takes for good.
            interval: Period::from_secs(1),
            timeout: Period::from_secs(10),
        }
    }
}

/// What is posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// The alarm as JSON.
    Json,
    /// A message for Slack, or for what takes the same.
    Slack,
}

/// Whether the certificates of a file can be trusted.
///
/// # Errors
/// Says what is wrong with it.
pub fn check_ca_file(file: &Path) -> Result<(), String> {
    outgoing::roots(Some(file)).map(drop).map_err(|error| format!("{}: {error}", file.display()))
}

/// What is wrong with a webhook: the key and why.
pub type WebhookProblem = (&'static str, String);

impl WebhookConfig {
    /// What its secrets hold that cannot be used; files were read and stand in `url` and `secret`.
    #[must_use]
    pub fn problems(&self) -> Vec<WebhookProblem> {
        let mut problems = Vec::new();
        if let Some(problem) = self.url.as_ref().and_then(|url| url_problem(url.expose())) {
            problems.push(("url", problem.to_owned()));
        }
        if let Some(Err(problem)) = self.secret.as_ref().map(Key::of) {
            problems.push(("secret", problem.to_string()));
        }
        problems
    }

    /// Whether alarms leave this machine unencrypted.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let url = self.url.as_ref().and_then(|url| reqwest::Url::parse(url.expose()).ok());
        url.is_some_and(|url| url.scheme() == "http" && !is_loopback(&url))
    }

    /// The host and the port that alarms go to.
    #[must_use]
    pub fn server(&self) -> Option<(String, u16)> {
        let url = reqwest::Url::parse(self.url.as_ref()?.expose()).ok()?;
        let host = url.host_str()?.trim_start_matches('[').trim_end_matches(']');
        Some((host.to_owned(), url.port_or_known_default()?))
    }

    pub(super) fn wants(&self, kind: AlarmKind) -> bool {
        self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&kind))
    }
}

fn url_problem(text: &str) -> Option<&'static str> {
    let Some(url) = reqwest::Url::parse(text).ok().filter(reqwest::Url::has_host) else {
        return Some("expected an address such as https://host:port/path");
    };
    (!matches!(url.scheme(), "http" | "https"))
        .then_some("expected an address that begins with http:// or https://")
}

fn is_loopback(url: &reqwest::Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}
