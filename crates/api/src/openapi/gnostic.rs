//! An OpenAPI v2 document as the protobuf messages of `gnostic` (`openapi.v2.Document`). Written for the documents that
//! [`super`] makes: of the format, what they do not use is not here.

use std::convert::Infallible;

use serde_json::{Map, Value};

use crate::codec::protobuf::wire::{put_bytes, put_nested, put_tag, put_varint};

/// The message for the document.
pub(super) fn encode(document: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 << 20);
    text(&mut out, 1, document, "swagger");
    if let Some(info) = document.get("info") {
        nest(&mut out, 2, |out| {
            text(out, 1, info, "title");
            text(out, 2, info, "version");
        });
    }
    nest(&mut out, 8, |out| named(out, 2, document, "paths", path_item));
    nest(&mut out, 9, |out| named(out, 1, document, "definitions", schema));
    for requirement in list(document, "security") {
        nest(&mut out, 12, |out| each(out, 1, requirement, |out, names| strings(out, 1, names)));
    }
    nest(&mut out, 13, |out| named(out, 1, document, "securityDefinitions", api_key));
    out
}

fn path_item(out: &mut Vec<u8>, item: &Value) {
    let methods = [("get", 2), ("put", 3), ("post", 4), ("delete", 5), ("options", 6), ("head", 7), ("patch", 8)];
    for (method, tag) in methods {
        if let Some(found) = item.get(method) {
            nest(out, tag, |out| operation(out, found));
        }
    }
    parameters(out, 9, item);
}

fn operation(out: &mut Vec<u8>, operation: &Value) {
    let strings_of = |out: &mut Vec<u8>, tag, key: &str| {
        if let Some(found) = operation.get(key) {
            strings(out, tag, found);
        }
    };
    strings_of(out, 1, "tags");
    text(out, 3, operation, "description");
    text(out, 5, operation, "operationId");
    strings_of(out, 6, "produces");
    strings_of(out, 7, "consumes");
    parameters(out, 8, operation);
    nest(out, 9, |out| {
        named(out, 1, operation, "responses", |out, response| {
            nest(out, 1, |out| {
                text(out, 1, response, "description");
                if let Some(found) = response.get("schema") {
                    nest(out, 2, |out| nest(out, 1, |out| schema(out, found)));
                }
            });
        });
    });
    strings_of(out, 10, "schemes");
    extensions(out, 13, operation);
}

/// `repeated ParametersItem`, each a `Parameter` that is either a body or one of the others.
fn parameters(out: &mut Vec<u8>, tag: u32, owner: &Value) {
    for parameter in list(owner, "parameters") {
        let place = parameter.get("in").and_then(Value::as_str).unwrap_or_default();
        nest(out, tag, |out| {
            nest(out, 1, |out| match place {
                "body" => nest(out, 1, |out| {
                    text(out, 1, parameter, "description");
                    text(out, 2, parameter, "name");
                    text(out, 3, parameter, "in");
                    flag(out, 4, parameter, "required");
                    if let Some(found) = parameter.get("schema") {
                        nest(out, 5, |out| schema(out, found));
                    }
                }),
                // In path parameters every field from `type` on has one number less.
                "path" => nest(out, 2, |out| nest(out, 4, |out| plain_parameter(out, parameter, 5))),
                _ => nest(out, 2, |out| nest(out, 3, |out| plain_parameter(out, parameter, 6))),
            });
        });
    }
}

fn plain_parameter(out: &mut Vec<u8>, parameter: &Value, type_tag: u32) {
    flag(out, 1, parameter, "required");
    text(out, 2, parameter, "in");
    text(out, 3, parameter, "description");
    text(out, 4, parameter, "name");
    text(out, type_tag, parameter, "type");
    flag(out, type_tag + 14, parameter, "uniqueItems");
}

fn schema(out: &mut Vec<u8>, found: &Value) {
    text(out, 1, found, "$ref");
    text(out, 2, found, "format");
    text(out, 4, found, "description");
    if let Some(default) = found.get("default") {
        nest(out, 5, |out| any(out, default));
    }
    if let Some(required) = found.get("required") {
        strings(out, 19, required);
    }
    for value in list(found, "enum") {
        nest(out, 20, |out| any(out, value));
    }
    match found.get("additionalProperties") {
        Some(Value::Bool(yes)) => nest(out, 21, |out| put_flag(out, 2, *yes)),
        Some(inner) => nest(out, 21, |out| nest(out, 1, |out| schema(out, inner))),
        None => {}
    }
    if let Some(ty) = found.get("type").and_then(Value::as_str) {
        nest(out, 22, |out| put_bytes(out, 1, ty.as_bytes()));
    }
    if let Some(items) = found.get("items") {
        nest(out, 23, |out| nest(out, 1, |out| schema(out, items)));
    }
    if found.get("properties").is_some() {
        nest(out, 25, |out| named(out, 1, found, "properties", schema));
    }
    extensions(out, 31, found);
}

/// A `SecurityDefinitionsItem`.
fn api_key(out: &mut Vec<u8>, definition: &Value) {
    nest(out, 2, |out| {
        for (tag, key) in [(1, "type"), (2, "name"), (3, "in"), (4, "description")] {
            text(out, tag, definition, key);
        }
    });
}

/// `x-…` fields, as YAML; JSON is that too.
fn extensions(out: &mut Vec<u8>, tag: u32, owner: &Value) {
    for (key, value) in owner.as_object().into_iter().flatten().filter(|(key, _)| key.starts_with("x-")) {
        nest(out, tag, |out| {
            put_bytes(out, 1, key.as_bytes());
            nest(out, 2, |out| any(out, value));
        });
    }
}

fn any(out: &mut Vec<u8>, value: &Value) {
    put_bytes(out, 2, value.to_string().as_bytes());
}

/// A map as a repeated message of name and value.
fn named(out: &mut Vec<u8>, tag: u32, owner: &Value, key: &str, write: impl Fn(&mut Vec<u8>, &Value)) {
    if let Some(map) = owner.get(key) {
        each(out, tag, map, write);
    }
}

fn each(out: &mut Vec<u8>, tag: u32, map: &Value, write: impl Fn(&mut Vec<u8>, &Value)) {
    let empty = Map::new();
    for (name, value) in map.as_object().unwrap_or(&empty) {
        nest(out, tag, |out| {
            put_bytes(out, 1, name.as_bytes());
            nest(out, 2, |out| write(out, value));
        });
    }
}

fn list<'a>(owner: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    owner.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn strings(out: &mut Vec<u8>, tag: u32, values: &Value) {
    for text in values.as_array().into_iter().flatten().filter_map(Value::as_str) {
        put_bytes(out, tag, text.as_bytes());
    }
}

fn text(out: &mut Vec<u8>, tag: u32, owner: &Value, key: &str) {
    if let Some(text) = owner.get(key).and_then(Value::as_str) {
        put_bytes(out, tag, text.as_bytes());
    }
}

fn flag(out: &mut Vec<u8>, tag: u32, owner: &Value, key: &str) {
    if owner.get(key).and_then(Value::as_bool) == Some(true) {
        put_flag(out, tag, true);
    }
}

fn put_flag(out: &mut Vec<u8>, tag: u32, yes: bool) {
    put_tag(out, tag, 0);
    put_varint(out, u64::from(yes));
}

fn nest(out: &mut Vec<u8>, tag: u32, write: impl FnOnce(&mut Vec<u8>)) {
    let Ok(()) = put_nested(out, tag, |out| {
        write(out);
        Ok::<_, Infallible>(())
    });
}
