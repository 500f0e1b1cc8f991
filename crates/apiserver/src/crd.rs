//! Custom resources: the definitions in the watch cache become resources of the registry. One task follows them: it settles
//! names, puts resources and their caches in and takes them out, and empties the resources of deleted definitions.
//!
//! - [`convert`]: objects from one version to another, by webhook where the definition says so
//! - [`finalize`]: deleted definitions
//! - [`stored`]: what the store holds, read

pub(crate) mod convert;
mod finalize;
pub(crate) mod stored;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use keelson_api::crd;
use keelson_api::kind::Kind;
use keelson_api::kinds::apiextensions::{accept, condition};
use keelson_api::status::Status;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use self::convert::{Converter, Viewer};
use crate::cache::view::View;
use crate::cache::{Entry, ResourceCache};
use crate::core::Core;
use crate::registry::Resource;
use crate::registry::create::{now, text};
use crate::registry::options::WriteOptions;
use crate::registry::update::{Target, update};

pub(crate) const GROUP: &str = "apiextensions.k8s.io";
pub(crate) const RESOURCE: &str = "customresourcedefinitions";
/// Pause after a write that failed.
const RETRY: Duration = Duration::from_secs(1);

/// What the resources of one definition share.
pub(crate) struct Shared {
    /// What objects are stored as.
    pub(crate) storage: Arc<Kind>,
    /// Where they are, in whatever version each is stored.
    pub(crate) stored: Arc<ResourceCache>,
    pub(crate) converter: Arc<Converter>,
    /// The definition is being deleted: nothing more may be created.
    terminating: AtomicBool,
}

impl Shared {
    pub(crate) fn is_terminating(&self) -> bool {
        self.terminating.load(Ordering::Relaxed)
    }

    /// Whether a write that changes nothing still changes how the object is stored.
    pub(crate) fn is_stale(&self, entry: &Entry) -> bool {
        let stored = self.stored.snapshot().map.get(&entry.key).cloned();
        stored.is_some_and(|stored| stored.stale || !stored::is_of(&stored, &self.storage))
    }
}

/// A definition that is served.
struct Installed {
    /// What it was made from; anything else in a definition may change without consequence.
    source: Value,
    shared: Arc<Shared>,
    resources: Vec<Resource>,
    /// Ends the watches and conversions of these resources.
    closed: CancellationToken,
}

impl Drop for Installed {
    fn drop(&mut self) {
        self.closed.cancel();
        self.shared.stored.end();
        for cache in self.resources.iter().filter_map(Resource::stored) {
            cache.end();
        }
    }
}

struct Manager {
    core: Arc<Core>,
    installed: HashMap<String, Installed>,
    finalizing: Arc<Mutex<HashSet<String>>>,
}

/// Serves what is defined, then follows the definitions until the server stops.
pub(crate) async fn start(core: &Arc<Core>) -> Result<(), crate::Error> {
    let failed = |status: Status| crate::Error::Bootstrap { object: "custom resources".into(), why: status.message };
    let cache = core.registry.known(GROUP, RESOURCE).and_then(Resource::cache).map_err(failed)?.clone();
    let mut changed = cache.follow();
    let mut manager = Manager { core: core.clone(), installed: HashMap::new(), finalizing: Arc::default() };
    changed.borrow_and_update();
    manager.sync(&cache).await.map_err(failed)?;
    tokio::spawn(async move {
        let shutdown = manager.core.shutdown.clone();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                more = changed.changed() => if more.is_err() { return },
            }
            while let Err(error) = manager.sync(&cache).await {
                tracing::warn!(%error, "custom resources could not be brought up to date");
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(RETRY) => {}
                }
            }
        }
    });
    Ok(())
}

impl Manager {
    async fn sync(&mut self, cache: &Arc<ResourceCache>) -> Result<(), Status> {
        let snapshot = cache.snapshot();
        let mut objects: Vec<Value> = Vec::new();
        for entry in snapshot.map.values() {
            objects.push(entry.decode()?);
        }
        // Who was there first has the names.
        objects.sort_by(|a, b| {
            let key = |object: &Value| (text(object, "creationTimestamp").to_owned(), text(object, "name").to_owned());
            key(a).cmp(&key(b))
        });
        let names: HashSet<&str> = objects.iter().map(|object| text(object, "name")).collect();
        let before = self.installed.len();
        self.installed.retain(|name, installed| {
            let stays = names.contains(name.as_str());
            if !stays {
                self.core.cache.remove(&installed.shared.stored);
            }
            stays
        });
        let mut republish = self.installed.len() != before;
        let now: Value = now().into();
        let mut settled = Vec::new();
        for at in 0..objects.len() {
            let (head, tail) = objects.split_at_mut(at);
            let Some((object, rest)) = tail.split_first_mut() else { break };
            if accept(object, head.iter().chain(rest.iter()), &now) {
                settled.push(at);
            }
        }
        for object in &objects {
            republish |= self.install(object).await?;
        }
        if republish {
            self.publish();
        }
        // Only what is served is said to be.
        for at in settled {
            if let Some(object) = objects.get(at) {
                self.write_status(object).await?;
            }
        }
        for object in objects.iter().filter(|object| !text(object, "deletionTimestamp").is_empty()) {
            self.finalize(object);
        }
        Ok(())
    }

