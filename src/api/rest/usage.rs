//! `GET /usage`: what agents used, as JSON or as CSV for a spreadsheet.

use std::sync::Arc;

use http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;

use super::super::request::Request;
use super::super::response::{Outcome, Problem, json_reply, reply};
use super::super::state::ApiState;
use crate::gateway::{UsageBy, UsageQuery, UsageReport, UsageRow, parse_since};
use crate::ids::AgentId;
use crate::limits::USAGE_SINCE_DEFAULT;

/// The query of `GET /usage`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UsageParams {
    /// `agent` (the default), `model`, `session` or `day`.
    by: Option<UsageBy>,
    /// Since when: a length of time such as `7d` (the default), an RFC 3339 time, or epoch milliseconds.
    since: Option<String>,
    /// Only this agent.
    agent: Option<AgentId>,
    /// `json` (the default) or `csv`.
    format: Option<Format>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Json,
    Csv,
}

pub(crate) async fn usage(state: Arc<ApiState>, request: Request) -> Outcome {
    let UsageParams { by, since, agent, format } = request.query()?;
    let since = parse_since(since.as_deref().unwrap_or(USAGE_SINCE_DEFAULT), state.sources.clock.now());
    let since = since.map_err(|problem| Problem::bad_request(format!("since: {problem}")))?;
    let query = UsageQuery { by: by.unwrap_or(UsageBy::Agent), since, agent };
    let unknown = |error: crate::gateway::Rejection| {
        Problem::new(StatusCode::NOT_FOUND, "unknown_agent", error.to_string())
    };
    let report = state.usage(query).await.map_err(unknown)?;
    match format.unwrap_or_default() {
        Format::Json => json_reply(&report),
        Format::Csv => {
            let body = write_csv(&report).ok_or_else(Problem::internal)?;
            Ok(reply(StatusCode::OK, "text/csv; charset=utf-8; header=present", body))
        }
    }
}

const AMOUNTS: [&str; 12] = [
    "requests",
    "failed",
    "calls",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cost_usd",
    "estimated_tokens",
    "estimated_usd",
    "unpriced",
    "unreported",
];

/// Comma-separated values (RFC 4180): the names that the rows are by, then the amounts. A row without names sums up what
/// is past a limit, and dollars that are not known are empty.
fn write_csv(report: &UsageReport) -> Option<Vec<u8>> {
    let names: &[&str] = match report.by {
        UsageBy::Agent => &["agent"],
        UsageBy::Model => &["provider", "model"],
        UsageBy::Session => &["agent", "session"],
        UsageBy::Day => &["day"],
    };
    let dollars = |usd: Option<f64>| usd.map(|usd| usd.to_string()).unwrap_or_default();
    let mut csv = csv::Writer::from_writer(Vec::new());
    csv.write_record(names.iter().chain(&AMOUNTS)).ok()?;
    for row in &report.rows {
        let UsageRow { day, agent, session, provider, model, amounts } = row;
        let named = names.iter().map(|name| match *name {
            "agent" => agent.as_ref().map(|agent| agent.as_str()),
            "session" => session.as_ref().map(|session| session.as_str()),
            "provider" => provider.as_deref(),
            "model" => model.as_deref(),
            _ => day.as_deref(),
        });
        let named = named.map(|name| name.unwrap_or_default().to_owned());
        let amounts = [
            amounts.requests.to_string(),
            amounts.failed.to_string(),
            amounts.calls.to_string(),
            amounts.input_tokens.to_string(),
            amounts.output_tokens.to_string(),
            amounts.cache_read_tokens.to_string(),
            amounts.cache_write_tokens.to_string(),
            dollars(amounts.cost_usd),
            amounts.estimated_tokens.to_string(),
            dollars(amounts.estimated_usd),
            amounts.unpriced.to_string(),
            amounts.unreported.to_string(),
        ];
        csv.write_record(named.chain(amounts)).ok()?;
    }
    csv.into_inner().ok()
}
