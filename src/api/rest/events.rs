//! `GET /events`: the stream as server-sent events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).
//!
//! Journaled events carry `id:` = seq and are resumed by `Last-Event-ID`; live ones carry none. What a filter leaves out
//! moves the client on all the same: a block of nothing but `id:`, which a browser keeps and tells nobody. There is no
//! `event:` line, so that plain `onmessage` clients see all; `?named=1` adds it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::unfold;
use schemars::JsonSchema;
use serde::Deserialize;

use super::super::metrics::StreamClient;
use super::super::request::Request;
use super::super::response::{Outcome, Problem, event_stream};
use super::super::state::ApiState;
use super::super::stream::{Filter, Follower};
use crate::ids::{AgentId, Seq, TownId};
use crate::limits::STREAM_FILTER_VALUES_MAX;
use crate::live::{Envelope, Level};

/// Proxies close a line that is silent for a minute; browsers need a word now and then too.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The query of `GET /events`. All conditions hold at once.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventsQuery {
    /// Only these types, with commas between them.
    #[serde(rename = "type")]
    types: Option<String>,
    /// Only of this instance.
    instance: Option<AgentId>,
    /// Only of this town.
    town: Option<TownId>,
    /// Exactly this level.
    level: Option<Level>,
    /// 1 adds an `event:` line with the type.
    named: Option<u8>,
}

/// Whether an `event:` line stands in each frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Frames {
    Plain,
    Named,
}

/// Streams events until the client or the server ends.
pub(crate) async fn events(state: Arc<ApiState>, request: Request) -> Outcome {
    let EventsQuery { types, instance, town, level, named } = request.query()?;
    let frames = match named {
        None | Some(0) => Frames::Plain,
        Some(1) => Frames::Named,
        Some(_) => return Err(Problem::bad_request("named: expected 0 or 1")),
    };
    let types: Vec<String> = types.iter().flat_map(|list| list.split(',')).map(str::to_owned).collect();
    if types.len() > STREAM_FILTER_VALUES_MAX {
        return Err(Problem::bad_request(format!("type: at most {STREAM_FILTER_VALUES_MAX}")));
    }
    let after = match request.text_header("last-event-id") {
        None | Some("") => None,
        Some(text) => {
            Some(Seq(text.parse().map_err(|_| Problem::bad_request("Last-Event-ID: expected a seq"))?))
        }
    };
    let void = request.identity()?.void;
    let client = Client {
        follower: Follower::new(&state.sources, Filter { types, instance, town, level }, after),
        void,
        frames,
        greeted: false,
        place: None,
        _counted: state.metrics.stream_client("sse"),
    };
    let stream = unfold(client, |mut client| async {
        let frame = client.next().await?;
        Some((frame, client))
    });
    Ok(event_stream("text/event-stream", stream.boxed()))
}

/// One client of the stream.
struct Client {
    follower: Follower,
    void: tokio_util::sync::CancellationToken,
    frames: Frames,
    greeted: bool,
    /// Where it would resume now.
    place: Option<Seq>,
    _counted: StreamClient,
}

impl Client {
    async fn next(&mut self) -> Option<Bytes> {
        let mut text = if self.greeted {
            self.told().await?
        } else {
            // The first bytes tell the client, and every proxy on the way, that the stream stands.
            self.greeted = true;
            ": plimsoll\n\n".to_owned()
        };
        let place = self.follower.place().or(self.place);
        if place > self.place {
            text.extend(place.map(|seq| format!("id: {seq}\n\n")));
            self.place = place;
        }
        Some(text.into())
    }

    /// What happens next, if only that nothing does.
    async fn told(&mut self) -> Option<String> {
        tokio::select! {
            () = self.void.cancelled() => None,
            event = tokio::time::timeout(KEEP_ALIVE, self.follower.next()) => match event {
                Ok(Some(event)) => {
                    self.place = event.seq.or(self.place);
                    Some(frame(&event, self.frames))
                }
                Ok(None) => None,
                Err(_elapsed) => Some(": keep-alive\n\n".to_owned()),
            },
        }
    }
}

/// One event as a frame. JSON has no line breaks, so one `data:` line holds it.
fn frame(event: &Envelope, frames: Frames) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    if let Some(seq) = event.seq {
        // Writing to a String does not fail.
        let _ = writeln!(text, "id: {seq}");
    }
    if frames == Frames::Named {
        let _ = writeln!(text, "event: {}", event.r#type);
    }
    let data = serde_json::to_string(event).unwrap_or_else(|_| "{}".to_owned());
    let _ = write!(text, "data: {data}\n\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::auth::NewToken;
    use crate::api::{Config, Role, fixture};
    use crate::ids::TokenName;
    use crate::journal::Actor;

    fn client(state: &ApiState, types: &[&str], after: Option<u64>) -> Client {
        let types = types.iter().map(|&wanted| wanted.to_owned()).collect();
        Client {
            follower: Follower::new(&state.sources, Filter { types, ..Filter::default() }, after.map(Seq)),
            void: tokio_util::sync::CancellationToken::new(),
            frames: Frames::Plain,
            greeted: false,
            place: None,
            _counted: state.metrics.stream_client("sse"),
        }
    }

    /// Journals one `token.created`.
    async fn make_token(state: &ApiState, name: &str) {
        let name = TokenName::parse(name).expect("a name");
        let new = NewToken { name, role: Role::Viewer, town: None, agent: None };
        let made = state.doors.tokens.create(&*state.sources.journal, &Actor::Local, new).await;
        made.expect("memory takes it");
    }

    async fn next(client: &mut Client) -> String {
        String::from_utf8(client.next().await.expect("the stream stands").to_vec()).expect("text")
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_filter_leaves_out_moves_the_place_to_resume_from() {
        let state = fixture::state(Config::default());
        make_token(&state, "a").await;
        let mut client = client(&state, &["token.revoked"], None);
        assert_eq!(next(&mut client).await, ": plimsoll\n\nid: 1\n\n");
        make_token(&state, "b").await;
        make_token(&state, "c").await;
        assert_eq!(next(&mut client).await, ": keep-alive\n\nid: 3\n\n");
        assert_eq!(next(&mut client).await, ": keep-alive\n\n", "nothing happened");
        let b = TokenName::parse("b").expect("a name");
        let revoked = state.doors.tokens.revoke(&*state.sources.journal, &Actor::Local, &b).await;
        revoked.expect("memory takes it");
        let event = next(&mut client).await;
        assert!(event.starts_with("id: 4\ndata: ") && event.matches("id: ").count() == 1, "{event}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reset_says_where_to_resume_from_and_only_then() {
        let state = fixture::state(Config::default());
        make_token(&state, "a").await;
        let mut client = client(&state, &[], Some(999));
        assert_eq!(next(&mut client).await, ": plimsoll\n\n", "who misses the reset must get it again");
        let reset = next(&mut client).await;
        assert!(reset.contains("stream.reset") && reset.ends_with("\n\nid: 1\n\n"), "{reset}");
    }
}
