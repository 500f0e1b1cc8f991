//! The most that an expression may cost, from the sizes that schemas allow. Follows cel-go's estimator closely, since it
//! decides which rules a CRD may have.

use std::collections::HashMap;

use super::{AUTHORIZATION, CHARACTER, LIST, MAP, OBJECT, PATTERN_CHARACTER, Range};
use crate::ast::{ACCUMULATOR, Fold, Id, Kind, Literal};
use crate::check::Checked;
use crate::functions::Overload;
use crate::program::Program;
use crate::types::{Decl, OpaqueType, Type};

/// Sizes of the keys or indices of a container, and of its values.
#[derive(Clone, Copy)]
struct Entry {
    list: bool,
    key: Range,
    value: Range,
}

impl Entry {
    fn union(a: Option<Self>, b: Option<Self>) -> Option<Self> {
        let (a, b) = (a?, b?);
        Some(Self { list: a.list, key: a.key.union(b.key), value: a.value.union(b.value) })
    }
}

/// Where in the declarations a value comes from. Below a declared value there may be parts without a declaration.
type Place<'p> = Option<Option<&'p Decl>>;

#[derive(Clone, Copy)]
struct Local<'p> {
    name: &'p str,
    place: Place<'p>,
    size: Option<Range>,
    entry: Option<Entry>,
}

/// Cost and size of a call.
struct Call {
    cost: Range,
    size: Option<Range>,
}

struct Estimator<'p> {
    program: &'p Program,
    checked: &'p Checked,
    places: HashMap<Id, Place<'p>>,
    sizes: HashMap<Id, Range>,
    entries: HashMap<Id, Entry>,
    /// Nodes that macros share are asked for once.
    costs: HashMap<Id, Range>,
    locals: Vec<Local<'p>>,
}

pub(crate) fn estimate(program: &Program) -> Range {
    let mut estimator = Estimator {
        program,
        checked: program.checked(),
        places: HashMap::new(),
        sizes: HashMap::new(),
        entries: HashMap::new(),
        costs: HashMap::new(),
        locals: Vec::new(),
    };
    estimator.cost(program.checked().ast.root)
}

impl<'p> Estimator<'p> {
    fn cost(&mut self, id: Id) -> Range {
        if let Some(known) = self.costs.get(&id) {
            return *known;
        }
        let checked = self.checked;
        let cost = match checked.ast.kind(id) {
            Kind::Literal(_) => Range::fixed(0),
            Kind::Ident(name) => {
                let place = match self.local(name) {
                    Some(local) => local.place,
                    None => self.program.variable(name).map(Some),
                };
                self.places.insert(id, place);
                Range::fixed(1)
            }
            Kind::Select { operand, field, test, .. } => {
                let mut sum = self.cost(*operand);
                if !test {
                    if matches!(checked.ty(*operand), Type::Map(_) | Type::Object(_)) {
                        sum = sum.plus(Range::fixed(1));
                    }
                    let place = match self.place(*operand) {
                        Some(decl) => decl.and_then(|decl| decl.field(field)).map(|field| &*field.decl),
                        // Upstream takes what has no path for the root.
                        None => self.program.variable("self"),
                    };
                    self.places.insert(id, Some(place));
                }
                sum
            }
            Kind::Call { .. } => self.call(id),
            Kind::List(items) => {
                let mut sum = Range::fixed(LIST);
                let mut size = Range { min: if items.is_empty() { 0 } else { u64::MAX }, max: 0 };
                for (item, _) in items {
                    sum = sum.plus(self.cost(*item));
                    size = size.union(self.size_or_unknown(*item));
                }
                self.entries.insert(id, Entry { list: true, key: Range::fixed(1), value: size });
                sum
            }
            Kind::Map(entries) => {
                let mut sum = Range::fixed(MAP);
                let empty = Range { min: if entries.is_empty() { 0 } else { u64::MAX }, max: 0 };
                let (mut keys, mut values) = (empty, empty);
                for (key, value, _) in entries {
                    sum = sum.plus(self.cost(*key)).plus(self.cost(*value));
                    keys = keys.union(self.size_or_unknown(*key));
                    values = values.union(self.size_or_unknown(*value));
                }
                self.entries.insert(id, Entry { list: false, key: keys, value: values });
                sum
            }
            Kind::Struct { fields, .. } => {
                fields.iter().fold(Range::fixed(OBJECT), |sum, (_, value, _)| sum.plus(self.cost(*value)))
            }
            Kind::Fold(fold) => self.fold(id, fold),
            Kind::Bind { var, init, body } => {
                // The range of a binding's comprehension is an empty list.
                let mut sum = Range::fixed(LIST).plus(self.cost(*init));
                let local =
                    Local { name: var, place: self.place(*init), size: self.size(*init), entry: self.entry(*init) };
                self.locals.push(local);
                sum = sum.plus(self.cost(*body));
                let (size, entry) = (self.size(*body), self.entry(*body));
                self.locals.pop();
                self.set(id, size, entry);
                sum
            }
        };
        self.costs.insert(id, cost);
        cost
    }

