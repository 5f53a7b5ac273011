//! One try: one HTTP request, one answer, one recorded model call.

use std::time::Duration;

use futures_util::StreamExt as _;
use http::header::CONTENT_TYPE;
use reqwest::Response;
use serde_json::Value;
use tokio::time::timeout;

use super::super::call::Call;
use super::super::emit::Emitter;
use super::super::quote::error_message;
use super::super::{ProviderError, ProviderEvent, Turn};
use super::sse::{Decoder, LineTooLong};
use super::{Mode, ReadAnswer, Said, Shared, Unusable};
use crate::limits::{ANSWER_BYTES_MAX, MODEL_ANSWER_BYTES_MAX};

/// How long the end of the stream is waited for after the finish reason and the tokens, whatever else comes
/// meanwhile: servers send it at once or, some of them, never.
const TAIL_WAIT: Duration = Duration::from_secs(2);

/// How long the tokens are waited for after the finish reason: a proxy under load took more than 2 s, and a call without
/// them has no price.
const TOKENS_WAIT: Duration = Duration::from_secs(5);

/// How long the end of the body is waited for after the end of the answer: with it the connection can be used again, and
/// many servers send it in a packet of its own.
const BODY_END_WAIT: Duration = Duration::from_millis(20);

/// A try under way.
pub(super) struct Exchange<'a> {
    shared: &'a Shared,
    turn: &'a Turn,
    out: &'a Emitter,
    call: Call,
    reader: Box<dyn ReadAnswer>,
    seen: Seen,
}

/// What has come so far.
#[derive(Default)]
struct Seen {
    /// Something of the answer was passed on: another try would say it twice.
    passed_on: bool,
    /// Bytes of the answer.
    text_bytes: usize,
    /// There is an answer, be it an empty one.
    begun: bool,
    /// Why it stopped: nothing more of the answer comes.
    complete: bool,
    /// Nothing more comes at all.
    done: bool,
}

impl<'a> Exchange<'a> {
    pub(super) fn begin(shared: &'a Shared, turn: &'a Turn, out: &'a Emitter) -> Self {
        let asked = shared.asks(turn.model.as_deref(), turn.at.as_ref());
        let call = Call::start(&shared.deps, turn, &asked);
        Self { shared, turn, out, call, reader: shared.api.reader(), seen: Seen::default() }
    }

    /// Gives how it ended, and whether something of the answer was passed on.
    pub(super) async fn run(mut self) -> (Result<(), ProviderError>, bool) {
        let result = self.converse().await;
        self.call.end(&result);
        (result, self.seen.passed_on)
    }

    async fn converse(&mut self) -> Result<(), ProviderError> {
        let mode = self.shared.mode;
        let body = self.shared.api.request(self.turn, mode);
        let endpoint = &self.shared.endpoint;
        let request = endpoint.answer(self.turn.at.as_ref(), body, mode, self.call.traceparent())?;
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
                let counted = self.call.report.used.output_tokens.is_some();
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
                self.take(&event, Mode::Stream).await?;
            }
        }
        if self.seen.done {
            let rest = async { while let Some(Ok(_)) = chunks.next().await {} };
            // A server that goes on is left with its connection; the answer is whole.
            let _ = timeout(BODY_END_WAIT, rest).await;
        }
        if let Some(event) = decoder.finish().filter(|_| !self.seen.complete) {
            // A last event that was itself cut is a cut answer, not a strange one.
            self.take(&event, Mode::Stream).await.map_err(|error| match error {
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
        self.take(&body, Mode::Whole).await?;
        self.seen.complete = true;
        self.verdict()
    }

    async fn take(&mut self, data: &[u8], mode: Mode) -> Result<(), ProviderError> {
        let known = self.call.report.used.output_tokens;
        let piece = self.reader.take(data, mode, &mut self.call.report);
        let piece = piece.map_err(|unusable| self.unusable(unusable))?;
        self.seen.begun |= piece.begun;
        // Before any of it is passed on: who hangs up meanwhile has caused it all.
        let texts = piece.said.iter().map(|said| if let Said::Text(text) = said { text.len() } else { 0 });
        self.call.wrote(texts.sum::<usize>() + piece.besides);
        if self.call.report.used.output_tokens != known {
            self.call.counted();
        }
        for said in piece.said {
            let event = match said {
                Said::Text(text) => {
                    self.seen.text_bytes += text.len();
                    if self.seen.text_bytes > ANSWER_BYTES_MAX {
                        return Err(ProviderError::TooLarge { bytes_max: ANSWER_BYTES_MAX });
                    }
                    ProviderEvent::Delta(text)
                }
                Said::Tool(name) => ProviderEvent::ToolRequested { name },
            };
            self.pass_on(event, mode).await;
        }
        self.seen.complete |= piece.complete;
        self.seen.done |= piece.done;
        Ok(())
    }

    fn unusable(&self, unusable: Unusable) -> ProviderError {
        let quote = |error: &Value| {
            let message = error_message(error).unwrap_or_else(|| error.to_string());
            self.shared.endpoint.mask.quote(&message)
        };
        match unusable {
            Unusable::Unreadable(problem) => ProviderError::Unreadable { problem },
            Unusable::Reported(error) => ProviderError::Reported { quoted: quote(&error) },
            Unusable::Status(status, error) => {
                ProviderError::Status { status, quoted: quote(&error), retry_after: None }
            }
        }
    }

    async fn pass_on(&mut self, event: ProviderEvent, mode: Mode) {
        self.seen.passed_on = true;
        if mode == Mode::Stream {
            self.call.token_arrived();
        }
        self.out.emit(event).await;
    }

    fn verdict(&self) -> Result<(), ProviderError> {
        match (self.seen.begun, self.seen.complete) {
            (true, true) => Ok(()),
            (false, true) => Err(ProviderError::Empty),
            (_, false) => Err(ProviderError::Cut),
        }
    }

    /// Waits as long as the server may be silent.
    async fn in_time<F: Future>(&self, waited_for: F) -> Result<F::Output, ProviderError> {
        let silence: Duration = self.shared.idle_timeout;
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
