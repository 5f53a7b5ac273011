//! What a server says when it refuses: cut, masked, and when to come back.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::Value;

use crate::limits::QUOTED_BYTES_MAX;
use crate::secret::Secret;

/// How long the body of a refusal may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes of such a body that are read, and of any words that are kept for an error: room for the JSON around a message
/// of [`QUOTED_BYTES_MAX`], and for whole secrets. Cutting comes after masking.
pub(super) const WORDS_BYTES_MAX: usize = 16 * QUOTED_BYTES_MAX;

/// A secret shorter than this would mask half of every sentence.
const SECRET_BYTES_MIN: usize = 6;

/// Whether the edges of a piece of text are those of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edges {
    /// It begins where the text begins.
    pub begins: bool,
    /// It ends where the text ends.
    pub ends: bool,
}

/// Takes secrets out of text. Cheap to clone.
#[derive(Clone, Default)]
pub struct Mask {
    /// The longest first, so that none hides a part of another.
    secrets: Arc<[Secret]>,
}

impl Mask {
    /// One that takes out these; what is too short to be told from a word stays.
    #[must_use]
    pub fn new(secrets: impl IntoIterator<Item = Secret>) -> Self {
        let mut secrets: Vec<_> =
            secrets.into_iter().filter(|secret| secret.expose().len() >= SECRET_BYTES_MIN).collect();
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.expose().len()));
        Self { secrets: secrets.into() }
    }

    /// One that takes out this secret too.
    pub(super) fn and(&self, secret: Option<&Secret>) -> Self {
        Self::new(self.secrets.iter().chain(secret).cloned())
    }

    /// The text with `***` in place of every secret.
    #[must_use]
    pub fn hide(&self, text: &str) -> String {
        self.secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret.expose(), "***"))
    }

    /// The same for a piece of a text: what may be a part of a secret at an edge where it was cut is hidden too.
    #[must_use]
    pub fn hide_piece(&self, text: &str, edges: Edges) -> String {
        // Half a character is no part of a secret.
        let text = if edges.begins { text } else { text.trim_start_matches(char::REPLACEMENT_CHARACTER) };
        let text = if edges.ends { text } else { text.trim_end_matches(char::REPLACEMENT_CHARACTER) };
        let mut text = self.hide(text);
        if !edges.ends {
            let begun = |from: &usize| self.secrets.iter().any(|s| s.expose().starts_with(&text[*from..]));
            let from = self.edge_of(&text).map(|bytes| text.len() - bytes);
            let from = from.filter(|from| text.is_char_boundary(*from)).find(begun);
            if let Some(from) = from {
                text.replace_range(from.., "***");
            }
        }
        if !edges.begins {
            let ended = |to: &usize| self.secrets.iter().any(|s| s.expose().ends_with(&text[..*to]));
            let to = self.edge_of(&text).filter(|to| text.is_char_boundary(*to)).find(ended);
            if let Some(to) = to {
                text.replace_range(..to, "***");
            }
        }
        text
    }

    /// How many bytes at an edge of this text may be a part of a secret, the most first.
    fn edge_of(&self, text: &str) -> impl Iterator<Item = usize> + use<> {
        let longest = self.secrets.first().map_or(0, |secret| secret.expose().len());
        (1..=longest.saturating_sub(1).min(text.len())).rev()
    }

    /// The words of a refusal; empty if there are none.
    pub(super) async fn body(&self, response: reqwest::Response) -> String {
        let mut body = Vec::new();
        let mut chunks = response.bytes_stream();
        let reading = async {
            while let Some(Ok(chunk)) = chunks.next().await {
                let room = WORDS_BYTES_MAX - body.len();
                body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                if body.len() >= WORDS_BYTES_MAX {
                    break;
                }
            }
        };
        // A refusal that is slow to explain itself is quoted as far as it came.
        let _ = tokio::time::timeout(BODY_TIMEOUT, reading).await;
        match serde_json::from_slice::<Value>(&body) {
            Ok(value) => self.quote(&error_message(&value).unwrap_or_default()),
            Err(_) => self.quote(&String::from_utf8_lossy(&body)),
        }
    }

    /// A text of the server, on one line, cut and masked.
    pub(super) fn quote(&self, text: &str) -> String {
        // One as long as that was cut where it came in, up to three bytes before it: between characters.
        let edges = Edges { begins: true, ends: text.len() + 3 < WORDS_BYTES_MAX };
        let mut text = self.line(text, edges);
        if text.len() > QUOTED_BYTES_MAX {
            text.truncate(text.floor_char_boundary(QUOTED_BYTES_MAX));
            text.push_str("...");
        }
        text
    }

    /// A text of the server, on one line and masked.
    pub(super) fn line(&self, text: &str, edges: Edges) -> String {
        let text = text.split(|c: char| c.is_whitespace() || c.is_control()).fold(
            String::new(),
            |mut line, word| {
                if !line.is_empty() && !word.is_empty() {
                    line.push(' ');
                }
                line.push_str(word);
                line
            },
        );
        mask_credentials(&self.hide_piece(&text, edges))
    }
}

