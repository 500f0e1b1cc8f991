//! One operation on a path, and the path's item made of several.

use serde_json::{Map, Value, json};

use super::Format;

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const OBJECTS: &[&str] = &[JSON, "application/yaml", PROTOBUF, "application/cbor"];
const LISTS: &[&str] = &[
    JSON,
    "application/yaml",
    PROTOBUF,
    "application/cbor",
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
    "application/cbor-seq",
];
const TEXT: &[&str] = &["text/plain", JSON, "application/yaml", PROTOBUF, "application/cbor"];
const PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    STRATEGIC,
    "application/apply-patch+yaml",
    "application/apply-patch+cbor",
];
/// Not of custom resources. It is by this that kubectl knows which patch to send.
const STRATEGIC: &str = "application/strategic-merge-patch+json";

/// What an operation answers with. Objects are named by their schema.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Object(String),
    /// A list, which can be watched too.
    List(String),
    /// What discovery answers with, which is never CBOR below the group version.
    Document(String),
    Json(String),
    /// Text in the media type.
    Text(&'static str),
    Log,
    /// Whatever the other side of a connection says.
    Stream,
}

impl Answer {
    fn media_types(&self) -> &[&'static str] {
        match self {
            Self::Object(_) => OBJECTS,
            Self::List(_) => LISTS,
            Self::Document(_) => &[JSON, "application/yaml", PROTOBUF],
            Self::Json(_) => &[JSON],
            Self::Text(media) => std::slice::from_ref(media),
            Self::Log => TEXT,
            Self::Stream => &["*/*"],
        }
    }

    fn schema(&self, format: Format) -> Value {
        match self {
            Self::Object(name) | Self::List(name) | Self::Document(name) | Self::Json(name) => {
                json!({ "$ref": format.reference(name) })
            }
            Self::Text(_) | Self::Log | Self::Stream => json!({ "type": "string" }),
        }
    }
}

/// One operation.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    /// `get`, `post`, …
    pub(super) method: &'static str,
    /// `list`, `post`, `watchlist`, …, and group, version and kind; not of discovery.
    pub(super) action: Option<(&'static str, Value)>,
    /// `readCoreV1NamespacedPod`
    pub(super) id: String,
    /// `core_v1`
    pub(super) tag: String,
    pub(super) description: String,
    /// Query parameters.
    pub(super) parameters: Vec<Value>,
    /// Schema of the request's body.
    pub(super) body: Option<String>,
    pub(super) answer: Answer,
    /// Whether a patch can be a strategic merge patch.
    pub(super) strategic: bool,
    pub(super) codes: &'static [&'static str],
}

impl Operation {
    /// A read of what the server says of itself.
    pub(super) fn read(id: String, tag: String, description: &str, answer: Answer) -> Self {
        Self {
            method: "get",
            action: None,
            id,
            tag,
            description: description.to_owned(),
            parameters: Vec::new(),
            body: None,
            answer,
            strategic: true,
            codes: &["200"],
        }
    }
}

/// The item of a path: its operations, and the parameters that all of them have in common.
pub(super) fn path_item(mut operations: Vec<Operation>, path_parameters: Vec<Value>, format: Format) -> Value {
    let mut common = match operations.first() {
        Some(first) => first.parameters.clone(),
        None => Vec::new(),
    };
    common.retain(|parameter| operations.iter().all(|operation| operation.parameters.contains(parameter)));
    for operation in &mut operations {
        operation.parameters.retain(|parameter| !common.contains(parameter));
    }
    common.extend(path_parameters);
    sort(&mut common);
    let mut item = Map::new();
    for operation in operations {
        item.insert(operation.method.to_owned(), render(operation, format));
    }
    if !common.is_empty() {
        item.insert("parameters".into(), common.into());
    }
    Value::Object(item)
}

fn sort(parameters: &mut [Value]) {
    let key = |parameter: &Value| parameter["name"].as_str().unwrap_or_default().to_owned();
    parameters.sort_by_cached_key(key);
}

fn render(operation: Operation, format: Format) -> Value {
    let mut out = Map::new();
    out.insert("tags".into(), json!([operation.tag]));
    out.insert("description".into(), operation.description.into());
    out.insert("operationId".into(), operation.id.into());
    if let Some((action, gvk)) = operation.action {
        out.insert("x-kubernetes-action".into(), action.into());
        out.insert("x-kubernetes-group-version-kind".into(), gvk);
    }
    let is_patch = operation.method == "patch" && operation.body.is_some();
    let mut consumes = if is_patch { PATCHES.to_vec() } else { vec!["*/*"] };
    consumes.retain(|media| operation.strategic || *media != STRATEGIC);
    let produces = operation.answer.media_types();
    let schema = operation.answer.schema(format);
    let required = operation.method != "delete";
    let mut parameters = operation.parameters;
    sort(&mut parameters);
    let mut responses = Map::new();
    match format {
        Format::V3 => {
            if let Some(body) = operation.body {
                let schema = json!({ "schema": { "$ref": format.reference(&body) } });
                let mut request = json!({ "content": by_media(&consumes, &schema) });
                if required {
                    request["required"] = true.into();
                }
                out.insert("requestBody".into(), request);
            }
            let content = by_media(produces, &json!({ "schema": schema }));
            for code in operation.codes {
                responses.insert((*code).into(), json!({ "description": code_text(code), "content": content }));
            }
        }
        Format::V2 => {
            out.insert("consumes".into(), json!(consumes));
            out.insert("produces".into(), json!(produces));
            out.insert("schemes".into(), json!(["https"]));
            if let Some(body) = operation.body {
                let mut parameter =
                    json!({ "name": "body", "in": "body", "schema": { "$ref": format.reference(&body) } });
                if required {
                    parameter["required"] = true.into();
                }
                parameters.insert(0, parameter);
            }
            for code in operation.codes {
                responses.insert((*code).into(), json!({ "description": code_text(code), "schema": schema }));
            }
        }
    }
    responses.insert("401".into(), json!({ "description": "Unauthorized" }));
    out.insert("responses".into(), responses.into());
    if !parameters.is_empty() {
        out.insert("parameters".into(), parameters.into());
    }
    Value::Object(out)
}

fn by_media(types: &[&str], value: &Value) -> Value {
    types.iter().map(|media| ((*media).to_owned(), value.clone())).collect::<Map<_, _>>().into()
}

fn code_text(code: &str) -> &'static str {
    match code {
        "201" => "Created",
        "202" => "Accepted",
        _ => "OK",
    }
}
