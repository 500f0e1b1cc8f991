use serde_json::{Value, json};

use crate::kinds::testing::{check, check_row, check_write, created, kind, with};

const CLASS: &str = "resource.k8s.io/v1 DeviceClass";
const CLAIM: &str = "resource.k8s.io/v1 ResourceClaim";
const TEMPLATE: &str = "resource.k8s.io/v1 ResourceClaimTemplate";
const SLICE: &str = "resource.k8s.io/v1 ResourceSlice";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const REFERENCE: &str =
    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
const IDENTIFIER: &str = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')";

fn claim(requests: Value) -> Value {
    json!({"metadata": {"name": "c", "namespace": "n"}, "spec": {"devices": {"requests": requests}}})
}

fn exactly(more: Value) -> Value {
    claim(json!([{"name": "r", "exactly": with(&json!({"deviceClassName": "gpu"}), more)}]))
}

fn many(n: usize, item: &Value) -> Value {
    vec![item.clone(); n].into()
}

#[test]
fn device_classes() {
    let class = json!({"metadata": {"name": "gpu"}, "spec": {
        "selectors": [{"cel": {"expression": "true"}}], "extendedResourceName": "example.com/gpu",
        "config": [{"opaque": {"driver": "gpu.example.com", "parameters": {"a": 1}}}]}});
    let made = created(CLASS, class.clone());
    assert_eq!((&made["metadata"]["generation"], made["spec"].get("extendedResourceName")), (&json!(1), None));
    check(CLASS, class.clone(), &[]);
    check_row(CLASS, made.clone(), "60m");
    let stored = check_write(CLASS, "", &made, json!({"spec": {"selectors": null}}), &[]);
    assert_eq!(stored["metadata"]["generation"], 2);
    check(
        CLASS,
        json!({"spec": {"selectors": [{}, {"cel": {"expression": "x".repeat(10 * 1024 + 1)}}], "config": [
            {}, {"opaque": {"driver": "a", "parameters": []}}, {"opaque": {"driver": "a"}},
            {"opaque": {"driver": "a", "parameters": {"a": "x".repeat(10 * 1024)}}},
        ]}}),
        &[
            "spec.selectors[0].cel: Required value",
            "spec.selectors[1].cel.expression: Too long: may not be more than 10240 bytes",
            "spec.config[0].opaque: Required value",
            "spec.config[1].opaque.parameters: Invalid value: \"<value omitted>\": must be a valid JSON object",
            "spec.config[2].opaque.parameters: Required value",
            "spec.config[3].opaque.parameters: Too long: may not be more than 10240 bytes",
        ],
    );
    check(
        CLASS,
        json!({"spec": {"selectors": many(33, &json!({})), "config": many(33, &json!({}))}}),
        &[
            "spec.selectors: Too many: 33: must have at most 32 items",
            "spec.config: Too many: 33: must have at most 32 items",
        ],
    );
}

