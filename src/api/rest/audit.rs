//! `GET /audit`: the journal, page by page, the newest first unless asked otherwise.

use std::sync::Arc;

use http::header::ACCEPT;
use http::{HeaderName, HeaderValue, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::Role;
use super::super::request::Request;
use super::super::response::{Outcome, Problem, reply};
use super::super::state::ApiState;
use super::super::withheld::withhold;
use crate::clock::Timestamp;
use crate::ids::Seq;
use crate::journal::{Journal, Page, ReadError, Record, Scan, StreamId};
use crate::limits::AUDIT_PAGE_RECORDS_MAX;

const PAGE_DEFAULT: usize = 100;

/// The query of `GET /audit`. All conditions hold at once.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AuditQuery {
    /// Only this stream: `request`, `operator`, `alert`, `instance/<agent>` or `town/<town>`.
    stream: Option<String>,
    /// Only this kind, such as `token_created`.
    kind: Option<String>,
    /// From this time on, RFC 3339.
    from: Option<String>,
    /// Before this time, RFC 3339.
    to: Option<String>,
    /// Where the page before ended: its `next`.
    cursor: Option<u64>,
    /// Records on a page; 1 to 1,000, by default 100.
    limit: Option<usize>,
    /// `desc` (the newest first, the default) or `asc`.
    order: Option<Order>,
    /// `json` (the default), `ndjson` or `csv`; wins over `Accept`.
    format: Option<Format>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Order {
    Asc,
    #[default]
    Desc,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    Json,
    Ndjson,
    Csv,
}

impl Format {
    const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8; header=present",
        }
    }

    /// The first of ours that `Accept` names.
    fn accepted(accept: &str) -> Self {
        let wanted = accept.split(',').map(|offer| offer.split(';').next().unwrap_or(offer).trim());
        wanted
            .filter_map(|offer| match offer {
                "application/json" | "*/*" => Some(Self::Json),
                "application/x-ndjson" | "application/jsonl" => Some(Self::Ndjson),
                "text/csv" => Some(Self::Csv),
                _ => None,
            })
            .next()
            .unwrap_or(Self::Json)
    }
}

/// A page of records.
#[derive(Serialize, JsonSchema)]
pub(crate) struct AuditPage {
    /// The records, in the order asked for.
    #[schemars(with = "Vec<AuditRecord>")]
    records: Vec<Record>,
    /// The cursor of the next page; null at the end.
    next: Option<Seq>,
}

/// A record of the journal.
#[derive(Serialize, JsonSchema)]
struct AuditRecord {
    /// Its place in the total order of all streams.
    seq: Seq,
    /// When it was appended.
    time: Timestamp,
    stream: String,
    /// What happened.
    kind: String,
    /// The version of this kind's detail.
    version: u16,
    /// A token's name, `local`, `planner` or `system`.
    actor: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    /// The fact. What agents are told and what they say, only an operator sees.
    detail: serde_json::Map<String, serde_json::Value>,
    /// SHA-256 of the record before it in its log.
    prev_hash: String,
}

/// Answers one page.
pub(crate) async fn audit(state: Arc<ApiState>, request: Request) -> Outcome {
    let query: AuditQuery = request.query()?;
    let accept = request.headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
    let format = query.format.unwrap_or_else(|| Format::accepted(accept));
    let question = Question::read(query)?;
    let role = request.identity()?.role;
    let journal = Arc::clone(&state.sources.journal);
    state.catch_up().await;
    let page = tokio::task::spawn_blocking(move || question.ask(&*journal)).await;
    let mut page = page.map_err(|_panic| Problem::internal())?.map_err(|error| {
        tracing::warn!(%error, "the journal could not be queried");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "journal_unavailable", "the journal cannot be read now")
    })?;
    if role != Role::Operator {
        for record in &mut page.records {
            let mut detail = std::mem::take(&mut record.detail);
            withhold(record, &mut detail);
            record.detail = detail;
        }
    }
    let next = page.next;
    let body = write(page, format).ok_or_else(Problem::internal)?;
    let mut reply = reply(StatusCode::OK, format.content_type(), body);
    if let Some(next) = next {
        reply.headers_mut().insert(HeaderName::from_static("x-next-cursor"), HeaderValue::from(next.0));
    }
    Ok(reply)
}

