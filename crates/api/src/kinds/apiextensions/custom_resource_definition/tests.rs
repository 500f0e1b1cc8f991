use serde_json::{Value, json};

use crate::kinds::testing::{check as check_kind, check_row, check_write, created, kind, with};

const CRD: &str = "apiextensions.k8s.io/v1 CustomResourceDefinition";

fn definition() -> Value {
    json!({
        "metadata": {"name": "crontabs.stable.example.com"},
        "spec": {
            "group": "stable.example.com", "scope": "Namespaced", "names": {"plural": "crontabs", "kind": "CronTab"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}],
        },
    })
}

fn schema(schema: Value) -> Value {
    let mut object = definition();
    object["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = schema;
    object
}

fn spec(schema_: Value) -> Value {
    schema(json!({"type": "object", "properties": {"spec": schema_}}))
}

const ROOT: &str = "spec.validation.openAPIV3Schema";

#[track_caller]
fn check(object: Value, expected: &[&str]) {
    check_kind(CRD, object, expected);
}

#[track_caller]
fn check_spec(schema: Value, expected: &[&str]) {
    let expected: Vec<String> = expected.iter().map(|e| format!("{ROOT}.properties[spec]{e}")).collect();
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    check(spec(schema), &expected);
}

#[test]
fn creation() {
    let object = created(CRD, definition());
    assert_eq!(object["spec"]["names"]["singular"], "crontab");
    assert_eq!(object["spec"]["names"]["listKind"], "CronTabList");
    assert_eq!(object["spec"]["conversion"], json!({"strategy": "None"}));
    assert_eq!(object["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(object["metadata"]["generation"], 1);
    check(definition(), &[]);
    check_row(
        CRD,
        with(&object, json!({"metadata": {"creationTimestamp": "2026-01-02T03:04:05Z"}})),
        "2026-01-02T03:04:05Z",
    );
}

#[test]
fn names_and_scope() {
    check(
        with(&definition(), json!({"metadata": {"name": "x"}})),
        &["metadata.name: Invalid value: \"x\": must be spec.names.plural+\".\"+spec.group"],
    );
    let mut object = definition();
    object["metadata"]["name"] = json!("crontabs.example");
    object["spec"]["group"] = json!("example");
    object["spec"]["scope"] = json!("Galaxy");
    object["spec"]["names"]["kind"] = json!("Cron_Tab");
    object["spec"]["names"]["listKind"] = json!("Cron_Tab");
    object["spec"]["names"]["singular"] = json!("crontab");
    object["spec"]["names"]["shortNames"] = json!(["CT"]);
    let label = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
                 character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for \
                 validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
    check(
        object,
        &[
            "spec.group: Invalid value: \"example\": should be a domain with at least one dot",
            "spec.scope: Unsupported value: \"Galaxy\": supported values: \"Cluster\", \"Namespaced\"",
            &format!(
                "spec.names.kind: Invalid value: \"Cron_Tab\": may have mixed case, but should otherwise match: {label}"
            ),
            &format!(
                "spec.names.listKind: Invalid value: \"Cron_Tab\": may have mixed case, but should otherwise match: {label}"
            ),
            &format!("spec.names.shortNames[0]: Invalid value: \"CT\": {label}"),
            "spec.names.listKind: Invalid value: \"Cron_Tab\": kind and listKind may not be the same",
        ],
    );
    check(
        with(&definition(), json!({"metadata": {"name": "crontabs.a.k8s.io"}, "spec": {"group": "a.k8s.io"}})),
        &[
            "metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups must have approval annotation \
         \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111",
        ],
    );
    let approved = json!({"metadata": {"name": "crontabs.a.k8s.io", "annotations": {"api-approved.kubernetes.io": "unapproved, testing"}}, "spec": {"group": "a.k8s.io"}});
    check(with(&definition(), approved), &[]);
    check(
        with(&definition(), json!({"spec": {"preserveUnknownFields": true}})),
        &[
            "spec.preserveUnknownFields: Invalid value: true: cannot set to true, set x-kubernetes-preserve-unknown-fields to \
         true in spec.versions[*].schema instead",
        ],
    );
}

#[test]
fn versions() {
    let mut object = definition();
    let mut second = object["spec"]["versions"][0].clone();
    object["spec"]["versions"].as_array_mut().unwrap().push(second.clone());
    check(
        object.clone(),
        &[
            "spec.versions: Invalid value: [\"v1\",\"v1\"]: must contain unique version names",
            "spec.versions: Invalid value: [\"v1\",\"v1\"]: must have exactly one version marked as storage version",
        ],
    );
    second = json!({"name": "V2", "served": true, "storage": false, "deprecationWarning": "x"});
    object["spec"]["versions"][1] = second;
    let errors = [
        "spec.versions[1].schema.openAPIV3Schema: Required value: schemas are required",
        "spec.versions[1].name: Invalid value: \"V2\": a DNS-1035 label must consist of lower case alphanumeric characters \
         or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', \
         regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
        "spec.versions[1].deprecationWarning: Invalid value: \"x\": can only be set for deprecated versions",
    ];
    check(object.clone(), &errors);
    // What differs is named where it is.
    object["spec"]["versions"][1] = json!({"name": "v2", "served": true, "storage": false,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"a": {}}}}});
    check(
        object,
        &[
            "spec.versions[1].schema.openAPIV3Schema.properties[a].type: Required value: must not be empty for specified object fields",
        ],
    );
}

