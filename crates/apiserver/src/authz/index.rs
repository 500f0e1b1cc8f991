//! The RBAC index: bindings by subject and rules by role, kept up to date with the watch cache, so that a decision looks at
//! the user's own bindings only.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use serde::Deserialize;

use super::rules::Rule;
use super::{Attributes, Decision};
use crate::UserInfo;
use crate::cache::feed::Listener;
use crate::cache::{Cache, Change, Entry, ResourceCache};

/// API group of roles and bindings.
pub(crate) const GROUP: &str = "rbac.authorization.k8s.io";

/// Who a binding is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    User(String),
    Group(String),
}

/// Role by namespace (empty: ClusterRole) and name.
type RoleKey = (String, String);

#[derive(Debug)]
struct Binding {
    /// As in the reason: `ClusterRoleBinding "x"` or `RoleBinding "x/ns"`.
    label: String,
    /// Empty: everywhere.
    namespace: String,
    role: RoleKey,
    /// Shown in the reason: `Group "system:masters"`.
    subjects: Vec<(Subject, String)>,
}

impl Binding {
    /// As upstream complains about a role that is not there.
    fn not_found(&self) -> String {
        let (namespace, name) = &self.role;
        let kind = if namespace.is_empty() { "clusterrole" } else { "role" };
        format!("{kind}.{GROUP} {name:?} not found")
    }
}

/// Errors as upstream's aggregates show them: each once.
fn aggregate(errors: &[String]) -> String {
    let mut once: Vec<&str> = Vec::new();
    for error in errors {
        if !once.contains(&error.as_str()) {
            once.push(error);
        }
    }
    match once.as_slice() {
        [] => String::new(),
        [one] => (*one).to_owned(),
        many => format!("[{}]", many.join(", ")),
    }
}

/// A binding and the key it is stored under.
type Keyed = (Arc<str>, Arc<Binding>);

#[derive(Default)]
struct Inner {
    roles: HashMap<RoleKey, Arc<[Rule]>>,
    bindings: HashMap<Arc<str>, Arc<Binding>>,
    by_subject: HashMap<Subject, Vec<Keyed>>,
}

/// The index.
#[derive(Default)]
pub(crate) struct RbacIndex {
    inner: RwLock<Inner>,
}

#[derive(Deserialize)]
struct RoleView {
    #[serde(default)]
    rules: Option<Vec<Rule>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BindingView {
    #[serde(default)]
    subjects: Option<Vec<SubjectView>>,
    role_ref: RoleRef,
}

#[derive(Deserialize)]
struct SubjectView {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: Option<String>,
}

#[derive(Deserialize)]
struct RoleRef {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    name: String,
}

impl RbacIndex {
    /// Allows what a bound role has a rule for; the reason names both.
    pub(super) fn decide(&self, user: &UserInfo, attributes: &Attributes) -> Decision {
        let inner = self.inner.read();
        let (mut found, mut missing) = (None, Vec::new());
        inner.each_binding(user, &attributes.namespace, |binding, subject, rules| {
            let Some(rules) = rules else {
                missing.push(binding.not_found());
                return true;
            };
            let allowed = rules.iter().any(|rule| rule.allows(attributes));
            if allowed {
                let kind = if binding.role.0.is_empty() { "ClusterRole" } else { "Role" };
                let (label, role) = (&binding.label, &binding.role.1);
                found = Some(format!("RBAC: allowed by {label} of {kind} {role:?} to {subject}"));
            }
            !allowed
        });
        match (found, missing.as_slice()) {
            (Some(reason), _) => Decision::allow(reason),
            (None, []) => Decision::default(),
            (None, missing) => Decision { reason: format!("RBAC: {}", aggregate(missing)), ..Decision::default() },
        }
    }

    /// All rules that hold for a user in a namespace (cluster-wide ones included), and which bound roles do not exist.
    pub(crate) fn rules_of(&self, user: &UserInfo, namespace: &str) -> (Vec<Rule>, String) {
        let inner = self.inner.read();
        let (mut all, mut missing) = (Vec::new(), Vec::new());
        inner.each_binding(user, namespace, |binding, _, rules| {
            match rules {
                Some(rules) => all.extend_from_slice(rules),
                None => missing.push(binding.not_found()),
            }
            true
        });
        (all, aggregate(&missing))
    }

