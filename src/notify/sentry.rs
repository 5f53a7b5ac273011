//! What Sentry is told: episodes of violations, and panics. The one file that knows the crate.
//!
//! No hub and no global: a client of our own makes events into envelopes, and a courier carries them. The message of a
//! panic stays here, because it may quote what somebody wrote; where it happened, and the stack, do not. Start at
//! [`Sentry::connect`].

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Url};
use sentry::integrations::backtrace::{ProcessStacktraceIntegration, current_stacktrace};
use sentry::integrations::contexts::ContextIntegration;
use sentry::protocol::{Event, Exception, Level, Mechanism};
use sentry::types::{Dsn, Uuid};
use sentry::{ClientOptions, Envelope, Transport};
use serde_json::{Value, json};

use super::alarm::Alarm;
use super::courier::{Gear, Mailbox, courier};
use super::post::{Letter, Recipient};
use crate::clock::{Clock, Timestamp};
use crate::ids::Seq;
use crate::limits::{NOTIFY_PANICS_MAX, NOTIFY_REPEAT_AFTER};
use crate::outgoing::{self, USER_AGENT};
use crate::telemetry::SentryConfig;

/// Its name in counters: no webhook may have it.
pub const SENTRY: &str = "sentry";

/// How long one envelope may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// From one envelope to the next. With the bound of the queue this is the limit of what Sentry gets of us.
const INTERVAL: Duration = Duration::from_millis(200);

const AUTH: HeaderName = HeaderName::from_static("x-sentry-auth");

/// Why the DSN cannot be used: its text is not quoted, it is a secret.
///
/// # Errors
/// Says what is expected.
pub fn check_dsn(text: &str) -> Result<(), String> {
    dsn(text).map(drop)
}

fn dsn(text: &str) -> Result<Dsn, String> {
    text.parse().map_err(|_| "expected a DSN such as https://KEY@HOST/PROJECT".to_owned())
}

/// A way to Sentry.
pub(super) struct Sentry {
    client: sentry::Client,
    clock: Clock,
    /// When a panic at a place was told last. A std mutex suffices: a hold is a look-up.
    panics: Mutex<BTreeMap<String, Duration>>,
    /// Of which record the event of an id tells, until it is posted. A std mutex suffices too.
    seqs: Arc<Mutex<BTreeMap<Uuid, Seq>>>,
}

/// Work that has to be spawned.
type Work = futures_util::future::BoxFuture<'static, ()>;

impl Sentry {
    /// A way to Sentry and the work of who carries what goes there; none where no DSN is given.
    ///
    /// # Errors
    /// Says what of the configuration or of the environment cannot be used.
    pub(super) fn connect(
        config: &SentryConfig,
        env: &dyn Fn(&str) -> Option<String>,
        gear: Gear,
    ) -> Result<Option<(Arc<Self>, Work)>, String> {
        let variable = |name: &str| env(name).filter(|value| !value.is_empty());
        let given = config.dsn.as_ref().map(|dsn| dsn.expose().to_owned());
        let Some(text) = given.or_else(|| variable("SENTRY_DSN")) else { return Ok(None) };
        let dsn = dsn(&text)?;
        let ingest = Ingest::new(&dsn, config)?;
        let clock = gear.clock.clone();
        let (mailbox, work) = courier(Arc::new(ingest), gear);
        let seqs: Arc<Mutex<BTreeMap<Uuid, Seq>>> = Arc::default();
        let mut options = ClientOptions::new()
            .release(concat!("plimsoll@", env!("CARGO_PKG_VERSION")))
            .in_app_include(["plimsoll"])
            .default_integrations(false)
            .add_integration(ProcessStacktraceIntegration::new())
            .add_integration(ContextIntegration::new())
            .transport(Arc::new(Outbox { mailbox, seqs: Arc::clone(&seqs) }));
        options.dsn = Some(dsn);
        options.environment =
            config.environment.clone().or_else(|| variable("SENTRY_ENVIRONMENT")).map(Into::into);
        let client = sentry::Client::with_options(options);
        Ok(Some((Arc::new(Self { client, clock, panics: Mutex::default(), seqs }), Box::pin(work))))
    }

