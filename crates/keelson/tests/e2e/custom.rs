//! A CustomResourceDefinition with two versions and a conversion webhook, a pod behind a Service, used by kubectl.

mod webhook;

use keelson_testbed::cluster::Cluster;

use super::{mentions, says, up};

const WEBHOOK: &str = "registry.test/conversion-webhook:1";

/// `kubectl ARGUMENTS -f -` of a manifest; what it says on the terminal.
fn send(cluster: &Cluster, arguments: &str, manifest: &str) -> String {
    cluster.shell(&format!("kubectl {arguments} -f - <<'END'\n{manifest}\nEND"))
}

#[test]
fn two_versions_and_a_webhook_in_the_cluster() {
    let cluster = up();
    super::webhook::load(&cluster, WEBHOOK, webhook::TEST);
    let (certificate, key) = super::webhook::certificate("points");
    let webhook = super::webhook::manifest("points", WEBHOOK, &certificate, &key);
    let manifest = format!(
        r#"
{webhook}apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: points.example.com}}
spec:
  group: example.com
  scope: Namespaced
  names: {{plural: points, kind: Point, shortNames: [pt], categories: [all]}}
  conversion:
    strategy: Webhook
    webhook:
      conversionReviewVersions: [v1]
      clientConfig: {{service: {{name: points, namespace: default, path: /convert}}, caBundle: {certificate}}}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            description: Where the point is.
            type: object
            x-kubernetes-validations: &rules
            - {{rule: self.replicas <= 10, message: at most ten replicas}}
            properties:
              at: {{type: string, pattern: '^-?\d+,-?\d+$'}}
              replicas: &replicas {{type: integer, default: 1}}
              colour: &colour
                type: string
                x-kubernetes-validations: [{{rule: self == oldSelf, message: colours stay}}]
          status: {{type: object, properties: {{replicas: {{type: integer}}, selector: {{type: string}}}}}}
    subresources: &subresources
      status: {{}}
      scale: {{specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas, labelSelectorPath: .status.selector}}
    additionalPrinterColumns: [{{name: At, type: string, jsonPath: .spec.at}}]
  - name: v2
    served: true
    storage: false
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            x-kubernetes-validations: *rules
            properties: {{x: {{type: integer}}, 'y': {{type: integer}}, replicas: *replicas, colour: *colour}}
          status: {{type: object, properties: {{replicas: {{type: integer}}, selector: {{type: string}}}}}}
    subresources: *subresources
    additionalPrinterColumns: [{{name: X, type: integer, jsonPath: .spec.x}}, {{name: 'Y', type: integer, jsonPath: .spec.y}}]
