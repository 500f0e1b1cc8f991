//! The paths of kinds: what each kind can be asked, in upstream's words for actions and ids.

use serde_json::{Map, Value};

use super::names::{camel, with_article};
use super::operation::{Answer, Operation, path_item};
use super::parameters::{DELETE, FORCE, LIST, LOG, PRETTY, WATCH, WRITE, of_connect, path, queries};
use super::schemas::{META, group_version_kind, schema_name};
use super::{Format, group_version_path, names};
use crate::kind::{Kind, Scope, Subresource, Verb};

/// What the description of each deprecated watch path ends with.
const USE_LIST: &str = "deprecated: use the 'watch' parameter with a list operation instead";

/// The paths of the kinds of some group versions, discovery of these included.
pub(super) fn all(kinds: &[&Kind], format: Format) -> Map<String, Value> {
    let mut paths = Map::new();
    for kind in kinds {
        let root = format!("/{}/", group_version_path(&kind.group, &kind.version));
        if !paths.contains_key(&root) {
            let id = format!("get{}APIResources", names::group_version(&kind.group, &kind.version));
            let answer = Answer::Object(format!("{META}.APIResourceList"));
            let tag = names::tag(&kind.group, &kind.version);
            let read = Operation::read(id, tag, "get available resources", answer);
            paths.insert(root, path_item(vec![read], Vec::new(), format));
        }
        Writer { kind, format, paths: &mut paths }.kind();
    }
    paths
}

struct Writer<'a> {
    kind: &'a Kind,
    format: Format,
    paths: &'a mut Map<String, Value>,
}

/// What a path leads to: the kind itself or a subresource, whose body may be of another kind.
struct Body {
    /// Empty for the kind itself.
    subresource: String,
    schema: String,
    gvk: Value,
}

