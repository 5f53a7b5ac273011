//! Limits that are not configuration: each with its unit in the name and one sentence on why this number.
//!
//! What an operator may want to change is a configuration key of the module that enforces it, with a checked range.

use std::time::Duration;

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

/// Bytes of one answer: about a million tokens, more than any model writes in one go.
pub const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Tools that an answer lists by name; the rest is only counted.
pub const TOOLS_PER_REQUEST_MAX: usize = 1_000;

/// The longest deadline of a request: what takes longer is a job, not a message.
pub const DEADLINE_MAX: Duration = Duration::from_secs(24 * 3_600);

/// How long a request that has ended, and holds nothing any more, waits for its reader to take the last event.
pub const FINAL_EVENT_WAIT: Duration = Duration::from_secs(5);

/// Bytes of text from outside (a provider's error body, a child's last words) that may enter a message.
pub const QUOTED_BYTES_MAX: usize = 1_024;

/// Series of one metric when its definition names no smaller number.
pub const METRIC_SERIES_MAX: usize = 200;

const _: () =
    assert!(JOURNAL_QUEUE_APPENDS_MAX >= JOURNAL_GROUP_RECORDS_MAX, "a full queue must fill a group");
