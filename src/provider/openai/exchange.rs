//! One try: one HTTP request, one answer, one recorded model call.

use std::time::Duration;

use futures_util::StreamExt as _;
use http::header::CONTENT_TYPE;
use reqwest::Response;
use serde_json::Value;
use tokio::time::timeout;

use super::super::call::Call;
use super::super::emit::Emitter;
use super::super::{ProviderError, ProviderEvent, Turn};
use super::Shared;
use super::sse::{Decoder, LineTooLong};
use super::wire::{self, Chunk, Mode};
use crate::limits::{ANSWER_BYTES_MAX, MODEL_ANSWER_BYTES_MAX};

/// How long `[DONE]` or the end of the stream is waited for after the finish reason and the tokens, whatever else comes
/// meanwhile: servers send it at once or, some of them, never.
const TAIL_WAIT: Duration = Duration::from_secs(2);

/// How long the tokens are waited for after the finish reason: a proxy under load took more than 2 s, and a call without
/// them has no price.
const TOKENS_WAIT: Duration = Duration::from_secs(5);

/// A try under way.
pub(super) struct Exchange<'a> {
    shared: &'a Shared,
    turn: &'a Turn,
    out: &'a Emitter,
    call: Call,
    seen: Seen,
}

/// What has come so far.
#[derive(Default)]
struct Seen {
    /// Something of the answer was passed on: another try would say it twice.
    passed_on: bool,
    /// Bytes of the answer.
    text_bytes: usize,
    /// There was a choice, be it an empty one.
    choice: bool,
    /// `[DONE]`, or a finish reason.
    complete: bool,
    /// `[DONE]`: nothing more comes.
    done: bool,
}

impl<'a> Exchange<'a> {
    pub(super) fn begin(shared: &'a Shared, turn: &'a Turn, out: &'a Emitter) -> Self {
        let asked = shared.asks(turn.model.as_deref());
        let call = Call::start(&shared.deps, turn, &asked);
        Self { shared, turn, out, call, seen: Seen::default() }
    }

    /// Gives how it ended, and whether something of the answer was passed on.
    pub(super) async fn run(mut self) -> (Result<(), ProviderError>, bool) {
        let result = self.converse().await;
        self.call.end(&result);
        (result, self.seen.passed_on)
    }

    async fn converse(&mut self) -> Result<(), ProviderError> {
        let (mode, accept) = if self.shared.config.stream {
            (Mode::Stream, "text/event-stream")
        } else {
            (Mode::Whole, "application/json")
        };
        let endpoint = &self.shared.endpoint;
        let request = endpoint.complete(wire::request(self.turn, mode), accept, self.call.traceparent());
        let response = self.in_time(request.send()).await?.map_err(|error| endpoint.failed(&error))?;
        if !response.status().is_success() {
            // Bounded by itself: it may be slow to say why.
            return Err(endpoint.refused(response).await);
        }
        if is_event_stream(&response) {
            self.read_stream(response).await
        } else {
            self.read_whole(response).await
        }
    }

    async fn read_stream(&mut self, response: Response) -> Result<(), ProviderError> {
        let mut chunks = response.bytes_stream();
        let mut decoder = Decoder::default();
        let (mut read, mut tail) = (0, Tail::default());
        while !self.seen.done {
            let chunk = if self.seen.complete {
                // Silence or a cut after the finish reason takes nothing of the answer away.
                let counted = self.call.report.output_tokens.is_some();
                let wait = tail.left(counted, self.shared.deps.clock.elapsed());
                let Ok(Some(Ok(chunk))) = timeout(wait, chunks.next()).await else { break };
                chunk
            } else {
                let Some(chunk) = self.in_time(chunks.next()).await? else { break };
                chunk.map_err(|error| self.shared.endpoint.failed(&error))?
            };
            read += chunk.len();
            if read > MODEL_ANSWER_BYTES_MAX {
                return Err(ProviderError::TooLarge { bytes_max: MODEL_ANSWER_BYTES_MAX });
            }
            let events = decoder.push(&chunk).map_err(|LineTooLong| ProviderError::Unreadable {
                problem: "one of its lines is too long".into(),
            })?;
            for event in events {
                self.take_event(&event).await?;
            }
        }
        if let Some(event) = decoder.finish().filter(|_| !self.seen.complete) {
            // A last event that was itself cut is a cut answer, not a strange one.
            self.take_event(&event).await.map_err(|error| match error {
                ProviderError::Unreadable { .. } => ProviderError::Cut,
                other => other,
            })?;
        }
        self.verdict()
    }

