//! One informer per kind and process.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;

use kube::runtime::watcher;
use kube::{Api, Resource};
use parking_lot::Mutex;

use super::{Object, SharedInformer, Transform};

/// Hands out informers, each started when first asked for. Clones share them.
#[derive(Clone)]
pub struct InformerFactory {
    client: kube::Client,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    informers: HashMap<(TypeId, Selectors), Box<dyn Any + Send>>,
    transforms: HashMap<TypeId, Box<dyn Any + Send>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Selectors {
    labels: Option<String>,
    fields: Option<String>,
}

impl InformerFactory {
    /// Starts nothing yet.
    pub fn new(client: kube::Client) -> Self {
        Self { client, known: Arc::default() }
    }

    /// The client behind the informers.
    pub fn client(&self) -> &kube::Client {
        &self.client
    }

    /// Sets what is dropped from all objects of a kind; to be called before the kind's first informer is started.
    pub fn transform<K: Object>(&self, transform: Transform<K>) {
        self.known.lock().transforms.insert(TypeId::of::<K>(), Box::new(transform));
    }

    /// The informer of all objects of a kind.
    pub fn get<K: Object + Resource<DynamicType = ()>>(&self) -> SharedInformer<K> {
        self.select::<K>(None, None)
    }

    /// The informer of the objects that a label selector and a field selector choose.
    pub fn select<K: Object + Resource<DynamicType = ()>>(
        &self,
        labels: Option<&str>,
        fields: Option<&str>,
    ) -> SharedInformer<K> {
        let selectors = Selectors { labels: labels.map(str::to_owned), fields: fields.map(str::to_owned) };
        let mut known = self.known.lock();
        let key = (TypeId::of::<K>(), selectors);
        if let Some(informer) = known.informers.get(&key).and_then(|any| any.downcast_ref::<SharedInformer<K>>()) {
            return informer.clone();
        }
        let config = watcher::Config {
            label_selector: key.1.labels.clone(),
            field_selector: key.1.fields.clone(),
            ..watcher::Config::default()
        };
        let transform = known.transforms.get(&key.0).and_then(|any| any.downcast_ref::<Transform<K>>()).copied();
        let informer = SharedInformer::start(Api::<K>::all(self.client.clone()), config, transform);
        known.informers.insert(key, Box::new(informer.clone()));
        informer
    }
}
