//! Limits on alerts that are posted, and on what is kept of them.

use std::time::Duration;

use super::{JOURNAL_DETAIL_BYTES_MAX, JOURNAL_GROUP_BYTES_MAX, JOURNAL_GROUP_RECORDS_MAX};

/// Bytes of one body of alerts: what [`ALERTS_PER_BODY_MAX`] ordinary ones take; Grafana says everything three times.
pub const ALERT_BODY_BYTES_MAX: usize = 2 << 20;

/// Alerts of one body: one group of a sender that has gone wild, of which everybody reads the first ten.
pub const ALERTS_PER_BODY_MAX: usize = 1_000;

/// Labels of one alert: Prometheus's own default limits stand at 30 and 64 where people set any.
pub const ALERT_LABELS_MAX: usize = 64;

/// Bytes of a label's name, of its value, and of an annotation: a page of description.
pub const ALERT_TEXT_BYTES_MAX: usize = 4 << 10;

/// Bytes of all that is kept of one alert: a few such pages.
pub const ALERT_BYTES_MAX: usize = 32 << 10;

/// Alerts that are written at once: what they begin, end and push aside must fit one append.
pub const ALERTS_AT_ONCE_MAX: usize = 250;

/// Alerts that fire at once: ten times what makes everybody look away.
pub const ALERTS_FIRING_MAX: usize = 10_000;

/// Bytes of all that fires: 1.6 KiB for each of [`ALERTS_FIRING_MAX`], and as much as their snapshot has.
pub const ALERTS_FIRING_BYTES_MAX: usize = 16 << 20;

/// Alerts that are over and still shown, the newest: a bad day.
pub const ALERTS_OVER_MAX: usize = 200;

/// Alerts that one answer lists besides: more than anybody reads.
pub const ALERTS_LISTED_MAX: usize = 1_000;

/// Bytes of what one append says of alerts that nobody tells of any more.
pub const ALERTS_EXPIRED_BYTES_MAX: usize = 1 << 20;

/// How long nobody may tell of an alert before it is shown as stale: Alertmanager and Grafana repeat theirs every four
/// hours unless told otherwise, and one repetition may be lost.
pub const ALERT_STALE_AFTER: Duration = Duration::from_secs(9 * 3_600);

/// How long nobody may tell of an alert before its end is written: the longest weekend.
pub const ALERT_EXPIRES_AFTER: Duration = Duration::from_secs(7 * 24 * 3_600);

const _: () = assert!(2 * ALERTS_AT_ONCE_MAX <= JOURNAL_GROUP_RECORDS_MAX, "each may push another one aside");
const _: () =
    assert!(6 * ALERT_BYTES_MAX < JOURNAL_DETAIL_BYTES_MAX, "an alert must fit a record with all escaped");
const _: () = assert!(
    ALERT_BODY_BYTES_MAX + ALERTS_EXPIRED_BYTES_MAX + 2 * ALERTS_AT_ONCE_MAX * 1_024
        <= JOURNAL_GROUP_BYTES_MAX,
    "JSON that is written is no longer than what was read, but for the names of fields"
);
