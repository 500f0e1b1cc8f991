//! Minimal writes: the difference between what was read and what is wanted, as a merge patch bound to the version read.
//!
//! A full replace would also write back what informers strip ([`super::slim`]); a difference cannot.

use std::fmt::Debug;

use kube::api::{Api, Patch, PatchParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// The merge patch (RFC 7396) that turns `old` into `new`; `None` when they are equal.
pub(crate) fn difference(old: &impl Serialize, new: &impl Serialize) -> Result<Option<Value>, serde_json::Error> {
    Ok(diff(&serde_json::to_value(old)?, &serde_json::to_value(new)?))
}

fn diff(old: &Value, new: &Value) -> Option<Value> {
    let (Value::Object(from), Value::Object(to)) = (old, new) else {
        return (old != new).then(|| new.clone());
    };
    let mut patch = Map::new();
    for (key, value) in to {
        match from.get(key) {
            Some(before) => {
                if let Some(change) = diff(before, value) {
                    patch.insert(key.clone(), change);
                }
            }
            None => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    for key in from.keys().filter(|key| !to.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// Writes the difference, if any, to the object or to a subresource of it. Fails with a conflict when the object is no
/// longer the one that was read. Returns the object as the server has it now, `None` when there was nothing to do.
pub(crate) async fn write<K>(
    api: &Api<K>,
    subresource: Option<&str>,
    old: &K,
    new: &K,
) -> Result<Option<K>, kube::Error>
where
    K: kube::Resource + Serialize + DeserializeOwned + Clone + Debug,
{
    let Some(mut patch) = difference(old, new).map_err(kube::Error::SerdeError)? else { return Ok(None) };
    let meta = old.meta();
    bind(&mut patch, meta.resource_version.as_deref(), meta.uid.as_deref());
    let name = meta.name.as_deref().unwrap_or_default();
    let (params, patch) = (PatchParams::default(), Patch::Merge(&patch));
    match subresource {
        Some(subresource) => api.patch_subresource(subresource, name, &params, &patch).await.map(Some),
        None => api.patch(name, &params, &patch).await.map(Some),
    }
}

/// Makes a merge patch fail on any other object or version than the one it was made for.
pub(crate) fn bind(patch: &mut Value, resource_version: Option<&str>, uid: Option<&str>) {
    if let Value::Object(root) = patch
        && let Value::Object(meta) = root.entry("metadata").or_insert_with(|| json!({}))
    {
        if let Some(version) = resource_version {
            meta.insert("resourceVersion".into(), version.into());
        }
        if let Some(uid) = uid {
            meta.insert("uid".into(), uid.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_in_the_patch() {
        let check = |old: Value, new: Value, patch: Option<Value>| assert_eq!(diff(&old, &new), patch);
        check(json!({"a": 1}), json!({"a": 1}), None);
        check(
            json!({"a": 1, "b": {"c": 1, "d": 2}}),
            json!({"a": 1, "b": {"c": 1, "d": 3}}),
            Some(json!({"b": {"d": 3}})),
        );
        check(json!({"a": 1, "b": 2}), json!({"b": 2}), Some(json!({"a": null})));
        check(json!({"a": [1, 2]}), json!({"a": [1]}), Some(json!({"a": [1]})));
        check(json!({}), json!({"a": {"b": 1}}), Some(json!({"a": {"b": 1}})));
    }

    #[test]
    fn a_patch_names_its_object() {
        let mut patch = json!({"metadata": {"labels": {"a": "b"}}});
        bind(&mut patch, Some("7"), Some("u"));
        assert_eq!(patch, json!({"metadata": {"labels": {"a": "b"}, "resourceVersion": "7", "uid": "u"}}));
    }
}
