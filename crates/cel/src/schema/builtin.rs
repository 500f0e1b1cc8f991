//! Declarations of built-in kinds, from the one tree of schemas.

use std::collections::BTreeMap;
use std::sync::Arc;

use keelson_api::schema::{ListType, Merge, Schema, Type as Api};

use super::{DATE_TIME, escape, text};
use crate::limits::REQUEST_BYTES;
use crate::types::{Decl, Field, Format, ListKind, Object, Type};

/// What a built-in type declares. Types that hold themselves are `dyn` there.
pub fn declare_builtin(schema: &Schema) -> Arc<Decl> {
    Arc::new(structure(schema, &mut Vec::new()))
}

fn structure(schema: &Schema, above: &mut Vec<String>) -> Decl {
    if schema.preserve_unknown || above.iter().any(|name| *name == schema.name) {
        return Decl::sized(Type::Dyn, REQUEST_BYTES, 1);
    }
    above.push(schema.name.to_string());
    let mut fields = BTreeMap::new();
    collect(schema, above, &mut fields);
    above.pop();
    Decl::sized(Type::Object(Arc::new(Object { name: schema.name.to_string(), fields })), 0, 2)
}

fn collect(schema: &Schema, above: &mut Vec<String>, fields: &mut BTreeMap<String, Field>) {
    for field in &schema.fields {
        if let Some(name) = escape(&field.name) {
            let decl = Arc::new(value(&field.ty, field.merge.as_deref(), above));
            fields.insert(name, Field { key: field.name.to_string(), decl });
        }
    }
    for inline in &schema.inline {
        if let Api::Struct(link) = &inline.ty {
            collect(link, above, fields);
        }
    }
}

fn value(ty: &Api, merge: Option<&Merge>, above: &mut Vec<String>) -> Decl {
    match ty {
        Api::Bool => Decl::sized(Type::Bool, 0, 4),
        Api::Int32 | Api::Int64 => Decl::sized(Type::Int, 0, 1),
        Api::Double => Decl::sized(Type::Double, 0, 1),
        // Published as a string without a format.
        Api::String | Api::Duration => text(),
        Api::Bytes => Decl::sized(Type::Bytes, REQUEST_BYTES - 2, 2),
        Api::Time | Api::MicroTime => {
            let decl = Decl::sized(Type::Timestamp, DATE_TIME, DATE_TIME);
            Decl { format: Format::DateTime, ..decl }
        }
        Api::Quantity | Api::IntOrString | Api::Any | Api::Fields | Api::Or(..) => {
            Decl::sized(Type::Dyn, REQUEST_BYTES - 2, 1)
        }
        Api::Struct(link) => structure(link, above),
        Api::Wrapped(inner) => value(inner, None, above),
        Api::List(items) => {
            let items = value(items, None, above);
            let mut list = Decl::sized(Type::list(items.ty.clone()), (REQUEST_BYTES - 2) / (items.min_size + 1), 2);
            list.list = match merge.map(|merge| (merge.list_type, &merge.list_map_keys)) {
                Some((ListType::Set, _)) => ListKind::Set,
                Some((ListType::Map, keys)) => ListKind::Map(keys.iter().map(|key| key.to_string()).collect()),
                _ => ListKind::Atomic,
            };
            list.items = Some(Arc::new(items));
            list
        }
        Api::Map(values) => {
            let values = value(values, None, above);
            let most = (REQUEST_BYTES - 2) / (values.min_size + 6);
            let mut map = Decl::sized(Type::map(Type::String, values.ty.clone()), most, 2);
            map.items = Some(Arc::new(values));
            map
        }
    }
}

#[cfg(test)]
mod tests {
    use keelson_api::schema::builtin;
    use serde_json::json;

    use super::declare_builtin;
    use crate::{Bindings, Env, Value, limits};

    #[test]
    fn pods() {
        let pod = declare_builtin(builtin("io.k8s.api.core.v1.Pod").unwrap());
        let env = Env::new().variable("object", pod.clone());
        let value = json!({
            "metadata": {"name": "a", "labels": {"x": "y"}, "creationTimestamp": "2020-01-01T00:00:00Z"},
            "spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "1"}}}]},
        });
        for rule in [
            "object.spec.containers.all(c, c.ports.all(p, p.containerPort > 10))",
            "object.metadata.labels['x'] == 'y' && object.metadata.creationTimestamp.getFullYear() == 2020",
            "quantity(object.spec.containers[0].resources.limits['cpu']).compareTo(quantity('1000m')) == 0",
            "!has(object.spec.volumes) && !has(object.spec.securityContext.runAsUser) || true",
        ] {
            let program = env.compile(rule).unwrap_or_else(|issues| panic!("{issues}"));
            let bindings = Bindings::new().with("object", Value::from_json(&value, Some(&pod)).unwrap());
            let run = program.evaluate(&bindings, limits::PER_CALL_LIMIT);
            assert_eq!(run.value.unwrap().as_bool(), Some(true), "{rule}");
        }
        let issues = env.compile("object.spec.replicas == 1").unwrap_err().to_string();
        assert!(issues.starts_with("ERROR: <input>:1:12: undefined field 'replicas'"), "{issues}");
    }

    /// Also types that hold themselves.
    #[test]
    fn all_types() {
        for name in keelson_api::schema::names() {
            if let Some(schema) = builtin(&name) {
                declare_builtin(schema);
            }
        }
    }
}
