//! Does every provider answer?

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};

use super::super::Verdict;
use super::super::scene::Scene;
use super::NO_CONFIGURATION;
use crate::clock::Clock;
use crate::config::{Config, secrets};
use crate::live::Live;
use crate::process::Processes;
use crate::provider::{self, Mask, ProviderDeps};
use crate::telemetry::Registry;

/// Less than a check as a whole may take, so that one that hangs is told by name.
const PROVIDER_DEADLINE: Duration = Duration::from_secs(8);

pub(in crate::doctor) fn check(scene: &Scene) -> BoxFuture<'_, Verdict> {
    let Ok(loaded) = &scene.loaded else {
        return std::future::ready(Verdict::skip(NO_CONFIGURATION)).boxed();
    };
    look(&loaded.config, &scene.clock).boxed()
}

async fn look(config: &Config, clock: &Clock) -> Verdict {
    if config.providers.is_empty() {
        return Verdict::skip("none configured");
    }
    let registry = Registry::new(&crate::catalogue::all()).expect("a test builds it from the same list");
    let live = Live::new(&config.live, &registry, clock.clone());
    let mask = Mask::new(secrets(config, &|name| std::env::var_os(name)));
    let deps = ProviderDeps {
        prices: Arc::new(config.prices.clone()),
        live,
        clock: clock.clone(),
        mask,
        processes: Processes::default(),
    };
    let answers = join_all(config.providers.iter().map(|(name, config)| ask(name, config, &deps))).await;
    let failed = config.providers.values().zip(&answers).filter(|(_, answer)| answer.is_err());
    let failed: Vec<bool> =
        failed.map(|(provider, _)| matches!(provider, provider::Config::Exec(_))).collect();
    let lines: Vec<String> = answers.into_iter().map(|answer| answer.unwrap_or_else(|line| line)).collect();
    let advice = match (failed.contains(&true), failed.contains(&false)) {
        (false, false) => return Verdict::pass(lines.join("\n")),
        (true, false) => "install the program, or name it by its path; agents of the others work without it",
        (false, true) => "check its address, its key and that it runs; agents of the others work without it",
        (true, true) => {
            "install the program; check the API's address, its key and that it runs; agents of the others work"
        }
    };
    Verdict::fail(lines.join("\n"), advice)
}

async fn ask(name: &str, config: &provider::Config, deps: &ProviderDeps) -> Result<String, String> {
    let provider = provider::build(name, config, deps).map_err(|error| error.to_string())?;
    let answer = tokio::time::timeout(PROVIDER_DEADLINE, provider.check()).await;
    match answer {
        Ok(Ok(said)) => Ok(format!("{name}: {said}")),
        Ok(Err(error)) => Err(format!("{name}: {}", error.for_caller())),
        Err(_) => Err(format!("{name}: no answer within {} s", PROVIDER_DEADLINE.as_secs())),
    }
}
