//! Commands that change what is there: `set`, `scale`, `label`, `annotate`, `apply` and its subcommands, `auth reconcile`.

use keelson_testbed::cluster::Cluster;

use super::{mentions, says, up};

const DEPLOYMENT: &str = "deployment.apps/web";

/// Reads a field of the deployment.
fn has(cluster: &Cluster, field: &str, value: &str) {
    says(cluster, &format!("kubectl get deployment web -o jsonpath='{field}'"), value);
}

#[test]
fn set_changes_one_thing() {
    let cluster = up();
    let c = &cluster;
    cluster.kubectl("create deployment web --image keelson.local/hello --replicas 0");
    cluster.kubectl("create configmap settings --from-literal=color=blue");
    cluster.kubectl("create service clusterip web --tcp=80");
    cluster.kubectl("create serviceaccount robot");
    cluster.kubectl("create rolebinding view --clusterrole=view --user=u");
    let container = |field: &str| format!("{{.spec.template.spec.containers[0].{field}}}");

    says(c, "kubectl set image deployment/web hello=keelson.local/hello:v2", &format!("{DEPLOYMENT} image updated\n"));
    has(c, &container("image"), "keelson.local/hello:v2");
    says(c, "kubectl set image deployment/web nope=x", "error: unable to find container named \"nope\"\n[exit 1]\n");
    says(c, "kubectl set env deployment/web A=b C=d", &format!("{DEPLOYMENT} env updated\n"));
    says(
        c,
        "kubectl set env deployment/web --from=configmap/settings --prefix=S_",
        &format!("Warning: key color transferred to COLOR\n{DEPLOYMENT} env updated\n"),
    );
    says(c, "kubectl set env deployment/web C-", &format!("{DEPLOYMENT} env updated\n"));
    says(
        c,
        "kubectl set env deployment/web --list --resolve",
        "# Deployment web, container hello\nA=b\nS_COLOR=blue\n",
    );
    says(
        c,
        "kubectl set resources deployment web --limits=cpu=200m,memory=64Mi --requests=cpu=100m",
        &format!("{DEPLOYMENT} resource requirements updated\n"),
    );
    has(c, &container("resources"), r#"{"limits":{"cpu":"200m","memory":"64Mi"},"requests":{"cpu":"100m"}}"#);
    says(c, "kubectl set serviceaccount deployment web robot", &format!("{DEPLOYMENT} serviceaccount updated\n"));
    has(c, "{.spec.template.spec.serviceAccountName}", "robot");
    says(c, "kubectl set selector service web app=other", "service/web selector updated\n");
    says(c, "kubectl get service web -o jsonpath='{.spec.selector}'", r#"{"app":"other"}"#);
    let binding = "rolebinding.rbac.authorization.k8s.io/view";
    says(
        c,
        "kubectl set subject rolebinding view --group=g --serviceaccount=default:robot",
        &format!("{binding} subjects updated\n"),
    );
    says(c, &format!("kubectl get {binding} -o jsonpath='{{.subjects[*].name}}'"), "u g robot");

    says(c, "kubectl scale deployment web --replicas=1", &format!("{DEPLOYMENT} scaled\n"));
    says(c, "kubectl scale deployment web --replicas=2 --current-replicas=1", &format!("{DEPLOYMENT} scaled\n"));
    says(
        c,
        "kubectl scale deployment web --replicas=3 --current-replicas=9",
        "error: Expected replicas to be 9, was 2\n[exit 1]\n",
    );
    says(c, "kubectl scale deployments --all --replicas=0 --timeout=60s", &format!("{DEPLOYMENT} scaled\n"));
    has(c, "{.spec.replicas}", "0");
    says(
        c,
        "kubectl patch deployment web --subresource=status --type=merge -p '{\"status\":{\"collisionCount\":3}}'",
        &format!("{DEPLOYMENT} patched\n"),
    );
    has(c, "{.status.collisionCount}", "3");
    says(c, "kubectl rollout pause deployment/web", &format!("{DEPLOYMENT} paused\n"));
    says(c, "kubectl rollout pause deployment/web", "error: deployments.apps \"web\" is already paused\n[exit 1]\n");
    says(c, "kubectl rollout resume deployment/web", &format!("{DEPLOYMENT} resumed\n"));
    says(c, "kubectl rollout restart deployment/web", &format!("{DEPLOYMENT} restarted\n"));
    mentions(
        c,
        "kubectl rollout history deployment/web",
        &["deployment.apps/web \nREVISION  CHANGE-CAUSE\n1         <none>\n2         <none>\n"],
    );
    mentions(
        c,
        "kubectl rollout history deployment/web --revision=1",
        &["with revision #1\n", "Image:\tkeelson.local/hello\n"],
    );
    says(c, "kubectl rollout undo deployment/web --to-revision=1", &format!("{DEPLOYMENT} rolled back\n"));
    has(c, &container("image"), "keelson.local/hello");
    says(
        c,
        "kubectl rollout undo deployment/web --to-revision=99",
        "error: unable to find specified revision 99 in history\n[exit 1]\n",
    );
}

#[test]
fn labels_and_annotations_of_many() {
    let cluster = up();
    let c = &cluster;
    cluster.kubectl("create configmap a");
    cluster.kubectl("create configmap b");
    says(
        c,
        "kubectl label configmaps --all tier=x",
        "configmap/a labeled\nconfigmap/b labeled\nconfigmap/kube-root-ca.crt labeled\n",
    );
    says(c, "kubectl label configmap a --list", "tier=x\n");
    says(c, "kubectl label configmap a tier=x", "configmap/a not labeled\n");
    says(c, "kubectl label configmap a nope-", "label \"nope\" not found.\nconfigmap/a not labeled\n");
    says(c, "kubectl label configmaps -l tier=x tier=y --overwrite --dry-run=server -o name | wc -l", "3\n");
    let stale = "kubectl label configmap a q=r --resource-version=1";
    mentions(
        c,
        stale,
        &[
            "Error from server (Conflict): Operation cannot be fulfilled on configmaps \"a\": the object has been modified",
            "[exit 1]",
        ],
    );
    says(c, "kubectl annotate configmap a b note=hi", "configmap/a annotated\nconfigmap/b annotated\n");
    says(c, "kubectl annotate configmap a --list", "note=hi\n");
    says(
        c,
        "kubectl annotate configmap a note=ho",
        "error: --overwrite is false but found the following declared annotation(s): 'note' already has a value (hi)\n[exit 1]\n",
    );
    says(c, "kubectl annotate configmap a note=ho --overwrite", "configmap/a annotated\n");
    says(c, "kubectl get configmap a -o jsonpath='{.metadata.annotations.note} {.metadata.labels.tier}'", "ho x");
}

#[test]
fn what_was_applied_is_shown_changed_and_pruned() {
    let cluster = up();
    let c = &cluster;
    let config = |name: &str, value: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: default, labels: {{app: p}}}}\ndata: {{a: \"{value}\"}}\n---\n"
        )
    };
    let file = |name: &str, text: String| std::fs::write(c.path(name), text).expect("a file");
    file("one.yaml", config("one", "1"));
    file("changed.yaml", config("one", "2"));
    file("both.yaml", config("one", "1") + &config("two", "1"));
    cluster.kubectl("create configmap bare");

    says(c, "kubectl apply -f one.yaml", "configmap/one created\n");
    let last = |value: &str| {
        format!(
            "apiVersion: v1\ndata:\n  a: \"{value}\"\nkind: ConfigMap\nmetadata:\n{}  labels:\n    app: p\n  name: one\n  \
             namespace: default\n",
            if value == "1" { "  annotations: {}\n" } else { "" }
        )
    };
    says(c, "kubectl apply view-last-applied configmap one", &last("1"));
    says(c, "kubectl apply set-last-applied -f changed.yaml", "configmap/one configured\n");
    says(c, "kubectl apply view-last-applied -f one.yaml", &last("2"));
    says(
        c,
        "(KUBE_EDITOR='sed -i s/\"2\"/\"3\"/'; export KUBE_EDITOR; kubectl apply edit-last-applied configmap one)",
        "configmap/one edited\n",
    );
    says(c, "kubectl apply view-last-applied configmap one -o json | grep '\"a\"'", "    \"a\": \"3\"\n");
    says(c, "kubectl get configmap one -o jsonpath='{.data.a}'", "1");
    let bare = "echo '{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"bare\"}}' | kubectl apply \
                set-last-applied -f -";
    says(
        c,
        bare,
        "error: no last-applied-configuration annotation found on resource: bare, to create the annotation, run the \
         command with --create-annotation\n[exit 1]\n",
    );
    says(c, &format!("{bare} --create-annotation"), "configmap/bare configured\n");

    let prune = "--prune -l app=p --prune-allowlist=core/v1/ConfigMap";
    says(c, &format!("kubectl apply -f both.yaml {prune}"), "configmap/one configured\nconfigmap/two created\n");
    says(
        c,
        &format!("kubectl apply -f one.yaml {prune} --dry-run=server"),
        "configmap/one unchanged (server dry run)\nconfigmap/two pruned (server dry run)\n",
    );
    says(c, &format!("kubectl apply -f one.yaml {prune}"), "configmap/one unchanged\nconfigmap/two pruned\n");
    says(c, "kubectl get configmaps -l app=p -o name", "configmap/one\n");

    let roles = "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: r, namespace: default}\n\
                 rules: [{apiGroups: [\"\"], resources: [pods], verbs: [get]}]";
    let reconcile = |text: &str| format!("cat <<'EOF' | kubectl auth reconcile -f -\n{text}\nEOF");
    mentions(
        c,
        &reconcile(roles),
        &[
            "role.rbac.authorization.k8s.io/r reconciled\n",
            "\treconciliation required create\n",
            "\tmissing rules added:\n",
        ],
    );
    says(c, &reconcile(roles), "role.rbac.authorization.k8s.io/r reconciled\n");
    mentions(
        c,
        &reconcile(&roles.replace("pods", "secrets")),
        &["reconciliation required update", "missing rules added"],
    );
    says(c, "kubectl get role r -o jsonpath='{.rules[*].resources}'", r#"["pods"] ["secrets"]"#);
}
