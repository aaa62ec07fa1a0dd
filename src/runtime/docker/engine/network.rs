//! A network of its own for each swarm that wants one.

use std::collections::HashMap;

use bollard::{
    models::{Network as Found, NetworkCreateRequest},
    query_parameters::ListNetworksOptionsBuilder,
};

use super::{
    client::{CHANGE_DEADLINE, Engine, LOOK_DEADLINE, bounded},
    error::{CallError, NetworkError},
    names::{label, resource_name},
    observed::sorted,
};
use crate::model::SwarmName;

/// A network of our hive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OurNetwork {
    /// Its name.
    pub name: String,
    /// Its swarm.
    pub swarm: Option<SwarmName>,
}

impl Engine {
    /// Makes the swarm's bridge if it is not there, and returns its name. Containers on it reach out, and the machine's own addresses, but no other
    /// swarm's.
    ///
    /// # Errors
    /// A network of that name is another's, or a call fails.
    pub async fn ensure_network(&self, swarm: &SwarmName) -> Result<String, NetworkError> {
        let name = resource_name(self.inner.owner.hive_id, swarm);
        // Old engines let two networks have one name, so look and make must not overlap.
        let _networking = self.inner.networking.lock().await;
        if self.our_networks_named(&name).await?.is_empty() {
            let request = NetworkCreateRequest {
                name: name.clone(),
                driver: Some("bridge".to_owned()),
                labels: Some(self.inner.owner.labels(Some(swarm))),
                ..Default::default()
            };
            bounded(CHANGE_DEADLINE, self.docker().create_network(request)).await?;
        }
        Ok(name)
    }

    /// Removes the swarm's bridge. One that is not there is fine; one that a container is still on is refused by the engine.
    ///
    /// # Errors
    /// A network of that name is another's, or a call fails.
    pub async fn remove_network(&self, swarm: &SwarmName) -> Result<(), NetworkError> {
        let name = resource_name(self.inner.owner.hive_id, swarm);
        for id in self.our_networks_named(&name).await? {
            match bounded(CHANGE_DEADLINE, self.docker().remove_network(&id)).await {
                Err(error) if error.status() != Some(404) => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// Every network of our hive.
    ///
    /// # Errors
    /// The call fails.
    pub async fn list_our_networks(&self) -> Result<Vec<OurNetwork>, CallError> {
        let found = self.networks("label", format!("{}={}", label::HIVE_ID, self.inner.owner.hive_id)).await?;
        let read = |network: Found| OurNetwork {
            name: network.name.unwrap_or_default(),
            swarm: network.labels.unwrap_or_default().get(label::SWARM).and_then(|swarm| swarm.parse().ok()),
        };
        Ok(found.into_iter().map(read).collect())
    }

    /// The ids of our networks of that name: none or one, or more after a race with another daemon in an engine that allows it.
    async fn our_networks_named(&self, name: &str) -> Result<Vec<String>, NetworkError> {
        let mut ids = Vec::new();
        // The engine's filter also finds names that only contain it.
        for network in self.networks("name", name.to_owned()).await? {
            if network.name.as_deref() != Some(name) {
                continue;
            }
            if !self.inner.owner.owns(&sorted(network.labels.unwrap_or_default())) {
                return Err(NetworkError::Foreign(name.to_owned()));
            }
            ids.extend(network.id);
        }
        Ok(ids)
    }

    async fn networks(&self, filter: &str, value: String) -> Result<Vec<Found>, CallError> {
        let filters = HashMap::from([(filter, vec![value])]);
        let options = ListNetworksOptionsBuilder::default().filters(&filters).build();
        bounded(LOOK_DEADLINE, self.docker().list_networks(Some(options))).await
    }
}
