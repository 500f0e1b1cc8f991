//! Short ways to write down a built-in [`Kind`]; each kind's file is one such sentence.

use std::borrow::Cow;

use serde_json::Value;

use super::{
    Cell, Column, FieldPath, FieldSource, Kind, ScaleMap, ScaleSelector, Scope, Storage, Str, Strategy, StrategyRef,
    Subresource, Verb,
};

const READ_WRITE: [Verb; 3] = [Verb::Get, Verb::Patch, Verb::Update];

impl Kind {
    /// A kind whose objects live in namespaces.
    pub(crate) fn namespaced(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        resource: &'static str,
        strategy: &'static dyn Strategy,
    ) -> Self {
        // Upstream's schema names use the group up to its first dot, and `core` for the empty group.
        let package = match group.split('.').next() {
            None | Some("") => "core",
            Some(first) => first,
        };
        Self {
            group: group.into(),
            version: version.into(),
            kind: kind.into(),
            list_kind: format!("{kind}List").into(),
            resource: resource.into(),
            singular: kind.to_ascii_lowercase().into(),
            scope: Scope::Namespaced,
            short_names: Vec::new(),
            categories: Vec::new(),
            verbs: Vec::new(),
            subresources: Vec::new(),
            columns: Vec::new(),
            schema: format!("io.k8s.api.{package}.{version}.{kind}").into(),
            custom: None,
            field_selectors: Vec::new(),
            storage: None,
            gate: None,
            deprecated: None,
            returns_deleted: false,
            scale: None,
            strategy: StrategyRef::BuiltIn(strategy),
        }
    }

    /// A kind whose objects belong to the whole cluster.
    pub(crate) fn cluster(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        resource: &'static str,
        strategy: &'static dyn Strategy,
    ) -> Self {
        Self { scope: Scope::Cluster, ..Self::namespaced(group, version, kind, resource, strategy) }
    }

    pub(crate) fn short(mut self, name: &'static str) -> Self {
        self.short_names.push(name.into());
        self
    }

    pub(crate) fn category_all(mut self) -> Self {
        self.categories.push("all".into());
        self
    }

    pub(crate) fn category(mut self, name: &'static str) -> Self {
        self.categories.push(name.into());
        self
    }

    /// For the types that upstream keeps outside of `k8s.io/api`.
    pub(crate) fn schema(mut self, name: &'static str) -> Self {
        self.schema = name.into();
        self
    }

    pub(crate) fn verbs(mut self, verbs: &[Verb]) -> Self {
        self.verbs = verbs.to_vec();
        self
    }

    /// A subresource whose body is the parent itself.
    pub(crate) fn sub(mut self, name: &'static str, verbs: &[Verb]) -> Self {
        self.subresources.push(Subresource { name: name.into(), body: None, verbs: verbs.to_vec() });
        self
    }

    /// A subresource with a body of another kind.
    pub(crate) fn sub_of(
        mut self,
        name: &'static str,
        (group, version, kind): (&'static str, &'static str, &'static str),
        verbs: &[Verb],
    ) -> Self {
        let body: (Str, Str, Str) = (group.into(), version.into(), kind.into());
        self.subresources.push(Subresource { name: name.into(), body: Some(body), verbs: verbs.to_vec() });
        self
    }

    pub(crate) fn with_status(self) -> Self {
        self.sub("status", &READ_WRITE)
    }

    pub(crate) fn with_scale(self, selector: fn(&Value) -> String) -> Self {
        let mut kind = self.sub_of("scale", ("autoscaling", "v1", "Scale"), &READ_WRITE);
        kind.scale = Some(ScaleMap {
            spec_replicas: vec!["spec".into(), "replicas".into()],
            status_replicas: vec!["status".into(), "replicas".into()],
            selector: ScaleSelector::Fn(selector),
            must_exist: false,
        });
        kind
    }

    pub(crate) fn stored_as(mut self, storage: Storage) -> Self {
        self.storage = Some(storage);
        self
    }

    /// Served only where this feature gate is on.
    pub(crate) fn gate(mut self, gate: &'static str) -> Self {
        self.gate = Some(gate);
        self
    }

    pub(crate) fn deprecated(mut self, warning: &'static str) -> Self {
        self.deprecated = Some(warning.into());
        self
    }

    pub(crate) fn returns_deleted(mut self) -> Self {
        self.returns_deleted = true;
        self
    }

    pub(crate) fn columns(mut self, columns: Vec<Column>) -> Self {
        self.columns = columns;
        self
    }

    pub(crate) fn select(mut self, path: &'static str, get: fn(&Value) -> Cow<'_, str>) -> Self {
        self.field_selectors.push(FieldPath { path: path.into(), source: FieldSource::Fn(get) });
        self
    }
}

impl Column {
    /// A string column.
    pub(crate) fn string(
        name: &'static str,
        description: &'static str,
        cell: fn(&Value, jiff::Timestamp) -> Value,
    ) -> Self {
        Self {
            name: name.into(),
            type_: "string".into(),
            format: "".into(),
            description: description.into(),
            priority: 0,
            cell: Cell::Fn(cell),
        }
    }

    pub(crate) fn integer(
        name: &'static str,
        description: &'static str,
        cell: fn(&Value, jiff::Timestamp) -> Value,
    ) -> Self {
        Self { type_: "integer".into(), ..Self::string(name, description, cell) }
    }

    pub(crate) fn typed(mut self, type_: &'static str) -> Self {
        self.type_ = type_.into();
        self
    }

    pub(crate) fn format(mut self, format: &'static str) -> Self {
        self.format = format.into();
        self
    }

    /// Shown only with `-o wide`.
    pub(crate) fn wide(mut self) -> Self {
        self.priority = 1;
        self
    }
}
