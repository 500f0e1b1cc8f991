//! The condition `Dangling` of FlowSchemas: whether their priority level is there.

use keelson_api::status::Status;
use serde_json::{Value, json};

use super::{GROUP, LEVELS, SCHEMAS};
use crate::core::Core;
use crate::registry::create::now;
use crate::registry::options::WriteOptions;
use crate::registry::update::{Target, update};

const DANGLING: &str = "Dangling";

/// Writes the condition where it is not as it should be.
pub(crate) async fn write(core: &Core) {
    let (Some(schemas), Some(levels)) = (core.cache.resource(GROUP, SCHEMAS), core.cache.resource(GROUP, LEVELS))
    else {
        return;
    };
    for entry in schemas.snapshot().map.values() {
        let Ok(schema) = entry.decode() else { continue };
        let level = schema.pointer("/spec/priorityLevelConfiguration/name").and_then(Value::as_str).unwrap_or_default();
        let wanted = condition(level, levels.get("", level).is_some());
        if is_there(&schema, &wanted) {
            continue;
        }
        match set(core, entry.name(), &wanted).await {
            // Somebody else was here, or it is gone: there will be another change.
            Err(status) if matches!(status.code, 404 | 409) => {}
            Err(status) => {
                tracing::warn!(schema = entry.name(), why = status.message, "a FlowSchema's status was not written");
            }
            Ok(()) => {}
        }
    }
}

fn condition(level: &str, found: bool) -> Value {
    let object = format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?}");
    let (status, reason, message) = match found {
        true => ("False", "Found", format!("{object} and it exists")),
        false => ("True", "NotFound", format!("{object} but there is no such object")),
    };
    json!({"type": DANGLING, "status": status, "reason": reason, "message": message})
}

fn is_there(schema: &Value, wanted: &Value) -> bool {
    let same = |condition: &Value| ["type", "status", "reason", "message"].iter().all(|f| condition[*f] == wanted[*f]);
    schema.pointer("/status/conditions").and_then(Value::as_array).is_some_and(|all| all.iter().any(same))
}

async fn set(core: &Core, name: &str, wanted: &Value) -> Result<(), Status> {
    let resource = core.registry.known(GROUP, SCHEMAS)?;
    let target = Target { resource, namespace: "", name, subresource: "status" };
    let change = |old: &Value| {
        let mut new = old.clone();
        let conditions = old.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
        let mut conditions: Vec<Value> = conditions.into_iter().filter(|one| one["type"] != DANGLING).collect();
        let mut condition = wanted.clone();
        condition["lastTransitionTime"] = now().into();
        conditions.push(condition);
        if let Some(map) = new.as_object_mut() {
            map.insert("status".into(), json!({"conditions": conditions}));
        }
        Ok(new)
    };
    update(core, target, &WriteOptions::internal(), change).await.map(|_| ())
}
