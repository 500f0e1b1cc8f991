use super::*;
use correlate::Outcome;

fn record(object: &str, message: &str, second: i64) -> Record {
    Record {
        about: ObjectReference { name: Some(object.into()), ..ObjectReference::default() },
        type_: EventType::Normal,
        reason: "Why".into(),
        message: message.into(),
        annotations: None,
        at: jiff::Timestamp::from_second(second).unwrap(),
    }
}

/// Judges, pretends to write, and says what happened.
fn judge(correlator: &mut Correlator, record: &Record) -> String {
    match correlator.judge(record) {
        Outcome::Drop => "drop".into(),
        Outcome::Create { message, slot } => {
            correlator.written(slot, message.clone(), record.at);
            format!("create {message}")
        }
        Outcome::CountUp { name, count, message, .. } => format!("count {name} {count} {message}"),
    }
}

#[test]
fn equal_events_count_up() {
    let mut correlator = Correlator::default();
    assert_eq!(judge(&mut correlator, &record("a", "m", 0)), "create m");
    assert_eq!(judge(&mut correlator, &record("a", "m", 1)), "count m 2 m");
    assert_eq!(judge(&mut correlator, &record("b", "m", 2)), "create m");
    assert_eq!(judge(&mut correlator, &record("a", "m", 3)), "count m 3 m");
}

#[test]
fn the_tenth_similar_message_is_combined_with_those_that_follow() {
    let mut correlator = Correlator::default();
    for n in 0..9 {
        assert_eq!(judge(&mut correlator, &record("a", &n.to_string(), n)), format!("create {n}"));
    }
    let combined = "(combined from similar events): ";
    assert_eq!(judge(&mut correlator, &record("a", "9", 9)), format!("create {combined}9"));
    assert_eq!(judge(&mut correlator, &record("a", "10", 10)), format!("count {combined}9 2 {combined}10"));
    assert_eq!(judge(&mut correlator, &record("a", "11", 700)), "create 11", "ten quiet minutes later");
}

#[test]
fn a_noisy_object_is_cut_off_after_25_and_heard_again_five_minutes_later() {
    let mut correlator = Correlator::default();
    for n in 0..25 {
        assert_ne!(judge(&mut correlator, &record("a", "m", 0)), "drop", "{n}");
    }
    assert_eq!(judge(&mut correlator, &record("a", "m", 1)), "drop");
    assert_eq!(judge(&mut correlator, &record("b", "m", 1)), "create m");
    assert_eq!(judge(&mut correlator, &record("a", "m", 302)), "count m 26 m");
    assert_eq!(judge(&mut correlator, &record("a", "m", 303)), "drop");
}

#[test]
fn tables_stay_bounded() {
    let mut correlator = Correlator::default();
    for n in 0..20_000 {
        assert_eq!(judge(&mut correlator, &record(&n.to_string(), "m", n)), "create m");
    }
}

#[test]
fn an_event_names_its_object_and_source() {
    let source = EventSource { component: Some("kubelet".into()), host: Some("n1".into()) };
    let event = new_event(&record("web", "m", 1), "default", "m".into(), &source);
    assert_eq!(event.metadata.name.as_deref(), Some("web.3b9aca00"));
    assert_eq!(event.reporting_component.as_deref(), Some("kubelet"));
    assert_eq!(event.reporting_instance.as_deref(), Some("n1"));
    assert_eq!(event.count, Some(1));
}
