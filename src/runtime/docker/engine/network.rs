//! A network of its own for each swarm that wants one.

use std::collections::HashMap;

use bollard::{
    models::NetworkCreateRequest,
    query_parameters::{InspectNetworkOptions, ListNetworksOptionsBuilder},
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
        if self.network_is_ours(&name).await?.is_none() {
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
        let Some(id) = self.network_is_ours(&name).await? else { return Ok(()) };
        match bounded(CHANGE_DEADLINE, self.docker().remove_network(&id)).await {
            Err(error) if error.status() != Some(404) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Every network of our hive.
    ///
    /// # Errors
    /// The call fails.
    pub async fn list_our_networks(&self) -> Result<Vec<OurNetwork>, CallError> {
        let ours = format!("{}={}", label::HIVE_ID, self.inner.owner.hive_id);
        let filters = HashMap::from([("label", vec![ours])]);
        let options = ListNetworksOptionsBuilder::default().filters(&filters).build();
        let found = bounded(LOOK_DEADLINE, self.docker().list_networks(Some(options))).await?;
        let read = |network: bollard::models::Network| OurNetwork {
            name: network.name.unwrap_or_default(),
            swarm: network.labels.unwrap_or_default().get(label::SWARM).and_then(|swarm| swarm.parse().ok()),
        };
        Ok(found.into_iter().map(read).collect())
    }

    /// The id of a network of ours; `None` when there is none of that name.
    async fn network_is_ours(&self, name: &str) -> Result<Option<String>, NetworkError> {
        let call = self.docker().inspect_network(name, None::<InspectNetworkOptions>);
        let found = match bounded(LOOK_DEADLINE, call).await {
            Ok(found) => found,
            Err(error) if error.status() == Some(404) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let ours = self.inner.owner.owns(&sorted(found.labels.unwrap_or_default()));
        if ours { Ok(found.id) } else { Err(NetworkError::Foreign(name.to_owned())) }
    }
}
