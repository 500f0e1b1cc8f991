use serde_json::json;

use super::*;

fn service(spec: serde_json::Value) -> Service {
    let mut service: Service = serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "s", "labels": {"team": "x"}},
        "spec": {"selector": {"app": "web"}, "clusterIP": "10.96.0.9", "ipFamilies": ["IPv4"],
            "ports": [{"port": 80, "targetPort": 8080, "protocol": "TCP"}]}
    }))
    .unwrap();
    let mut merged = serde_json::to_value(&service.spec).unwrap();
    json_merge(&mut merged, spec);
    service.spec = serde_json::from_value(merged).unwrap();
    service
}

fn json_merge(into: &mut serde_json::Value, from: serde_json::Value) {
    for (key, value) in from.as_object().unwrap() {
        into.as_object_mut().unwrap().insert(key.clone(), value.clone());
    }
}

fn pod(n: usize, ready: bool) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": format!("p{n}"), "namespace": "default", "uid": format!("u{n}"), "labels": {"app": "web"}},
        "spec": {"nodeName": "node", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8000 + n}]}]},
        "status": {"phase": "Running", "podIP": format!("10.0.{}.{}", n / 250, n % 250),
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}
    }))
    .unwrap()
}

fn run(service: &Service, pods: &[Pod], slices: &[EndpointSlice]) -> Plan {
    let zones = [("node".to_owned(), "z1".to_owned())].into();
    let (pods, slices): (Vec<_>, Vec<_>) = (pods.iter().collect(), slices.iter().collect());
    plan(&Observed { service, pods: &pods, slices: &slices, zones: &zones, max_endpoints: 100 })
}

/// Carries a plan out.
fn apply(plan: Plan, slices: &mut Vec<EndpointSlice>) {
    slices.retain(|slice| !plan.delete.iter().any(|gone| gone.metadata.uid == slice.metadata.uid));
    for updated in plan.update {
        let known = slices.iter_mut().find(|slice| slice.metadata.uid == updated.metadata.uid).unwrap();
        *known = updated;
    }
    for mut made in plan.create {
        made.metadata.uid = Some(format!("slice{}-{}", slices.len(), made.endpoints.len()));
        slices.push(made);
    }
}

#[test]
fn a_pod_becomes_an_endpoint() {
    let plan = run(&service(json!({})), &[pod(1, true)], &[]);
    let [slice] = plan.create.as_slice() else { panic!("{plan:?}") };
    assert_eq!(slice.metadata.generate_name.as_deref(), Some("web-"));
    assert_eq!(
        serde_json::to_value(&slice.metadata.labels).unwrap(),
        json!({"team": "x", SERVICE_NAME: "web", MANAGED_BY: MANAGER})
    );
    assert_eq!(slice.address_type, "IPv4");
    assert_eq!(
        serde_json::to_value(&slice.endpoints).unwrap(),
        json!([{
            "addresses": ["10.0.0.1"], "nodeName": "node", "zone": "z1",
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "targetRef": {"kind": "Pod", "namespace": "default", "name": "p1", "uid": "u1"}
        }])
    );
    assert_eq!(serde_json::to_value(&slice.ports).unwrap(), json!([{"name": "", "port": 8080, "protocol": "TCP"}]));
    let owner = &slice.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!((owner.kind.as_str(), owner.uid.as_str(), owner.controller), ("Service", "s", Some(true)));
}

fn conditions(service: &Service, pod: Pod) -> [bool; 3] {
    let plan = run(service, &[pod], &[]);
    let conditions = plan.create[0].endpoints[0].conditions.clone().unwrap();
    [conditions.ready.unwrap(), conditions.serving.unwrap(), conditions.terminating.unwrap()]
}

#[test]
fn readiness_serving_and_terminating() {
    let plain = service(json!({}));
    let publishing = service(json!({"publishNotReadyAddresses": true}));
    let deleting = |mut pod: Pod| {
        pod.metadata.deletion_timestamp = Some(jiff::Timestamp::UNIX_EPOCH.into());
        pod
    };
    assert_eq!(conditions(&plain, pod(1, true)), [true, true, false]);
    assert_eq!(conditions(&plain, pod(1, false)), [false, false, false]);
    assert_eq!(conditions(&plain, deleting(pod(1, true))), [false, true, true]);
    assert_eq!(conditions(&publishing, pod(1, false)), [true, false, false]);
    assert_eq!(conditions(&publishing, deleting(pod(1, true))), [true, true, true]);
}

#[test]
fn finished_pods_and_pods_without_address_are_left_out() {
    let (mut finished, mut nowhere) = (pod(1, true), pod(2, true));
    finished.status.as_mut().unwrap().phase = Some("Succeeded".into());
    nowhere.status.as_mut().unwrap().pod_ip = None;
    let plan = run(&service(json!({})), &[finished, nowhere], &[]);
    assert_eq!(plan.create.len(), 1, "an empty slice marks the Service as looked at");
    assert!(plan.create[0].endpoints.is_empty());
}

