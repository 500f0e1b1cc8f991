//! NamespaceLifecycle: nothing is created in namespaces that are missing or going away, and the first ones stay.

use keelson_api::kind::Scope;
use keelson_api::status::{Cause, Status};
use serde::Deserialize;

use super::{Operation, Plugin, Request};
use crate::registry::read::freshen;

/// Namespaces that cannot be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// 404 or 403 unless the namespace takes new objects.
pub(crate) async fn namespace_exists(request: &Request<'_>) -> Result<(), Status> {
    if request.resource.kind.scope == Scope::Cluster || !request.has(Plugin::NamespaceLifecycle) {
        return Ok(());
    }
    #[derive(Deserialize)]
    struct View {
        metadata: Meta,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Meta {
        deletion_timestamp: Option<String>,
    }
    let namespaces = request.core.registry.known("", "namespaces")?.cache()?;
    let mut namespace = namespaces.get("", request.namespace);
    if namespace.is_none() {
        // It may have been created elsewhere a moment ago.
        freshen(request.core, None).await?;
        namespace = namespaces.get("", request.namespace);
    }
    let Some(namespace) = namespace else {
        return Err(Status::not_found("", "namespaces", request.namespace));
    };
    let view: View = namespace.typed()?;
    if view.metadata.deletion_timestamp.is_none() {
        return Ok(());
    }
    let name = request.namespace;
    let why = format!("unable to create new content in namespace {name} because it is being terminated");
    let mut status = request.forbidden(&why);
    if let Some(details) = &mut status.details {
        details.causes.push(Cause {
            reason: "NamespaceTerminating".into(),
            message: format!("namespace {name} is being terminated"),
            field: "metadata.namespace".into(),
        });
    }
    Err(status)
}

pub(super) fn validate(request: &Request<'_>) -> Result<(), Status> {
    let immortal =
        request.operation == Operation::Delete && request.is("", "namespaces") && IMMORTAL.contains(&request.name);
    if immortal { Err(request.forbidden("this namespace may not be deleted")) } else { Ok(()) }
}
