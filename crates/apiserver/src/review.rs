//! Kinds that are questions rather than objects: the access reviews, TokenReview, SelfSubjectReview; and what is computed
//! when read (ComponentStatus). `bindings` is the old way to `pods/binding`.

mod access;
mod identity;

use bytes::Bytes;
use keelson_api::kind::Verb;
use keelson_api::status::Status;
use serde_json::json;

use crate::admission::{self, Operation, Request};
use crate::dispatch::Call;
use crate::http::reply::Reply;
use crate::registry::body::{Strictness, decode};
use crate::registry::create::text;
use crate::registry::options::WriteOptions;
use crate::registry::render;

/// Answers a verb on a kind that is not stored.
pub(crate) async fn serve(call: &Call, verb: Verb, body: Bytes) -> Reply {
    let kind = &call.resource.kind;
    if verb != Verb::Create {
        return computed(call, verb);
    }
    let options = WriteOptions::of(call, "CreateOptions")?;
    let mut strictness = Strictness::new(options.field_validation);
    let mut object = decode(kind, &call.media_type(), &body, &mut strictness)?;
    keelson_api::validation::meta::set_type(kind, &mut object);
    kind.strategy.default(&mut object);
    if kind.kind == "Binding" {
        let name = text(&object, "name").to_owned();
        return crate::subresource::binding::bind(call, &name, object, &options).await;
    }
    let name = text(&object, "name").to_owned();
    let at = (call.target.namespace.as_str(), name.as_str(), "");
    let request = Request::write(&call.core, &call.resource, Operation::Create, at, &options);
    admission::mutate(&request, &mut object).await?;
    let errors = kind.strategy.validate(&object, keelson_api::kind::Write::Create);
    if !errors.is_empty() {
        return Err(Status::invalid(&kind.group, &kind.kind, text(&object, "name"), &errors));
    }
    admission::validate(&request, &object).await?;
    let status = match (kind.group.as_ref(), kind.kind.as_ref()) {
        ("authorization.k8s.io", "SelfSubjectAccessReview") => access::of_self(call, &object).await?,
        ("authorization.k8s.io", "SubjectAccessReview") => access::of_subject(call, &object).await?,
        ("authorization.k8s.io", "LocalSubjectAccessReview") => access::of_subject_here(call, &object).await?,
        ("authorization.k8s.io", "SelfSubjectRulesReview") => access::rules(call, &object)?,
        ("authentication.k8s.io", "TokenReview") => identity::token(call, &object).await?,
        ("authentication.k8s.io", "SelfSubjectReview") => json!({"userInfo": identity::user(&call.user)}),
        _ => return Err(Status::unknown_path()),
    };
    if let Some(map) = object.as_object_mut() {
        map.entry("metadata").or_insert_with(|| json!({}));
        map.insert("status".into(), status);
    }
    render::object(&call.resource, 201, object, call.accepted()?, &call.query)
}

/// Of the control plane, besides the store: the lease that a component's leader renews.
const COMPONENTS: [(&str, &str); 2] =
    [("scheduler", "kube-scheduler"), ("controller-manager", "kube-controller-manager")];
const STORE: &str = "etcd-0";

/// Upstream asks each component on a port of this machine. Here components have none, and may run elsewhere: what is told is
/// whether one of them leads, which is what they are there for.
fn computed(call: &Call, verb: Verb) -> Reply {
    if call.resource.kind.kind != "ComponentStatus" {
        return Err(Status::unknown_path());
    }
    let one = |name: &str, health: Result<(), String>| {
        let (status, message) = match health {
            Ok(()) => ("True", "ok".to_owned()),
            Err(why) => ("False", why),
        };
        json!({
            "kind": "ComponentStatus", "apiVersion": "v1", "metadata": {"name": name},
            "conditions": [{"type": "Healthy", "status": status, "message": message}],
        })
    };
    let store = || if call.core.cache.is_broken() { Err("unreachable".to_owned()) } else { Ok(()) };
    let mut all = Vec::new();
    for (name, lease) in COMPONENTS {
        all.push(one(name, leads(call, lease)?));
    }
    all.push(one(STORE, store()));
    let accepted = call.accepted()?;
    match verb {
        Verb::Get => {
            let wanted = call.target.name.as_str();
            let found = all.into_iter().find(|object| object["metadata"]["name"] == wanted);
            let found = found.ok_or_else(|| call.resource.not_found(wanted))?;
            render::object(&call.resource, 200, found, accepted, &call.query)
        }
        _ => render::values(&call.resource, all, json!({}), accepted, &call.query),
    }
}

/// Whether somebody holds a lease of the control plane and has renewed it in time.
fn leads(call: &Call, lease: &str) -> Result<Result<(), String>, Status> {
    let leases = call.core.registry.known("coordination.k8s.io", "leases")?;
    let Some(entry) = leases.cache()?.get("kube-system", lease) else {
        return Ok(Err(leases.not_found(lease).message));
    };
    let spec = entry.decode()?["spec"].take();
    let held = spec["holderIdentity"].as_str().is_some_and(|holder| !holder.is_empty());
    let renewed = spec["renewTime"].as_str().unwrap_or_default();
    let term = jiff::SignedDuration::from_secs(spec["leaseDurationSeconds"].as_i64().unwrap_or_default());
    let in_time = renewed.parse::<jiff::Timestamp>().is_ok_and(|at| at + term >= keelson_client::clock::now());
    Ok(match (held, in_time) {
        (true, true) => Ok(()),
        (false, _) => Err(format!("nobody holds the lease {lease}")),
        (true, false) => Err(format!("the lease {lease} was last renewed at {renewed}")),
    })
}
