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
use keelson_client::Backoff;
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
/// Pauses after something failed.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);

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
    pub(crate) fn is_stale(&self, core: &Core, entry: &Entry) -> bool {
        let stored = self.stored.snapshot().map.get(&entry.key).cloned();
        stored.is_some_and(|stored| {
            stored.stale || !stored::is_of(&stored, &self.storage) || core.encryption.is_stale(&self.stored, &stored)
        })
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

/// A definition as it was last read, with the status that it is to have.
struct Known {
    revision: u64,
    object: Value,
    /// Its resources are to be looked at.
    changed: bool,
    /// Its status is to be written.
    unwritten: bool,
}

impl Known {
    /// Who was there first has the names.
    fn order(&self) -> (&str, &str) {
        (text(&self.object, "creationTimestamp"), text(&self.object, "name"))
    }
}

struct Manager {
    core: Arc<Core>,
    known: HashMap<String, Known>,
    installed: HashMap<String, Installed>,
    /// What is installed is not what is served.
    republish: bool,
    /// What the definitions' resources share, for those who finalize them.
    shared: finalize::SharedByName,
    /// The uids of definitions that are being finalized.
    finalizing: Arc<Mutex<HashSet<String>>>,
}

/// Serves what is defined, then follows the definitions until the server stops. A definition that cannot be served now is
/// tried again, and keeps no other from being served.
pub(crate) async fn start(core: &Arc<Core>) -> Result<(), crate::Error> {
    let failed = |status: Status| crate::Error::Bootstrap { object: "custom resources".into(), why: status.message };
    let cache = core.registry.known(GROUP, RESOURCE).and_then(Resource::cache).map_err(failed)?.clone();
    let mut changed = cache.follow();
    let mut manager = Manager {
        core: core.clone(),
        known: HashMap::new(),
        installed: HashMap::new(),
        republish: false,
        shared: Arc::default(),
        finalizing: Arc::default(),
    };
    changed.borrow_and_update();
    let mut outcome = manager.sync(&cache).await;
    tokio::spawn(async move {
        let shutdown = manager.core.shutdown.clone();
        let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
        loop {
            let again = outcome.is_err();
            match &outcome {
                Ok(()) => backoff.reset(),
                Err(error) => tracing::warn!(%error, "custom resources could not be brought up to date"),
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                more = changed.changed() => if more.is_err() { return },
                () = backoff.wait(), if again => {}
            }
            outcome = manager.sync(&cache).await;
        }
    });
    Ok(())
}

impl Manager {
    /// Brings what is served up to the definitions, each by itself. The first error is returned; what failed is looked at
    /// again by the next call.
    async fn sync(&mut self, cache: &Arc<ResourceCache>) -> Result<(), Status> {
        let mut outcome = Ok(());
        let freed = self.read(cache, &mut outcome);
        self.settle(&freed);
        let mut changed: Vec<String> =
            self.known.iter().filter(|(_, known)| known.changed).map(|(name, _)| name.clone()).collect();
        changed.sort();
        for name in changed {
            let Some(object) = self.known.get(&name).map(|known| known.object.clone()) else { continue };
            let result = self.install(&object).await;
            if let (Ok(()), Some(known)) = (&result, self.known.get_mut(&name)) {
                known.changed = false;
            }
            outcome = outcome.and(result);
        }
        if std::mem::take(&mut self.republish) {
            self.publish();
        }
        // Only what is served is said to be.
        let core = self.core.clone();
        for known in self.known.values_mut().filter(|known| known.unwritten && !known.changed) {
            let result = write_status(&core, &known.object).await;
            known.unwritten = result.is_err();
            outcome = outcome.and(result);
        }
        for known in self.known.values().filter(|known| finalize::is_due(&known.object)) {
            self.finalize(&known.object);
        }
        outcome
    }

    /// Reads the definitions that changed, and takes out those that are gone. Returns the groups in which names may have
    /// become free.
    fn read(&mut self, cache: &Arc<ResourceCache>, outcome: &mut Result<(), Status>) -> HashSet<String> {
        let snapshot = cache.snapshot();
        let mut freed = HashSet::new();
        for entry in snapshot.map.values() {
            let before = self.known.get(entry.name());
            if before.is_some_and(|known| known.revision == entry.revision) {
                continue;
            }
            let object = match entry.decode() {
                Ok(object) => object,
                Err(error) => {
                    *outcome = std::mem::replace(outcome, Ok(())).and(Err(error));
                    continue;
                }
            };
            if let Some(before) = before.filter(|before| names(&before.object) != names(&object)) {
                freed.insert(group(&before.object).to_owned());
            }
            let known = Known { revision: entry.revision, object, changed: true, unwritten: false };
            self.known.insert(entry.name().to_owned(), known);
        }
        let gone = |name: &str| !snapshot.map.contains_key(cache.key("", name).as_str());
        self.known.retain(|name, known| {
            let gone = gone(name);
            if gone {
                freed.insert(group(&known.object).to_owned());
            }
            !gone
        });
        self.installed.retain(|name, installed| {
            let gone = gone(name);
            if gone {
                self.core.cache.remove(&installed.shared.stored);
                self.shared.lock().remove(name);
                self.republish = true;
            }
            !gone
        });
        freed
    }

    /// Gives names to the definitions that changed, and to those that may have waited for a name that is free now.
    fn settle(&mut self, freed: &HashSet<String>) {
        let now: Value = now().into();
        let asks = |known: &Known| known.changed || freed.contains(group(&known.object));
        let mut asking: Vec<&String> =
            self.known.iter().filter(|(_, known)| asks(known)).map(|(name, _)| name).collect();
        asking.sort_by_key(|name| self.known.get(*name).map(Known::order));
        let asking: Vec<String> = asking.into_iter().cloned().collect();
        for name in asking {
            let Some(mut known) = self.known.remove(&name) else { continue };
            if accept(&mut known.object, self.known.values().map(|other| &other.object), &now) {
                (known.changed, known.unwritten) = (true, true);
            }
            self.known.insert(name, known);
        }
    }

    /// Puts a definition's resources in, unless it is not established or nothing changed.
    async fn install(&mut self, object: &Value) -> Result<(), Status> {
        let name = text(object, "name");
        if condition(object, "Established").is_none_or(|condition| condition["status"] != "True") {
            return Ok(());
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
            return Ok(());
        }
        let definition = Arc::new(crd::kinds(object));
        let Some(storage) = definition.storage().cloned() else { return Ok(()) };
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
        self.shared.lock().insert(name.to_owned(), shared.clone());
        let replaced = self.installed.insert(name.to_owned(), Installed { source, shared, resources, closed });
        self.republish = true;
        if replaced.is_some() {
            // The caches served until now are over.
            self.publish();
            self.republish = false;
        }
        Ok(())
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

    fn finalize(&self, object: &Value) {
        let (name, uid) = (text(object, "name").to_owned(), text(object, "uid").to_owned());
        if !self.finalizing.lock().insert(uid.clone()) {
            return;
        }
        let (core, finalizing, shared) = (self.core.clone(), self.finalizing.clone(), self.shared.clone());
        tokio::spawn(async move {
            finalize::run(&core, finalize::Doomed { name: &name, uid: &uid, shared: &shared }).await;
            finalizing.lock().remove(&uid);
        });
    }
}

fn group(object: &Value) -> &str {
    object["spec"]["group"].as_str().unwrap_or_default()
}

fn names(object: &Value) -> &Value {
    &object["status"]["acceptedNames"]
}

/// As [`set_status`], but somebody else may be faster.
async fn write_status(core: &Core, object: &Value) -> Result<(), Status> {
    match set_status(core, object).await {
        // That change will be looked at in its turn.
        Err(status) if matches!(status.code, 404 | 409) => Ok(()),
        result => result,
    }
}

/// Writes the status of a definition, and its finalizers; it must not have changed since it was read.
async fn set_status(core: &Core, object: &Value) -> Result<(), Status> {
    let resource = core.registry.known(GROUP, RESOURCE)?;
    let name = text(object, "name");
    let target = Target { resource, namespace: "", name, subresource: "status" };
    update(core, target, &WriteOptions::internal(), |_| Ok(object.clone())).await.map(|_| ())
}
