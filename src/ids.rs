//! Newtypes for everything that is named by an id.
//!
//! An id that exists is valid: the only way to make one from text is `parse`, which says what is wrong. Nothing
//! here knows where an id is used. Start at [`AgentId`].

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Why a text is not an id of the kind asked for. The message names the rule, never the text itself, so that
/// a hostile value cannot reach a log through it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{rule}")]
pub struct InvalidId {
    rule: &'static str,
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $max:expr, $check:expr, $rule:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schemars(with = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The longest text accepted, in bytes.
            pub const BYTES_MAX: usize = $max;

            /// Accepts a text that keeps the rule of this kind of id.
            ///
            /// # Errors
            /// [`InvalidId`], whose message is the rule.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                let check: fn(&str) -> bool = $check;
                if text.is_empty() || text.len() > Self::BYTES_MAX || !check(text) {
                    return Err(InvalidId { rule: $rule });
                }
                Ok(Self(text.into()))
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:?})", stringify!($name), &*self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.as_ref().to_owned()
            }
        }
    };
}

fn is_slug(text: &str) -> bool {
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    first
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.'))
}

text_id! {
    /// A worker that answers messages; the key under `agents:` in the configuration. Also the id of its instance.
    AgentId, 64, is_slug,
    "an agent id has 1 to 64 characters of a-z, 0-9, '-', '_', '.', and begins with a letter or a digit"
}

text_id! {
    /// What agents of a town are made of; the key under `templates:` in the configuration.
    TemplateId, 64, is_slug,
    "a template id has 1 to 64 characters of a-z, 0-9, '-', '_', '.', and begins with a letter or a digit"
}

text_id! {
    /// A fleet and its work.
    TownId, 64, is_slug,
    "a town id has 1 to 64 characters of a-z, 0-9, '-', '_', '.', and begins with a letter or a digit"
}

text_id! {
    /// A unit of work in a town.
    BeadId, 64, is_slug,
    "a bead id has 1 to 64 characters of a-z, 0-9, '-', '_', '.', and begins with a letter or a digit"
}

text_id! {
    /// One conversation with an agent, named by its caller.
    SessionId, 128, |text| !text.chars().any(char::is_control),
    "a session id has 1 to 128 bytes and no control characters"
}

text_id! {
    /// One `agent.send`: a ULID made here, or the caller's own text.
    RequestId, 128, |text| text.bytes().all(|b| b.is_ascii_graphic()),
    "a request id has 1 to 128 visible ASCII characters and no space"
}

text_id! {
    /// A caller's own name for one message, so that it runs once however often it is sent.
    IdempotencyKey, 128, |text| !text.chars().any(char::is_control),
    "an idempotency key has 1 to 128 bytes and no control characters"
}

text_id! {
    /// The name of an access token: what the audit shows as the actor.
    TokenName, 64, |text| is_slug(text) && !matches!(text, "local" | "planner" | "system"),
    "a token name has 1 to 64 characters of a-z, 0-9, '-', '_', '.', begins with a letter or a digit, and is none of local, planner, system"
}

impl RequestId {
    /// A new id: a ULID (<https://github.com/ulid/spec>) of the given time and 80 random bits.
    #[must_use]
    pub fn generate(at: crate::clock::Timestamp, random: u128) -> Self {
        Self(ulid::Ulid::from_parts(at.as_millis(), random).to_string().into())
    }
}

/// One time that a bead was given to an agent: `<bead>.<n>`. The numbers of a bead begin at 1 and are never used twice.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct DispatchId {
    bead: BeadId,
    number: NonZeroU64,
}

impl DispatchId {
    /// The longest text accepted, in bytes: a bead's id, a dot and 15 digits.
    pub const BYTES_MAX: usize = BeadId::BYTES_MAX + 16;
    const NUMBER_MAX: u64 = 999_999_999_999_999;

    /// The dispatch of this number; `None` beyond 15 digits.
    #[must_use]
    pub fn of(bead: BeadId, number: NonZeroU64) -> Option<Self> {
        (number.get() <= Self::NUMBER_MAX).then_some(Self { bead, number })
    }

