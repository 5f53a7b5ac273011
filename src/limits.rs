//! Limits that are not configuration: each with its unit in the name and one sentence on why this number.
//!
//! What an operator may want to change is a configuration key of the module that enforces it, with a checked range.

/// Records in one `append`, and in one committed group: sled 0.34.7 needs three times the memory and 150 ms a
/// batch at 10,000 rows, and is at its fastest from 500 on.
pub const JOURNAL_GROUP_RECORDS_MAX: usize = 500;

/// Appends that may wait for the journal's writer: at 60,000 a second this is about 70 ms of work.
pub const JOURNAL_QUEUE_APPENDS_MAX: usize = 4_096;

/// Bytes of one record's detail as JSON: a bead's instructions (64 KiB) with room for their escaping.
pub const JOURNAL_DETAIL_BYTES_MAX: usize = 256 * 1024;

/// Records that a subscriber of the journal's tail may lag behind before it has to read them back.
pub const JOURNAL_TAIL_RECORDS_MAX: usize = 4_096;

/// Envelopes that one stream client may lag behind before live ones are dropped for it (and counted).
pub const STREAM_CLIENT_ENVELOPES_MAX: usize = 1_024;

/// Events of one request that may wait for its reader: a reader that is slower makes the provider wait.
pub const REQUEST_EVENTS_MAX: usize = 64;

/// Bytes of text from outside (a provider's error body, a child's last words) that may enter a message.
pub const QUOTED_BYTES_MAX: usize = 1_024;

/// Series of one metric when its definition names no smaller number.
pub const METRIC_SERIES_MAX: usize = 200;

const _: () =
    assert!(JOURNAL_QUEUE_APPENDS_MAX >= JOURNAL_GROUP_RECORDS_MAX, "a full queue must fill a group");
