//! What the APIs of models have in common: one HTTP request is one model call, recorded as such, answered whole or as
//! server-sent events.
//!
//! A try that failed before any of its answer was passed on is repeated where that may help
//! ([`ProviderError::may_pass`]) and the agent's limits allow it, never beyond the request's deadline. Tools that the model asks for are reported, not
//! run. What is said on the wire is an [`Api`]'s matter: this knows no format. Start at [`Remote`]; one try is in
//! `exchange`.

mod endpoint;
mod exchange;
mod sse;

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use http::header::HeaderName;
use serde::de::DeserializeOwned;
use serde_json::Value;

use self::endpoint::Endpoint;
use self::exchange::Exchange;
use super::call::Report;
use super::emit::{self, Emitter};
use super::{
    Asked, At, BuildError, MODEL_DEFAULT, Provider, ProviderDeps, ProviderError, ProviderEvent, RemoteConfig,
    Turn,
};
use crate::limits::LABEL_BYTES_MAX;

/// The first wait before another try; each later one is up to twice as long, with jitter.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(200);

/// The longest wait before another try, unless the server asks for a longer one.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(20);

/// Which server is asked, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings<'a> {
    /// What the paths of an API stand under; without one each turn says where.
    pub(super) base_url: Option<&'a str>,
    pub(super) remote: &'a RemoteConfig,
}

/// One API of models.
pub(super) trait Api: Send + Sync + 'static {
    /// Its kind, as in the configuration.
    fn kind(&self) -> &'static str;

    /// `gen_ai.provider.name` of a server.
    fn provider(&self, host: &str) -> &'static str;

    /// The path that is asked for an answer, below the base address.
    fn answers_path(&self) -> &'static str;

    /// The path that lists the models, below the base address.
    fn models_path(&self) -> &'static str;

    /// The header that holds the key.
    fn key_header(&self, key: &str) -> (HeaderName, String);

    /// Headers of every request.
    fn headers(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// The body of a request for an answer.
    fn request(&self, turn: &Turn, mode: Mode) -> Vec<u8>;

    /// Reads one answer.
    fn reader(&self) -> Box<dyn ReadAnswer>;
}

/// Whether an answer is asked for, or comes, as a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Stream,
    Whole,
}

/// Reads the body of one answer: a whole one, or the data of one event after the other.
pub(super) trait ReadAnswer: Send + Sync {
    /// Takes one of them in; what it says of the call goes into the report.
    ///
    /// # Errors
    /// What cannot be read, and what the server reports as an error.
    fn take(&mut self, data: &[u8], mode: Mode, report: &mut Report) -> Result<Piece, Unusable>;
}

/// What one event, or a whole answer, says.
#[derive(Debug, Default)]
pub(super) struct Piece {
    /// In this order; no text and no name is empty.
    pub(super) said: Vec<Said>,
    /// Bytes that the model wrote besides: thoughts and arguments of tools, which cost what text costs.
    pub(super) besides: usize,
    /// There is an answer, be it an empty one.
    pub(super) begun: bool,
    /// Why it stopped is known: nothing more of the answer comes, at most its tokens.
    pub(super) complete: bool,
    /// Nothing more comes.
    pub(super) done: bool,
}

/// A part of an answer.
#[derive(Debug)]
pub(super) enum Said {
    Text(String),
    /// The model asks for the tool of this name.
    Tool(String),
}

