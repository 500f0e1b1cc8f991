//! The verbs as HTTP sees them: objects themselves, and the generic subresource `status`; `scale` has a file of its own.

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use keelson_api::kind::{Scope, Verb};
use keelson_api::status::Status;
use serde_json::Value;

use super::body::{Strictness, decode};
use super::create::{self, Written, text};
use super::delete::{self, Deleted};
use super::options::{DeleteOptions, WriteOptions, is_apply};
use super::update::{Target, update};
use super::{lists, patch, read, render, select, watch};
use crate::admission::{Asked, Judges};
use crate::authz::Attributes;
use crate::dispatch::Call;
use crate::http::reply::{self, Reply};
use crate::{review, subresource};

/// Objects of a collection deleted at once; their writes share fsyncs.
const DELETE_BATCH: usize = 32;

/// A verb on objects themselves.
pub(crate) async fn object(call: &Call, verb: Verb, body: Bytes) -> Reply {
    let Call { core, resource, target, query, .. } = call;
    if resource.stored().is_none() {
        return review::serve(call, verb, body).await;
    }
    let (namespace, name) = (call.object_namespace(), target.name.as_str());
    match verb {
        Verb::Get => read::get(core, resource, namespace, name, query, call.accepted()?).await,
        Verb::List => lists::list(core, resource, namespace, query, call.accepted()?).await,
        Verb::Watch => {
            let mut query = query.clone();
            // Authorized by this name, so it is what is watched.
            if !name.is_empty() {
                select::fix_name(&mut query, name)?;
            }
            watch::watch(core, resource, namespace, &query, call.accepted()?, call.initializing.clone()).await
        }
        Verb::Create => {
            let options = WriteOptions::of(call, "CreateOptions")?;
            let mut strictness = Strictness::new(options.field_validation);
            let mut object = decode(&resource.kind, &call.media_type(), &body, &mut strictness)?;
            let twice = create::dedup_owners(&mut object, false);
            let mut written = create::create(core, resource, namespace, object, &options).await?;
            written.warnings.splice(0..0, strictness.warnings().into_iter().chain(twice));
            finish(call, written)
        }
        Verb::Update => put(call, body, "").await,
        Verb::Patch => patch_object(call, body, "").await,
        Verb::Delete => {
            let options = delete_options(call, &body)?;
            let deleted = delete::delete(core, resource, namespace, name, &options, call.asked()).await?;
            match deleted {
                Deleted::Gone(object) if resource.kind.returns_deleted => {
                    render::object(resource, 200, object, call.accepted()?, query)
                }
                Deleted::Gone(object) => {
                    render::document(200, &delete::success(resource, &object), call.accepted()?.encoding)
                }
                Deleted::Marked(object) => {
                    let code = if options.orphan_dependents == Some(false) { 202 } else { 200 };
                    render::object(resource, code, object, call.accepted()?, query)
                }
            }
        }
        Verb::DeleteCollection => delete_collection(call, body).await,
    }
}

/// The `DeleteOptions` of a request.
pub(crate) fn delete_options(call: &Call, body: &Bytes) -> Result<DeleteOptions, Status> {
    let body = if body.is_empty() { None } else { Some(super::body::decode_any(&call.media_type(), body)?.value) };
    DeleteOptions::from_request(body, &call.query)
}

/// PUT of the object or of a subresource whose body is the object.
pub(crate) async fn put(call: &Call, body: Bytes, subresource: &str) -> Reply {
    let Call { core, resource, target, .. } = call;
    let options = WriteOptions::of(call, "UpdateOptions")?;
    let mut strictness = Strictness::new(options.field_validation);
    let mut object = decode(&resource.kind, &call.media_type(), &body, &mut strictness)?;
    let twice = create::dedup_owners(&mut object, false);
    let namespace = call.object_namespace();
    let to = Target { resource, namespace, name: &target.name, subresource };
    let result = update(core, to, &options, |_| Ok(object.clone())).await;
    let mut written = match result {
        Err(status) if status.code == 404 && subresource.is_empty() && resource.kind.strategy.create_on_update() => {
            create_by_put(call, object, &options).await?
        }
        result => result?,
    };
    written.warnings.splice(0..0, strictness.warnings().into_iter().chain(twice));
    finish(call, written)
}

