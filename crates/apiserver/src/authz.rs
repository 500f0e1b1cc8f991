//! Authorization: `system:masters` may do everything; beyond that a chain is asked: kubelets may do what the Node authorizer
//! finds to be theirs; RBAC, over an index that follows the watch cache, has the rest; webhooks are asked where configured.

pub(crate) mod chain;
mod conditions;
mod configuration;
pub(crate) mod index;
pub(crate) mod node;
pub(crate) mod rules;
mod webhook;

use std::sync::Arc;

use keelson_api::selector::FieldRequirement;
use keelson_api::status::Status;

use self::chain::Step;
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
    /// `*` where the request is of no version.
    pub(crate) version: String,
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
                version: target.version.clone(),
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
            version: "*".into(),
            resource: resource.into(),
            namespace: namespace.into(),
            name: name.into(),
            ..Self::default()
        }
    }

    /// Bytes that the client chose.
    fn size(&self) -> usize {
        let Self { verb, resource, group, version, subresource, namespace, name, path, .. } = self;
        let fields = [verb, resource, group, version, subresource, namespace, name, path];
        let selectors = self.fields.iter().map(|term| term.field.len() + term.value.len()).sum::<usize>();
        fields.iter().map(|field| field.len()).sum::<usize>() + selectors + self.labels.len()
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

/// Rules that hold for somebody, and why there may be more.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) rules: Vec<rules::Rule>,
    pub(crate) errors: Vec<String>,
}

/// The authorizer.
pub(crate) struct Authorizer {
    pub(crate) rbac: Arc<index::RbacIndex>,
    pub(crate) node: Arc<node::NodeAuthorizer>,
    pub(crate) chain: chain::Chain,
}

impl Authorizer {
    /// Decides: the first that allows or denies has the last word.
    pub(crate) async fn decide(&self, user: &UserInfo, attributes: &Attributes) -> Decision {
        if user.in_group(MASTERS) {
            return Decision::allow(String::new());
        }
        let steps = self.chain.steps();
        let mut undecided = Decision::default();
        for step in steps.iter() {
            let decision = match step {
                Step::Node => self.node.decide(user, attributes),
                Step::Rbac => self.rbac.decide(user, attributes),
                // A chain that is replaced meanwhile lives on for as long as it is asked.
                Step::Webhook(webhook) => webhook.decide(user, attributes).await,
            };
            if decision.allowed || decision.denied {
                return decision;
            }
            add(&mut undecided.reason, &decision.reason, "\n");
            add(&mut undecided.error, &decision.error, ", ");
        }
        undecided
    }

    /// What a user may do in a namespace, as far as it can be listed.
    pub(crate) fn rules_of(&self, user: &UserInfo, namespace: &str) -> Known {
        let mut known = Known::default();
        if user.in_group(MASTERS) {
            known.rules.extend(rules::everything());
        }
        for step in self.chain.steps().iter() {
            match step {
                Step::Node if user.as_node().is_some() => {
                    known.errors.push("node authorizer does not support user rule resolution".into());
                }
                Step::Node => {}
                Step::Rbac => {
                    let (rules, error) = self.rbac.rules_of(user, namespace);
                    known.rules.extend(rules);
                    known.errors.extend(Some(error).filter(|error| !error.is_empty()));
                }
                Step::Webhook(_) => {
                    known.errors.push("webhook authorizer does not support user rule resolution".into());
                }
            }
        }
        known
    }

    /// Lets pass or answers 403; 500 when somebody could not say.
    pub(crate) async fn check(&self, user: &UserInfo, attributes: &Attributes) -> Result<(), Status> {
        self.decide(user, attributes).await.verdict(user, attributes)
    }
}

fn add(text: &mut String, more: &str, separator: &str) {
    if !more.is_empty() {
        if !text.is_empty() {
            text.push_str(separator);
        }
        text.push_str(more);
    }
}
