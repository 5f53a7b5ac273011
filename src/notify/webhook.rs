//! A webhook of the configuration: what it is posted, and how.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Url};
use serde_json::{Value, json};

use super::alarm::{About, Alarm, Phase};
use super::config::{Form, WebhookConfig};
use super::post::{Letter, Recipient};
use super::signature::{Key, seconds};
use crate::clock::Timestamp;
use crate::ids::RequestId;
use crate::outgoing;

/// The headers of the Standard Webhooks specification.
const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// A webhook that can be posted to.
pub(super) struct Webhook {
    name: String,
    config: WebhookConfig,
    url: Url,
    key: Option<Key>,
    client: Client,
}

impl Webhook {
    /// # Errors
    /// Says what of the configuration cannot be used.
    pub(super) fn new(name: &str, config: &WebhookConfig) -> Result<Self, String> {
        if let Some((key, problem)) = config.problems().into_iter().next() {
            return Err(format!("notify.{name}.{key}: {problem}"));
        }
        let url = config.url.as_ref().and_then(|url| Url::parse(url.expose()).ok());
        let url = url.ok_or_else(|| format!("notify.{name} has no address"))?;
        let client = outgoing::client_of(&url, config.ca_file.as_deref())?
            // What is redirected would arrive without its body.
            .redirect(Policy::none())
            .connect_timeout(config.timeout.0)
            .build()
            .map_err(|error| format!("the HTTP client cannot be built: {error}"))?;
        let key = config.secret.as_ref().map(Key::of).transpose().map_err(|error| error.to_string())?;
        Ok(Self { name: name.to_owned(), config: config.clone(), url, key, client })
    }

    /// Whether it is to hear of this.
    pub(super) fn wants(&self, alarm: &Alarm) -> bool {
        self.config.wants(alarm.kind)
    }

    /// What it is sent of an alarm.
    pub(super) fn letter(&self, alarm: &Alarm) -> Letter {
        let kind = format!("plimsoll.{}.{}", alarm.kind.as_str(), alarm.phase.as_str());
        let body = match self.config.form {
            Form::Json => json!({"type": kind, "timestamp": alarm.time.to_string(), "data": alarm}),
            Form::Slack => slack(alarm),
        };
        let id = alarm.id(&self.name)[..16].iter().map(|byte| format!("{byte:02X}")).collect::<String>();
        Letter { id: format!("msg_{id}"), body: Bytes::from(body.to_string()), seq: Some(alarm.seq) }
    }

    /// What it is sent to see whether anything arrives.
    pub(super) fn test_letter(&self, now: Timestamp) -> Letter {
        const TITLE: &str = "plimsoll can reach you: this is a test, and nothing happened";
        let body = match self.config.form {
            Form::Json => json!({
                "type": "plimsoll.test",
                "timestamp": now.to_string(),
                "data": {"kind": "test", "level": "info", "title": TITLE, "time": now.to_string()},
            }),
            Form::Slack => json!({"text": TITLE}),
        };
        letter(&body, now)
    }
}

fn letter(body: &Value, now: Timestamp) -> Letter {
    let id = RequestId::generate(now, rand::random());
    Letter { id: format!("msg_{id}"), body: Bytes::from(body.to_string()), seq: None }
}

/// A message of Slack (<https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks>).
fn slack(alarm: &Alarm) -> Value {
    let Alarm { phase, level, about: About { town, agent, bead }, title, seq, time, .. } = alarm;
    let mark = match phase {
        Phase::Opened => level.as_str(),
        Phase::Resolved => phase.as_str(),
    };
    let named = [
        ("town", town.as_ref().map(ToString::to_string)),
        ("agent", agent.as_ref().map(ToString::to_string)),
        ("bead", bead.as_ref().map(ToString::to_string)),
    ];
    let named = named.into_iter().filter_map(|(what, id)| Some(format!("{what} {} · ", id?)));
    let named: String = named.collect();
    json!({"text": format!("*[{mark}]* {}\n{}{time} · record {seq}", escaped(title), escaped(&named))})
}

/// The three characters that mean something to Slack.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

impl Recipient for Webhook {
    fn name(&self) -> &str {
        &self.name
    }

    fn request(&self, letter: &Letter, now: Timestamp) -> RequestBuilder {
        let request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(ID, &letter.id)
            .header(TIMESTAMP, seconds(now));
        let request = match &self.key {
            Some(key) => request.header(SIGNATURE, key.sign(&letter.id, now, &letter.body)),
            None => request,
        };
        request.body(letter.body.clone())
    }

    fn interval(&self) -> Duration {
        self.config.interval.0
    }

    fn timeout(&self) -> Duration {
        self.config.timeout.0
    }
}
