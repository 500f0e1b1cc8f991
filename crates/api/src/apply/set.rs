//! Sets of fields in the form that `FieldsV1` has on the wire: a tree of JSON objects whose keys are path elements
//! (`f:name`, `k:{…}`, `v:…`, `i:…`). An empty object is a member of the set; one with children is a member only when it has
//! the key `.`. Operations work on the tree itself, so nothing is decoded or encoded when an object is written.
//!
//! Sets made here are normal: path elements are spelled one way, no node is without members, `.` is never alone.

use serde_json::{Map, Value};

use super::element;

/// The children of a node; at the root, the whole set.
pub type Set = Map<String, Value>;

const SELF: &str = ".";

/// A set being made, seen from one of its paths.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// Whether the path itself is in the set.
    pub(super) member: bool,
    pub(super) children: Set,
}

impl Draft {
    /// Adds the path as a child of `parent`, if it or anything below it is in the set.
    pub(super) fn put(self, parent: &mut Set, key: impl FnOnce() -> String) {
        let Self { member, mut children } = self;
        if children.is_empty() && !member {
            return;
        }
        if member && !children.is_empty() {
            children.insert(SELF.into(), leaf());
        }
        parent.insert(key(), Value::Object(children));
    }
}

fn leaf() -> Value {
    Value::Object(Map::new())
}

/// Whether the path of a node is itself in the set.
pub(super) fn is_member(node: &Set) -> bool {
    node.is_empty() || node.contains_key(SELF)
}

/// The node under a path element.
pub(super) fn child<'a>(node: &'a Set, key: &str) -> Option<&'a Set> {
    node.get(key).and_then(Value::as_object)
}

/// Path elements below a node, with what is under them.
pub(super) fn children(node: &Set) -> impl Iterator<Item = (&str, &Set)> {
    node.iter().filter(|(key, _)| *key != SELF).filter_map(|(key, node)| Some((key.as_str(), node.as_object()?)))
}

fn has_children(node: &Set) -> bool {
    node.keys().any(|key| key != SELF)
}

/// Puts a node into normal form after its children or its membership changed.
fn settle(node: &mut Set, member: bool) {
    match (member, has_children(node)) {
        (true, true) if !node.contains_key(SELF) => drop(node.insert(SELF.into(), leaf())),
        (true, true) => {}
        (_, false) => node.clear(),
        (false, true) => drop(node.remove(SELF)),
    }
}

/// Makes the path of a node a member.
pub(super) fn insert_self(node: &mut Set) {
    settle(node, true);
}

/// Adds what is in `other`.
pub(super) fn union(set: &mut Set, other: &Set) {
    for (key, theirs) in children(other) {
        match set.get_mut(key).and_then(Value::as_object_mut) {
            None => drop(set.insert(key.to_owned(), Value::Object(theirs.clone()))),
            Some(ours) => {
                let member = is_member(ours) || is_member(theirs);
                union(ours, theirs);
                settle(ours, member);
            }
        }
    }
}

/// Takes out what is in `other`. A member's children stay, and so does the parent of members.
pub(super) fn difference(set: &mut Set, other: &Set) {
    for (key, theirs) in children(other) {
        let Some(ours) = set.get_mut(key).and_then(Value::as_object_mut) else { continue };
        let member = is_member(ours) && !is_member(theirs);
        difference(ours, theirs);
        if !member && !has_children(ours) {
            set.remove(key);
        } else {
            settle(ours, member);
        }
    }
}

/// Takes out a path and everything below it.
pub(super) fn remove(set: &mut Set, path: &[&str]) {
    let Some((first, rest)) = path.split_first() else { return };
    let keys: Vec<String> = match *first {
        "*" => set.keys().filter(|key| *key != SELF).cloned().collect(),
        key => vec![key.to_owned()],
    };
    for key in keys {
        if rest.is_empty() {
            set.remove(&key);
            continue;
        }
        let Some(node) = set.get_mut(&key).and_then(Value::as_object_mut) else { continue };
        let member = is_member(node);
        remove(node, rest);
        if !member && !has_children(node) {
            set.remove(&key);
        } else {
            settle(node, member);
        }
    }
}

/// What is in both.
pub(super) fn intersection(set: &Set, other: &Set) -> Set {
    let (small, large) = if set.len() <= other.len() { (set, other) } else { (other, set) };
    let mut both = Set::new();
    for (key, ours) in children(small) {
        let Some(theirs) = child(large, key) else { continue };
        let draft = Draft { member: is_member(ours) && is_member(theirs), children: intersection(ours, theirs) };
        draft.put(&mut both, || key.to_owned());
    }
    both
}

/// What lies under one of the patterns: lists of path elements, `*` for any.
pub(super) fn only(set: &Set, patterns: &[&[&str]]) -> Set {
    let mut kept = Set::new();
    for (key, node) in children(set) {
        let below: Vec<&[&str]> = patterns
            .iter()
            .filter_map(|pattern| pattern.split_first())
            .filter(|(first, _)| **first == "*" || **first == key)
            .map(|(_, rest)| rest)
            .collect();
        if below.iter().any(|rest| rest.is_empty()) {
            kept.insert(key.to_owned(), Value::Object(node.clone()));
        } else if !below.is_empty() {
            Draft { member: false, children: only(node, &below) }.put(&mut kept, || key.to_owned());
        }
    }
    kept
}

/// The paths in the set, as messages show them (`.spec.containers[name="a"].image`); parents before their children.
pub(super) fn paths(set: &Set) -> Vec<String> {
    fn walk(node: &Set, prefix: &str, paths: &mut Vec<String>) {
        let here: Vec<_> =
            children(node).map(|(key, node)| (format!("{prefix}{}", element::show(key)), node)).collect();
        paths.extend(here.iter().filter(|(_, node)| is_member(node)).map(|(path, _)| path.clone()));
        for (path, node) in here {
            walk(node, &path, paths);
        }
    }
    let mut all = Vec::new();
    walk(set, "", &mut all);
    all
}

/// Reads a set that a client wrote, into normal form. Path elements of unknown kinds are left out.
pub(super) fn parse(fields: &Value) -> Result<Set, String> {
    let (children, _) = parse_node(fields)?;
    Ok(children)
}

fn parse_node(node: &Value) -> Result<(Set, bool), String> {
    let map = match node {
        Value::Object(map) => map,
        Value::Null => return Ok((Set::new(), true)),
        _ => return Err("a node of a field set is an object".into()),
    };
    let (mut children, mut member) = (Set::new(), false);
    for (key, below) in map {
        if key == SELF {
            member = true;
            continue;
        }
        let Some(key) = element::normalize(key)? else { continue };
        let (grandchildren, child_member) = parse_node(below)?;
        let mut one = Set::new();
        Draft { member: child_member, children: grandchildren }.put(&mut one, || key);
        union(&mut children, &one);
    }
    let member = member || children.is_empty();
    Ok((children, member))
}
