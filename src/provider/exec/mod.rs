//! `kind: exec`: a program that is run once per message, its message on standard input, JSON lines out.
//!
//! No shell is ever involved, and a program sees nothing of plimsoll's that is not named. A turn has ended once nothing of
//! its program is left ([`crate::process`]), because two runs in one directory spoil each other. Start at [`Exec`]; one
//! turn is in `turn`, what programs print in `dialect`.

mod command;
mod config;
mod dialect;
mod lines;
mod readings;
mod turn;
mod words;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

use self::readings::Readings;
use super::emit;
use super::{
    Asked, Hosting, MODEL_DEFAULT, Provider, ProviderDeps, ProviderError, ProviderEvent, Refusal, Turn,
};
use crate::process::{Found, GUARD_END, KILL_WAIT_MAX};

pub use config::{Dialect, ExecConfig, MessageRoad};

/// How long the end of programs is waited for when plimsoll ends, beyond the grace of each.
const LAST_END_WAIT: Duration = KILL_WAIT_MAX.saturating_add(Duration::from_secs(2));

/// See the module.
pub(super) struct Exec(Arc<Shared>);

/// What all turns of one provider share.
struct Shared {
    config: ExecConfig,
    deps: ProviderDeps,
    readings: Readings,
}

impl Exec {
    pub(super) fn new(config: &ExecConfig, deps: &ProviderDeps) -> Self {
        Self(Arc::new(Shared { config: config.clone(), deps: deps.clone(), readings: Readings::default() }))
    }
}

impl Provider for Exec {
    fn kind(&self) -> &'static str {
        "exec"
    }

    fn hosting(&self) -> Hosting {
        Hosting::Process
    }

    fn asks<'a>(&'a self, model: Option<&'a str>) -> Asked<'a> {
        self.0.asks(model)
    }

    fn refuses(&self, message: &str, system: Option<&str>) -> Option<Refusal> {
        let ExecConfig { message: road, dialect, .. } = &self.0.config;
        let of_message =
            command::refusal(*road, message).map(|problem| Refusal { field: "message", problem });
        let of_system = || command::refusal_of_system(*dialect, system?);
        of_message.or_else(|| of_system().map(|problem| Refusal { field: "system", problem }))
    }

    fn send(&self, turn: Turn) -> BoxStream<'static, ProviderEvent> {
        let shared = Arc::clone(&self.0);
        emit::events(move |out| async move {
            let result = turn::take(&shared, &turn, &out).await;
            out.emit(ProviderEvent::End(result)).await;
        })
    }

    fn check(&self) -> BoxFuture<'_, Result<String, ProviderError>> {
        let shown = command::shown(&self.0.config);
        let found = match command::look_for(&self.0.config) {
            Found::Executable => Ok(format!("{shown} can be run")),
            Found::NotExecutable => Err(turn::not_executable(&shown)),
            Found::Nothing => Err(turn::not_found(&shown)),
        };
        Box::pin(std::future::ready(found))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let Shared { config, deps, .. } = &*self.0;
            if !deps.processes.none_left(config.kill_grace.0 + GUARD_END + LAST_END_WAIT).await {
                tracing::warn!(
                    source = "agent.process",
                    "programs of agents did not end in time and are left"
                );
            }
        })
    }
}

impl Shared {
    fn asks<'a>(&'a self, model: Option<&'a str>) -> Asked<'a> {
        let provider = self.config.dialect.provider();
        Asked { provider, model: model.unwrap_or(MODEL_DEFAULT), server: None }
    }
}
