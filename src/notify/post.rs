//! One try to deliver one letter, and what the other side made of it.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{RequestBuilder, Response, StatusCode};

use crate::clock::Timestamp;
use crate::ids::Seq;
use crate::limits::QUOTED_BYTES_MAX;
use crate::outgoing;

/// What is to be delivered.
#[derive(Debug, Clone)]
pub(super) struct Letter {
    /// The same in every try, so that the other side can tell that it has it.
    pub(super) id: String,
    pub(super) body: Bytes,
    /// The record that it tells of; none for a test, and for what the journal does not hold.
    pub(super) seq: Option<Seq>,
}

/// Somebody who gets letters.
pub(super) trait Recipient: Send + Sync + 'static {
    /// The name in counters and lines.
    fn name(&self) -> &str;

    /// The request that delivers a letter now.
    fn request(&self, letter: &Letter, now: Timestamp) -> RequestBuilder;

    /// How long at least from one letter to the next.
    fn interval(&self) -> Duration;

    /// How long a try may take.
    fn timeout(&self) -> Duration;
}

/// What came of a try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// It was taken.
    Taken(StatusCode),
    /// It was not, and will not be.
    Refused(StatusCode),
    /// It was not, and may be later.
    Later {
        status: StatusCode,
        /// When, if the other side says so.
        after: Option<Duration>,
    },
    /// There was no answer.
    None(String),
}

impl Answer {
    /// In words.
    pub(super) fn told(&self) -> String {
        match self {
            Self::Taken(status) | Self::Refused(status) | Self::Later { status, .. } => {
                let moved =
                    if status.is_redirection() { ": the address has moved, name the new one" } else { "" };
                format!("it answered {status}{moved}")
            }
            Self::None(problem) => format!("no answer: {problem}"),
        }
    }
}

/// Tries once, for so long as the recipient may take.
pub(super) async fn post(to: &dyn Recipient, letter: &Letter, now: Timestamp) -> Answer {
    judge(send(to, letter, now).await.as_ref())
}

/// The same, with the first words of the answer.
pub(super) async fn post_and_read(
    to: &dyn Recipient,
    letter: &Letter,
    now: Timestamp,
) -> (Answer, Option<String>) {
    let sent = send(to, letter, now).await;
    let answer = judge(sent.as_ref());
    let Ok(response) = sent else { return (answer, None) };
    // What is slow to explain itself is not waited for: the status says enough.
    let words = tokio::time::timeout(to.timeout(), first_words(response)).await;
    (answer, words.ok().filter(|words| !words.is_empty()))
}

async fn send(to: &dyn Recipient, letter: &Letter, now: Timestamp) -> Result<Response, String> {
    let request = to.request(letter, now).timeout(to.timeout());
    request.send().await.map_err(|error| {
        if error.is_timeout() {
            return format!("it took longer than {} ms", to.timeout().as_millis());
        }
        told(&error.without_url())
    })
}

fn judge(sent: Result<&Response, &String>) -> Answer {
    let response = match sent {
        Ok(response) => response,
        Err(problem) => return Answer::None(problem.clone()),
    };
    let status = response.status();
    let later = matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
    if status.is_success() {
        Answer::Taken(status)
    } else if later || status.is_server_error() {
        Answer::Later { status, after: outgoing::retry_after(response.headers()) }
    } else {
        Answer::Refused(status)
    }
}

async fn first_words(mut response: Response) -> String {
    let mut words = Vec::new();
    while words.len() < QUOTED_BYTES_MAX {
        let Ok(Some(chunk)) = response.chunk().await else { break };
        words.extend_from_slice(&chunk[..chunk.len().min(QUOTED_BYTES_MAX - words.len())]);
    }
    String::from_utf8_lossy(&words).trim().to_owned()
}

/// An error with its causes.
fn told(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