    fn set(&mut self, id: Id, size: Option<Range>, entry: Option<Entry>) {
        if let Some(size) = size {
            self.sizes.insert(id, size);
        }
        if let Some(entry) = entry {
            self.entries.insert(id, entry);
        }
    }

    fn local(&self, name: &str) -> Option<Local<'p>> {
        self.locals.iter().rev().find(|local| local.name == name).copied()
    }

    fn place(&self, id: Id) -> Place<'p> {
        if let Kind::Ident(name) = self.checked.ast.kind(id)
            && let Some(local) = self.local(name)
        {
            return local.place;
        }
        self.places.get(&id).copied().flatten()
    }

    fn entry(&self, id: Id) -> Option<Entry> {
        if let Some(entry) = self.entries.get(&id) {
            return Some(*entry);
        }
        match self.checked.ast.kind(id) {
            Kind::Ident(name) => self.local(name)?.entry,
            _ => None,
        }
    }

    fn size_or_unknown(&mut self, id: Id) -> Range {
        self.size(id).unwrap_or(Range::UNKNOWN)
    }

    fn size(&mut self, id: Id) -> Option<Range> {
        if let Some(size) = self.sizes.get(&id) {
            return Some(*size);
        }
        match self.checked.ast.kind(id) {
            Kind::Literal(literal) => return Some(Range::fixed(literal_size(literal))),
            Kind::List(items) => return Some(Range::fixed(items.len() as u64)),
            Kind::Map(entries) => return Some(Range::fixed(entries.len() as u64)),
            _ => {}
        }
        if let Some(Some(decl)) = self.place(id) {
            let size = Range { min: 0, max: decl.max_elements };
            self.sizes.insert(id, size);
            return Some(size);
        }
        if scalar(self.checked.ty(id)) {
            return Some(Range::fixed(1));
        }
        match self.checked.ast.kind(id) {
            Kind::Ident(name) => self.local(name)?.size,
            _ => None,
        }
    }

    fn fold(&mut self, id: Id, fold: &'p Fold) -> Range {
        let mut sum = self.cost(fold.range).plus(self.cost(fold.init));
        let (size, entry) = (self.size(fold.init), self.entry(fold.init));
        self.locals.push(Local { name: ACCUMULATOR, place: None, size, entry });
        let entry = self.entry(fold.range);
        let list = entry.map_or(matches!(self.checked.ty(fold.range), Type::List(_)), |entry| entry.list);
        let below = self.place(fold.range);
        let values: Place<'p> = below.map(|decl| decl.and_then(|decl| decl.items.as_deref()));
        let keys: Place<'p> =
            below.map(|decl| decl.filter(|decl| matches!(decl.ty, Type::Map(_))).map(|_| self.program.key()));
        let (key_size, value_size) = (entry.map(|entry| entry.key), entry.map(|entry| entry.value));
        let mut bind = |name: &'p str, place, size| self.locals.push(Local { name, place, size, entry: None });
        let indices = below.map(|_| None);
        match &fold.var2 {
            Some(second) => {
                bind(&fold.var, if list { indices } else { keys }, key_size);
                bind(second, values, value_size);
            }
            None if list => bind(&fold.var, values, value_size),
            None => bind(&fold.var, keys, key_size),
        }
        let round = self.cost(fold.condition).plus(self.cost(fold.step));
        self.locals.pop();
        if fold.var2.is_some() {
            self.locals.pop();
        }
        sum = sum.plus(self.cost(fold.result));
        self.locals.pop();
        let count = self.size_or_unknown(fold.range);
        sum = sum.plus(count.times(round));
        match self.checked.ast.kind(fold.init) {
            Kind::Literal(literal) => self.set(id, Some(Range::fixed(literal_size(literal))), None),
            _ => {
                let entry = self.entry(fold.step);
                self.set(id, Some(count), entry);
            }
        }
        sum
    }

    fn call(&mut self, id: Id) -> Range {
        let checked = self.checked;
        let Some((function, overloads)) = checked.function(id) else { return Range::fixed(0) };
        let args = checked.arguments(id);
        if function.name == "dyn"
            && let &[arg] = args
        {
            let cost = self.cost(arg).plus(Range::fixed(1));
            let (size, entry) = (self.size(arg), self.entry(arg));
            self.set(id, size, entry);
            return cost;
        }
        let member = overloads.first().is_some_and(|overload| overload.member);
        let costs: Vec<Range> = args.iter().map(|arg| self.cost(*arg)).collect();
        let (target, rest, sum, rest_costs) = match (member, args.split_first(), costs.split_first()) {
            (true, Some((target, rest)), Some((cost, costs))) => (Some(*target), rest, *cost, costs),
            _ => (None, args, Range::fixed(0), &costs[..]),
        };
        let mut total = Range { min: u64::MAX, max: 0 };
        let mut size: Option<Range> = None;
        for overload in overloads {
            let call = self.overload(id, function.name, overload, target, rest, rest_costs);
            total = total.union(call.cost);
            if let Some(found) = call.size {
                size = Some(size.map_or(found, |size| size.union(found)));
            }
            if let (true, Some(&container)) = (matches!(overload.id, "index_list" | "index_map"), rest.first()) {
                size = self.entry(container).map(|entry| entry.value);
                let items = self.place(container).flatten().and_then(|decl| decl.items.as_deref());
                // As upstream, an index into what has no path leads to the root.
                let place = if self.place(container).is_some() { items } else { self.program.variable("self") };
                self.places.insert(id, Some(place));
            }
            if size.is_none() {
                size = self.size(id);
            }
        }
        self.set(id, size, None);
        sum.plus(total)
    }

    #[allow(clippy::too_many_lines)] // One table.
    fn overload(
        &mut self,
        id: Id,
        function: &str,
        overload: &Overload,
        target: Option<Id>,
        args: &[Id],
        costs: &[Range],
    ) -> Call {
        let below = costs.iter().fold(Range::fixed(0), |sum, cost| sum.plus(*cost));
        let one = Range::fixed(1);
        let with = |cost: Range, size: Option<Range>| Call { cost: cost.plus(below), size };
        let size_of = |estimator: &mut Self, index: usize| match args.get(index) {
            Some(arg) => estimator.size_or_unknown(*arg),
            None => Range::UNKNOWN,
        };
        let own = target.map(|target| self.size_or_unknown(target));
        match (function, own) {
            ("check", _) => return with(Range::fixed(AUTHORIZATION), None),
            ("isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf", Some(own)) => {
                let Some(items) = target.and_then(|target| self.items(target)) else {
                    return with(own.scaled(CHARACTER), None);
                };
                let each = match items {
                    Some(size) => one.plus(size.scaled(CHARACTER)),
                    None => one,
                };
                return with(own.times(each), None);
            }
            ("url" | "jsonpatch.escapeKey", _) => {
                let size = size_of(self, 0);
                return with(size.scaled(CHARACTER), Some(size));
            }
            ("fieldSelector" | "labelSelector", _) => return with(size_of(self, 0).scaled(CHARACTER), None),
            ("lowerAscii" | "upperAscii" | "substring" | "trim", Some(own)) => {
                return with(own.scaled(CHARACTER), Some(own));
            }
            ("replace", Some(own)) => {
                let size = replaced(own, size_of(self, 0), size_of(self, 1));
                return with(own.scaled(2.0 * CHARACTER), Some(size));
            }
            ("split", Some(own)) => {
                let limit = match args.get(1).map(|arg| self.checked.ast.kind(*arg)) {
                    Some(Kind::Literal(Literal::Int(limit))) => *limit as u64,
                    _ => own.max,
                };
                return with(own.scaled(2.0 * CHARACTER), Some(Range { min: 0, max: limit }));
            }
            ("join", Some(own)) => {
                let mut size = match target.and_then(|target| self.items(target)) {
                    Some(items) => own.times(items.unwrap_or(one)),
                    None => Range::fixed(0),
                };
                if !args.is_empty() {
                    let separators = Range { min: own.min.saturating_sub(1), max: own.max.saturating_sub(1) };
                    size = size.plus(size_of(self, 0).times(separators));
                }
                return with(size.scaled(CHARACTER), Some(size));
            }
            ("find" | "findAll", Some(own)) => {
                let text = own.plus(one).scaled(CHARACTER);
                let pattern = size_of(self, 0).scaled(PATTERN_CHARACTER);
                return with(text.times(pattern), Some(Range { min: 0, max: own.max }));
            }
            ("containsIP" | "containsCIDR", Some(_)) => {
                let bytes = Range { min: 4, max: 16 };
                let mut cost = bytes.plus(bytes).scaled(CHARACTER);
                if function == "containsCIDR" {
                    cost = cost.plus(bytes.scaled(CHARACTER)).plus(one);
                }
                if overload.id.ends_with("_string") {
                    cost = cost.plus(size_of(self, 0).scaled(CHARACTER));
                }
                return with(cost, None);
            }
            ("validate", Some(_)) => {
                let pattern = crate::library::MAX_FORMAT_REGEX as f64 * PATTERN_CHARACTER;
                return with(size_of(self, 0).scaled(CHARACTER).scaled(pattern), None);
            }
            ("sets.contains" | "sets.intersects" | "sets.equivalent", _) => {
                let factor = if function == "sets.equivalent" { 2.0 } else { 1.0 };
                return with(size_of(self, 0).times(size_of(self, 1)).scaled(factor).plus(one), None);
            }
            ("_==_", _) => {
                let known = |id: Option<&Id>| match id.map(|id| self.checked.ty(*id)) {
                    Some(Type::Opaque(opaque)) => Some(*opaque),
                    _ => None,
                };
                if let (Some(a), Some(b)) = (known(args.first()), known(args.get(1)))
                    && a == b
                {
                    let most = if a == OpaqueType::Format { 64 } else { 1 };
                    let cost = Range { min: 1, max: most };
                    return with(if most > 1 { cost.scaled(CHARACTER) } else { cost }, None);
                }
            }
            _ => {}
        }
        match overload.id {
            "string_format" => {
                let own = own.unwrap_or(Range::UNKNOWN);
                let size = own.plus(size_of(self, 0));
                with(own.scaled(CHARACTER), Some(size))
            }
            "string_to_bytes" => {
                let size = size_of(self, 0);
                with(size.scaled(CHARACTER), Some(Range { min: size.min, max: size.max.wrapping_mul(4) }))
            }
            "bytes_to_string" => {
                let size = size_of(self, 0);
                with(size.scaled(CHARACTER), Some(Range { min: size.min / 4, max: size.max }))
            }
            "strings_quote" => {
                let size = size_of(self, 0);
                let quoted =
                    Range { min: size.min.saturating_add(2), max: size.max.saturating_mul(2).saturating_add(2) };
                with(size.scaled(CHARACTER), Some(quoted))
            }
            "starts_with_string" | "ends_with_string" => with(size_of(self, 0).scaled(CHARACTER), None),
            "in_list" => with(size_of(self, 1), None),
            "matches_string" => {
                let text = own.unwrap_or(Range::UNKNOWN).plus(one).scaled(CHARACTER);
                with(text.times(size_of(self, 0).scaled(PATTERN_CHARACTER)), None)
            }
            "contains_string" => {
                let text = own.unwrap_or(Range::UNKNOWN).scaled(CHARACTER);
                with(text.times(size_of(self, 0).scaled(CHARACTER)), None)
            }
            "logical_or" | "logical_and" => match costs {
                [left, right] => Call { cost: Range { min: left.min, max: left.plus(*right).max }, size: None },
                _ => with(Range::fixed(0), None),
            },
            "conditional" => match (args, costs) {
                (&[_, yes, no], [test, yes_cost, no_cost]) => {
                    let size = self.size_or_unknown(yes).union(self.size_or_unknown(no));
                    let entry = Entry::union(self.entry(yes), self.entry(no));
                    self.set(id, None, entry);
                    Call { cost: test.plus(yes_cost.union(*no_cost)), size: Some(size) }
                }
                _ => with(Range::fixed(0), None),
            },
            "add_string" | "add_bytes" | "add_list" => {
                let size = size_of(self, 0).plus(size_of(self, 1));
                if let [left, right] = *args {
                    let entry = Entry::union(self.entry(left), self.entry(right));
                    self.set(id, None, entry);
                }
                with(if overload.id == "add_list" { one } else { size.scaled(CHARACTER) }, Some(size))
            }
            "equals" | "not_equals" => with(self.comparison(args), None),
            text if (text.starts_with("less_") || text.starts_with("greater_"))
                && (text.ends_with("_string") || text.ends_with("_bytes")) =>
            {
                with(self.comparison(args), None)
            }
            _ => with(one, None),
        }
    }

    fn comparison(&mut self, args: &[Id]) -> Range {
        let most = args.iter().map(|arg| self.size_or_unknown(*arg).max).min().unwrap_or_default();
        Range { min: u64::from(most > 0), max: most }.scaled(CHARACTER)
    }

    /// Of a list: the size of its items when they are strings or bytes. `None` when it is no list.
    #[allow(clippy::option_option)] // No list, no strings, strings.
    fn items(&mut self, target: Id) -> Option<Option<Range>> {
        let Type::List(items) = self.checked.ty(target) else { return None };
        if !matches!(**items, Type::String | Type::Bytes) {
            return Some(None);
        }
        let decl = self.place(target).flatten().and_then(|decl| decl.items.as_deref());
        Some(Some(decl.map_or(Range::UNKNOWN, |decl| Range { min: 0, max: decl.max_elements })))
    }
}

/// Sizes of a text after replacing.
fn replaced(own: Range, from: Range, to: Range) -> Range {
    let (mut count, mut kept) = (Range::default(), Range::default());
    if from.min == 0 {
        (count.max, kept.max) = (own.max.saturating_add(1), own.max);
    } else if to.max <= from.min {
        kept.max = own.max;
    } else {
        count.max = (own.max as f64 / from.min as f64).ceil() as u64;
    }
    if from.max == 0 {
        (count.min, kept.min) = (own.min.saturating_add(1), own.min);
    } else if from.max <= to.min {
        kept.min = own.min;
    } else {
        count.min = (own.min as f64 / from.max as f64).ceil() as u64;
    }
    count.times(to).plus(kept)
}

fn literal_size(literal: &Literal) -> u64 {
    match literal {
        Literal::String(text) => text.chars().count() as u64,
        Literal::Bytes(bytes) => bytes.len() as u64,
        _ => 1,
    }
}

fn scalar(ty: &Type) -> bool {
    match ty {
        Type::Bool | Type::Double | Type::Duration | Type::Int | Type::Timestamp | Type::Uint => true,
        Type::Optional(of) => scalar(of),
        _ => false,
    }
}
