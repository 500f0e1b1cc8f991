//! Which resources there are.

use kube::Client;
use kube::core::ApiResource;
use kube::discovery::{ApiCapabilities, Discovery, Scope};

/// One resource in the version the server prefers.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub resource: ApiResource,
    pub namespaced: bool,
    verbs: Vec<String>,
}

impl Found {
    /// Whether it offers a verb.
    pub(crate) fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }

    /// `pods`, `deployments.apps`
    pub(crate) fn name(&self) -> String {
        let ApiResource { group, plural, .. } = &self.resource;
        if group.is_empty() { plural.clone() } else { format!("{plural}.{group}") }
    }
}

/// Asks the server: two requests, or one per group version where it does not aggregate.
pub(crate) async fn discover(client: &Client) -> Result<Vec<Found>, kube::Error> {
    let found = match Discovery::new(client.clone()).run_aggregated().await {
        Ok(found) => found,
        Err(_) => Discovery::new(client.clone()).run().await?,
    };
    let convert = |(resource, capabilities): (ApiResource, ApiCapabilities)| Found {
        resource,
        namespaced: capabilities.scope == Scope::Namespaced,
        verbs: capabilities.operations,
    };
    Ok(found.groups().flat_map(|group| group.recommended_resources()).map(convert).collect())
}
