//! Are the configuration files there, and are they right?

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};

use super::super::Verdict;
use super::super::scene::Scene;
use crate::config::{ConfigProblem, Overlay};

pub(in crate::doctor) fn base(scene: &Scene) -> BoxFuture<'_, Verdict> {
    let verdict = match &scene.located.base {
        None => {
            let searched: Vec<_> = scene.searched.iter().map(|path| path.display().to_string()).collect();
            Verdict::skip(format!("none, the built-in defaults hold (looked for {})", searched.join(", ")))
        }
        Some(path) => match std::fs::File::open(path) {
            Ok(_) => Verdict::pass(path.display().to_string()),
            Err(error) => Verdict::fail(
                format!("{}: {error}", path.display()),
                "name a file that is there and that this user may read, with --config or PLIMSOLL_CONFIG",
            ),
        },
    };
    ready(verdict).boxed()
}

pub(in crate::doctor) fn overlay(scene: &Scene) -> BoxFuture<'_, Verdict> {
    let verdict = match &scene.located.overlay {
        Overlay::None => Verdict::skip("PLIMSOLL_ENV is not set"),
        Overlay::Found(path) => Verdict::pass(path.display().to_string()),
        Overlay::Missing(path) => Verdict::fail(
            format!("PLIMSOLL_ENV is set, and {} does not exist", path.display()),
            "make the file, or unset PLIMSOLL_ENV",
        ),
        Overlay::Misnamed => Verdict::fail(
            "PLIMSOLL_ENV is not the name of an overlay",
            "use letters a-z, 0-9, `-` and `_`: the file is that name with .yaml",
        ),
    };
    ready(verdict).boxed()
}

pub(in crate::doctor) fn content(scene: &Scene) -> BoxFuture<'_, Verdict> {
    let lines =
        |problems: &[ConfigProblem]| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    let verdict = match &scene.loaded {
        Err(problems) => {
            Verdict::fail(lines(problems), "mend every line above; `plimsoll config check` looks again")
        }
        Ok(loaded) if loaded.warnings.is_empty() => {
            let (agents, providers) = (loaded.config.agents.len(), loaded.config.providers.len());
            Verdict::pass(format!("{agents} agent(s), {providers} provider(s)"))
        }
        Ok(loaded) => Verdict::warn(lines(&loaded.warnings), "change what the lines above name"),
    };
    ready(verdict).boxed()
}
