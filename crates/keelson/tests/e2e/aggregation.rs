//! An aggregated API server in a pod behind a Service and an APIService, used by kubectl.

mod server;

use base64::Engine as _;
use keelson_testbed::image;

use super::{mentions, says, up};

const SERVER: &str = "registry.test/weather-apiserver:1";

#[test]
fn an_api_server_in_a_pod() {
    let cluster = up();
    let archive = cluster.path("server.tar");
    let program = std::env::current_exe().expect("own path");
    image::binary(SERVER, &program, server::ARGUMENTS)
        .and_then(|image| image.compression(image::Compression::None).write_archive(&archive))
        .expect("an archive");
    cluster.keelson_ok("image load", &[archive.to_str().expect("UTF-8")]);
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["weather.weather.svc".into()]).expect("a name");
    let certificate = params.self_signed(&key).expect("a certificate").pem();
    let encode = |text: &str| base64::prelude::BASE64_STANDARD.encode(text);
    let (certificate, key) = (encode(&certificate), encode(&key.serialize_pem()));
    let pod = format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: server, namespace: weather, labels: {{app: weather}}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: server
    image: {SERVER}
    imagePullPolicy: Never
    readinessProbe: {{tcpSocket: {{port: 8443}}, periodSeconds: 1}}
    volumeMounts: [{{name: tls, mountPath: /tls}}]
  volumes: [{{name: tls, secret: {{secretName: weather}}}}]
"#
    );
    let binding = |kind: &str, of: &str, role: &str| {
        format!(
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: {kind}\nmetadata: {{name: weather:{of}, namespace: kube-system}}\n\
             roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: {role}, name: {of}}}\n\
             subjects: [{{kind: ServiceAccount, name: default, namespace: weather}}]"
        )
    };
    let manifest = format!(
        r#"
apiVersion: v1
kind: Namespace
metadata: {{name: weather}}
---
{}
---
{}
---
apiVersion: v1
kind: Secret
metadata: {{name: weather, namespace: weather}}
type: kubernetes.io/tls
data: {{tls.crt: {certificate}, tls.key: {key}}}
---
apiVersion: v1
kind: Service
metadata: {{name: weather, namespace: weather}}
spec: {{selector: {{app: weather}}, ports: [{{port: 443, targetPort: 8443}}]}}
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {{name: v1.weather.example.com}}
spec:
  group: weather.example.com
  version: v1
  groupPriorityMinimum: 500
  versionPriority: 15
  service: {{name: weather, namespace: weather}}
  caBundle: {certificate}
---
{pod}"#,
        binding("ClusterRoleBinding", "system:auth-delegator", "ClusterRole").replace(", namespace: kube-system", ""),
        binding("RoleBinding", "extension-apiserver-authentication-reader", "Role"),
    );
    cluster.apply(&manifest);
    let available = "kubectl wait --for=condition=Available apiservice/v1.weather.example.com --timeout=60s";
    says(&cluster, available, "apiservice.apiregistration.k8s.io/v1.weather.example.com condition met\n");
    mentions(
        &cluster,
        "kubectl get apiservices",
        &["v1.weather.example.com", "weather/weather", "True", "v1.apps", "Local"],
    );
    cluster.wait_for("api-resources --api-group=weather.example.com --cached=false", |table| {
        ["reports", "wr", "weather.example.com/v1", "true", "Report"].iter().all(|word| table.contains(word))
    });
    cluster.wait_for("explain reports", |text| text.contains("What the weather was."));
    mentions(&cluster, "kubectl explain wr.sky", &["FIELD: sky <string>", "Its colour."]);

    let report = |name: &str| {
        format!(
            "kubectl create -f - <<'END'\napiVersion: weather.example.com/v1\nkind: Report\nmetadata: {{name: {name}}}\nsky: blue\nEND"
        )
    };
    let watch = cluster.background("kubectl get reports --watch -o name");
    says(&cluster, &report("monday"), "report.weather.example.com/monday created\n");
    says(&cluster, &report("tuesday"), "report.weather.example.com/tuesday created\n");
    mentions(&cluster, "kubectl get wr", &["NAME", "AGE", "monday", "tuesday"]);
    says(&cluster, "kubectl get report monday -o jsonpath='{.sky}'", "blue");
    says(
        &cluster,
        "kubectl get reports sunday",
        "Error from server (NotFound): reports \"sunday\" not found\n[exit 1]\n",
    );
    let seen = "report.weather.example.com/monday\nreport.weather.example.com/tuesday\n";
    watch.wait_for(|output| output == seen);
    drop(watch);

    // Who may do what is the cluster's to say, to both servers.
    mentions(&cluster, "kubectl get reports --as jane", &["Error from server (Forbidden)", "\"jane\" cannot list"]);
    cluster.shell("kubectl create role reader --verb=get,list --resource=reports.weather.example.com");
    cluster.shell("kubectl create rolebinding reader --role=reader --user=jane");
    mentions(&cluster, "kubectl get reports --as jane", &["monday"]);
    let log = cluster.shell("kubectl logs -n weather server");
    assert!(log.contains("jane list default/: true") && !log.contains("false"), "{log}");

    // Without its pod the group is not served; everything else is.
    cluster.kubectl("create namespace doomed");
    cluster.kubectl("delete pod server -n weather --wait=true");
    cluster.wait_for("get apiservice v1.weather.example.com", |row| row.contains("False (MissingEndpoints)"));
    let unavailable = "Error from server (ServiceUnavailable): the server is currently unable to handle the request";
    mentions(&cluster, "kubectl get --raw /apis/weather.example.com/v1/reports", &[unavailable]);
    mentions(&cluster, "kubectl get pods,services --all-namespaces", &["service/kubernetes", "service/weather"]);
    cluster.kubectl("delete namespace doomed --wait=false");
    cluster.wait_for("get namespace doomed -o jsonpath={.status.conditions[0]}", |condition| {
        condition.contains("DiscoveryFailed") && condition.contains("weather.example.com/v1")
    });
    cluster.apply(&pod);
    says(&cluster, available, "apiservice.apiregistration.k8s.io/v1.weather.example.com condition met\n");
    cluster.wait_for("get namespace doomed --ignore-not-found", str::is_empty);
    says(&cluster, "kubectl get reports", "No resources found in default namespace.\n");
    cluster.kubectl("delete apiservice v1.weather.example.com");
    mentions(&cluster, "kubectl get reports.weather.example.com", &["doesn't have a resource type \"reports\""]);
}