/// PUT of an object that is not there creates it, for the kinds that allow that.
async fn create_by_put(call: &Call, mut object: Value, options: &WriteOptions) -> Result<Written, Status> {
    let Call { core, resource, target, user, .. } = call;
    let (kind, namespace) = (&resource.kind, call.object_namespace());
    let create = Attributes::on("create", &kind.group, &kind.resource, namespace, &target.name);
    core.authorizer.check(user, &create).await?;
    if text(&object, "name") != target.name {
        return Err(Status::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({})",
            text(&object, "name"),
            target.name
        )));
    }
    if !text(&object, "uid").is_empty() {
        let why = format!("Precondition failed: UID in precondition: {}, UID in object meta: ", text(&object, "uid"));
        return Err(resource.conflict(&target.name, &why));
    }
    if !text(&object, "resourceVersion").is_empty() && text(&object, "resourceVersion") != "0" {
        return Err(resource.not_found(&target.name));
    }
    create::set(&mut object, "resourceVersion", "".into());
    create::create(core, resource, namespace, object, options).await
}

/// PATCH of the object or of a subresource whose body is the object.
pub(crate) async fn patch_object(call: &Call, body: Bytes, subresource: &str) -> Reply {
    let Call { core, resource, target, .. } = call;
    let options = WriteOptions::of(call, "PatchOptions")?;
    let to = Target { resource, namespace: call.object_namespace(), name: &target.name, subresource };
    let media_type = call.media_type();
    let written = if is_apply(&media_type) {
        patch::apply(core, to, &options, &media_type, &body).await?
    } else {
        patch::patch(core, to, &options, &media_type, &body).await?
    };
    finish(call, written)
}

async fn delete_collection(call: &Call, body: Bytes) -> Reply {
    let Call { core, resource, query, .. } = call;
    let options = delete_options(call, &body)?;
    let mut listed = lists::find(core, resource, call.object_namespace(), query).await?;
    let entries: Vec<_> = listed.entries.collect();
    let cluster = resource.kind.scope == Scope::Cluster;
    for batch in entries.chunks(DELETE_BATCH) {
        let mut work = FuturesUnordered::new();
        for entry in batch {
            let namespace = if cluster { "" } else { entry.namespace() };
            work.push(delete::delete(core, resource, namespace, entry.name(), &options, call.asked()));
        }
        // What is under way is done to its end, also beside one that fails.
        let mut failed = None;
        while let Some(result) = work.next().await {
            failed = failed.or(result.err().filter(|status| status.code != 404));
        }
        if let Some(status) = failed {
            return Err(status);
        }
    }
    // As upstream, the objects as they were before.
    listed.entries = Box::new(entries.into_iter());
    render::list(resource, listed, call.accepted()?, query).await
}

/// A write's answer.
pub(crate) fn finish(call: &Call, written: Written) -> Reply {
    let code = if written.created { 201 } else { 200 };
    let accepted = call.accepted()?;
    let mut response = match &written.entry {
        // Its bytes need not be made again.
        Some(entry) if call.resource.plain() => render::entry(&call.resource, code, entry, accepted, &call.query)?,
        _ => render::object(&call.resource, code, written.object, accepted, &call.query)?,
    };
    reply::warn(&mut response, &written.warnings);
    Ok(response)
}

/// `status`
pub(crate) async fn status(call: &Call, verb: Verb, body: Bytes) -> Reply {
    match verb {
        Verb::Update => put(call, body, "status").await,
        Verb::Patch => patch_object(call, body, "status").await,
        _ => {
            let (namespace, name) = (call.object_namespace(), &call.target.name);
            read::get(&call.core, &call.resource, namespace, name, &call.query, call.accepted()?).await
        }
    }
}

impl Call {
    /// Who asks.
    pub(crate) fn asked(&self) -> Asked<'_> {
        Asked { user: &self.user, judges: Judges::All, notes: &self.notes }
    }

    /// The namespace of the object's key: none for Namespaces, whatever their path says.
    pub(crate) fn object_namespace(&self) -> &str {
        if subresource::is_namespace(&self.resource) { "" } else { &self.target.namespace }
    }
}
