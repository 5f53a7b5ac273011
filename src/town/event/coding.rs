//! How an event stands in the journal: its kind, a version, and a detail.

use serde::Deserialize as _;
use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, EnumAccess, IntoDeserializer as _, VariantAccess, Visitor};
use serde_json::{Value, json};

use super::{KINDS, TownEvent};

/// The version of every kind's detail.
pub const VERSION: u16 = 1;

/// Why a record is no event of a town that this plimsoll knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// A later plimsoll wrote it.
    #[error("events of kind {kind} are not known here: a later plimsoll wrote this one")]
    Kind {
        /// What it is called.
        kind: String,
    },
    /// A later plimsoll wrote it.
    #[error("{kind} of version {version} is not known here, only up to {VERSION}: a later plimsoll wrote it")]
    Version {
        /// What it is.
        kind: &'static str,
        /// Its version.
        version: u16,
    },
    /// It does not hold what an event of its kind holds.
    #[error("the detail of {kind} cannot be read: {error}")]
    Detail {
        /// What it is.
        kind: &'static str,
        /// What is wrong.
        error: String,
    },
}

impl TownEvent {
    /// What the journal keeps of it.
    ///
    /// # Panics
    /// Never: an event is a map of plain values.
    #[must_use]
    pub fn detail(&self) -> Value {
        let mut tagged = json!(self);
        tagged.get_mut(self.kind()).map(Value::take).expect("an event is written under its kind")
    }

    /// Reads what the journal keeps. Fields that are not known here are passed over.
    ///
    /// # Errors
    /// See [`Unreadable`].
    pub fn parse(kind: &str, version: u16, detail: &Value) -> Result<Self, Unreadable> {
        let Some(kind) = KINDS.iter().find(|known| **known == kind) else {
            return Err(Unreadable::Kind { kind: kind.to_owned() });
        };
        if version > VERSION {
            return Err(Unreadable::Version { kind, version });
        }
        let tagged = de::value::EnumAccessDeserializer::new(Tagged { kind, detail });
        Self::deserialize(tagged).map_err(|error| Unreadable::Detail { kind, error: error.to_string() })
    }
}

/// A kind and its detail as an enum of serde, so that a detail is read where it lies.
struct Tagged<'a> {
    kind: &'static str,
    detail: &'a Value,
}

impl<'de> EnumAccess<'de> for Tagged<'de> {
    type Error = serde_json::Error;
    type Variant = Detail<'de>;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Detail<'de>), serde_json::Error> {
        let kind: StrDeserializer<'_, serde_json::Error> = self.kind.into_deserializer();
        Ok((seed.deserialize(kind)?, Detail(self.detail)))
    }
}

struct Detail<'a>(&'a Value);

impl<'de> VariantAccess<'de> for Detail<'de> {
    type Error = serde_json::Error;

    fn unit_variant(self) -> Result<(), serde_json::Error> {
        Err(de::Error::custom("every event has fields"))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, serde_json::Error> {
        seed.deserialize(self.0)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, serde_json::Error> {
        de::Deserializer::deserialize_seq(self.0, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, serde_json::Error> {
        de::Deserializer::deserialize_map(self.0, visitor)
    }
}
