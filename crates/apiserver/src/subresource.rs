//! Subresources beyond `status` and `scale`: each has its file. Those that carry streams go to the kubelet or straight to a
//! pod and never pass the generic registry.

pub(crate) mod binding;
mod eviction;
mod finalize;
mod streams;
mod token;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::Request;
use keelson_api::kind::Verb;
use keelson_api::status::Status;

use crate::dispatch::Call;
use crate::http::body::RequestBody;
use crate::http::reply::Reply;
use crate::registry::{Resource, read, scale, subresources};

/// Whether the path leads to a stream.
pub(crate) fn is_streaming(call: &Call) -> bool {
    let target = &call.target;
    // `/api/v1/watch/…/exec` is authorized as a watch, and so may not lead anywhere.
    if !target.group.is_empty() || target.name.is_empty() || call.verb == "watch" {
        return false;
    }
    matches!(
        (target.resource.as_str(), target.subresource.as_str()),
        ("pods", "log" | "exec" | "attach" | "portforward" | "proxy") | ("services" | "nodes", "proxy")
    )
}

/// Answers a streaming subresource.
pub(crate) fn stream(call: Call, request: Request<RequestBody>) -> BoxFuture<'static, Reply> {
    Box::pin(streams::serve(call, request))
}

/// Answers any other subresource.
pub(crate) async fn run(call: &Call, verb: Verb, body: Bytes) -> Reply {
    let Call { resource, target, .. } = call;
    let sub = target.subresource.as_str();
    match (target.resource.as_str(), sub) {
        (_, "status") => subresources::status(call, verb, body).await,
        (_, "scale") => scale::serve(call, verb, body).await,
        ("pods", "binding") => binding::serve(call, body).await,
        ("pods", "eviction") => eviction::serve(call, body).await,
        ("serviceaccounts", "token") => token::serve(call, body).await,
        ("namespaces", "finalize") => finalize::serve(call, body).await,
        ("pods", "ephemeralcontainers" | "resize") | ("certificatesigningrequests", "approval") => match verb {
            Verb::Update => subresources::put(call, body, sub).await,
            Verb::Patch => subresources::patch_object(call, body, sub).await,
            _ => {
                let (namespace, name) = (call.object_namespace(), &target.name);
                read::get(&call.core, resource, namespace, name, &call.query, call.accepted()?).await
            }
        },
        _ => Err(Status::unknown_path()),
    }
}

/// Whether it is the Namespace resource.
pub(crate) fn is_namespace(resource: &Resource) -> bool {
    resource.kind.group.is_empty() && resource.kind.resource == "namespaces"
}
