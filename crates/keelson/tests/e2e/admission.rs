//! Admission webhooks and policies in a cluster, made by manifest and seen to act through kubectl.

use base64::Engine as _;
use keelson_testbed::cluster::Cluster;
use serde_json::{Value, json};

use super::{mentions, says, up, webhook};

const IMAGE: &str = "registry.test/admission-webhook:1";

#[test]
#[ignore = "is no test but the webhooks, for pods to run"]
fn serve() -> Result<(), webhook::Failure> {
    webhook::serve(answer)
}

/// `/mutate` writes down who made an object, `/validate` minds the key `bad`.
fn answer(path: &str, review: &Value) -> Value {
    let request = &review["request"];
    println!("{path} {} {}", request["operation"], request["name"]);
    let mut response = json!({"uid": request["uid"], "allowed": true});
    if path == "/mutate" {
        let patch = json!([{"op": "add", "path": "/data/maker", "value": request["userInfo"]["username"]}]);
        response["patchType"] = "JSONPatch".into();
        response["patch"] = base64::prelude::BASE64_STANDARD.encode(patch.to_string()).into();
    } else if request["object"]["data"]["bad"].is_string() {
        response["allowed"] = false.into();
        response["status"] = json!({"code": 403, "message": "this is bad"});
    } else {
        response["warnings"] = json!(["seen by the validator"]);
    }
    json!({"kind": review["kind"], "apiVersion": review["apiVersion"], "response": response})
}

/// `kubectl apply` of a manifest; what it says on the terminal.
fn apply(cluster: &Cluster, manifest: &str) -> String {
    cluster.shell(&format!("kubectl apply -f - <<'END'\n{manifest}\nEND"))
}

fn map(name: &str, data: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, labels: {{hooked: 'yes'}}}}\ndata: {{{data}}}")
}

#[test]
fn webhooks_behind_services() {
    let cluster = up();
    webhook::load(&cluster, IMAGE, "e2e::admission::serve");
    let mut manifest = String::new();
    for (name, kind, path) in [("mutator", "Mutating", "mutate"), ("validator", "Validating", "validate")] {
        let (certificate, key) = webhook::certificate(name);
        manifest += &webhook::manifest(name, IMAGE, &certificate, &key);
        manifest += &format!(
            r#"
apiVersion: admissionregistration.k8s.io/v1
kind: {kind}WebhookConfiguration
metadata: {{name: {name}}}
webhooks:
- name: {name}.example.com
  clientConfig: {{service: {{name: {name}, namespace: default, path: /{path}}}, caBundle: {certificate}}}
  rules: [{{operations: [CREATE, UPDATE], apiGroups: [''], apiVersions: [v1], resources: [configmaps]}}]
  objectSelector: {{matchLabels: {{hooked: 'yes'}}}}
  timeoutSeconds: 5
  sideEffects: None
  admissionReviewVersions: [v1]
---
"#
        );
    }
    mentions_all(&apply(&cluster, &manifest), &["mutator created", "validator created"]);
    cluster.shell("kubectl wait --for=condition=Ready pod/mutator pod/validator --timeout=60s");
    // Endpoints follow the pods.
    cluster.wait_for("get endpointslices -o jsonpath={.items[*].endpoints[*].conditions.ready}", |ready| {
        ready.matches("true").count() >= 3
    });
    let made = apply(&cluster, &map("a", "x: '1'"));
    mentions_all(&made, &["Warning: seen by the validator", "configmap/a created"]);
    says(&cluster, "kubectl get configmap a -o jsonpath='{.data}'", "{\"maker\":\"kubernetes-admin\",\"x\":\"1\"}");
    let refused = apply(&cluster, &map("b", "bad: '1'"));
    mentions_all(
        &refused,
        &["admission webhook \"validator.example.com\" denied the request: this is bad", "[exit 1]"],
    );
    mentions(&cluster, "kubectl logs mutator", &["/mutate \"CREATE\" \"a\""]);

    // Down, both fail closed until they are told otherwise.
    cluster.shell("kubectl delete pod mutator validator --now --wait");
    let refused = apply(&cluster, &map("c", "x: '1'"));
    mentions_all(
        &refused,
        &["failed calling webhook \"mutator.example.com\": failed to call webhook: Post", "[exit 1]"],
    );
    for kind in ["mutating", "validating"] {
        let patch = r#"[{"op":"replace","path":"/webhooks/0/failurePolicy","value":"Ignore"}]"#;
        let name = if kind == "mutating" { "mutator" } else { "validator" };
        mentions(
            &cluster,
            &format!("kubectl patch {kind}webhookconfiguration {name} --type json -p '{patch}'"),
            &[&format!("{name} patched")],
        );
    }
    mentions_all(&apply(&cluster, &map("c", "x: '1'")), &["configmap/c created"]);
    says(&cluster, "kubectl get configmap c -o jsonpath='{.data}'", "{\"x\":\"1\"}");
}

