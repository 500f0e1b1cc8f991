//! Which of a definition's names it gets: a name goes to whoever asked first, within a group. Upstream's naming, establishing
//! and API-approval controllers in one pure function; the API server carries it out.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use serde_json::{Value, json};

use super::set_condition;
use super::validate::{Approval, approval};
use crate::kinds::mutate::make;

/// Names in one group that are not to be had.
#[derive(Default)]
struct Names<'a> {
    /// Plurals, singulars and short names.
    resources: HashSet<&'a str>,
    /// Kinds and kinds of lists.
    kinds: HashSet<&'a str>,
}

/// The built-in kinds' names by group. Upstream's server answers for those itself, whatever a definition says.
static BUILT_IN: LazyLock<HashMap<String, Names<'static>>> = LazyLock::new(|| {
    let mut groups: HashMap<String, Names<'static>> = HashMap::new();
    // Leaked once: they live as long as the process.
    for kind in Vec::leak(crate::kinds::all()) {
        let names = groups.entry(kind.group.to_string()).or_default();
        names.resources.extend([&*kind.resource, &*kind.singular].into_iter().filter(|name| !name.is_empty()));
        names.resources.extend(kind.short_names.iter().map(|name| &**name));
        names.kinds.extend([&*kind.kind, &*kind.list_kind]);
    }
    groups
});

/// Sets `status.acceptedNames` and the conditions `NamesAccepted`, `Established` and
/// `KubernetesAPIApprovalPolicyConformant` of a definition, given the other definitions and the built-in kinds, whose names
/// are never given away. Says whether anything changed.
pub fn accept<'a>(object: &mut Value, others: impl Iterator<Item = &'a Value>, now: &Value) -> bool {
    let before = object["status"].clone();
    let (mut resources, mut kinds) = (HashSet::new(), HashSet::new());
    let group = object["spec"]["group"].clone();
    let built_in = group.as_str().and_then(|group| BUILT_IN.get(group));
    for other in others.filter(|other| other["spec"]["group"] == group) {
        let names = &other["status"]["acceptedNames"];
        let text = |key: &str| names[key].as_str().filter(|name| !name.is_empty());
        resources.extend(text("plural"));
        resources.extend(text("singular"));
        resources.extend(names["shortNames"].as_array().into_iter().flatten().filter_map(Value::as_str));
        kinds.extend(text("kind"));
        kinds.extend(text("listKind"));
    }
    let requested = object["spec"]["names"].clone();
    let mut accepted = object["status"]["acceptedNames"].clone();
    if !accepted.is_object() {
        accepted = json!({});
    }
    let mut conflict: Option<(&'static str, String)> = None;
    if let Some(built_in) = built_in {
        // Not even what was accepted before there was such a kind.
        disown(&mut accepted, built_in);
        resources.extend(&built_in.resources);
        kinds.extend(&built_in.kinds);
    }
    settle(&requested, &mut accepted, ("plural", "PluralConflict"), &resources, &mut conflict);
    settle(&requested, &mut accepted, ("singular", "SingularConflict"), &resources, &mut conflict);
    let wanted = requested["shortNames"].as_array().map(Vec::as_slice).unwrap_or_default();
    let own = accepted["shortNames"].as_array().cloned().unwrap_or_default();
    let new = wanted.iter().filter(|name| !own.contains(name)).filter_map(Value::as_str);
    let errors: Vec<String> = new.filter_map(|name| taken(name, &resources)).collect();
    match errors.as_slice() {
        [] => set_or_remove(&mut accepted, "shortNames", &requested),
        [one] => conflict = Some(("ShortNamesConflict", one.clone())),
        many => conflict = Some(("ShortNamesConflict", format!("[{}]", many.join(", ")))),
    }
    settle(&requested, &mut accepted, ("kind", "KindConflict"), &kinds, &mut conflict);
    settle(&requested, &mut accepted, ("listKind", "ListKindConflict"), &kinds, &mut conflict);
    set_or_remove(&mut accepted, "categories", &requested);
    // Without a name of its own nothing is served, whatever was said before.
    let named = built_in.is_none() || ["plural", "kind"].iter().all(|field| accepted[*field].as_str() > Some(""));
    if let Some(status) = object.as_object_mut().and_then(|object| make(object, "status")) {
        status.insert("acceptedNames".into(), accepted);
    }
    let established =
        named && super::condition(object, "Established").is_some_and(|condition| condition["status"] == "True");
    match conflict {
        None => {
            set_condition(object, "NamesAccepted", true, "NoConflicts", "no conflicts found", now);
            if !established {
                let message = "the initial names have been accepted";
                set_condition(object, "Established", true, "InitialNamesAccepted", message, now);
            }
        }
        Some((reason, message)) => {
            set_condition(object, "NamesAccepted", false, reason, &message, now);
            if !established {
                set_condition(object, "Established", false, "NotAccepted", "not all names are accepted", now);
            }
        }
    }
    if let Some((state, why)) = approval(object) {
        let (status, reason) = match state {
            Approval::Invalid => (false, "InvalidAnnotation"),
            Approval::Missing => (false, "MissingAnnotation"),
            Approval::Approved => (true, "ApprovedAnnotation"),
            Approval::Bypassed => (false, "UnapprovedAnnotation"),
        };
        set_condition(object, "KubernetesAPIApprovalPolicyConformant", status, reason, &why, now);
    }
    object["status"] != before
}

/// Takes a built-in kind's names off those accepted.
fn disown(accepted: &mut Value, built_in: &Names<'_>) {
    for (field, names) in [
        ("plural", &built_in.resources),
        ("singular", &built_in.resources),
        ("kind", &built_in.kinds),
        ("listKind", &built_in.kinds),
    ] {
        let Some(map) = accepted.as_object_mut() else { return };
        if !map.get(field).and_then(Value::as_str).is_some_and(|name| names.contains(name)) {
            continue;
        }
        match field {
            // These two are always there.
            "plural" | "kind" => drop(map.insert(field.into(), "".into())),
            _ => drop(map.remove(field)),
        }
    }
    if let Some(short) = accepted.get_mut("shortNames").and_then(Value::as_array_mut) {
        short.retain(|name| name.as_str().is_none_or(|name| !built_in.resources.contains(name)));
    }
}

fn taken(name: &str, used: &HashSet<&str>) -> Option<String> {
    used.contains(name).then(|| format!("{name:?} is already in use"))
}

/// Accepts a name unless somebody else has it.
fn settle(
    requested: &Value,
    accepted: &mut Value,
    (field, reason): (&str, &'static str),
    used: &HashSet<&str>,
    conflict: &mut Option<(&'static str, String)>,
) {
    let name = requested[field].as_str().unwrap_or_default();
    match taken(name, used).filter(|_| accepted[field] != name) {
        Some(why) => *conflict = Some((reason, why)),
        None => accepted[field] = name.into(),
    }
}

fn set_or_remove(names: &mut Value, field: &str, from: &Value) {
    let Some(map) = names.as_object_mut() else { return };
    match from.get(field) {
        Some(value) if !value.is_null() => drop(map.insert(field.into(), value.clone())),
        _ => drop(map.remove(field)),
    }
}
