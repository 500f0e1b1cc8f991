//! A ConfigMap `kube-root-ca.crt` in every namespace, by which pods know the API server.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keelson_client::{
    Key, SharedInformer, WorkQueue, is_already_exists, is_namespace_terminating, is_not_found, run_workers,
};
use kube::api::{Api, PostParams};

use crate::common::objects::namespace;
use crate::common::patch;
use crate::context::{Context, objects};
use crate::serviceaccount::is_active;

/// The ConfigMap's name.
pub const NAME: &str = "kube-root-ca.crt";
const KEY: &str = "ca.crt";
const DESCRIPTION_KEY: &str = "kubernetes.io/description";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
     endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across \
     distributions of Kubernetes clusters.";

/// The `root-ca-certificate-publisher-controller`. Without a CA it has nothing to do.
pub async fn run(context: Context) {
    if context.config.root_ca_pem.is_empty() {
        return;
    }
    let namespaces = context.informers.get::<Namespace>();
    let maps = context.informers.select::<ConfigMap>(None, Some("metadata.name=kube-root-ca.crt"));
    if !context.synced(&namespaces).await || !context.synced(&maps).await {
        return;
    }
    let queue: WorkQueue<Key> = WorkQueue::new();
    let on_namespace =
        context.each(&namespaces, |change| objects(&change).for_each(|object| queue.add(Key::of(&**object))));
    let on_map = context.each(&maps, |change| {
        objects(&change).for_each(|map| queue.add(Key::new(None, namespace(&map.metadata))));
    });
    let this = Arc::new(Publisher { context: context.clone(), namespaces: namespaces.clone(), maps: maps.clone() });
    let work = run_workers("root-ca-cert-publisher", queue.clone(), 1, context.shutdown.clone(), move |key: Key| {
        let this = this.clone();
        async move { this.sync(&key).await }
    });
    tokio::join!(on_namespace, on_map, work);
}

struct Publisher {
    context: Context,
    namespaces: SharedInformer<Namespace>,
    maps: SharedInformer<ConfigMap>,
}

impl Publisher {
    async fn sync(&self, key: &Key) -> Result<Option<Duration>, kube::Error> {
        if !self.namespaces.get_key(key).is_some_and(|namespace| is_active(&namespace)) {
            return Ok(None);
        }
        let api = Api::<ConfigMap>::namespaced(self.context.client.clone(), key.name());
        let existing = self.maps.get(Some(key.name()), NAME);
        let wanted = wanted(existing.as_deref(), key.name(), &self.context.config.root_ca_pem);
        let result = match &existing {
            Some(existing) => patch::write(&api, None, &**existing, &wanted).await.map(|_| ()),
            None => api.create(&PostParams::default(), &wanted).await.map(|_| ()),
        };
        match result {
            Ok(()) => Ok(None),
            Err(error) if is_already_exists(&error) || is_namespace_terminating(&error) || is_not_found(&error) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Exactly one key; other annotations stay.
fn wanted(existing: Option<&ConfigMap>, namespace: &str, pem: &str) -> ConfigMap {
    let mut map = existing.cloned().unwrap_or_else(|| ConfigMap {
        metadata: ObjectMeta { name: Some(NAME.into()), namespace: Some(namespace.into()), ..ObjectMeta::default() },
        ..ConfigMap::default()
    });
    map.metadata.annotations.get_or_insert_default().insert(DESCRIPTION_KEY.into(), DESCRIPTION.into());
    map.data = Some([(KEY.to_owned(), pem.to_owned())].into());
    map.binary_data = None;
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tampering_is_undone_and_what_is_right_stays() {
        let made = wanted(None, "default", "PEM");
        assert_eq!(wanted(Some(&made), "default", "PEM"), made);
        let mut tampered = made.clone();
        tampered.data.as_mut().unwrap().insert("extra".into(), "x".into());
        tampered.data.as_mut().unwrap().insert(KEY.into(), "other".into());
        assert_eq!(wanted(Some(&tampered), "default", "PEM"), made);
    }
}
