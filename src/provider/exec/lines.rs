//! Output of a program: read line by line, and never more of it than allowed.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::{Sleep, sleep};
use tokio_util::sync::CancellationToken;

use super::super::{Edges, ProviderError};
use crate::units::Bytes as Size;

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 32 << 10;

/// How long more output may take to come once nobody is left who prints. Who handed its output to a stranger, such as a
/// daemon that runs already, would otherwise keep the turn open.
const LAST_WORDS_WAIT: Duration = Duration::from_millis(500);

/// How long a look takes whether there is more once that time is over.
const LAST_LOOK: Duration = Duration::from_millis(10);

/// What one turn may print, over all its outputs, and whether anybody is left who prints.
pub(super) struct Budget {
    bytes_max: Size,
    used: AtomicU64,
    /// Raised when the program and all that descends from it are gone.
    pub(super) gone: CancellationToken,
}

impl Budget {
    pub(super) fn new(bytes_max: Size) -> Self {
        Self { bytes_max, used: AtomicU64::new(0), gone: CancellationToken::new() }
    }

    fn spend(&self, bytes: usize) -> Result<(), ProviderError> {
        let used = self.used.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        let bytes_max = usize::try_from(self.bytes_max.0).unwrap_or(usize::MAX);
        if used > self.bytes_max.0 { Err(ProviderError::TooLarge { bytes_max }) } else { Ok(()) }
    }
}

/// What becomes of a line that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overlong {
    /// It ends the turn.
    Refused,
    /// It comes in pieces.
    Split,
}

/// A line without its newline, or a piece of one.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) bytes: Bytes,
    /// Where the line was cut.
    pub(super) edges: Edges,
}

/// One output.
pub(super) struct Lines<'a, R> {
    source: R,
    budget: &'a Budget,
    line_bytes_max: usize,
    overlong: Overlong,
    buffer: BytesMut,
    /// Bytes of the buffer that hold no newline.
    looked_at: usize,
    /// Whether the buffer begins where a line does.
    begins: bool,
    /// The end of the wait for more once nobody is left: one for all that comes.
    last: Option<Pin<Box<Sleep>>>,
}

impl<'a, R: AsyncRead + Unpin> Lines<'a, R> {
    pub(super) fn new(source: R, budget: &'a Budget, line_bytes_max: usize, overlong: Overlong) -> Self {
        Self {
            source,
            budget,
            line_bytes_max,
            overlong,
            buffer: BytesMut::new(),
            looked_at: 0,
            begins: true,
            last: None,
        }
    }

    /// The next line; the last one needs no newline. `None` at the end.
    ///
    /// # Errors
    /// [`ProviderError`] when a line, or all of it, is longer than allowed, or cannot be read.
    pub(super) async fn next(&mut self) -> Result<Option<Piece>, ProviderError> {
        loop {
            if let Some(at) = self.buffer[self.looked_at..].iter().position(|byte| *byte == b'\n') {
                let mut line = self.buffer.split_to(self.looked_at + at + 1);
                self.looked_at = 0;
                line.truncate(line.len() - 1);
                if line.len() <= self.line_bytes_max || self.overlong == Overlong::Split {
                    return Ok(Some(self.piece(line, true)));
                }
                return Err(self.too_long());
            }
            self.looked_at = self.buffer.len();
            if self.buffer.len() > self.line_bytes_max {
                if self.overlong == Overlong::Refused {
                    return Err(self.too_long());
                }
                self.looked_at = 0;
                let piece = self.buffer.split();
                return Ok(Some(self.piece(piece, false)));
            }
            if self.read().await? == 0 {
                self.looked_at = 0;
                let rest = self.buffer.split();
                return Ok((!rest.is_empty()).then(|| self.piece(rest, true)));
            }
        }
    }

    fn piece(&mut self, bytes: BytesMut, ends: bool) -> Piece {
        let begins = std::mem::replace(&mut self.begins, ends);
        Piece { bytes: bytes.freeze(), edges: Edges { begins, ends } }
    }