    /// An episode began.
    pub(super) fn violated(&self, alarm: &Alarm, last_events: Value) {
        let fact = |name: &str| alarm.facts.get(name).cloned().unwrap_or_default();
        let invariant = fact("invariant").as_str().unwrap_or_default().to_owned();
        let town = alarm.about.town.as_ref().map(ToString::to_string).unwrap_or_default();
        let extra = [
            ("invariant", json!(invariant)),
            ("message", fact("message")),
            ("townId", json!(town)),
            ("entities", fact("entities")),
            ("lastEvents", last_events),
        ];
        let id = alarm.id(SENTRY);
        let event_id = Uuid::from_slice(&id[..16]).expect("16 bytes");
        self.seqs.lock().unwrap_or_else(PoisonError::into_inner).insert(event_id, alarm.seq);
        self.capture(Event {
            event_id,
            level: Level::Error,
            message: Some(alarm.title.clone()),
            logger: Some("plimsoll.invariant".to_owned()),
            timestamp: UNIX_EPOCH + Duration::from_millis(alarm.time.as_millis()),
            fingerprint: vec![invariant.clone().into(), town.clone().into()].into(),
            tags: [("invariant".to_owned(), invariant), ("townId".to_owned(), town)].into(),
            extra: extra.map(|(name, value)| (name.to_owned(), value)).into(),
            ..Event::new()
        });
    }

    /// Tells of a panic at this place, of each place once an hour: called where it happens, for the stack.
    pub(super) fn panicked(&self, place: &str) {
        if !self.is_news(place) {
            return;
        }
        let mechanism = Mechanism { ty: "panic".to_owned(), handled: Some(false), ..Mechanism::default() };
        let exception = Exception {
            ty: "panic".to_owned(),
            value: Some(format!("a part of plimsoll panicked at {place}")),
            mechanism: Some(mechanism),
            stacktrace: current_stacktrace(),
            ..Exception::default()
        };
        self.capture(Event {
            level: Level::Error,
            logger: Some("plimsoll.panic".to_owned()),
            timestamp: UNIX_EPOCH + Duration::from_millis(self.clock.now().as_millis()),
            fingerprint: vec!["panic".into(), place.to_owned().into()].into(),
            tags: [("place".to_owned(), place.to_owned())].into(),
            exception: vec![exception].into(),
            ..Event::new()
        });
    }

    fn is_news(&self, place: &str) -> bool {
        let now = self.clock.elapsed();
        let mut panics = self.panics.lock().unwrap_or_else(PoisonError::into_inner);
        panics.retain(|_, at| now < at.saturating_add(NOTIFY_REPEAT_AFTER));
        if panics.contains_key(place) || panics.len() >= NOTIFY_PANICS_MAX {
            return false;
        }
        panics.insert(place.to_owned(), now);
        true
    }

    fn capture(&self, event: Event<'static>) {
        let _id = self.client.capture_event(event, None);
    }
}

/// From now on, panics are told to this Sentry too, as long as it is there.
pub(super) fn report_panics(sentry: &Arc<Sentry>) {
    let (sentry, before) = (Arc::downgrade(sentry), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        before(panic);
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        if let Some(sentry) = sentry.upgrade() {
            sentry.panicked(&place);
        }
    }));
}

/// Where the client puts its envelopes. It has nothing to flush: the courier has an end of its own.
struct Outbox {
    mailbox: Mailbox,
    seqs: Arc<Mutex<BTreeMap<Uuid, Seq>>>,
}

impl Transport for Outbox {
    fn send_envelope(&self, envelope: Envelope) {
        let mut seqs = self.seqs.lock().unwrap_or_else(PoisonError::into_inner);
        let seq = envelope.uuid().and_then(|id| seqs.remove(id));
        drop(seqs);
        let id = envelope.uuid().map(ToString::to_string).unwrap_or_default();
        let mut body = Vec::new();
        let written: io::Result<()> = envelope.to_writer(&mut body);
        written.expect("an event is plain JSON, and memory takes it");
        self.mailbox.post(Letter { id, body: Bytes::from(body), seq });
    }
}

/// Sentry's side (<https://develop.sentry.dev/sdk/foundations/transport/envelopes/>).
struct Ingest {
    client: Client,
    url: Url,
    auth: HeaderValue,
}

impl Ingest {
    fn new(dsn: &Dsn, config: &SentryConfig) -> Result<Self, String> {
        let url = dsn.envelope_api_url();
        let client = outgoing::client_of(&url, config.ca_file.as_deref())?
            .redirect(Policy::none())
            .connect_timeout(TIMEOUT)
            .build()
            .map_err(|error| format!("the HTTP client cannot be built: {error}"))?;
        let auth = HeaderValue::try_from(dsn.to_auth(Some(USER_AGENT)).to_string());
        let mut auth = auth.map_err(|_| "the DSN's key holds characters that no header may hold")?;
        auth.set_sensitive(true);
        Ok(Self { client, url, auth })
    }
}

impl Recipient for Ingest {
    fn name(&self) -> &str {
        SENTRY
    }

    fn request(&self, letter: &Letter, _now: Timestamp) -> RequestBuilder {
        self.client
            .post(self.url.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/x-sentry-envelope"))
            .header(AUTH, self.auth.clone())
            .body(letter.body.clone())
    }

    fn interval(&self) -> Duration {
        INTERVAL
    }

    fn timeout(&self) -> Duration {
        TIMEOUT
    }
}
