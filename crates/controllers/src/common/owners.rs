//! Owner references: adopting what matches and nobody owns, releasing what no longer matches.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::{Value, json};

use super::objects::{Labels, controller, is_deleting, uid};

/// What is to become of one object that might belong to an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It is the owner's.
    Owned,
    /// It matches and has no controller: take it.
    Adopt,
    /// It is the owner's but no longer matches: let it go.
    Release,
    /// It is none of the owner's business.
    Ignore,
}

/// Judges one object by controller reference and labels. An owner that is being deleted neither adopts nor releases,
/// and nothing that is being deleted is adopted or released.
pub(crate) fn claim(owner: &ObjectMeta, selector: &Labels, object: &ObjectMeta) -> Claim {
    match controller(object) {
        Some(reference) if reference.uid != uid(owner) => Claim::Ignore,
        Some(_) if selector.matches(object) => Claim::Owned,
        Some(_) if is_deleting(owner) => Claim::Ignore,
        Some(_) => Claim::Release,
        None if is_deleting(owner) || is_deleting(object) || !selector.matches(object) => Claim::Ignore,
        None => Claim::Adopt,
    }
}

/// The reference that makes `owner` an object's controller.
pub(crate) fn controller_reference(api_version: &str, kind: &str, owner: &ObjectMeta) -> OwnerReference {
    OwnerReference {
        api_version: api_version.into(),
        kind: kind.into(),
        name: owner.name.clone().unwrap_or_default(),
        uid: owner.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The strategic merge patch that adds a reference; only for the object of that uid.
pub(crate) fn adopt_patch(reference: &OwnerReference, object: &ObjectMeta) -> Value {
    json!({ "metadata": { "ownerReferences": [reference], "uid": uid(object) } })
}

/// The strategic merge patch that removes an owner's reference; only for the object of that uid.
pub(crate) fn release_patch(owner: &ObjectMeta, object: &ObjectMeta) -> Value {
    json!({ "metadata": { "ownerReferences": [{ "$patch": "delete", "uid": uid(owner) }], "uid": uid(object) } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(uid: &str, app: &str, owner: Option<&str>, deleting: bool) -> ObjectMeta {
        ObjectMeta {
            uid: Some(uid.into()),
            labels: Some([("app".to_owned(), app.to_owned())].into()),
            deletion_timestamp: deleting.then(|| jiff::Timestamp::UNIX_EPOCH.into()),
            owner_references: owner.map(|uid| {
                vec![OwnerReference { uid: uid.into(), controller: Some(true), ..OwnerReference::default() }]
            }),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn claims() {
        let check = |owner_deleting, object: ObjectMeta, expected| {
            let owner = meta("me", "", None, owner_deleting);
            let selector = Labels::of_map(&[("app".to_owned(), "web".to_owned())].into());
            assert_eq!(claim(&owner, &selector, &object), expected, "{object:?}");
        };
        check(false, meta("a", "web", Some("me"), false), Claim::Owned);
        check(false, meta("a", "web", Some("me"), true), Claim::Owned);
        check(false, meta("a", "web", Some("other"), false), Claim::Ignore);
        check(false, meta("a", "web", None, false), Claim::Adopt);
        check(false, meta("a", "web", None, true), Claim::Ignore);
        check(true, meta("a", "web", None, false), Claim::Ignore);
        check(false, meta("a", "db", None, false), Claim::Ignore);
        check(false, meta("a", "db", Some("me"), false), Claim::Release);
        check(true, meta("a", "db", Some("me"), false), Claim::Ignore);
        check(true, meta("a", "web", Some("me"), false), Claim::Owned);
    }
}
