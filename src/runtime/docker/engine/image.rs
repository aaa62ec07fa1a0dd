//! Images.

use std::collections::BTreeMap;

use super::{
    client::{Engine, LOOK_DEADLINE, bounded},
    error::CallError,
    names::image_ref,
    observed::environment,
};

/// What an image says about how to run it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its id; a tag may come to mean another.
    pub id: String,
    /// Its environment.
    pub env: BTreeMap<String, String>,
    /// Its working directory; empty is `/`.
    pub working_dir: String,
    /// Its user; empty is root.
    pub user: String,
}

impl Engine {
    /// Looks for an image in the engine; `None` when it is not there. Nothing is pulled.
    ///
    /// # Errors
    /// The call fails, or that is no image's name.
    pub async fn image(&self, image: &str) -> Result<Option<Image>, CallError> {
        let found = match bounded(LOOK_DEADLINE, self.docker().inspect_image(image_ref(image)?)).await {
            Ok(found) => found,
            Err(error) if error.status() == Some(404) => return Ok(None),
            Err(error) => return Err(error),
        };
        let config = found.config.unwrap_or_default();
        Ok(Some(Image {
            id: found.id.unwrap_or_default(),
            env: environment(config.env.unwrap_or_default()),
            working_dir: config.working_dir.unwrap_or_default(),
            user: config.user.unwrap_or_default(),
        }))
    }
}
