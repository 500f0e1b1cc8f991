//! A part of another server's OpenAPI v2 document as a document of v3, for servers that have none: bodies move out of the
//! parameters, types of parameters into schemas, media types to what they are of, and definitions to the components.

use serde_json::{Map, Value, json};

use super::merge::{DEFINITIONS, Part};
use super::{Format, info, to_bytes};

const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];
/// What a parameter says of its values, which v3 has in a schema.
const OF_VALUES: [&str; 16] = [
    "type",
    "format",
    "items",
    "default",
    "enum",
    "maximum",
    "exclusiveMaximum",
    "minimum",
    "exclusiveMinimum",
    "maxLength",
    "minLength",
    "pattern",
    "maxItems",
    "minItems",
    "uniqueItems",
    "multipleOf",
];
/// Where an operation does not say what it takes or gives.
const ANY: &str = "*/*";

impl Part {
    /// The whole part as a document of v3.
    pub fn to_v3(&self) -> Vec<u8> {
        let paths: Map<String, Value> =
            self.paths.iter().map(|(path, item)| (path.clone(), upgraded_item(item))).collect();
        let mut schemas = Value::Object(self.definitions.clone());
        point_to_components(&mut schemas);
        to_bytes(&json!({"openapi": "3.0.0", "info": info(), "paths": paths, "components": {"schemas": schemas}}))
    }
}

fn upgraded_item(item: &Value) -> Value {
    let Some(item) = item.as_object() else { return json!({}) };
    let mut new = Map::new();
    for (key, value) in item {
        if METHODS.contains(&key.as_str()) {
            new.insert(key.clone(), operation(value));
        } else if key == "parameters" {
            new.insert(key.clone(), items(value).filter_map(parameter).collect());
        } else {
            new.insert(key.clone(), value.clone());
        }
    }
    Value::Object(new)
}

fn operation(old: &Value) -> Value {
    let Some(map) = old.as_object() else { return json!({}) };
    let mut new = map.clone();
    for moved in ["parameters", "responses", "consumes", "produces", "schemes"] {
        new.remove(moved);
    }
    let parameters: Vec<Value> = items(&old["parameters"]).filter_map(parameter).collect();
    if !parameters.is_empty() {
        new.insert("parameters".into(), parameters.into());
    }
    if let Some(body) = items(&old["parameters"]).find(|parameter| parameter["in"] == "body") {
        new.insert("requestBody".into(), request_body(body, &old["consumes"]));
    }
    let responses = old["responses"].as_object().into_iter().flatten();
    let responses: Map<String, Value> =
        responses.map(|(code, response)| (code.clone(), upgraded_response(response, &old["produces"]))).collect();
    new.insert("responses".into(), responses.into());
    Value::Object(new)
}

/// `None` for bodies, which are no parameters any more.
fn parameter(old: &Value) -> Option<Value> {
    let map = old.as_object()?;
    if !matches!(old["in"].as_str(), Some("query" | "header" | "path" | "cookie")) {
        return None;
    }
    let of_values = |key: &String| OF_VALUES.contains(&key.as_str());
    let schema: Map<String, Value> =
        map.iter().filter(|(key, _)| of_values(key)).map(|(key, value)| (key.clone(), value.clone())).collect();
    let mut new: Map<String, Value> = map
        .iter()
        .filter(|(key, _)| !of_values(key) && *key != "collectionFormat")
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    new.insert("schema".into(), schema.into());
    Some(Value::Object(new))
}

fn request_body(parameter: &Value, consumes: &Value) -> Value {
    let mut new = Map::new();
    for key in ["description", "required"] {
        if let Some(value) = parameter.get(key) {
            new.insert(key.into(), value.clone());
        }
    }
    new.insert("content".into(), content(&parameter["schema"], consumes));
    Value::Object(new)
}

fn upgraded_response(old: &Value, produces: &Value) -> Value {
    let Some(map) = old.as_object() else { return json!({}) };
    let mut new = map.clone();
    new.remove("examples");
    if let Some(schema) = new.remove("schema") {
        new.insert("content".into(), content(&schema, produces));
    }
    if let Some(headers) = new.get_mut("headers").and_then(Value::as_object_mut) {
        for header in headers.values_mut() {
            let schema: Map<String, Value> = OF_VALUES
                .iter()
                .filter_map(|key| Some(((*key).to_owned(), header.as_object_mut()?.remove(*key)?)))
                .collect();
            if let Some(header) = header.as_object_mut() {
                header.remove("collectionFormat");
                header.insert("schema".into(), schema.into());
            }
        }
    }
    Value::Object(new)
}

