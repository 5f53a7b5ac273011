//! Does somebody take connections where traces go?

use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::super::scene::Scene;
use super::super::{Verdict, told};
use super::NO_CONFIGURATION;
use crate::telemetry::Collector;

const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

pub(in crate::doctor) fn check(scene: &Scene) -> BoxFuture<'_, Verdict> {
    async move {
        match &scene.collector {
            None => Verdict::skip(NO_CONFIGURATION),
            Some(Err(error)) => Verdict::fail(told(error), "mend `telemetry.otlp`, or the variable it names"),
            Some(Ok(None)) => Verdict::skip("traces go nowhere: no `telemetry.otlp.endpoint`"),
            Some(Ok(Some(collector))) => look(collector).await,
        }
    }
    .boxed()
}

/// Connects, with TLS where the address says so. What the collector answers to this is of no interest: it speaks OTLP.
async fn look(collector: &Collector) -> Verdict {
    let advice =
        "start the collector, or mend `telemetry.otlp`; plimsoll runs without it and loses traces only";
    let endpoint = &collector.endpoint;
    let client = match client(collector) {
        Ok(client) => client,
        Err(error) => {
            return Verdict::fail(format!("its certificates cannot be used: {}", told(&error)), advice);
        }
    };
    match client.get(endpoint).send().await {
        Err(error) if error.is_builder() => Verdict::fail("the endpoint is not an address", advice),
        Err(error) if error.is_connect() => {
            Verdict::fail(format!("{}: {}", origin(endpoint), told(&error.without_url())), advice)
        }
        Ok(_) | Err(_) => Verdict::pass(format!("{} takes connections", origin(endpoint))),
    }
}

fn client(collector: &Collector) -> reqwest::Result<reqwest::Client> {
    let mut builder = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_DEADLINE)
        .timeout(CONNECT_DEADLINE);
    if let Some(pem) = &collector.authorities {
        builder = builder.tls_certs_merge(reqwest::Certificate::from_pem_bundle(pem)?);
    }
    if let Some((certificate, key)) = &collector.identity {
        builder = builder.identity(reqwest::Identity::from_pem(&[key.as_slice(), certificate].concat())?);
    }
    builder.build()
}

/// The endpoint without what could be a credential.
fn origin(endpoint: &str) -> String {
    let url = reqwest::Url::parse(endpoint).ok();
    url.map(|url| url.origin().ascii_serialization()).unwrap_or_else(|| "the endpoint".to_owned())
}
