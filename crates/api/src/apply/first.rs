//! Who owns what in a new object, written as text in one walk. Nobody was there before, so everything in it is its writer's:
//! there is nothing to compare, no set to make, and no tree to serialize and to free again. Says what [`super::update`] would.

use serde_json::{Map, Value};

use super::diff::{Side, UNOWNED, groups, index};
use super::managed::Operation;
use super::node::{Node, is_empty};
use super::{Reset, Writer, managed};
use crate::codec::json::{write_prefixed, write_text};

/// Whether [`first`] can tell: the object brings no managed fields, and what its writer does not own are whole fields of it.
pub fn is_first(writer: &Writer<'_>, new: &Value) -> bool {
    let whole = |path: &&[&str]| matches!(path, [only] if only.starts_with("f:"));
    let simple = matches!(writer.reset, Reset::Fields(paths) if paths.iter().all(whole));
    simple && writer.subresource.is_empty() && managed::of(new).is_none()
}

/// `metadata.managedFields` of an object that [`is_first`], as JSON; `None` when there is nothing to own.
pub fn first(writer: &Writer<'_>, new: &Value) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(4096);
    for (key, value) in [("[{\"apiVersion\":", writer.api_version), (",\"fieldsType\":", "FieldsV1")] {
        out.extend_from_slice(key.as_bytes());
        write_text(value, &mut out);
    }
    out.extend_from_slice(b",\"fieldsV1\":{");
    let bare = out.len();
    top(writer, new.as_object()?, &mut out);
    if out.len() == bare {
        return None;
    }
    let manager = writer.manager();
    let texts =
        [("},\"manager\":", manager), (",\"operation\":", Operation::Update.as_str()), (",\"time\":", writer.now)];
    for (key, value) in texts {
        out.extend_from_slice(key.as_bytes());
        write_text(value, &mut out);
    }
    out.extend_from_slice(b"}]");
    Some(out)
}

fn top(writer: &Writer<'_>, object: &Map<String, Value>, out: &mut Vec<u8>) {
    let Reset::Fields(reset) = writer.reset else { return };
    let is_reset =
        |name: &str| reset.iter().any(|path| matches!(path, [only] if only.strip_prefix("f:") == Some(name)));
    for field in fields(Node::Struct(writer.schema), Side::Zero, object) {
        match field.name {
            "apiVersion" | "kind" => {}
            name if is_reset(name) => {}
            "metadata" => {
                let owned = |out: &mut Vec<u8>| {
                    let start = out.len();
                    out.push(b'{');
                    if let Value::Object(metadata) = field.value {
                        let owned = fields(field.node, field.old, metadata).filter(|f| !UNOWNED.contains(&f.name));
                        owned.for_each(|field| field.put(out));
                    }
                    out.push(b'}');
                    out.len() > start + "{}".len()
                };
                child("f:", field.name, out, owned);
            }
            _ => field.put(out),
        }
    }
}

/// A field of a new object.
struct NewField<'a> {
    name: &'a str,
    node: Node<'a>,
    /// What stands for it where it is absent.
    old: Side<'a>,
    value: &'a Value,
}

impl NewField<'_> {
    fn put(&self, out: &mut Vec<u8>) {
        child("f:", self.name, out, |out| owned(self.node, self.old, self.value, out));
    }
}

fn fields<'a>(node: Node<'a>, old: Side<'a>, map: &'a Map<String, Value>) -> impl Iterator<Item = NewField<'a>> {
    map.iter().map(move |(name, value)| NewField { name, node: node.below(name), old: old.below(node, name), value })
}

/// Writes a path element with what is under it, unless that is nothing.
fn child(kind: &str, element: &str, out: &mut Vec<u8>, below: impl FnOnce(&mut Vec<u8>) -> bool) {
    let start = out.len();
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    write_prefixed(kind, element, out);
    out.push(b':');
    if !below(out) {
        out.truncate(start);
    }
}

