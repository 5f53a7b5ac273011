//! The alert rules that come with the program, rendered for those who run them: `alerts/*.rules.yaml` is the one source.
//!
//! Pure: text in, text out. Evaluates nothing and sends nothing; Prometheus or Grafana do. Start at [`Rules::embedded`],
//! then [`prometheus`] and [`grafana`].

mod expression;
pub(crate) mod grafana;
mod links;
pub(crate) mod prometheus;
mod source;
mod span;
mod threshold;

pub(crate) use links::{BaseUrl, Links};
pub(crate) use source::{Group, Rules};
pub(crate) use threshold::{Setting, Threshold, listed, thresholds};