    async fn read(&mut self) -> Result<usize, ProviderError> {
        self.buffer.reserve(CHUNK_BYTES);
        let nobody = async {
            self.budget.gone.cancelled().await;
            self.last.get_or_insert_with(|| Box::pin(sleep(LAST_WORDS_WAIT))).await;
            // What is there already is still taken, however slow its reader was.
            sleep(LAST_LOOK).await;
        };
        let read = tokio::select! {
            biased;
            read = self.source.read_buf(&mut self.buffer) => read.map_err(|_| ProviderError::Cut)?,
            () = nobody => 0,
        };
        self.budget.spend(read)?;
        Ok(read)
    }

    fn too_long(&self) -> ProviderError {
        let max = Size(self.line_bytes_max as u64);
        ProviderError::Unreadable { problem: format!("one of its lines is longer than {max}").into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(text: &[u8], max: usize, overlong: Overlong) -> Result<Vec<String>, ProviderError> {
        let budget = Budget::new(Size(1_000));
        let mut lines = Lines::new(text, &budget, max, overlong);
        let mut found = Vec::new();
        while let Some(line) = lines.next().await? {
            found.push(String::from_utf8_lossy(&line.bytes).into_owned());
        }
        Ok(found)
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_on_printing_when_nobody_is_left_is_not_heard_for_ever() {
        let (mut held, source) = tokio::io::duplex(64);
        let stranger = tokio::spawn(async move {
            while tokio::io::AsyncWriteExt::write_all(&mut held, b"more\n").await.is_ok() {
                sleep(LAST_WORDS_WAIT / 2).await;
            }
        });
        let budget = Budget::new(Size(1_000));
        budget.gone.cancel();
        let mut lines = Lines::new(source, &budget, 10, Overlong::Refused);
        let mut heard = 0;
        while lines.next().await.expect("not too much").is_some() {
            heard += 1;
        }
        assert!((1..=4).contains(&heard), "{heard}");
        drop(lines);
        stranger.await.expect("it is told that nobody reads");
    }

    #[tokio::test]
    async fn lines_end_with_a_newline_or_with_the_output() {
        let found = lines(b"a\n\nb\r\nlast", 10, Overlong::Refused).await;
        assert_eq!(found.expect("short"), ["a", "", "b\r", "last"]);
        assert_eq!(lines(b"", 10, Overlong::Refused).await.expect("short"), [""; 0]);
    }

    #[tokio::test]
    async fn a_line_is_read_up_to_its_limit_and_not_past_it() {
        assert_eq!(lines(b"0123456789\n", 10, Overlong::Refused).await.expect("at most"), ["0123456789"]);
        for text in [&b"0123456789a\n"[..], b"0123456789a"] {
            let refused = lines(text, 10, Overlong::Refused).await.expect_err("one too many");
            assert_eq!(refused.error_type(), "unreadable_answer");
        }
        let split = lines(&[b'x'; 25], 10, Overlong::Split).await.expect("in pieces");
        assert_eq!(split.concat().len(), 25);
    }

    #[tokio::test]
    async fn a_piece_knows_where_its_line_was_cut() {
        let text = [&[b'x'; 2 * CHUNK_BYTES + 5][..], b"\nnext\nlast"].concat();
        let budget = Budget::new(Size(1 << 20));
        let mut lines = Lines::new(&text[..], &budget, 10, Overlong::Split);
        let mut found = Vec::new();
        while let Some(Piece { bytes: _, edges }) = lines.next().await.expect("within the budget") {
            found.push((edges.begins, edges.ends));
        }
        let whole = (true, true);
        assert_eq!(found, [(true, false), (false, false), (false, true), whole, whole]);
    }

    #[tokio::test]
    async fn all_outputs_together_have_a_limit() {
        let budget = Budget::new(Size(10));
        let mut one = Lines::new(&b"12345\n"[..], &budget, 100, Overlong::Refused);
        let mut other = Lines::new(&b"6789\n"[..], &budget, 100, Overlong::Split);
        assert!(one.next().await.is_ok());
        assert_eq!(other.next().await.expect_err("11 bytes"), ProviderError::TooLarge { bytes_max: 10 });
    }
}
