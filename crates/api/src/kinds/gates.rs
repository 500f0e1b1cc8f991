//! Fields behind features that are off in v1.35: a write drops them, unless the stored object has some of the feature's
//! already.

use serde_json::Value;

/// A field by its path; lists on the way are passed through, `*` is every entry of a map.
pub(super) type Field = &'static [&'static str];

/// Drops what is not to be used. Each feature's fields stand together.
pub(super) fn drop_unused(object: &mut Value, old: Option<&Value>, features: &[&[Field]]) {
    for fields in features {
        if !old.is_some_and(|old| fields.iter().any(|field| uses(old, field))) {
            fields.iter().for_each(|field| drop_field(object, field));
        }
    }
}

fn uses(value: &Value, field: &[&str]) -> bool {
    let Some((first, rest)) = field.split_first() else { return !value.is_null() };
    match value {
        Value::Array(items) => items.iter().any(|item| uses(item, field)),
        Value::Object(map) if *first == "*" => map.values().any(|item| uses(item, rest)),
        Value::Object(map) => map.get(*first).is_some_and(|item| uses(item, rest)),
        _ => false,
    }
}

fn drop_field(value: &mut Value, field: &[&str]) {
    let Some((first, rest)) = field.split_first() else { return };
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| drop_field(item, field)),
        Value::Object(map) if *first == "*" => map.values_mut().for_each(|item| drop_field(item, rest)),
        Value::Object(map) if rest.is_empty() => drop(map.remove(*first)),
        Value::Object(map) => {
            if let Some(item) = map.get_mut(*first) {
                drop_field(item, rest);
            }
        }
        _ => {}
    }
}