#[test]
fn claims_ask_for_devices() {
    let made =
        created(CLAIM, with(&exactly(json!({"tolerations": [{"operator": "Exists"}]})), json!({"status": {"x": 1}})));
    let wanted = &made["spec"]["devices"]["requests"][0]["exactly"];
    assert_eq!(wanted, &json!({"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1}));
    assert_eq!((made.get("status"), made["metadata"].get("generation")), (None, None));
    check(CLAIM, exactly(json!({"allocationMode": "All"})), &[]);
    let either = claim(
        json!([{"name": "r", "firstAvailable": [{"name": "a", "deviceClassName": "big"}, {"name": "b", "deviceClassName": "small", "count": 2}]}]),
    );
    let first = &created(CLAIM, either.clone())["spec"]["devices"]["requests"][0]["firstAvailable"];
    assert_eq!(
        (&first[0]["count"], &first[1]["count"], &first[1]["allocationMode"]),
        (&json!(1), &json!(2), &json!("ExactCount"))
    );
    let refers = json!({"spec": {"devices": {
        "constraints": [{"requests": ["r", "r/a"], "matchAttribute": "example.com/model"}],
        "config": [{"requests": ["r/b"], "opaque": {"driver": "d.example.com", "parameters": {}}}],
    }}});
    check(CLAIM, with(&either, refers), &[]);

    for (request, complaint) in [
        (json!({"count": -1}), "count: Invalid value: -1: must be greater than zero"),
        (
            json!({"allocationMode": "All", "count": 1}),
            "count: Invalid value: 1: must not be specified when allocationMode is 'All'",
        ),
        (
            json!({"allocationMode": "Some"}),
            "allocationMode: Unsupported value: \"Some\": supported values: \"All\", \"ExactCount\"",
        ),
        (json!({"deviceClassName": ""}), "deviceClassName: Required value"),
        (json!({"deviceClassName": "A"}), &format!("deviceClassName: Invalid value: \"A\": {SUBDOMAIN}")),
        (json!({"selectors": [{}]}), "selectors[0].cel: Required value"),
    ] {
        check(CLAIM, exactly(request), &[&format!("spec.devices.requests[0].exactly.{complaint}")]);
    }
    let both = json!({"name": "x", "exactly": {"deviceClassName": "a"}, "firstAvailable": [{"name": "a", "deviceClassName": "a"}]});
    check(
        CLAIM,
        claim(
            json!([{"name": "R"}, both, {"name": "x", "exactly": {"deviceClassName": "a"}}, {"name": "y", "firstAvailable":
            [{"name": "a", "deviceClassName": "a"}, {"name": "a", "deviceClassName": "a"}]}]),
        ),
        &[
            &format!("spec.devices.requests[0].name: Invalid value: \"R\": {LABEL}"),
            "spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required",
            "spec.devices.requests[1]: Invalid value: null: exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set",
            "spec.devices.requests[3].firstAvailable[1]: Duplicate value: \"a\"",
            "spec.devices.requests[2]: Duplicate value: \"x\"",
        ],
    );
    check(
        CLAIM,
        claim(many(33, &json!({"name": "a"}))),
        &["spec.devices.requests: Too many: 33: must have at most 32 items"],
    );
    check(
        CLAIM,
        with(
            &exactly(json!({})),
            json!({"spec": {"devices": {
                "constraints": [
                    {"matchAttribute": "model"}, {}, {"requests": ["r", "r", "x", "r/a/b"], "matchAttribute": "/"},
                    {"matchAttribute": "example.com/1"},
                ],
                "config": [{"requests": ["r/a"], "opaque": {"driver": "d", "parameters": {}}}],
            }}}),
        ),
        &[
            "spec.devices.constraints[0].matchAttribute: Invalid value: \"model\": a fully qualified name must be a domain and a name separated by a slash",
            "spec.devices.constraints[1].matchAttribute: Required value",
            &format!("spec.devices.constraints[2].requests[2]: Invalid value: \"x\": {REFERENCE}"),
            &format!("spec.devices.constraints[2].requests[3]: Invalid value: \"r/a/b\": {REFERENCE}"),
            "spec.devices.constraints[2].requests[1]: Duplicate value: \"r\"",
            "spec.devices.constraints[2].matchAttribute: Invalid value: \"\": the domain must not be empty",
            "spec.devices.constraints[2].matchAttribute: Invalid value: \"\": the name must not be empty",
            &format!("spec.devices.constraints[3].matchAttribute: Invalid value: \"1\": {IDENTIFIER}"),
            &format!("spec.devices.config[0].requests[0]: Invalid value: \"r/a\": {REFERENCE}"),
        ],
    );
}

#[test]
fn claims_keep_their_spec() {
    let made = created(CLAIM, exactly(json!({})));
    check_write(CLAIM, "", &made, json!({"metadata": {"labels": {"a": "b"}}}), &[]);
    let spec = json!({"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 2}}]}});
    check_write(
        CLAIM,
        "",
        &made,
        json!({ "spec": spec }),
        &[&format!("spec: Invalid value: {spec}: field is immutable")],
    );
}

fn allocation() -> Value {
    json!({"devices": {
        "results": [{"request": "r", "driver": "d.example.com", "pool": "p/q", "device": "one"}],
        "config": [{"source": "FromClass", "opaque": {"driver": "d.example.com", "parameters": {"a": 1}}}],
    }})
}

#[test]
fn claims_are_allocated() {
    let made = created(CLAIM, exactly(json!({})));
    check_row(CLAIM, made.clone(), "pending 60m");
    check_row(CLAIM, with(&made, json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})), "deleted 60m");
    let pod = |uid: &str| json!({"resource": "pods", "name": uid, "uid": uid});
    let gated = with(&allocation(), json!({"allocationTimestamp": "2026-01-01T00:00:00Z"}));
    let patch = json!({"metadata": {"labels": {"a": "b"}}, "status": {"allocation": gated, "reservedFor": [pod("a")]}});
    let used = check_write(CLAIM, "status", &made, patch, &[]);
    assert_eq!((used["metadata"].get("labels"), &used["status"]["allocation"]), (None, &allocation()));
    check_row(CLAIM, used.clone(), "allocated,reserved 60m");

    let device = json!({"driver": "d.example.com", "pool": "p/q", "device": "one", "data": {"a": 1},
        "networkData": {"interfaceName": "eth0", "ips": ["192.0.2.1/24", "2001:db8::1/64"]},
        "conditions": [{"type": "Ready", "status": "True", "reason": "Ok", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
    let reported = check_write(CLAIM, "status", &used, json!({"status": {"devices": [device]}}), &[]);
    let freed =
        check_write(CLAIM, "status", &reported, json!({"status": {"allocation": null, "reservedFor": null}}), &[]);
    assert_eq!(freed["status"].get("devices"), None, "what was reported goes with the device");

    check_write(
        CLAIM,
        "status",
        &made,
        json!({"status": {"reservedFor": [{"uid": "a"}, pod("a"), {"resource": "x", "name": "y"}]}}),
        &[
            "status.reservedFor[0].resource: Required value",
            "status.reservedFor[0].name: Required value",
            "status.reservedFor[2].uid: Required value",
            "status.reservedFor[1]: Duplicate value: \"a\"",
            "status.reservedFor: Forbidden: may not be specified when `allocated` is not set",
        ],
    );
    let deleted = with(&used, json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    check_write(CLAIM, "status", &deleted, json!({"status": {"reservedFor": []}}), &[]);
    check_write(
        CLAIM,
        "status",
        &deleted,
        json!({"status": {"reservedFor": [pod("a"), pod("b")]}}),
        &[
            "status.reservedFor: Forbidden: new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set",
        ],
    );
    let other = json!({"devices": {"results": []}});
    let shown = json!({"devices": {"config": allocation()["devices"]["config"]}});
    check_write(
        CLAIM,
        "status",
        &used,
        json!({"status": {"allocation": other}}),
        &[&format!("status.allocation: Invalid value: {shown}: field is immutable")],
    );
    check_write(
        CLAIM,
        "status",
        &made,
        json!({"status": {"allocation": {"nodeSelector": {"nodeSelectorTerms": []}, "devices": {
            "results": [{"request": "x", "driver": "d", "pool": "", "device": "A"}],
            "config": [{"opaque": {"driver": "d", "parameters": {}}}, {"source": "x"}],
        }}}}),
        &[
            &format!("status.allocation.devices.results[0].request: Invalid value: \"x\": {REFERENCE}"),
            "status.allocation.devices.results[0].pool: Required value",
            &format!("status.allocation.devices.results[0].device: Invalid value: \"A\": {LABEL}"),
            "status.allocation.devices.config[0].source: Required value",
            "status.allocation.devices.config[1].source: Unsupported value: \"x\": supported values: \"FromClaim\", \"FromClass\"",
            "status.allocation.devices.config[1].opaque: Required value",
            "status.allocation.nodeSelector.nodeSelectorTerms: Required value: must have at least one node selector term",
        ],
    );
    let bad = json!({"driver": "d.example.com", "pool": "p", "device": "two", "networkData": {
        "interfaceName": "x".repeat(257), "hardwareAddress": "x".repeat(129), "ips": ["192.0.2.1", "192.0.2.010/24", "2001:DB8::1/64"]}});
    check_write(
        CLAIM,
        "status",
        &used,
        json!({"status": {"devices": [bad]}}),
        &[
            "status.devices[0]: Invalid value: d.example.com/p/two: must be an allocated device in the claim",
            "status.devices[0].networkData.interfaceName: Too long: may not be more than 256 bytes",
            "status.devices[0].networkData.hardwareAddress: Too long: may not be more than 128 bytes",
            "status.devices[0].networkData.ips[0]: Invalid value: \"192.0.2.1\": must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)",
            "status.devices[0].networkData.ips[1]: Invalid value: \"192.0.2.010/24\": must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)",
            "status.devices[0].networkData.ips[2]: Invalid value: \"2001:DB8::1/64\": must be in canonical form (\"2001:db8::1/64\")",
        ],
    );
}

#[test]
fn templates() {
    let template = json!({"metadata": {"name": "t", "namespace": "n"}, "spec": {
        "metadata": {"labels": {"a": "b"}}, "spec": exactly(json!({}))["spec"]}});
    let made = created(TEMPLATE, template.clone());
    assert_eq!(made["spec"]["spec"]["devices"]["requests"][0]["exactly"]["count"], 1);
    check(TEMPLATE, template, &[]);
    check_row(TEMPLATE, made.clone(), "60m");
    check(
        TEMPLATE,
        json!({"spec": {"metadata": {"annotations": {"": "a"}}, "spec": {"devices": {"requests": [{"name": "a"}]}}}}),
        &[
            "spec.metadata.annotations: Invalid value: \"\": name part must be non-empty",
            "spec.metadata.annotations: Invalid value: \"\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
            "spec.spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required",
        ],
    );
    let shown = with(&made["spec"], json!({"metadata": {"labels": {"a": "c"}}}));
    check_write(
        TEMPLATE,
        "",
        &made,
        json!({"spec": {"metadata": {"labels": {"a": "c"}}}}),
        &[&format!("spec: Invalid value: {shown}: field is immutable")],
    );
}

#[test]
fn slices() {
    let slice = json!({"metadata": {"name": "s"}, "spec": {
        "driver": "d.example.com", "nodeName": "node-1", "pool": {"name": "node-1", "generation": 0, "resourceSliceCount": 1},
        "devices": [{"name": "one", "taints": [{"key": "a", "effect": "NoExecute"}], "allNodes": true,
            "attributes": {"model": {"string": "x"}, "example.com/v": {"version": "1.2.3-a.1+b"}, "n": {"int": 0}, "b": {"bool": false}},
            "capacity": {"memory": {"value": "1Gi", "requestPolicy": {"default": "1"}}}}]}});
    let made = created(SLICE, slice.clone());
    let device = &made["spec"]["devices"][0];
    assert_eq!((device.get("taints"), device.get("allNodes")), (None, None), "behind features that are off");
    assert_eq!(device["capacity"], json!({"memory": {"value": "1Gi"}}));
    assert_eq!(made["metadata"]["generation"], 1);
    check(SLICE, slice.clone(), &[]);
    check_row(SLICE, made.clone(), "node-1 d.example.com node-1 60m");
    let fields = &kind(SLICE).field_selectors;
    let found: Vec<_> = fields.iter().map(|field| (&*field.path, field.get(&made).into_owned())).collect();
    assert_eq!(found, [("spec.nodeName", "node-1".into()), ("spec.driver", "d.example.com".into())]);

    let stored = check_write(SLICE, "", &made, json!({"spec": {"pool": {"generation": 1}}}), &[]);
    assert_eq!(stored["metadata"]["generation"], 2);
    check_write(
        SLICE,
        "",
        &made,
        json!({"spec": {"driver": "e", "nodeName": "node-2", "pool": {"name": "p"}}}),
        &[
            "spec.pool.name: Invalid value: \"p\": field is immutable",
            "spec.driver: Invalid value: \"e\": field is immutable",
            "spec.nodeName: Invalid value: \"node-2\": field is immutable",
        ],
    );
    check(
        SLICE,
        json!({"spec": {"pool": {"name": "a/B", "generation": -1}, "devices": [{"name": "a"}, {"name": "a"}, {"name": "A"}]}}),
        &[
            "spec.driver: Required value",
            &format!("spec.driver: Invalid value: \"\": {SUBDOMAIN}"),
            &format!("spec.pool.name: Invalid value: \"B\": {SUBDOMAIN}"),
            "spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero",
            "spec.pool.generation: Invalid value: -1: must be greater than or equal to zero",
            "spec: Required value: exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required",
            &format!("spec.devices[2].name: Invalid value: \"A\": {LABEL}"),
            "spec.devices[1]: Duplicate value: \"a\"",
        ],
    );
    check(
        SLICE,
        with(&slice, json!({"spec": {"allNodes": true}})),
        &[
            "spec: Invalid value: \"{`nodeName`, `allNodes`}\": exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required, but multiple fields are set",
        ],
    );
    check(
        SLICE,
        with(&slice, json!({"spec": {"nodeName": "", "allNodes": false, "nodeSelector": {"nodeSelectorTerms": []}}})),
        &[
            "spec.nodeName: Invalid value: \"\": must be either unset or set to a non-empty string",
            "spec.nodeSelector.nodeSelectorTerms: Required value: must have at least one node selector term",
            "spec.nodeSelector.nodeSelectorTerms: Invalid value: []: must have exactly one node selector term",
            "spec.allNodes: Invalid value: false: must be either unset or set to true",
        ],
    );
    check(
        SLICE,
        with(&slice, json!({"spec": {"devices": many(129, &json!({}))}})),
        &["spec.devices: Too many: 129: must have at most 128 items"],
    );
    let attributes =
        |attributes: Value| with(&slice, json!({"spec": {"devices": [{"name": "a", "attributes": attributes}]}}));
    let at = "spec.devices[0].attributes";
    check(
        SLICE,
        attributes(
            json!({"a": {}, "b": {"bool": true, "int": 1}, "c": {"version": "1.2"}, "d/e/f": {"int": 1}, "e": {"string": "x".repeat(65)}, "f/": {"int": 1}}),
        ),
        &[
            &format!("{at}[a]: Invalid value: \"\": exactly one value must be specified"),
            &format!("{at}[b]: Invalid value: {{\"bool\":true,\"int\":1}}: exactly one value must be specified"),
            &format!("{at}[c].version: Invalid value: \"1.2\": must be a string compatible with semver.org spec 2.0.0"),
            &format!("{at}: Invalid value: \"d/e/f\": must not contain more than one slash"),
            &format!("{at}[e].string: Too long: may not be more than 64 bytes"),
            &format!("{at}: Invalid value: \"\": the name must not be empty"),
        ],
    );
    let many: serde_json::Map<String, Value> = (0..33).map(|i| (format!("a{i}"), json!({"int": 1}))).collect();
    check(
        SLICE,
        attributes(many.into()),
        &["spec.devices[0]: Invalid value: 33: the total number of attributes and capacities must not exceed 32"],
    );
}
