//! Who can reach it, and what protects it then?

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};

use super::super::Verdict;
use super::super::scene::{Scene, Server};
use super::NO_CONFIGURATION;
use crate::config::Config;
use crate::provider;

pub(in crate::doctor) fn check(scene: &Scene) -> BoxFuture<'_, Verdict> {
    let verdict = match &scene.loaded {
        Ok(loaded) => look(&loaded.config, scene.server),
        Err(_) => Verdict::skip(NO_CONFIGURATION),
    };
    ready(verdict).boxed()
}

fn look(config: &Config, server: Server) -> Verdict {
    let (mut seen, mut advice) = (Vec::new(), Vec::new());
    let exposed = !config.server.listen.ip().to_canonical().is_loopback();
    if exposed && config.auth.tokens.is_empty() && server == Server::Silent {
        seen.push("it listens beyond loopback, and the configuration holds no token".to_owned());
        advice.push("make one with `plimsoll token new` while it listens on loopback, or put its hash under `auth.tokens`");
    }
    if exposed && config.server.tls.is_none() {
        seen.push("tokens and messages travel beyond loopback without TLS".to_owned());
        advice.push("set `server.tls`, unless a proxy does TLS or the network is a private one");
    }
    if exposed && config.metrics.public {
        seen.push("everybody who can reach it reads /metrics".to_owned());
        advice.push("take `metrics.public` away, and give the scraper a token of role viewer");
    }
    let literal = literal_secrets(config);
    if !literal.is_empty() {
        seen.push(format!("a secret stands in the file itself: {}", literal.join(", ")));
        advice.push("write ${NAME} and set the variable, or use the `_file` key");
    }
    if !seen.is_empty() {
        return Verdict::warn(seen.join("\n"), advice.join("; "));
    }
    Verdict::pass(if exposed { "reachable from outside, with TLS and tokens" } else { "loopback only" })
}

/// The keys of secrets that are written out.
fn literal_secrets(config: &Config) -> Vec<String> {
    let keys = config.providers.iter().filter_map(|(name, provider)| match provider {
        provider::Config::OpenAi(provider) => {
            Some((format!("providers.{name}.api_key"), provider.api_key.as_ref()?))
        }
        provider::Config::Echo(_) => None,
    });
    let headers = &config.telemetry.otlp.headers;
    let headers = headers.iter().map(|(name, secret)| (format!("telemetry.otlp.headers.{name}"), secret));
    keys.chain(headers).filter(|(_, secret)| secret.to_string() == "***").map(|(key, _)| key).collect()
}
