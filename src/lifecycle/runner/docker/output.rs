//! What a container prints, line by line, of one run only.

use std::sync::Arc;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use futures_util::StreamExt as _;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::sleep;

use super::engine::DockerEngine;
use crate::lifecycle::runner::Printed;
use crate::limits::OUTPUT_LINE_BYTES_MAX;
use crate::live::OutputStream;

/// How long to wait before what a container prints is asked for again: an engine that was killed is back in seconds.
const FOLLOW_AGAIN: Duration = Duration::from_secs(1);

/// What a container printed before.
#[derive(Clone, Copy, Default)]
pub(super) struct Past {
    /// Until then, in earlier runs.
    pub(super) after: Option<Timestamp>,
    /// Until then it was told, by an earlier plimsoll.
    pub(super) told: Option<Timestamp>,
}

/// What is heard of a run, and who hears it.
pub(super) struct Hears {
    pub(super) printed: Printed,
    /// The text of the line that says that it is ready.
    pub(super) wanted: Option<String>,
    pub(super) said: watch::Sender<bool>,
    /// What was printed until then is not of this run, or was heard of an earlier answer.
    after: Option<Timestamp>,
    /// The time of the last piece.
    last: Option<Timestamp>,
    /// What was printed until then is not told again.
    told: Option<Timestamp>,
    lines: [Line; 2],
}

/// A line that is not at its end yet.
#[derive(Default)]
struct Line {
    bytes: Vec<u8>,
    /// It is longer than a line may be, and is left out.
    too_long: bool,
}

impl Hears {
    pub(super) fn new(
        printed: Printed,
        wanted: Option<String>,
        said: watch::Sender<bool>,
        past: Past,
    ) -> Self {
        let Past { after, told } = past;
        Self { printed, wanted, said, after, last: None, told, lines: Default::default() }
    }

    /// Takes one piece: the time, a space, and up to the end of a line.
    fn hear(&mut self, stream: OutputStream, piece: &[u8]) {
        let Some((time, text)) = timed(piece) else { return };
        if self.after.is_some_and(|after| time <= after) {
            return;
        }
        // Pieces of one line have one time, so that the next may be as late as this.
        self.last = Some(time);
        let line = &mut self.lines[usize::from(stream == OutputStream::Stderr)];
        let (text, ends) = text.strip_suffix(b"\n").map_or((text, false), |text| (text, true));
        if line.bytes.len() + text.len() > OUTPUT_LINE_BYTES_MAX {
            line.too_long = true;
            line.bytes.clear();
        }
        if !line.too_long {
            line.bytes.extend_from_slice(text);
        }
        if ends {
            let Line { bytes, too_long } = std::mem::take(line);
            if !too_long {
                self.line(stream, time, bytes.strip_suffix(b"\r").unwrap_or(&bytes));
            }
        }
    }

    fn line(&self, stream: OutputStream, time: Timestamp, line: &[u8]) {
        if self.told.is_none_or(|told| time > told) {
            (self.printed)(stream, line);
        }
        if self.wanted.as_deref().is_some_and(|text| String::from_utf8_lossy(line).contains(text)) {
            self.said.send_replace(true);
        }
    }
}

/// When a container that does not run printed something the last time.
pub(super) async fn last_printed(engine: &DockerEngine, name: &str) -> Option<Timestamp> {
    let options = LogsOptionsBuilder::new().stdout(true).stderr(true).timestamps(true).tail("1").build();
    let last = engine.call(Duration::ZERO, async |docker| {
        let mut pieces = std::pin::pin!(docker.logs(name, Some(options)));
        let mut last = None;
        while let Some(piece) = pieces.next().await {
            last = timed(piece?.as_ref()).map(|(time, _)| time).max(last);
        }
        Ok(last)
    });
    // An engine that keeps no lines has none of an earlier run.
    last.await.ok().flatten()
}

/// Hears what a container prints until it runs no more. Never ends before that, whatever the engine does.
pub(super) async fn follow(engine: Arc<DockerEngine>, name: String, started_at: String, mut hears: Hears) {
    loop {
        if let Ok(docker) = engine.stream().await {
            // The API has whole seconds; the rest is passed over by its time.
            let since = hears.after.and_then(|after| i32::try_from(after.as_second()).ok()).unwrap_or(0);
            let options = LogsOptionsBuilder::new()
                .follow(true)
                .stdout(true)
                .stderr(true)
                .timestamps(true)
                .since(since)
                .build();
            let mut pieces = std::pin::pin!(docker.logs(&name, Some(options)));
            while let Some(Ok(piece)) = pieces.next().await {
                match piece {
                    LogOutput::StdOut { message } => hears.hear(OutputStream::Stdout, &message),
                    LogOutput::StdErr { message } => hears.hear(OutputStream::Stderr, &message),
                    LogOutput::StdIn { .. } | LogOutput::Console { .. } => {}
                }
            }
        }
        hears.after = hears.last.or(hears.after);
        match engine.inspect(&name).await {
            Ok(Some(seen)) if seen.is_running && seen.started_at == started_at => {}
            Ok(_) => return,
            // Nobody can tell.
            Err(_) => {}
        }
        sleep(FOLLOW_AGAIN).await;
    }
}

/// A piece without its time.
fn timed(piece: &[u8]) -> Option<(Timestamp, &[u8])> {
    let space = piece.iter().position(|byte| *byte == b' ')?;
    let time = std::str::from_utf8(&piece[..space]).ok()?.parse().ok()?;
    Some((time, &piece[space + 1..]))
}