"#
    );
    let applied = send(&cluster, "apply", &manifest);
    assert!(applied.contains("customresourcedefinition.apiextensions.k8s.io/points.example.com created"), "{applied}");
    cluster.shell("kubectl wait --for=condition=Ready pod/points --timeout=60s");
    cluster.shell("kubectl wait --for=condition=Established crd/points.example.com --timeout=30s");

    // Short names find the preferred version, which the webhook makes of the stored one.
    let point = "apiVersion: example.com/v1\nkind: Point\nmetadata: {name: a}\nspec: {at: '3,4', colour: red}";
    assert_eq!(send(&cluster, "apply", point), "point.example.com/a created\n");
    cluster.wait_for("get pt a --no-headers", |row| row.split_whitespace().eq(["a", "3", "4"]));
    says(&cluster, "kubectl get points.v1.example.com", "NAME   AT\na      3,4\n");
    mentions(&cluster, "kubectl api-resources --api-group=example.com", &["pt", "example.com/v2", "Point"]);
    mentions(
        &cluster,
        "kubectl explain point.spec --api-version=example.com/v1",
        &["Where the point is.", "at\t<string>"],
    );
    mentions(&cluster, "kubectl explain pt.spec.x", &["VERSION:    v2", "FIELD: x <integer>"]);

    // Written in one version, read in the other; what is left out is filled in.
    says(&cluster, "kubectl patch pt a --type merge -p '{\"spec\":{\"x\":7}}'", "point.example.com/a patched\n");
    let both = "kubectl get points.v1.example.com a -o custom-columns=:.spec.at,:.spec.replicas --no-headers";
    says(&cluster, both, "7,4   1\n");
    says(&cluster, "kubectl scale pt a --replicas 3", "point.example.com/a scaled\n");
    says(&cluster, both, "7,4   3\n");
    let status = "-p '{\"spec\":{\"x\":9},\"status\":{\"replicas\":3}}'";
    says(
        &cluster,
        &format!("kubectl patch pt a --subresource=status --type merge {status}"),
        "point.example.com/a patched\n",
    );
    says(&cluster, "kubectl get pt a --subresource=scale -o jsonpath='{.spec.replicas} {.status.replicas}'", "3 3");
    says(&cluster, "kubectl get pt a -o jsonpath='{.spec.x} {.status.replicas}'", "7 3");

    // Schema, strictness, rules and rules about changes.
    let said = send(&cluster, "apply", &point.replace("3,4", "here"));
    assert!(said.contains("spec.at in body should match '^-?\\d+,-?\\d+$'"), "{said}");
    let said =
        send(&cluster, "create", &point.replace("spec: {", "spec: {smell: sweet, ").replace("name: a", "name: b"));
    assert!(said.contains("unknown field \"spec.smell\""), "{said}");
    let said = send(&cluster, "apply", &point.replace("spec: {", "spec: {replicas: 12, "));
    let expected = "The Point \"a\" is invalid: spec: Invalid value: \"object\": at most ten replicas\n[exit 1]\n";
    assert!(said.ends_with(expected), "{said}");
    says(
        &cluster,
        "kubectl patch pt a --type merge -p '{\"spec\":{\"colour\":\"blue\"}}'",
        "The Point \"a\" is invalid: spec.colour: Invalid value: \"string\": colours stay\n[exit 1]\n",
    );

    // Server-side apply, with another's field.
    let applied = |manager: &str, x: i64, more: &str| {
        let arguments = format!("apply --server-side --field-manager={manager} {more}");
        let point = "apiVersion: example.com/v2\nkind: Point\nmetadata: {name: c}";
        send(&cluster, &arguments, &format!("{point}\nspec: {{x: {x}, 'y': 1}}"))
    };
    assert_eq!(applied("alice", 1, ""), "point.example.com/c serverside-applied\n");
    let said = applied("bob", 2, "");
    let expected = "Apply failed with 1 conflict: conflict with \"alice\": .spec.x\n";
    assert!(said.contains(expected) && said.ends_with("[exit 1]\n"), "{said}");
    assert_eq!(applied("bob", 2, "--force-conflicts"), "point.example.com/c serverside-applied\n");
    says(&cluster, "kubectl get points.v1.example.com c -o jsonpath='{.spec.at} {.spec.replicas}'", "2,1 1");
    says(
        &cluster,
        "kubectl get pt c --show-managed-fields -o jsonpath='{range .metadata.managedFields[*]}{.manager}:{.fieldsV1} {end}'",
        "alice:{\"f:spec\":{\"f:y\":{}}} bob:{\"f:spec\":{\"f:x\":{},\"f:y\":{}}} ",
    );
    says(
        &cluster,
        "kubectl get all -o name",
        "pod/points\nservice/kubernetes\nservice/points\npoint.example.com/a\npoint.example.com/c\n",
    );

    says(
        &cluster,
        "kubectl delete crd points.example.com",
        "customresourcedefinition.apiextensions.k8s.io \"points.example.com\" deleted\n",
    );
    // kubectl remembers what there was.
    mentions(&cluster, "kubectl get points", &["the server could not find the requested resource"]);
}
