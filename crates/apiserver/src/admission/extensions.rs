//! What administrators add to admission: webhooks and policies, taken up as soon as the watch cache has them. Where there are
//! none, a request costs one look at a flag.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use arc_swap::ArcSwap;
use keelson_api::apply::check_managed;
use keelson_api::status::Status;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::Instant;

use super::plugin::{MUTATING_POLICY, MUTATING_WEBHOOK, VALIDATING_POLICY, VALIDATING_WEBHOOK};
use super::policies::{self, Active, Mutations, Policies, Validations};
use super::reinvocation::Rounds;
use super::webhooks::{self, Hook, Hooks};
use super::{Judges, Request, plugins};
use crate::cache::feed::Listener;
use crate::cache::{Cache, Change, Entry, ResourceCache};
use crate::core::Core;
use crate::metrics::Step;
use crate::registry::create::set;

const GROUP: &str = "admissionregistration.k8s.io";
const RESOURCES: [&str; 6] = [
    "mutatingadmissionpolicies",
    "mutatingadmissionpolicybindings",
    "mutatingwebhookconfigurations",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "validatingwebhookconfigurations",
];

/// The server, once there is one.
pub(super) type Home = Arc<OnceLock<Weak<Core>>>;

/// What there is, as it was written.
#[derive(Default)]
struct Configured {
    mutating: Hooks,
    validating: Hooks,
    mutating_policies: Policies<Mutations>,
    validating_policies: Policies<Validations>,
}

/// What there is, ready for requests.
#[derive(Default)]
pub(crate) struct Extensions {
    configured: Mutex<Configured>,
    core: Home,
    mutates: AtomicBool,
    validates: AtomicBool,
    mutating: ArcSwap<Vec<Arc<Hook>>>,
    validating: ArcSwap<Vec<Arc<Hook>>>,
    mutating_policies: ArcSwap<Vec<Active<Mutations>>>,
    validating_policies: ArcSwap<Vec<Active<Validations>>>,
}

impl Extensions {
    /// Tells where Services are looked up. Configurations are read before there is a server.
    pub(crate) fn attach(&self, core: &Arc<Core>) {
        let _ = self.core.set(Arc::downgrade(core));
    }

    pub(super) fn mutating(&self) -> Arc<Vec<Arc<Hook>>> {
        self.mutating.load_full()
    }

    pub(super) fn validating(&self) -> Arc<Vec<Arc<Hook>>> {
        self.validating.load_full()
    }

    pub(super) fn mutating_policies(&self) -> Arc<Vec<Active<Mutations>>> {
        self.mutating_policies.load_full()
    }

    pub(super) fn validating_policies(&self) -> Arc<Vec<Active<Validations>>> {
        self.validating_policies.load_full()
    }

    /// Whether somebody might change the object of a request.
    pub(crate) fn may_mutate(&self, request: &Request<'_>) -> bool {
        self.mutates.load(Ordering::Relaxed)
            && concerned(request)
            && (self.mutating.load().iter().any(|hook| hook.matching().by_rules(request).is_some())
                || self.mutating_policies.load().iter().any(|policy| policy.concerns(request)))
    }

    /// Whether somebody might refuse a request, once the object is whole.
    pub(super) fn validates(&self) -> bool {
        self.validates.load(Ordering::Relaxed)
    }

    fn set(&self, configured: &mut Configured, resource: &str, name: &str, object: Option<&Value>) {
        match resource {
            "mutatingwebhookconfigurations" => configured.mutating.set(&self.core, name, object),
            "validatingwebhookconfigurations" => configured.validating.set(&self.core, name, object),
            "mutatingadmissionpolicies" => configured.mutating_policies.set_policy(name, object),
            "mutatingadmissionpolicybindings" => configured.mutating_policies.set_binding(name, object),
            "validatingadmissionpolicies" => configured.validating_policies.set_policy(name, object),
            "validatingadmissionpolicybindings" => configured.validating_policies.set_binding(name, object),
            _ => {}
        }
    }

