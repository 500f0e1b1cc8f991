//! Runs checked expressions and counts what they cost. Errors are values to `&&`, `||`, `all` and `exists`, which go on
//! when the other side decides.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use regex::Regex;

use crate::ast::{Fold, FoldKind, Id, Kind};
use crate::budget::{Budget, PATTERN_BYTES, STEPS};
use crate::check::Reference;
use crate::cost::{LIST, MAP, OBJECT, run};
use crate::error::Error;
use crate::functions::Function;
use crate::library::{lists, regexes};
use crate::program::{Bindings, Program};
use crate::types::Object;
use crate::value::{Key, List, Map, Text, Value};

type Outcome<'a> = Result<Value<'a>, Error>;

/// One run.
pub(crate) struct Machine<'a, 'b> {
    program: &'a Program,
    bindings: &'b Bindings<'a>,
    locals: Vec<Value<'a>>,
    cost: u64,
    limit: u64,
    budget: Budget,
    /// The last pattern of each node that has no constant one.
    patterns: HashMap<Id, (Text<'a>, Result<Regex, Error>)>,
}

impl<'a, 'b> Machine<'a, 'b> {
    pub(crate) fn new(program: &'a Program, bindings: &'b Bindings<'a>, limit: u64) -> Self {
        Self { program, bindings, locals: Vec::new(), cost: 0, limit, budget: Budget::new(), patterns: HashMap::new() }
    }

    pub(crate) fn cost(&self) -> u64 {
        self.cost
    }

    fn charge(&mut self, units: u64) -> Result<(), Error> {
        self.cost = self.cost.saturating_add(units);
        if self.cost > self.limit { Err(Error::CostLimit) } else { Ok(()) }
    }

    /// Gives back a unit that was charged for reading a variable where cel-go charges none.
    fn credit(&mut self) {
        self.cost = self.cost.saturating_sub(1);
    }

    pub(crate) fn eval(&mut self, id: Id) -> Outcome<'a> {
        let program = self.program;
        if let Some(value) = program.constant(id) {
            return Ok(value.clone());
        }
        match program.checked().ast.kind(id) {
            // Constant, above.
            Kind::Literal(_) => Ok(Value::Null),
            Kind::Ident(name) => self.ident(id, name),
            Kind::Select { .. } if matches!(program.checked().refs[id], Reference::Global) => {
                let name = program.checked().ast.qualified_name(id).unwrap_or_default();
                self.ident(id, &name)
            }
            Kind::Select { operand, field, test, optional } => self.select(*operand, field, *test, *optional),
            Kind::Call { function, .. } => self.call(id, function),
            Kind::List(items) => self.list(items),
            Kind::Map(entries) => self.map(entries),
            Kind::Struct { fields, .. } => self.structure(id, fields),
            Kind::Fold(fold) => self.fold(fold),
            Kind::Bind { init, body, .. } => {
                let value = self.eval(*init)?;
                self.locals.push(value);
                let result = self.eval(*body);
                self.locals.pop();
                result
            }
        }
    }

