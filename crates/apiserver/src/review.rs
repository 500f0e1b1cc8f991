//! Kinds that are questions rather than objects: the access reviews, TokenReview, SelfSubjectReview; and what is computed
//! when read (ComponentStatus). `bindings` is the old way to `pods/binding`.

mod access;
mod identity;

use bytes::Bytes;
use keelson_api::kind::Verb;
use keelson_api::status::Status;
use serde_json::{Value, json};

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

fn computed(call: &Call, verb: Verb) -> Reply {
    let components: &[&str] = &["etcd-0"];
    let one = |name: &str| {
        let healthy = !call.core.cache.is_broken();
        let status = if healthy { "True" } else { "False" };
        json!({
            "kind": "ComponentStatus", "apiVersion": "v1", "metadata": {"name": name},
            "conditions": [{"type": "Healthy", "status": status, "message": if healthy { "ok" } else { "unreachable" }}],
        })
    };
    if call.resource.kind.kind != "ComponentStatus" {
        return Err(Status::unknown_path());
    }
    let accepted = call.accepted()?;
    match verb {
        Verb::Get => {
            let found = components.iter().find(|name| **name == call.target.name);
            let name = found.ok_or_else(|| call.resource.not_found(&call.target.name))?;
            render::object(&call.resource, 200, one(name), accepted, &call.query)
        }
        _ => {
            let items: Vec<Value> = components.iter().map(|name| one(name)).collect();
            render::values(&call.resource, items, json!({}), accepted, &call.query)
        }
    }
}