    /// Accepts `<bead>.<n>`. A bead's id may hold dots: the number stands behind the last one.
    ///
    /// # Errors
    /// [`InvalidId`], whose message is the rule.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        const RULE: &str = "a dispatch id is a bead id, a dot and a number from 1 of at most 15 digits";
        let split = || {
            let (bead, number) = text.rsplit_once('.')?;
            let plain = number.bytes().all(|b| b.is_ascii_digit()) && !number.starts_with('0');
            let number = number.parse().ok().filter(|_| plain)?;
            Self::of(BeadId::parse(bead).ok()?, number)
        };
        split().ok_or(InvalidId { rule: RULE })
    }

    /// The bead.
    #[must_use]
    pub fn bead(&self) -> &BeadId {
        &self.bead
    }

    /// Which dispatch of the bead it is, from 1.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number.get()
    }
}

impl fmt::Display for DispatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.bead, self.number)
    }
}

impl fmt::Debug for DispatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DispatchId({self})")
    }
}

impl TryFrom<String> for DispatchId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        Self::parse(&text)
    }
}

impl From<DispatchId> for String {
    fn from(id: DispatchId) -> Self {
        id.to_string()
    }
}

/// A position in the journal: total order over all streams, from 1. 0 stands for "before the first".
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    Default,
    schemars::JsonSchema,
)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// The position after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A W3C trace id (<https://www.w3.org/TR/trace-context/#trace-id>): 16 bytes, not all zero, as 32 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TraceId(u128);

impl TraceId {
    /// Accepts 32 lower-case hex digits that are not all zero.
    ///
    /// # Errors
    /// [`InvalidId`] for anything else.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        const RULE: &str = "a trace id has 32 lower-case hexadecimal digits, not all zero";
        let digits =
            text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let value = digits.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        value.and_then(Self::from_bits).ok_or(InvalidId { rule: RULE })
    }

    /// The id of these 128 bits; `None` if all are zero.
    #[must_use]
    pub fn from_bits(bits: u128) -> Option<Self> {
        (bits != 0).then_some(Self(bits))
    }

    /// The 128 bits.
    #[must_use]
    pub fn to_bits(self) -> u128 {
        self.0
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceId({self})")
    }
}

impl TryFrom<String> for TraceId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        Self::parse(&text)
    }
}

impl From<TraceId> for String {
    fn from(id: TraceId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_accepted_at_their_longest_and_refused_one_byte_later() {
        assert!(AgentId::parse(&"a".repeat(64)).is_ok());
        assert!(AgentId::parse(&"a".repeat(65)).is_err());
        assert!(SessionId::parse(&"é".repeat(64)).is_ok());
        assert!(SessionId::parse(&"é".repeat(65)).is_err());
        assert!(AgentId::parse("").is_err());
    }

    #[test]
    fn ids_refuse_what_could_forge_a_line_or_a_path() {
        for text in ["../x", "A", "a b", "a/b", "-a", ".a", "a\n"] {
            assert!(AgentId::parse(text).is_err(), "{text:?}");
        }
        assert!(SessionId::parse("a\u{7}").is_err());
        assert!(RequestId::parse("a b").is_err());
        assert!(TokenName::parse("local").is_err());
    }

    #[test]
    fn dispatch_ids_print_as_they_are_read_and_split_at_the_last_dot() {
        for (text, bead, number) in [("a.1", "a", 1), ("fix.login.12", "fix.login", 12), ("1.2.3", "1.2", 3)]
        {
            let id = DispatchId::parse(text).expect(text);
            assert_eq!((id.bead().as_str(), id.number(), id.to_string().as_str()), (bead, number, text));
        }
        for text in ["a", "a.", ".1", "a.0", "a.01", "a.+1", "a.-1", "a.1 ", "A.1", "a.1000000000000000"] {
            assert!(DispatchId::parse(text).is_err(), "{text:?}");
        }
        let longest = format!("{}.{}", "a".repeat(64), "9".repeat(15));
        assert_eq!(longest.len(), DispatchId::BYTES_MAX);
        assert!(DispatchId::parse(&longest).is_ok());
        assert!(DispatchId::parse(&format!("a{longest}")).is_err());
    }

    #[test]
    fn trace_ids_follow_the_w3c_form() {
        let text = "0af7651916cd43dd8448eb211c80319c";
        assert_eq!(TraceId::parse(text).map(|id| id.to_string()).as_deref(), Ok(text));
        assert!(TraceId::parse(&"0".repeat(32)).is_err());
        assert!(TraceId::parse("0AF7651916CD43DD8448EB211C80319C").is_err());
    }
}
