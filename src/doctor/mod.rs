//! `plimsoll doctor`: looks whether plimsoll can run here, and says what to do where it cannot.
//!
//! A check only looks: it changes nothing, starts nothing, and has a deadline. A new one is a file in `checks/` and a
//! line in `CHECKS`. Start at [`examine`].

mod checks;
mod scene;

use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use serde::Serialize;

use scene::Scene;

/// How long one check may take before it counts as failed.
const CHECK_DEADLINE: Duration = Duration::from_secs(10);

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Pass,
    /// There is nothing to check.
    Skip,
    /// It works and should be otherwise.
    Warn,
    /// It will not work.
    Fail,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check.
    pub check: &'static str,
    /// How it ended.
    pub status: Status,
    /// What was seen; may have several lines.
    pub detail: String,
    /// What to do, where something is to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// What a check says, before its name is put to it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Verdict {
    status: Status,
    detail: String,
    advice: Option<String>,
}

impl Verdict {
    fn pass(detail: impl Into<String>) -> Self {
        Self { status: Status::Pass, detail: detail.into(), advice: None }
    }

    fn skip(detail: impl Into<String>) -> Self {
        Self { status: Status::Skip, detail: detail.into(), advice: None }
    }

    fn warn(detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { status: Status::Warn, detail: detail.into(), advice: Some(advice.into()) }
    }

    fn fail(detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { status: Status::Fail, detail: detail.into(), advice: Some(advice.into()) }
    }
}

/// One check.
struct Check {
    name: &'static str,
    run: for<'a> fn(&'a Scene) -> BoxFuture<'a, Verdict>,
}

/// Every check, in the order in which they are printed.
const CHECKS: &[Check] = &[
    Check { name: "configuration file", run: checks::files::base },
    Check { name: "overlay", run: checks::files::overlay },
    Check { name: "configuration", run: checks::files::content },
    Check { name: "data directory", run: checks::data_dir::check },
    Check { name: "journal", run: checks::journal::check },
    Check { name: "port", run: checks::port::check },
    Check { name: "exposure", run: checks::exposure::check },
    Check { name: "providers", run: checks::providers::check },
    Check { name: "programs", run: checks::programs::check },
    Check { name: "processes", run: checks::processes::check },
    Check { name: "engine", run: checks::engine::check },
    Check { name: "images", run: checks::images::check },
    Check { name: "trace collector", run: checks::otlp::check },
    Check { name: "webhooks", run: checks::webhooks::check },
    Check { name: "clock", run: checks::clock::check },
];

/// Runs every check at the same time, each within its deadline.
pub async fn examine(request: &crate::config::LoadRequest<'_>, clock: crate::clock::Clock) -> Vec<Finding> {
    let scene = Scene::look(request, clock).await;
    join_all(CHECKS.iter().map(|check| run(check, &scene))).await
}

/// Whether any check failed.
#[must_use]
pub fn failed(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.status == Status::Fail)
}

async fn run(check: &Check, scene: &Scene) -> Finding {
    let verdict = tokio::time::timeout(CHECK_DEADLINE, (check.run)(scene)).await;
    let Verdict { status, detail, advice } = verdict.unwrap_or_else(|_| {
        Verdict::fail(
            format!("no result within {} s", CHECK_DEADLINE.as_secs()),
            "look whether the disk or the network hangs, then try again",
        )
    });
    Finding { check: check.name, status, detail, advice }
}

/// An error with its causes.
fn told(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
