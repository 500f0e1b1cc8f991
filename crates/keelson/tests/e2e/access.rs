//! Who gets in and who may do what, by kubectl alone: certificates by request, a node's credentials, escalation.

use keelson_testbed::cluster::Cluster;

use super::{isolation, mentions, says, up};

/// Asks for a client certificate with a new key `KEY.key` in the cluster's directory.
fn request(c: &Cluster, name: &str, subject: &str) -> String {
    let key = c.path(&format!("{name}.key"));
    c.shell(&format!(
        "csr=$(openssl req -new -newkey rsa:2048 -nodes -keyout {} -subj '{subject}' 2>/dev/null | base64 -w0)\n\
         kubectl apply -f - <<END\n\
         {{apiVersion: certificates.k8s.io/v1, kind: CertificateSigningRequest, metadata: {{name: {name}}}, spec: {{request: $csr,\n\
         \x20 signerName: kubernetes.io/kube-apiserver-client, expirationSeconds: 3600, usages: [client auth]}}}}\nEND",
        key.display()
    ))
}

#[test]
fn certificates_are_signed_for_those_who_are_approved() {
    let c = &up();
    assert_eq!(request(c, "jane", "/O=devs/CN=jane"), "certificatesigningrequest.certificates.k8s.io/jane created\n");
    mentions(
        c,
        "kubectl get csr jane --no-headers",
        &["kubernetes.io/kube-apiserver-client", "kubernetes-admin", "60m", "Pending"],
    );
    says(c, "kubectl certificate approve jane", "certificatesigningrequest.certificates.k8s.io/jane approved\n");
    let issued = c.wait_for("get csr jane -o jsonpath={.status.certificate}", |text| !text.is_empty());
    mentions(c, "kubectl get csr jane --no-headers", &["Approved,Issued"]);
    let (certificate, key) = (c.path("jane.crt"), c.path("jane.key"));
    c.shell(&format!("echo {issued} | base64 -d > {}", certificate.display()));
    let bare = isolation::bare(c);
    let jane = |command: &str| {
        let (certificate, key) = (certificate.display(), key.display());
        format!("kubectl --kubeconfig {bare} --client-certificate {certificate} --client-key {key} {command}")
    };
    mentions(c, &jane("auth whoami"), &["jane", "[devs system:authenticated]", "X509SHA256"]);
    mentions(
        c,
        &jane("get pods"),
        &["User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"", "[exit 1]"],
    );
    c.kubectl("create rolebinding devs --clusterrole=edit --group=devs");
    says(c, &jane("auth can-i create deployments.apps"), "yes\n");
    says(c, &jane("get pods"), "No resources found in default namespace.\n");
    mentions(c, &jane("auth can-i --list"), &["deployments.apps", "[create delete deletecollection patch update"]);
    // What she has not, she cannot give, nor take by another's name.
    c.kubectl("create role author --verb=create --resource=roles.rbac.authorization.k8s.io");
    c.kubectl("create rolebinding authors --role=author --user=jane");
    mentions(
        c,
        &jane("create role reader --verb=get --resource=nodes"),
        &[
            "user \"jane\" (groups=[\"devs\" \"system:authenticated\"]) is attempting to grant RBAC permissions not currently held",
            "{APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"get\"]}",
        ],
    );
    mentions(
        c,
        &jane("get pods --as system:admin"),
        &["User \"jane\" cannot impersonate resource \"users\" in API group \"\""],
    );

    assert!(request(c, "joe", "/CN=joe").ends_with("created\n"));
    says(c, "kubectl certificate deny joe", "certificatesigningrequest.certificates.k8s.io/joe denied\n");
    mentions(c, "kubectl get csr joe --no-headers", &["Denied"]);
    let refused = request(c, "root", "/O=system:masters/CN=root");
    let why = "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed";
    assert!(refused.contains("(Forbidden)") && refused.contains(why), "{refused}");
}

#[test]
fn a_nodes_credentials_reach_what_the_node_runs() {
    let c = &up();
    let node = c.profile();
    let kubelet = c.path("data").join(node).join("nodes").join(node).join("var/lib/keelson/kubelet.kubeconfig");
    let server = c.kubectl("config view --minify -o jsonpath={.clusters[0].cluster.server}");
    let as_node = |command: &str| format!("kubectl --kubeconfig {} --server {server} {command}", kubelet.display());
    c.kubectl("create secret generic mine --from-literal=a=b");
    c.kubectl("create secret generic other --from-literal=a=b");
    c.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: keelson.local/hello}], \
         volumes: [{name: s, secret: {secretName: mine}}]}}",
    );
    c.kubectl("wait --for=condition=Ready pod/p --timeout=60s");
    mentions(c, &as_node("auth whoami"), &[&format!("system:node:{node}"), "system:nodes"]);
    says(c, &as_node("get secret mine -o name"), "secret/mine\n");
    let unrelated = format!("no relationship found between node '{node}' and this object");
    mentions(c, &as_node("get secret other"), &["(Forbidden)", &unrelated]);
    mentions(c, &as_node("get secrets"), &["(Forbidden)", "No Object name found"]);
    mentions(
        c,
        &as_node("label node/$(kubectl get nodes -o name | cut -d/ -f2) node-restriction.kubernetes.io/team=red"),
        &["(Forbidden)", "is not allowed to modify labels: node-restriction.kubernetes.io/team"],
    );
    c.apply("{apiVersion: v1, kind: Node, metadata: {name: elsewhere}}");
    mentions(
        c,
        &as_node("label node elsewhere a=b"),
        &["(Forbidden)", "cannot read 'elsewhere', only its own Node object"],
    );
    mentions(c, &as_node("delete pod p --wait=false"), &["pod \"p\" deleted"]);
}
