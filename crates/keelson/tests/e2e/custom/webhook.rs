//! The conversion webhook. `v1` has `spec.at: "x,y"`, `v2` has `spec.x` and `spec.y`, the rest is the same.

use serde_json::{Value, json};

use super::super::webhook;

/// What the test program does in the pod.
pub(super) const TEST: &str = "e2e::custom::webhook::serve";

#[test]
#[ignore = "is no test but the webhook, for the pod to run"]
fn serve() -> Result<(), webhook::Failure> {
    webhook::serve(answer)
}

fn answer(_path: &str, review: &Value) -> Value {
    let request = &review["request"];
    let wanted = request["desiredAPIVersion"].as_str().unwrap_or_default();
    let objects: Vec<Value> =
        request["objects"].as_array().into_iter().flatten().map(|object| convert(object, wanted)).collect();
    println!("converted {} to {wanted}", objects.len());
    json!({"kind": review["kind"], "apiVersion": review["apiVersion"],
        "response": {"uid": request["uid"], "convertedObjects": objects, "result": {"status": "Success"}}})
}

fn convert(object: &Value, wanted: &str) -> Value {
    let mut object = object.clone();
    object["apiVersion"] = wanted.into();
    let Some(spec) = object["spec"].as_object_mut() else { return object };
    if wanted.ends_with("/v2") {
        let at = spec.remove("at").unwrap_or_default();
        let (x, y) = at.as_str().and_then(|at| at.split_once(',')).unwrap_or(("0", "0"));
        for (name, number) in [("x", x), ("y", y)] {
            spec.insert(name.into(), number.parse::<i64>().unwrap_or(0).into());
        }
    } else {
        let mut take = |name: &str| spec.remove(name).and_then(|n| n.as_i64()).unwrap_or(0);
        let at = format!("{},{}", take("x"), take("y"));
        spec.insert("at".into(), at.into());
    }
    object
}
