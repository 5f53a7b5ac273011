//! An answer as server-sent events: who speaks, the text as it comes, why it stopped.
//!
//! The head of the answer waits for the first piece of text, so that what fails before has a status of its own; but not
//! for long, because clients and proxies give up on a silent line.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::unfold;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::super::response::{Problem, Reply, event_stream};
use super::about;
use super::answer::{Form, Tokens, frame};
use super::fault::Fault;
use super::request::StreamOptions;
use super::tally::Tally;
use crate::gateway::{Accepted, AgentEvent, Answer, Rejection};
use crate::ids::RequestId;

/// Proxies close a line that is silent for a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Text that is there already goes out together, up to so much.
const FRAMES_BYTES: usize = 16 << 10;

/// Streams an answer, or says why there is none.
pub(super) async fn answer(accepted: Accepted, form: Form, options: StreamOptions, tally: Tally) -> Reply {
    let Accepted { request_id, session: _, events, outcome } = accepted;
    let tokens = if options.include_usage { Tokens::Named } else { Tokens::Left };
    let outcome = Some(outcome);
    let mut told = Told { form, tokens, request_id, events, outcome, tally, first: None, silent: true };
    // Silence is no failure: it goes on with keep-alives.
    let first = timeout(KEEP_ALIVE, told.next_step()).await.ok();
    if let Some(Step::Failed(fault)) = first {
        let Told { tally, request_id, .. } = told;
        return tally.failed(fault.about(&request_id));
    }
    let id = told.request_id.clone();
    told.first = Some(first);
    let frames = unfold(told, |mut told| async {
        let frames = told.next().await?;
        Some((frames, told))
    });
    about(event_stream("text/event-stream; charset=utf-8", frames.boxed()), &id)
}

/// What a client hears of a request. Dropping it tells the gateway that the client went away.
struct Told {
    form: Form,
    tokens: Tokens,
    request_id: RequestId,
    events: mpsc::Receiver<AgentEvent>,
    /// None once it is known.
    outcome: Option<oneshot::Receiver<Result<Arc<Answer>, Arc<Rejection>>>>,
    tally: Tally,
    /// What the head waited for, until it is told; the inner one is none where that was in vain.
    first: Option<Option<Step>>,
    /// Whether no text was told so far.
    silent: bool,
}

/// What happens next.
enum Step {
    Text(String),
    Answered(Arc<Answer>),
    Failed(Fault),
}

impl Told {
    /// What goes out next; `None` when all was said.
    async fn next(&mut self) -> Option<Bytes> {
        let mut out = BytesMut::new();
        let step = match self.first.take() {
            Some(first) => {
                self.form.opening(&mut out, self.tokens);
                let Some(step) = first else { return Some(out.freeze()) };
                step
            }
            None if self.outcome.is_none() => return None,
            None => match timeout(KEEP_ALIVE, self.next_step()).await {
                Ok(step) => step,
                Err(_elapsed) => return Some(Bytes::from_static(b": keep-alive\n\n")),
            },
        };
        match step {
            Step::Text(text) => {
                self.silent = false;
                self.form.text(&mut out, &text, self.tokens);
                self.take_what_is_there(&mut out);
            }
            Step::Answered(answer) => {
                self.tally.ended("ok");
                // An answer that an idempotency key found again comes without its pieces.
                if self.silent && !answer.text.is_empty() {
                    self.form.text(&mut out, &answer.text, self.tokens);
                }
                self.form.closing(&mut out, &answer, self.tokens);
            }
            Step::Failed(fault) => {
                self.tally.ended(fault.code());
                frame(&mut out, &fault.about(&self.request_id).body());
            }
        }
        Some(out.freeze())
    }

    /// Waits for text, or for the end. Stopped while it waits, it has lost nothing.
    async fn next_step(&mut self) -> Step {
        while let Some(event) = self.events.recv().await {
            if let AgentEvent::Delta { text } = event {
                return Step::Text(text);
            }
        }
        let outcome = self.outcome.as_mut().expect("nobody asks once it is known");
        let ended = outcome.await;
        self.outcome = None;
        match ended {
            Ok(Ok(answer)) => Step::Answered(answer),
            Ok(Err(rejection)) => Step::Failed((&*rejection).into()),
            Err(_gone) => Step::Failed(Problem::internal().into()),
        }
    }

