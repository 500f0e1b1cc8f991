//! Reads from stored JSON what selectors need, and skips the rest: parsing a pod whole costs ten times as much.

use std::borrow::Cow;
use std::fmt;

use keelson_api::kind::{FieldSource, Kind};
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use smallvec::SmallVec;

/// Fields of fields are as deep as a selectable field is looked for unless its own path goes deeper.
const DEPTH: usize = 2;

/// `metadata.labels`, and whatever the kind's selectable fields read: single values down to two levels, and all that one of
/// their paths leads to.
pub(super) fn read(kind: &Kind, bytes: &[u8]) -> Result<Value, serde_json::Error> {
    let mut wanted: Paths<'_> = SmallVec::new();
    wanted.push("metadata.labels");
    for field in &kind.field_selectors {
        let path = field.path.trim_start_matches('.');
        // A path that is more than names is followed in the whole object.
        if matches!(field.source, FieldSource::Path(_)) && path.contains(['[', '*', '\\', '@', '\'', '"']) {
            return serde_json::from_slice(bytes);
        }
        wanted.push(path);
    }
    // Text is checked once here, not string by string.
    let text = std::str::from_utf8(bytes).map_err(serde::de::Error::custom)?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Shallow { depth: 0, wanted }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// What is left of the wanted paths at some place in the object.
type Paths<'a> = SmallVec<[&'a str; 16]>;

struct Shallow<'a> {
    depth: usize,
    wanted: Paths<'a>,
}

impl<'de> DeserializeSeed<'de> for Shallow<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if self.wanted.iter().any(|path| path.is_empty()) {
            return Value::deserialize(deserializer);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Shallow<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        if self.depth >= DEPTH && self.wanted.is_empty() {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(Value::Null);
        }
        let mut found = Map::new();
        while let Some(Key(key)) = map.next_key()? {
            let below = |path: &&str| -> Option<usize> {
                let rest = path.strip_prefix(&*key)?;
                if rest.is_empty() {
                    Some(path.len())
                } else {
                    rest.strip_prefix('.').map(|rest| path.len() - rest.len())
                }
            };
            let wanted: Paths<'_> = self.wanted.iter().filter_map(|path| path.get(below(path)?..)).collect();
            let value = map.next_value_seed(Shallow { depth: self.depth + 1, wanted })?;
            if !value.is_null() {
                found.insert(key.into_owned(), value);
            }
        }
        Ok(Value::Object(found))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

/// A key, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use keelson_api::kinds;
    use serde_json::json;

    use super::*;

    #[test]
    fn selectable_fields_read_the_same() {
        let object = json!({
            "kind": "X", "apiVersion": "v1", "type": "Warning", "reason": "Why", "reportingController": "c",
            "metadata": {
                "name": "a\"b", "namespace": "n", "labels": {"a": "b", "c.d/e": "f"}, "annotations": {"x": "y".repeat(100)},
                "managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {"f:nodeName": {}}}}],
            },
            "source": {"component": "kubelet"}, "reportingComponent": "r",
            "involvedObject": {"kind": "Pod", "name": "p", "namespace": "n", "uid": "u", "resourceVersion": "7"},
            "regarding": {"kind": "Pod", "name": "p", "namespace": "n", "uid": "u", "fieldPath": "f"},
            "spec": {
                "nodeName": "n1", "hostNetwork": true, "restartPolicy": "Never", "serviceAccountName": "sa",
                "schedulerName": "s", "unschedulable": true, "signerName": "signer", "replicas": 1.5,
                "containers": [{"name": "c", "env": [{"name": "e"}]}],
            },
            "status": {
                "phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.2"}, {"ip": "fd00::1"}], "replicas": 3,
                "succeeded": 2, "nominatedNodeName": "n2", "conditions": [{"type": "Ready"}],
            },
        });
        let text = object.to_string();
        let mut selectable = 0;
        for kind in kinds::all() {
            let found = read(&kind, text.as_bytes()).unwrap();
            assert_eq!(found["metadata"]["labels"], object["metadata"]["labels"]);
            for field in &kind.field_selectors {
                assert_eq!(field.get(&found), field.get(&object), "{} {}", kind.kind, field.path);
                selectable += 1;
            }
            assert_eq!(found["spec"].get("containers"), None, "skipped");
        }
        assert!(selectable > 20);
        let kind = kinds::all().into_iter().find(|kind| kind.kind == "Pod").unwrap();
        for bad in ["", "{", "{\"a\":1}x", "{\"spec\":{\"containers\":[}}"] {
            assert!(read(&kind, bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
