//! What quotas count: how much of what an object uses ([`Evaluator::usage`]), and which quotas it falls under
//! ([`Quota::matches`]). The API server charges by it and the quota controller adds up by it, so that both come to the same.
//!
//! - [`pods`]: requests, limits, scopes of pods
//! - [`objects`]: services, claims, and everything that is only counted

mod objects;
pub mod pods;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use crate::quantity::{Format, Quantity};

/// Amounts by name: `requests.cpu`, `count/jobs.batch`, `gold.storageclass.storage.k8s.io/requests.storage`.
pub type Amounts = BTreeMap<String, Quantity>;

/// Reads a resource list; what is no quantity is left out.
pub fn amounts(list: &Value) -> Amounts {
    let list = list.as_object().into_iter().flatten();
    list.filter_map(|(name, amount)| Some((name.clone(), Quantity::from_value(amount).ok()?))).collect()
}

/// `cpu=500m,pods=1`: as errors show amounts.
pub fn show<'a>(amounts: impl Iterator<Item = (&'a String, &'a Quantity)>) -> String {
    amounts.map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(",")
}

/// Adds `more` to `total`.
pub fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        match total.get_mut(name) {
            Some(have) => *have += *amount,
            None => drop(total.insert(name.clone(), *amount)),
        }
    }
}

pub(crate) fn one() -> Quantity {
    Quantity::new(1, Format::DecimalSi)
}

/// How objects of a resource are measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evaluator {
    Pods,
    Services,
    VolumeClaims,
    ResourceClaims,
    /// They are only counted, under this name (`count/jobs.batch`) and perhaps another (`configmaps`).
    Objects {
        name: String,
        alias: Option<String>,
    },
}

/// Resources of the core group that are also counted under their own names, as they were first.
pub const ALIASED: [&str; 4] = ["configmaps", "replicationcontrollers", "resourcequotas", "secrets"];

impl Evaluator {
    /// The one of a resource.
    pub fn of(group: &str, resource: &str) -> Self {
        match (group, resource) {
            ("", "pods") => Self::Pods,
            ("", "services") => Self::Services,
            ("", "persistentvolumeclaims") => Self::VolumeClaims,
            ("resource.k8s.io", "resourceclaims") => Self::ResourceClaims,
            ("", _) => {
                let alias = ALIASED.contains(&resource).then(|| resource.to_owned());
                Self::Objects { name: format!("count/{resource}"), alias }
            }
            _ => Self::Objects { name: format!("count/{resource}.{group}"), alias: None },
        }
    }

    /// Whether a create, or an update of `old`, may use more than before. `subresource` is empty for the object itself.
    pub fn handles(&self, subresource: &str, object: &Value, old: Option<&Value>) -> bool {
        match (self, subresource, old) {
            (_, "", None) | (Self::Services | Self::VolumeClaims | Self::ResourceClaims, "", Some(_)) => true,
            // The scopes Terminating and NotTerminating are the only ones that a pod can change.
            (Self::Pods, "", Some(old)) => pods::is_terminating(old) != pods::is_terminating(object),
            (Self::Pods, "resize", Some(_)) | (Self::VolumeClaims, "status", Some(_)) => true,
            _ => false,
        }
    }

    /// Whether the evaluator says something about what a quota limits under this name.
    pub fn counts(&self, name: &str) -> bool {
        match self {
            Self::Pods => pods::counts(name),
            Self::Services => objects::SERVICE_NAMES.contains(&name),
            Self::VolumeClaims => objects::counts_for_volume_claims(name),
            Self::ResourceClaims => objects::counts_for_resource_claims(name),
            Self::Objects { name: own, alias } => own == name || alias.as_deref() == Some(name),
        }
    }

    /// What an object uses at a moment.
    pub fn usage(&self, object: &Value, now: Timestamp) -> Amounts {
        match self {
            Self::Pods => pods::usage(object, now),
            Self::Services => objects::service(object),
            Self::VolumeClaims => objects::volume_claim(object),
            Self::ResourceClaims => objects::resource_claim(object),
            Self::Objects { name, alias } => {
                std::iter::once(name).chain(alias).map(|name| (name.clone(), one())).collect()
            }
        }
    }

    /// Why an object cannot be measured against these names, if so: `must specify limits.cpu for: a,b`.
    pub fn missing<'a>(&self, names: impl Iterator<Item = &'a str>, object: &Value) -> Option<String> {
        if *self == Self::Pods { pods::missing(names, object) } else { None }
    }

    /// Whether all that is needed of an object is that it is there.
    pub fn only_counts(&self) -> bool {
        matches!(self, Self::Objects { .. })
    }

    /// Of some scopes, those that an object is in.
    pub fn scopes_of<'a>(&self, scopes: &'a [Scope], object: &Value) -> impl Iterator<Item = &'a Scope> {
        scopes.iter().filter(|scope| self.is_in(scope, object))
    }

    fn is_in(&self, scope: &Scope, object: &Value) -> bool {
        match self {
            Self::Pods => pods::is_in(scope, object),
            Self::VolumeClaims => objects::is_in(scope, object),
            _ => false,
        }
    }
}

