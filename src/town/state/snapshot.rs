//! A town written down, read back, and told from another by a hash.

use std::fmt;
use std::io::{self, Write};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::index::Indices;
use super::{Facts, Town};

/// The version of snapshots. Facts that a later plimsoll added are passed over by this one.
pub const SNAPSHOT_VERSION: u16 = 1;

/// The SHA-256 of a town's snapshot: two towns with the same hash are the same. Prints as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StateHash([u8; 32]);

impl Town {
    /// Its whole state.
    ///
    /// # Panics
    /// Never: a town is maps of plain values, and every key is a text.
    #[must_use]
    pub fn snapshot(&self) -> Value {
        json!({"version": SNAPSHOT_VERSION, "town": self.facts})
    }

    /// The town of a snapshot. It need not make sense: what is wrong in it, the invariants tell.
    ///
    /// # Errors
    /// Says why it cannot be used.
    pub fn restore(snapshot: &Value) -> Result<Self, String> {
        let version = snapshot["version"].as_u64().ok_or("the snapshot has no version")?;
        if version > u64::from(SNAPSHOT_VERSION) {
            return Err(format!("the snapshot has version {version}: a later plimsoll wrote it"));
        }
        let facts = Facts::deserialize(&snapshot["town"]).map_err(|error| error.to_string())?;
        let indices = Indices::of(&facts);
        Ok(Self { facts, indices })
    }

    /// What tells it from others. Costs as much as a snapshot.
    ///
    /// # Panics
    /// Never, as [`Town::snapshot`].
    #[must_use]
    pub fn hash(&self) -> StateHash {
        // Fields stand in the order of their declaration and maps in the order of their keys: the text is canonical.
        let mut sink = Hashing(Sha256::new());
        serde_json::to_writer(&mut sink, &(SNAPSHOT_VERSION, &self.facts))
            .expect("a town is maps of plain values with texts as keys");
        StateHash(sink.0.finalize().into())
    }
}

struct Hashing(Sha256);

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Display for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StateHash({self})")
    }
}

impl Serialize for StateHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
