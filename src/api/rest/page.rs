//! `GET /`: a page that says what answers here. It holds no data and runs no script.

use std::sync::Arc;

use http::header::CONTENT_SECURITY_POLICY;
use http::{HeaderValue, StatusCode};

use super::super::request::Request;
use super::super::response::{Outcome, reply};
use super::super::state::ApiState;

const CSP: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const PAGE: &str = concat!(
    r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>plimsoll</title>
<style>
:root { color-scheme: light dark }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 10vh auto; padding: 0 1rem }
code { font-size: .95em }
</style>
<h1>plimsoll "#,
    env!("CARGO_PKG_VERSION"),
    r#"</h1>
<p>plimsoll runs a fleet of AI agents, and shows, records and guards everything the fleet does.
This is its API; it answers.</p>
<ul>
<li><a href="/health">/health</a>: what runs, and what is degraded</li>
<li><a href="/openapi.json">/openapi.json</a>: every route, with the role it asks for</li>
<li><code>plimsoll send &lt;agent&gt; &lt;message&gt;</code>: talk to an agent from a terminal</li>
</ul>
</html>
"#
);

pub(crate) async fn page(_state: Arc<ApiState>, _request: Request) -> Outcome {
    let mut page = reply(StatusCode::OK, "text/html; charset=utf-8", PAGE);
    page.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(CSP));
    Ok(page)
}
