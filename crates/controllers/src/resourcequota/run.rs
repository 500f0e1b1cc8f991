//! Observes quotas and what they count, and writes their status.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, ResourceQuota, ResourceQuotaStatus, Service};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use keelson_api::quota::{Amounts, Quota};
use keelson_client::{Change, Key, SharedInformer, WorkQueue, clock, is_not_found, run_workers};
use kube::api::{Api, DynamicObject, ListParams, PostParams};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::plan::{self, Counted, SETTLED, Standing};
use super::watch::Watches;
use crate::common::discovery::{Found, discover};
use crate::common::objects::{name, namespace};
use crate::common::pods;
use crate::context::{Context, objects};

const COMPONENT: &str = "resourcequota-controller";
/// Objects of a page when they are looked into.
const PAGE: u32 = 500;
/// How long after the server charged a quota it is counted: a charge whose object was not written in the end is taken back.
const REVIEW: Duration = Duration::from_secs(30);
/// Pause between two discoveries because of a resource that is not known.
const REDISCOVER: Duration = Duration::from_secs(10);

/// The `resourcequota-controller`.
pub async fn run(context: Context) {
    let quotas = context.informers.get::<ResourceQuota>();
    let all_pods = context.informers.get::<Pod>();
    let services = context.informers.get::<Service>();
    if !context.synced(&quotas).await || !context.synced(&all_pods).await || !context.synced(&services).await {
        return;
    }
    let queue: WorkQueue<Key> = WorkQueue::new();
    let this = Arc::new(Controller {
        context: context.clone(),
        quotas: quotas.clone(),
        queue: queue.clone(),
        seen: Mutex::default(),
        known: Mutex::default(),
        watches: Mutex::default(),
    });
    let on_quota = context.each(&quotas, |change| this.quota_changed(&change));
    let on_pod = context.each(&all_pods, |change| match &change {
        Change::Deleted(pod) => this.freed("", "pods", namespace(&pod.metadata)),
        Change::Updated(old, new) if pods::is_finished(new) && !pods::is_finished(old) => {
            this.freed("", "pods", namespace(&new.metadata));
        }
        _ => {}
    });
    let on_service = context.each(&services, |change| match &change {
        Change::Deleted(service) => this.freed("", "services", namespace(&service.metadata)),
        Change::Updated(old, new) if old.spec != new.spec => this.freed("", "services", namespace(&new.metadata)),
        _ => {}
    });
    let workers = context.config.concurrent_resource_quota_syncs;
    let controller = this.clone();
    let work = run_workers(COMPONENT, queue, workers, context.shutdown.clone(), move |key: Key| {
        let this = controller.clone();
        async move { this.sync(&key).await }
    });
    tokio::join!(on_quota, on_pod, on_service, work);
}

struct Controller {
    context: Context,
    quotas: SharedInformer<ResourceQuota>,
    queue: WorkQueue<Key>,
    seen: Mutex<HashMap<Key, Seen>>,
    known: Mutex<Known>,
    watches: Mutex<Watches>,
}

/// What is known of a quota's changes.
struct Seen {
    version: String,
    /// When that version was first seen.
    since: Instant,
    /// Since when its count is put off.
    put_off: Option<Instant>,
}

/// Resources by group and plural.
#[derive(Default)]
struct Known {
    resources: HashMap<Counted, Found>,
    asked: Option<Instant>,
}

/// What matters of a quota.
fn view(quota: &ResourceQuota) -> Quota {
    // Whatever came from the server can be written again.
    Quota::of(&serde_json::to_value(quota).unwrap_or_default())
}

impl Controller {
    fn quota_changed(&self, change: &Change<ResourceQuota>) {
        {
            let mut all = self.seen.lock();
            for quota in objects(change) {
                let (key, version) = (Key::of(&**quota), quota.metadata.resource_version.clone().unwrap_or_default());
                let seen = all.get(&key);
                if seen.is_none_or(|seen| seen.version != version) {
                    let put_off = seen.and_then(|seen| seen.put_off);
                    all.insert(key, Seen { version, since: Instant::now(), put_off });
                }
            }
        }
        match change {
            // What the server charged needs no count at once.
            Change::Updated(old, new) if old.spec == new.spec && new.status.is_some() => {
                if old.status != new.status {
                    self.queue.add_after(Key::of(&**new), REVIEW);
                }
            }
            Change::Deleted(quota) => {
                self.seen.lock().remove(&Key::of(&**quota));
                self.forget_watches();
            }
            change => objects(change).for_each(|quota| self.queue.add(Key::of(&**quota))),
        }
    }

    /// Something went away that quotas of the namespace may count.
    fn freed(&self, group: &str, resource: &str, namespace: &str) {
        let counted = Counted::new(group, resource);
        for quota in self.quotas.list_in(namespace) {
            if plan::counted(&view(&quota)).contains(&counted) {
                self.queue.add(Key::of(&*quota));
            }
        }
    }

    fn forget_watches(&self) {
        let wanted: BTreeSet<Counted> =
            self.quotas.list().iter().flat_map(|quota| plan::counted(&view(quota))).collect();
        self.watches.lock().keep(&wanted);
    }

