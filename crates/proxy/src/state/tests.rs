use serde_json::json;

use super::*;
use crate::model::Class;

fn state() -> State {
    State::new(NodeView { name: "n1".to_owned(), cluster_cidr: None, service_cidr: None, masquerade_all: false })
}

fn service(name: &str, ip: &str, external: Option<&str>) -> Arc<Service> {
    let external: Vec<_> = external.into_iter().collect();
    let service = json!({
        "metadata": {"name": name, "namespace": "d"},
        "spec": {"clusterIP": ip, "externalIPs": external, "ports": [{"port": 80}]},
    });
    Arc::new(serde_json::from_value(service).unwrap())
}

fn slice(service: &str, addresses: &[&str]) -> Arc<EndpointSlice> {
    let endpoints: Vec<_> = addresses.iter().map(|a| json!({"addresses": [a]})).collect();
    let slice = json!({
        "metadata": {"name": format!("{service}-1"), "namespace": "d", "labels": {SERVICE_NAME_LABEL: service}},
        "addressType": "IPv4", "endpoints": endpoints, "ports": [{"port": 8080}],
    });
    Arc::new(serde_json::from_value(slice).unwrap())
}

/// (removed, added), and the kernel is told.
fn step(state: &mut State) -> (usize, usize) {
    let diff = state.diff();
    state.programmed();
    (diff.remove.len(), diff.add.len())
}

#[test]
fn only_what_changed_is_sent() {
    let mut state = state();
    state.set_service(service("a", "10.96.0.1", None));
    state.set_slice(slice("a", &["10.244.0.2", "10.244.0.3"]));
    state.set_service(service("b", "10.96.0.2", None));
    // a: service, cluster IP, two endpoints; b: service (refused), cluster IP.
    assert_eq!(step(&mut state), (0, 6));
    assert_eq!(step(&mut state), (0, 0));
    state.set_service(service("a", "10.96.0.1", None));
    assert_eq!(step(&mut state), (0, 0), "nothing that matters changed");
    // The number of endpoints, and the last one.
    state.set_slice(slice("a", &["10.244.0.2", "10.244.0.3", "10.244.0.4"]));
    assert_eq!(step(&mut state), (1, 2));
    state.set_slice(slice("a", &["10.244.0.2", "10.244.0.3", "10.244.0.5"]));
    assert_eq!(step(&mut state), (1, 1));
    state.remove_service(&service("a", "10.96.0.1", None));
    assert_eq!(step(&mut state), (5, 0));
    assert!(!state.is_dirty());
}

#[test]
fn slices_may_come_before_their_service() {
    let mut state = state();
    state.set_slice(slice("a", &["10.244.0.2"]));
    assert_eq!(step(&mut state), (0, 0));
    state.set_service(service("a", "10.96.0.1", None));
    assert_eq!(step(&mut state), (0, 3));
    state.remove_service(&service("a", "10.96.0.1", None));
    state.remove_slice(&slice("a", &[]));
    assert_eq!(step(&mut state), (3, 0));
    assert!(state.services.is_empty() && state.slots.is_empty(), "nothing is remembered of what is gone");
}

#[test]
fn the_older_of_two_services_has_a_shared_address() {
    let mut state = state();
    let shared = |state: &State| {
        let ip = "192.0.2.1".parse().unwrap();
        let key = Key::Service(Frontend { ip, protocol: crate::Protocol::Tcp, port: 80 });
        state.slots.get(&key).and_then(|slot| slot.programmed)
    };
    state.set_service(service("old", "10.96.0.1", Some("192.0.2.1")));
    state.set_service(service("new", "10.96.0.2", Some("192.0.2.1")));
    state.set_slice(slice("new", &["10.244.0.2"]));
    step(&mut state);
    assert_eq!(shared(&state), Some(Value::Class(Class::Reject)));
    state.remove_service(&service("old", "10.96.0.1", None));
    step(&mut state);
    assert!(matches!(shared(&state), Some(Value::Class(Class::Balance(_)))), "{:?}", shared(&state));
}

#[test]
fn a_resync_removes_what_is_not_in_it() {
    let mut state = state();
    state.resync_services(vec![service("a", "10.96.0.1", None), service("b", "10.96.0.2", None)]);
    state.resync_slices(vec![slice("a", &["10.244.0.2"])]);
    assert_eq!(step(&mut state), (0, 5));
    state.resync_services(vec![service("b", "10.96.0.2", None)]);
    assert_eq!(step(&mut state), (3, 0));
    state.resync_slices(vec![slice("b", &["10.244.0.2"])]);
    assert_eq!(step(&mut state), (1, 2));
}

#[test]
fn a_new_table_gets_everything() {
    let mut state = state();
    state.set_service(service("a", "10.96.0.1", None));
    state.set_service(service("b", "10.96.0.2", None));
    step(&mut state);
    state.remove_service(&service("b", "10.96.0.2", None));
    state.forget_programmed();
    assert_eq!(step(&mut state), (0, 2));
    assert_eq!(state.slots.len(), 2);
}