    fn take_what_is_there(&mut self, out: &mut BytesMut) {
        while out.len() < FRAMES_BYTES
            && let Ok(event) = self.events.try_recv()
        {
            if let AgentEvent::Delta { text } = event {
                self.form.text(out, &text, self.tokens);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::response::Content;
    use super::super::super::{Config, fixture};
    use super::*;
    use crate::clock::Timestamp;
    use crate::gateway::{Timings, Usage};
    use crate::ids::{AgentId, SessionId};

    type Outcome = oneshot::Sender<Result<Arc<Answer>, Arc<Rejection>>>;

    /// A request under way, what happens to it, and its answer once that begins.
    fn begin() -> (mpsc::Sender<AgentEvent>, Outcome, impl Future<Output = Reply>) {
        let (events_tx, events) = mpsc::channel(8);
        let (outcome_tx, outcome) = oneshot::channel();
        let request_id = RequestId::parse("r").expect("valid");
        let session = SessionId::parse("s").expect("valid");
        let form = Form::new(&request_id, Timestamp::default(), AgentId::parse("a").expect("valid"));
        let tally = Tally::begin(&fixture::state(Config::default()));
        let accepted = Accepted { request_id, session, events, outcome };
        (events_tx, outcome_tx, answer(accepted, form, StreamOptions::default(), tally))
    }

    fn answered() -> Result<Arc<Answer>, Arc<Rejection>> {
        Ok(Arc::new(Answer {
            request_id: RequestId::parse("r").expect("valid"),
            session: SessionId::parse("s").expect("valid"),
            text: String::new(),
            tool_calls: Vec::new(),
            usage: Usage::default(),
            finish_reason: Some("max_tokens".to_owned()),
            timings: Timings::default(),
        }))
    }

    async fn rest(reply: Reply) -> Vec<String> {
        let Content::Stream(stream) = reply.into_body() else { panic!("expected a stream") };
        stream.map(|bytes| String::from_utf8(bytes.to_vec()).expect("text")).collect().await
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_line_is_kept_open_and_what_comes_then_is_told() {
        let (events, outcome, reply) = begin();
        let told = tokio::spawn(async move { rest(reply.await).await });
        tokio::time::sleep(KEEP_ALIVE * 2 + KEEP_ALIVE / 2).await;
        // What is no text does not count as a word to the client.
        events.send(AgentEvent::Starting).await.expect("it listens");
        tokio::time::sleep(KEEP_ALIVE).await;
        events.send(AgentEvent::Delta { text: "x".to_owned() }).await.expect("it listens");
        drop(events);
        outcome.send(answered()).expect("it listens");
        let frames = told.await.expect("no panic");
        assert!(frames[0].contains(r#""role":"assistant""#), "{frames:?}");
        assert_eq!(frames[1..3], [": keep-alive\n\n", ": keep-alive\n\n"]);
        assert!(frames[3].contains(r#""content":"x""#), "{frames:?}");
        assert!(frames[4].contains(r#""finish_reason":"length""#) && frames[4].ends_with("data: [DONE]\n\n"));
        assert_eq!(frames.len(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_before_its_first_text_has_a_status_and_later_it_is_an_event() {
        let failed = || Err(Arc::new(Rejection::Deadline { deadline_ms: 1, partial: String::new() }));
        let (events, outcome, reply) = begin();
        drop(events);
        outcome.send(failed()).expect("it listens");
        assert_eq!(reply.await.status().as_u16(), 504);

        let (events, outcome, reply) = begin();
        let told = tokio::spawn(async move { rest(reply.await).await });
        tokio::time::sleep(KEEP_ALIVE + KEEP_ALIVE / 2).await;
        drop(events);
        outcome.send(failed()).expect("it listens");
        let frames = told.await.expect("no panic");
        assert!(frames[1].contains(r#""code":"deadline_exceeded""#) && frames.len() == 2, "{frames:?}");
    }
}