/// The schema under each media type.
fn content(schema: &Value, media_types: &Value) -> Value {
    let mut schema = schema.clone();
    point_to_components(&mut schema);
    let named: Vec<&str> = items(media_types).filter_map(Value::as_str).collect();
    let media_types = if named.is_empty() { vec![ANY] } else { named };
    let one = |media: &str| (media.to_owned(), json!({ "schema": schema }));
    media_types.into_iter().map(one).collect::<Map<_, _>>().into()
}

/// Points references to where v3 has schemas. What stands beside one would be ignored there: it is kept around it.
fn point_to_components(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(point_to_components);
            let name = map.get("$ref").and_then(Value::as_str).and_then(|to| to.strip_prefix(DEFINITIONS));
            let Some(reference) = name.map(|name| Format::V3.reference(name)) else { return };
            map.remove("$ref");
            let reference = json!({ "$ref": reference });
            if map.is_empty() {
                *value = reference;
            } else {
                map.insert("allOf".into(), json!([reference]));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(point_to_components),
        _ => {}
    }
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_of_v2_becomes_one_of_v3() {
        let thing = json!({"$ref": "#/definitions/Thing"});
        let old = json!({
            "swagger": "2.0",
            "paths": {"/apis/g/v1/things/{name}": {
                "parameters": [{"in": "path", "name": "name", "required": true, "type": "string", "uniqueItems": true}],
                "get": {"operationId": "readThing", "produces": ["application/json", "application/yaml"],
                    "parameters": [{"$ref": "#/parameters/pretty"}],
                    "responses": {"200": {"description": "OK", "schema": thing}, "401": {"description": "Unauthorized"}},
                    "x-kubernetes-action": "get"},
                "put": {"consumes": ["application/json"], "schemes": ["https"],
                    "parameters": [{"in": "body", "name": "body", "required": true, "schema": thing}],
                    "responses": {"200": {"description": "OK", "schema": {"type": "string"},
                        "headers": {"Age": {"type": "integer", "description": "d"}}}}},
            }},
            "parameters": {"pretty": {"in": "query", "name": "pretty", "type": "string"}},
            "definitions": {"Thing": {"type": "object", "x-kubernetes-group-version-kind": [{"kind": "Thing"}],
                "properties": {"next": {"description": "d", "$ref": "#/definitions/Thing"},
                    "all": {"type": "array", "items": thing}}}},
        });
        let new: Value = serde_json::from_slice(&Part::of(old, "/apis/g/v1").unwrap().to_v3()).unwrap();
        let thing = json!({"$ref": "#/components/schemas/Thing"});
        assert_eq!(new["openapi"], "3.0.0");
        assert_eq!(
            new["paths"],
            json!({"/apis/g/v1/things/{name}": {
                "parameters": [{"in": "path", "name": "name", "required": true,
                    "schema": {"type": "string", "uniqueItems": true}}],
                "get": {"operationId": "readThing", "x-kubernetes-action": "get",
                    "parameters": [{"in": "query", "name": "pretty", "schema": {"type": "string"}}],
                    "responses": {
                        "200": {"description": "OK", "content": {
                            "application/json": {"schema": thing}, "application/yaml": {"schema": thing}}},
                        "401": {"description": "Unauthorized"}}},
                "put": {
                    "requestBody": {"required": true, "content": {"application/json": {"schema": thing}}},
                    "responses": {"200": {"description": "OK", "content": {"*/*": {"schema": {"type": "string"}}},
                        "headers": {"Age": {"description": "d", "schema": {"type": "integer"}}}}}},
            }})
        );
        assert_eq!(
            new["components"]["schemas"],
            json!({"Thing": {"type": "object", "x-kubernetes-group-version-kind": [{"kind": "Thing"}],
                "properties": {"next": {"description": "d", "allOf": [thing]}, "all": {"type": "array", "items": thing}}}})
        );
    }
}
