//! What a container prints, line by line, of one run only.

use std::sync::Arc;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use futures_util::StreamExt as _;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::sleep;

use super::engine::{DockerEngine, EngineError};
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
            self.end(stream, time);
        }
    }

    fn end(&mut self, stream: OutputStream, time: Timestamp) {
        let Line { bytes, too_long } =
            std::mem::take(&mut self.lines[usize::from(stream == OutputStream::Stderr)]);
        if !too_long {
            self.line(stream, time, bytes.strip_suffix(b"\r").unwrap_or(&bytes));
        }
    }

    /// What was printed last may have no end.
    fn end_all(&mut self) {
        let Some(time) = self.last else { return };
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            if !self.lines[usize::from(stream == OutputStream::Stderr)].bytes.is_empty() {
                self.end(stream, time);
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

/// When a container printed something the last time, if it ever did.
pub(super) async fn last_printed(
    engine: &DockerEngine,
    name: &str,
) -> Result<Option<Timestamp>, EngineError> {
    let options = LogsOptionsBuilder::new().stdout(true).stderr(true).timestamps(true).tail("1").build();
    let last = engine.call(Duration::ZERO, async |docker| {
        let mut pieces = std::pin::pin!(docker.logs(name, Some(options)));
        let mut last = None;
        while let Some(piece) = pieces.next().await {
            last = timed(piece?.as_ref()).map(|(time, _)| time).max(last);
        }
        Ok(last)
    });
    match last.await {
        Err(error @ EngineError::Down(_)) => Err(error),
        // An engine that keeps no lines has none of an earlier run.
        last => Ok(last.ok().flatten()),
    }
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
            Ok(_) => return hears.end_all(),
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// What is printed of these pieces, after this past, and whether `ready` was said.
    fn heard(past: Past, pieces: &[(OutputStream, &str)]) -> (Vec<String>, bool) {
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let printed = Arc::clone(&lines);
        let printed: Printed = Arc::new(move |stream, line: &[u8]| {
            let line = format!("{stream:?} {}", String::from_utf8_lossy(line));
            printed.lock().expect("no panic under it").push(line);
        });
        let (said, is_said) = watch::channel(false);
        let mut hears = Hears::new(printed, Some("ready".to_owned()), said, past);
        for (stream, piece) in pieces {
            hears.hear(*stream, piece.as_bytes());
        }
        hears.end_all();
        let lines = lines.lock().expect("no panic under it").clone();
        (lines, *is_said.borrow())
    }

    fn at(second: u32) -> String {
        format!("2026-11-22T10:00:{second:02}.000000001Z")
    }

    fn time(second: u32) -> Option<Timestamp> {
        at(second).parse().ok()
    }

    use OutputStream::{Stderr, Stdout};

    #[test]
    fn pieces_become_lines_of_their_own_output() {
        let pieces = [
            (Stdout, format!("{} one, ", at(1))),
            (Stderr, format!("{} other\r\n", at(1))),
            // The next piece of a long line has the same time.
            (Stdout, format!("{} and ready\n", at(1))),
            (Stdout, format!("{} no end", at(2))),
            (Stdout, "no time".to_owned()),
        ];
        let pieces: Vec<_> = pieces.iter().map(|(stream, piece)| (*stream, piece.as_str())).collect();
        let (lines, said) = heard(Past::default(), &pieces);
        assert_eq!(lines, ["Stderr other", "Stdout one, and ready", "Stdout no end"]);
        assert!(said);
    }

    #[test]
    fn an_earlier_run_says_nothing_and_what_was_told_is_not_told_again() {
        let (first, second) = (format!("{} ready\n", at(1)), format!("{} ready\n", at(2)));
        let both = [(Stdout, first.as_str()), (Stdout, second.as_str())];
        let earlier = Past { after: time(2), told: None };
        assert_eq!(heard(earlier, &both), (vec![], false));
        assert_eq!(
            heard(Past { after: time(1), told: None }, &both),
            (vec!["Stdout ready".to_owned()], true)
        );
        let told = Past { after: None, told: time(2) };
        assert_eq!(heard(told, &both), (vec![], true), "it is ready, and was told before");
    }

    #[test]
    fn a_line_that_is_too_long_is_left_out() {
        let long = format!("{} {}", at(1), "x".repeat(OUTPUT_LINE_BYTES_MAX));
        let (end, next) = (format!("{} x\n", at(1)), format!("{} next\n", at(2)));
        let pieces = [(Stdout, long.as_str()), (Stdout, end.as_str()), (Stdout, next.as_str())];
        assert_eq!(heard(Past::default(), &pieces).0, ["Stdout next"]);
    }
}