fn mentions_all(output: &str, expected: &[&str]) {
    for words in expected {
        assert!(output.contains(words), "{words:?} is not in:\n{output}");
    }
}

#[test]
fn policies_with_parameters() {
    // Mutating policies are off by default, as upstream's.
    let gate = "--extra-config=apiserver.feature-gates=MutatingAdmissionPolicy=true";
    let version = "--extra-config=apiserver.runtime-config=admissionregistration.k8s.io/v1beta1=true";
    let cluster = Cluster::up(env!("CARGO_BIN_EXE_keelson"), &[gate, version]);
    let manifest = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: limits}
data: {replicas: '3', team: blue}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: replicas.example.com}
spec:
  paramKind: {apiVersion: v1, kind: ConfigMap}
  matchConstraints: &deployments
    resourceRules: [{apiGroups: [apps], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [deployments]}]
  variables: [{name: most, expression: int(params.data.replicas)}]
  validations:
  - expression: object.spec.replicas <= variables.most
    messageExpression: "'at most ' + string(variables.most) + ' replicas'"
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: replicas}
spec:
  policyName: replicas.example.com
  paramRef: &limits {name: limits, namespace: default, parameterNotFoundAction: Deny}
  matchResources: &here {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: default}}}
  validationActions: [Deny]
---
apiVersion: admissionregistration.k8s.io/v1beta1
kind: MutatingAdmissionPolicy
metadata: {name: team.example.com}
spec:
  paramKind: {apiVersion: v1, kind: ConfigMap}
  matchConstraints:
    resourceRules: [{apiGroups: [apps], apiVersions: [v1], operations: [CREATE], resources: [deployments]}]
  reinvocationPolicy: Never
  mutations:
  - patchType: ApplyConfiguration
    applyConfiguration: {expression: "Object{metadata: Object.metadata{labels: {'team': params.data.team}}}"}
---
apiVersion: admissionregistration.k8s.io/v1beta1
kind: MutatingAdmissionPolicyBinding
metadata: {name: team}
spec:
  policyName: team.example.com
  paramRef: {name: limits, namespace: default, parameterNotFoundAction: Deny}
  matchResources: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: default}}}
"#;
    let manifest = manifest.replace("&deployments\n", "\n").replace("&limits ", "").replace("&here ", "");
    mentions_all(&apply(&cluster, &manifest), &["replicas.example.com created", "team.example.com created"]);
    mentions(&cluster, "kubectl get mutatingadmissionpolicies", &["MUTATIONS", "team.example.com"]);
    let create = "kubectl create deployment web --image keelson.local/hello --replicas";
    mentions(
        &cluster,
        &format!("{create} 5"),
        &[
            "deployments.apps \"web\" is forbidden: ValidatingAdmissionPolicy 'replicas.example.com' with binding \
             'replicas' denied request: at most 3 replicas",
            "[exit 1]",
        ],
    );
    says(&cluster, &format!("{create} 2"), "deployment.apps/web created\n");
    says(&cluster, "kubectl get deployment web -o jsonpath='{.metadata.labels.team}'", "blue");
    cluster.shell("kubectl patch configmap limits --type merge -p '{\"data\":{\"replicas\":\"9\"}}'");
    says(&cluster, "kubectl scale deployment web --replicas 5", "deployment.apps/web scaled\n");
    says(&cluster, "kubectl annotate deployment web a=b", "deployment.apps/web annotated\n");
    // Without parameters the policies fail closed, and open when they are told so.
    cluster.shell("kubectl delete configmap limits");
    let annotate = "kubectl annotate deployment web a=c --overwrite";
    mentions(
        &cluster,
        annotate,
        &["no params found for policy binding with `Deny` parameterNotFoundAction", "[exit 1]"],
    );
    let ignore = "kubectl patch validatingadmissionpolicy replicas.example.com --type merge -p '{\"spec\":{\"failurePolicy\":\"Ignore\"}}'";
    cluster.shell(ignore);
    says(&cluster, annotate, "deployment.apps/web annotated\n");
}