/// A body that holds no answer.
#[derive(Debug)]
pub(super) enum Unusable {
    /// It is not what the API speaks.
    Unreadable(std::borrow::Cow<'static, str>),
    /// The server's own error.
    Reported(Value),
    /// The server's own error, of a kind that has a status where it comes as one.
    Status(u16, Value),
}

/// Reads JSON; what is none may come from another server than meant.
pub(super) fn parse<T: DeserializeOwned>(data: &[u8], mode: Mode, hint: &str) -> Result<T, Unusable> {
    serde_json::from_slice(data).map_err(|error| {
        Unusable::Unreadable(match (error.is_data(), mode) {
            (true, _) => "it has another shape".into(),
            (false, Mode::Stream) => "it is no JSON".into(),
            (false, Mode::Whole) => format!("it is no JSON; is its `base_url` right? {hint}").into(),
        })
    })
}

/// Bytes of a text that nobody reads; what is none has none.
pub(super) fn bytes(text: Option<&Value>) -> usize {
    text.and_then(Value::as_str).map_or(0, str::len)
}

/// A name from outside: kept in rings and spans, so it is cut; an empty one is none.
pub(super) fn name(mut text: String) -> Option<String> {
    text.truncate(text.floor_char_boundary(LABEL_BYTES_MAX));
    (!text.is_empty()).then_some(text)
}

/// Models behind an API.
pub(super) struct Remote(Arc<Shared>);

/// What all answers of one provider share.
struct Shared {
    api: Box<dyn Api>,
    endpoint: Endpoint,
    mode: Mode,
    retries: u32,
    idle_timeout: Duration,
    deps: ProviderDeps,
}

impl Remote {
    /// # Errors
    /// [`BuildError`] when the address is none, or a file cannot be read.
    pub(super) fn new(
        name: &str,
        api: impl Api,
        settings: &Settings<'_>,
        deps: &ProviderDeps,
    ) -> Result<Self, BuildError> {
        let endpoint = Endpoint::new(&api, settings, &deps.mask)
            .map_err(|problem| BuildError::Invalid { name: name.to_owned(), problem })?;
        let RemoteConfig { stream, retries, idle_timeout, .. } = settings.remote;
        Ok(Self(Arc::new(Shared {
            api: Box::new(api),
            endpoint,
            mode: if *stream { Mode::Stream } else { Mode::Whole },
            retries: *retries,
            idle_timeout: idle_timeout.0,
            deps: deps.clone(),
        })))
    }
}

impl Provider for Remote {
    fn kind(&self) -> &'static str {
        self.0.api.kind()
    }

    fn asks<'a>(&'a self, model: Option<&'a str>) -> Asked<'a> {
        self.0.asks(model, None)
    }

    fn send(&self, turn: Turn) -> BoxStream<'static, ProviderEvent> {
        let shared = Arc::clone(&self.0);
        emit::events(move |out| async move {
            let result = shared.ask(&turn, &out).await;
            out.emit(ProviderEvent::End(result)).await;
        })
    }

    fn check(&self) -> BoxFuture<'_, Result<String, ProviderError>> {
        Box::pin(self.0.endpoint.models())
    }
}

impl Shared {
    fn asks<'a>(&'a self, model: Option<&'a str>, at: Option<&'a At>) -> Asked<'a> {
        let server = at.map(|at| (at.host.as_str(), at.port)).or(self.endpoint.server());
        Asked { provider: self.endpoint.provider, model: model.unwrap_or(MODEL_DEFAULT), server }
    }

    /// Tries until it is answered or no further try makes sense.
    async fn ask(&self, turn: &Turn, out: &Emitter) -> Result<(), ProviderError> {
        let clock = &self.deps.clock;
        let deadline = clock.elapsed().saturating_add(turn.remaining);
        let mut delays = ExponentialBuilder::new()
            .with_min_delay(RETRY_DELAY_MIN)
            .with_max_delay(RETRY_DELAY_MAX)
            .with_max_times(usize::try_from(self.retries).unwrap_or(usize::MAX))
            .with_jitter()
            .build();
        let mut attempt = 0;
        loop {
            let (result, passed_on) = Exchange::begin(self, turn, out).run().await;
            let Err(error) = result else { return Ok(()) };
            let wait = delays.next().filter(|_| error.may_pass() && !passed_on);
            let Some(wait) = wait else { return Err(error) };
            let after = wait.max(error.retry_after().unwrap_or_default());
            if after >= deadline.saturating_sub(clock.elapsed()) {
                return Err(error);
            }
            attempt += 1;
            tracing::warn!(
                parent: &turn.span,
                source = "model.call",
                session_id = %turn.session,
                request_id = %turn.request_id,
                agent = %turn.agent,
                attempt,
                cause = %error,
                "model call failed, trying again"
            );
            out.emit(ProviderEvent::Retry { attempt, after, cause: error.for_caller() }).await;
            tokio::time::sleep(after).await;
            if !turn.retry.now() {
                return Err(error);
            }
        }
    }
}