/// A query, checked.
struct Question {
    scan: Scan,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
}

impl Question {
    fn read(query: AuditQuery) -> Result<Self, Problem> {
        let AuditQuery { stream, kind, from, to, cursor, limit, order, format: _ } = query;
        let bad = |field: &str, problem: String| Problem::bad_request(format!("{field}: {problem}"));
        let time = |field: &'static str, text: Option<String>| {
            text.map(|text| Timestamp::parse_rfc3339(&text).map_err(|e| bad(field, e))).transpose()
        };
        let limit = limit.unwrap_or(PAGE_DEFAULT);
        if !(1..=AUDIT_PAGE_RECORDS_MAX).contains(&limit) {
            return Err(bad("limit", format!("expected 1 to {AUDIT_PAGE_RECORDS_MAX}")));
        }
        let stream = stream.map(|text| StreamId::parse(&text)).transpose();
        let mut scan = Scan {
            stream: stream.map_err(|e| bad("stream", e.to_string()))?,
            kind,
            limit,
            newest_first: order.unwrap_or_default() == Order::Desc,
            ..Scan::default()
        };
        match (scan.newest_first, cursor) {
            (true, cursor) => scan.before = cursor.map(Seq),
            (false, cursor) => scan.from = Seq(cursor.unwrap_or(0)),
        }
        Ok(Self { scan, from: time("from", from)?, to: time("to", to)? })
    }

    /// Blocks on IO.
    fn ask(mut self, journal: &dyn Journal) -> Result<Page, ReadError> {
        if let Some(from) = self.from {
            self.scan.from = self.scan.from.max(journal.seq_at(from)?);
        }
        if let Some(to) = self.to {
            let end = journal.seq_at(to)?;
            self.scan.before = Some(self.scan.before.map_or(end, |before| before.min(end)));
        }
        journal.scan(&self.scan)
    }
}

fn write(page: Page, format: Format) -> Option<Vec<u8>> {
    match format {
        Format::Json => serde_json::to_vec(&AuditPage { records: page.records, next: page.next }).ok(),
        Format::Ndjson => {
            let mut lines = Vec::new();
            for record in &page.records {
                serde_json::to_writer(&mut lines, record).ok()?;
                lines.push(b'\n');
            }
            Some(lines)
        }
        Format::Csv => write_csv(&page.records),
    }
}

/// Comma-separated values (RFC 4180).
fn write_csv(records: &[Record]) -> Option<Vec<u8>> {
    let mut csv = csv::Writer::from_writer(Vec::new());
    csv.write_record(Record::COLUMNS).ok()?;
    for record in records {
        csv.write_record(record.cells()).ok()?;
    }
    csv.into_inner().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_follows_what_is_accepted() {
        for (accept, format) in [
            ("text/csv", Format::Csv),
            ("text/html, application/x-ndjson;q=0.9", Format::Ndjson),
            ("*/*", Format::Json),
            ("image/png", Format::Json),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept}");
        }
    }

    #[test]
    fn a_wrong_query_names_its_part() {
        let status = |query: &str| {
            let query = serde_urlencoded::from_str::<AuditQuery>(query).ok()?;
            Some(Question::read(query).is_ok())
        };
        assert_eq!(status("stream=operator&from=2026-01-01T00:00:00Z&limit=1000&order=asc"), Some(true));
        for bad in ["stream=nonsense", "from=yesterday", "limit=0", "limit=1001"] {
            assert_eq!(status(bad), Some(false), "{bad}");
        }
        let said = serde_urlencoded::from_str("from=yesterday").ok().map(Question::read);
        let said = said.and_then(Result::err).expect("it is refused");
        assert!(said.message().contains("from: expected an RFC 3339 time, such as"), "{}", said.message());
        for unreadable in ["colour=red", "limit=many", "limit=1&limit=2", "order=up", "format=xml"] {
            assert_eq!(status(unreadable), None, "{unreadable}");
        }
    }
}
