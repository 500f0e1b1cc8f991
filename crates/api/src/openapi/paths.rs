//! Paths and operations: what each kind can be asked, in upstream's words for actions, parameters and media types.

use serde_json::{Map, Value, json};

use super::schemas::{group_version_kind, schema_name};
use super::{Format, group_version_path};
use crate::kind::{Kind, Scope, Subresource, Verb};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const OBJECT_TYPES: [&str; 4] =
    ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf", "application/cbor"];
const PATCH_TYPES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// All paths of the kinds.
pub(super) fn all(kinds: &[&Kind], format: Format) -> Map<String, Value> {
    let mut paths = Map::new();
    for kind in kinds {
        Writer { kind, format, paths: &mut paths }.kind();
    }
    paths
}

struct Writer<'a> {
    kind: &'a Kind,
    format: Format,
    paths: &'a mut Map<String, Value>,
}

/// One operation on a path.
struct Operation<'a> {
    /// `get`, `post`, …
    method: &'a str,
    /// `list`, `post`, `put`, `patch`, `delete`, `deletecollection`, `get`, `connect`
    action: &'a str,
    /// `readCoreV1NamespacedPod`
    id: String,
    description: String,
    gvk: Value,
    /// Query parameters.
    parameters: Vec<Value>,
    /// Schema of the request's body.
    body: Option<String>,
    /// Schema of the answer's; `None` for streams and plain text.
    answer: Option<String>,
    codes: &'a [&'a str],
}

