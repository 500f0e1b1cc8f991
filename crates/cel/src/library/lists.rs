//! Lists, sets and membership.

use std::cmp::Ordering;
use std::sync::Arc;

use super::{Args, no_overload, strings};
use crate::budget::Budget;
use crate::error::Error;
use crate::functions::Overload;
use crate::types::{ListKind, Type};
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

pub(super) fn contained<'a>(args: Args<'_, 'a>, budget: &mut Budget) -> Result<Value<'a>, Error> {
    match args {
        [item, Value::List(list)] => Ok(Value::Bool(contains(list, item, budget)?)),
        [key, Value::Map(map)] => Ok(Value::Bool(map.get(key).transpose()?.is_some())),
        _ => no_overload(),
    }
}

fn contains(list: &List<'_>, item: &Value<'_>, budget: &mut Budget) -> Result<bool, Error> {
    for candidate in list.iter() {
        if compare::equals(&candidate?, item, budget)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// `a + b`: for plain lists one after the other; sets and keyed lists merge, and keep the place of what `a` has.
pub(super) fn concat<'a>(a: &List<'a>, b: &List<'a>, budget: &mut Budget) -> Result<List<'a>, Error> {
    let Some(decl) = a.decl().filter(|decl| decl.list != ListKind::Atomic) else {
        return List::joined(a.clone(), b.clone());
    };
    budget.list(a.len().saturating_add(b.len()))?;
    let items = a.iter().chain(b.iter()).collect::<Result<Vec<_>, _>>()?;
    let identity = |item: &Value<'a>| -> Result<Vec<Value<'a>>, Error> {
        let ListKind::Map(keys) = &decl.list else { return Ok(vec![item.clone()]) };
        let Value::Map(map) = item else { return no_overload() };
        keys.iter()
            .map(|key| map.get(&Value::borrowed(key)).transpose().map(|found| found.unwrap_or(Value::Null)))
            .collect()
    };
    let order: Vec<(Vec<Value<'a>>, usize)> =
        items.iter().enumerate().map(|(place, item)| Ok((identity(item)?, place))).collect::<Result<_, Error>>()?;
    let order = compare::sort(order, &mut |x, y| compare::sequence(&x.0, &y.0, budget))?;
    let mut merged: Vec<Option<Value<'a>>> = items.into_iter().map(Some).collect();
    let mut rest = &order[..];
    while let Some((first, _)) = rest.first() {
        let mut len = 1;
        while let Some((next, _)) = rest.get(len)
            && compare::sequence(first, next, budget)?.is_eq()
        {
            len += 1;
        }
        let (same, after) = rest.split_at(len);
        // Those of `a` come first, and all stay; of the others, the first stays when `a` has none.
        let own = same.iter().take_while(|(_, place)| *place < a.len()).count();
        if let Some(((_, stays), later)) = same.split_at(own.saturating_sub(1)).1.split_first() {
            for (_, place) in later {
                let item = merged[*place].take();
                if matches!(decl.list, ListKind::Map(_)) {
                    merged[*stays] = item;
                }
            }
        }
        rest = after;
    }
    Ok(List::Owned(Arc::new(merged.into_iter().flatten().collect()), Some(decl)))
}

/// A value in the total order, of a set of values that hold no others.
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
        compare::flat(&self.0, &other.0)
    }
}

fn two<'x, 'a>(args: Args<'x, 'a>) -> Result<(&'x List<'a>, &'x List<'a>), Error> {
    match args {
        [Value::List(a), Value::List(b)] => Ok((a, b)),
        _ => no_overload(),
    }
}

pub(super) fn sets_contains<'a>(args: Args<'_, 'a>, budget: &mut Budget) -> Result<Value<'a>, Error> {
    let (list, part) = two(args)?;
    let (list, part) = (compare::sorted(list, budget)?, compare::sorted(part, budget)?);
    let shared = shared(&part, &list, budget)?;
    Ok(Value::Bool(shared == part.len()))
}

pub(super) fn sets_equivalent<'a>(args: Args<'_, 'a>, budget: &mut Budget) -> Result<Value<'a>, Error> {
    let (a, b) = two(args)?;
    let (a, b) = (compare::sorted(a, budget)?, compare::sorted(b, budget)?);
    Ok(Value::Bool(shared(&a, &b, budget)? == a.len() && shared(&b, &a, budget)? == b.len()))
}

pub(super) fn sets_intersects<'a>(args: Args<'_, 'a>, budget: &mut Budget) -> Result<Value<'a>, Error> {
    let (a, b) = two(args)?;
    let (a, b) = (compare::sorted(a, budget)?, compare::sorted(b, budget)?);
    Ok(Value::Bool(shared(&a, &b, budget)? > 0))
}

/// How many items of `a` are in `b`; both are sorted.
fn shared(a: &[Value<'_>], b: &[Value<'_>], budget: &mut Budget) -> Result<usize, Error> {
    let mut others = b.iter().peekable();
    let mut count = 0;
    for item in a {
        while let Some(other) = others.peek() {
            match compare::total(other, item, budget)? {
                Ordering::Less => others.next(),
                Ordering::Equal => {
                    count += 1;
                    break;
                }
                Ordering::Greater => break,
            };
        }
    }
    Ok(count)
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

/// The sum of nothing, of a list whose items are known to be of one type.
pub(crate) fn empty_sum<'a>(overloads: &[&Overload]) -> Option<Value<'a>> {
    let [overload] = overloads else { return None };
    Some(match overload.result {
        Type::Uint => Value::Uint(0),
        Type::Double => Value::Double(0.0),
        Type::Duration => Value::Duration(0),
        _ => Value::Int(0),
    })
}

pub(super) fn sum<'a>(args: Args<'_, 'a>, budget: &mut Budget) -> Result<Value<'a>, Error> {
    let [Value::List(list)] = args else { return no_overload() };
    let mut items = list.iter();
    // Of a `dyn` list; the evaluator knows what others hold.
    let Some(first) = items.next() else { return Ok(Value::Int(0)) };
    let mut total = first?;
    if !matches!(total, Value::Int(_) | Value::Uint(_) | Value::Double(_) | Value::Duration(_)) {
        return no_overload();
    }
    for item in items {
        total = super::arithmetic::add(&[total, item?], budget)?;
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

pub(super) fn index_of<'a>(args: Args<'_, 'a>, budget: &mut Budget) -> Result<Value<'a>, Error> {
    match args {
        [Value::List(list), item] => find(list, item, 0..list.len(), budget),
        _ => strings::index_of(args),
    }
}

pub(super) fn last_index_of<'a>(args: Args<'_, 'a>, budget: &mut Budget) -> Result<Value<'a>, Error> {
    match args {
        [Value::List(list), item] => find(list, item, (0..list.len()).rev(), budget),
        _ => strings::last_index_of(args),
    }
}

fn find<'a>(
    list: &List<'a>,
    item: &Value<'a>,
    places: impl Iterator<Item = usize>,
    budget: &mut Budget,
) -> Result<Value<'a>, Error> {
    for place in places {
        if let Some(candidate) = list.get(place)
            && compare::equals(&candidate?, item, budget)?
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
