//! Looks at the objects the graph points out, and deletes, disowns or releases them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use keelson_client::{Backoff, WorkQueue, is_not_found, run_workers};
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, watcher};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::graph::{Attempt, FOREGROUND, Graph, ORPHAN, Object, Place, Uid};
use super::plan::{self, Decision, Item, Owner};
use super::watch::follow;
use crate::common::discovery::{Discovered, Found, discover};
use crate::common::objects::{is_deleting, uid};
use crate::context::Context;

const COMPONENT: &str = "garbage-collector";
/// Resources whose objects own nothing and are owned by nothing, and change all the time.
const IGNORED: [(&str, &str); 2] = [("", "events"), ("events.k8s.io", "events")];
/// How long the first lists may take before work begins without the rest.
const SYNC_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause between two discoveries because of a kind that is not known.
const REDISCOVER: Duration = Duration::from_secs(30);
/// Changes of definitions so close to each other are looked at together.
const FLOCK: Duration = Duration::from_millis(100);
/// Owners known to be absent that are remembered.
const MAX_ABSENT: usize = 500;

/// The `garbage-collector-controller`.
pub async fn run(context: Context) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
    let discovered = loop {
        match discover(&context.client).await {
            Ok(discovered) => break discovered,
            Err(error) => tracing::debug!(%error, "garbage collector cannot discover resources yet"),
        }
        tokio::select! {
            () = backoff.wait() => {}
            () = context.shutdown.cancelled() => return,
        }
    };
    let queue: WorkQueue<Attempt> = WorkQueue::new();
    let collector = Arc::new(Collector {
        context: context.clone(),
        queue: queue.clone(),
        graph: Arc::default(),
        resources: Mutex::default(),
        absent: Mutex::default(),
        synced: watch::Sender::new(0),
    });
    let watches = collector.watch_new(discovered);
    let mut synced = collector.synced.subscribe();
    let all = synced.wait_for(|count| *count >= watches);
    tokio::select! {
        outcome = tokio::time::timeout(SYNC_TIMEOUT, all) => if outcome.is_err() {
            tracing::warn!("garbage collector: not all resources could be listed, going on without the rest");
        },
        () = context.shutdown.cancelled() => return,
    }
    let workers = context.config.concurrent_gc_syncs;
    let definitions = follow_definitions(collector.clone());
    let work = run_workers(COMPONENT, queue, workers, context.shutdown.clone(), move |attempt| {
        let collector = collector.clone();
        async move { collector.attempt(attempt).await.map(|()| None) }
    });
    tokio::join!(work, definitions);
}

