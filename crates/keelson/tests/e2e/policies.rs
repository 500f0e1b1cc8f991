//! What namespaces allow, set up with kubectl alone: PodSecurity, LimitRange, ResourceQuota, and a user who may act in one
//! namespace only.

use super::{mentions, says, up};

/// A pod with these lines in its container, on the terminal.
fn run(name: &str, container: &str) -> String {
    let pod = format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{containers: [{{name: c, image: keelson.local/hello{container}}}]}}}}"
    );
    format!("echo '{pod}' | kubectl -n team create -f -")
}

#[test]
fn pods_meet_the_standard_of_their_namespace() {
    let cluster = up();
    let c = &cluster;
    says(c, "kubectl create namespace team", "namespace/team created\n");
    says(c, &run("early", ", securityContext: {privileged: true}"), "pod/early created\n");
    says(
        c,
        "kubectl label namespace team pod-security.kubernetes.io/enforce=baseline",
        "Warning: existing pods in namespace \"team\" violate the new PodSecurity enforce level \"baseline:latest\"\n\
         Warning: early: privileged\nnamespace/team labeled\n",
    );
    let baseline = [
        (
            ", securityContext: {privileged: true}",
            "privileged (container \"c\" must not set securityContext.privileged=true)",
        ),
        (
            ", securityContext: {capabilities: {add: [NET_RAW]}}",
            "non-default capabilities (container \"c\" must not include \"NET_RAW\" in securityContext.capabilities.add)",
        ),
        (", ports: [{containerPort: 80, hostPort: 80}]", "hostPort (container \"c\" uses hostPort 80)"),
        (
            ", securityContext: {seccompProfile: {type: Unconfined}}",
            "seccompProfile (container \"c\" must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
    ];
    for (container, why) in baseline {
        let expected = format!(
            "Error from server (Forbidden): error when creating \"STDIN\": pods \"bad\" is forbidden: violates PodSecurity \
             \"baseline:latest\": {why}\n[exit 1]\n"
        );
        says(c, &run("bad", container), &expected);
    }
    says(c, &run("plain", ""), "pod/plain created\n");
    c.kubectl("label namespace team pod-security.kubernetes.io/enforce=restricted --overwrite");
    says(
        c,
        &run("bad", ""),
        "Error from server (Forbidden): error when creating \"STDIN\": pods \"bad\" is forbidden: violates PodSecurity \
         \"restricted:latest\": allowPrivilegeEscalation != false (container \"c\" must set \
         securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"c\" must set \
         securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"c\" must set \
         securityContext.runAsNonRoot=true), seccompProfile (pod or container \"c\" must set \
         securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")\n[exit 1]\n",
    );
    let good = ", securityContext: {allowPrivilegeEscalation: false, runAsNonRoot: true, capabilities: {drop: [ALL]}, \
                seccompProfile: {type: RuntimeDefault}}";
    says(c, &run("good", good), "pod/good created\n");
    // A Deployment is made, and its user told what will become of it.
    mentions(
        c,
        "kubectl -n team create deployment d --image keelson.local/hello",
        &[
            "Warning: would violate PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false",
            "deployment.apps/d created",
        ],
    );
}

#[test]
fn a_namespace_has_limits_a_quota_and_a_user() {
    let cluster = up();
    let c = &cluster;
    for line in [
        "kubectl create namespace team",
        "kubectl create quota q -n team --hard=pods=3,requests.cpu=500m,count/deployments.apps=1,secrets=2",
        "kubectl create quota best -n team --hard=pods=1 --scopes=BestEffort",
        "kubectl create serviceaccount worker -n team",
        "kubectl create role worker -n team --verb='*' --resource=pods,secrets,deployments.apps",
        "kubectl create rolebinding worker -n team --role=worker --serviceaccount=team:worker",
    ] {
        mentions(c, line, &["created"]);
    }
    let used = |quota: &str, name: &str, amount: &str| {
        let path = format!("get quota {quota} -n team -o jsonpath={{.status.used.{name}}}");
        c.wait_for(&path, |shown| shown.trim() == amount);
    };
    used("q", "pods", "0");
    used("best", "pods", "0");
    says(
        c,
        &run("a", ""),
        "Error from server (Forbidden): error when creating \"STDIN\": pods \"a\" is forbidden: failed quota: q: must specify \
         requests.cpu for: c\n[exit 1]\n",
    );
    let range = "{apiVersion: v1, kind: LimitRange, metadata: {name: l}, spec: {limits: [{type: Container, max: {cpu: 300m}, \
                 defaultRequest: {cpu: 200m}}]}}";
    says(c, &format!("echo '{range}' | kubectl -n team create -f -"), "limitrange/l created\n");
    // The user has a token and no certificate.
    let token = c.kubectl("create token worker -n team");
    let token = token.trim();
    let name = c.kubectl("config view -o jsonpath={.clusters[0].name}");
    for line in [
        &format!("kubectl config set-credentials worker --token={token}"),
        &format!("kubectl config set-context worker --cluster={name} --user=worker"),
    ] {
        mentions(c, line, &["worker"]);
    }
    let user = |line: &str| format!("kubectl --context worker {line}");
    says(c, &user("auth can-i create pods -n team"), "yes\n");
    says(c, &user("auth can-i create pods -n default"), "no\n[exit 1]\n");
    mentions(
        c,
        &user("get pods -n default"),
        &["Forbidden", "cannot list resource \"pods\" in API group \"\" in the namespace \"default\""],
    );
    for name in ["a", "b"] {
        says(c, &user(&format!("-n team run {name} --image keelson.local/hello")), &format!("pod/{name} created\n"));
    }
    says(
        c,
        "kubectl get pod a -n team -o jsonpath='{.metadata.annotations.kubernetes\\.io/limit-ranger}'",
        "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
            .replace("container c", "container a")
            .as_str(),
    );
    says(
        c,
        &user("-n team run c --image keelson.local/hello"),
        "Error from server (Forbidden): pods \"c\" is forbidden: exceeded quota: q, requested: requests.cpu=200m, used: \
         requests.cpu=400m, limited: requests.cpu=500m\n[exit 1]\n",
    );
    says(
        c,
        &run("big", ", resources: {limits: {cpu: 1}}"),
        "Error from server (Forbidden): error when creating \"STDIN\": pods \"big\" is forbidden: maximum cpu usage per Container \
         is 300m, but limit is 1\n[exit 1]\n",
    );
    mentions(c, "kubectl describe quota q -n team", &["requests.cpu", "400m", "500m"]);
    // What goes away makes room.
    mentions(c, &user("delete pod a -n team --now"), &["pod \"a\" deleted"]);
    used("q", "requests\\.cpu", "200m");
    says(c, &user("-n team run c --image keelson.local/hello"), "pod/c created\n");
}