    async fn sync(self: &Arc<Self>, key: &Key) -> Result<Option<Duration>, kube::Error> {
        let period = self.context.config.resource_quota_sync_period;
        let Some(object) = self.quotas.get_key(key) else { return Ok(None) };
        let (quota, standing) = (view(&object), self.standing(key, &object));
        if let Some(pause) = plan::pause(&quota, standing) {
            self.put_off(key);
            return Ok(Some(pause));
        }
        let mut used = Amounts::new();
        let mut unknown = false;
        for counted in plan::counted(&quota) {
            match self.resource(&counted).await? {
                Some(found) if found.namespaced => {
                    self.watch(&counted, &found);
                    self.measure(&object, &quota, &counted, &found, &mut used).await?;
                }
                Some(_) => {}
                None => unknown = true,
            }
        }
        // A resource may be defined later.
        let period = if unknown { period.min(REDISCOVER) } else { period };
        plan::settle(&quota, &mut used, standing);
        let new = plan::is_new(&quota);
        if !new && quota.used == used {
            self.counted(key);
            return Ok(Some(period));
        }
        let written = self.write(&object, used).await;
        if written.is_ok() {
            self.counted(key);
        }
        match written {
            // What was written while nothing was enforced may not have been counted.
            Ok(()) if new => Ok(Some(SETTLED)),
            Ok(()) => Ok(Some(period)),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn standing(&self, key: &Key, object: &ResourceQuota) -> Standing {
        let version = object.metadata.resource_version.as_deref().unwrap_or_default();
        let all = self.seen.lock();
        let Some(seen) = all.get(key) else { return Standing::default() };
        let age = if seen.version == version { seen.since.elapsed() } else { Duration::ZERO };
        Standing { age, waited: seen.put_off.map_or(Duration::ZERO, |since| since.elapsed()) }
    }

    fn put_off(&self, key: &Key) {
        if let Some(seen) = self.seen.lock().get_mut(key) {
            seen.put_off.get_or_insert_with(Instant::now);
        }
    }

    fn counted(&self, key: &Key) {
        if let Some(seen) = self.seen.lock().get_mut(key) {
            seen.put_off = None;
        }
    }

    async fn measure(
        &self,
        object: &ResourceQuota,
        quota: &Quota,
        counted: &Counted,
        found: &Found,
        used: &mut Amounts,
    ) -> Result<(), kube::Error> {
        let client = self.context.client.clone();
        let api = Api::<DynamicObject>::namespaced_with(client, namespace(&object.metadata), &found.resource);
        let evaluator = counted.evaluator();
        if evaluator.only_counts() {
            let list = api.list_metadata(&ListParams::default().limit(1)).await?;
            let rest = list.metadata.remaining_item_count.unwrap_or_default();
            let here = i64::try_from(list.items.len()).unwrap_or(i64::MAX);
            plan::count(quota, &evaluator, here.saturating_add(rest), used);
            return Ok(());
        }
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let list = api.list(&params).await?;
            let items: Result<Vec<_>, _> = list.items.iter().map(serde_json::to_value).collect();
            plan::measure(quota, &evaluator, &items.map_err(kube::Error::SerdeError)?, clock::now(), used);
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => return Ok(()),
            }
        }
    }

    async fn write(&self, object: &ResourceQuota, used: Amounts) -> Result<(), kube::Error> {
        let used: BTreeMap<String, Quantity> =
            used.into_iter().map(|(name, q)| (name, Quantity(q.to_string()))).collect();
        let hard = object.spec.as_ref().and_then(|spec| spec.hard.clone());
        let status = ResourceQuotaStatus { hard, used: Some(used) };
        let wanted = ResourceQuota { status: Some(status), ..ResourceQuota::clone(object) };
        let api = Api::<ResourceQuota>::namespaced(self.context.client.clone(), namespace(&object.metadata));
        // Fails with a conflict if the server has charged anything since it was read.
        api.replace_status(name(&object.metadata), &PostParams::default(), &wanted).await.map(drop)
    }

    /// Follows what goes away, unless the shared informers do.
    fn watch(self: &Arc<Self>, counted: &Counted, found: &Found) {
        if counted.group.is_empty() && matches!(counted.resource.as_str(), "pods" | "services") {
            return;
        }
        let this = Arc::downgrade(self);
        let what = counted.clone();
        let gone = move |namespace: &str| {
            if let Some(this) = this.upgrade() {
                this.freed(&what.group, &what.resource, namespace);
            }
        };
        let (client, shutdown) = (self.context.client.clone(), &self.context.shutdown);
        self.watches.lock().start(counted.clone(), found.resource.clone(), client, shutdown, gone);
    }

    /// A resource by group and plural, discovering anew (not too often) when it is not known.
    async fn resource(&self, counted: &Counted) -> Result<Option<Found>, kube::Error> {
        {
            let mut known = self.known.lock();
            if let Some(found) = known.resources.get(counted) {
                return Ok(Some(found.clone()));
            }
            if known.asked.is_some_and(|asked| asked.elapsed() < REDISCOVER) {
                return Ok(None);
            }
            known.asked = Some(Instant::now());
        }
        let found = discover(&self.context.client).await;
        let mut known = self.known.lock();
        match found {
            Ok(discovered) => {
                let by_name =
                    discovered.found.into_iter().map(|f| (Counted::new(&f.resource.group, &f.resource.plural), f));
                known.resources = by_name.collect();
                Ok(known.resources.get(counted).cloned())
            }
            Err(error) => {
                known.asked = None;
                Err(error)
            }
        }
    }
}
