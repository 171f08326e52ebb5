//! Containers by their labels.

use std::collections::{BTreeMap, HashMap};

use bollard::{Docker, query_parameters::ListContainersOptionsBuilder};

use super::{ContainerId, EngineError, Failure, HeldEngine};
use crate::config::{Container, Label, Target};

/// What a container or an image is labelled with.
pub type Labels = BTreeMap<String, String>;

/// A container that runs, and was found by a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labelled {
    /// Which one.
    pub id: ContainerId,
    /// By its name.
    pub container: Container,
    /// Its labels, those that it has from its image among them.
    pub labels: Labels,
    /// What the engine calls its image.
    pub image: String,
    /// Whether it has the namespace of the engine itself.
    pub is_in_host_network: bool,
}

impl HeldEngine {
    /// The containers that run and have a label.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn labelled(&self, label: &Label) -> Result<Vec<Labelled>, EngineError> {
        // One that is paused has its namespace; one that waits to be restarted has none. Of others an engine may know
        // states that its API does not name.
        let filters = HashMap::from([
            ("label".to_owned(), vec![label.to_string()]),
            ("status".to_owned(), ["running", "paused"].map(str::to_owned).to_vec()),
        ]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let list = async |docker: &Docker| {
            docker.list_containers(Some(options)).await.map_err(Failure::of_no_container)
        };
        let (engine, answer) = (self.engine(), self.ask(list).await?);
        Ok(answer
            .into_iter()
            .filter_map(|summary| {
                let id = ContainerId::new(summary.id?)?;
                // Docker has names of links there too, which go by another container: `/other/alias`.
                let names = summary.names.unwrap_or_default();
                let mut names = names.iter().map(|name| name.trim_start_matches('/'));
                let name = names.find(|name| !name.contains('/'))?;
                let Ok(Target::Container(container)) = format!("{engine}:{name}").parse() else {
                    return None;
                };
                let labels: Labels = summary.labels.unwrap_or_default().into_iter().collect();
                let mode = summary.host_config.and_then(|config| config.network_mode);
                let image = summary.image_id.unwrap_or_default();
                let is_in_host_network = mode.as_deref() == Some("host");
                // Podman takes what is asked for as a pattern.
                label.is_of(&labels).then_some(Labelled { id, container, labels, image, is_in_host_network })
            })
            .collect())
    }

    /// The labels of an image.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn image_labels(&self, image: &str) -> Result<Labels, EngineError> {
        let answer = self.ask(async |docker| Ok(docker.inspect_image(image).await?)).await?;
        let labels = answer.config.and_then(|config| config.labels).unwrap_or_default();
        Ok(labels.into_iter().collect())
    }
}