#[test]
fn named_ports_differ_by_pod_and_so_do_their_slices() {
    let service = service(json!({"ports": [{"name": "web", "port": 80, "targetPort": "http"}]}));
    let plan = run(&service, &[pod(1, true), pod(2, true)], &[]);
    let ports: Vec<_> = plan.create.iter().map(|slice| slice.ports.as_ref().unwrap()[0].port.unwrap()).collect();
    assert_eq!(ports, [8001, 8002]);
    assert_eq!(plan.create[0].ports.as_ref().unwrap()[0].name.as_deref(), Some("web"));
}

#[test]
fn headless_services_say_so_and_carry_hostnames() {
    let service = service(json!({"clusterIP": "None", "ports": null}));
    let mut named = pod(1, true);
    named.spec.as_mut().unwrap().hostname = Some("first".into());
    named.spec.as_mut().unwrap().subdomain = Some("web".into());
    let plan = run(&service, &[named], &[]);
    assert_eq!(plan.create[0].metadata.labels.as_ref().unwrap()[HEADLESS], "");
    assert_eq!(plan.create[0].endpoints[0].hostname.as_deref(), Some("first"));
    assert_eq!(plan.create[0].ports.as_ref().unwrap().len(), 0);
}

#[test]
fn slices_hold_a_hundred_and_change_as_little_as_possible() {
    let service = service(json!({}));
    let mut slices = Vec::new();
    let mut pods: Vec<_> = (0..250).map(|n| pod(n, true)).collect();
    apply(run(&service, &pods, &slices), &mut slices);
    assert_eq!(slices.iter().map(|slice| slice.endpoints.len()).collect::<Vec<_>>(), [100, 100, 50]);
    assert_eq!(run(&service, &pods, &slices), Plan::default(), "nothing changed, nothing written");

    pods.push(pod(250, true));
    let plan = run(&service, &pods, &slices);
    assert_eq!((plan.create.len(), plan.update.len(), plan.delete.len()), (0, 1, 0));
    apply(plan, &mut slices);
    assert_eq!(slices[2].endpoints.len(), 51);

    pods[7] = pod(7, false);
    let plan = run(&service, &pods, &slices);
    assert_eq!((plan.create.len(), plan.update.len(), plan.delete.len()), (0, 1, 0));
    apply(plan, &mut slices);

    // The slice that loses one takes the new one.
    pods.remove(0);
    pods.push(pod(251, true));
    let plan = run(&service, &pods, &slices);
    assert_eq!((plan.create.len(), plan.update.len(), plan.delete.len()), (0, 1, 0));
    apply(plan, &mut slices);
    let mut all: Vec<_> = slices.iter().flat_map(|slice| &slice.endpoints).map(identity).collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), pods.len());

    pods.clear();
    apply(run(&service, &pods, &slices), &mut slices);
    assert_eq!(slices.len(), 1);
    assert!(slices[0].endpoints.is_empty());
    assert_eq!(run(&service, &pods, &slices), Plan::default());
}

#[test]
fn a_change_of_ports_reuses_the_slices() {
    let mut slices = Vec::new();
    let pods = [pod(1, true), pod(2, true)];
    apply(run(&service(json!({})), &pods, &slices), &mut slices);
    let plan = run(&service(json!({"ports": [{"port": 80, "targetPort": 9090}]})), &pods, &slices);
    assert_eq!((plan.create.len(), plan.update.len(), plan.delete.len()), (0, 1, 0));
    assert_eq!(plan.update[0].ports.as_ref().unwrap()[0].port, Some(9090));
}

#[test]
fn a_second_family_gets_slices_of_its_own_and_loses_them_with_the_family() {
    let mut slices = Vec::new();
    let dual = service(json!({"ipFamilies": ["IPv4", "IPv6"]}));
    let mut pod = pod(1, true);
    pod.status.as_mut().unwrap().pod_ips =
        serde_json::from_value(json!([{"ip": "10.0.0.1"}, {"ip": "fd00::1"}])).unwrap();
    let pods = [pod];
    apply(run(&dual, &pods, &slices), &mut slices);
    let addresses: Vec<_> = slices.iter().map(|slice| slice.endpoints[0].addresses[0].as_str()).collect();
    assert_eq!(addresses, ["10.0.0.1", "fd00::1"]);
    let plan = run(&service(json!({})), &pods, &slices);
    assert_eq!((plan.create.len(), plan.update.len(), plan.delete.len()), (0, 0, 1));
}

#[test]
fn a_change_of_the_services_labels_reaches_its_slices() {
    let mut slices = Vec::new();
    let mut service = service(json!({}));
    apply(run(&service, &[pod(1, true)], &slices), &mut slices);
    service.metadata.labels = Some([(MANAGED_BY.to_owned(), "me".to_owned()), ("a".into(), "b".into())].into());
    let plan = run(&service, &[pod(1, true)], &slices);
    let labels = serde_json::to_value(&plan.update[0].metadata.labels).unwrap();
    assert_eq!(labels, json!({"a": "b", SERVICE_NAME: "web", MANAGED_BY: MANAGER}));
}