/// Writes what is owned of a value. Says whether anything is; if not, what was written is for the caller to take back.
fn owned(node: Node<'_>, old: Side<'_>, new: &Value, out: &mut Vec<u8>) -> bool {
    let known = node.deduced(new);
    if matches!(known, Node::Scalar | Node::Atomic) || (old.is_empty() && is_empty(new)) {
        out.extend_from_slice(b"{}");
        return match old {
            Side::Absent => true,
            Side::Zero => !is_empty(new),
            Side::Value(old) => old != new,
        };
    }
    let member = matches!(old, Side::Absent);
    out.push(b'{');
    let bare = out.len();
    if member {
        out.extend_from_slice(b"\".\":{}");
    }
    let start = out.len();
    match (known, new) {
        (Node::Set | Node::Keyed(..), Value::Array(list)) => items(known, list, out),
        (Node::Struct(_) | Node::Map(_) | Node::Deduced, Value::Object(map)) => {
            fields(known, old, map).for_each(|field| field.put(out));
        }
        _ => {}
    }
    let inner = out.len() > start;
    if !inner {
        out.truncate(bare);
    }
    out.push(b'}');
    member || inner
}

/// Items that occur twice are owned as one value.
fn items(node: Node<'_>, list: &Vec<Value>, out: &mut Vec<u8>) {
    for (key, group) in groups(&index(node, Some(list))) {
        child("", key, out, |out| match group {
            [(_, item)] => owned(node.item(), Side::Absent, item, out),
            _ => {
                out.extend_from_slice(b"{}");
                true
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::apply::{OneVersion, update};
    use crate::codec::samples;
    use crate::schema::{Schema, builtin, names};

    /// Both ways say the same of `object`, if it is one.
    fn check(schema: &Schema, reset: Reset, object: &Value) -> Option<Value> {
        let mut new = object.clone();
        schema.conform(&mut new).ok()?;
        let metadata = new.as_object_mut()?.entry("metadata").or_insert_with(|| json!({}));
        metadata.as_object_mut()?.remove("managedFields");
        let (api_version, kind, now, versions) = ("g/v1", "K", "2026-01-01T00:00:00Z", &OneVersion);
        let manager = "a \"manager\"";
        let writer = Writer { manager, api_version, kind, schema, subresource: "", now, reset, versions };
        assert!(is_first(&writer, &new));
        let text = first(&writer, &new);
        update(&writer, None, &mut new).unwrap();
        let expected = managed::of(&new);
        assert_eq!(text.as_deref().map(String::from_utf8_lossy), expected.map(|e| e.to_string().into()), "{object}");
        expected.cloned()
    }

    #[test]
    fn says_what_an_update_from_nothing_says() {
        let reset = Reset::Fields(&[&["f:status"]]);
        let mut checked = 0;
        for name in names() {
            let schema = builtin(&name).unwrap();
            if schema.field("metadata").is_none() {
                continue;
            }
            check(schema, reset, &samples::full(schema));
            for seed in 0..20 {
                checked += usize::from(check(schema, reset, &samples::random(schema, seed)).is_some());
            }
        }
        assert!(checked > 500, "{checked}");
    }

    #[test]
    fn lists_with_keys_and_with_duplicates() {
        let pod = builtin("io.k8s.api.core.v1.Pod").unwrap();
        let port = |n: i32| json!({"containerPort": n, "name": "a\"b"});
        let object = json!({
            "metadata": {"name": "a", "finalizers": ["b/c", "a/b", "b/c"], "labels": {"quote\"": "x"}, "annotations": {}},
            "spec": {"containers": [
                {"name": "z", "ports": [port(9), port(8), port(9)], "resources": {}},
                {"name": "b", "env": [{"name": "x"}, {"name": "x"}, {"name": "w", "value": "1"}]},
            ]},
            "status": {"phase": "Pending"},
        });
        let entries = check(pod, Reset::Fields(&[&["f:status"]]), &object).unwrap();
        let fields = &entries[0]["fieldsV1"];
        assert_eq!(fields["f:metadata"]["f:finalizers"], json!({".": {}, "v:\"a/b\"": {}, "v:\"b/c\"": {}}));
        assert_eq!(fields.get("f:status"), None);
        assert_eq!(check(pod, Reset::Fields(&[]), &json!({"metadata": {"name": "a"}})), None);
    }
}
