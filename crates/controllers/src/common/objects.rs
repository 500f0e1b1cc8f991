//! Small readings of `metadata` and label selectors.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::core::{Selector, SelectorExt};

/// Name, or nothing for what a server never sends.
pub(crate) fn name(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

/// Namespace, or nothing for cluster-scoped objects.
pub(crate) fn namespace(meta: &ObjectMeta) -> &str {
    meta.namespace.as_deref().unwrap_or_default()
}

/// The object's identity.
pub(crate) fn uid(meta: &ObjectMeta) -> &str {
    meta.uid.as_deref().unwrap_or_default()
}

/// One label's value.
pub(crate) fn label<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(key).map(String::as_str)
}

/// One annotation's value.
pub(crate) fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

/// Whether deletion has begun.
pub(crate) fn is_deleting(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_some()
}

/// The owner that manages the object.
pub(crate) fn controller(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.as_ref()?.iter().find(|owner| owner.controller == Some(true))
}

/// Creation time; objects without one count as new.
pub(crate) fn created(meta: &ObjectMeta) -> Option<jiff::Timestamp> {
    meta.creation_timestamp.as_ref().map(|time| time.0)
}

/// A compiled label selector. One that does not parse or is empty matches nothing, which is what every controller here
/// wants: the API refuses both, and to act on everything would be the worse mistake.
#[derive(Clone, Debug)]
pub(crate) struct Labels(Option<Selector>);

impl Labels {
    /// Of a `LabelSelector`.
    pub(crate) fn of(selector: &LabelSelector) -> Self {
        let parsed = Selector::try_from(selector.clone()).ok();
        Self(parsed.filter(|selector| !selector.selects_all()))
    }

    /// Of a plain map, all of whose entries must be there.
    pub(crate) fn of_map(map: &BTreeMap<String, String>) -> Self {
        Self((!map.is_empty()).then(|| map.clone().into_iter().collect()))
    }

    /// Whether it matches nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Whether the object's labels match.
    pub(crate) fn matches(&self, meta: &ObjectMeta) -> bool {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        self.0.as_ref().is_some_and(|selector| selector.matches(meta.labels.as_ref().unwrap_or(&NONE)))
    }
}
