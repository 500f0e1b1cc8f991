//! `pods/binding`: the scheduler's write.

use bytes::Bytes;
use keelson_api::kind::Write;
use keelson_api::status::Status;
use serde_json::{Value, json};

use crate::admission::{self, Judges, Operation, Request};
use crate::dispatch::Call;
use crate::http::reply::Reply;
use crate::registry::body::{Strictness, decode};
use crate::registry::create::text;
use crate::registry::options::WriteOptions;
use crate::registry::render;
use crate::registry::update::{Target, update};

pub(super) async fn serve(call: &Call, body: Bytes) -> Reply {
    let options = WriteOptions::of(call, "CreateOptions")?;
    let mut strictness = Strictness::new(options.field_validation);
    let kind = call.core.registry.body("", "Binding")?;
    let binding = decode(kind, &call.media_type(), &body, &mut strictness)?;
    let name = text(&binding, "name");
    if !name.is_empty() && name != call.target.name {
        return Err(Status::bad_request("name in URL does not match name in Binding object"));
    }
    let name = call.target.name.clone();
    bind(call, &name, binding, &options).await
}

/// Binds the pod `name`.
pub(crate) async fn bind(call: &Call, name: &str, mut binding: Value, options: &WriteOptions) -> Reply {
    let kind = call.core.registry.body("", "Binding")?;
    let namespace = call.target.namespace.as_str();
    let at = (namespace, name, call.target.subresource.as_str());
    let request = Request::write(&call.core, &call.resource, Operation::Create, at, options);
    keelson_api::validation::meta::set_type(kind, &mut binding);
    admission::mutate(&request, &mut binding).await?;
    let errors = kind.strategy.validate(&binding, Write::Create);
    if !errors.is_empty() {
        return Err(Status::invalid("", "Binding", name, &errors));
    }
    admission::validate(&request, &binding).await?;
    let pods = call.core.registry.known("", "pods")?;
    let target = Target { resource: pods, namespace, name, subresource: "binding" };
    let now = keelson_client::clock::now();
    // As upstream, nobody is noted as the owner of what a binding writes.
    let options = WriteOptions { tracked: false, judges: Judges::Nobody, ..options.clone() };
    update(&call.core, target, &options, |old| {
        let mut pod = old.clone();
        keelson_api::kinds::bind(&mut pod, &binding, now)?;
        Ok(pod)
    })
    .await?;
    render::document(201, &done(201), call.accepted()?.encoding)
}

/// A `Status` that says nothing but that it worked.
pub(super) fn done(code: u16) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code})
}
