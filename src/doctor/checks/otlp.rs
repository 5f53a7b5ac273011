//! Does somebody take connections where traces go?

use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::super::Verdict;
use super::super::scene::Scene;
use super::NO_CONFIGURATION;
use crate::config::Loaded;

const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

pub(in crate::doctor) fn check(scene: &Scene) -> BoxFuture<'_, Verdict> {
    async move {
        match (&scene.loaded, scene.collector()) {
            (Err(_), _) => Verdict::skip(NO_CONFIGURATION),
            (Ok(_), None) => Verdict::skip("traces go nowhere: no `telemetry.otlp.endpoint`"),
            (Ok(loaded), Some(endpoint)) => look(loaded, &endpoint).await,
        }
    }
    .boxed()
}

/// Connects, with TLS where the address says so. What the collector answers to this is of no interest: it speaks OTLP.
async fn look(loaded: &Loaded, endpoint: &str) -> Verdict {
    let advice =
        "start the collector, or mend `telemetry.otlp`; plimsoll runs without it and loses traces only";
    let client = match client(loaded) {
        Ok(client) => client,
        Err(problem) => return Verdict::fail(problem, advice),
    };
    match client.get(endpoint).send().await {
        Err(error) if error.is_builder() => Verdict::fail("the endpoint is not an address", advice),
        Err(error) if error.is_connect() => Verdict::fail(
            format!("{}: {}", origin(endpoint), super::super::told(&error.without_url())),
            advice,
        ),
        Ok(_) | Err(_) => Verdict::pass(format!("{} takes connections", origin(endpoint))),
    }
}

fn client(loaded: &Loaded) -> Result<reqwest::Client, String> {
    let mut builder = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_DEADLINE)
        .timeout(CONNECT_DEADLINE);
    if let Some(path) = &loaded.config.telemetry.otlp.ca_file {
        let pem = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let certificates = reqwest::Certificate::from_pem_bundle(&pem);
        let certificates =
            certificates.map_err(|_| format!("{} holds no PEM certificates", path.display()))?;
        builder = builder.tls_certs_merge(certificates);
    }
    builder.build().map_err(|error| format!("no client can be made: {error}"))
}

/// The endpoint without what could be a credential.
fn origin(endpoint: &str) -> String {
    let url = reqwest::Url::parse(endpoint).ok();
    url.map(|url| url.origin().ascii_serialization()).unwrap_or_else(|| "the endpoint".to_owned())
}
