//! What kubectl's commands print and do, as upstream shows it.

use super::{BUSYBOX, mentions, run_busybox, says, up, up_with_busybox};

#[test]
fn objects_are_created_and_changed() {
    let cluster = up();
    let c = &cluster;
    says(c, "kubectl run webpod --image keelson.local/hello --port 80", "pod/webpod created\n");
    says(
        c,
        "kubectl create deployment webserver --image keelson.local/hello --port 80 --replicas 3",
        "deployment.apps/webserver created\n",
    );
    says(c, "kubectl expose deployment webserver --port 8080 --target-port 80", "service/webserver exposed\n");
    says(c, "kubectl expose pod webpod", "service/webpod exposed\n");
    says(c, "kubectl create configmap cm --from-literal a=b", "configmap/cm created\n");
    says(c, "kubectl create secret generic s --from-literal p=q", "secret/s created\n");

    says(c, "kubectl label pod webpod tier=front", "pod/webpod labeled\n");
    says(
        c,
        "kubectl label pod webpod tier=back",
        "error: 'tier' already has a value (front), and --overwrite is false\n[exit 1]\n",
    );
    says(c, "kubectl label pod webpod tier=back --overwrite", "pod/webpod labeled\n");
    says(c, "kubectl get pods -l tier=back -o name", "pod/webpod\n");
    says(c, "kubectl label pod webpod tier-", "pod/webpod unlabeled\n");
    says(c, "kubectl annotate pod webpod note=hi", "pod/webpod annotated\n");
    says(c, "kubectl get pod webpod -o jsonpath='{.metadata.annotations.note}'", "hi");
    says(c, "kubectl annotate pod webpod note-", "pod/webpod annotated\n");

    let edit = |script: &str| format!("KUBE_EDITOR=\"sed -i {script}\" kubectl edit deployment webserver");
    // An assignment before a function stays in dash: the editor is exported in a subshell.
    let edit =
        |script: &str| format!("({}", edit(script).replacen(" kubectl", "; export KUBE_EDITOR; kubectl", 1) + ")");
    says(c, &edit("s/replicas:.3/replicas:\\ 2/"), "deployment.apps/webserver edited\n");
    says(c, &edit("s/zzzz/y/"), "Edit cancelled, no changes made.\n");
    mentions(
        c,
        &edit("s/replicas:.2/replicas:\\ -2/"),
        &["error: deployments.apps \"webserver\" is invalid", "[exit 1]"],
    );
    says(c, "kubectl get deployment webserver -o jsonpath='{.spec.replicas}'", "2");

    let patch = |arguments: &str| format!("kubectl patch deployment webserver {arguments}");
    says(c, &patch(r#"-p '{"spec":{"replicas":3}}'"#), "deployment.apps/webserver patched\n");
    let data = r#"kubectl patch configmap cm -p '{"data":{"c":"d"}}'"#;
    says(c, data, "configmap/cm patched\n");
    says(c, data, "configmap/cm patched (no change)\n");
    let sidecar = r#"{"spec":{"template":{"spec":{"containers":[{"name":"two","image":"keelson.local/hello",
        "env":[{"name":"PORT","value":"81"}]}]}}}}"#;
    says(c, &patch(&format!("-p '{sidecar}'")), "deployment.apps/webserver patched\n");
    let names = "kubectl get deployment webserver -o jsonpath='{.spec.template.spec.containers[*].name}'";
    says(c, names, "two hello");
    let gone = r#"{"spec":{"template":{"spec":{"containers":[{"name":"two","$patch":"delete"}]}}}}"#;
    says(c, &patch(&format!("-p '{gone}'")), "deployment.apps/webserver patched\n");
    says(c, names, "hello");
    says(c, &patch(r#"--type merge -p '{"metadata":{"labels":{"x":"y"}}}'"#), "deployment.apps/webserver patched\n");
    let remove = r#"--type json -p '[{"op":"test","path":"/metadata/labels/x","value":"y"},{"op":"remove","path":"/metadata/labels/x"}]'"#;
    says(c, &patch(remove), "deployment.apps/webserver patched\n");
    says(c, "kubectl get deployment webserver -o jsonpath='{.metadata.labels}'", r#"{"app":"webserver"}"#);
    says(
        c,
        r#"kubectl patch deployment webserver --subresource=scale --type merge -p '{"spec":{"replicas":2}}'"#,
        "scale.autoscaling/webserver patched\n",
    );
    says(c, "kubectl get deployment webserver -o jsonpath='{.spec.replicas}'", "2");

    let file = |name: &str, text: &str| std::fs::write(cluster.path(name), text).expect("a file");
    let head = "apiVersion: v1\nkind: ConfigMap\n";
    file("one.yaml", &format!("{head}metadata: {{name: set, labels: {{a: b, c: d}}}}\ndata: {{x: \"1\", z: \"2\"}}\n"));
    file("two.yaml", &format!("{head}metadata: {{name: set, labels: {{a: b}}}}\ndata: {{x: \"3\"}}\n"));
    says(c, "kubectl apply -f one.yaml", "configmap/set created\n");
    says(c, "kubectl apply -f one.yaml", "configmap/set unchanged\n");
    says(c, "kubectl label configmap set other=kept", "configmap/set labeled\n");
    mentions(
        c,
        "kubectl diff -f two.yaml",
        &["-  x: \"1\"\n", "-  z: \"2\"\n", "+  x: \"3\"\n", "-    c: d\n", "[exit 1]"],
    );
    says(c, "kubectl apply -f two.yaml --dry-run=server", "configmap/set configured (server dry run)\n");
    says(c, "kubectl get configmap set -o jsonpath='{.data}'", r#"{"x":"1","z":"2"}"#);
    says(c, "kubectl apply -f two.yaml", "configmap/set configured\n");
    says(
        c,
        "kubectl get configmap set -o jsonpath='{.data} {.metadata.labels}'",
        r#"{"x":"3"} {"a":"b","other":"kept"}"#,
    );
    says(c, "kubectl diff -f two.yaml", "");
    says(c, "kubectl replace -f one.yaml", "configmap/set replaced\n");
    says(c, "kubectl get configmap set -o jsonpath='{.metadata.labels}'", r#"{"a":"b","c":"d"}"#);
    says(
        c,
        "kubectl replace --force -f one.yaml",
        "configmap \"set\" deleted from default namespace\nconfigmap/set replaced\n",
    );
    says(c, "kubectl delete -f one.yaml", "configmap \"set\" deleted from default namespace\n");
    says(c, "kubectl delete -f one.yaml --ignore-not-found", "");
    says(
        c,
        "kubectl delete configmap cm --dry-run=server",
        "configmap \"cm\" deleted from default namespace (server dry run)\n",
    );
    says(
        c,
        "kubectl delete configmaps,secrets --all -o name | sort",
        "configmap/cm\nconfigmap/kube-root-ca.crt\nsecret/s\n",
    );
    cluster.wait_for("get configmaps -o name", |names| names == "configmap/kube-root-ca.crt\n");
}

#[test]
fn deletion_cascades_as_asked() {
    let cluster = up();
    let c = &cluster;
    let make = |name: &str| {
        cluster.kubectl(&format!("create deployment {name} --image keelson.local/hello --replicas 2"));
        cluster.kubectl(&format!("rollout status deployment/{name} --timeout=60s"));
    };
    let gone = |name: &str| format!("deployment.apps \"{name}\" deleted from default namespace\n");
    make("background");
    says(c, "kubectl delete deployment background", &gone("background"));
    cluster.wait_for("get replicasets,pods -l app=background -o name", str::is_empty);

    make("foreground");
    says(c, "kubectl delete deployment foreground --cascade=foreground", &gone("foreground"));
    says(c, "kubectl get replicasets,pods -l app=foreground -o name", "");

    make("orphan");
    let owned = "{range .items[*]}{.kind}:{.metadata.ownerReferences[*].kind} {end}";
    says(
        c,
        &format!("kubectl get replicasets,pods -l app=orphan -o jsonpath='{owned}'"),
        "ReplicaSet:Deployment Pod:ReplicaSet Pod:ReplicaSet ",
    );
    says(c, "kubectl delete deployment orphan --cascade=orphan", &gone("orphan"));
    says(
        c,
        &format!("kubectl get replicasets,pods -l app=orphan -o jsonpath='{owned}'"),
        "ReplicaSet: Pod:ReplicaSet Pod:ReplicaSet ",
    );
    let before = cluster.kubectl("get pods -l app=orphan -o name");
    // A Deployment of the same template takes the orphans over.
    make("orphan");
    assert_eq!(cluster.kubectl("get pods -l app=orphan -o name"), before);
    says(c, "kubectl delete replicaset -l app=orphan --cascade=orphan -o name | wc -l", "1\n");
    cluster.wait_for("rollout status deployment/orphan", |status| status.contains("successfully"));
    assert_eq!(cluster.kubectl("get pods -l app=orphan -o name"), before);

    says(c, "kubectl run last --image keelson.local/hello", "pod/last created\n");
    cluster.kubectl("wait --for=condition=Ready pod/last --timeout=60s");
    says(c, "kubectl delete pod last --wait=false", "pod \"last\" deleted from default namespace\n");
    cluster.kubectl("wait --for=delete pod/last --timeout=60s");
    says(
        c,
        "kubectl run forced --image keelson.local/hello -o name && kubectl delete pod forced --grace-period=0 --force",
        "pod/forced\nWarning: Immediate deletion does not wait for confirmation that the running resource has been \
         terminated. The resource may continue to run on the cluster indefinitely.\npod \"forced\" force deleted from \
         default namespace\n",
    );
    says(
        c,
        "kubectl create namespace whole && kubectl create configmap inside -n whole",
        "namespace/whole created\nconfigmap/inside created\n",
    );
    says(c, "kubectl delete namespace whole", "namespace \"whole\" deleted\n");
    says(
        c,
        "kubectl get configmap inside -n whole",
        "Error from server (NotFound): namespaces \"whole\" not found\n[exit 1]\n",
    );
    says(c, "kubectl delete configmap nope", "Error from server (NotFound): configmaps \"nope\" not found\n[exit 1]\n");
}

#[test]
fn get_prints_every_form() {
    let cluster = up_with_busybox();
    let c = &cluster;
    run_busybox(c, "b");
    run_busybox(c, "a");
    cluster.kubectl("create deployment web --image keelson.local/hello --replicas 2");
    cluster.kubectl("rollout status deployment/web --timeout=60s");
    cluster.kubectl("expose deployment web --port 80");
    cluster.kubectl(&format!("run far --image {BUSYBOX} -n kube-public -- sleep 3600"));
    let node = cluster.profile();
    let heads = |line: &str, expected: &str| {
        let output = cluster.shell(line);
        let head = output.lines().next().unwrap_or_default();
        assert_eq!(head.split_whitespace().collect::<Vec<_>>().join(" "), expected, "{line}:\n{output}");
        output
    };
    heads("kubectl get pods", "NAME READY STATUS RESTARTS AGE");
    heads("kubectl get pods -o wide", "NAME READY STATUS RESTARTS AGE IP NODE NOMINATED NODE READINESS GATES");
    heads("kubectl get pods --show-labels", "NAME READY STATUS RESTARTS AGE LABELS");
    heads("kubectl get pods -L run", "NAME READY STATUS RESTARTS AGE RUN");
    heads("kubectl get deployments -o wide", "NAME READY UP-TO-DATE AVAILABLE AGE CONTAINERS IMAGES SELECTOR");
    heads("kubectl get replicasets -o wide", "NAME DESIRED CURRENT READY AGE CONTAINERS IMAGES SELECTOR");
    heads("kubectl get services -o wide", "NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE SELECTOR");
    heads(
        "kubectl get nodes -o wide",
        "NAME STATUS ROLES AGE VERSION INTERNAL-IP EXTERNAL-IP OS-IMAGE KERNEL-VERSION CONTAINER-RUNTIME",
    );
    heads("kubectl get endpointslices", "NAME ADDRESSTYPE PORTS ENDPOINTS AGE");
    heads(
        "kubectl get endpoints",
        "Warning: v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
    );
    heads("kubectl get namespaces", "NAME STATUS AGE");
    heads("kubectl get configmaps", "NAME DATA AGE");
    heads("kubectl get serviceaccounts", "NAME SECRETS AGE");
    heads("kubectl get clusterroles", "NAME CREATED AT");
    heads("kubectl get clusterrolebindings", "NAME ROLE AGE");
    heads("kubectl get clusterrolebindings -o wide", "NAME ROLE AGE USERS GROUPS SERVICEACCOUNTS");
    heads("kubectl get roles -n kube-system", "NAME CREATED AT");
    heads("kubectl get priorityclasses", "NAME VALUE GLOBAL-DEFAULT AGE PREEMPTIONPOLICY");
    heads("kubectl get leases -n kube-node-lease", "NAME HOLDER AGE");
    heads("kubectl get events", "LAST SEEN TYPE REASON OBJECT MESSAGE");
    heads("kubectl get events -o wide", "LAST SEEN TYPE REASON OBJECT SUBOBJECT SOURCE MESSAGE FIRST SEEN COUNT NAME");
    let all = heads("kubectl get pods -A", "NAMESPACE NAME READY STATUS RESTARTS AGE");
    assert!(all.lines().any(|line| line.starts_with("kube-public   far ")), "{all}");

    says(c, "kubectl get pods a b -o name", "pod/a\npod/b\n");
    says(c, "kubectl get pods --sort-by=.status.podIP -o name -l 'run in (a,b)'", "pod/b\npod/a\n");
    let columns = "kubectl get pods --sort-by=.metadata.name -o custom-columns=NAME:.metadata.name,NODE:.spec.nodeName";
    says(c, &format!("{columns} -l '!app'"), &format!("NAME   NODE\na      {node}\nb      {node}\n"));
    says(c, "kubectl get pods -l app=web -o name | wc -l", "2\n");
    says(c, "kubectl get pods -l app!=web,run -o name", "pod/a\npod/b\n");
    says(c, "kubectl get pods --field-selector metadata.name=a,status.phase=Running -o name", "pod/a\n");
    says(
        c,
        &format!("kubectl get pods --field-selector spec.nodeName={node},metadata.name!=a -l run -o name"),
        "pod/b\n",
    );
    says(c, "kubectl get pods -A --field-selector metadata.namespace=kube-public -o name", "pod/far\n");
    says(
        c,
        "kubectl get pod a -o jsonpath='{.spec.containers[*].image} {.status.phase}'",
        &format!("{BUSYBOX} Running"),
    );
    says(
        c,
        "kubectl get pods -l run -o jsonpath='{range .items[*]}{.metadata.name}={.status.qosClass} {end}'",
        "a=BestEffort b=BestEffort ",
    );
    says(c, "kubectl get pods -l run -o go-template='{{range .items}}{{.metadata.name}} {{end}}'", "a b ");
    mentions(
        c,
        "kubectl get pod a -o yaml",
        &["apiVersion: v1\nkind: Pod\nmetadata:\n", "    lastState: {}\n", "  generation: 1\n"],
    );
    let list = cluster.kubectl("get pods -l run -o json");
    let list: serde_json::Value = serde_json::from_str(&list).expect("JSON");
    assert_eq!((list["kind"].as_str(), list["items"].as_array().map(Vec::len)), (Some("List"), Some(2)));
    says(c, "kubectl get pods --chunk-size=1 -o name | wc -l", "4\n");
    says(c, "kubectl get pods -n nowhere", "No resources found in nowhere namespace.\n");
    says(c, "kubectl get nope", "error: the server doesn't have a resource type \"nope\"\n[exit 1]\n");
    says(c, "kubectl get pod nope", "Error from server (NotFound): pods \"nope\" not found\n[exit 1]\n");
    says(
        c,
        "kubectl get pods --field-selector nope=1",
        "Error from server (BadRequest): Unable to find \"/v1, Resource=pods\" that match label selector \"\", field \
         selector \"nope=1\": field label not supported: nope\n[exit 1]\n",
    );

    // Watching: rows as things happen.
    let pods = cluster.background("kubectl get pods -w");
    let names = cluster.background("kubectl get pods --watch-only -o name");
    let raw = cluster.background("kubectl get pods --watch-only --output-watch-events");
    pods.wait_for(|seen| seen.contains("web-"));
    // Nothing says when a watch of changes only has begun, but its first change.
    keelson_testbed::cluster::wait("the watches to begin", keelson_testbed::cluster::TIMEOUT, || {
        cluster.kubectl("label pod a --overwrite touched=yes");
        cluster.kubectl("label pod a touched-");
        (names.output().contains("pod/a\n") && raw.output().contains("MODIFIED")).then_some(())
    })
    .unwrap();
    run_busybox(c, "late");
    cluster.kubectl("delete pod late --grace-period=1");
    let seen = pods.wait_for(|seen| seen.lines().any(|row| row.starts_with("late ") && row.contains("Terminating")));
    let order = ["Pending", "ContainerCreating", "Running", "Terminating"].map(|state| {
        seen.lines()
            .position(|row| row.starts_with("late ") && row.contains(state))
            .unwrap_or_else(|| panic!("{state}: {seen}"))
    });
    assert!(order.is_sorted(), "{seen}");
    names.wait_for(|seen| seen.contains("pod/late\n"));
    raw.wait_for(|seen| {
        ["ADDED", "MODIFIED", "DELETED"]
            .iter()
            .all(|event| seen.lines().any(|row| row.starts_with(event) && row.contains(" late ")))
    });
}

#[test]
fn things_are_described_explained_and_waited_for() {
    let cluster = up_with_busybox();
    let c = &cluster;
    run_busybox(c, "shell");
    cluster.kubectl("create deployment web --image keelson.local/hello --port 80");
    cluster.kubectl("rollout status deployment/web --timeout=60s");
    cluster.kubectl("expose deployment web --port 80");
    cluster.kubectl("create secret generic s --from-literal p=q");
    cluster.wait_for(
        "get endpointslices -l kubernetes.io/service-name=web -o jsonpath={.items[*].endpoints[*].addresses[0]}",
        |ip| !ip.is_empty(),
    );
    cluster.wait_for("get events", |events| events.matches("Started").count() >= 2);
    let described: &[(&str, &[&str])] = &[
        (
            "pod shell",
            &[
                "Node:             test-",
                "Status:           Running",
                "QoS Class:                   BestEffort",
                "Successfully assigned default/shell to",
                "Container created",
                "Container started",
                "PodReadyToStartContainers   True",
            ],
        ),
        (
            "deployment web",
            &[
                "StrategyType:           RollingUpdate",
                "25% max unavailable, 25% max surge",
                "1 desired | 1 updated | 1 total | 1 available | 0 unavailable",
                "NewReplicaSet:   web-",
                "(1/1 replicas created)",
                "ScalingReplicaSet",
                "from 0 to 1",
            ],
        ),
        (
            "replicaset -l app=web",
            &[
                "Controlled By:  Deployment/web",
                "Replicas:       1 current / 1 desired",
                "1 Running / 0 Waiting / 0 Succeeded / 0 Failed",
                "SuccessfulCreate",
                "Created pod: web-",
            ],
        ),
        (
            "service web",
            &[
                "Type:                     ClusterIP",
                "Session Affinity:         None",
                "Endpoints:                10.244.0.",
            ],
        ),
        ("endpoints web", &["Addresses:          10.244.0.", "<unset>  80    TCP"]),
        (
            "endpointslice -l kubernetes.io/service-name=web",
            &["AddressType:  IPv4", "Ready:    true", "TargetRef:  Pod/web-"],
        ),
        (
            "node",
            &[
                "Ready            True",
                "KubeletReady",
                "kubelet is posting ready status",
                "PodCIDR:",
                "Non-terminated Pods:          (2 in total)",
                "Starting kubelet.",
            ],
        ),
        ("namespace default", &["kubernetes.io/metadata.name=default", "Status:       Active"]),
        ("serviceaccount default", &["Image pull secrets:  <none>"]),
        ("configmap kube-root-ca.crt", &["-----BEGIN CERTIFICATE-----", "kubernetes.io/description"]),
        ("secret s", &["Type:  Opaque", "p:  1 bytes"]),
        ("clusterrole view", &["pods/log", "[get list watch]"]),
        ("clusterrolebinding cluster-admin", &["Group  system:masters"]),
        ("role -n kube-system system:controller:bootstrap-signer", &["secrets", "[get list watch]"]),
        (
            "rolebinding -n kube-system system:controller:bootstrap-signer",
            &["ServiceAccount  bootstrap-signer  kube-system"],
        ),
        ("priorityclass system-node-critical", &["Value:             2000001000"]),
        ("lease -n kube-node-lease", &["Lease Duration Seconds:  40"]),
        ("componentstatus", &["Type:     Healthy"]),
    ];
    for (what, expected) in described {
        mentions(c, &format!("kubectl describe {what}"), expected);
    }
    says(c, "kubectl describe pod nope", "Error from server (NotFound): pods \"nope\" not found\n[exit 1]\n");

    mentions(
        c,
        "kubectl explain deployment.spec.strategy",
        &[
            "GROUP:      apps\nKIND:       Deployment\nVERSION:    v1\n\nFIELD: strategy <DeploymentStrategy>\n",
            "The deployment strategy to use to replace existing pods with new ones.",
            "  rollingUpdate\t<RollingUpdateDeployment>\n",
            "  type\t<string>\n",
        ],
    );
    mentions(
        c,
        "kubectl explain pod.spec.containers --recursive",
        &["  image\t<string>\n", "    httpGet\t<HTTPGetAction>\n", "-required-"],
    );
    mentions(c, "kubectl explain pod.spec.nope", &["error: field \"nope\" does not exist", "[exit 1]"]);
    says(c, "kubectl explain nope", "the server doesn't have a resource type \"nope\"\n[exit 1]\n");

    mentions(c, "kubectl events --for pod/shell", &["LAST SEEN", "Container started"]);
    mentions(c, "kubectl events --types=Warning", &["No events found in default namespace."]);
    mentions(
        c,
        "kubectl get events --field-selector involvedObject.name=shell,reason=Scheduled",
        &["pod/shell   Successfully assigned"],
    );

    says(c, "kubectl wait --for=condition=Ready pod/shell --timeout=5s", "pod/shell condition met\n");
    says(
        c,
        "kubectl wait --for=jsonpath='{.status.phase}'=Running pod/shell --timeout=5s",
        "pod/shell condition met\n",
    );
    says(c, "kubectl wait --for=condition=Available deployment --all", "deployment.apps/web condition met\n");
    says(
        c,
        "kubectl wait --for=condition=Nope pod/shell --timeout=1s",
        "error: timed out waiting for the condition on pods/shell\n[exit 1]\n",
    );
    says(
        c,
        "kubectl wait --for=condition=Ready pod/nope",
        "Error from server (NotFound): pods \"nope\" not found\n[exit 1]\n",
    );
    let mut created = cluster.background("kubectl wait --for=create configmap/soon --timeout=30s");
    cluster.kubectl("create configmap soon");
    assert_eq!(created.exit_code(), 0, "{}", created.output());
    let mut deleted = cluster.background("kubectl wait --for=delete configmap/soon --timeout=30s");
    cluster.kubectl("delete configmap soon");
    assert_eq!(deleted.exit_code(), 0, "{}", deleted.output());

    says(c, "kubectl auth can-i create deployments", "yes\n");
    says(c, "kubectl auth can-i '*' '*'", "yes\n");
    says(c, "kubectl auth can-i create deployments --as nobody", "no\n[exit 1]\n");
    says(c, "kubectl auth can-i get /healthz --as nobody", "yes\n");
    mentions(c, "kubectl auth can-i --list", &["Resources", "Non-Resource URLs", "*.*", "[*]"]);
    mentions(
        c,
        "kubectl auth can-i --list --as nobody",
        &["selfsubjectaccessreviews.authorization.k8s.io", "[create]", "[/healthz]"],
    );
    mentions(c, "kubectl auth whoami", &["Username", "kubernetes-admin", "system:authenticated"]);
    let resources = cluster.kubectl("api-resources --no-headers");
    let resources: Vec<String> =
        resources.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for expected in [
        "pods po v1 true Pod",
        "services svc v1 true Service",
        "nodes no v1 false Node",
        "deployments deploy apps/v1 true Deployment",
        "events ev events.k8s.io/v1 true Event",
        "endpointslices discovery.k8s.io/v1 true EndpointSlice",
        "priorityclasses pc scheduling.k8s.io/v1 false PriorityClass",
    ] {
        assert!(resources.iter().any(|line| line == expected), "{expected:?} is not in {resources:#?}");
    }
    says(
        c,
        "kubectl api-resources --api-group=apps --namespaced --verbs=list -o name | sort | grep -v -e stateful -e daemon",
        "controllerrevisions.apps\ndeployments.apps\nreplicasets.apps\n",
    );
    mentions(c, "kubectl api-versions", &["apps/v1\n", "\nv1\n", "rbac.authorization.k8s.io/v1\n"]);
    mentions(c, "kubectl cluster-info", &["is running at", "https://127.0.0.1:", "CoreDNS"]);
    mentions(c, "kubectl version", &["Server Version: v1.35.0"]);
    says(c, "kubectl get --raw /healthz", "ok");
    mentions(c, "kubectl get --raw '/readyz?verbose'", &["[+]ping ok", "readyz check passed"]);
    mentions(c, "kubectl get --raw /api/v1/namespaces/default", &["\"kind\":\"Namespace\""]);
    says(
        c,
        "kubectl get --raw /nope",
        "Error from server (NotFound): the server could not find the requested resource\n[exit 1]\n",
    );
}

#[test]
fn bad_input_is_refused_in_upstreams_words() {
    let cluster = up();
    let c = &cluster;
    cluster.kubectl("create deployment web --image keelson.local/hello");
    cluster.kubectl("create configmap cm --from-literal a=b");
    let before = cluster.kubectl("get configmap,deployment -o jsonpath={.items[*].metadata.uid}");
    let create = |yaml: &str, flags: &str| format!("cat <<'EOF' | kubectl create {flags} -f -\n{yaml}\nEOF");
    let config = |rest: &str| format!("apiVersion: v1\nkind: ConfigMap\n{rest}");
    let pod = |rest: &str| format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: x}}\nspec: {rest}");
    let subdomain = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and \
                     must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
                     '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
    let label = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and \
                 end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
                 '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
    let stdin = "error when creating \"STDIN\":";

    says(
        c,
        &create(&pod("{containers: [{name: a, image: b, bogus: 1}], foo: 2}"), ""),
        &format!(
            "Error from server (BadRequest): {stdin} Pod in version \"v1\" cannot be handled as a Pod: strict decoding \
            error: unknown field \"spec.containers[0].bogus\", unknown field \"spec.foo\"\n[exit 1]\n"
        ),
    );
    says(
        c,
        &create(&config("metadata: {name: warned}\nbogus: 1"), "--validate=warn"),
        "Warning: unknown field \"bogus\"\nconfigmap/warned created\n",
    );
    says(
        c,
        &create(&config("metadata: {name: ignored}\nbogus: 1"), "--validate=ignore"),
        "configmap/ignored created\n",
    );
    says(
        c,
        &create(&config("metadata: {name: x}\ndata: {a: 1}"), ""),
        &format!(
            "Error from server (BadRequest): {stdin} ConfigMap in version \"v1\" cannot be handled as a ConfigMap: \
            json: cannot unmarshal number into Go struct field ConfigMap.data of type string\n[exit 1]\n"
        ),
    );
    says(
        c,
        &create(&config("metadata: {name: Bad_Name}"), ""),
        &format!(
            "The ConfigMap \"Bad_Name\" is invalid: metadata.name: Invalid value: \"Bad_Name\": {subdomain}\n[exit 1]\n"
        ),
    );
    says(
        c,
        &create(&pod("{containers: [{name: A_, ports: [{containerPort: 70000}]}], restartPolicy: Often}"), ""),
        &format!(
            "The Pod \"x\" is invalid: \n* spec.containers[0].name: Invalid value: \"A_\": {label}\n\
            * spec.containers[0].image: Required value\n\
            * spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive\n\
            * spec.restartPolicy: Unsupported value: \"Often\": supported values: \"Always\", \"OnFailure\", \"Never\"\n[exit 1]\n"
        ),
    );
    says(c, &create(&pod("{}"), ""), "The Pod \"x\" is invalid: spec.containers: Required value\n[exit 1]\n");
    says(
        c,
        "kubectl create namespace Foo",
        &format!("The Namespace \"Foo\" is invalid: metadata.name: Invalid value: \"Foo\": {label}\n[exit 1]\n"),
    );
    says(
        c,
        "kubectl create deployment web --image x",
        "error: failed to create deployment: deployments.apps \"web\" already exists\n[exit 1]\n",
    );
    says(
        c,
        "kubectl create configmap cm",
        "error: failed to create configmap: configmaps \"cm\" already exists\n[exit 1]\n",
    );
    says(
        c,
        "kubectl create configmap x -n nowhere",
        "error: failed to create configmap: namespaces \"nowhere\" not found\n[exit 1]\n",
    );

    let stale = "kubectl get configmap cm -o json | sed 's/\"resourceVersion\": \"[0-9]*\"/\"resourceVersion\": \"1\"/' | \
                 kubectl replace -f -";
    says(
        c,
        stale,
        "Error from server (Conflict): error when replacing \"STDIN\": Operation cannot be fulfilled on configmaps \"cm\": \
         the object has been modified; please apply your changes to the latest version and try again\n[exit 1]\n",
    );
    says(
        c,
        "kubectl get configmap cm -o json | sed 's/\"name\": \"cm\"/\"name\": \"other\"/' | kubectl replace -f -",
        "Error from server (NotFound): error when replacing \"STDIN\": configmaps \"other\" not found\n[exit 1]\n",
    );
    let patch = |arguments: &str| format!("kubectl patch deployment web {arguments}");
    let unprocessable =
        "The request is invalid: the server rejected our request due to an error in our request\n[exit 1]\n";
    says(c, &patch(r#"--type json -p '[{"op":"remove","path":"/metadata/labels/x"}]'"#), unprocessable);
    says(c, &patch(r#"--type json -p '[{"op":"test","path":"/spec/replicas","value":9}]'"#), unprocessable);
    says(
        c,
        &patch(r#"-p '{"spec":{"replicas":"x"}}'"#),
        "The request is invalid: patch: Invalid value: \"map[spec:map[replicas:x]]\": unrecognized type: int32\n[exit 1]\n",
    );
    mentions(
        c,
        &patch(r#"--type merge -p '{"spec":{"replicas":"x"}}'"#),
        &[
            "The request is invalid: patch: Invalid value: ",
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32\n[exit 1]\n",
        ],
    );
    says(
        c,
        &patch(r#"-p '{"spec":{"replicas":-1}}'"#),
        "The Deployment \"web\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0\n[exit 1]\n",
    );
    mentions(
        c,
        &patch(r#"-p '{"spec":{"selector":{"matchLabels":{"a":"b"}}}}'"#),
        &[
            "`selector` does not match template `labels`\n",
            "spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\",\"app\":\"web\"}}: field is immutable\n[exit 1]\n",
        ],
    );
    says(
        c,
        "kubectl scale deployment web --replicas=-1",
        "error: The --replicas=COUNT flag is required, and COUNT must be greater than or equal to 0\n[exit 1]\n",
    );
    mentions(
        c,
        "kubectl label configmap cm 'a b=c'",
        &["The ConfigMap \"cm\" is invalid: metadata.labels: Invalid value: \"a b\": name part must consist of"],
    );
    mentions(
        c,
        "kubectl create --raw /api/v1/namespaces/default/configmaps -f - <<'EOF'\nnonsense\nEOF",
        &[
            "Error from server (BadRequest): the object provided is unrecognized (must be of type ConfigMap): couldn't \
             get version/kind; json parse error: invalid character 'o' in literal",
            " (6e6f6e73656e73650a)\n[exit 1]\n",
        ],
    );
    mentions(
        c,
        "echo '{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"cm\"},\"bogus\":1}' | \
         kubectl apply --validate=strict -f -",
        &["strict decoding error: unknown field \"bogus\"", "[exit 1]"],
    );
    let after = cluster.kubectl("get configmap,deployment -l app -o jsonpath={.items[*].metadata.uid}");
    assert!(before.contains(&after) && !after.is_empty(), "{before} {after}");
    says(c, "kubectl get configmap cm -o jsonpath='{.data}'", r#"{"a":"b"}"#);
    says(c, "kubectl get deployment web -o jsonpath='{.metadata.generation}'", "1");
    says(c, "kubectl get pods -l '!app' -o name", "");
}
