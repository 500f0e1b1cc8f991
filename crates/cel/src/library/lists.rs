//! Lists, sets and membership.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Args, no_overload, strings};
use crate::error::Error;
use crate::types::ListKind;
use crate::value::{Key, List, Value, compare};

pub(super) fn size<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    match args {
        [Value::Map(map)] if map.object().is_some() => no_overload(),
        [value @ (Value::String(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_))] => {
            Ok(Value::Int(value.size() as i64))
        }
        _ => no_overload(),
    }
}

pub(super) fn contained<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    match args {
        [item, Value::List(list)] => Ok(Value::Bool(contains(list, item)?)),
        [key, Value::Map(map)] => Ok(Value::Bool(map.get(key).transpose()?.is_some())),
        _ => no_overload(),
    }
}

fn contains(list: &List<'_>, item: &Value<'_>) -> Result<bool, Error> {
    for candidate in list.iter() {
        if compare::equals(&candidate?, item)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// `a + b`: for plain lists one after the other; sets and keyed lists merge, and keep the place of what `a` has.
pub(super) fn concat<'a>(a: &List<'a>, b: &List<'a>) -> Result<List<'a>, Error> {
    let decl = a.decl().or(b.decl());
    let (Some(decl), Some(_)) = (decl, a.decl()) else { return List::joined(a.clone(), b.clone()) };
    let mut items = match &decl.list {
        ListKind::Atomic => return List::joined(a.clone(), b.clone()),
        _ => a.iter().collect::<Result<Vec<_>, _>>()?,
    };
    match &decl.list {
        ListKind::Map(keys) => {
            let key = |item: &Value<'a>| -> Result<Vec<Ordered<'a>>, Error> {
                let Value::Map(map) = item else { return no_overload() };
                keys.iter()
                    .map(|key| {
                        map.get(&Value::borrowed(key)).transpose().map(|found| Ordered(found.unwrap_or(Value::Null)))
                    })
                    .collect()
            };
            let mut places = BTreeMap::new();
            for (index, item) in items.iter().enumerate() {
                places.insert(key(item)?, index);
            }
            for item in b.iter() {
                let item = item?;
                match places.get(&key(&item)?) {
                    Some(place) => items[*place] = item,
                    None => {
                        places.insert(key(&item)?, items.len());
                        items.push(item);
                    }
                }
            }
        }
        _ => {
            let mut known: BTreeSet<Ordered<'a>> = items.iter().cloned().map(Ordered).collect();
            for item in b.iter() {
                let item = item?;
                if known.insert(Ordered(item.clone())) {
                    items.push(item);
                }
            }
        }
    }
    Ok(List::Owned(Arc::new(items), Some(decl)))
}

/// A value in the total order.
#[derive(Clone, Debug)]
pub(crate) struct Ordered<'a>(pub Value<'a>);

impl PartialEq for Ordered<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Ordered<'_> {}

impl PartialOrd for Ordered<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ordered<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        compare::total(&self.0, &other.0)
    }
}

fn two<'x, 'a>(args: Args<'x, 'a>) -> Result<(&'x List<'a>, &'x List<'a>), Error> {
    match args {
        [Value::List(a), Value::List(b)] => Ok((a, b)),
        _ => no_overload(),
    }
}

fn set<'a>(list: &List<'a>) -> Result<BTreeSet<Ordered<'a>>, Error> {
    list.iter().map(|item| item.map(Ordered)).collect()
}

pub(super) fn sets_contains<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let (list, part) = two(args)?;
    Ok(Value::Bool(set(part)?.is_subset(&set(list)?)))
}

pub(super) fn sets_equivalent<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let (a, b) = two(args)?;
    Ok(Value::Bool(set(a)? == set(b)?))
}

pub(super) fn sets_intersects<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let (a, b) = two(args)?;
    Ok(Value::Bool(!set(a)?.is_disjoint(&set(b)?)))
}

pub(super) fn is_sorted<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let [Value::List(list)] = args else { return no_overload() };
    let mut before: Option<Value<'_>> = None;
    for item in list.iter() {
        let item = item?;
        if let Some(before) = &before {
            if !compare::comparable(before, &item) {
                return no_overload();
            }
            if compare::order(before, &item) == Some(Ordering::Greater) {
                return Ok(Value::Bool(false));
            }
        }
        before = Some(item);
    }
    Ok(Value::Bool(true))
}

pub(super) fn sum<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let [Value::List(list)] = args else { return no_overload() };
    let mut items = list.iter();
    let Some(first) = items.next() else { return Ok(Value::Int(0)) };
    let mut total = first?;
    if !matches!(total, Value::Int(_) | Value::Uint(_) | Value::Double(_) | Value::Duration(_)) {
        return no_overload();
    }
    for item in items {
        total = super::arithmetic::add(&[total, item?])?;
    }
    Ok(total)
}

pub(super) fn extreme<'a>(args: Args<'_, 'a>, name: &str, better: fn(Ordering) -> bool) -> Result<Value<'a>, Error> {
    let [Value::List(list)] = args else { return no_overload() };
    let mut best: Option<Value<'a>> = None;
    for item in list.iter() {
        let item = item?;
        match &best {
            None => best = Some(item),
            Some(found) => {
                if !compare::comparable(&item, found) {
                    return no_overload();
                }
                if compare::order(&item, found).is_some_and(better) {
                    best = Some(item);
                }
            }
        }
    }
    best.ok_or_else(|| Error::new(format!("{name} called on empty list")))
}

pub(super) fn index_of<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    match args {
        [Value::List(list), item] => find(list, item, 0..list.len()),
        _ => strings::index_of(args),
    }
}

pub(super) fn last_index_of<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    match args {
        [Value::List(list), item] => find(list, item, (0..list.len()).rev()),
        _ => strings::last_index_of(args),
    }
}

fn find<'a>(list: &List<'a>, item: &Value<'a>, places: impl Iterator<Item = usize>) -> Result<Value<'a>, Error> {
    for place in places {
        if let Some(candidate) = list.get(place)
            && compare::equals(&candidate?, item)?
        {
            return Ok(Value::Int(place as i64));
        }
    }
    Ok(Value::Int(-1))
}

/// What an index or key names; `None` when nothing is there.
pub(crate) fn index<'a>(container: &Value<'a>, key: &Value<'a>) -> Result<Option<Value<'a>>, Error> {
    match (container, key) {
        (Value::List(list), key) => {
            let Some(Key::Int(index)) = Key::of(key) else { return no_overload() };
            usize::try_from(index).ok().and_then(|index| list.get(index)).transpose()
        }
        (Value::Map(map), key) => {
            if Key::of(key).is_none() {
                return no_overload();
            }
            map.get(key).transpose()
        }
        _ => no_overload(),
    }
}
