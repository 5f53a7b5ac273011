//! Are the images there that containers are made of, and the containers that somebody else made?

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::super::Verdict;
use super::super::scene::Scene;
use super::engine::with_containers;
use crate::ids::AgentId;
use crate::lifecycle::{
    ContainerHost, DockerEngine, EngineConfig, EngineStatus, NamedContainer, Pull, Trust,
};

pub(in crate::doctor) fn check(scene: &Scene) -> BoxFuture<'_, Verdict> {
    look(scene).boxed()
}

async fn look(scene: &Scene) -> Verdict {
    let loaded = match with_containers(scene) {
        Ok(loaded) => loaded,
        Err(nothing) => return nothing,
    };
    let engine = scene.engine(loaded);
    let (mut lines, mut failed) = (Vec::new(), false);
    let crate::config::Config { agents, templates, .. } = &loaded.config;
    let templates =
        templates.iter().filter_map(|(id, agent)| Some((AgentId::parse(id.as_str()).ok()?, agent)));
    for (id, agent) in agents.iter().map(|(id, agent)| (id.clone(), agent)).chain(templates) {
        let Some(host) = agent.instance.as_ref().and_then(|instance| instance.container.as_ref()) else {
            continue;
        };
        let line = match found(&id, host, &engine, &loaded.config.engine).await {
            Ok(line) => line,
            Err(Missing::Thing(line)) => {
                failed = true;
                line
            }
            Err(Missing::Engine) => return Verdict::skip("the container engine does not answer, see above"),
        };
        lines.push(format!("{id}: {line}"));
    }
    if failed {
        let advice = "build or fetch the image (`docker build`, `docker pull`); make, label or start the container; \
                      other agents work without it";
        return Verdict::fail(lines.join("\n"), advice);
    }
    Verdict::pass(lines.join("\n"))
}

enum Missing {
    Engine,
    Thing(String),
}

async fn found(
    id: &AgentId,
    host: &ContainerHost,
    engine: &DockerEngine,
    config: &EngineConfig,
) -> Result<String, Missing> {
    let ContainerHost { name, image, .. } = host;
    if let Some(name) = name {
        let container = engine.named(name, id).await;
        let container = container.map_err(|said| untold(engine, &format!("container {name}"), &said))?;
        return named(id, name, container, config.trust).map_err(Missing::Thing);
    }
    let image = image.as_deref().unwrap_or_default();
    let is_there = engine.has_image(image).await;
    let is_there = is_there.map_err(|said| untold(engine, &format!("image {image}"), &said))?;
    match (is_there, config.pull) {
        (true, _) => Ok(format!("image {image} is there")),
        (false, Pull::Missing) => Ok(format!("image {image} is not there, and fetched with the first start")),
        (false, Pull::Never) => {
            Err(Missing::Thing(format!("image {image} is not there (`engine.pull: never`)")))
        }
    }
}

/// Why nobody can tell whether this is there. An engine that answers may still have trouble of its own.
fn untold(engine: &DockerEngine, what: &str, said: &str) -> Missing {
    match engine.status() {
        EngineStatus::Down { .. } => Missing::Engine,
        EngineStatus::Unknown | EngineStatus::Up => Missing::Thing(format!(
            "whether {what} is there cannot be told, {said}: see the log of the engine"
        )),
    }
}

fn named(id: &AgentId, name: &str, container: NamedContainer, trust: Trust) -> Result<String, String> {
    match (container, trust) {
        (NamedContainer::Missing, _) => Err(format!("there is no container {name}")),
        (NamedContainer::Foreign, _) => {
            Err(format!("container {name} does not carry the label io.plimsoll.instance={id}"))
        }
        (NamedContainer::Stopped, Trust::Observe) => Err(format!(
            "container {name} does not run, and plimsoll may only look (`engine.trust: observe`)"
        )),
        (NamedContainer::Stopped, Trust::StartStop | Trust::Create) => {
            Ok(format!("container {name} is there, and stopped"))
        }
        (NamedContainer::Running, _) => Ok(format!("container {name} runs")),
    }
}
