use serde_json::{Value, json};

use super::{Notes, default_tolerations, service_account};
use crate::audit::Level;

#[test]
fn tolerations_are_added_once() {
    let mut pod = json!({"spec": {"tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists"}]}});
    default_tolerations::add(&mut pod);
    default_tolerations::add(&mut pod);
    let keys: Vec<_> = pod["spec"]["tolerations"].as_array().unwrap().iter().map(|t| t["key"].clone()).collect();
    assert_eq!(keys, ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]);
    let mut all = json!({"spec": {"tolerations": [{"operator": "Exists"}]}});
    default_tolerations::add(&mut all);
    assert_eq!(all["spec"]["tolerations"].as_array().unwrap().len(), 1);
}

#[test]
fn tokens_are_mounted() {
    let mut pod = json!({"containers": [{"name": "a"}, {"name": "b", "volumeMounts": [
        {"name": "own", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"},
    ]}]});
    let Value::Object(spec) = &mut pod else { unreachable!() };
    let account = serde_json::from_value(json!({"imagePullSecrets": [{"name": "s"}]})).unwrap();
    service_account::apply(spec, &account, "abcde");
    assert_eq!(pod["volumes"][0]["name"], "kube-api-access-abcde");
    assert_eq!(pod["containers"][0]["volumeMounts"][0]["name"], "kube-api-access-abcde");
    assert_eq!(pod["containers"][1]["volumeMounts"].as_array().unwrap().len(), 1);
    assert_eq!(pod["imagePullSecrets"][0]["name"], "s");
}

#[test]
fn tokens_are_not_mounted_when_unwanted() {
    let mut pod = json!({"automountServiceAccountToken": false, "containers": [{"name": "a"}]});
    let Value::Object(spec) = &mut pod else { unreachable!() };
    service_account::apply(spec, &Default::default(), "abcde");
    assert_eq!(pod.get("volumes"), None);
}

#[test]
fn annotations_show_no_more_than_the_level_allows() {
    let taken = |level: Level| {
        let notes = Notes::default();
        notes.annotate("a", "1");
        notes.annotate("a", "2");
        notes.annotate_from(Level::Request, "patch", "secret");
        notes.annotate_from(Level::RequestResponse, "all", "3");
        let taken: Vec<_> = notes.take_annotations(level).map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(notes.take_annotations(Level::RequestResponse).count(), 0, "they are taken once");
        taken
    };
    assert!(taken(Level::None).is_empty());
    assert_eq!(taken(Level::Metadata), ["a=1"]);
    assert_eq!(taken(Level::Request), ["a=1", "patch=secret"]);
    assert_eq!(taken(Level::RequestResponse), ["a=1", "patch=secret", "all=3"]);
}
