//! What may go wrong with a container, in words for an operator.

use super::DockerRunner;
use super::engine::EngineError;
use crate::lifecycle::ReadyConfig;
use crate::lifecycle::machine::{Exit, Failure, FailureKind};

impl DockerRunner {
    pub(super) fn ended_early(&self, name: &str, exit: Exit) -> Failure {
        let how = match exit {
            Exit { oom: true, .. } => {
                format!("because it used more than `memory_max` ({})", self.host.memory_max)
            }
            Exit { code: Some(code), .. } => format!("with exit code {code}"),
            Exit { code: None, .. } => "or was removed".to_owned(),
        };
        failure(FailureKind::Exited, format!("it ended {how} before it was ready: see `docker logs {name}`"))
    }

    pub(super) fn not_ready(&self, name: &str) -> Failure {
        let (limit, port) = (self.config.ready_timeout, self.config.port);
        let ReadyConfig { http, line, healthcheck } = &self.config.ready;
        let what = match (http, line, healthcheck) {
            (Some(path), _, _) => format!("{path} on its port {port} did not answer with 2xx"),
            (None, Some(text), _) => format!("it printed no line with {text:?}"),
            (None, None, true) => "its HEALTHCHECK did not succeed".to_owned(),
            (None, None, false) => format!("its port {port} took no connection"),
        };
        failure(FailureKind::NotReady, format!("{what} within {limit}: see `docker logs {name}`"))
    }
}

pub(super) fn failure(kind: FailureKind, error: String) -> Failure {
    Failure { kind, error: error.into() }
}

pub(super) fn stolen(name: &str) -> Failure {
    let error = format!(
        "container {name} has the name of one of ours, but not its labels: somebody else made it, so it is left alone; \
         rename it"
    );
    failure(FailureKind::Foreign, error)
}

pub(super) fn absent(name: &str) -> Failure {
    failure(FailureKind::NotStarted, format!("there is no container {name}: make it, with its label"))
}

/// What cannot be the fault of the container.
pub(super) fn trouble(error: &EngineError) -> Failure {
    let kind = match error {
        EngineError::Down(_) => FailureKind::Engine,
        EngineError::Missing(_) | EngineError::Conflict(_) | EngineError::Said(_) => FailureKind::NotStarted,
    };
    failure(kind, error.to_string())
}

pub(super) fn unstarted(name: &str, error: &EngineError) -> Failure {
    match error {
        EngineError::Said(said)
            if said.contains("already allocated") || said.contains("address already in use") =>
        {
            let error = format!("a port of container {name} is in use by something else: {error}");
            failure(FailureKind::PortInUse, error)
        }
        EngineError::Down(_) => trouble(error),
        EngineError::Missing(_) | EngineError::Conflict(_) | EngineError::Said(_) => {
            failure(FailureKind::NotStarted, format!("container {name} does not start: {error}"))
        }
    }
}

pub(super) fn unremoved(name: &str, Failure { kind: _, error }: &Failure) -> String {
    format!("container {name} could not be removed: {error}")
}

pub(super) fn missing(image: &str) -> Failure {
    let error = format!("image {image} is not there: `docker pull {image}`, or set `engine.pull: missing`");
    failure(FailureKind::ImageMissing, error)
}

pub(super) fn refused(why: String) -> Failure {
    failure(FailureKind::Refused, format!("such a container is not made: {why}"))
}

pub(super) fn uncreated(name: &str, image: &str, error: &EngineError) -> Failure {
    match error {
        EngineError::Missing(said) if said.contains("image") => missing(image),
        EngineError::Conflict(_) => taken(name, error),
        // Podman, before it knew of 409 here.
        EngineError::Said(said) if said.contains(name) && said.contains("is already in use") => {
            taken(name, error)
        }
        EngineError::Down(_) => trouble(error),
        EngineError::Missing(_) | EngineError::Said(_) => {
            failure(FailureKind::NotStarted, format!("no container could be made of {image}: {error}"))
        }
    }
}

fn taken(name: &str, error: &EngineError) -> Failure {
    failure(FailureKind::NameConflict, format!("something else is called {name}: {error}"))
}