    /// Puts a definition's resources in, unless it is not established or nothing changed. Says whether it did.
    async fn install(&mut self, object: &Value) -> Result<bool, Status> {
        let name = text(object, "name");
        if condition(object, "Established").is_none_or(|condition| condition["status"] != "True") {
            return Ok(false);
        }
        let terminating = !text(object, "deletionTimestamp").is_empty();
        let source = json!([
            object["spec"],
            object["status"]["acceptedNames"],
            object["status"]["storedVersions"],
            object["metadata"]["uid"]
        ]);
        if let Some(installed) = self.installed.get(name)
            && installed.source == source
        {
            installed.shared.terminating.store(terminating, Ordering::Relaxed);
            return Ok(false);
        }
        let definition = Arc::new(crd::kinds(object));
        let Some(storage) = definition.storage().cloned() else { return Ok(false) };
        let stored_versions = object["status"]["storedVersions"].as_array().map_or(0, Vec::len);
        let closed = self.core.shutdown.child_token();
        let stored = ResourceCache::new(storage.clone()).of_definition(definition.clone(), closed.clone());
        let stored = Arc::new(stored);
        self.core.cache.install(stored.clone()).await?;
        let converter = Arc::new(Converter::new(&self.core, definition.clone()));
        let shared = Arc::new(Shared {
            storage: storage.clone(),
            stored: stored.clone(),
            converter: converter.clone(),
            terminating: AtomicBool::new(terminating),
        });
        let mut resources = Vec::new();
        for version in definition.versions.iter().filter(|version| version.served) {
            // Without a webhook everything in the cache is in the storage version.
            let direct = version.storage && (definition.webhook.is_none() || stored_versions <= 1);
            let cache = if direct {
                stored.clone()
            } else {
                let viewer = Viewer { converter: converter.clone(), kind: version.kind.clone() };
                let view = View::new(stored.clone(), Arc::new(viewer));
                let cache = ResourceCache::new(version.kind.clone()).of_definition(definition.clone(), closed.clone());
                Arc::new(cache.with_view(view))
            };
            resources.push(Resource::custom(version.kind.clone(), cache, shared.clone()));
        }
        self.installed.insert(name.to_owned(), Installed { source, shared, resources, closed });
        Ok(true)
    }

    fn publish(&self) {
        let mut resources: Vec<Resource> =
            self.installed.values().flat_map(|installed| installed.resources.iter().cloned()).collect();
        resources.sort_by(|a, b| {
            let versions = crd::compare_versions(&b.kind.version, &a.kind.version);
            a.kind.group.cmp(&b.kind.group).then(versions).then_with(|| a.kind.resource.cmp(&b.kind.resource))
        });
        self.core.registry.set_custom(resources);
    }

    async fn write_status(&self, object: &Value) -> Result<(), Status> {
        let result = set_status(&self.core, object).await;
        match result {
            // Somebody else wrote: that change will be looked at in its turn.
            Err(status) if matches!(status.code, 404 | 409) => Ok(()),
            result => result,
        }
    }

    fn finalize(&self, object: &Value) {
        let name = text(object, "name").to_owned();
        if !finalize::is_due(object) || !self.finalizing.lock().insert(name.clone()) {
            return;
        }
        let shared = self.installed.get(&name).map(|installed| installed.shared.clone());
        let (core, finalizing) = (self.core.clone(), self.finalizing.clone());
        tokio::spawn(async move {
            finalize::run(&core, &name, shared).await;
            finalizing.lock().remove(&name);
        });
    }
}

/// Writes the status of a definition, and its finalizers; it must not have changed since it was read.
async fn set_status(core: &Core, object: &Value) -> Result<(), Status> {
    let resource = core.registry.known(GROUP, RESOURCE)?;
    let name = text(object, "name");
    let target = Target { resource, namespace: "", name, subresource: "status" };
    update(core, target, &WriteOptions::internal(), |_| Ok(object.clone())).await.map(|_| ())
}
