//! What somebody asks an engine who only looks, such as `plimsoll doctor`. What it cannot tell is said for an operator.

use std::time::Duration;

use super::engine::DockerEngine;
use crate::ids::AgentId;

/// A container that somebody else made, as an instance finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedContainer {
    /// There is none of this name.
    Missing,
    /// It does not carry the label of the instance.
    Foreign,
    /// It does not run.
    Stopped,
    /// It runs.
    Running,
}

impl DockerEngine {
    /// What it is, such as `engine 20.10.24 with API 1.41`.
    ///
    /// # Errors
    /// Why it cannot be asked, and what would help.
    pub async fn version(&self) -> Result<String, String> {
        let version = self.call(Duration::ZERO, async |docker| docker.version().await).await;
        let version = version.map_err(|error| error.to_string())?;
        let (engine, api) = (version.version.unwrap_or_default(), version.api_version.unwrap_or_default());
        Ok(format!("engine {engine} with API {api}"))
    }

    /// Whether the image is there.
    ///
    /// # Errors
    /// Why it cannot be asked, and what would help.
    pub async fn has_image(&self, image: &str) -> Result<bool, String> {
        self.image_id(image).await.map(|id| id.is_some()).map_err(|error| error.to_string())
    }

    /// The container of this name, as this instance finds it.
    ///
    /// # Errors
    /// Why it cannot be asked, and what would help.
    pub async fn named(&self, name: &str, instance: &AgentId) -> Result<NamedContainer, String> {
        let seen = self.inspect(name).await.map_err(|error| error.to_string())?;
        Ok(match seen {
            None => NamedContainer::Missing,
            Some(seen) if !seen.is_for(instance, &self.owner) => NamedContainer::Foreign,
            Some(seen) if seen.is_running => NamedContainer::Running,
            Some(_) => NamedContainer::Stopped,
        })
    }
}
