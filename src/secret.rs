//! A text that nobody prints: keys, tokens, headers with credentials.
//!
//! It keeps the *name* under which the value was given (`${OPENAI_API_KEY}`, `file:/run/secrets/key`), and that is
//! what `Debug`, `Display` and `config show` print.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A secret value with the name it was given under.
#[derive(Clone)]
pub struct Secret {
    value: SecretString,
    shown: String,
}

impl Secret {
    /// A secret that prints as `shown`.
    #[must_use]
    pub fn new(value: String, shown: impl Into<String>) -> Self {
        Self { value: value.into(), shown: shown.into() }
    }

    /// Whether it stands in the configuration itself, and so has no name to be shown by.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        self.shown == LITERAL
    }

    /// The names of the environment variables that its value was made of.
    pub(crate) fn variables(&self) -> impl Iterator<Item = &str> {
        let within = if self.shown.starts_with("file:") { "" } else { &self.shown };
        within.split("${").skip(1).filter_map(|rest| Some(rest.split_once('}')?.0))
    }

    /// The value itself: only for the wire, never for a message.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.value.expose_secret()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.shown)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.shown)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(NEWTYPE, Written)
    }
}

/// How a value shows that stands in the configuration itself.
const LITERAL: &str = "***";

/// The name under which a secret asks for its value. A deserializer that knows it answers with a sequence of two: the
/// value, and how to show it. Any other answers with the value, which is then shown as `***`.
pub(crate) const NEWTYPE: &str = "$plimsoll::Secret";

/// Takes a secret as it is written.
struct Written;

impl<'de> de::Visitor<'de> for Written {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Secret, D::Error> {
        String::deserialize(deserializer).map(|value| Secret::new(value, LITERAL))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Secret, A::Error> {
        let missing = || de::Error::custom("a secret has a value and a name");
        let value: String = seq.next_element()?.ok_or_else(missing)?;
        let shown: String = seq.next_element()?.ok_or_else(missing)?;
        Ok(Secret::new(value, shown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_prints_its_value() {
        let secret = Secret::new("hunter2".to_owned(), "${KEY}");
        let shown = format!("{secret:?} {secret} {}", serde_json::to_string(&secret).expect("serialises"));
        assert_eq!(shown, "Secret(${KEY}) ${KEY} \"${KEY}\"");
    }
}
