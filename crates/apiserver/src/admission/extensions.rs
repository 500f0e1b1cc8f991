//! What administrators add to admission: webhooks and policies, taken up as soon as the watch cache has them. Where there are
//! none, a request costs one look at a flag.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use arc_swap::ArcSwap;
use keelson_api::apply::check_managed;
use keelson_api::status::Status;
use parking_lot::Mutex;
use serde_json::Value;

use super::reinvocation::Rounds;
use super::webhooks::{self, Hook, Hooks};
use super::{Judges, Request, plugins};
use crate::cache::feed::Listener;
use crate::cache::{Cache, Change, Entry, ResourceCache};
use crate::core::Core;
use crate::registry::create::set;

const GROUP: &str = "admissionregistration.k8s.io";
const RESOURCES: [&str; 2] = ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"];

/// The server, once there is one.
pub(super) type Home = Arc<OnceLock<Weak<Core>>>;

/// What there is, as it was written.
#[derive(Default)]
struct Configured {
    mutating: Hooks,
    validating: Hooks,
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

    /// Whether somebody might change the object of a request.
    pub(crate) fn may_mutate(&self, request: &Request<'_>) -> bool {
        self.mutates.load(Ordering::Relaxed)
            && concerned(request)
            && self.mutating.load().iter().any(|hook| hook.matching().by_rules(request).is_some())
    }

    /// Whether somebody might refuse a request, once the object is whole.
    pub(super) fn validates(&self) -> bool {
        self.validates.load(Ordering::Relaxed)
    }

    fn set(&self, configured: &mut Configured, resource: &str, name: &str, object: Option<&Value>) {
        match resource {
            "mutatingwebhookconfigurations" => configured.mutating.set(&self.core, name, object),
            "validatingwebhookconfigurations" => configured.validating.set(&self.core, name, object),
            _ => {}
        }
    }

    fn publish(&self, configured: &Configured) {
        let (mutating, validating) = (configured.mutating.list(), configured.validating.list());
        let (mutates, validates) = (!mutating.is_empty(), !validating.is_empty());
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
    webhooks::mutate(request, object, rounds).await
}

/// Lets webhooks and policies refuse the request.
pub(super) async fn validate(request: &Request<'_>, object: &Value) -> Result<(), Status> {
    if !request.core.extensions.validates() || !concerned(request) {
        return Ok(());
    }
    webhooks::validate(request, object).await
}
