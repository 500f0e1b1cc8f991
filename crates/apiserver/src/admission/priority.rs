//! Priority: a pod's priority comes from its PriorityClass, or from the one class that is the default.

use keelson_api::status::Status;
use serde::Deserialize;
use serde_json::Value;

use super::{Operation, Request};

const GROUP: &str = "scheduling.k8s.io";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Class {
    #[serde(default)]
    value: i64,
    #[serde(default)]
    global_default: bool,
    #[serde(default)]
    preemption_policy: Option<String>,
}

pub(super) fn mutate(request: &Request<'_>, object: &mut Value) -> Result<(), Status> {
    if !request.is("", "pods") {
        return Ok(());
    }
    match (request.operation, request.old) {
        (Operation::Create, _) => {}
        (Operation::Update, Some(old)) => {
            keep(object, old);
            return Ok(());
        }
        _ => return Ok(()),
    }
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return Ok(()) };
    let classes = request.core.registry.known(GROUP, "priorityclasses")?.cache()?;
    let named = spec.get("priorityClassName").and_then(Value::as_str).unwrap_or_default().to_owned();
    let class = if named.is_empty() {
        let snapshot = classes.snapshot();
        let all = snapshot.map.values().filter_map(|e| Some((e.name().to_owned(), e.typed::<Class>().ok()?)));
        // Of several defaults upstream takes the lowest.
        all.filter(|(_, class)| class.global_default).min_by_key(|(_, class)| class.value)
    } else {
        let entry = classes.get("", &named);
        let entry = entry.ok_or_else(|| request.forbidden(&format!("no PriorityClass with name {named} was found")))?;
        Some((named, entry.typed::<Class>()?))
    };
    let (name, value, policy) = match class {
        Some((name, class)) => (name, class.value, class.preemption_policy),
        None => (String::new(), 0, None),
    };
    if let Some(own) = spec.get("priority").and_then(Value::as_i64).filter(|own| *own != value) {
        return Err(request.forbidden(&format!(
            "the integer value of priority ({own}) must not be provided in pod spec; priority admission controller \
             computed {value} from the given PriorityClass name"
        )));
    }
    let policy = policy.unwrap_or_else(|| "PreemptLowerPriority".into());
    if let Some(own) = spec.get("preemptionPolicy").and_then(Value::as_str).filter(|own| *own != policy) {
        return Err(request.forbidden(&format!(
            "the string value of PreemptionPolicy ({own}) must not be provided in pod spec; priority admission \
             controller computed {policy} from the given PriorityClass name"
        )));
    }
    if !name.is_empty() {
        spec.insert("priorityClassName".into(), name.into());
    }
    spec.insert("priority".into(), value.into());
    spec.insert("preemptionPolicy".into(), policy.into());
    Ok(())
}

/// An update that says nothing of them changes nothing.
fn keep(object: &mut Value, old: &Value) {
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    for field in ["priority", "preemptionPolicy"] {
        let old = &old["spec"][field];
        if spec.get(field).is_none_or(Value::is_null) && !old.is_null() {
            spec.insert(field.into(), old.clone());
        }
    }
}

/// There is one default class at most.
pub(super) fn validate(request: &Request<'_>, object: &Value) -> Result<(), Status> {
    let writes = matches!(request.operation, Operation::Create | Operation::Update);
    if !writes || !request.is(GROUP, "priorityclasses") || object["globalDefault"] != true {
        return Ok(());
    }
    let snapshot = request.core.registry.known(GROUP, "priorityclasses")?.cache()?.snapshot();
    for entry in snapshot.map.values().filter(|entry| entry.name() != request.name) {
        if entry.typed::<Class>()?.global_default {
            let other = entry.name();
            let why = format!("PriorityClass {other} is already marked as default. Only one default can exist");
            return Err(request.forbidden(&why));
        }
    }
    Ok(())
}