impl Writer<'_> {
    fn kind(&mut self) {
        let kind = self.kind;
        let base = format!("/{}", group_version_path(&kind.group, &kind.version));
        let namespaced = kind.scope == Scope::Namespaced;
        let collection = match namespaced {
            true => format!("{base}/namespaces/{{namespace}}/{}", kind.resource),
            false => format!("{base}/{}", kind.resource),
        };
        let mut operations = Vec::new();
        if kind.has_verb(Verb::List) {
            operations.push(self.list(self.id("list", "", ""), false));
        }
        if kind.has_verb(Verb::Create) {
            operations.push(self.create("", &kind.schema, self.gvk()));
        }
        if kind.has_verb(Verb::DeleteCollection) {
            operations.push(self.delete_collection());
        }
        self.path(&collection, namespaced, false, operations);
        if namespaced && kind.has_verb(Verb::List) {
            let id = format!("list{}{}ForAllNamespaces", self.group_part(), kind.kind);
            let list = self.list(id, true);
            self.path(&format!("{base}/{}", kind.resource), false, false, vec![list]);
        }
        let item = format!("{collection}/{{name}}");
        let verbs: Vec<Verb> =
            [Verb::Get, Verb::Update, Verb::Patch, Verb::Delete].into_iter().filter(|v| kind.has_verb(*v)).collect();
        let operations = self.item_operations("", &verbs, &kind.schema, &self.gvk());
        self.path(&item, namespaced, true, operations);
        for subresource in &kind.subresources {
            self.subresource(&item, namespaced, subresource);
        }
    }

    fn subresource(&mut self, item: &str, namespaced: bool, subresource: &Subresource) {
        let kind = self.kind;
        let (schema, gvk) = match &subresource.body {
            Some((group, version, kind)) => {
                (schema_name(group, version, kind), group_version_kind(group, version, kind))
            }
            None => (kind.schema.to_string(), self.gvk()),
        };
        let suffix = camel(&subresource.name);
        let path = format!("{item}/{}", subresource.name);
        if matches!(subresource.name.as_ref(), "attach" | "exec" | "portforward" | "proxy") {
            let operations = self.connect(&subresource.name, &suffix, &subresource.verbs, &gvk);
            self.path(&path, namespaced, true, operations);
            return;
        }
        let mut operations = self.item_operations(&suffix, &subresource.verbs, &schema, &gvk);
        if subresource.verbs.contains(&Verb::Create) {
            operations.push(self.create(&suffix, &schema, gvk));
        }
        if subresource.name == "log" {
            for operation in &mut operations {
                operation.answer = None;
                operation.parameters = log_parameters(self.format);
            }
        }
        self.path(&path, namespaced, true, operations);
    }

    fn item_operations(&self, suffix: &str, verbs: &[Verb], schema: &str, gvk: &Value) -> Vec<Operation<'static>> {
        let what = self.what(suffix);
        verbs
            .iter()
            .filter_map(|verb| {
                let (method, action, id, sentence, codes): (_, _, _, _, &'static [&'static str]) = match verb {
                    Verb::Get => ("get", "get", "read", format!("read the specified {what}"), &["200"]),
                    Verb::Update => ("put", "put", "replace", format!("replace the specified {what}"), &["200", "201"]),
                    Verb::Patch => {
                        ("patch", "patch", "patch", format!("partially update the specified {what}"), &["200", "201"])
                    }
                    Verb::Delete => ("delete", "delete", "delete", format!("delete a {what}"), &["200", "202"]),
                    _ => return None,
                };
                let (parameters, body, answer) = match verb {
                    Verb::Update => (self.write_parameters(false), Some(schema.to_owned()), schema.to_owned()),
                    Verb::Patch => (self.write_parameters(true), Some(format!("{META}.Patch")), schema.to_owned()),
                    Verb::Delete => {
                        // Only pods answer a delete with the object in every case.
                        let answer = if self.kind.kind == "Pod" { schema.to_owned() } else { format!("{META}.Status") };
                        (self.delete_parameters(), Some(format!("{META}.DeleteOptions")), answer)
                    }
                    _ => (Vec::new(), None, schema.to_owned()),
                };
                Some(Operation {
                    method,
                    action,
                    id: self.id(id, "", suffix),
                    description: sentence,
                    gvk: gvk.clone(),
                    parameters,
                    body,
                    answer: Some(answer),
                    codes,
                })
            })
            .collect()
    }

    fn list(&self, id: String, everywhere: bool) -> Operation<'static> {
        let place = if everywhere { " in all namespaces" } else { "" };
        Operation {
            method: "get",
            action: "list",
            id,
            description: format!("list or watch objects of kind {}{place}", self.kind.kind),
            gvk: self.gvk(),
            parameters: self.list_parameters(true),
            body: None,
            answer: Some(format!("{}List", self.kind.schema)),
            codes: &["200"],
        }
    }

    fn create(&self, suffix: &str, schema: &str, gvk: Value) -> Operation<'static> {
        Operation {
            method: "post",
            action: "post",
            id: self.id("create", "", suffix),
            description: format!("create {} {}", article(&self.kind.kind), self.what(suffix)),
            gvk,
            parameters: self.write_parameters(false),
            body: Some(schema.to_owned()),
            answer: Some(schema.to_owned()),
            codes: &["200", "201", "202"],
        }
    }

    fn delete_collection(&self) -> Operation<'static> {
        let mut parameters = self.delete_parameters();
        parameters.extend(self.list_parameters(false));
        Operation {
            method: "delete",
            action: "deletecollection",
            id: self.id("delete", "Collection", ""),
            description: format!("delete collection of {}", self.kind.kind),
            gvk: self.gvk(),
            parameters,
            body: Some(format!("{META}.DeleteOptions")),
            answer: Some(format!("{META}.Status")),
            codes: &["200"],
        }
    }

    fn connect(&self, name: &str, suffix: &str, verbs: &[Verb], gvk: &Value) -> Vec<Operation<'static>> {
        let methods = [
            (Verb::Get, "get", "Get"),
            (Verb::Create, "post", "Post"),
            (Verb::Update, "put", "Put"),
            (Verb::Delete, "delete", "Delete"),
            (Verb::Patch, "patch", "Patch"),
        ];
        let namespaced = if self.kind.scope == Scope::Namespaced { "Namespaced" } else { "" };
        let offered = methods.into_iter().filter(|(verb, ..)| verbs.contains(verb));
        offered
            .map(|(_, method, word)| Operation {
                method,
                action: "connect",
                id: format!("connect{}{word}{namespaced}{}{suffix}", self.group_part(), self.kind.kind),
                description: format!("connect {} requests to {name} of {}", word.to_uppercase(), self.kind.kind),
                gvk: gvk.clone(),
                parameters: connect_parameters(name, self.format),
                body: None,
                answer: None,
                codes: &["200"],
            })
            .collect()
    }

    fn path(&mut self, path: &str, namespaced: bool, named: bool, operations: Vec<Operation<'_>>) {
        if operations.is_empty() {
            return;
        }
        let mut item = Map::new();
        for operation in operations {
            item.insert(operation.method.to_owned(), self.operation(operation));
        }
        let mut parameters = Vec::new();
        if named {
            parameters.push(path_parameter("name", &format!("name of the {}", self.kind.kind), self.format));
        }
        if namespaced {
            parameters.push(path_parameter(
                "namespace",
                "object name and auth scope, such as for teams and projects",
                self.format,
            ));
        }
        let pretty = "If 'true', then the output is pretty printed.";
        parameters.push(query("pretty", "string", pretty, self.format));
        item.insert("parameters".into(), Value::Array(parameters));
        self.paths.insert(path.to_owned(), Value::Object(item));
    }

    fn operation(&self, operation: Operation<'_>) -> Value {
        let mut out = Map::new();
        out.insert("tags".into(), json!([self.tag()]));
        out.insert("description".into(), operation.description.into());
        out.insert("operationId".into(), operation.id.into());
        out.insert("x-kubernetes-action".into(), operation.action.into());
        out.insert("x-kubernetes-group-version-kind".into(), operation.gvk);
        let is_patch = operation.method == "patch" && operation.body.is_some();
        let consumes: &[&str] = if is_patch { &PATCH_TYPES } else { &["*/*"] };
        let mut produces: Vec<&str> = match &operation.answer {
            Some(_) => OBJECT_TYPES.to_vec(),
            None if operation.action == "connect" => vec!["*/*"],
            None => vec!["text/plain", "application/json", "application/yaml", "application/vnd.kubernetes.protobuf"],
        };
        if operation.action == "list" {
            produces.extend(["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"]);
        }
        let answer = match &operation.answer {
            Some(name) => json!({ "$ref": self.format.reference(name) }),
            None => json!({ "type": "string" }),
        };
        let mut parameters = operation.parameters;
        let mut responses = Map::new();
        match self.format {
            Format::V3 => {
                if let Some(body) = operation.body {
                    let schema = json!({ "schema": { "$ref": self.format.reference(&body) } });
                    let content: Map<String, Value> =
                        consumes.iter().map(|media| (media.to_string(), schema.clone())).collect();
                    let required = operation.method != "delete";
                    let mut request = json!({ "content": content });
                    if required {
                        request["required"] = true.into();
                    }
                    out.insert("requestBody".into(), request);
                }
                let content: Map<String, Value> =
                    produces.iter().map(|media| (media.to_string(), json!({ "schema": answer }))).collect();
                for code in operation.codes {
                    let response = json!({ "description": code_text(code), "content": content });
                    responses.insert(code.to_string(), response);
                }
            }
            Format::V2 => {
                out.insert("consumes".into(), json!(consumes));
                out.insert("produces".into(), json!(produces));
                out.insert("schemes".into(), json!(["https"]));
                if let Some(body) = operation.body {
                    let mut parameter =
                        json!({ "name": "body", "in": "body", "schema": { "$ref": self.format.reference(&body) } });
                    if operation.method != "delete" {
                        parameter["required"] = true.into();
                    }
                    parameters.insert(0, parameter);
                }
                for code in operation.codes {
                    responses.insert(code.to_string(), json!({ "description": code_text(code), "schema": answer }));
                }
            }
        }
        responses.insert("401".into(), json!({ "description": "Unauthorized" }));
        out.insert("responses".into(), Value::Object(responses));
        if !parameters.is_empty() {
            out.insert("parameters".into(), Value::Array(parameters));
        }
        Value::Object(out)
    }

    fn gvk(&self) -> Value {
        group_version_kind(&self.kind.group, &self.kind.version, &self.kind.kind)
    }

    /// `core_v1`, `rbacAuthorization_v1`
    fn tag(&self) -> String {
        let group = match self.kind.group.as_ref() {
            "" => "core".to_owned(),
            group => {
                let part = group_words(group);
                let (head, tail) = part.split_at(part.len().min(1));
                format!("{}{tail}", head.to_lowercase())
            }
        };
        format!("{group}_{}", self.kind.version)
    }

    /// `CoreV1`, `RbacAuthorizationV1`
    fn group_part(&self) -> String {
        let group = if self.kind.group.is_empty() { "Core".to_owned() } else { group_words(&self.kind.group) };
        format!("{group}{}", camel(&self.kind.version))
    }

    fn id(&self, verb: &str, infix: &str, suffix: &str) -> String {
        let scope = if self.kind.scope == Scope::Namespaced { "Namespaced" } else { "" };
        format!("{verb}{}{infix}{scope}{}{suffix}", self.group_part(), self.kind.kind)
    }

    fn what(&self, suffix: &str) -> String {
        if suffix.is_empty() {
            self.kind.kind.to_string()
        } else {
            format!("{} of {}", suffix.to_lowercase(), self.kind.kind)
        }
    }

    fn write_parameters(&self, patch: bool) -> Vec<Value> {
        let mut parameters = vec![
            query("dryRun", "string", "Says that nothing is to be stored. The only value is All.", self.format),
            query(
                "fieldManager",
                "string",
                "The name of the actor that makes these changes, at most 128 characters.",
                self.format,
            ),
            query(
                "fieldValidation",
                "string",
                "What to do about unknown and duplicate fields: Ignore, Warn (the default) or Strict.",
                self.format,
            ),
        ];
        if patch {
            let force = "For apply patches: take over fields that others own.";
            parameters.push(query("force", "boolean", force, self.format));
        }
        parameters
    }

    fn delete_parameters(&self) -> Vec<Value> {
        [
            ("dryRun", "string", "Says that nothing is to be deleted. The only value is All."),
            ("gracePeriodSeconds", "integer", "Seconds before the object is deleted. Zero means at once."),
            (
                "ignoreStoreReadErrorWithClusterBreakingPotential",
                "boolean",
                "Delete an object that cannot be read from the store. Dangerous.",
            ),
            ("orphanDependents", "boolean", "Deprecated: use propagationPolicy."),
            ("propagationPolicy", "string", "What becomes of dependents: Orphan, Background or Foreground."),
        ]
        .into_iter()
        .map(|(name, ty, description)| query(name, ty, description, self.format))
        .collect()
    }

    fn list_parameters(&self, watchable: bool) -> Vec<Value> {
        let mut parameters = vec![
            ("continue", "string", "The token of an earlier list, to get what follows it."),
            ("fieldSelector", "string", "Selects objects by their fields. Defaults to everything."),
            ("labelSelector", "string", "Selects objects by their labels. Defaults to everything."),
            ("limit", "integer", "The most objects to answer with; a continue token leads to the rest."),
            (
                "resourceVersion",
                "string",
                "The version of the store that the answer must be from or not be older than.",
            ),
            ("resourceVersionMatch", "string", "How resourceVersion is meant: Exact or NotOlderThan."),
            ("sendInitialEvents", "boolean", "Begins a watch with an event for each object there is, then a bookmark."),
            ("timeoutSeconds", "integer", "How long the call may last."),
        ];
        if watchable {
            parameters.insert(0, ("allowWatchBookmarks", "boolean", "Asks for events of type BOOKMARK."));
            parameters.push(("watch", "boolean", "Watch for changes instead of listing."));
        }
        parameters.into_iter().map(|(name, ty, description)| query(name, ty, description, self.format)).collect()
    }
}

