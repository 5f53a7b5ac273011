//! Alerts that Alertmanager and Grafana post: what fires now, and what is over.
//!
//! Only changes are journaled, in the stream `alert`: what is told again and again leaves one record. What fires is a fold
//! of these records, so it survives a restart. No rule is evaluated here and nobody is told: that is Prometheus's and
//! Grafana's work. Start at [`Alerts`]; `body` reads what is posted and `book` decides, both pure.

mod alert;
mod body;
mod book;
mod list;
pub mod metrics;
mod record;
mod service;

pub use alert::{Annotations, Severity, Source};
pub use body::{Body, BodyError, PostedAlert, PostedBody, PostedStatus, read};
pub use list::{AlertList, ListedAlert, Status, Watchdog};
pub use record::{ALERT_EXPIRED, ALERT_FIRED, ALERT_RESOLVED, level, summary};
pub use service::{Alerts, IntakeError, Taken};

#[cfg(test)]
mod tests;
