//! The kinds of records that the journal itself appends, all in the stream `operator`.

/// A partition was deleted by retention: `{log, partition, first_seq, last_seq, last_hash, records}`.
pub const PARTITION_DROPPED: &str = "partition_dropped";

/// A damaged partition was moved away by an operator: `{log, partition, last_seq}`.
pub const PARTITION_LOST: &str = "partition_lost";

/// The torn end of a log was cut at start: `{log, seq, cause}`.
pub const END_CUT: &str = "end_cut";