/// The message of an error in the usual shapes: `{"error": {"message"}}`, `{"error": ".."}`, `{"message"}`, `{"detail"}`.
pub(super) fn error_message(value: &Value) -> Option<String> {
    let error = value.get("error").filter(|error| !error.is_null()).unwrap_or(value);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    text(error)
        .or_else(|| error.get("message").and_then(text))
        .or_else(|| error.get("detail").and_then(text))
        .or_else(|| error.is_object().then(|| error.to_string()))
}

/// `scheme://user:password@host` becomes `scheme://***@host`.
fn mask_credentials(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("://") {
        let (before, after) = rest.split_at(start + 3);
        masked.push_str(before);
        let end = after.find(|c: char| c == '/' || c.is_whitespace()).unwrap_or(after.len());
        let authority = &after[..end];
        match authority.rfind('@') {
            Some(at) => {
                masked.push_str("***");
                masked.push_str(&authority[at..]);
            }
            None => masked.push_str(authority),
        }
        rest = &after[end..];
    }
    masked + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask() -> Mask {
        Mask::new([Secret::new("sk-secret".to_owned(), "${KEY}")])
    }

    #[test]
    fn a_quote_is_one_line_without_secrets() {
        let quoted = mask().quote("bad key\n\tsk-secret,\u{1b} see http://u:p@h/x");
        assert_eq!(quoted, "bad key ***, see http://***@h/x");
        assert_eq!(mask().quote(" \n"), "");
    }

    #[test]
    fn a_quote_is_cut_between_characters() {
        let quoted = mask().quote(&"ä".repeat(QUOTED_BYTES_MAX));
        assert_eq!(quoted.len(), QUOTED_BYTES_MAX + "...".len());
    }

    #[test]
    fn a_secret_is_hidden_wherever_the_text_was_cut() {
        let text = "the key ü-sk-secret is bad";
        let mask = Mask::new([Secret::new("ü-sk-secret".to_owned(), "${KEY}")]);
        for at in 0..=text.len() {
            let [before, after] =
                [&text.as_bytes()[..at], &text.as_bytes()[at..]].map(|half| String::from_utf8_lossy(half));
            let before = mask.hide_piece(&before, Edges { begins: true, ends: false });
            let after = mask.hide_piece(&after, Edges { begins: false, ends: true });
            let whole = format!("{before}|{after}");
            assert!(!["sk", "ec", "ret"].iter().any(|part| whole.contains(part)), "{at}: {whole}");
        }
        let whole = Edges { begins: true, ends: true };
        assert_eq!(mask.hide_piece("secret ü-s", whole), "secret ü-s", "no edge, no part");
    }

    #[test]
    fn words_that_were_cut_before_they_were_masked_show_no_part_of_a_secret() {
        let long = "k".repeat(1_000) + "-end";
        let mask = Mask::new([Secret::new(long.clone(), "${KEY}")]);
        let mut words = (long + " ").repeat(20);
        words.truncate(WORDS_BYTES_MAX);
        assert!(!mask.quote(&words).contains("kk"), "{}", mask.quote(&words));
    }

    #[test]
    fn messages_are_found_in_the_usual_shapes() {
        for text in [
            r#"{"error":{"message":"m","type":"t"}}"#,
            r#"{"error":"m"}"#,
            r#"{"message":"m"}"#,
            r#"{"detail":"m"}"#,
        ] {
            let value = serde_json::from_str(text).expect("JSON");
            assert_eq!(error_message(&value).as_deref(), Some("m"), "{text}");
        }
    }
}
