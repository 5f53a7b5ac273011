//! `POST /api/alerts`: what Alertmanager and Grafana tell. `GET /api/alerts`: what fires, and what is over.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::super::guard;
use super::super::request::Request;
use super::super::response::{Outcome, Problem, json_reply};
use super::super::state::ApiState;
use super::NoQuery;
use crate::alerts::{BodyError, IntakeError};
use crate::journal::AppendError;

/// When to send it again where others went ahead: they are done by then.
const AFTER_OTHERS: Duration = Duration::from_secs(1);

/// When to send it again where too many fire: some may be over by then.
const AFTER_OTHERS_ENDED: Duration = Duration::from_secs(60);

pub(crate) async fn post_alerts(state: Arc<ApiState>, mut request: Request) -> Outcome {
    let NoQuery {} = request.query()?;
    let identity = request.identity()?;
    let body = state.read_json(&mut request).await?;
    guard::recheck(&state, &request.head, &identity).map_err(Problem::or_basic)?;
    let taken = state.alerts.receive(&*state.sources.journal, &identity.actor, &body).await?;
    json_reply(&taken)
}

pub(crate) async fn alerts(state: Arc<ApiState>, request: Request) -> Outcome {
    let NoQuery {} = request.query()?;
    json_reply(&state.alerts.list())
}

impl From<IntakeError> for Problem {
    fn from(error: IntakeError) -> Self {
        let message = error.to_string();
        let too_large = |code| Self::new(StatusCode::PAYLOAD_TOO_LARGE, code, message.clone());
        let later = |code| Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message.clone());
        match error {
            IntakeError::Body(BodyError::Unreadable(_)) => Self::bad_request(message),
            IntakeError::Body(BodyError::TooLong) => too_large("alert_body_too_large"),
            IntakeError::Body(BodyError::TooManyAlerts(_)) => too_large("too_many_alerts"),
            IntakeError::Body(BodyError::TooManyLabels(_)) => too_large("too_many_labels"),
            IntakeError::Body(BodyError::TextTooLong(_)) => too_large("alert_text_too_long"),
            IntakeError::Body(BodyError::TooLarge(_)) => too_large("alert_too_large"),
            IntakeError::Journal(AppendError::Closed) => later("shutting_down").retry_after(AFTER_OTHERS),
            IntakeError::Journal(cause) => {
                tracing::error!(source = "alerts", %cause, "alerts could not be written");
                later("journal_unavailable")
            }
            IntakeError::Late => later("journal_unavailable"),
            IntakeError::Busy => later("too_many_posts").retry_after(AFTER_OTHERS),
            IntakeError::NoPlace(_) => later("too_many_firing").retry_after(AFTER_OTHERS_ENDED),
        }
    }
}