    fn ident(&mut self, id: Id, name: &str) -> Outcome<'a> {
        self.charge(1)?;
        let value = match &self.program.checked().refs[id] {
            Reference::Local(slot) => self.locals.get(*slot),
            _ => self.bindings.get(name),
        };
        value.cloned().ok_or_else(|| Error::NoSuchAttribute(name.into()))
    }

    /// Whether a node is a variable or a path from one: its first qualifier costs no more than the rest.
    fn is_path(&self, id: Id) -> bool {
        self.program.constant(id).is_none()
            && match self.program.checked().ast.kind(id) {
                Kind::Ident(_) | Kind::Select { test: false, .. } => true,
                Kind::Call { function, .. } => matches!(function.as_str(), "_[_]" | "_[?_]" | "_?_:_"),
                _ => false,
            }
    }

    /// Whether a node reads a variable in a way that costs nothing as a branch or index.
    fn is_attribute(&self, id: Id) -> bool {
        self.is_path(id)
            && !matches!(self.program.checked().ast.kind(id), Kind::Call { function, .. } if function == "_?_:_")
    }

    fn operand(&mut self, id: Id) -> Outcome<'a> {
        let value = self.eval(id)?;
        if !self.is_path(id) {
            self.charge(1)?;
        }
        Ok(value)
    }

    fn select(&mut self, operand: Id, field: &'a str, test: bool, optional: bool) -> Outcome<'a> {
        let checked = self.program.checked();
        if let (Reference::Global, Kind::Ident(name)) = (&checked.refs[operand], checked.ast.kind(operand))
            && let Some(fields) = self.bindings.lazy_fields(name)
        {
            self.charge(2)?;
            let found = fields.field(field).ok_or_else(|| Error::no_such_key(field))?;
            self.charge(found.cost)?;
            return found.value;
        }
        let value = if test { self.eval(operand) } else { self.operand(operand) };
        if !test {
            self.charge(1)?;
        }
        let (value, wrapped) = match value? {
            Value::Optional(Some(inner)) => ((*inner).clone(), true),
            Value::Optional(None) => {
                return Ok(if test { Value::Bool(false) } else { Value::Optional(None) });
            }
            value => (value, false),
        };
        let found = match &value {
            Value::Map(map) => map.get(&Value::borrowed(field)).transpose()?,
            _ => return Err(Error::NoSuchOverload),
        };
        let found = found.map(|value| self.read(value)).transpose()?;
        if test {
            return Ok(Value::Bool(found.is_some()));
        }
        if wrapped || optional {
            return Ok(found.map_or(Value::Optional(None), Value::some));
        }
        found.ok_or_else(|| Error::no_such_key(field))
    }

    fn index(&mut self, args: &[Id], optional: bool) -> Outcome<'a> {
        let &[operand, key] = args else { return Err(Error::NoSuchOverload) };
        let container = self.operand(operand);
        let index = self.eval(key);
        if self.is_attribute(key) {
            self.credit();
        }
        self.charge(1)?;
        let (container, wrapped) = match container? {
            Value::Optional(Some(inner)) => ((*inner).clone(), true),
            Value::Optional(None) => return Ok(Value::Optional(None)),
            value => (value, false),
        };
        let index = index?;
        let found = lists::index(&container, &index)?.map(|value| self.read(value)).transpose()?;
        if wrapped || optional {
            return Ok(found.map_or(Value::Optional(None), Value::some));
        }
        found.ok_or_else(|| match (&container, Key::of(&index)) {
            (Value::List(_), Some(key)) => Error::new(format!("index out of bounds: {}", key.text())),
            (_, Some(key)) => Error::no_such_key(key.text()),
            _ => Error::NoSuchOverload,
        })
    }

    fn call(&mut self, id: Id, name: &str) -> Outcome<'a> {
        let program = self.program;
        let args = program.checked().arguments(id);
        match name {
            "_&&_" | "_||_" => {
                let &[left, right] = args else { return Err(Error::NoSuchOverload) };
                let decides = name == "_||_";
                let left = self.eval(left);
                self.logical(left, right, decides)
            }
            "_?_:_" => {
                let &[test, yes, no] = args else { return Err(Error::NoSuchOverload) };
                let Value::Bool(test) = self.eval(test)? else { return Err(Error::NoSuchOverload) };
                let branch = if test { yes } else { no };
                let value = self.eval(branch);
                if self.is_attribute(branch) {
                    self.credit();
                }
                value
            }
            "_[_]" => self.index(args, false),
            "_[?_]" => self.index(args, true),
            "or" | "orValue" => {
                let &[left, right] = args else { return Err(Error::NoSuchOverload) };
                match self.eval(left)? {
                    Value::Optional(Some(value)) => {
                        Ok(if name == "or" { Value::Optional(Some(value)) } else { (*value).clone() })
                    }
                    Value::Optional(None) => self.eval(right),
                    _ => Err(Error::NoSuchOverload),
                }
            }
            _ => self.function(id, args),
        }
    }

    /// `left && right`, or `left || right` when true `decides`.
    fn logical(&mut self, left: Outcome<'a>, right: Id, decides: bool) -> Outcome<'a> {
        match &left {
            Ok(Value::Bool(value)) if *value == decides => return left,
            Err(Error::CostLimit) => return left,
            _ => {}
        }
        match (left, self.eval(right)) {
            (_, Err(Error::CostLimit)) => Err(Error::CostLimit),
            (_, Ok(Value::Bool(value))) if value == decides => Ok(Value::Bool(value)),
            (Err(error), _) => Err(error),
            (Ok(Value::Bool(_)), right @ (Ok(Value::Bool(_)) | Err(_))) => right,
            _ => Err(Error::NoSuchOverload),
        }
    }

    fn function(&mut self, id: Id, args: &[Id]) -> Outcome<'a> {
        let program = self.program;
        let Some((function, _)) = program.checked().function(id) else { return Err(Error::NoSuchOverload) };
        let mut values: Vec<Value<'a>> = Vec::with_capacity(args.len());
        let mut failed = None;
        for arg in args {
            match self.eval(*arg) {
                Ok(value) => values.push(value),
                Err(Error::CostLimit) => return Err(Error::CostLimit),
                Err(error) => {
                    failed.get_or_insert(error);
                    // Operators look at both sides before they give up.
                    if args.len() > 2 {
                        break;
                    }
                }
            }
        }
        if let Some(error) = failed {
            self.charge(1)?;
            return Err(error);
        }
        // Upstream counts most values only by their size at the top. What is below costs a unit for many, beyond what the
        // call's own cost has paid for, or large values in a loop would be looked at for hours.
        let most = self.budget.allow(self.limit.saturating_sub(self.cost).saturating_add(1));
        let mut paid = 0;
        let value = self.apply(id, function, args, &mut values, &mut paid);
        self.charge(((most - self.budget.steps()) / STEPS).saturating_sub(paid))?;
        let value = value?;
        self.budget.built(&value)?;
        Ok(value)
    }

    /// Calls a function; `paid` becomes what the call costs by its model.
    fn apply(
        &mut self,
        id: Id,
        function: &Function,
        args: &[Id],
        values: &mut Vec<Value<'a>>,
        paid: &mut u64,
    ) -> Outcome<'a> {
        let program = self.program;
        *paid = run::cost(program.call_cost(id), values, &mut self.budget)?;
        self.charge(*paid)?;
        if let (&[_, list], "@in") = (args, function.name)
            && let Some(set) = program.set(list)
        {
            return Ok(Value::Bool(values.first().is_some_and(|item| set.contains(&lists::Ordered(item.clone())))));
        }
        if let (&[_, pattern, ..], "matches" | "find" | "findAll") = (args, function.name) {
            let text = values.remove(1);
            if let Some(regex) = program.regex(pattern) {
                return regexes::run(function.name, regex, values, &self.budget);
            }
            let Value::String(text) = text else { return Err(Error::NoSuchOverload) };
            let regex = self.pattern(pattern, text)?;
            return regexes::run(function.name, &regex, values, &self.budget);
        }
        if let ("sum", [Value::List(list)], Some((_, overloads))) =
            (function.name, &values[..], program.checked().function(id))
            && list.is_empty()
            && let Some(zero) = lists::empty_sum(overloads)
        {
            return Ok(zero);
        }
        function.run.ok_or(Error::NoSuchOverload)?.run(values, &mut self.budget)
    }

    /// The pattern that a node came to, compiled; the last one is kept.
    fn pattern(&mut self, id: Id, text: Text<'a>) -> Result<Regex, Error> {
        if let Some((last, regex)) = self.patterns.get(&id)
            && *last == text
        {
            return regex.clone();
        }
        self.budget.take(PATTERN_BYTES)?;
        let regex = regexes::compile(text.as_str());
        self.patterns.insert(id, (text, regex.clone()));
        regex
    }

    /// Counts what reading a part of an object made: base64 becomes bytes.
    fn read(&mut self, value: Value<'a>) -> Outcome<'a> {
        self.budget.built(&value)?;
        Ok(value)
    }

    fn assembled(&mut self, value: Value<'a>) -> Outcome<'a> {
        self.budget.assembled(&value)?;
        Ok(value)
    }

    fn list(&mut self, items: &'a [(Id, bool)]) -> Outcome<'a> {
        let mut values = Vec::with_capacity(items.len());
        for (item, optional) in items {
            match (self.eval(*item)?, optional) {
                (value, false) => values.push(value),
                (Value::Optional(Some(value)), true) => values.push((*value).clone()),
                (Value::Optional(None), true) => {}
                _ => return Err(Error::NoSuchOverload),
            }
        }
        self.charge(LIST)?;
        self.assembled(Value::list(values))
    }

    fn map(&mut self, entries: &'a [(Id, Id, bool)]) -> Outcome<'a> {
        let mut map = BTreeMap::new();
        for (key, value, optional) in entries {
            let key = self.eval(*key)?;
            let value = match (self.eval(*value)?, optional) {
                (value, false) => value,
                (Value::Optional(Some(value)), true) => (*value).clone(),
                (Value::Optional(None), true) => continue,
                _ => return Err(Error::NoSuchOverload),
            };
            let key = Key::of(&key).ok_or_else(|| Error::new("unsupported key type"))?;
            if map.insert(key.clone(), value).is_some() {
                return Err(Error::new(format!("Failed with repeated key: {}", key.text())));
            }
        }
        self.charge(MAP)?;
        self.assembled(Value::map(map))
    }

    fn structure(&mut self, id: Id, fields: &'a [(String, Id, bool)]) -> Outcome<'a> {
        let Reference::Struct(object) = &self.program.checked().refs[id] else { return Err(Error::NoSuchOverload) };
        let object: Arc<Object> = object.clone();
        let mut map = BTreeMap::new();
        for (field, value, optional) in fields {
            let value = match (self.eval(*value)?, optional) {
                (value, false) => value,
                (Value::Optional(Some(value)), true) => (*value).clone(),
                (Value::Optional(None), true) => continue,
                _ => return Err(Error::NoSuchOverload),
            };
            let key = object.fields.get(field).map_or(field.as_str(), |field| &field.key);
            let text = match Value::text(key) {
                Value::String(text) => text,
                _ => continue,
            };
            map.insert(Key::String(text), value);
        }
        self.charge(OBJECT)?;
        self.assembled(Value::Map(Map::Struct(object, Arc::new(map))))
    }

    fn fold(&mut self, fold: &'a Fold) -> Outcome<'a> {
        let range = self.eval(fold.range)?;
        let base = self.locals.len();
        let result = match &range {
            Value::List(list) => {
                let items = (0..list.len()).map(|index| (Value::Int(index as i64), Source::Item(list, index)));
                self.rounds(fold, items, false)
            }
            Value::Map(map) if map.object().is_none() => {
                let keys = map.keys();
                let items = keys.iter().map(|key| (key.value(), Source::Entry(map, key)));
                self.rounds(fold, items, true)
            }
            _ => Err(Error::NoSuchOverload),
        };
        self.locals.truncate(base);
        result
    }

    fn rounds<'x>(
        &mut self,
        fold: &'a Fold,
        items: impl Iterator<Item = (Value<'a>, Source<'x, 'a>)>,
        map: bool,
    ) -> Outcome<'a>
    where
        'a: 'x,
    {
        let base = self.locals.len();
        let mut state = State::new(fold.kind);
        for (key, source) in items {
            if self.done(fold.kind, &state)? {
                break;
            }
            self.locals.truncate(base);
            match (&fold.var2, map) {
                (Some(_), _) => {
                    self.locals.push(key.clone());
                    let value = self.read(source.value()?)?;
                    self.locals.push(value);
                }
                (None, true) => self.locals.push(key.clone()),
                (None, false) => {
                    let value = self.read(source.value()?)?;
                    self.locals.push(value);
                }
            }
            self.round(fold, &mut state, key)?;
        }
        self.charge(if fold.kind == FoldKind::ExistsOne { 2 } else { 1 })?;
        match state {
            State::Decision(decision) => decision.map(Value::Bool),
            State::Count(count) => Ok(Value::Bool(count == 1)),
            State::List(items) => self.assembled(Value::list(items)),
            State::Map(map) => self.assembled(Value::map(map)),
        }
    }

    /// The condition before each round.
    fn done(&mut self, kind: FoldKind, state: &State<'a>) -> Result<bool, Error> {
        match (kind, state) {
            (FoldKind::All, State::Decision(decision)) => {
                self.charge(2)?;
                Ok(matches!(decision, Ok(false)))
            }
            (FoldKind::Exists, State::Decision(decision)) => {
                self.charge(3)?;
                Ok(matches!(decision, Ok(true)))
            }
            _ => Ok(false),
        }
    }

    fn round(&mut self, fold: &'a Fold, state: &mut State<'a>, key: Value<'a>) -> Result<(), Error> {
        if let Some(filter) = fold.filter {
            match self.eval(filter)? {
                Value::Bool(true) => {}
                Value::Bool(false) => return Ok(()),
                _ => return Err(Error::NoSuchOverload),
            }
        }
        match state {
            State::Decision(decision) => {
                self.charge(1)?;
                let decides = fold.kind == FoldKind::Exists;
                let so_far = std::mem::replace(decision, Ok(decides)).map(Value::Bool);
                *decision = match self.logical(so_far, fold.expr, decides) {
                    Ok(Value::Bool(value)) => Ok(value),
                    Ok(_) => Err(Error::NoSuchOverload),
                    Err(Error::CostLimit) => return Err(Error::CostLimit),
                    Err(error) => Err(error),
                };
            }
            State::Count(count) => match self.eval(fold.expr)? {
                Value::Bool(true) => {
                    self.charge(2)?;
                    *count += 1;
                }
                Value::Bool(false) => {}
                _ => return Err(Error::NoSuchOverload),
            },
            State::List(items) => {
                self.charge(2)?;
                if self.program.constant(fold.expr).is_none() {
                    self.charge(LIST)?;
                }
                items.push(self.eval(fold.expr)?);
            }
            State::Map(map) => {
                let value = self.eval(fold.expr)?;
                self.charge(2)?;
                if fold.kind == FoldKind::Map {
                    self.charge(1)?;
                    insert(map, &key, value)?;
                    return Ok(());
                }
                let Value::Map(entries) = value else { return Err(Error::NoSuchOverload) };
                for key in entries.keys() {
                    if let Some(value) = entries.entry(&key) {
                        insert(map, &key.value(), value?)?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn insert<'a>(map: &mut BTreeMap<Key<'a>, Value<'a>>, key: &Value<'a>, value: Value<'a>) -> Result<(), Error> {
    let key = Key::of(key).ok_or_else(|| Error::new("unsupported key type"))?;
    if map.contains_key(&key) {
        return Err(Error::new(format!("insert failed: key {} already exists", key.text())));
    }
    map.insert(key, value);
    Ok(())
}

/// Where the second variable of a round comes from; read only when asked for.
enum Source<'x, 'a> {
    Item(&'x List<'a>, usize),
    Entry(&'x Map<'a>, &'x Key<'a>),
}

impl<'a> Source<'_, 'a> {
    fn value(&self) -> Outcome<'a> {
        let found = match self {
            Self::Item(list, index) => list.get(*index),
            Self::Entry(map, key) => map.entry(key),
        };
        found.unwrap_or(Ok(Value::Null))
    }
}

/// What the rounds have come to.
enum State<'a> {
    /// Of `all` and `exists`; an error stays until something decides.
    Decision(Result<bool, Error>),
    Count(u64),
    List(Vec<Value<'a>>),
    Map(BTreeMap<Key<'a>, Value<'a>>),
}

impl State<'_> {
    fn new(kind: FoldKind) -> Self {
        match kind {
            FoldKind::All => Self::Decision(Ok(true)),
            FoldKind::Exists => Self::Decision(Ok(false)),
            FoldKind::ExistsOne => Self::Count(0),
            FoldKind::List => Self::List(Vec::new()),
            FoldKind::Map | FoldKind::MapEntry => Self::Map(BTreeMap::new()),
        }
    }
}
