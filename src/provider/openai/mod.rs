//! `kind: openai`: any server that speaks the OpenAI Chat Completions API, streamed or not
//! (<https://platform.openai.com/docs/api-reference/chat>).
//!
//! A try is one model call, recorded as such. A try that failed before any of its answer was passed on is repeated
//! where that may help ([`ProviderError::may_pass`]), never beyond the request's deadline. Tools that the model asks
//! for are reported, not run. Start at [`OpenAi`]; one try is in `exchange`, the wire format in `wire`.

mod client;
mod exchange;
mod sse;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

use self::client::Endpoint;
use self::exchange::Exchange;
use self::wire::MODEL_DEFAULT;
use super::emit::{self, Emitter};
use super::{Asked, BuildError, OpenAiConfig, Provider, ProviderDeps, ProviderError, ProviderEvent, Turn};

/// The first wait before another try; each later one is up to twice as long, with jitter.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(200);

/// The longest wait before another try, unless the server asks for a longer one.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(20);

/// See the module.
pub(super) struct OpenAi(Arc<Shared>);

/// What all answers of one provider share.
struct Shared {
    endpoint: Endpoint,
    config: OpenAiConfig,
    deps: ProviderDeps,
}

impl OpenAi {
    /// # Errors
    /// [`BuildError`] when the address is none, or a file cannot be read.
    pub(super) fn new(name: &str, config: &OpenAiConfig, deps: &ProviderDeps) -> Result<Self, BuildError> {
        let endpoint = Endpoint::new(config, &deps.mask)
            .map_err(|problem| BuildError::Invalid { name: name.to_owned(), problem })?;
        Ok(Self(Arc::new(Shared { endpoint, config: config.clone(), deps: deps.clone() })))
    }
}

impl Provider for OpenAi {
    fn kind(&self) -> &'static str {
        "openai"
    }

    fn asks<'a>(&'a self, model: Option<&'a str>) -> Asked<'a> {
        self.0.asks(model)
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
    fn asks<'a>(&'a self, model: Option<&'a str>) -> Asked<'a> {
        let Endpoint { provider, host, port, .. } = &self.endpoint;
        Asked { provider, model: model.unwrap_or(MODEL_DEFAULT), server: Some((host, *port)) }
    }

    /// Tries until it is answered or no further try makes sense.
    async fn ask(&self, turn: &Turn, out: &Emitter) -> Result<(), ProviderError> {
        let clock = &self.deps.clock;
        let deadline = clock.elapsed().saturating_add(turn.remaining);
        let mut delays = ExponentialBuilder::new()
            .with_min_delay(RETRY_DELAY_MIN)
            .with_max_delay(RETRY_DELAY_MAX)
            .with_max_times(usize::try_from(self.config.retries).unwrap_or(usize::MAX))
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
        }
    }
}
