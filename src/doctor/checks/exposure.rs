//! Who can reach it, and what protects it then?

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};

use super::super::scene::{Scene, Store};
use super::super::{Status, Verdict};
use super::NO_CONFIGURATION;
use crate::config::Config;

pub(in crate::doctor) fn check(scene: &Scene) -> BoxFuture<'_, Verdict> {
    let verdict = match &scene.loaded {
        Ok(loaded) => look(&loaded.config, scene),
        Err(_) => Verdict::skip(NO_CONFIGURATION),
    };
    ready(verdict).boxed()
}

/// Whether a server that listens beyond loopback finds a token.
fn tokens(config: &Config, store: &Store) -> Result<(), Verdict> {
    const ADVICE: &str = "make one with `plimsoll token new NAME --role operator`, which needs no running server, or put its hash under `auth.tokens`";
    match store {
        _ if !config.auth.tokens.is_empty() => Ok(()),
        // It would not run without one.
        Store::Served(_) => Ok(()),
        Store::Absent | Store::Empty => {
            let seen = "it listens beyond loopback and there is no token: `serve` refuses to start";
            Err(Verdict::fail(seen, ADVICE))
        }
        // Reading them would write to the stores; another check says what is wrong with those that cannot be used.
        Store::Seen(_) | Store::Unknown | Store::Unusable(_) => Err(Verdict::warn(
            "it listens beyond loopback, and the configuration holds no token; those in the data directory only a running plimsoll can tell",
            "look with `plimsoll token list`; without one `serve` refuses to start: `plimsoll token new NAME --role operator`",
        )),
    }
}

fn look(config: &Config, scene: &Scene) -> Verdict {
    let (mut seen, mut advice) = (Vec::new(), Vec::new());
    let exposed = !config.server.listen.ip().to_canonical().is_loopback();
    let mut status = Status::Warn;
    if exposed && let Err(verdict) = tokens(config, &scene.store) {
        status = verdict.status;
        seen.push(verdict.detail);
        advice.extend(verdict.advice);
    }
    if exposed && config.server.tls.is_none() {
        seen.push("tokens and messages travel beyond loopback without TLS".to_owned());
        advice.push("set `server.tls`, unless a proxy does TLS or the network is a private one".to_owned());
    }
    if exposed && config.metrics.public {
        seen.push("everybody who can reach it reads /metrics".to_owned());
        advice.push("take `metrics.public` away, and give the scraper a token of role viewer".to_owned());
    }
    let literal = literal_secrets(config);
    if !literal.is_empty() {
        seen.push(format!("a secret stands in the file itself: {}", literal.join(", ")));
        advice.push("write ${NAME} and set the variable, or use the `_file` key".to_owned());
    }
    if !seen.is_empty() {
        return Verdict { status, detail: seen.join("\n"), advice: Some(advice.join("; ")) };
    }
    Verdict::pass(if exposed { "reachable from outside, with TLS and tokens" } else { "loopback only" })
}

/// The keys of secrets that are written out.
fn literal_secrets(config: &Config) -> Vec<String> {
    let keys = config.providers.iter().filter_map(|(name, provider)| {
        Some((format!("providers.{name}.api_key"), provider.remote()?.api_key.as_ref()?))
    });
    let headers = &config.telemetry.otlp.headers;
    let headers = headers.iter().map(|(name, secret)| (format!("telemetry.otlp.headers.{name}"), secret));
    keys.chain(headers).filter(|(_, secret)| secret.is_literal()).map(|(key, _)| key).collect()
}
