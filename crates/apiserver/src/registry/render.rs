//! Objects and lists in the representation that the client wants. JSON of kinds that are stored as themselves is the stored
//! bytes; Tables, YAML, and objects of kinds that are stored as another are decoded.

mod event;
mod list;

use bytes::Bytes;
use keelson_api::kind::Kind;
use keelson_api::status::Status;
use serde_json::{Value, json};

use super::lists::{Listed, list_metadata};
use super::read::is_plain;
use super::{Resource, table};
use crate::http::body::Body;
use crate::http::negotiate::{Accepted, Format, Shape};
use crate::http::query::Query;
use crate::http::reply::{self, Reply};

pub(crate) use event::Events;

/// One object in the wanted shape.
pub(crate) fn object(resource: &Resource, code: u16, object: Value, accepted: Accepted, query: &Query) -> Reply {
    let shaped = match accepted.shape {
        Shape::Table { beta } => {
            let revision = object.get("metadata").and_then(|m| m.get("resourceVersion")).cloned().unwrap_or_default();
            let metadata = json!({ "resourceVersion": revision });
            let rows = vec![table::row(&resource.kind, object, include(query))];
            table::table(&resource.kind, rows, metadata, beta, true)
        }
        Shape::PartialObjectMetadata => partial(object),
        Shape::Object => object,
        Shape::PartialObjectMetadataList | Shape::Discovery { .. } => {
            return Err(crate::http::negotiate::not_acceptable());
        }
    };
    document(code, &shaped, accepted.format)
}

/// A list in the wanted shape.
pub(crate) fn list(resource: &Resource, listed: Listed, accepted: Accepted, query: &Query) -> Reply {
    if is_plain(accepted) && resource.plain() {
        return Ok(reply::json(200, Body::Chunks(Box::new(list::JsonChunks::new(resource, listed)))));
    }
    let kind = &resource.kind;
    let metadata = list_metadata(listed.revision, listed.next.as_deref(), listed.remaining);
    shaped_list(kind, listed.entries.map(|entry| resource.decode(&entry)), metadata, accepted, query)
}

/// A list of objects that are not stored.
pub(crate) fn values(
    resource: &Resource,
    items: Vec<Value>,
    metadata: Value,
    accepted: Accepted,
    query: &Query,
) -> Reply {
    shaped_list(&resource.kind, items.into_iter().map(Ok), metadata, accepted, query)
}

fn shaped_list(
    kind: &Kind,
    objects: impl Iterator<Item = Result<Value, Status>>,
    metadata: Value,
    accepted: Accepted,
    query: &Query,
) -> Reply {
    let shaped = match accepted.shape {
        Shape::Table { beta } => {
            let rows: Result<Vec<_>, Status> = objects.map(|o| Ok(table::row(kind, o?, include(query)))).collect();
            table::table(kind, rows?, metadata, beta, true)
        }
        Shape::PartialObjectMetadata | Shape::PartialObjectMetadataList => {
            let items: Result<Vec<_>, Status> = objects.map(|o| o.map(partial)).collect();
            json!({
                "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata, "items": items?,
            })
        }
        Shape::Object => {
            let items: Result<Vec<_>, Status> = objects.map(|o| o.map(without_type)).collect();
            json!({
                "kind": format!("{}List", kind.kind), "apiVersion": kind.api_version(),
                "metadata": metadata, "items": items?,
            })
        }
        Shape::Discovery { .. } => return Err(crate::http::negotiate::not_acceptable()),
    };
    document(200, &shaped, accepted.format)
}

/// A document in JSON or YAML.
pub(crate) fn document(code: u16, value: &Value, format: Format) -> Reply {
    match format {
        Format::Json => Ok(reply::value(code, value)),
        Format::Yaml => {
            let yaml = serde_saphyr::to_string(value).map_err(Status::internal)?;
            Ok(reply::typed(code, "application/yaml", Bytes::from(yaml)))
        }
    }
}

fn include(query: &Query) -> table::Include {
    match query.get("includeObject") {
        Some("None") => table::Include::None,
        Some("Object") => table::Include::Object,
        _ => table::Include::Metadata,
    }
}

/// `meta.k8s.io/v1 PartialObjectMetadata`
pub(crate) fn partial(mut object: Value) -> Value {
    let metadata = object.get_mut("metadata").map(Value::take).unwrap_or_default();
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
}

fn without_type(mut object: Value) -> Value {
    if let Some(map) = object.as_object_mut() {
        map.remove("kind");
        map.remove("apiVersion");
    }
    object
}
