//! Fills a configuration struct from a tree: the field says what type a scalar is, and an error says where it stands.
//!
//! A fault names the place, the keys that lead there and what was expected, never the value: it may be a secret. Start
//! at [`Reader`].

use std::cell::RefCell;
use std::collections::{BTreeMap, btree_map};
use std::fmt;

use serde::Deserialize;
use serde::de::value::{StrDeserializer, StringDeserializer};
use serde::de::{self, DeserializeSeed, Deserializer, Expected, IntoDeserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use super::problem::{Origin, Step, nearest};
use super::tree::{Entry, Node, Scalar, Value};

/// Why a tree does not fill a type: the first reason met.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) what: What,
    /// The place, once it is known.
    pub(crate) at: Option<Origin>,
    /// The way to the place, the innermost step first.
    pub(crate) steps: Vec<Step>,
}

/// What is wrong.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// The value, or the key.
    Wrong(String),
    /// A key that the schema does not know; the message names the nearest.
    UnknownKey(String),
    /// A key that must be there.
    MissingKey(&'static str),
}

impl Fault {
    fn inside(mut self, step: Step, at: &Origin) -> Self {
        self.at.get_or_insert_with(|| at.clone());
        self.steps.push(step);
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Wrong(message) | What::UnknownKey(message) => f.write_str(message),
            What::MissingKey(key) => write!(f, "the key `{key}` is missing"),
        }
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { what: What::Wrong(message.to_string()), at: None, steps: Vec::new() }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format!("expected {expected}, found {}", word(found)))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format!("expected {expected}"))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let near = nearest(variant, expected.iter().copied());
        let near = near.map(|word| format!(", did you mean {word}?")).unwrap_or_default();
        Self::custom(format!("expected {}{near}", expected.join(" or ")))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self { what: What::UnknownKey(unknown_key(field, expected)), at: None, steps: Vec::new() }
    }

    fn missing_field(field: &'static str) -> Self {
        Self { what: What::MissingKey(field), at: None, steps: Vec::new() }
    }
}

/// The message about a key that is not among `known`.
pub(crate) fn unknown_key(key: &str, known: &[&str]) -> String {
    match nearest(key, known.iter().copied()) {
        Some(near) => format!("unknown key, did you mean `{near}`?"),
        None if known.is_empty() => "unknown key: no keys are expected here".to_owned(),
        None => format!("unknown key: expected one of {}", known.join(", ")),
    }
}