    fn publish(&self, configured: &Configured) {
        let (mutating, validating) = (configured.mutating.list(), configured.validating.list());
        let (changing, checking) = (configured.mutating_policies.list(), configured.validating_policies.list());
        let mutates = !mutating.is_empty() || !changing.is_empty();
        let validates = !validating.is_empty() || !checking.is_empty();
        self.mutating_policies.store(Arc::new(changing));
        self.validating_policies.store(Arc::new(checking));
        self.mutating.store(Arc::new(mutating));
        self.validating.store(Arc::new(validating));
        self.mutates.store(mutates, Ordering::Relaxed);
        self.validates.store(validates, Ordering::Relaxed);
    }
}

fn decode(entry: &Entry) -> Option<Value> {
    entry.decode().inspect_err(|error| tracing::error!(key = %entry.key, %error, "an object cannot be read")).ok()
}

impl Listener for Extensions {
    fn changed(&self, resource: &ResourceCache, change: &Change) {
        if resource.group() != GROUP {
            return;
        }
        let Some(entry) = change.new.as_ref().or(change.old.as_ref()) else { return };
        let object = change.new.as_deref().and_then(decode);
        let mut configured = self.configured.lock();
        self.set(&mut configured, resource.resource(), entry.name(), object.as_ref());
        self.publish(&configured);
    }

    fn reloaded(&self, cache: &Cache) {
        let mut fresh = Configured::default();
        for resource in RESOURCES {
            let Some(cache) = cache.resource(GROUP, resource) else { continue };
            for entry in cache.snapshot().map.values() {
                self.set(&mut fresh, resource, entry.name(), decode(entry).as_ref());
            }
        }
        self.publish(&fresh);
        *self.configured.lock() = fresh;
    }
}

/// Whether webhooks and policies have a say. About themselves they have none, so that they can always be taken away.
fn concerned(request: &Request<'_>) -> bool {
    request.judges == Judges::All && request.resource.kind.group != GROUP
}

/// Lets webhooks and policies change the object; whether they did.
pub(super) async fn mutate(request: &Request<'_>, object: &mut Value) -> Result<bool, Status> {
    if !request.core.extensions.mutates.load(Ordering::Relaxed) || !concerned(request) {
        return Ok(false);
    }
    let managed = object["metadata"]["managedFields"].clone();
    let mut rounds = Rounds::default();
    round(request, object, &mut rounds).await?;
    if rounds.next() {
        plugins(request, object).await?;
        round(request, object, &mut rounds).await?;
    }
    if rounds.is_changed() {
        keep_managed(request, object, managed);
    }
    Ok(rounds.is_changed())
}

/// Puts managed fields back that were made unreadable.
fn keep_managed(request: &Request<'_>, object: &mut Value, before: Value) {
    if object["metadata"]["managedFields"] == before {
        return;
    }
    let Err(why) = check_managed(object) else { return };
    request.notes.warn(format!(
        ".metadata.managedFields was in an invalid state after admission; this could be caused by an outdated mutating \
         admission controller; please fix your requests: {why}"
    ));
    match before {
        Value::Null => {
            let metadata = object.get_mut("metadata").and_then(Value::as_object_mut);
            metadata.map(|metadata| metadata.remove("managedFields"));
        }
        before => set(object, "managedFields", before),
    }
}

async fn round(request: &Request<'_>, object: &mut Value, rounds: &mut Rounds) -> Result<(), Status> {
    measured(request, MUTATING_POLICY, Step::Admit, policies::mutate(request, object, rounds)).await?;
    measured(request, MUTATING_WEBHOOK, Step::Admit, webhooks::mutate(request, object, rounds)).await
}

/// Waits, and notes under a plugin's name how long.
async fn measured(
    request: &Request<'_>,
    place: usize,
    step: Step,
    work: impl Future<Output = Result<(), Status>>,
) -> Result<(), Status> {
    let begin = Instant::now();
    let result = work.await;
    request.core.metrics.admission.controller(place, step, request.operation, begin.elapsed(), result.is_err());
    result
}

/// Lets webhooks and policies refuse the request.
pub(super) async fn validate(request: &Request<'_>, object: &Value) -> Result<(), Status> {
    if !request.core.extensions.validates() || !concerned(request) {
        return Ok(());
    }
    if !policies::is_excluded(request) {
        measured(request, VALIDATING_POLICY, Step::Validate, policies::validate(request, object)).await?;
    }
    measured(request, VALIDATING_WEBHOOK, Step::Validate, webhooks::validate(request, object)).await
}