#[test]
fn structural_schemas() {
    check(schema(json!({})), &[&format!("{ROOT}.type: Required value: must not be empty at the root")]);
    check(
        schema(json!({"type": "string"})),
        &[&format!("{ROOT}.type: Invalid value: \"string\": must be object at the root")],
    );
    check(
        schema(json!({"type": "object", "nullable": true})),
        &[&format!("{ROOT}.nullable: Forbidden: nullable cannot be true at the root")],
    );
    check(
        schema(
            json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}}),
        ),
        &[&format!(
            "{ROOT}.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified"
        )],
    );
    check_spec(json!({"type": "object"}), &[]);
    check_spec(json!({}), &[".type: Required value: must not be empty for specified object fields"]);
    check_spec(json!({"type": "array"}), &[".items: Required value: must be specified"]);
    check_spec(
        json!({"type": "array", "items": {}}),
        &[".items.type: Required value: must not be empty for specified array items"],
    );
    check_spec(json!({"x-kubernetes-int-or-string": true}), &[]);
    check_spec(json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}), &[]);
    check_spec(
        json!({"x-kubernetes-int-or-string": true, "x-kubernetes-preserve-unknown-fields": true}),
        &[
            ".x-kubernetes-preserve-unknown-fields: Invalid value: true: must be false if x-kubernetes-int-or-string is true",
        ],
    );
    check_spec(
        json!({"type": "object", "x-kubernetes-embedded-resource": true}),
        &[
            ".properties: Required value: must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
        ],
    );
    check_spec(
        json!({"x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}),
        &[".type: Required value: must be object if x-kubernetes-embedded-resource is true"],
    );
    check(
        schema(json!({"type": "object", "anyOf": [{"properties": {"a": {"minimum": 1}}}]})),
        &[&format!("{ROOT}.properties[a]: Required value: because it is defined in {ROOT}.anyOf[0].properties[a]")],
    );
    check_spec(
        json!({"type": "string", "not": {"type": "string", "description": "x", "nullable": true}}),
        &[
            ".not.description: Forbidden: must be empty to be structural",
            ".not.nullable: Forbidden: must be false to be structural",
            ".not.type: Forbidden: must be empty to be structural",
        ],
    );
}

#[test]
fn keywords() {
    check_spec(
        json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}}),
        &[".additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive"],
    );
    check_spec(
        json!({"type": "strange"}),
        &[
            ".type: Unsupported value: \"strange\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"",
        ],
    );
    check_spec(
        json!({"type": "object", "$ref": "#/x", "uniqueItems": true}),
        &[
            ".$ref: Forbidden: $ref is not supported",
            ".uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        ],
    );
    check_spec(
        json!({"type": "array", "items": [{"type": "string"}]}),
        &[".items: Forbidden: items must be a schema object and not an array"],
    );
    check_spec(
        json!({"type": "object", "x-kubernetes-preserve-unknown-fields": false}),
        &[".x-kubernetes-preserve-unknown-fields: Invalid value: false: must be true or undefined"],
    );
    check_spec(
        json!({"type": "string", "x-kubernetes-map-type": "odd"}),
        &[
            ".type: Invalid value: \"string\": must be object if x-kubernetes-map-type is specified",
            ".x-kubernetes-map-type: Unsupported value: \"odd\": supported values: \"atomic\", \"granular\"",
        ],
    );
    let map = |items: Value| json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": items});
    check_spec(map(json!({"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}}})), &[]);
    check_spec(
        map(json!({"type": "object", "properties": {"k": {"type": "string"}}})),
        &[
            ".items.properties[k].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
        ],
    );
    check_spec(
        map(json!({"type": "object"})),
        &[".x-kubernetes-list-map-keys: Invalid value: [\"k\"]: entries must all be names of item properties"],
    );
    check_spec(
        json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "object"}}),
        &[
            ".items.x-kubernetes-map-type: Invalid value: null: must be atomic as item of a list with x-kubernetes-list-type=set",
        ],
    );
    check_spec(
        json!({"type": "string", "pattern": "("}),
        &[
            ".pattern: Invalid value: \"(\": must be a valid regular expression, but isn't: error parsing regexp: unclosed group: `(`",
        ],
    );
    check_spec(
        json!({"type": "string", "x-kubernetes-validations": [{"rule": " "}, {"rule": "a\nb"}, {"rule": "true", "reason": "X"}]}),
        &[
            ".x-kubernetes-validations[0].rule: Required value: rule is not specified",
            ".x-kubernetes-validations[1].message: Required value: message must be specified if rule contains line breaks",
            ".x-kubernetes-validations[2].reason: Unsupported value: \"X\": supported values: \"FieldValueDuplicate\", \"FieldValueForbidden\", \"FieldValueInvalid\", \"FieldValueRequired\"",
        ],
    );
}

#[test]
fn defaults_in_schemas() {
    check_spec(json!({"type": "string", "default": "a"}), &[]);
    check_spec(
        json!({"type": "string", "default": 1}),
        &[&format!(
            ".default: Invalid value: \"integer\": {ROOT}.properties[spec].default in body must be of type string: \"integer\""
        )],
    );
    check_spec(
        json!({"type": "object", "default": {"b": 1}, "properties": {"a": {"type": "string"}}}),
        &[".default: Invalid value: {\"b\":1}: must not have unknown fields"],
    );
    let known = json!({"type": "object", "properties": {"a": {"type": "integer"}}});
    let nested = json!({"type": "array", "items": {"type": "array", "items": known}});
    let list = |default: Value| with(&nested, json!({"default": default}));
    check_spec(list(json!([[{"a": 1}], []])), &[]);
    check_spec(
        list(json!([[{"a": 1}, {"b": 1}]])),
        &[".default: Invalid value: [[{\"a\":1},{\"b\":1}]]: must not have unknown fields"],
    );
    check_spec(
        json!({"type": "object", "additionalProperties": with(&known, json!({"default": {"b": 1}}))}),
        &[".additionalProperties.default: Invalid value: {\"b\":1}: must not have unknown fields"],
    );
    check(
        schema(json!({"type": "object", "properties": {"metadata": {"type": "object", "default": {}}}})),
        &[&format!("{ROOT}.properties[metadata].default: Forbidden: must not be set in top-level metadata")],
    );
}

#[test]
fn subresources_and_columns() {
    let mut object = definition();
    object["spec"]["versions"][0]["subresources"] =
        json!({"scale": {"specReplicasPath": ".status.x", "statusReplicasPath": "y", "labelSelectorPath": ".a"}});
    object["spec"]["versions"][0]["additionalPrinterColumns"] =
        json!([{"name": "", "type": "colour", "jsonPath": "x", "format": "f"}]);
    check(
        object,
        &[
            "spec.subresources.scale.specReplicasPath: Invalid value: \".status.x\": should be a json path under .spec",
            "spec.subresources.scale.statusReplicasPath: Invalid value: \"y\": must be a simple json path starting with .",
            "spec.subresources.scale.labelSelectorPath: Invalid value: \".a\": should be a json path under either .spec or .status",
            "spec.additionalPrinterColumns[0].name: Required value",
            "spec.additionalPrinterColumns[0].type: Invalid value: \"colour\": must be one of boolean,date,integer,number,string",
            "spec.additionalPrinterColumns[0].format: Invalid value: \"f\": must be one of byte,date,date-time,double,float,int32,int64,name,password",
            "spec.additionalPrinterColumns[0].JSONPath: Invalid value: \"x\": must be a simple json path starting with .",
        ],
    );
    let mut object = spec(json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "object"}}}));
    object["spec"]["versions"][0]["selectableFields"] =
        json!([{"jsonPath": ".spec.a"}, {"jsonPath": ".spec.b"}, {"jsonPath": ".spec.c"}, {"jsonPath": ".spec.a"}]);
    check(
        object,
        &[
            "spec.selectableFields[1].jsonPath: Invalid value: \".spec.b\": must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.",
            "spec.selectableFields[2].jsonPath: Invalid value: \".spec.c\": is an invalid path: does not refer to a valid field",
            "spec.selectableFields[3].jsonPath: Duplicate value: \".spec.a\"",
        ],
    );
    let mut object = schema(json!({"type": "object", "maxProperties": 5}));
    object["spec"]["versions"][0]["subresources"] = json!({"status": {}});
    let expected = "only [Description Type Format Title Maximum ExclusiveMaximum Minimum ExclusiveMinimum MaxLength MinLength Pattern MaxItems MinItems UniqueItems MultipleOf Required Items Properties ExternalDocs Example XPreserveUnknownFields XValidations] fields are allowed at the root of the schema if the status subresource is enabled";
    check(object, &[&format!("{ROOT}: Invalid value: {{\"maxProperties\":5,\"type\":\"object\"}}: {expected}")]);
}

