//! CSIDriver

use std::collections::HashSet;

use serde_json::{Value, json};

use super::GROUP;
use crate::kind::{Column, Kind, Strategy, Write};
use crate::kinds::mutate::{Rules, make, prepare, set};
use crate::kinds::print::{NONE, age, items, join};
use crate::status::FieldError;
use crate::validation::{Errors, View, immutable, one_of};

pub(crate) fn kind() -> Kind {
    let flag = |name, description, cell| Column::string(name, description, cell).typed("boolean");
    Kind::cluster(GROUP, "v1", "CSIDriver", "csidrivers", &CsiDriver).returns_deleted().columns(vec![
        flag("AttachRequired", "Whether its volumes are attached before they are mounted.", |object, _| {
            json!(object["spec"]["attachRequired"] != false)
        }),
        flag("PodInfoOnMount", "Whether it is told of the pod that mounts.", |object, _| {
            json!(object["spec"]["podInfoOnMount"] == true)
        }),
        flag("StorageCapacity", "Whether it publishes how much it has.", |object, _| {
            json!(object["spec"]["storageCapacity"] == true)
        }),
        Column::string("TokenRequests", "Audiences of the tokens it gets.", |object, _| tokens(object).into()),
        flag("RequiresRepublish", "Whether it is called again while a volume is mounted.", |object, _| {
            json!(object["spec"]["requiresRepublish"] == true)
        }),
        Column::string("Modes", "Kinds of volumes it makes.", |object, _| {
            let modes = join(items(&object["spec"]["volumeLifecycleModes"]).filter_map(Value::as_str));
            if modes.is_empty() { NONE.into() } else { modes.into() }
        }),
        age(),
    ])
}

fn tokens(object: &Value) -> String {
    let requests = &object["spec"]["tokenRequests"];
    if requests.is_null() {
        return "<unset>".into();
    }
    join(items(requests).map(|request| request["audience"].as_str().unwrap_or_default()))
}

#[derive(Debug)]
struct CsiDriver;

impl Strategy for CsiDriver {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object.as_object_mut().and_then(|object| make(object, "spec")) else { return };
        set(spec, "attachRequired", true);
        set(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        for field in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
            set(spec, field, false);
        }
        if spec.get("volumeLifecycleModes").and_then(Value::as_array).is_none_or(Vec::is_empty) {
            spec.insert("volumeLifecycleModes".into(), json!(["Persistent"]));
        }
    }

    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        // A new one has no generation; it counts changes only.
        prepare(object, write, Rules { generation: write != Write::Create, create_with_status: false });
    }

    fn validate(&self, object: &Value, write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        let spec = root.get("spec");
        let policy = spec.get("fsGroupPolicy");
        if policy.is_set() {
            one_of(policy, &["File", "None", "ReadWriteOnceWithFSType"], &mut errors);
        }
        validate_tokens(spec.get("tokenRequests"), &mut errors);
        let modes = spec.get("volumeLifecycleModes");
        for mode in modes.items() {
            if !matches!(mode.str(), "Persistent" | "Ephemeral") {
                errors.push(modes.with(mode.value).not_supported(&["Persistent", "Ephemeral"]));
            }
        }
        let period = spec.get("nodeAllocatableUpdatePeriodSeconds");
        if period.int().is_some_and(|n| n < 10) {
            errors.push(period.invalid("must be greater than or equal to 10 seconds"));
        }
        let in_secrets = spec.get("serviceAccountTokenInSecrets");
        if in_secrets.is_set() && spec.get("tokenRequests").is_empty() {
            let detail = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
            errors.push(in_secrets.invalid(detail));
        }
        if let Write::Update(old) = write {
            let old = &old["spec"];
            // Upstream's path has the extra letters.
            let attach = View::at("spec.attachedRequired", &object["spec"]["attachRequired"]);
            immutable(attach, &old["attachRequired"], &mut errors);
            immutable(modes, &old["volumeLifecycleModes"], &mut errors);
        }
        errors
    }

    fn unconditional_update(&self) -> bool {
        false
    }
}

fn validate_tokens(requests: View, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for request in requests.items() {
        let (audience, seconds) = (request.get("audience"), request.get("expirationSeconds"));
        if !seen.insert(audience.str()) {
            errors.push(FieldError::duplicate(audience.path(), audience.str()));
            continue;
        }
        match seconds.int() {
            Some(n) if n < 600 => errors.push(seconds.invalid("may not specify a duration less than 10 minutes")),
            Some(n) if n > 1 << 32 => {
                errors.push(seconds.invalid("may not specify a duration larger than 2^32 seconds"));
            }
            _ => {}
        }
    }
}