impl Writer<'_> {
    fn kind(&mut self) {
        let kind = self.kind;
        let base = format!("/{}", group_version_path(&kind.group, &kind.version));
        let namespaced = kind.scope == Scope::Namespaced;
        let tail = match namespaced {
            true => format!("/namespaces/{{namespace}}/{}", kind.resource),
            false => format!("/{}", kind.resource),
        };
        let gvk = group_version_kind(&kind.group, &kind.version, &kind.kind);
        let body = Body { subresource: String::new(), schema: kind.schema.to_string(), gvk };
        let mut operations = Vec::new();
        if kind.has_verb(Verb::List) {
            operations.push(self.list(self.id("list", ""), &body));
        }
        if kind.has_verb(Verb::Create) {
            operations.push(self.create(&body));
        }
        if kind.has_verb(Verb::DeleteCollection) {
            operations.push(self.delete_collection(&body));
        }
        self.insert(&format!("{base}{tail}"), operations, &body);
        if namespaced && kind.has_verb(Verb::List) {
            let list = self.list(self.id_of("list", "", "ForAllNamespaces"), &body);
            self.insert(&format!("{base}/{}", kind.resource), vec![list], &body);
        }
        if kind.has_verb(Verb::Watch) {
            self.watches(&base, &tail, namespaced, &body);
        }
        let item = format!("{base}{tail}/{{name}}");
        let verbs = [Verb::Get, Verb::Update, Verb::Patch, Verb::Delete];
        let operations = verbs.into_iter().filter(|v| kind.has_verb(*v)).filter_map(|v| self.on_item(v, &body));
        self.insert(&item, operations.collect(), &body);
        for subresource in &kind.subresources {
            self.subresource(&item, subresource, &body.gvk);
        }
    }

    /// The deprecated paths below `/watch/`.
    fn watches(&mut self, base: &str, tail: &str, namespaced: bool, body: &Body) {
        let resource = &self.kind.resource;
        if namespaced {
            let watch = self.watch("watchlist", self.id_of("watch", "", "ListForAllNamespaces"), body);
            self.insert(&format!("{base}/watch/{resource}"), vec![watch], body);
        }
        let watch = self.watch("watchlist", self.id("watch", "List"), body);
        self.insert(&format!("{base}/watch{tail}"), vec![watch], body);
        if self.kind.has_verb(Verb::Get) {
            let watch = self.watch("watch", self.id("watch", ""), body);
            self.insert(&format!("{base}/watch{tail}/{{name}}"), vec![watch], body);
        }
    }

    fn subresource(&mut self, item: &str, subresource: &Subresource, own: &Value) {
        let (schema, gvk) = match &subresource.body {
            Some((group, version, kind)) => {
                (schema_name(group, version, kind), group_version_kind(group, version, kind))
            }
            None => (self.kind.schema.to_string(), own.clone()),
        };
        let body = Body { subresource: subresource.name.to_string(), schema, gvk };
        let path = format!("{item}/{}", subresource.name);
        match subresource.name.as_ref() {
            "attach" | "exec" | "portforward" => {
                let operations = self.connect(&subresource.verbs, &body, "");
                self.insert(&path, operations, &body);
            }
            "proxy" => {
                for (rest, suffix) in [("", ""), ("/{path}", "WithPath")] {
                    let operations = self.connect(&subresource.verbs, &body, suffix);
                    self.insert(&format!("{path}{rest}"), operations, &body);
                }
            }
            name => {
                let on_item = subresource.verbs.iter().filter_map(|verb| self.on_item(*verb, &body));
                let mut operations: Vec<_> = on_item.collect();
                if subresource.verbs.contains(&Verb::Create) {
                    operations.push(self.create(&body));
                }
                if name == "log" {
                    for operation in &mut operations {
                        operation.answer = Answer::Log;
                        operation.parameters.extend(queries(&[LOG], self.format));
                    }
                }
                self.insert(&path, operations, &body);
            }
        }
    }

    fn on_item(&self, verb: Verb, body: &Body) -> Option<Operation> {
        let the = self.specified(body);
        let delete_options = || Some(format!("{META}.DeleteOptions"));
        let object = || Some(body.schema.clone());
        let (method, prefix, description, codes, parameters, input): (_, _, _, &'static [&'static str], &[_], _) =
            match verb {
                Verb::Get => ("get", "read", format!("read {the}"), &["200"], &[], None),
                Verb::Update => ("put", "replace", format!("replace {the}"), &["200", "201"], &[WRITE], object()),
                Verb::Patch => {
                    let patch = Some(format!("{META}.Patch"));
                    ("patch", "patch", format!("partially update {the}"), &["200", "201"], &[WRITE, FORCE], patch)
                }
                Verb::Delete => {
                    let description = format!("delete {}", with_article(&self.kind.kind));
                    ("delete", "delete", description, &["200", "202"], &[DELETE], delete_options())
                }
                _ => return None,
            };
        let answer = if verb == Verb::Delete && !self.kind.returns_deleted {
            format!("{META}.Status")
        } else {
            body.schema.clone()
        };
        let mut operation =
            self.operation(method, method, self.id(prefix, &camel(&body.subresource)), description, body);
        operation.parameters = queries(&[&[PRETTY], parameters].concat(), self.format);
        operation.body = input;
        operation.answer = Answer::Object(answer);
        operation.codes = codes;
        Some(operation)
    }

    fn list(&self, id: String, body: &Body) -> Operation {
        let or_watch = if self.kind.has_verb(Verb::Watch) { " or watch" } else { "" };
        let description = format!("list{or_watch} objects of kind {}", self.kind.kind);
        let mut list = self.operation("get", "list", id, description, body);
        list.parameters = queries(&[PRETTY, LIST, WATCH], self.format);
        list.answer = Answer::List(format!("{}List", body.schema));
        list
    }

    fn watch(&self, action: &'static str, id: String, body: &Body) -> Operation {
        let kind = &self.kind.kind;
        let description = match action {
            "watchlist" => format!("watch individual changes to a list of {kind}. {USE_LIST}."),
            _ => format!(
                "watch changes to an object of kind {kind}. {USE_LIST}, filtered to a single item with the \
                 'fieldSelector' parameter."
            ),
        };
        let mut watch = self.operation("get", action, id, description, body);
        watch.parameters = queries(&[PRETTY, LIST, WATCH], self.format);
        watch.answer = Answer::List(format!("{META}.WatchEvent"));
        watch
    }

    fn create(&self, body: &Body) -> Operation {
        let of = with_article(&self.kind.kind);
        let description = match body.subresource.as_str() {
            "" => format!("create {of}"),
            subresource => format!("create {subresource} of {of}"),
        };
        let mut create =
            self.operation("post", "post", self.id("create", &camel(&body.subresource)), description, body);
        create.parameters = queries(&[PRETTY, WRITE], self.format);
        create.body = Some(body.schema.clone());
        create.codes = &["200", "201", "202"];
        create
    }

    fn delete_collection(&self, body: &Body) -> Operation {
        let description = format!("delete collection of {}", self.kind.kind);
        let id = self.id_with("delete", "Collection", "");
        let mut delete = self.operation("delete", "deletecollection", id, description, body);
        delete.parameters = queries(&[PRETTY, DELETE, LIST], self.format);
        delete.body = Some(format!("{META}.DeleteOptions"));
        delete.answer = Answer::Object(format!("{META}.Status"));
        delete
    }

    fn connect(&self, verbs: &[Verb], body: &Body, suffix: &str) -> Vec<Operation> {
        let methods = [
            (Some(Verb::Get), "get"),
            (Some(Verb::Create), "post"),
            (Some(Verb::Update), "put"),
            (Some(Verb::Delete), "delete"),
            (Some(Verb::Patch), "patch"),
            // A proxy passes these on too; they are no verbs of resources.
            (None, "head"),
            (None, "options"),
        ];
        let is_proxy = body.subresource == "proxy";
        let offered = methods.into_iter().filter(|(verb, _)| verb.map_or(is_proxy, |verb| verbs.contains(&verb)));
        offered
            .map(|(_, method)| {
                let id = self.id_with("connect", &camel(method), &format!("{}{suffix}", camel(&body.subresource)));
                let (upper, name, kind) = (method.to_uppercase(), &body.subresource, &self.kind.kind);
                let description = format!("connect {upper} requests to {name} of {kind}");
                let mut connect = self.operation(method, "connect", id, description, body);
                connect.parameters = queries(&[of_connect(name)], self.format);
                connect.answer = Answer::Stream;
                connect
            })
            .collect()
    }

    fn operation(
        &self,
        method: &'static str,
        action: &'static str,
        id: String,
        description: String,
        body: &Body,
    ) -> Operation {
        let tag = names::tag(&self.kind.group, &self.kind.version);
        let answer = Answer::Object(body.schema.clone());
        let read = Operation::read(id, tag, &description, answer);
        let action = Some((action, body.gvk.clone()));
        Operation { method, action, strategic: self.kind.custom.is_none(), ..read }
    }

    fn insert(&mut self, to: &str, operations: Vec<Operation>, body: &Body) {
        if operations.is_empty() {
            return;
        }
        let kind = body.gvk["kind"].as_str().unwrap_or_default();
        let known = [
            ("{name}", "name", format!("name of the {kind}")),
            ("{namespace}", "namespace", "object name and auth scope, such as for teams and projects".to_owned()),
            ("{path}", "path", "path to the resource".to_owned()),
        ];
        let parts = known.iter().filter(|(part, ..)| to.split('/').any(|p| p == *part));
        let parameters = parts.map(|(_, name, text)| path(name, text, self.format)).collect();
        self.paths.insert(to.to_owned(), path_item(operations, parameters, self.format));
    }

    /// `the specified Pod`, `status of the specified Pod`
    fn specified(&self, body: &Body) -> String {
        match body.subresource.as_str() {
            "" => format!("the specified {}", self.kind.kind),
            subresource => format!("{subresource} of the specified {}", self.kind.kind),
        }
    }

    /// `readCoreV1NamespacedPodStatus`
    fn id(&self, verb: &str, suffix: &str) -> String {
        self.id_with(verb, "", suffix)
    }

    /// The same with a word before the scope: `deleteCoreV1CollectionNamespacedPod`.
    fn id_with(&self, verb: &str, infix: &str, suffix: &str) -> String {
        let scope = if self.kind.scope == Scope::Namespaced { "Namespaced" } else { "" };
        self.id_of(verb, &format!("{infix}{scope}"), suffix)
    }

    fn id_of(&self, verb: &str, infix: &str, suffix: &str) -> String {
        let group_version = names::group_version(&self.kind.group, &self.kind.version);
        format!("{verb}{group_version}{infix}{}{suffix}", self.kind.kind)
    }
}
