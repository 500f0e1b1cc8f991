use serde_json::{Value, json};

use crate::kind::Write;
use crate::kinds::testing::{check, check_row, check_write, created, kind, with};

const CLASS: &str = "storage.k8s.io/v1 StorageClass";
const ATTRIBUTES: &str = "storage.k8s.io/v1 VolumeAttributesClass";
const DRIVER: &str = "storage.k8s.io/v1 CSIDriver";
const NODE: &str = "storage.k8s.io/v1 CSINode";
const CAPACITY: &str = "storage.k8s.io/v1 CSIStorageCapacity";
const ATTACHMENT: &str = "storage.k8s.io/v1 VolumeAttachment";

#[test]
fn storage_classes() {
    let made = created(CLASS, json!({"metadata": {"name": "fast"}, "provisioner": "Example.com/nfs"}));
    assert_eq!((&made["reclaimPolicy"], &made["volumeBindingMode"]), (&json!("Delete"), &json!("Immediate")));
    assert_eq!(made["metadata"].get("generation"), None);
    check(CLASS, made.clone(), &[]);
    check_row(CLASS, made.clone(), "fast Example.com/nfs Delete Immediate false 60m");
    let default = json!({"metadata": {"name": "fast", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "p", "allowVolumeExpansion": true, "reclaimPolicy": "Retain"});
    check_row(CLASS, default, "fast (default) p Retain Immediate true 60m");
    check(CLASS, json!({}), &["provisioner: Required value"]);
    check(
        CLASS,
        json!({"provisioner": "p", "reclaimPolicy": "Recycle", "volumeBindingMode": "x", "parameters": {"": "a"}}),
        &[
            "parameters: Invalid value: \"\": field can not be empty.",
            "reclaimPolicy: Unsupported value: \"Recycle\": supported values: \"Delete\", \"Retain\"",
            "volumeBindingMode: Unsupported value: \"x\": supported values: \"Immediate\", \"WaitForFirstConsumer\"",
        ],
    );
    check(
        CLASS,
        json!({"provisioner": "a/b/c", "parameters": {"a": "x".repeat(256 * 1024)}}),
        &[
            "provisioner: Invalid value: \"a/b/c\": a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
            "parameters: Too long: may not be more than 262144 bytes",
        ],
    );
    let zones = |values: Value| json!({"matchLabelExpressions": [{"key": "zone", "values": values}]});
    check(
        CLASS,
        json!({"provisioner": "p", "allowedTopologies": [
            zones(json!(["a", "a"])), zones(json!(["a"])),
            {"matchLabelExpressions": [{"key": "k", "values": ["v"]}, {"key": "k"}]},
        ]}),
        &[
            "allowedTopologies[0].matchLabelExpressions[0].values[1]: Duplicate value: \"a\"",
            "allowedTopologies[1].matchLabelExpressions: Duplicate value: \"\"",
            "allowedTopologies[2].matchLabelExpressions[1].values: Required value",
            "allowedTopologies[2].matchLabelExpressions[1].key: Duplicate value: \"k\"",
        ],
    );
    check_write(
        CLASS,
        "",
        &made,
        json!({"parameters": {"a": "b"}, "provisioner": "q", "reclaimPolicy": "Retain", "volumeBindingMode": "WaitForFirstConsumer"}),
        &[
            "parameters: Forbidden: updates to parameters are forbidden.",
            "provisioner: Forbidden: updates to provisioner are forbidden.",
            "reclaimPolicy: Forbidden: updates to reclaimPolicy are forbidden.",
            "volumeBindingMode: Invalid value: \"WaitForFirstConsumer\": field is immutable",
        ],
    );
    check_write(CLASS, "", &made, json!({"allowVolumeExpansion": true, "mountOptions": ["ro"]}), &[]);
}

#[test]
fn volume_attributes_classes() {
    let made = created(ATTRIBUTES, json!({"metadata": {"name": "a"}, "driverName": "d", "parameters": {"iops": "1"}}));
    check(ATTRIBUTES, made.clone(), &[]);
    check_row(ATTRIBUTES, made.clone(), "a d 60m");
    check(
        ATTRIBUTES,
        json!({}),
        &["driverName: Required value", "parameters: Required value: must contain at least one key/value pair"],
    );
    check_write(
        ATTRIBUTES,
        "",
        &made,
        json!({"driverName": "e", "parameters": {"iops": "2"}}),
        &[
            "driverName: Forbidden: updates to driverName are forbidden.",
            "parameters: Forbidden: updates to parameters are forbidden.",
        ],
    );
}

#[test]
fn csi_drivers() {
    let made = created(DRIVER, json!({}));
    assert_eq!(
        made["spec"],
        json!({
            "attachRequired": true, "podInfoOnMount": false, "storageCapacity": false, "requiresRepublish": false,
            "seLinuxMount": false, "fsGroupPolicy": "ReadWriteOnceWithFSType", "volumeLifecycleModes": ["Persistent"],
        })
    );
    assert_eq!(made["metadata"].get("generation"), None);
    check(DRIVER, made.clone(), &[]);
    check_row(DRIVER, made.clone(), "true false false <unset> false Persistent 60m");
    check_row(
        DRIVER,
        json!({"spec": {"attachRequired": false, "tokenRequests": [{"audience": "a"}, {"audience": "b"}]}}),
        "false false false a,b false <none> 60m",
    );
    check(
        DRIVER,
        json!({"spec": {
            "fsGroupPolicy": "x", "volumeLifecycleModes": ["Ephemeral", "y"], "nodeAllocatableUpdatePeriodSeconds": 9,
            "tokenRequests": [{"audience": "a"}, {"audience": "a"}, {"audience": "b", "expirationSeconds": 599}],
        }}),
        &[
            "spec.fsGroupPolicy: Unsupported value: \"x\": supported values: \"File\", \"None\", \"ReadWriteOnceWithFSType\"",
            "spec.tokenRequests[1].audience: Duplicate value: \"a\"",
            "spec.tokenRequests[2].expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes",
            "spec.volumeLifecycleModes: Unsupported value: \"y\": supported values: \"Persistent\", \"Ephemeral\"",
            "spec.nodeAllocatableUpdatePeriodSeconds: Invalid value: 9: must be greater than or equal to 10 seconds",
        ],
    );
    check(
        DRIVER,
        json!({"spec": {"serviceAccountTokenInSecrets": true}}),
        &[
            "spec.serviceAccountTokenInSecrets: Invalid value: true: serviceAccountTokenInSecrets is set but no tokenRequests are specified",
        ],
    );
    check_write(
        DRIVER,
        "",
        &made,
        json!({"spec": {"attachRequired": false, "volumeLifecycleModes": ["Ephemeral"]}}),
        &[
            "spec.attachedRequired: Invalid value: false: field is immutable",
            "spec.volumeLifecycleModes: Invalid value: [\"Ephemeral\"]: field is immutable",
        ],
    );
    let changed = check_write(DRIVER, "", &made, json!({"spec": {"podInfoOnMount": true}}), &[]);
    assert_eq!(changed["metadata"]["generation"], 1);
}

#[test]
fn csi_nodes() {
    let driver = json!({"name": "d.example.com", "nodeID": "n", "topologyKeys": ["zone"], "allocatable": {"count": 3}});
    let made = created(NODE, json!({"spec": {"drivers": [driver]}}));
    check(NODE, made.clone(), &[]);
    check_row(NODE, made.clone(), "1 60m");
    check(
        NODE,
        json!({"spec": {"drivers": [
            {"name": "a", "nodeID": ""}, {"name": "a", "nodeID": "n", "topologyKeys": ["", "z", "z"], "allocatable": {"count": -1}},
            {"name": "x".repeat(64), "nodeID": "n".repeat(257)},
        ]}}),
        &[
            "spec.drivers[0].nodeID: Required value",
            "spec.drivers[1].allocatable.count: Invalid value: -1: must be greater than or equal to 0",
            "spec.drivers[1].name: Duplicate value: \"a\"",
            "spec.drivers[1]: Required value",
            "spec.drivers[1]: Invalid value: \"\": name part must be non-empty",
            "spec.drivers[1]: Invalid value: \"\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
            "spec.drivers[1]: Duplicate value: \"z\"",
            "spec.drivers[2].name: Too long: may not be more than 63 bytes",
            &format!("spec.drivers[2].nodeID: Invalid value: \"{}\": must be 256 characters or less", "n".repeat(257)),
        ],
    );
    let changed = |patch: Value| json!({"spec": {"drivers": [with(&made["spec"]["drivers"][0], patch)]}});
    check_write(NODE, "", &made, changed(json!({"allocatable": {"count": 4}})), &[]);
    check_write(NODE, "", &made, json!({"spec": {"drivers": []}}), &[]);
    check_write(
        NODE,
        "",
        &made,
        changed(json!({"nodeID": "m"})),
        &[
            "spec.drivers: Invalid value: {\"name\":\"d.example.com\",\"nodeID\":\"m\",\"topologyKeys\":[\"zone\"]}: field is immutable",
        ],
    );
}

#[test]
fn csi_storage_capacities() {
    let capacity =
        json!({"storageClassName": "fast", "nodeTopology": {"matchLabels": {"zone": "a"}}, "capacity": "10Gi"});
    let made = created(CAPACITY, capacity);
    check(CAPACITY, made.clone(), &[]);
    check_row(CAPACITY, made.clone(), "fast 10Gi");
    check_row(CAPACITY, json!({"storageClassName": "fast"}), "fast <unset>");
    check(
        CAPACITY,
        json!({"storageClassName": "fast", "capacity": "-1", "nodeTopology": {"matchExpressions": [{"key": "a", "operator": "x"}]}}),
        &[
            "nodeTopology.matchExpressions[0].operator: Invalid value: \"x\": not a valid selector operator",
            "capacity: Invalid value: \"-1\": must be greater than or equal to 0",
        ],
    );
    check_write(
        CAPACITY,
        "",
        &made,
        json!({"storageClassName": "slow", "nodeTopology": null, "capacity": "1"}),
        &[
            "nodeTopology: Invalid value: null: field is immutable",
            "storageClassName: Invalid value: \"slow\": field is immutable",
        ],
    );
}

#[test]
fn volume_attachments() {
    let attachment = json!({"spec": {"attacher": "d.example.com", "nodeName": "n", "source": {"persistentVolumeName": "pv"}},
        "status": {"attached": true}});
    let made = created(ATTACHMENT, attachment);
    assert_eq!(made["status"], json!({"attached": false}));
    check(ATTACHMENT, made.clone(), &[]);
    check_row(ATTACHMENT, made.clone(), "d.example.com pv n false 60m");
    check(
        ATTACHMENT,
        json!({"spec": {"attacher": "", "nodeName": "n", "source": {}}}),
        &[
            "spec.attacher: Required value",
            "spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName",
            "spec.attacher: Required value",
            "spec.attacher: Invalid value: \"\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        ],
    );
    check(
        ATTACHMENT,
        json!({"spec": {"attacher": "a", "nodeName": "n", "source": {"persistentVolumeName": "pv", "inlineVolumeSpec": {}}}}),
        &["spec.source: Forbidden: must specify exactly one of inlineVolumeSpec and persistentVolumeName"],
    );
    let inline =
        |spec: Value| json!({"spec": {"attacher": "a", "nodeName": "n", "source": {"inlineVolumeSpec": spec}}});
    let csi = json!({"csi": {"driver": "d.example.com", "volumeHandle": "v"}, "accessModes": ["ReadWriteOnce"]});
    check(ATTACHMENT, inline(csi.clone()), &[]);
    let wrong = json!({"claimRef": {"name": "c"}, "capacity": {"storage": "1Gi"}, "persistentVolumeReclaimPolicy": "Delete",
        "nodeAffinity": {}, "storageClassName": "s", "volumeMode": "Block"});
    let here = "in the context of inline volumes";
    let forbidden =
        |field: &str| format!("spec.source.inlineVolumeSpec.{field}: Forbidden: may not be specified {here}");
    check(
        ATTACHMENT,
        inline(with(&csi, wrong)),
        &[
            &forbidden("claimRef"),
            &forbidden("capacity"),
            &format!(
                "spec.source.inlineVolumeSpec.persistentVolumeReclaimPolicy: Forbidden: may only be Retain {here}"
            ),
            &forbidden("nodeAffinity"),
            &forbidden("storageClassName"),
            &format!(
                "spec.source.inlineVolumeSpec.volumeMode: Forbidden: may not specify volumeMode other than Filesystem {here}"
            ),
        ],
    );
    check(
        ATTACHMENT,
        inline(json!({"nfs": {"server": "s", "path": "/"}})),
        &[
            &format!("spec.source.inlineVolumeSpec.csi: Required value: has to be specified {here}"),
            "spec.source.inlineVolumeSpec.accessModes: Required value",
        ],
    );
    check_write(
        ATTACHMENT,
        "",
        &made,
        json!({"spec": {"nodeName": "m"}}),
        &[
            "spec: Invalid value: {\"attacher\":\"d.example.com\",\"nodeName\":\"m\",\"source\":{\"persistentVolumeName\":\"pv\"}}: field is immutable",
        ],
    );
    let changed = check_write(
        ATTACHMENT,
        "status",
        &made,
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"nodeName": "m"},
            "status": {"attached": true, "attachError": {"message": "x".repeat(1025), "errorCode": -1}}}),
        &[
            "status.attachError.message: Too long: may not be more than 262144 bytes",
            "status.attachError.errorCode: Invalid value: -1: must be between 0 and 2147483647, inclusive",
        ],
    );
    assert_eq!((&changed["spec"], &changed["metadata"]), (&made["spec"], &made["metadata"]));
    assert_eq!(changed["status"]["attached"], true);
    // These must name the version that they replace.
    for name in [ATTACHMENT, DRIVER, NODE, CAPACITY] {
        assert!(!kind(name).strategy.unconditional_update(), "{name}");
        assert!(kind(name).strategy.warnings(&json!({}), Write::Create).is_empty());
    }
}
