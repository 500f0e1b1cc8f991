//! What a write changed: two objects of one type compared, field by field.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::element;
use super::node::{Node, is_empty};
use super::set::{Draft, Set};
use crate::schema::{Field, Schema, Type};

/// Fields that differ between two objects.
#[derive(Debug, Default)]
pub(super) struct Diff {
    /// Added, or with another value.
    pub(super) changed: Set,
    pub(super) removed: Set,
}

impl Diff {
    pub(super) fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }
}

/// Fields of `metadata` that nobody owns.
pub(super) const UNOWNED: [&str; 9] = [
    "clusterName",
    "creationTimestamp",
    "generation",
    "managedFields",
    "name",
    "namespace",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Compares; `old` is `None` when the object is new. Type, identity and what else nobody owns are left out.
pub(super) fn diff(schema: &Schema, old: Option<&Value>, new: &Value) -> Diff {
    let mut found = Found::default();
    let side = old.map_or(Side::Zero, Side::Value);
    let node = Node::Struct(schema);
    each_key(node, side, new.as_object(), &mut |name, below, side, new| {
        if matches!(name, "apiVersion" | "kind") {
            return;
        }
        let mut inner = Found::default();
        if name == "metadata" {
            each_key(below, side, new.and_then(Value::as_object), &mut |name, below, old, new| {
                if !UNOWNED.contains(&name) {
                    let mut field = Found::default();
                    compare(below, old, new, &mut field);
                    field.put(&mut inner, || element::field(name));
                }
            });
        } else {
            compare(below, side, new, &mut inner);
        }
        inner.put(&mut found, || element::field(name));
    });
    Diff { changed: found.changed.children, removed: found.removed.children }
}

/// The older value of a field.
#[derive(Clone, Copy, Debug)]
pub(super) enum Side<'a> {
    Absent,
    /// A struct that Go always has: its fields are not there, but it is.
    Zero,
    Value(&'a Value),
}

#[derive(Default)]
struct Found {
    changed: Draft,
    removed: Draft,
}

impl Found {
    fn put(self, parent: &mut Self, key: impl Fn() -> String) {
        self.changed.put(&mut parent.changed.children, &key);
        self.removed.put(&mut parent.removed.children, &key);
    }
}

fn compare(node: Node<'_>, old: Side<'_>, new: Option<&Value>, found: &mut Found) {
    if let (Side::Value(old), Some(new)) = (old, new)
        && matches!(node, Node::Deduced)
    {
        return compare_deduced(old, new, found);
    }
    let known = match (old, new) {
        (_, Some(value)) | (Side::Value(value), None) => node.deduced(value),
        _ => node,
    };
    match known {
        Node::Scalar | Node::Atomic => leaf(old, new, found),
        _ if old.is_empty() && new.is_none_or(is_empty) => leaf(old, new, found),
        Node::Struct(_) | Node::Map(_) | Node::Deduced => {
            each_key(known, old, new.and_then(Value::as_object), &mut |name, below, old, new| {
                let mut inner = Found::default();
                compare(below, old, new, &mut inner);
                inner.put(found, || element::field(name));
            });
            whole(old, new, found);
        }
        Node::Set | Node::Keyed(..) => {
            if let (Side::Value(old), Some(new)) = (old, new)
                && old == new
            {
                return;
            }
            compare_lists(known, old.list(), new.and_then(Value::as_array), found);
            whole(old, new, found);
        }
    }
}

/// Two values of no known type, which may be of different kinds.
fn compare_deduced(old: &Value, new: &Value, found: &mut Found) {
    match (old, new) {
        (Value::Object(_), Value::Object(_)) => {
            if is_empty(old) && is_empty(new) {
                return;
            }
            each_key(Node::Deduced, Side::Value(old), new.as_object(), &mut |name, below, old, new| {
                let mut inner = Found::default();
                compare(below, old, new, &mut inner);
                inner.put(found, || element::field(name));
            });
        }
        (Value::Object(_), _) | (_, Value::Object(_)) => {
            each_key(Node::Deduced, Side::Value(old), new.as_object(), &mut |name, below, old, new| {
                let mut inner = Found::default();
                compare(below, old, new, &mut inner);
                inner.put(found, || element::field(name));
            });
            found.changed.member = true;
        }
        _ => found.changed.member = old != new,
    }
}

impl<'a> Side<'a> {
    pub(super) fn is_empty(self) -> bool {
        match self {
            Self::Absent | Self::Zero => true,
            Self::Value(value) => is_empty(value),
        }
    }

    fn list(self) -> Option<&'a Vec<Value>> {
        match self {
            Self::Value(value) => value.as_array(),
            _ => None,
        }
    }

    /// The same for a key that this side does not have.
    pub(super) fn below(self, node: Node<'a>, name: &str) -> Self {
        match self {
            Self::Absent => self,
            _ => node.whole().and_then(|schema| schema.field(name)).map_or(Self::Absent, Self::zero),
        }
    }

    /// What a field that is absent is in Go.
    fn zero(field: &'a Field) -> Self {
        static EMPTY: Value = Value::String(String::new());
        static NULL: Value = Value::Null;
        static FALSE: Value = Value::Bool(false);
        static ZERO: LazyLock<Value> = LazyLock::new(|| 0.into());
        match &field.ty {
            Type::Struct(_) if field.drop_empty => Self::Zero,
            _ if !field.required => Self::Absent,
            Type::String => Self::Value(&EMPTY),
            Type::Bool => Self::Value(&FALSE),
            Type::Int32 | Type::Int64 => Self::Value(&ZERO),
            _ => Self::Value(&NULL),
        }
    }
}

