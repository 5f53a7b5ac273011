//! A configuration file as a tree of values that know where they stand, and how two of them are merged.
//!
//! A scalar keeps its text as written: what type it is, is asked of it by the field it fills. Start at [`Node`].

use std::collections::BTreeMap;
use std::fmt;

use super::problem::{KeyPath, Origin, Step};

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) at: Origin,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// `null`, `~` or nothing: not set, as if the key were not there.
    Null,
    /// Text, a number, a truth value.
    Scalar(Scalar),
    /// `[...]`
    List(Vec<Node>),
    /// `{...}`
    Map(BTreeMap<String, Entry>),
    /// Was refused and is looked at no more, so that the rest can be.
    Refused,
}

/// A scalar as it is written. May be a secret, so `Debug` prints nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    /// Written without quotes: may be a number or a truth value.
    pub(crate) plain: bool,
    /// With expanded variables: how to show it if it is a secret.
    pub(crate) shown: Option<String>,
}

impl fmt::Debug for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scalar")
    }
}

/// A key's value, and where the key stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key_at: Origin,
    pub(crate) node: Node,
}

impl Node {
    pub(crate) fn new(value: Value, at: Origin) -> Self {
        Self { value, at }
    }

    /// A map without keys.
    pub(crate) fn empty(at: Origin) -> Self {
        Self::new(Value::Map(BTreeMap::new()), at)
    }

    /// Lays `over` over this one: maps merge key by key, anything else is replaced, and null replaces too (so it
    /// resets a key to its default).
    pub(crate) fn merge(&mut self, over: Self) {
        match (&mut self.value, over.value) {
            (Value::Map(base), Value::Map(over)) => {
                for (key, entry) in over {
                    match base.get_mut(&key) {
                        Some(old) => {
                            old.node.merge(entry.node);
                            old.key_at = entry.key_at;
                        }
                        None => drop(base.insert(key, entry)),
                    }
                }
            }
            (value, over_value) => {
                *value = over_value;
                self.at = over.at;
            }
        }
    }

    /// Takes out every key whose value is null.
    pub(crate) fn prune(&mut self) {
        match &mut self.value {
            Value::Map(map) => {
                map.retain(|_, entry| entry.node.value != Value::Null);
                map.values_mut().for_each(|entry| entry.node.prune());
            }
            Value::List(list) => list.iter_mut().for_each(Self::prune),
            Value::Null | Value::Scalar(_) | Value::Refused => {}
        }
    }

    /// Takes every other key out of a map.
    pub(crate) fn keep_only(&mut self, kept: &str) {
        if let Value::Map(map) = &mut self.value {
            map.retain(|key, _| key == kept);
        }
    }

    /// The value at `path`.
    pub(crate) fn get(&self, path: &[Step]) -> Option<&Self> {
        let Some((first, rest)) = path.split_first() else { return Some(self) };
        match (&self.value, first) {
            (Value::Map(map), Step::Key(key)) => map.get(key)?.node.get(rest),
            (Value::List(list), Step::Index(index)) => list.get(*index)?.get(rest),
            _ => None,
        }
    }

    /// The value at `path`, to change it.
    pub(crate) fn get_mut(&mut self, path: &[Step]) -> Option<&mut Self> {
        let Some((first, rest)) = path.split_first() else { return Some(self) };
        match (&mut self.value, first) {
            (Value::Map(map), Step::Key(key)) => map.get_mut(key)?.node.get_mut(rest),
            (Value::List(list), Step::Index(index)) => list.get_mut(*index)?.get_mut(rest),
            _ => None,
        }
    }

    /// Where `path` stands, or the nearest thing around it that is written down.
    pub(crate) fn origin(&self, path: &KeyPath) -> Option<Origin> {
        let steps = &path.0;
        (1..=steps.len()).rev().find_map(|length| {
            let (last, before) = steps[..length].split_last()?;
            match (&self.get(before)?.value, last) {
                (Value::Map(map), Step::Key(key)) => map.get(key).map(|entry| entry.key_at.clone()),
                (Value::List(list), Step::Index(index)) => list.get(*index).map(|node| node.at.clone()),
                _ => None,
            }
        })
    }

    /// The keys of a map; none of anything else.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        let map = match &self.value {
            Value::Map(map) => Some(map),
            Value::Null | Value::Scalar(_) | Value::List(_) | Value::Refused => None,
        };
        map.into_iter().flat_map(|map| map.keys().map(String::as_str))
    }

    /// Whether anything in it was refused.
    pub(crate) fn has_refused(&self) -> bool {
        match &self.value {
            Value::Refused => true,
            Value::Null | Value::Scalar(_) => false,
            Value::List(list) => list.iter().any(Self::has_refused),
            Value::Map(map) => map.values().any(|entry| entry.node.has_refused()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    fn at() -> Origin {
        Origin::file(Path::new("x"))
    }

    fn trees() -> impl Strategy<Value = Node> {
        let text = "[a-c]{0,2}".prop_map(|text| Value::Scalar(Scalar { text, plain: true, shown: None }));
        let leaf = prop_oneof![Just(Value::Null), text].prop_map(|value| Node::new(value, at()));
        leaf.prop_recursive(4, 32, 4, |inner| {
            let map = prop::collection::btree_map("[a-d]", inner.clone(), 0..4).prop_map(|map| {
                let entry = |node| Entry { key_at: at(), node };
                Value::Map(map.into_iter().map(|(key, node)| (key, entry(node))).collect())
            });
            prop_oneof![map, prop::collection::vec(inner, 0..3).prop_map(Value::List)]
                .prop_map(|value| Node::new(value, at()))
        })
    }

    fn merged(base: &Node, over: &Node) -> Node {
        let mut result = base.clone();
        result.merge(over.clone());
        result
    }

    /// Every leaf of the overlay stands in the result where it stood in the overlay.
    fn wins(over: &Node, result: &Node) -> bool {
        match (&over.value, &result.value) {
            (Value::Map(over), Value::Map(result)) => {
                over.iter().all(|(key, entry)| result.get(key).is_some_and(|r| wins(&entry.node, &r.node)))
            }
            (over, result) => over == result,
        }
    }

    proptest! {
        #[test]
        fn merging_twice_is_merging_once(base in trees(), over in trees()) {
            let once = merged(&base, &over);
            prop_assert_eq!(merged(&once, &over), once);
        }

        #[test]
        fn the_overlay_wins_and_the_rest_stays(base in trees(), over in trees()) {
            let result = merged(&base, &over);
            prop_assert!(wins(&over, &result));
            if let (Value::Map(base), Value::Map(over), Value::Map(result)) = (&base.value, &over.value, &result.value) {
                for (key, entry) in base.iter().filter(|(key, _)| !over.contains_key(*key)) {
                    prop_assert_eq!(&result[key], entry);
                }
            }
        }

        #[test]
        fn an_empty_overlay_changes_no_map(base in trees()) {
            if matches!(base.value, Value::Map(_)) {
                prop_assert_eq!(merged(&base, &Node::empty(at())), base);
            }
        }

        #[test]
        fn pruning_leaves_no_null_key_and_is_done_once(tree in trees()) {
            fn clean(node: &Node) -> bool {
                match &node.value {
                    Value::Map(map) => map.values().all(|e| e.node.value != Value::Null && clean(&e.node)),
                    Value::List(list) => list.iter().all(clean),
                    Value::Null | Value::Scalar(_) | Value::Refused => true,
                }
            }
            let mut pruned = tree;
            pruned.prune();
            prop_assert!(clean(&pruned));
            let mut again = pruned.clone();
            again.prune();
            prop_assert_eq!(again, pruned);
        }
    }
}
