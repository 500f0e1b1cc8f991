//! `pods/eviction`: a delete that asks nicely. Disruption budgets come in a later issue; until then nothing objects.

use bytes::Bytes;
use keelson_api::status::Status;

use super::binding::done;
use crate::admission::{self, Operation};
use crate::dispatch::Call;
use crate::http::reply::Reply;
use crate::registry::body::{Strictness, decode};
use crate::registry::create::text;
use crate::registry::delete;
use crate::registry::options::{DeleteOptions, WriteOptions};
use crate::registry::render;

pub(super) async fn serve(call: &Call, body: Bytes) -> Reply {
    let Call { core, resource, target, query, user, .. } = call;
    let options = WriteOptions::of(call, "CreateOptions")?;
    let mut strictness = Strictness::new(options.field_validation);
    let kind = core.registry.body("policy", "Eviction")?;
    let eviction = decode(kind, &call.media_type(), &body, &mut strictness)?;
    let name = text(&eviction, "name");
    if !name.is_empty() && *name != target.name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let mut delete_options = match eviction.get("deleteOptions") {
        Some(options) => DeleteOptions::from_request(Some(options.clone()), query)?,
        None => DeleteOptions::default(),
    };
    if options.dry_run {
        delete_options.dry_run = vec!["All".into()];
    }
    let entry = resource.cache()?.get(&target.namespace, &target.name);
    let pod = entry.ok_or_else(|| resource.not_found(&target.name))?.decode()?;
    let request = admission::Request {
        core,
        resource,
        subresource: "eviction",
        operation: Operation::Create,
        namespace: &target.namespace,
        name: &target.name,
        user,
        old: Some(&pod),
    };
    admission::validate(&request, &eviction).await?;
    delete::delete(core, resource, &target.namespace, &target.name, &delete_options, user).await?;
    render::document(201, &done(201), call.accepted()?.encoding)
}
