//! A [`Node`] as the [`Schema`] tree that pruning, field validation and server-side apply share with built-in kinds.

use std::sync::Arc;

use super::node::{Additional, JsonType, Node};
use crate::schema::{Field, Link, ListType, Merge, Schema, Type, builtin_link};

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

impl Node {
    /// The schema of whole objects: `apiVersion`, `kind`, `metadata`, and what the definition says.
    pub fn structure(&self) -> Schema {
        self.fields(true)
    }

    fn fields(&self, is_object_root: bool) -> Schema {
        let mut fields: Vec<Field> = self.properties.iter().map(|(name, node)| node.field(name)).collect();
        if is_object_root {
            fields.retain(|field| !matches!(field.name.as_ref(), "apiVersion" | "kind" | "metadata"));
            let plain = |name: &'static str, ty: Type| Field { ty, ..Field::plain(name.into()) };
            fields.push(plain("apiVersion", Type::String));
            fields.push(plain("kind", Type::String));
            fields.extend(builtin_link(OBJECT_META).map(|link| plain("metadata", Type::Struct(link))));
        }
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        Schema {
            fields,
            preserve_unknown: self.preserve_unknown || matches!(self.additional, Additional::Allowed(true)),
            atomic: self.atomic_map,
            custom: true,
            ..Schema::default()
        }
    }

    fn field(&self, name: &str) -> Field {
        let list_type = match self.ty {
            Some(JsonType::Array) => self.list_type,
            Some(JsonType::Object) if self.atomic_map => ListType::Atomic,
            _ => ListType::Unset,
        };
        let list_map_keys = self.list_map_keys.iter().map(|key| key.clone().into()).collect();
        let default_of = |key: &String| {
            let default = self.items.as_deref()?.properties.get(key)?.default.clone()?;
            Some((key.clone().into(), default))
        };
        let key_defaults = self.list_map_keys.iter().filter_map(default_of).collect();
        let merge = (list_type != ListType::Unset)
            .then(|| Box::new(Merge { list_type, list_map_keys, key_defaults, ..Merge::default() }));
        Field { ty: self.value_type(), merge, ..Field::plain(name.to_owned().into()) }
    }

    fn value_type(&self) -> Type {
        if self.int_or_string {
            return Type::IntOrString;
        }
        match self.ty {
            Some(JsonType::Boolean) => Type::Bool,
            Some(JsonType::Integer) => Type::Int64,
            Some(JsonType::Number) => Type::Double,
            Some(JsonType::String) => Type::String,
            Some(JsonType::Array) => Type::List(Box::new(self.items.as_deref().map_or(Type::Any, Self::value_type))),
            Some(JsonType::Object) => match &self.additional {
                Additional::Node(node) if !self.embedded => Type::Map(Box::new(node.value_type())),
                Additional::Allowed(true) if self.properties.is_empty() => Type::Map(Box::new(Type::Any)),
                _ => Type::Struct(Link::Owned(Arc::new(self.fields(self.embedded)))),
            },
            None if self.properties.is_empty() => Type::Any,
            None => Type::Struct(Link::Owned(Arc::new(self.fields(self.embedded)))),
        }
    }
}