fn connect_parameters(name: &str, format: Format) -> Vec<Value> {
    let streams = [
        ("container", "string", "The container; may be left out when the pod has one only."),
        ("stderr", "boolean", "Whether to send standard error."),
        ("stdin", "boolean", "Whether to take standard input."),
        ("stdout", "boolean", "Whether to send standard output."),
        ("tty", "boolean", "Whether there is a terminal."),
    ];
    let mut parameters = match name {
        "exec" => vec![("command", "string", "The command and its arguments; not run in a shell.")],
        "portforward" => vec![("ports", "integer", "Ports to forward, for WebSocket.")],
        "proxy" => vec![("path", "string", "The path below the proxied service.")],
        _ => Vec::new(),
    };
    if matches!(name, "attach" | "exec") {
        parameters.extend(streams);
    }
    parameters.into_iter().map(|(name, ty, description)| query(name, ty, description, format)).collect()
}

fn log_parameters(format: Format) -> Vec<Value> {
    [
        ("container", "string", "The container; may be left out when the pod has one only."),
        ("follow", "boolean", "Go on with what is yet to be logged."),
        ("insecureSkipTLSVerifyBackend", "boolean", "Do not check the kubelet's certificate."),
        ("limitBytes", "integer", "The most bytes to answer with."),
        ("previous", "boolean", "Logs of the container's previous run."),
        ("sinceSeconds", "integer", "Only lines at most so many seconds old."),
        ("sinceTime", "string", "Only lines from this time on (RFC 3339)."),
        ("stream", "string", "All, Stdout or Stderr."),
        ("tailLines", "integer", "Only so many lines from the end."),
        ("timestamps", "boolean", "Begin each line with its time."),
    ]
    .into_iter()
    .map(|(name, ty, description)| query(name, ty, description, format))
    .collect()
}

fn query(name: &str, ty: &str, description: &str, format: Format) -> Value {
    let base = json!({ "name": name, "in": "query", "description": description });
    typed(base, ty, format)
}

fn path_parameter(name: &str, description: &str, format: Format) -> Value {
    let base = json!({ "name": name, "in": "path", "description": description, "required": true });
    typed(base, "string", format)
}

fn typed(mut parameter: Value, ty: &str, format: Format) -> Value {
    match format {
        Format::V3 => parameter["schema"] = json!({ "type": ty, "uniqueItems": true }),
        Format::V2 => {
            parameter["type"] = ty.into();
            parameter["uniqueItems"] = true.into();
        }
    }
    parameter
}

fn code_text(code: &str) -> &'static str {
    match code {
        "201" => "Created",
        "202" => "Accepted",
        _ => "OK",
    }
}

/// `RbacAuthorization` for `rbac.authorization.k8s.io`
fn group_words(group: &str) -> String {
    group.trim_end_matches(".k8s.io").split('.').map(camel).collect()
}

fn camel(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

fn article(noun: &str) -> &'static str {
    if noun.starts_with(['A', 'E', 'I', 'O', 'U']) { "an" } else { "a" }
}