    /// A role's rules; the namespace is empty for a ClusterRole.
    pub(crate) fn role(&self, namespace: &str, name: &str) -> Option<Arc<[Rule]>> {
        self.inner.read().roles.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }
}

impl Inner {
    /// Calls `visit` with each binding that applies, until it returns false.
    fn each_binding(
        &self,
        user: &UserInfo,
        namespace: &str,
        mut visit: impl FnMut(&Binding, &str, Option<&[Rule]>) -> bool,
    ) {
        let subjects = std::iter::once(Subject::User(user.name.clone()))
            .chain(user.groups.iter().map(|group| Subject::Group(group.clone())));
        for subject in subjects {
            for (_, binding) in self.by_subject.get(&subject).into_iter().flatten() {
                if !binding.namespace.is_empty() && binding.namespace != namespace {
                    continue;
                }
                let rules = self.roles.get(&binding.role).map(|rules| &**rules);
                let shown = binding.subjects.iter().find(|(s, _)| *s == subject).map_or("", |(_, shown)| shown);
                if !visit(binding, shown, rules) {
                    return;
                }
            }
        }
    }

    fn set(&mut self, resource: &str, key: &Arc<str>, entry: Option<&Entry>) {
        match resource {
            "roles" | "clusterroles" => {
                let mut parts = key.rsplit('/');
                let name = parts.next().unwrap_or_default().to_owned();
                let namespace = if resource == "roles" { parts.next().unwrap_or_default() } else { "" };
                let role = (namespace.to_owned(), name);
                match entry.and_then(|entry| entry.typed::<RoleView>().ok()) {
                    Some(view) => self.roles.insert(role, view.rules.unwrap_or_default().into()),
                    None => self.roles.remove(&role),
                };
            }
            "rolebindings" | "clusterrolebindings" => {
                if let Some(old) = self.bindings.remove(key) {
                    for (subject, _) in &old.subjects {
                        if let Some(list) = self.by_subject.get_mut(subject) {
                            list.retain(|(k, _)| k != key);
                            if list.is_empty() {
                                self.by_subject.remove(subject);
                            }
                        }
                    }
                }
                let Some(binding) = entry.and_then(|entry| binding(resource, entry)) else { return };
                let binding = Arc::new(binding);
                for (subject, _) in &binding.subjects {
                    self.by_subject.entry(subject.clone()).or_default().push((key.clone(), binding.clone()));
                }
                self.bindings.insert(key.clone(), binding);
            }
            _ => {}
        }
    }
}

fn binding(resource: &str, entry: &Entry) -> Option<Binding> {
    let view: BindingView = entry.typed().ok()?;
    let (label, namespace) = if resource == "rolebindings" {
        let namespace = entry.namespace();
        (format!("RoleBinding {:?}", format!("{}/{namespace}", entry.name())), namespace.to_owned())
    } else {
        (format!("ClusterRoleBinding {:?}", entry.name()), String::new())
    };
    let role_namespace = if view.role_ref.kind == "Role" { namespace.clone() } else { String::new() };
    let subjects = view.subjects.unwrap_or_default().into_iter().filter_map(|s| {
        let SubjectView { kind, name, namespace: of } = s;
        match kind.as_str() {
            "User" => Some((Subject::User(name.clone()), format!("User {name:?}"))),
            "Group" => Some((Subject::Group(name.clone()), format!("Group {name:?}"))),
            "ServiceAccount" => {
                let of = of.unwrap_or_else(|| namespace.clone());
                let user = format!("system:serviceaccount:{of}:{name}");
                Some((Subject::User(user), format!("ServiceAccount {:?}", format!("{name}/{of}"))))
            }
            _ => None,
        }
    });
    Some(Binding { label, role: (role_namespace, view.role_ref.name), subjects: subjects.collect(), namespace })
}

impl Listener for RbacIndex {
    fn changed(&self, resource: &ResourceCache, change: &Change) {
        if resource.group() != GROUP {
            return;
        }
        if let Some(entry) = change.new.as_ref().or(change.old.as_ref()) {
            self.inner.write().set(resource.resource(), &entry.key, change.new.as_deref());
        }
    }

    fn reloaded(&self, cache: &Cache) {
        let mut fresh = Inner::default();
        for resource in ["roles", "clusterroles", "rolebindings", "clusterrolebindings"] {
            let Some(cache) = cache.resource(GROUP, resource) else { continue };
            for (key, entry) in &cache.snapshot().map {
                fresh.set(resource, key, Some(entry));
            }
        }
        *self.inner.write() = fresh;
    }
}