/// The kind of a value, without the value.
fn word(found: Unexpected<'_>) -> &'static str {
    match found {
        Unexpected::Bool(_) => "true or false",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "a number",
        Unexpected::Seq => "a list",
        Unexpected::Map | Unexpected::StructVariant => "keys and values",
        Unexpected::Unit | Unexpected::Option => "nothing",
        _ => "text",
    }
}

/// Reads one node of the tree.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a>(pub(crate) &'a Node);

impl<'a> Reader<'a> {
    fn found(self) -> &'static str {
        match &self.0.value {
            Value::Null | Value::Refused => "nothing",
            Value::Scalar(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "keys and values",
        }
    }

    fn scalar(self, expected: &str) -> Result<&'a Scalar, Fault> {
        match &self.0.value {
            Value::Scalar(scalar) => Ok(scalar),
            Value::Null | Value::Refused | Value::List(_) | Value::Map(_) => {
                Err(de::Error::custom(format!("expected {expected}, found {}", self.found())))
            }
        }
    }

    /// A number or a truth value: a scalar without quotes that `read` can read.
    fn plain<T>(self, expected: &str, read: impl Fn(&str) -> Option<T>) -> Result<T, Fault> {
        let scalar = self.scalar(expected)?;
        if !scalar.plain {
            return Err(de::Error::custom(format!("expected {expected}, without quotes")));
        }
        read(&scalar.text).ok_or_else(|| de::Error::custom(format!("expected {expected}")))
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

macro_rules! whole_numbers {
    ($($method:ident $visit:ident $type:ty),* $(,)?) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            visitor.$visit(self.plain("a whole number", |text| text.parse::<$type>().ok())?)
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'de> {
    type Error = Fault;

    /// Only for a type that takes several, such as a number of bytes: guesses as the core schema of YAML does.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.0.value {
            Value::Null | Value::Refused => visitor.visit_unit(),
            Value::List(list) => visitor.visit_seq(List { items: list, index: 0 }),
            Value::Map(map) => visitor.visit_map(Map::of(map)),
            Value::Scalar(Scalar { text, plain, .. }) => {
                if !plain {
                    return visitor.visit_str(text);
                }
                match (boolean(text), text.parse::<u64>(), text.parse::<i64>()) {
                    (Some(value), ..) => visitor.visit_bool(value),
                    (_, Ok(value), _) => visitor.visit_u64(value),
                    (_, _, Ok(value)) => visitor.visit_i64(value),
                    _ => visitor.visit_str(text),
                }
            }
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_bool(self.plain("true or false", boolean)?)
    }

    whole_numbers! {
        deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16, deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64, deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32, deserialize_i64 visit_i64 i64,
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let finite = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
        visitor.visit_f64(self.plain("a number", finite)?)
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_str(&self.scalar("text")?.text)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0.value {
            Value::Null => visitor.visit_none(),
            Value::Refused | Value::Scalar(_) | Value::List(_) | Value::Map(_) => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if name != crate::secret::NEWTYPE {
            return visitor.visit_newtype_struct(self);
        }
        let Scalar { text, shown, .. } = self.scalar("text")?;
        let shown = shown.as_deref().unwrap_or("***");
        visitor.visit_seq(de::value::SeqDeserializer::new([text.as_str(), shown].into_iter()))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.0.value {
            Value::List(list) => visitor.visit_seq(List { items: list, index: 0 }),
            Value::Null | Value::Refused | Value::Scalar(_) | Value::Map(_) => {
                Err(de::Error::custom(format!("expected a list, found {}", self.found())))
            }
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.0.value {
            Value::Map(map) => visitor.visit_map(Map::of(map)),
            Value::Null | Value::Refused | Value::Scalar(_) | Value::List(_) => {
                Err(de::Error::custom(format!("expected keys and values, found {}", self.found())))
            }
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let scalar = self.scalar(&variants.join(" or "))?;
        let variant: StrDeserializer<'_, Fault> = scalar.text.as_str().into_deserializer();
        visitor.visit_enum(variant)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
    }
}

/// Reads two structs whose keys stand side by side in one map, and refuses those that neither knows. `serde(flatten)`
/// would know neither where a wrong value stands nor which keys there are.
pub(crate) fn side_by_side<'a, A, B>(node: &'a Node) -> Result<(A, B), Fault>
where
    A: Deserialize<'a>,
    B: Deserialize<'a>,
{
    let Value::Map(map) = &node.value else { return Err(de::Error::custom("expected keys and values")) };
    let known = RefCell::new(Vec::new());
    let one = A::deserialize(Part { map, known: &known });
    let other = B::deserialize(Part { map, known: &known });
    let known = known.into_inner();
    let mut live = map.iter().filter(|(_, entry)| entry.node.value != Value::Refused);
    if let Some((key, _)) = live.find(|(key, _)| !known.contains(&key.as_str())) {
        let what = What::UnknownKey(unknown_key(key, &known));
        return Err(Fault { what, at: None, steps: vec![Step::Key(key.clone())] });
    }
    match (one, other) {
        (Ok(one), Ok(other)) => Ok((one, other)),
        // A key that is missing ends the reading: what else is wrong is told before.
        (Err(Fault { what: What::MissingKey(_), .. }) | Ok(_), Err(fault)) | (Err(fault), _) => Err(fault),
    }
}

/// One of several structs that share a map: it reads its own keys, and says which they are.
struct Part<'a, 'b> {
    map: &'a BTreeMap<String, Entry>,
    known: &'b RefCell<Vec<&'static str>>,
}

impl<'de> Deserializer<'de> for Part<'de, '_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_map(Map::of(self.map))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.known.borrow_mut().extend(fields);
        visitor.visit_map(Map { only: Some(fields), ..Map::of(self.map) })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

struct List<'a> {
    items: &'a [Node],
    index: usize,
}

impl<'de> de::SeqAccess<'de> for List<'de> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        while let Some(node) = self.items.get(self.index) {
            let index = self.index;
            self.index += 1;
            if node.value != Value::Refused {
                let read = seed.deserialize(Reader(node));
                return read.map(Some).map_err(|fault| fault.inside(Step::Index(index), &node.at));
            }
        }
        Ok(None)
    }
}

struct Map<'a> {
    entries: btree_map::Iter<'a, String, Entry>,
    /// The keys that are read; all, if there is no such list.
    only: Option<&'static [&'static str]>,
    current: Option<(&'a str, &'a Node)>,
}

impl<'a> Map<'a> {
    fn of(map: &'a BTreeMap<String, Entry>) -> Self {
        Self { entries: map.iter(), only: None, current: None }
    }
}

impl<'de> de::MapAccess<'de> for Map<'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let only = self.only;
        let read = |key: &str| only.is_none_or(|only| only.contains(&key));
        let live = self.entries.by_ref().find(|(key, entry)| entry.node.value != Value::Refused && read(key));
        let Some((key, entry)) = live else { return Ok(None) };
        self.current = Some((key, &entry.node));
        let text: StringDeserializer<Fault> = key.clone().into_deserializer();
        let read = seed.deserialize(text);
        read.map(Some).map_err(|fault| fault.inside(Step::Key(key.clone()), &entry.key_at))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let (key, node) = self.current.take().expect("serde asks for a value after its key");
        let read = seed.deserialize(Reader(node));
        read.map_err(|fault| fault.inside(Step::Key(key.to_owned()), &node.at))
    }
}