#[test]
fn conversion() {
    let webhook = |webhook: Value| {
        with(&definition(), json!({"spec": {"conversion": {"strategy": "Webhook", "webhook": webhook}}}))
    };
    let service = json!({"clientConfig": {"service": {"name": "s", "namespace": "n", "path": "/convert"}}, "conversionReviewVersions": ["v1"]});
    assert_eq!(
        created(CRD, webhook(service.clone()))["spec"]["conversion"]["webhook"]["clientConfig"]["service"]["port"],
        443
    );
    check(webhook(service), &[]);
    check(
        webhook(json!({"conversionReviewVersions": ["v2"]})),
        &[
            "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook",
            "spec.conversion.conversionReviewVersions: Invalid value: [\"v2\"]: must include at least one of v1, v1beta1",
        ],
    );
    check(
        webhook(json!({"clientConfig": {"url": "http://u@h/?q#f"}, "conversionReviewVersions": ["v1"]})),
        &[
            "spec.conversion.webhookClientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
            "spec.conversion.webhookClientConfig.url: Invalid value: \"u\": user information is not permitted in the URL",
            "spec.conversion.webhookClientConfig.url: Invalid value: \"f\": fragments are not permitted in the URL",
            "spec.conversion.webhookClientConfig.url: Invalid value: \"q\": query parameters are not permitted in the URL",
        ],
    );
    // As for any other webhook.
    check(
        webhook(json!({"clientConfig": {"url": "https:///x"}, "conversionReviewVersions": ["v1"]})),
        &[
            "spec.conversion.webhookClientConfig.url: Invalid value: \"\": host must be provided; desired format: https://host[/path]",
        ],
    );
    check(
        webhook(json!({"clientConfig": {"service": {"name": "s"}}, "conversionReviewVersions": ["v1"]})),
        &["spec.conversion.webhookClientConfig.service.name: Required value: service name is required"],
    );
    check(
        with(
            &definition(),
            json!({"spec": {"conversion": {"strategy": "None", "webhook": {"conversionReviewVersions": ["v1"]}}}}),
        ),
        &["spec.conversion.conversionReviewVersions: Forbidden: should not be set when strategy is not set to Webhook"],
    );
}

