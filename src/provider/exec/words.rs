//! The last words of a program: the end of its standard error.

use std::borrow::Cow;

use super::lines::Piece;
use crate::limits::{QUOTED_BYTES_MAX, SECRET_FILE_BYTES_MAX};
use crate::provider::{Edges, Mask};

/// Bytes that are kept: cutting comes after masking, which needs whole secrets.
const KEPT_BYTES_MAX: usize = QUOTED_BYTES_MAX + SECRET_FILE_BYTES_MAX as usize;

/// The end of what was printed.
#[derive(Default)]
pub(super) struct LastWords {
    kept: Vec<u8>,
    /// Whether more came before it.
    cut: bool,
}

impl LastWords {
    pub(super) fn line(&mut self, piece: &Piece) {
        self.kept.extend_from_slice(&piece.bytes);
        if piece.edges.ends {
            self.kept.push(b'\n');
        }
        if self.kept.len() > 2 * KEPT_BYTES_MAX {
            self.kept.drain(..self.kept.len() - KEPT_BYTES_MAX);
            self.cut = true;
        }
    }

    /// What is left of it, as it was printed: for no eyes.
    pub(super) fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.kept)
    }

    /// What is left of it: masked, on one line, the end where it is too long.
    pub(super) fn quote(&self, mask: &Mask) -> String {
        let edges = Edges { begins: !self.cut, ends: true };
        let mut text = mask.line(&self.text(), edges);
        let from = text.ceil_char_boundary(text.len().saturating_sub(QUOTED_BYTES_MAX));
        text.drain(..from);
        text
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::secret::Secret;

    fn piece(text: &str, ends: bool) -> Piece {
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        Piece { bytes, edges: Edges { begins: true, ends } }
    }

    #[test]
    fn a_secret_in_pieces_is_hidden_and_so_is_what_is_left_of_one() {
        let mask = Mask::new([Secret::new("sk-very-secret".to_owned(), "${KEY}")]);
        let mut words = LastWords::default();
        words.line(&piece("the key is sk-very", false));
        words.line(&piece("-secret", true));
        assert_eq!(words.quote(&mask), "the key is ***");
        // What is kept is cut at every byte of the secret in turn.
        for more in 0..20 {
            let mut words = LastWords::default();
            words.line(&piece(&"x".repeat(more), true));
            words.line(&piece(&"sk-very-secret ".repeat(2 * KEPT_BYTES_MAX / 15 + 1), true));
            let quoted = words.quote(&mask);
            assert!(quoted.len() <= QUOTED_BYTES_MAX + 3 && !quoted.contains("ret"), "{quoted:.40}");
        }
    }

    #[test]
    fn the_end_is_quoted_without_secrets_however_much_came_before() {
        let mask = Mask::new([Secret::new("sk-very-secret".to_owned(), "${KEY}")]);
        let mut words = LastWords::default();
        assert_eq!(words.quote(&mask), "");
        for number in 0..100_000 {
            words.line(&piece(&format!("line {number} sk-very-secret ä"), true));
            assert!(words.kept.len() <= 2 * KEPT_BYTES_MAX + 100);
        }
        let quoted = words.quote(&mask);
        assert!(quoted.ends_with("line 99999 *** ä"), "{quoted}");
        assert!(quoted.len() <= QUOTED_BYTES_MAX && !quoted.contains("secret"), "{quoted}");
    }
}
