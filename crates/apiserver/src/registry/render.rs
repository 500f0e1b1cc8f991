//! Objects and lists in the representation that the client wants. JSON of kinds that are stored as themselves is the stored
//! bytes, protobuf and CBOR are made once per version; Tables, YAML, and objects of kinds that are stored as another are
//! decoded for each request.

mod event;
mod form;
mod list;

use bytes::{BufMut, BytesMut};
use keelson_api::codec::{Encoding, protobuf};
use keelson_api::kind::Kind;
use keelson_api::status::{FieldError, Status};
use serde_json::{Value, json};

use self::form::Form;
use super::lists::Listed;
use super::{Resource, table};
use crate::cache::Entry;
use crate::http::negotiate::{Accepted, Offers, Shape, refused};
use crate::http::query::Query;
use crate::http::reply::{self, Reply};

pub(crate) use event::Events;

/// What a kind's endpoints offer.
pub(crate) fn offers(kind: &Kind, watch: bool) -> Offers {
    let protobuf = protobuf::schema_for(&kind.api_version(), &kind.kind).is_some();
    if watch { Offers::Events { protobuf } } else { Offers::Objects { protobuf } }
}

/// A stored object in the wanted form.
pub(crate) fn entry(resource: &Resource, code: u16, entry: &Entry, accepted: Accepted, query: &Query) -> Reply {
    let partial = match accepted.shape {
        Shape::Object => None,
        Shape::PartialObjectMetadata { beta } => Some(beta),
        _ => return object(resource, code, resource.decode(entry)?, accepted, query),
    };
    let form = Form::new(resource.clone(), accepted.encoding, partial);
    let mut out = BytesMut::new();
    form.put_object(entry, entry.revision, &mut out)?;
    if accepted.encoding == Encoding::Json {
        out.put_u8(b'\n');
    }
    Ok(reply::encoded(code, accepted.encoding, out.freeze()))
}

/// One object in the wanted shape.
pub(crate) fn object(resource: &Resource, code: u16, object: Value, accepted: Accepted, query: &Query) -> Reply {
    let shaped = match accepted.shape {
        Shape::Table { beta } => table::of_one(&resource.kind, object, include(query)?, beta, true),
        Shape::PartialObjectMetadata { beta } => partial(object, beta),
        Shape::Object => object,
        Shape::PartialObjectMetadataList { .. } | Shape::Discovery { .. } => {
            let what = "you requested PartialObjectMetadataList, but the requested object is not a list";
            return Err(refused(format!("{what} ({})", go_type(&resource.kind, ""))));
        }
    };
    document(code, &shaped, accepted.encoding)
}

/// A list in the wanted shape.
pub(crate) async fn list(resource: &Resource, listed: Listed, accepted: Accepted, query: &Query) -> Reply {
    let Accepted { encoding, shape } = accepted;
    let partial = match shape {
        Shape::Table { beta } => {
            let body = list::table(resource.clone(), listed, include(query)?, beta, encoding)?;
            return Ok(reply::encoded(200, encoding, body));
        }
        Shape::PartialObjectMetadataList { beta } => Some(beta),
        Shape::PartialObjectMetadata { .. } | Shape::Discovery { .. } => return Err(is_a_list(&resource.kind)),
        Shape::Object => None,
    };
    let body = list::objects(Form::new(resource.clone(), encoding, partial), listed).await?;
    Ok(reply::encoded(200, encoding, body))
}

/// A list of objects that are not stored, or not any more.
pub(crate) fn values(
    resource: &Resource,
    items: Vec<Value>,
    metadata: Value,
    accepted: Accepted,
    query: &Query,
) -> Reply {
    let kind = &resource.kind;
    let shaped = match accepted.shape {
        Shape::Table { beta } => {
            let include = include(query)?;
            let rows = items.into_iter().map(|object| table::row(kind, object, include, beta)).collect();
            table::table(kind, rows, metadata, beta, true)
        }
        Shape::PartialObjectMetadataList { beta } => {
            let items: Vec<_> = items.into_iter().map(|object| partial(object, beta)).collect();
            json!({
                "kind": "PartialObjectMetadataList", "apiVersion": meta_version(beta),
                "metadata": metadata, "items": items,
            })
        }
        Shape::Object => {
            let items: Vec<_> = items.into_iter().map(without_type).collect();
            json!({
                "kind": kind.list_kind, "apiVersion": kind.api_version(),
                "metadata": metadata, "items": items,
            })
        }
        Shape::PartialObjectMetadata { .. } | Shape::Discovery { .. } => return Err(is_a_list(kind)),
    };
    document(200, &shaped, accepted.encoding)
}

/// A document of the type that it names, whatever shape the client wants objects in.
pub(crate) fn document(code: u16, value: &Value, encoding: Encoding) -> Reply {
    match encoding {
        Encoding::Json => Ok(reply::value(code, value)),
        encoding => Ok(reply::encoded(code, encoding, form::encode(value, encoding)?)),
    }
}

fn include(query: &Query) -> Result<table::Include, Status> {
    match query.get("includeObject").unwrap_or_default() {
        "" | "Metadata" => Ok(table::Include::Metadata),
        "None" => Ok(table::Include::None),
        "Object" => Ok(table::Include::Object),
        other => {
            let error = FieldError::invalid("includeObject", other, "must be 'Metadata', 'Object', 'None', or empty");
            let FieldError { field, message, .. } = error;
            Err(Status::bad_request(format!("Unable to convert to Table as requested: {field}: {message}")))
        }
    }
}

fn is_a_list(kind: &Kind) -> Status {
    let what = "you requested PartialObjectMetadata, but the requested object is a list";
    refused(format!("{what} ({})", go_type(kind, "List")))
}

/// What upstream calls the type in such messages.
fn go_type(kind: &Kind, suffix: &str) -> String {
    let package = kind.group.split('.').next().filter(|group| !group.is_empty()).unwrap_or("core");
    format!("*{package}.{}{suffix}", kind.kind)
}

/// `meta.k8s.io/v1`
fn meta_version(beta: bool) -> &'static str {
    if beta { "meta.k8s.io/v1beta1" } else { "meta.k8s.io/v1" }
}

/// `meta.k8s.io PartialObjectMetadata`
pub(crate) fn partial(mut object: Value, beta: bool) -> Value {
    let metadata = object.get_mut("metadata").map(Value::take).unwrap_or_default();
    json!({"kind": "PartialObjectMetadata", "apiVersion": meta_version(beta), "metadata": metadata})
}

fn without_type(mut object: Value) -> Value {
    if let Some(map) = object.as_object_mut() {
        map.remove("kind");
        map.remove("apiVersion");
    }
    object
}