#[test]
fn updates() {
    let old = with(
        &created(CRD, definition()),
        json!({"metadata": {"resourceVersion": "1", "uid": "u"},
        "status": {"conditions": [{"type": "Established", "status": "True"}]}}),
    );
    let mut new = json!({"spec": {"scope": "Cluster", "group": "other.example.com"}});
    check_write(
        CRD,
        "",
        &old,
        new,
        &[
            "spec.scope: Invalid value: \"Cluster\": field is immutable",
            "spec.group: Invalid value: \"other.example.com\": field is immutable",
        ],
    );
    // A new storage version joins the stored ones; an old one may not go while it is among them.
    let mut versions = old["spec"]["versions"].clone();
    versions[0]["storage"] = json!(false);
    versions.as_array_mut().unwrap().push(
        json!({"name": "v2", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}),
    );
    new = json!({"spec": {"versions": versions}});
    let stored = check_write(CRD, "", &old, new, &[]);
    assert_eq!(stored["status"]["storedVersions"], json!(["v1", "v2"]));
    assert_eq!(stored["metadata"]["generation"], 2);
    let only = json!([stored["spec"]["versions"][1]]);
    check_write(
        CRD,
        "",
        &with(&stored, json!({"metadata": {"resourceVersion": "2"}})),
        json!({"spec": {"versions": only}}),
        &[
            "status.storedVersions[0]: Invalid value: \"v1\": missing from spec.versions; v1 was previously a storage version, \
         and must remain in spec.versions until a storage migration ensures no data remains persisted in v1 and removes v1 \
         from status.storedVersions",
        ],
    );
}

