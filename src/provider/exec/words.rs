//! The last words of a program: the end of its standard error.

use crate::limits::{QUOTED_BYTES_MAX, SECRET_FILE_BYTES_MAX};
use crate::provider::Mask;

/// Bytes that are kept: cutting comes after masking, which needs whole secrets.
const KEPT_BYTES_MAX: usize = QUOTED_BYTES_MAX + SECRET_FILE_BYTES_MAX as usize;

/// The end of what was printed.
#[derive(Default)]
pub(super) struct LastWords(Vec<u8>);

impl LastWords {
    pub(super) fn line(&mut self, line: &[u8]) {
        self.0.extend_from_slice(line);
        self.0.push(b'\n');
        if self.0.len() > 2 * KEPT_BYTES_MAX {
            self.0.drain(..self.0.len() - KEPT_BYTES_MAX);
        }
    }

    /// What is left of it: masked, on one line, the end where it is too long.
    pub(super) fn quote(&self, mask: &Mask) -> String {
        let text = mask.hide(&String::from_utf8_lossy(&self.0));
        let text = text.trim_end();
        let from = text.len().saturating_sub(QUOTED_BYTES_MAX);
        let from = (from..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
        mask.quote(&text[from..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    #[test]
    fn the_end_is_quoted_without_secrets_however_much_came_before() {
        let mask = Mask::new([Secret::new("sk-very-secret".to_owned(), "${KEY}")]);
        let mut words = LastWords::default();
        assert_eq!(words.quote(&mask), "");
        for number in 0..100_000 {
            words.line(format!("line {number} sk-very-secret ä").as_bytes());
            assert!(words.0.len() <= 2 * KEPT_BYTES_MAX + 100);
        }
        let quoted = words.quote(&mask);
        assert!(quoted.ends_with("line 99999 *** ä"), "{quoted}");
        assert!(quoted.len() <= QUOTED_BYTES_MAX && !quoted.contains("secret"), "{quoted}");
    }
}
