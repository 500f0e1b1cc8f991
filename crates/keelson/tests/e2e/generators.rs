//! `kubectl create` and its kin: every generator, what it says, and that what it made is what was asked for.

use keelson_testbed::cluster::Cluster;

use super::{mentions, says, up};

/// Runs `kubectl create WHAT`, which says `NAME created`; then reads a field of the object.
fn creates(cluster: &Cluster, what: &str, name: &str, field: &str, value: &str) {
    says(cluster, &format!("kubectl create {what}"), &format!("{name} created\n"));
    // As the object is named, so it is got: `clusterrole.rbac.authorization.k8s.io/a`.
    says(cluster, &format!("kubectl get {name} -o jsonpath='{field}'"), value);
}

#[test]
fn every_generator_makes_its_object() {
    let cluster = up();
    let c = &cluster;
    says(
        c,
        "echo one > one.txt && printf 'a=b\\nc=d\\n' > env.txt && mkdir dir && echo x > dir/x && echo y > dir/y",
        "",
    );
    creates(
        c,
        "configmap lit --from-literal=a=b --from-literal=c=d",
        "configmap/lit",
        "{.data}",
        r#"{"a":"b","c":"d"}"#,
    );
    creates(c, "configmap file --from-file=one.txt", "configmap/file", r"{.data.one\.txt}", "one\n");
    creates(c, "configmap named --from-file=n=one.txt", "configmap/named", "{.data}", r#"{"n":"one\n"}"#);
    creates(c, "configmap env --from-env-file=env.txt", "configmap/env", "{.data}", r#"{"a":"b","c":"d"}"#);
    creates(c, "configmap dir --from-file=dir", "configmap/dir", "{.data}", r#"{"x":"x\n","y":"y\n"}"#);

    let roles = "rbac.authorization.k8s.io";
    creates(
        c,
        "clusterrole reader --verb=get,list --resource=pods,deployments.apps/status",
        &format!("clusterrole.{roles}/reader"),
        "{.rules}",
        r#"[{"apiGroups":[""],"resources":["pods"],"verbs":["get","list"]},{"apiGroups":["apps"],"resources":["deployments/status"],"verbs":["get","list"]}]"#,
    );
    creates(
        c,
        "clusterrole urls --verb=get --non-resource-url=/metrics,/metrics/*",
        &format!("clusterrole.{roles}/urls"),
        "{.rules}",
        r#"[{"nonResourceURLs":["/metrics","/metrics/*"],"verbs":["get"]}]"#,
    );
    creates(
        c,
        "clusterrole sum --aggregation-rule=rbac.example.com/to=sum",
        &format!("clusterrole.{roles}/sum"),
        "{.aggregationRule}",
        r#"{"clusterRoleSelectors":[{"matchLabels":{"rbac.example.com/to":"sum"}}]}"#,
    );
    creates(
        c,
        "clusterrolebinding all --clusterrole=reader --user=u --group=g --serviceaccount=default:default",
        &format!("clusterrolebinding.{roles}/all"),
        "{.subjects[*].kind} {.roleRef.name}",
        "User Group ServiceAccount reader",
    );
    creates(
        c,
        "role one --verb=get --resource=pods --resource-name=a --resource-name=b",
        &format!("role.{roles}/one"),
        "{.rules[0].resourceNames}",
        r#"["a","b"]"#,
    );
    creates(
        c,
        "rolebinding one --role=one --user=u",
        &format!("rolebinding.{roles}/one"),
        "{.roleRef}",
        r#"{"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":"one"}"#,
    );
    creates(
        c,
        "deployment web --image=a --image=b --replicas=0 --port=80",
        "deployment.apps/web",
        "{.spec.template.spec.containers[*].name} {.spec.replicas}",
        "a b 0",
    );
    creates(c, "namespace other", "namespace/other", "{.status.phase}", "Active");
    creates(
        c,
        "priorityclass high --value=1000 --description='Much.' --preemption-policy=Never",
        "priorityclass.scheduling.k8s.io/high",
        "{.value} {.description} {.preemptionPolicy}",
        "1000 Much. Never",
    );
    creates(c, "secret generic plain --from-literal=p=q", "secret/plain", "{.type} {.data.p}", "Opaque cQ==");
    creates(c, "secret generic typed --type=example.com/x", "secret/typed", "{.type}", "example.com/x");
    creates(
        c,
        "secret docker-registry pull --docker-server=registry.test --docker-username=u --docker-password=p",
        "secret/pull",
        "{.type} {.data}",
        &format!(
            r#"kubernetes.io/dockerconfigjson {{".dockerconfigjson":"{}"}}"#,
            c.shell(
                r#"printf '{"auths":{"registry.test":{"username":"u","password":"p","auth":"dTpw"}}}' | base64 -w0"#
            )
        ),
    );
    mentions(
        c,
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -keyout t.key -out t.crt -days 1 -nodes \
         -subj /CN=x 2>/dev/null; ls",
        &["t.crt"],
    );
    creates(c, "secret tls tls --cert=t.crt --key=t.key", "secret/tls", "{.type}", "kubernetes.io/tls");
    let ports = "{.spec.type} {.spec.ports[0].name} {.spec.ports[0].port} {.spec.ports[0].targetPort}";
    creates(c, "service clusterip ci --tcp=80:8080", "service/ci", ports, "ClusterIP 80-8080 80 8080");
    creates(c, "service clusterip none --clusterip=None", "service/none", "{.spec.clusterIP}", "None");
    let node_port = "{.spec.type} {.spec.ports[0].nodePort}";
    creates(c, "service nodeport np --tcp=80 --node-port=30123", "service/np", node_port, "NodePort 30123");
    creates(c, "service loadbalancer lb --tcp=18123:80", "service/lb", "{.spec.type}", "LoadBalancer");
    let external = "{.spec.type} {.spec.externalName}";
    creates(
        c,
        "service externalname en --external-name=example.com",
        "service/en",
        external,
        "ExternalName example.com",
    );
    creates(c, "serviceaccount robot", "serviceaccount/robot", "{.metadata.name}", "robot");
    says(
        c,
        "kubectl create token robot --audience=x --duration=10m | cut -d. -f2 | tr _- /+ | base64 -d 2>/dev/null | \
         grep -o '\"aud\":\\[\"x\"\\]'",
        "\"aud\":[\"x\"]\n",
    );
    mentions(
        c,
        "kubectl create token nobody",
        &["error: failed to create token: serviceaccounts \"nobody\" not found", "[exit 1]"],
    );

    // Nothing is stored by a dry run, and `-o yaml` prints what would be.
    says(c, "kubectl create configmap dry --dry-run=server", "configmap/dry created (server dry run)\n");
    says(c, "kubectl create configmap dry --dry-run=client", "configmap/dry created (dry run)\n");
    mentions(
        c,
        "kubectl create deployment dry --image=x --dry-run=client -o yaml",
        &["kind: Deployment\n", "image: x\n"],
    );
    says(
        c,
        "kubectl get configmap/dry deployment/dry",
        "Error from server (NotFound): configmaps \"dry\" not found\n\
         Error from server (NotFound): deployments.apps \"dry\" not found\n[exit 1]\n",
    );
    let run = "kubectl run once --image=x --env=A=b --labels=x=y --port=80 --expose --restart=Never --dry-run=server";
    says(c, run, "service/once created (server dry run)\npod/once created (server dry run)\n");

    // Errors of the tool and of the server.
    says(
        c,
        "kubectl create namespace other",
        "Error from server (AlreadyExists): namespaces \"other\" already exists\n[exit 1]\n",
    );
    says(
        c,
        "kubectl create service nodeport taken --tcp=80 --node-port=30123",
        "error: failed to create NodePort service: Service \"taken\" is invalid: spec.ports[0].nodePort: Invalid value: \
         30123: provided port is already allocated\n[exit 1]\n",
    );
    let unknown = "apiVersion: example.com/v1\nkind: Foo\nmetadata: {name: x}";
    says(
        c,
        &format!("cat <<'EOF' | kubectl create -f -\n{unknown}\nEOF"),
        "error: resource mapping not found for name: \"x\" namespace: \"\" from \"STDIN\": no matches for kind \"Foo\" in \
         version \"example.com/v1\"\nensure CRDs are installed first\n[exit 1]\n",
    );
    let several = "{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: ConfigMap, metadata: {name: l1}}, \
                   {apiVersion: v1, kind: Secret, metadata: {name: l2}}]}";
    says(c, &format!("echo '{several}' | kubectl create -f -"), "configmap/l1 created\nsecret/l2 created\n");
    let generated = "apiVersion: v1\nkind: ConfigMap\nmetadata: {generateName: gen-}";
    let made = c.shell(&format!("cat <<'EOF' | kubectl create -o name -f -\n{generated}\nEOF"));
    let suffix = made.trim_end().strip_prefix("configmap/gen-").unwrap_or_else(|| panic!("{made}"));
    assert!(suffix.len() == 5 && suffix.bytes().all(|b| b"bcdfghjklmnpqrstvwxz2456789".contains(&b)), "{made}");
}