#[test]
fn deletion() {
    let strategy = kind(CRD).strategy;
    let mut object = created(CRD, definition());
    assert!(strategy.held(&object));
    object["metadata"]["deletionTimestamp"] = json!("2026-01-02T03:04:05Z");
    strategy.mark_deleted(&mut object);
    assert!(!strategy.held(&object));
    assert_eq!(object["metadata"]["finalizers"], json!([super::FINALIZER]));
    let condition = super::condition(&object, "Terminating").unwrap();
    assert_eq!(
        (&condition["reason"], &condition["lastTransitionTime"]),
        (&json!("InstanceDeletionPending"), &json!("2026-01-02T03:04:05Z"))
    );
}

#[test]
fn names_go_to_who_asked_first() {
    let now = json!("2026-01-02T03:04:05Z");
    let mut first =
        created(CRD, with(&definition(), json!({"spec": {"names": {"shortNames": ["ct"], "categories": ["all"]}}})));
    assert!(super::accept(&mut first, [].into_iter(), &now));
    assert_eq!(first["status"]["acceptedNames"], first["spec"]["names"]);
    let conditions = |object: &Value| {
        let list = object["status"]["conditions"].as_array().unwrap().iter();
        list.map(|c| {
            format!("{} {} {}: {}", c["type"], c["status"], c["reason"], c["message"])
                .replace('"', "")
                .replace('\\', "'")
        })
        .collect::<Vec<_>>()
    };
    let established = [
        "NamesAccepted True NoConflicts: no conflicts found",
        "Established True InitialNamesAccepted: the initial names have been accepted",
    ];
    assert_eq!(conditions(&first), established);
    assert!(!super::accept(&mut first, [].into_iter(), &json!("later")), "nothing new");
    let mut second = created(
        CRD,
        with(
            &definition(),
            json!({"metadata": {"name": "others.stable.example.com"},
        "spec": {"names": {"plural": "others", "kind": "CronTab", "shortNames": ["ct", "ot"]}}}),
        ),
    );
    assert!(super::accept(&mut second, [&first].into_iter(), &now));
    assert_eq!(second["status"]["acceptedNames"], json!({"plural": "others", "kind": ""}));
    assert_eq!(
        conditions(&second),
        [
            "NamesAccepted False ListKindConflict: 'CronTabList' is already in use",
            "Established False NotAccepted: not all names are accepted",
        ]
    );
    // The first one gone, the names are free.
    assert!(super::accept(&mut second, [].into_iter(), &now));
    assert_eq!(conditions(&second), established);
}

#[test]
fn built_in_names_are_not_given_away() {
    let now = json!("2026-01-02T03:04:05Z");
    let of = |plural: &str, kind: &str, short: Value| {
        let names = json!({"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "shortNames": short});
        let mut object = definition();
        object["metadata"]["name"] = format!("{plural}.networking.k8s.io").into();
        object["spec"]["group"] = json!("networking.k8s.io");
        object["spec"]["names"] = names;
        created(CRD, object)
    };
    let established = |object: &Value| super::condition(object, "Established").unwrap()["status"].clone();
    let refused = |object: &Value| {
        let names = super::condition(object, "NamesAccepted").unwrap();
        format!("{} {} {}", names["status"], names["reason"], names["message"]).replace(['"', '\\'], "")
    };
    for (plural, kind, short, why) in [
        ("networkpolicies", "Other", json!(null), "False PluralConflict networkpolicies is already in use"),
        // The list's name is looked at last, and is what is told.
        ("others", "NetworkPolicy", json!(null), "False ListKindConflict NetworkPolicyList is already in use"),
        ("others", "Other", json!(["netpol"]), "False ShortNamesConflict netpol is already in use"),
        ("others", "IngressList", json!(null), "False KindConflict IngressList is already in use"),
    ] {
        let mut object = of(plural, kind, short);
        assert!(super::accept(&mut object, [].into_iter(), &now));
        assert_eq!((refused(&object).as_str(), established(&object)), (why, json!("False")));
    }
    let mut free = of("others", "Other", json!(["ot"]));
    assert!(super::accept(&mut free, [].into_iter(), &now));
    assert_eq!(established(&free), "True");
    // What a status claims does not help.
    let mut claimed = of("networkpolicies", "NetworkPolicy", json!(null));
    claimed["status"]["acceptedNames"] = claimed["spec"]["names"].clone();
    super::set_condition(&mut claimed, "Established", true, "InitialNamesAccepted", "", &now);
    assert!(super::accept(&mut claimed, [].into_iter(), &now));
    assert_eq!((established(&claimed), &claimed["status"]["acceptedNames"]["plural"]), (json!("False"), &json!("")));
}
