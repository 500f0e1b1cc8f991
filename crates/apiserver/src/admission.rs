//! Admission: what is decided about a write with knowledge of other objects. Each plugin is one file; here is their order.
//! Mutating plugins run before defaults and validation, validating ones after.

mod certificates;
mod default_tolerations;
mod namespace_lifecycle;
mod node_restriction;
mod node_taints;
mod priority;
mod rbac_escalation;
mod service_account;
#[cfg(test)]
mod tests;

use keelson_api::status::Status;
use serde_json::Value;

use crate::UserInfo;
use crate::core::Core;
use crate::registry::Resource;

pub(crate) use namespace_lifecycle::namespace_exists;

/// Which write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
}

/// A write that is being judged. For names see upstream's `admission.Attributes`.
pub(crate) struct Request<'a> {
    pub(crate) core: &'a Core,
    pub(crate) resource: &'a Resource,
    /// Empty for the object itself.
    pub(crate) subresource: &'a str,
    pub(crate) operation: Operation,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) user: &'a UserInfo,
    /// The stored object of updates and deletes.
    pub(crate) old: Option<&'a Value>,
}

impl Request<'_> {
    /// Whether it is about objects of this resource themselves.
    fn is(&self, group: &str, resource: &str) -> bool {
        self.subresource.is_empty() && self.is_any(group, resource)
    }

    /// Whether it is about this resource, subresources included.
    fn is_any(&self, group: &str, resource: &str) -> bool {
        self.resource.kind.group == group && self.resource.kind.resource == resource
    }

    fn forbidden(&self, why: &str) -> Status {
        self.resource.forbidden(self.name, why)
    }
}

/// Lets the plugins change the object.
pub(crate) async fn mutate(request: &Request<'_>, object: &mut Value) -> Result<(), Status> {
    node_taints::mutate(request, object);
    service_account::mutate(request, object).await?;
    default_tolerations::mutate(request, object);
    priority::mutate(request, object)
}

/// Lets the plugins refuse the write. A delete has no object.
pub(crate) async fn validate(request: &Request<'_>, object: &Value) -> Result<(), Status> {
    namespace_lifecycle::validate(request)?;
    node_restriction::validate(request, object)?;
    certificates::validate(request, object).await?;
    rbac_escalation::validate(request, object).await
}
