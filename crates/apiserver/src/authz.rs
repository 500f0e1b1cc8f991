//! Authorization: `system:masters` may do everything; kubelets what the Node authorizer finds to be theirs; RBAC, over an
//! index that follows the watch cache, decides the rest.

pub(crate) mod index;
pub(crate) mod node;
pub(crate) mod rules;

use std::sync::Arc;

use keelson_api::selector::FieldRequirement;
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
    /// What the field selector of a list, watch or deletion of a collection demands.
    pub(crate) fields: Vec<FieldRequirement>,
    /// Its label selector, as written.
    pub(crate) labels: String,
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
                labels: target.labels.clone(),
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

/// A decision. Neither allowed nor denied: nobody had an opinion, which is no leave either.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) allowed: bool,
    /// Refused, whatever others would have said.
    pub(crate) denied: bool,
    pub(crate) reason: String,
    /// What kept somebody from an opinion.
    pub(crate) error: String,
}

impl Decision {
    fn allow(reason: String) -> Self {
        Self { allowed: true, reason, ..Self::default() }
    }

    /// Nothing when allowed, else 403; 500 when somebody could not say.
    pub(crate) fn verdict(&self, user: &UserInfo, attributes: &Attributes) -> Result<(), Status> {
        match self.error.as_str() {
            _ if self.allowed => Ok(()),
            "" => Err(attributes.forbidden(user, &self.reason)),
            error => Err(Status::internal(error)),
        }
    }
}

/// The authorizer.
pub(crate) struct Authorizer {
    pub(crate) rbac: Arc<index::RbacIndex>,
    pub(crate) node: Arc<node::NodeAuthorizer>,
}

impl Authorizer {
    /// Decides: the first that allows or denies has the last word.
    pub(crate) async fn decide(&self, user: &UserInfo, attributes: &Attributes) -> Decision {
        if user.in_group(MASTERS) {
            return Decision::allow(String::new());
        }
        let reason = match self.node.opinion(user, attributes) {
            Some(Ok(())) => return Decision::allow(String::new()),
            Some(Err(reason)) => reason,
            None => String::new(),
        };
        match self.rbac.allowing_binding(user, attributes) {
            Some(reason) => Decision::allow(reason),
            None => Decision { reason, ..Decision::default() },
        }
    }

    /// Lets pass or answers 403; 500 when somebody could not say.
    pub(crate) async fn check(&self, user: &UserInfo, attributes: &Attributes) -> Result<(), Status> {
        self.decide(user, attributes).await.verdict(user, attributes)
    }
}