    async fn read_whole(&mut self, response: Response) -> Result<(), ProviderError> {
        let mut chunks = response.bytes_stream();
        let mut body = Vec::new();
        while let Some(chunk) = self.in_time(chunks.next()).await? {
            let chunk = chunk.map_err(|error| self.shared.endpoint.failed(&error))?;
            if body.len() + chunk.len() > MODEL_ANSWER_BYTES_MAX {
                return Err(ProviderError::TooLarge { bytes_max: MODEL_ANSWER_BYTES_MAX });
            }
            body.extend_from_slice(&chunk);
        }
        if body.is_empty() {
            return Err(ProviderError::Empty);
        }
        self.take_chunk(&body, Mode::Whole).await?;
        self.seen.complete = true;
        self.verdict()
    }

    async fn take_event(&mut self, data: &[u8]) -> Result<(), ProviderError> {
        if data.trim_ascii() == b"[DONE]" {
            self.seen.done = true;
            self.seen.complete = true;
            return Ok(());
        }
        self.take_chunk(data, Mode::Stream).await
    }

    async fn take_chunk(&mut self, data: &[u8], mode: Mode) -> Result<(), ProviderError> {
        let mut chunk: Chunk = serde_json::from_slice(data).map_err(|error| {
            let problem = match (error.is_data(), mode) {
                (true, _) => "it has another shape",
                (false, Mode::Stream) => "it is no JSON",
                (false, Mode::Whole) => "it is no JSON; is its `base_url` right? It usually ends in /v1",
            };
            ProviderError::Unreadable { problem: problem.into() }
        })?;
        if let Some(error) = chunk.error.take().filter(|error| !error.is_null()) {
            let message =
                super::super::quote::error_message(&error).unwrap_or_else(|| Value::to_string(&error));
            return Err(ProviderError::Reported { quoted: self.shared.endpoint.mask.quote(&message) });
        }
        chunk.report(&mut self.call.report);
        // One answer was asked for: others, and the empty list of the chunk that holds the usage, say nothing.
        let Some(choice) = chunk.choices.unwrap_or_default().into_iter().next() else { return Ok(()) };
        self.seen.choice = true;
        if let Some(mut delta) = choice.delta {
            if let Some(text) = delta.text() {
                self.seen.text_bytes += text.len();
                if self.seen.text_bytes > ANSWER_BYTES_MAX {
                    return Err(ProviderError::TooLarge { bytes_max: ANSWER_BYTES_MAX });
                }
                self.pass_on(ProviderEvent::Delta(text), mode).await;
            }
            for name in delta.tools() {
                self.pass_on(ProviderEvent::ToolRequested { name }, mode).await;
            }
        }
        if let Some(reason) = choice.finish_reason.and_then(wire::name) {
            self.call.report.finish_reason = Some(reason);
            self.seen.complete = true;
        }
        Ok(())
    }

    async fn pass_on(&mut self, event: ProviderEvent, mode: Mode) {
        self.seen.passed_on = true;
        if mode == Mode::Stream {
            self.call.token_arrived();
        }
        self.out.emit(event).await;
    }

    fn verdict(&self) -> Result<(), ProviderError> {
        match (self.seen.choice, self.seen.complete) {
            (true, true) => Ok(()),
            (false, true) => Err(ProviderError::Empty),
            (_, false) => Err(ProviderError::Cut),
        }
    }

    /// Waits as long as the server may be silent.
    async fn in_time<F: Future>(&self, waited_for: F) -> Result<F::Output, ProviderError> {
        let silence: Duration = self.shared.config.idle_timeout.0;
        timeout(silence, waited_for).await.map_err(|_| ProviderError::Timeout { silence })
    }
}

/// Since when the end of a stream is waited for: without and with the tokens.
#[derive(Default)]
struct Tail([Option<Duration>; 2]);

impl Tail {
    /// How much longer to wait. What comes meanwhile makes it no longer, but for the tokens.
    fn left(&mut self, counted: bool, now: Duration) -> Duration {
        let wait = if counted { TAIL_WAIT } else { TOKENS_WAIT };
        (*self.0[usize::from(counted)].get_or_insert(now) + wait).saturating_sub(now)
    }
}

fn is_event_stream(response: &Response) -> bool {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    kind.is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/event-stream"))
}