/// Looks for resources anew when a CustomResourceDefinition or an APIService changes, and now and then while some are not known.
async fn follow_definitions(collector: Arc<Collector>) {
    let (shutdown, client) = (collector.context.shutdown.clone(), &collector.context.client);
    let definitions = Api::<PartialObjectMeta<CustomResourceDefinition>>::all(client.clone());
    let definitions = watcher(definitions, watcher::Config::default()).map(|event| event.map(is_change));
    let services = Api::<PartialObjectMeta<APIService>>::all(client.clone());
    let services = watcher(services, watcher::Config::default()).map(|event| event.map(is_change));
    let mut events = futures::stream::select(Box::pin(definitions), Box::pin(services));
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30)).jitter(0.5);
    loop {
        let partial = collector.resources.lock().partial;
        let event = tokio::select! {
            event = events.next() => event,
            () = tokio::time::sleep(REDISCOVER), if partial => Some(Ok(true)),
            () = shutdown.cancelled() => return,
        };
        let error = match event {
            None => return,
            Some(Ok(false)) => continue,
            Some(Ok(true)) => {
                // Definitions come in flocks.
                while let Ok(Some(_)) = tokio::time::timeout(FLOCK, events.next()).await {}
                tokio::select! {
                    () = collector.refresh_at_last(&mut backoff) => continue,
                    () = shutdown.cancelled() => return,
                }
            }
            Some(Err(error)) => error,
        };
        tracing::debug!(%error, "garbage collector cannot follow the definitions of resources");
        tokio::select! {
            () = backoff.wait() => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// Whether there is something to look at: after a list, and after each change.
fn is_change<T>(event: watcher::Event<T>) -> bool {
    !matches!(event, watcher::Event::Init | watcher::Event::InitApply(_))
}

struct Collector {
    context: Context,
    queue: WorkQueue<Attempt>,
    graph: Arc<Mutex<Graph>>,
    resources: Mutex<Resources>,
    absent: Mutex<std::collections::HashSet<(Place, Uid)>>,
    synced: watch::Sender<usize>,
}

#[derive(Default)]
struct Resources {
    /// By apiVersion and kind.
    by_kind: HashMap<(String, String), Found>,
    /// What is being watched, by group and plural.
    watched: HashMap<(String, String), Watched>,
    /// Watches begun so far.
    begun: u16,
    discovered: Option<Instant>,
    /// Some server could not say what it serves.
    partial: bool,
}

/// A watch under way.
struct Watched {
    number: u16,
    /// The version it is in.
    api_version: String,
    stop: CancellationToken,
}

impl Collector {
    /// Refreshes until that succeeds: a change of definitions is not told again.
    async fn refresh_at_last(&self, backoff: &mut Backoff) {
        while let Err(error) = self.refresh().await {
            tracing::debug!(%error, "garbage collector cannot discover resources");
            backoff.wait().await;
        }
        backoff.reset();
    }

    /// Asks which resources there are, watches the new ones and forgets those that are gone.
    async fn refresh(&self) -> Result<(), kube::Error> {
        let discovered = discover(&self.context.client).await?;
        self.forget_gone(&discovered);
        self.watch_new(discovered);
        Ok(())
    }

    /// Ends the watches of resources that are not among those found, or there in another version only. Of servers that cannot
    /// say what they serve, nothing is gone.
    fn forget_gone(&self, Discovered { found, failed }: &Discovered) {
        let mut resources = self.resources.lock();
        let there = |group: &str, plural: &str, api_version: &str| {
            failed.iter().any(|failed| failed == api_version)
                || found.iter().any(|f| {
                    let f = &f.resource;
                    (f.group.as_str(), f.plural.as_str(), f.api_version.as_str()) == (group, plural, api_version)
                })
        };
        resources.by_kind.retain(|_, f| there(&f.resource.group, &f.resource.plural, &f.resource.api_version));
        let mut gone = Vec::new();
        resources.watched.retain(|(group, plural), watched| {
            let stays = there(group, plural, &watched.api_version);
            if !stays {
                watched.stop.cancel();
                gone.push(watched.number);
            }
            stays
        });
        drop(resources);
        for number in gone {
            let mut graph = self.graph.lock();
            for uid in graph.missing(number, &std::collections::HashSet::new()) {
                self.add(graph.remove(uid));
            }
        }
    }

    /// Watches what is new among the resources found; returns how many watches there are now.
    fn watch_new(&self, Discovered { found, failed }: Discovered) -> usize {
        let mut resources = self.resources.lock();
        resources.discovered = Some(Instant::now());
        resources.partial = !failed.is_empty();
        for found in found {
            let key = (found.resource.api_version.clone(), found.resource.kind.clone());
            resources.by_kind.insert(key, found.clone());
            let name = (found.resource.group.clone(), found.resource.plural.clone());
            let wanted = ["delete", "list", "watch"].iter().all(|verb| found.can(verb))
                && !IGNORED.contains(&(name.0.as_str(), name.1.as_str()));
            if wanted && !resources.watched.contains_key(&name) {
                resources.begun = resources.begun.wrapping_add(1);
                let (number, stop) = (resources.begun, self.context.shutdown.child_token());
                let api_version = found.resource.api_version.clone();
                resources.watched.insert(name, Watched { number, api_version, stop: stop.clone() });
                tokio::spawn(follow(
                    number,
                    found,
                    self.context.client.clone(),
                    self.graph.clone(),
                    self.queue.clone(),
                    self.synced.clone(),
                    stop,
                ));
            }
        }
        resources.watched.len()
    }

    /// The resource of a kind, discovering anew (not too often) when it is not known.
    async fn resource(&self, api_version: &str, kind: &str) -> Result<Option<Found>, kube::Error> {
        let key = (api_version.to_owned(), kind.to_owned());
        {
            let resources = self.resources.lock();
            if let Some(found) = resources.by_kind.get(&key) {
                return Ok(Some(found.clone()));
            }
            // Another version of a known group serves the same objects.
            let group = api_version.split_once('/').map_or("", |(group, _)| group);
            let same = resources.by_kind.values().find(|f| f.resource.group == group && f.resource.kind == kind);
            if let Some(found) = same {
                return Ok(Some(found.clone()));
            }
            if resources.discovered.is_some_and(|at| at.elapsed() < REDISCOVER) {
                return Ok(None);
            }
        }
        self.refresh().await?;
        Ok(self.resources.lock().by_kind.get(&key).cloned())
    }

    fn api(&self, found: &Found, namespace: &str) -> Api<DynamicObject> {
        if found.namespaced && !namespace.is_empty() {
            Api::namespaced_with(self.context.client.clone(), namespace, &found.resource)
        } else {
            Api::all_with(self.context.client.clone(), &found.resource)
        }
    }

    fn add(&self, attempts: Vec<Attempt>) {
        attempts.into_iter().for_each(|attempt| self.queue.add(attempt));
    }

    /// The object's metadata as the server has it, if it is still that object.
    async fn live(&self, place: &Place, wanted: Uid) -> Result<Live, kube::Error> {
        let Some(found) = self.resource(&place.api_version, &place.kind).await? else { return Ok(Live::Unknown) };
        if found.namespaced && place.namespace.is_empty() {
            // A cluster-scoped object cannot be owned by one in a namespace: nobody can say which.
            return Ok(Live::Unknown);
        }
        let api = self.api(&found, &place.namespace);
        let live = api.get_metadata_opt(&place.name).await?;
        Ok(match live.filter(|live| Uid::new(uid(&live.metadata)) == wanted) {
            Some(live) => Live::There(Box::new((api, live.metadata))),
            None => Live::Absent,
        })
    }

    async fn attempt(&self, attempt: Attempt) -> Result<(), kube::Error> {
        match attempt {
            Attempt::Delete(uid) => self.attempt_delete(uid).await,
            Attempt::Orphan(uid) => self.orphan_dependents(uid).await,
        }
    }

    async fn attempt_delete(&self, target: Uid) -> Result<(), kube::Error> {
        let (place, object, ties) = {
            let graph = self.graph.lock();
            let Some(place) = graph.place(target) else { return Ok(()) };
            let object = graph.object(target);
            if object.is_none() && graph.is_known(target) {
                // An owner that was not known yet when its dependent came. It is there.
                return Ok(());
            }
            (place, object, graph.ties(target))
        };
        if object.as_ref().is_some_and(|object| object.deleting && !object.foreground) {
            return Ok(());
        }
        if object.as_ref().is_some_and(Object::waits_for_dependents) && ties.is_blocked {
            // Each that goes brings the owner back here.
            ties.undecided.into_iter().for_each(|dependent| self.queue.add(Attempt::Delete(dependent)));
            return Ok(());
        }
        let (api, live) = match self.live(&place, target).await? {
            Live::There(found) => *found,
            Live::Unknown => return Ok(()),
            Live::Absent => {
                let attempts = self.graph.lock().remove(target);
                self.add(attempts);
                return Ok(());
            }
        };
        let Some(object) = object else {
            // An owner that exists; its own watch will show it.
            return Ok(());
        };
        if object.waits_for_dependents() {
            return self.drop_finalizer(&api, &live, FOREGROUND).await;
        }
        let references = live.owner_references.clone().unwrap_or_default();
        let mut owners = Vec::new();
        for reference in &references {
            owners.push(self.owner(&place.namespace, reference).await?);
        }
        let has = |finalizer: &str| live.finalizers.iter().flatten().any(|known| known == finalizer);
        let item = Item {
            has_dependents: ties.has_dependents,
            dependents_wait: ties.dependents_wait,
            has_orphan_finalizer: has(ORPHAN),
            has_foreground_finalizer: has(FOREGROUND),
        };
        match plan::decide(&owners, item) {
            Decision::Keep => Ok(()),
            Decision::Disown(positions) => {
                let gone: Vec<&str> =
                    positions.iter().filter_map(|n| references.get(*n)).map(|owner| owner.uid.as_str()).collect();
                self.disown(&api, &live, &gone).await
            }
            Decision::Delete { policy, unblock } => {
                if unblock {
                    self.unblock(&api, &live).await?;
                }
                let version = if unblock { None } else { live.resource_version.clone() };
                self.delete(&api, &live, version, policy).await
            }
        }
    }

    async fn owner(&self, namespace: &str, reference: &OwnerReference) -> Result<Owner, kube::Error> {
        let place = Place {
            api_version: reference.api_version.clone(),
            kind: reference.kind.clone(),
            namespace: namespace.to_owned(),
            name: reference.name.clone(),
        };
        let owner = Uid::new(&reference.uid);
        if self.absent.lock().contains(&(place.clone(), owner)) {
            return Ok(Owner::Absent);
        }
        Ok(match self.live(&place, owner).await? {
            // A kind nobody knows: better to keep too much.
            Live::Unknown => Owner::Solid,
            Live::Absent => {
                let mut absent = self.absent.lock();
                if absent.len() >= MAX_ABSENT {
                    absent.clear();
                }
                absent.insert((place, owner));
                Owner::Absent
            }
            Live::There(found) => {
                let live = &found.1;
                let waits =
                    is_deleting(live) && live.finalizers.iter().flatten().any(|finalizer| finalizer == FOREGROUND);
                if waits { Owner::Waiting } else { Owner::Solid }
            }
        })
    }

    /// Takes an owner that is deleted with `orphan` off its dependents, then lets it go.
    async fn orphan_dependents(&self, target: Uid) -> Result<(), kube::Error> {
        let (place, dependents) = {
            let graph = self.graph.lock();
            let Some(place) = graph.place(target) else { return Ok(()) };
            (place, graph.dependents(target))
        };
        let Live::There(found) = self.live(&place, target).await? else { return Ok(()) };
        let (api, live) = *found;
        for dependent in dependents {
            if let Live::There(found) = self.live(&dependent.place, dependent.uid).await? {
                let (api, meta) = *found;
                self.disown(&api, &meta, &[uid(&live)]).await?;
            }
        }
        self.drop_finalizer(&api, &live, ORPHAN).await
    }

    async fn disown(&self, api: &Api<DynamicObject>, live: &ObjectMeta, gone: &[&str]) -> Result<(), kube::Error> {
        let rest: Vec<&OwnerReference> =
            live.owner_references.iter().flatten().filter(|owner| !gone.contains(&owner.uid.as_str())).collect();
        self.patch(api, live, json!({ "ownerReferences": rest })).await
    }

    async fn unblock(&self, api: &Api<DynamicObject>, live: &ObjectMeta) -> Result<(), kube::Error> {
        let mut owners = live.owner_references.clone().unwrap_or_default();
        owners.iter_mut().for_each(|owner| owner.block_owner_deletion = Some(false));
        self.patch(api, live, json!({ "ownerReferences": owners })).await
    }

    async fn drop_finalizer(
        &self,
        api: &Api<DynamicObject>,
        live: &ObjectMeta,
        finalizer: &str,
    ) -> Result<(), kube::Error> {
        let mut rest = live.finalizers.clone().unwrap_or_default();
        if !rest.iter().any(|known| known == finalizer) {
            return Ok(());
        }
        rest.retain(|known| known != finalizer);
        self.patch(api, live, json!({ "finalizers": rest })).await
    }

    /// Changes metadata of exactly this version of this object; a conflict brings the attempt back.
    async fn patch(
        &self,
        api: &Api<DynamicObject>,
        live: &ObjectMeta,
        mut metadata: serde_json::Value,
    ) -> Result<(), kube::Error> {
        if let Some(fields) = metadata.as_object_mut() {
            fields.insert("uid".into(), json!(live.uid));
            fields.insert("resourceVersion".into(), json!(live.resource_version));
        }
        let patch = json!({ "metadata": metadata });
        let name = live.name.as_deref().unwrap_or_default();
        match api.patch_metadata(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Ok(_) => Ok(()),
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn delete(
        &self,
        api: &Api<DynamicObject>,
        live: &ObjectMeta,
        resource_version: Option<String>,
        policy: PropagationPolicy,
    ) -> Result<(), kube::Error> {
        let preconditions = Preconditions { uid: live.uid.clone(), resource_version };
        let params = DeleteParams {
            propagation_policy: Some(policy),
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        };
        match api.delete(live.name.as_deref().unwrap_or_default(), &params).await {
            Ok(_) => Ok(()),
            Err(error) if is_not_found(&error) => Ok(()),
            // Also when it changed since it was looked at: look again.
            Err(error) => Err(error),
        }
    }
}

/// What the server says of an object.
enum Live {
    There(Box<(Api<DynamicObject>, ObjectMeta)>),
    /// Not there, or another object has its name.
    Absent,
    /// Nobody serves its kind, or its place cannot be told.
    Unknown,
}
