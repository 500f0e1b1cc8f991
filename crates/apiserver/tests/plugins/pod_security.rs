use serde_json::{Value, json};

use super::{namespace, pod, refused, start};
use crate::support::TestServer;

const PODS: &str = "POST /api/v1/namespaces/team/pods";
const BASELINE: &str = "privileged (container \"c\" must not set securityContext.privileged=true)";

fn labels(pairs: &[(&str, &str)]) -> Value {
    pairs.iter().map(|(key, value)| (format!("pod-security.kubernetes.io/{key}"), Value::from(*value))).collect()
}

fn privileged(name: &str) -> Value {
    let mut pod = pod(name);
    pod["spec"]["containers"][0]["securityContext"] = json!({"privileged": true});
    pod
}

fn deployment(template: &Value) -> Value {
    let template = json!({"metadata": {"labels": {"app": "a"}}, "spec": template["spec"]});
    json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"app": "a"}}, "template": template}})
}

#[tokio::test]
async fn pods_meet_their_namespaces_standard() {
    let (_server, api) = start(labels(&[("enforce", "baseline")])).await;
    let said = format!("pods \"x\" is forbidden: violates PodSecurity \"baseline:latest\": {BASELINE}");
    refused(&api, PODS, privileged("x"), 403, &said).await;
    api.ok(PODS, pod("fine")).await;
    // Workloads are warned of, since their pods would be refused.
    let deployments = "POST /apis/apps/v1/namespaces/team/deployments";
    let (code, _, warnings) = api.raw(deployments, deployment(&privileged("x")).to_string()).await;
    assert_eq!(code, 201);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("would violate PodSecurity"), "{warnings:?}");
    // An ephemeral container counts, and so does a new image.
    let debugger = json!({"spec": {"ephemeralContainers": [{"name": "e", "image": "i", "securityContext": {"privileged": true}}]}});
    let (code, status) =
        api.call("PATCH+strategic /api/v1/namespaces/team/pods/fine/ephemeralcontainers", debugger).await;
    assert_eq!(code, 403, "{status}");
    assert!(status["message"].as_str().unwrap().contains("container \"e\""), "{status}");
}

#[tokio::test]
async fn restricted_names_everything_at_once() {
    let (_server, api) = start(labels(&[("enforce", "restricted"), ("enforce-version", "v1.35")])).await;
    refused(
        &api,
        PODS,
        pod("x"),
        403,
        "pods \"x\" is forbidden: violates PodSecurity \"restricted:v1.35\": allowPrivilegeEscalation != false (container \
         \"c\" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"c\" must set \
         securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"c\" must set \
         securityContext.runAsNonRoot=true), seccompProfile (pod or container \"c\" must set \
         securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")",
    )
    .await;
    let mut good = pod("good");
    good["spec"]["securityContext"] = json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
    good["spec"]["containers"][0]["securityContext"] =
        json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    api.ok(PODS, good).await;
}

#[tokio::test]
async fn warnings_refuse_nothing() {
    let (_server, api) = start(labels(&[("warn", "baseline"), ("audit", "restricted")])).await;
    let (code, _, warnings) = api.raw(PODS, privileged("x").to_string()).await;
    assert_eq!(code, 201);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("baseline:latest"), "{warnings:?}");
}

#[tokio::test]
async fn labels_of_namespaces_are_checked_against_their_pods() {
    let (_server, api) = start(json!({})).await;
    for name in ["a", "b", "c"] {
        api.ok(PODS, privileged(name)).await;
    }
    api.ok(PODS, pod("plain")).await;
    let patch = |pairs: &[(&str, &str)]| json!({"metadata": {"labels": labels(pairs)}}).to_string();
    let team = "PATCH+merge /api/v1/namespaces/team";
    let (code, text, _) = api.raw(team, patch(&[("enforce", "strict")])).await;
    assert_eq!(code, 422);
    assert!(text.contains("must be one of privileged, baseline, restricted"), "{text}");
    let (code, _, warnings) = api.raw(team, patch(&[("enforce", "baseline")])).await;
    assert_eq!(code, 200);
    let expected = [
        "existing pods in namespace \\\"team\\\" violate the new PodSecurity enforce level \\\"baseline:latest\\\"",
        "a (and 2 other pods): privileged",
    ];
    assert_eq!(warnings.len(), expected.len(), "{warnings:?}");
    for (warning, expected) in warnings.iter().zip(expected) {
        assert!(warning.contains(expected), "{warning}");
    }
    // What is there stays, and may change in ways that do not matter.
    let label = json!({"metadata": {"labels": {"x": "y"}}});
    api.ok("PATCH+merge /api/v1/namespaces/team/pods/a", label).await;
    let image = json!({"spec": {"containers": [{"name": "c", "image": "j"}]}});
    assert_eq!(api.call("PATCH+strategic /api/v1/namespaces/team/pods/a", image).await.0, 403);
}

#[tokio::test]
async fn configuration_sets_defaults_and_exemptions() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("admission.yaml");
    let text = "
apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: PodSecurity
  configuration:
    apiVersion: pod-security.admission.config.k8s.io/v1
    kind: PodSecurityConfiguration
    defaults: {enforce: baseline}
    exemptions:
      namespaces: [open]
      usernames: [trusted]
";
    std::fs::write(&file, text).unwrap();
    let server = TestServer::start_with(|config| config.admission_control_config_file = Some(file)).await;
    let api = server.admin();
    namespace(&api, "team", json!({})).await;
    namespace(&api, "open", json!({})).await;
    let said = format!("pods \"x\" is forbidden: violates PodSecurity \"baseline:latest\": {BASELINE}");
    refused(&api, PODS, privileged("x"), 403, &said).await;
    api.ok("POST /api/v1/namespaces/open/pods", privileged("x")).await;
    // Who labels an exempt namespace is told that it is for nothing.
    let patch = json!({"metadata": {"labels": labels(&[("enforce", "restricted"), ("audit-version", "v1.30")])}});
    let (code, _, warnings) = api.raw("PATCH+merge /api/v1/namespaces/open", patch.to_string()).await;
    assert_eq!((code, warnings.len()), (200, 1), "{warnings:?}");
    let said = "namespace \\\"open\\\" is exempt from Pod Security, and the policy (enforce=restricted:latest) will be ignored";
    assert!(warnings[0].contains(said), "{warnings:?}");
    let trusted = server.api(keelson_apiserver::UserInfo::new("trusted", ["system:masters"]));
    trusted.ok(PODS, privileged("x")).await;
}
