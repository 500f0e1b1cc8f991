//! The managed fields of a `Scale`: it has one field of the object that it scales, so its entries are that object's, as far
//! as they own the replicas.

use serde_json::Value;

use super::managed::{self, Entry};
use super::set::{self, Set};

const SCALE: &str = "autoscaling/v1";

fn path(elements: &[String]) -> Set {
    let mut set = Set::new();
    for element in elements.iter().rev() {
        set = Set::from_iter([(element.clone(), Value::Object(set))]);
    }
    set
}

fn elements(replicas: &[impl AsRef<str>]) -> Vec<String> {
    replicas.iter().map(|name| super::element::field(name.as_ref())).collect()
}

fn owns(entry: &Entry, path: &Set) -> bool {
    !set::intersection(entry.fields(), path).is_empty()
}

/// Gives `scale` the entries of `object` that own its replicas, which are at this path of fields.
pub fn to_scale(object: &Value, replicas: &[impl AsRef<str>], scale: &mut Value) {
    let path = path(&elements(replicas));
    let entries = managed::of(object).cloned().map(managed::trusted).unwrap_or_default();
    let mine = entries.into_iter().filter(|entry| owns(entry, &path)).map(|mut entry| {
        entry.set_api_version(SCALE);
        entry.set_fields(self::path(&elements(&["spec", "replicas"])));
        entry
    });
    managed::take(scale);
    managed::put(scale, mine.collect());
}

/// Gives `object`, which is of `api_version`, the entries that it has once `scale` was written.
pub fn from_scale(object: &mut Value, api_version: &str, replicas: &[impl AsRef<str>], scale: &Value) {
    let path = path(&elements(replicas));
    let mut written = managed::of(scale).cloned().map(managed::trusted).unwrap_or_default();
    let mut entries = managed::take(object).map(managed::trusted).unwrap_or_default();
    entries.retain_mut(|entry| {
        if !owns(entry, &path) {
            return true;
        }
        let same = |other: &Entry| {
            other.operation() == entry.operation()
                && other.manager() == entry.manager()
                && other.subresource() == entry.subresource()
        };
        if let Some(at) = written.iter().position(same) {
            let kept = written.remove(at);
            entry.copy_time(&kept);
            return true;
        }
        // Somebody else has it now.
        let Some(fields) = entry.fields_mut() else { return false };
        set::difference(fields, &path);
        !fields.is_empty()
    });
    for mut entry in written {
        if entry.fields().get("f:spec").is_none_or(|spec| spec.get("f:replicas").is_none()) {
            continue;
        }
        entry.set_api_version(api_version);
        entry.set_fields(path.clone());
        // An applier has one entry, which may own more already.
        let (manager, subresource) = (entry.manager().to_owned(), entry.subresource().to_owned());
        let operation = entry.operation();
        match entries.iter_mut().find(|other| other.is(&manager, operation, api_version, &subresource)) {
            Some(other) => {
                if let Some(fields) = other.fields_mut() {
                    set::union(fields, &path);
                }
                other.copy_time(&entry);
            }
            None => entries.push(entry),
        }
    }
    managed::put(object, entries);
}
