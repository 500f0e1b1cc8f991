use serde_json::json;

use crate::kinds::testing::{check, check_row, check_write, created};

const CLASS: &str = "node.k8s.io/v1 RuntimeClass";

#[test]
fn runtime_classes() {
    let class = json!({
        "handler": "gvisor", "overhead": {"podFixed": {"cpu": "250m"}},
        "scheduling": {"nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}]},
    });
    let made = created(CLASS, class.clone());
    check(CLASS, class, &[]);
    check_row(CLASS, made.clone(), "gvisor 60m");
    check(
        CLASS,
        json!({"handler": "Gvisor", "overhead": {"podFixed": {"cpu": "-1", "x": "1"}},
            "scheduling": {"nodeSelector": {"a": "-"}, "tolerations": [{"key": "a", "operator": "x"}]}}),
        &[
            "handler: Invalid value: \"Gvisor\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            "overhead.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
            "overhead.limits[x]: Invalid value: \"x\": must be a standard resource type or fully qualified",
            "overhead.limits[x]: Invalid value: \"x\": must be a standard resource for containers",
            "scheduling.nodeSelector: Invalid value: \"-\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
            "scheduling.tolerations[0].operator: Unsupported value: \"x\": supported values: \"Equal\", \"Exists\"",
        ],
    );
    check_write(
        CLASS,
        "",
        &made,
        json!({"handler": "kata"}),
        &["handler: Invalid value: \"kata\": field is immutable"],
    );
}
