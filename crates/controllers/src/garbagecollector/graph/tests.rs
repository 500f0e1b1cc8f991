use super::*;

/// `name` or `name<owner,owner!`, where `!` blocks; flags after a space: `d` deleting, `f` foreground, `o` orphan.
fn object(text: &str) -> Object {
    let (head, flags) = text.split_once(' ').unwrap_or((text, ""));
    let (name, owners) = head.split_once('<').unwrap_or((head, ""));
    let owners = owners.split(',').filter(|owner| !owner.is_empty()).map(|owner| OwnerReference {
        api_version: "v1".into(),
        kind: "Kind".into(),
        name: owner.trim_end_matches('!').into(),
        uid: owner.trim_end_matches('!').into(),
        block_owner_deletion: Some(owner.ends_with('!')),
        controller: None,
    });
    Object {
        uid: Uid::new(name),
        place: Place { api_version: "v1".into(), kind: "Kind".into(), namespace: "ns".into(), name: name.into() },
        owners: owners.collect(),
        deleting: flags.contains('d'),
        foreground: flags.contains('f'),
        orphan: flags.contains('o'),
    }
}

/// Applies (`-name` removes) and expects attempts: `name` to delete, `~name` to orphan.
fn check(graph: &mut Graph, change: &str, expected: &[&str]) {
    let mut attempts = match change.strip_prefix('-') {
        Some(name) => graph.remove(Uid::new(name)),
        None => graph.apply(0, object(change)),
    };
    let mut expected: Vec<_> = expected
        .iter()
        .map(|text| match text.strip_prefix('~') {
            Some(name) => Attempt::Orphan(Uid::new(name)),
            None => Attempt::Delete(Uid::new(text)),
        })
        .collect();
    attempts.sort();
    expected.sort();
    assert_eq!(attempts, expected, "{change}");
}

#[test]
fn dependents_are_looked_at_when_their_owner_goes() {
    let mut graph = Graph::default();
    check(&mut graph, "a", &[]);
    assert_eq!(graph.len(), 0, "an object without relations costs nothing");
    check(&mut graph, "b<a", &[]);
    check(&mut graph, "c<b", &[]);
    check(&mut graph, "-a", &["b"]);
    check(&mut graph, "-b", &["c"]);
    check(&mut graph, "-c", &[]);
    assert_eq!(graph.len(), 0);
}

#[test]
fn an_owner_nobody_has_shown_is_looked_for() {
    let mut graph = Graph::default();
    check(&mut graph, "b<a", &["a"]);
    check(&mut graph, "-a", &["b"]);
    let mut graph = Graph::default();
    check(&mut graph, "b<a", &["a"]);
    check(&mut graph, "a", &[]);
    check(&mut graph, "c<a", &[]);
    check(&mut graph, "-a", &["b", "c"]);
}

#[test]
fn foreground_deletion_looks_at_dependents_and_again_at_the_owner_as_they_go() {
    let mut graph = Graph::default();
    check(&mut graph, "a", &[]);
    check(&mut graph, "b<a!", &[]);
    check(&mut graph, "c<a!", &[]);
    check(&mut graph, "a df", &["a", "b", "c"]);
    check(&mut graph, "a df", &[]);
    check(&mut graph, "-b", &["a"]);
    check(&mut graph, "c<a", &["a"]);
    check(&mut graph, "d<a!", &["d"]);
    check(&mut graph, "d", &["a"]);
}

#[test]
fn only_dependents_that_block_hold_their_owner() {
    let mut graph = Graph::default();
    for change in ["a", "b<a!", "c<a!", "d<a", "a df"] {
        graph.apply(0, object(change));
    }
    let a = Uid::new("a");
    let mut undecided = vec![Uid::new("b"), Uid::new("c")];
    undecided.sort();
    let expected = Ties { has_dependents: true, dependents_wait: false, is_blocked: true, undecided };
    assert_eq!(graph.ties(a), expected);
    graph.apply(0, object("b<a! df"));
    graph.apply(0, object("c<a! d"));
    let expected = Ties { dependents_wait: true, undecided: Vec::new(), ..expected };
    assert_eq!(graph.ties(a), expected);
    graph.remove(Uid::new("b"));
    graph.remove(Uid::new("c"));
    assert_eq!(graph.ties(a), Ties { has_dependents: true, ..Ties::default() });
}

#[test]
fn orphaning_is_asked_for_once() {
    let mut graph = Graph::default();
    check(&mut graph, "a", &[]);
    check(&mut graph, "b<a", &[]);
    check(&mut graph, "a do", &["~a"]);
    check(&mut graph, "a do", &[]);
    assert_eq!(graph.dependents(Uid::new("a")).len(), 1);
    check(&mut graph, "b", &[]);
    check(&mut graph, "-a", &[]);
    assert_eq!(graph.len(), 0);
}

#[test]
fn an_object_with_a_pending_deletion_and_no_relations_is_looked_at() {
    let mut graph = Graph::default();
    check(&mut graph, "a df", &["a"]);
    check(&mut graph, "-a", &[]);
    assert_eq!(graph.len(), 0);
}

#[test]
fn what_a_new_list_lacks_is_missing() {
    let mut graph = Graph::default();
    graph.apply(1, object("a"));
    graph.apply(1, object("b"));
    graph.apply(2, object("c"));
    assert_eq!(graph.missing(1, &[Uid::new("a")].into()), [Uid::new("b")]);
}