/// A value that has no parts here.
fn leaf(old: Side<'_>, new: Option<&Value>, found: &mut Found) {
    match (old, new) {
        (Side::Absent, Some(_)) => found.changed.member = true,
        (Side::Zero, Some(new)) => found.changed.member = !is_empty(new),
        (Side::Value(old), Some(new)) => found.changed.member = old != new,
        (Side::Value(_), None) => found.removed.member = true,
        (_, None) => {}
    }
}

/// A value with parts that came or went with them.
fn whole(old: Side<'_>, new: Option<&Value>, found: &mut Found) {
    match (old, new) {
        (Side::Absent, Some(_)) => found.changed.member = true,
        (Side::Value(_), None) => found.removed.member = true,
        _ => {}
    }
}

/// Calls `visit` for each key that either has, but for scalars that are the same.
fn each_key<'a>(
    node: Node<'a>,
    old: Side<'a>,
    new: Option<&'a Map<String, Value>>,
    visit: &mut dyn FnMut(&'a str, Node<'a>, Side<'a>, Option<&'a Value>),
) {
    static EMPTY: LazyLock<Value> = LazyLock::new(|| Value::Object(Map::new()));
    let old_map = match old {
        Side::Value(value) => value.as_object(),
        Side::Absent | Side::Zero => None,
    };
    zip(old_map.into_iter().flatten(), new.into_iter().flatten(), |name, before, new| match (before, new) {
        (Some(before), Some(after)) => {
            if before.is_object() || before.is_array() || before != after {
                visit(name, node.below(name), Side::Value(before), new);
            }
        }
        (None, _) => visit(name, node.below(name), old.below(node, name), new),
        (Some(before), None) => {
            let field = node.whole().and_then(|schema| schema.field(name));
            let stays = field.is_some_and(|field| field.drop_empty && matches!(field.ty, Type::Struct(_)));
            visit(name, node.below(name), Side::Value(before), stays.then_some(&*EMPTY));
        }
    });
}

/// Walks two sorted sequences of pairs together.
fn zip<'a, V: 'a>(
    old: impl Iterator<Item = (&'a String, V)>,
    new: impl Iterator<Item = (&'a String, V)>,
    mut visit: impl FnMut(&'a str, Option<V>, Option<V>),
) {
    let (mut old, mut new) = (old.peekable(), new.peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        let left = if order.is_le() { old.next() } else { None };
        let right = if order.is_ge() { new.next() } else { None };
        let name = left.as_ref().or(right.as_ref()).map_or("", |(name, _)| name.as_str());
        visit(name, left.map(|(_, value)| value), right.map(|(_, value)| value));
    }
}

/// An item of a list and its path element.
pub(super) type Item<'a> = (String, &'a Value);

/// Items sorted by path element, those of the same in their order; those that have none are left out.
pub(super) fn index<'a>(node: Node<'_>, list: Option<&'a Vec<Value>>) -> Vec<Item<'a>> {
    let items = list.into_iter().flatten().filter_map(|item| Some((node.element(item).ok()?, item)));
    let mut items: Vec<Item<'a>> = items.collect();
    items.sort_by(|(a, _), (b, _)| a.cmp(b));
    items
}

/// Items that have the same path element.
pub(super) fn groups<'i, 'a>(items: &'i [Item<'a>]) -> impl Iterator<Item = (&'i String, &'i [Item<'a>])> {
    items.chunk_by(|(a, _), (b, _)| a == b).filter_map(|group| Some((&group.first()?.0, group)))
}

/// Items that occur twice are owned as one value each, whatever is in them.
fn compare_lists(node: Node<'_>, old: Option<&Vec<Value>>, new: Option<&Vec<Value>>, found: &mut Found) {
    let (old, new) = (index(node, old), index(node, new));
    zip(groups(&old), groups(&new), |key, old, new| {
        let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
        let (first_old, first_new) = (old.first().map(|(_, item)| *item), new.first().map(|(_, item)| *item));
        let mut inner = Found::default();
        match (old, new) {
            ([] | [_], [] | [_]) => {
                compare(node.item(), first_old.map_or(Side::Absent, Side::Value), first_new, &mut inner);
            }
            ([_, _, ..], [_, _, ..]) => inner.changed.member = old != new,
            ([_, _, ..], _) => {
                if let Some(new) = first_new {
                    compare(node.item(), Side::Absent, Some(new), &mut inner);
                }
                inner.removed.member = true;
            }
            _ => {
                if let Some(old) = first_old {
                    compare(node.item(), Side::Value(old), None, &mut inner);
                }
                inner.changed.member = true;
            }
        }
        inner.put(found, || key.to_owned());
    });
}
