use serde_json::json;

use crate::kinds::testing::{check, check_row, check_write, created};

const ROLE: &str = "rbac.authorization.k8s.io/v1 Role";
const CLUSTER_ROLE: &str = "rbac.authorization.k8s.io/v1 ClusterRole";
const BINDING: &str = "rbac.authorization.k8s.io/v1 RoleBinding";
const CLUSTER_BINDING: &str = "rbac.authorization.k8s.io/v1 ClusterRoleBinding";

#[test]
fn roles() {
    check(ROLE, json!({"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]}), &[]);
    check(
        ROLE,
        json!({"rules": [{}]}),
        &[
            "rules[0].verbs: Required value: verbs must contain at least one value",
            "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
            "rules[0].resources: Required value: resource rules must supply at least one resource",
        ],
    );
    check(
        ROLE,
        json!({"rules": [{"verbs": ["get"], "nonResourceURLs": ["/x"]}]}),
        &["rules[0].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to non-resource URLs"],
    );
    check(CLUSTER_ROLE, json!({"rules": [{"verbs": ["get"], "nonResourceURLs": ["/x"]}]}), &[]);
    check(
        CLUSTER_ROLE,
        json!({"aggregationRule": {}}),
        &[
            "aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if aggregationRule is non-nil",
        ],
    );
    check_row(ROLE, json!({}), "2026-01-01T00:00:00Z");
}

#[test]
fn bindings() {
    let object = json!({
        "roleRef": {"kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "User", "name": "u"}, {"kind": "User", "name": "v"}, {"kind": "ServiceAccount", "name": "s", "namespace": "n"}],
    });
    let made = created(BINDING, object);
    assert_eq!(
        (&made["roleRef"]["apiGroup"], &made["subjects"][0]["apiGroup"]),
        (&json!(super::GROUP), &json!(super::GROUP))
    );
    check(BINDING, made.clone(), &[]);
    check(
        BINDING,
        json!({"roleRef": {"kind": "x"}}),
        &[
            "roleRef.kind: Unsupported value: \"x\": supported values: \"Role\", \"ClusterRole\"",
            "roleRef.name: Required value",
        ],
    );
    check(
        CLUSTER_BINDING,
        json!({"roleRef": {"kind": "ClusterRole", "name": "x"}, "subjects": [{"kind": "ServiceAccount", "name": "s"}, {"kind": "Robot", "name": "r"}]}),
        &[
            "subjects[0].namespace: Required value",
            "subjects[1].kind: Unsupported value: \"Robot\": supported values: \"ServiceAccount\", \"User\", \"Group\"",
        ],
    );
    check_write(
        BINDING,
        "",
        &made,
        json!({"roleRef": {"name": "edit"}}),
        &[
            "roleRef: Invalid value: {\"APIGroup\":\"rbac.authorization.k8s.io\",\"Kind\":\"ClusterRole\",\"Name\":\"edit\"}: cannot change roleRef",
        ],
    );
    check_row(BINDING, made, "ClusterRole/view 60m | u, v  n/s");
}
