//! What a namespace's status says of how far its deletion has come.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{NamespaceCondition, NamespaceStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// What one pass of deletion found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pass {
    /// Why resources could not be discovered.
    pub discovery_error: Option<String>,
    /// Group versions whose resources are not known now.
    pub failed_groups: Vec<String>,
    /// Why content could not be deleted or listed, per resource.
    pub delete_errors: Vec<String>,
    /// Objects still there, per resource (`pods`, `deployments.apps`).
    pub remaining: BTreeMap<String, usize>,
    /// How often each finalizer holds one of them.
    pub finalizers: BTreeMap<String, usize>,
}

impl Pass {
    /// Whether nothing is left, of what is known.
    pub fn is_empty(&self) -> bool {
        self.discovery_error.is_none() && self.delete_errors.is_empty() && self.remaining.is_empty()
    }

    /// Whether nothing is left.
    pub fn is_complete(&self) -> bool {
        self.is_empty() && self.failed_groups.is_empty()
    }

    fn discovery_failure(&self) -> Option<String> {
        if let Some(error) = &self.discovery_error {
            return Some(format!("Discovery failed for some groups, 1 failing: {error}"));
        }
        let failed: Vec<String> =
            self.failed_groups.iter().map(|group| format!("{group}: stale GroupVersion discovery: {group}")).collect();
        let why = format!("unable to retrieve the complete list of server APIs: {}", failed.join(", "));
        (!failed.is_empty()).then(|| format!("Discovery failed for some groups, {} failing: {why}", failed.len()))
    }
}

/// The status after a pass. Conditions keep their time while their status stays.
pub fn status(current: &NamespaceStatus, pass: &Pass, now: Timestamp) -> NamespaceStatus {
    let counted = |counts: &BTreeMap<String, usize>, what: &str| {
        let parts: Vec<String> =
            counts.iter().map(|(name, count)| format!("{name}{what}{count} resource instances")).collect();
        parts.join(", ")
    };
    let failed = &pass.delete_errors;
    let conditions = [
        match pass.discovery_failure() {
            None => (
                "NamespaceDeletionDiscoveryFailure",
                false,
                "ResourcesDiscovered",
                "All resources successfully discovered".into(),
            ),
            Some(message) => ("NamespaceDeletionDiscoveryFailure", true, "DiscoveryFailed", message),
        },
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            false,
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed".into(),
        ),
        if failed.is_empty() {
            (
                "NamespaceDeletionContentFailure",
                false,
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization".into(),
            )
        } else {
            (
                "NamespaceDeletionContentFailure",
                true,
                "ContentDeletionFailed",
                format!("Failed to delete all resource types, {} remaining: {}", failed.len(), failed.join(", ")),
            )
        },
        if pass.remaining.is_empty() {
            ("NamespaceContentRemaining", false, "ContentRemoved", "All content successfully removed".into())
        } else {
            (
                "NamespaceContentRemaining",
                true,
                "SomeResourcesRemain",
                format!("Some resources are remaining: {}", counted(&pass.remaining, " has ")),
            )
        },
        if pass.finalizers.is_empty() {
            (
                "NamespaceFinalizersRemaining",
                false,
                "ContentHasNoFinalizers",
                "All content-preserving finalizers finished".into(),
            )
        } else {
            (
                "NamespaceFinalizersRemaining",
                true,
                "SomeFinalizersRemain",
                format!(
                    "Some content in the namespace has finalizers remaining: {}",
                    counted(&pass.finalizers, " in ")
                ),
            )
        },
    ];
    let mut status = current.clone();
    status.phase = Some("Terminating".into());
    let known = status.conditions.get_or_insert_default();
    for (type_, is_true, reason, message) in conditions {
        let value: String = if is_true { "True" } else { "False" }.into();
        let (reason, message): (String, String) = (reason.into(), message);
        match known.iter_mut().find(|condition| condition.type_ == type_) {
            Some(condition) => {
                if condition.status != value {
                    condition.last_transition_time = Some(Time(now));
                }
                condition.status = value;
                condition.reason = Some(reason);
                condition.message = Some(message);
            }
            None => known.push(NamespaceCondition {
                type_: type_.into(),
                status: value,
                reason: Some(reason),
                message: Some(message),
                last_transition_time: Some(Time(now)),
            }),
        }
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(status: &NamespaceStatus) -> Vec<String> {
        let show = |c: &NamespaceCondition| format!("{} {} {}", c.type_, c.status, c.message.as_deref().unwrap());
        status.conditions.iter().flatten().map(show).collect()
    }

    #[test]
    fn conditions_say_what_is_left() {
        let pass = Pass {
            remaining: [("pods".to_owned(), 2), ("configmaps".to_owned(), 1)].into(),
            finalizers: [("x/y".to_owned(), 1)].into(),
            ..Pass::default()
        };
        let now = Timestamp::UNIX_EPOCH;
        let first = status(&NamespaceStatus::default(), &pass, now);
        assert_eq!(first.phase.as_deref(), Some("Terminating"));
        assert_eq!(
            shown(&first),
            [
                "NamespaceDeletionDiscoveryFailure False All resources successfully discovered",
                "NamespaceDeletionGroupVersionParsingFailure False All legacy kube types successfully parsed",
                "NamespaceDeletionContentFailure False All content successfully deleted, may be waiting on finalization",
                "NamespaceContentRemaining True Some resources are remaining: configmaps has 1 resource instances, \
                 pods has 2 resource instances",
                "NamespaceFinalizersRemaining True Some content in the namespace has finalizers remaining: x/y in 1 \
                 resource instances",
            ]
        );
        assert!(!pass.is_complete());
        let unknown = Pass { failed_groups: vec!["g/v1".into()], ..Pass::default() };
        assert!(unknown.is_empty() && !unknown.is_complete());
        assert_eq!(
            shown(&status(&NamespaceStatus::default(), &unknown, now))[0],
            "NamespaceDeletionDiscoveryFailure True Discovery failed for some groups, 1 failing: unable to retrieve the \
             complete list of server APIs: g/v1: stale GroupVersion discovery: g/v1"
        );
        let later = now + std::time::Duration::from_secs(9);
        assert_eq!(status(&first, &pass, later), first, "nothing new, nothing changed");
        let last = status(&first, &Pass::default(), later);
        assert_eq!(shown(&last)[3], "NamespaceContentRemaining False All content successfully removed");
        assert_eq!(last.conditions.as_ref().unwrap()[3].last_transition_time, Some(Time(later)));
        assert_eq!(last.conditions.as_ref().unwrap()[0].last_transition_time, Some(Time(now)));
    }
}
