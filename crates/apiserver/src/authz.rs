//! Authorization: `system:masters` may do everything; kubelets what the Node authorizer finds to be theirs; RBAC, over an
//! index that follows the watch cache, decides the rest.

pub(crate) mod index;
pub(crate) mod node;
pub(crate) mod rules;

use std::sync::Arc;

use keelson_api::status::Status;

use crate::UserInfo;
use crate::http::path::RequestInfo;
use crate::user::MASTERS;

/// What somebody wants to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) verb: String,
    /// Empty for non-resource requests.
    pub(crate) resource: String,
    pub(crate) group: String,
    pub(crate) subresource: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Fields that a list, watch or deletion of a collection fixes, with their values.
    pub(crate) fields: Vec<(String, String)>,
    /// For non-resource requests.
    pub(crate) path: String,
}

impl From<&RequestInfo> for Attributes {
    fn from(info: &RequestInfo) -> Self {
        match &info.target {
            None => Self { verb: info.verb.clone(), path: info.path.clone(), ..Self::default() },
            Some(target) => Self {
                verb: info.verb.clone(),
                resource: target.resource.clone(),
                group: target.group.clone(),
                subresource: target.subresource.clone(),
                namespace: target.namespace.clone(),
                name: target.name.clone(),
                fields: target.fields.clone(),
                path: String::new(),
            },
        }
    }
}

impl Attributes {
    /// An action on a resource.
    pub(crate) fn on(verb: &str, group: &str, resource: &str, namespace: &str, name: &str) -> Self {
        Self {
            verb: verb.into(),
            group: group.into(),
            resource: resource.into(),
            namespace: namespace.into(),
            name: name.into(),
            ..Self::default()
        }
    }

    /// 403 in upstream's words.
    pub(crate) fn forbidden(&self, user: &UserInfo, reason: &str) -> Status {
        let Self { verb, resource, group, subresource, namespace, name, path, .. } = self;
        let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        if resource.is_empty() {
            let why = format!("User {:?} cannot {verb} path {path:?}{reason}", user.name);
            return Status::forbidden("", "", "", &why);
        }
        let full = if subresource.is_empty() { resource.clone() } else { format!("{resource}/{subresource}") };
        let place = match namespace.as_str() {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace {namespace:?}"),
        };
        let why =
            format!("User {:?} cannot {verb} resource {full:?} in API group {group:?} {place}{reason}", user.name);
        Status::forbidden(group, resource, name, &why)
    }
}

/// A decision, with the reason that the SubjectAccessReviews show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) allowed: bool,
    pub(crate) reason: String,
}

/// The authorizer.
pub(crate) struct Authorizer {
    pub(crate) rbac: Arc<index::RbacIndex>,
    pub(crate) node: Arc<node::NodeAuthorizer>,
}

impl Authorizer {
    /// Decides.
    pub(crate) fn decide(&self, user: &UserInfo, attributes: &Attributes) -> Decision {
        if user.in_group(MASTERS) {
            return Decision { allowed: true, reason: String::new() };
        }
        let reason = match self.node.opinion(user, attributes) {
            Some(Ok(())) => return Decision { allowed: true, reason: String::new() },
            Some(Err(reason)) => reason,
            None => String::new(),
        };
        match self.rbac.allowing_binding(user, attributes) {
            Some(reason) => Decision { allowed: true, reason },
            None => Decision { allowed: false, reason },
        }
    }

    /// Lets pass or answers 403.
    pub(crate) fn check(&self, user: &UserInfo, attributes: &Attributes) -> Result<(), Status> {
        let Decision { allowed, reason } = self.decide(user, attributes);
        if allowed { Ok(()) } else { Err(attributes.forbidden(user, &reason)) }
    }
}
