//! Commands for kinds of the other groups, and what kubectl's apply does with owners and with what is not wanted any more.

use super::{mentions, says, up};

#[test]
fn kinds_of_the_other_groups_are_made_and_shown() {
    let cluster = up();
    let c = &cluster;
    says(c, "kubectl create job once --image=x -- true", "job.batch/once created\n");
    says(c, "kubectl get job once -o jsonpath='{.spec.template.spec.containers[0].command}'", r#"["true"]"#);
    says(
        c,
        "kubectl create cronjob nightly --image=x --schedule='0 3 * * *' -- true",
        "cronjob.batch/nightly created\n",
    );
    let row = [
        "NAME      SCHEDULE    TIMEZONE   SUSPEND   ACTIVE   LAST SCHEDULE   AGE\n",
        "nightly   0 3 * * *   <none>     False     0        <none>  ",
    ];
    mentions(c, "kubectl get cronjob", &row);
    says(c, "kubectl create job now --from=cronjob/nightly", "job.batch/now created\n");
    let owner =
        "kubectl get job now -o jsonpath='{.metadata.ownerReferences[0].kind}/{.metadata.ownerReferences[0].name}'";
    says(c, owner, "CronJob/nightly");
    mentions(
        c,
        "kubectl create cronjob bad --image=x --schedule='0 25 * * *'",
        &["spec.schedule: Invalid value", "[exit 1]"],
    );

    let rule = "kubectl create ingress web --class=c --rule='a.example/x*=svc:80,tls=cert'";
    says(c, rule, "ingress.networking.k8s.io/web created\n");
    mentions(
        c,
        "kubectl get ingress",
        &["NAME   CLASS   HOSTS       ADDRESS   PORTS     AGE\nweb    c       a.example             80, 443   "],
    );
    mentions(c, "kubectl describe ingress web", &["cert terminates a.example", "/x   svc:80"]);

    says(c, "kubectl create pdb p --selector=app=a --min-available=1", "poddisruptionbudget.policy/p created\n");
    mentions(
        c,
        "kubectl get pdb",
        &[
            "NAME   MIN AVAILABLE   MAX UNAVAILABLE   ALLOWED DISRUPTIONS   AGE\np      1               N/A               0  ",
        ],
    );
    says(c, "kubectl create quota q --hard=pods=2,cpu=1", "resourcequota/q created\n");
    says(c, "kubectl get quota q -o jsonpath='{.spec.hard}'", r#"{"cpu":"1","pods":"2"}"#);

    says(c, "kubectl create deployment web --image=keelson.local/hello", "deployment.apps/web created\n");
    says(
        c,
        "kubectl autoscale deployment web --min=1 --max=3 --cpu=50%",
        "horizontalpodautoscaler.autoscaling/web autoscaled\n",
    );
    mentions(c, "kubectl get hpa", &["web    Deployment/web   cpu: <unknown>/50%   1         3         0  "]);
    says(
        c,
        "kubectl get horizontalpodautoscalers.v1.autoscaling web -o jsonpath='{.spec.targetCPUUtilizationPercentage}'",
        "50",
    );
}

#[test]
fn certificates_are_approved_and_denied() {
    let cluster = up();
    let c = &cluster;
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
    params.distinguished_name.push(rcgen::DnType::CommonName, "u");
    let request = params.serialize_request(&key).and_then(|request| request.pem()).expect("a request");
    for name in ["yes", "no"] {
        let manifest = serde_json::json!({
            "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": name},
            "spec": {"request": base64(&request), "signerName": "example.com/signer", "usages": ["client auth"]},
        });
        let made = format!("certificatesigningrequest.certificates.k8s.io/{name} created\n");
        says(c, &format!("echo '{manifest}' | kubectl create -f -"), &made);
    }
    mentions(
        c,
        "kubectl get csr",
        &[
            "NAME   AGE   SIGNERNAME           REQUESTOR          REQUESTEDDURATION   CONDITION\n",
            "<none>              Pending",
        ],
    );
    says(c, "kubectl certificate approve yes", "certificatesigningrequest.certificates.k8s.io/yes approved\n");
    says(c, "kubectl certificate deny no", "certificatesigningrequest.certificates.k8s.io/no denied\n");
    mentions(c, "kubectl get csr yes --no-headers", &["<none>   Approved"]);
    mentions(c, "kubectl get csr no --no-headers", &["<none>   Denied"]);
    mentions(
        c,
        "kubectl certificate deny yes",
        &["certificate signing request \"yes\" is already Approved", "[exit 1]"],
    );
}

#[test]
fn apply_minds_owners_and_prunes() {
    let cluster = up();
    let c = &cluster;
    let manifest = |name: &str, value: &str| {
        format!(
            "apiVersion: v1\\nkind: ConfigMap\\nmetadata: {{name: {name}, labels: {{set: s}}}}\\ndata: {{a: \"{value}\"}}\\n"
        )
    };
    says(
        c,
        &format!(
            "printf '{}' > owned.yaml; printf '{}' > second.yaml",
            manifest("owned", "1"),
            manifest("second", "1")
        ),
        "",
    );
    says(c, "kubectl apply --server-side -f owned.yaml", "configmap/owned serverside-applied\n");
    let patch = r#"kubectl patch configmap owned --type merge -p '{"data":{"a":"2"}}' --field-manager=other"#;
    says(c, patch, "configmap/owned patched\n");
    let conflict = "error: Apply failed with 1 conflict: conflict with \"other\" using v1: .data.a\n\
                    Please review the fields above--they currently have other managers.";
    mentions(c, "kubectl apply --server-side -f owned.yaml", &[conflict, "[exit 1]"]);
    says(c, "kubectl get configmap owned -o jsonpath='{.data.a}'", "2");
    says(c, "kubectl apply --server-side --force-conflicts -f owned.yaml", "configmap/owned serverside-applied\n");
    let managers = "kubectl get configmap owned -o jsonpath='{.data.a} {.metadata.managedFields[*].manager}'";
    says(c, managers, "1 kubectl");

    says(c, "kubectl apply -f second.yaml", "configmap/second created\n");
    says(c, "kubectl apply view-last-applied configmap second -o json | grep -c '\"a\": \"1\"'", "1\n");
    says(c, "kubectl get configmap -l set=s -o name", "configmap/owned\nconfigmap/second\n");
    mentions(
        c,
        "kubectl apply --prune -l set=s --prune-allowlist=core/v1/ConfigMap -f owned.yaml",
        &["configmap/owned configured\n", "configmap/second pruned\n"],
    );
    mentions(
        c,
        "kubectl cluster-info dump --namespaces default",
        &["\"kind\": \"NodeList\"", "\"kind\": \"ReplicaSetList\""],
    );
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}
