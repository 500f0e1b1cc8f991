//! Which objects a list or watch is about.

use keelson_api::kind::{Kind, Scope};
use keelson_api::selector::{FieldRequirement, FieldSelector, LabelSelector};
use keelson_api::status::Status;

use crate::cache::{Entry, ResourceCache};
use crate::http::query::Query;

/// Namespace, label and field selectors, ready to be matched against cached entries.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    /// Keys start with this.
    pub(crate) prefix: String,
    labels: LabelSelector,
    fields: Vec<(Field, String, bool)>,
}

#[derive(Clone, Copy, Debug)]
enum Field {
    Name,
    Namespace,
    /// Place in the *stored* kind's list.
    Indexed(usize),
    /// Empty in every object: the namespace of those that have none.
    Empty,
}

impl Filter {
    /// From a request's query; 400 for a selector that cannot be read or that the kind does not support.
    pub(crate) fn new(kind: &Kind, cache: &ResourceCache, namespace: &str, query: &Query) -> Result<Self, Status> {
        Self::parse(
            kind,
            cache,
            namespace,
            query.get("labelSelector").unwrap_or_default(),
            query.get("fieldSelector").unwrap_or_default(),
        )
    }

    /// As [`Filter::new`], from the selectors' text.
    pub(crate) fn parse(
        kind: &Kind,
        cache: &ResourceCache,
        namespace: &str,
        labels: &str,
        fields: &str,
    ) -> Result<Self, Status> {
        let bad = |e: keelson_api::selector::Error| Status::bad_request(e.to_string());
        let labels = LabelSelector::parse(labels).map_err(bad)?;
        let parsed = FieldSelector::parse(fields).map_err(bad)?;
        let mut fields = Vec::new();
        let mut prefix = cache.namespace_prefix(namespace);
        for term in parsed.requirements {
            let field = match term.field.as_str() {
                "metadata.name" => Field::Name,
                "metadata.namespace" if kind.scope == Scope::Namespaced => Field::Namespace,
                "metadata.namespace" if kind.field_selectors.is_empty() => Field::Empty,
                other => Field::Indexed(position(kind, cache, other)?),
            };
            if let (Field::Namespace, true, true) = (field, term.equal, namespace.is_empty()) {
                prefix = cache.namespace_prefix(&term.value);
            }
            fields.push((field, term.value, term.equal));
        }
        Ok(Self { prefix, labels, fields })
    }

    /// The one key it can match, when a term fixes the name and the namespace is known.
    pub(crate) fn single_key(&self, cache: &ResourceCache) -> Option<String> {
        let name = self.fields.iter().find(|(field, _, equal)| *equal && matches!(field, Field::Name))?.1.as_str();
        let scoped = cache.kind().scope == Scope::Cluster || self.prefix != cache.prefix();
        (scoped && !name.is_empty()).then(|| format!("{}{name}", self.prefix))
    }

    /// Whether only the prefix matters.
    pub(crate) fn is_prefix_only(&self) -> bool {
        self.labels.is_everything() && self.fields.is_empty()
    }

    /// Whether the object is asked for.
    pub(crate) fn matches(&self, entry: &Entry) -> bool {
        entry.key.starts_with(&self.prefix)
            && (self.labels.is_everything() || self.labels.matches(entry))
            && self.fields.iter().all(|(field, value, equal)| {
                let found = match field {
                    Field::Name => entry.name(),
                    Field::Namespace => entry.namespace(),
                    Field::Indexed(index) => entry.field(*index),
                    Field::Empty => "",
                };
                (found == value) == *equal
            })
    }
}

/// Selects one object by name; 400 when the query selects others.
pub(crate) fn fix_name(query: &mut Query, name: &str) -> Result<(), Status> {
    let own = query.get("fieldSelector").unwrap_or_default();
    let own = FieldSelector::parse(own).map_err(|e| Status::bad_request(e.to_string()))?;
    if own.is_everything() {
        let term = FieldRequirement { field: "metadata.name".into(), value: name.into(), equal: true };
        query.set("fieldSelector", FieldSelector { requirements: vec![term] }.to_string());
    } else if own.exact("metadata.name") != Some(name) {
        return Err(Status::bad_request("fieldSelector metadata.name doesn't match requested name"));
    }
    Ok(())
}

/// Where a field is indexed. A kind that is stored as another has its own names for the same places in the list.
fn position(kind: &Kind, cache: &ResourceCache, field: &str) -> Result<usize, Status> {
    let own = kind.field_selectors.iter().position(|f| f.path == field);
    let stored = cache.kind().field_selectors.len();
    own.filter(|index| *index < stored).ok_or_else(|| {
        Status::bad_request(if kind.field_selectors.is_empty() {
            format!("{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
        } else {
            format!("field label not supported: {field}")
        })
    })
}