/// `In`, `NotIn`, `Exists`, `DoesNotExist` of a scope selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

/// One condition of a quota on what it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    name: String,
    operator: Operator,
    values: Vec<String>,
}

impl Scope {
    /// Of a `ScopedResourceSelectorRequirement`.
    pub fn of(requirement: &Value) -> Self {
        let values = requirement["values"].as_array().into_iter().flatten();
        let operator = match requirement["operator"].as_str() {
            Some("In") => Operator::In,
            Some("NotIn") => Operator::NotIn,
            Some("DoesNotExist") => Operator::DoesNotExist,
            _ => Operator::Exists,
        };
        Self {
            name: requirement["scopeName"].as_str().unwrap_or_default().to_owned(),
            operator,
            values: values.filter_map(Value::as_str).map(str::to_owned).collect(),
        }
    }

    /// `PriorityClass`
    pub fn name(&self) -> &str {
        &self.name
    }

    fn exists(name: &str) -> Self {
        Self { name: name.to_owned(), operator: Operator::Exists, values: Vec::new() }
    }

    /// Whether the names that an object has in this respect are those asked for.
    fn selects(&self, names: &[&str]) -> bool {
        let listed = || names.iter().any(|name| self.values.iter().any(|value| value == name));
        match self.operator {
            Operator::In => listed(),
            Operator::NotIn => !listed(),
            Operator::Exists => !names.is_empty(),
            Operator::DoesNotExist => names.is_empty(),
        }
    }
}

/// As Go prints it: `{PriorityClass In [a b]}`.
impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{{{} {:?} [{}]}}", self.name, self.operator, self.values.join(" "))
    }
}

/// What matters of a ResourceQuota.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    pub name: String,
    /// `spec.hard`
    pub wanted: Amounts,
    /// `status.hard`: what is enforced.
    pub hard: Amounts,
    /// `status.used`
    pub used: Amounts,
    scopes: Vec<Scope>,
}

impl Quota {
    /// Of an object.
    pub fn of(object: &Value) -> Self {
        let (spec, status) = (&object["spec"], &object["status"]);
        let scopes = spec["scopes"].as_array().into_iter().flatten().filter_map(Value::as_str).map(Scope::exists);
        let selected = spec["scopeSelector"]["matchExpressions"].as_array().into_iter().flatten().map(Scope::of);
        Self {
            name: object["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
            wanted: amounts(&spec["hard"]),
            hard: amounts(&status["hard"]),
            used: amounts(&status["used"]),
            scopes: scopes.chain(selected).collect(),
        }
    }

    /// What it asks of what it counts.
    pub fn scopes(&self) -> &[Scope] {
        &self.scopes
    }

    /// Whether an object is in all of the quota's scopes.
    pub fn is_in_scope(&self, evaluator: &Evaluator, object: &Value) -> bool {
        self.scopes.iter().all(|scope| evaluator.is_in(scope, object))
    }

    /// Whether an object falls under what the quota enforces.
    pub fn matches(&self, evaluator: &Evaluator, object: &Value) -> bool {
        self.hard.keys().any(|name| evaluator.counts(name)) && self.is_in_scope(evaluator, object)
    }

    /// Charges `delta`, as far as the quota limits it; what of it goes over is told and nothing is charged.
    /// `enforced` is false where more is taken note of but not refused.
    pub fn charge(&mut self, delta: &Amounts, enforced: bool) -> Result<(), String> {
        let asked: Amounts =
            delta.iter().filter(|(name, _)| self.hard.contains_key(*name)).map(|(n, q)| (n.clone(), *q)).collect();
        let mut used = self.used.clone();
        add(&mut used, &asked);
        let over = |name: &String| match (used.get(name), self.hard.get(name)) {
            (Some(used), Some(hard)) => used > hard,
            _ => false,
        };
        if enforced && asked.keys().any(over) {
            let part = |list: &Amounts| show(list.iter().filter(|(name, _)| asked.contains_key(*name) && over(name)));
            return Err(format!(
                "exceeded quota: {}, requested: {}, used: {}, limited: {}",
                self.name,
                part(&asked),
                part(&self.used),
                part(&self.hard)
            ));
        }
        self.used = used;
        Ok(())
    }
}
