use k8s_openapi::api::core::v1::{PodCondition, PodSpec, PodStatus};

use super::*;

fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

/// `name node phase ready-seconds restarts cost age-seconds`; `-` for what is not there.
fn pod(text: &str) -> Pod {
    let mut words = text.split(' ').map(|word| (word != "-").then_some(word));
    let mut word = || words.next().flatten();
    let mut pod = Pod::default();
    pod.metadata.name = word().map(Into::into);
    pod.metadata.uid = pod.metadata.name.clone();
    pod.spec = Some(PodSpec { node_name: word().map(Into::into), ..PodSpec::default() });
    let mut status = PodStatus { phase: word().map(Into::into), ..PodStatus::default() };
    let ago = |seconds: &str| Time(now() - Duration::from_secs(seconds.parse().unwrap()));
    status.conditions = word().map(|seconds| {
        vec![PodCondition {
            type_: "Ready".into(),
            status: "True".into(),
            last_transition_time: Some(ago(seconds)),
            ..PodCondition::default()
        }]
    });
    status.container_statuses = word().map(|restarts| {
        vec![ContainerStatus { restart_count: restarts.parse().unwrap(), ..ContainerStatus::default() }]
    });
    pod.status = Some(status);
    pod.metadata.annotations = word().map(|cost| [(DELETION_COST.to_owned(), cost.to_owned())].into());
    pod.metadata.creation_timestamp = word().map(ago);
    pod
}

#[test]
fn too_few_are_made_up_for() {
    let pods = [pod("a n Running 9 0 - 9")];
    let active: Vec<_> = pods.iter().map(|pod| Candidate { pod, colocated: 0 }).collect();
    assert_eq!(plan(1, &active, now()), Action::None);
    assert_eq!(plan(3, &active, now()), Action::Create(2));
    assert_eq!(plan(10_000, &active, now()), Action::Create(BURST));
    assert_eq!(plan(0, &active, now()), Action::Delete(vec![0]));
    assert_eq!(plan(-1, &[], now()), Action::None);
}

/// The first of two pods goes first, whichever order they come in.
fn first_to_go(first: &str, second: &str) {
    let (a, b) = (pod(first), pod(second));
    for (one, two) in [(&a, &b), (&b, &a)] {
        let pair = [Candidate { pod: one, colocated: 0 }, Candidate { pod: two, colocated: 0 }];
        let Action::Delete(order) = plan(1, &pair, now()) else { panic!("nothing deleted") };
        assert_eq!(pair[order[0]].pod.metadata.name, a.metadata.name, "{first} / {second}");
    }
}

#[test]
fn deletion_order_is_upstreams() {
    first_to_go("a - Pending - 0 - 90000", "b n Pending - 0 - 1");
    first_to_go("a n Pending - 0 - 90000", "b n Running - 0 - 1");
    first_to_go("a n Unknown - 0 - 90000", "b n Running - 0 - 1");
    first_to_go("a n Running - 0 - 90000", "b n Running 5 0 - 1");
    first_to_go("a n Running 90000 0 -5 90000", "b n Running 5 0 - 1");
    first_to_go("a n Running 5 0 - 90000", "b n Running 90000 0 - 1");
    first_to_go("a n Running 50 7 - 90000", "b n Running 50 2 - 1");
    first_to_go("a n Running 50 0 - 100", "b n Running 50 0 - 90000");
    first_to_go("a n Running 50 0 - 100", "b n Running 51 0 - 101");
}

#[test]
fn fuller_nodes_go_first() {
    let pods = [pod("a n Running 5 0 - 9"), pod("b m Running 90000 0 - 90000")];
    let active = [Candidate { pod: &pods[0], colocated: 1 }, Candidate { pod: &pods[1], colocated: 2 }];
    assert_eq!(plan(1, &active, now()), Action::Delete(vec![1]));
}

fn observed<'a>(
    active: &'a [&'a Pod],
    status: &'a Status,
    labels: &'a std::collections::BTreeMap<String, String>,
) -> Observed<'a> {
    Observed {
        replicas: 2,
        min_ready_seconds: 10,
        generation: Some(3),
        status,
        template_labels: labels,
        active,
        terminating: 1,
        error: None,
    }
}

#[test]
fn status_counts_and_says_when_to_look_again() {
    let pods = [pod("a n Running 3 0 - 9"), pod("b n Running 10 0 - 9"), pod("c n Running - 0 - 9")];
    let active: Vec<_> = pods.iter().collect();
    let (old, labels) = (Status::default(), Default::default());
    let (status, wait) = status(&observed(&active, &old, &labels), now());
    let expected = Status {
        replicas: 3,
        fully_labeled: 3,
        ready: 2,
        available: 1,
        terminating: Some(1),
        observed_generation: Some(3),
        failure: None,
    };
    assert_eq!(status, expected);
    assert_eq!(wait, Some(Duration::from_secs(7)));
}

#[test]
fn only_pods_with_all_template_labels_are_fully_labeled() {
    let mut pods = [pod("a n Running 30 0 - 9"), pod("b n Running 30 0 - 9")];
    pods[1].metadata.labels = Some([("a".to_owned(), "b".to_owned()), ("c".to_owned(), "d".to_owned())].into());
    let active: Vec<_> = pods.iter().collect();
    let (old, labels) = (Status::default(), [("a".to_owned(), "b".to_owned())].into());
    assert_eq!(status(&observed(&active, &old, &labels), now()).0.fully_labeled, 1);
}

#[test]
fn a_failure_becomes_a_condition_and_goes_again() {
    let (old, labels) = (Status::default(), Default::default());
    let failing = Observed { error: Some("no room".into()), ..observed(&[], &old, &labels) };
    let (first, _) = status(&failing, now());
    let failure = first.failure.clone().unwrap();
    assert_eq!((failure.reason.as_str(), failure.message.as_str()), ("FailedCreate", "no room"));
    let later = now() + Duration::from_secs(60);
    let again = Observed { status: &first, error: Some("still none".into()), ..observed(&[], &old, &labels) };
    assert_eq!(status(&again, later).0.failure, Some(failure), "the same reason keeps its time and words");
    let cured = Observed { status: &first, ..observed(&[], &old, &labels) };
    assert_eq!(status(&cured, later).0.failure, None);
}
