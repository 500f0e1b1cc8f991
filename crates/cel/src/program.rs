//! Compiled expressions.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, LazyLock};

use regex::Regex;

use crate::ast::{Id, Kind, Literal};
use crate::budget::Budget;
use crate::check::{Checked, Reference};
use crate::cost::run::{CallCost, model};
use crate::cost::{Range, estimate};
use crate::env::Env;
use crate::error::Error;
use crate::eval::Machine;
use crate::library::lists::Ordered;
use crate::library::regexes;
use crate::types::{Decl, Type};
use crate::value::{Key, List, Value};

/// An expression, ready to run any number of times.
#[derive(Debug)]
pub struct Program {
    checked: Checked,
    variables: Vec<(String, Arc<Decl>)>,
    /// Values of the nodes that are the same in every run; they cost nothing.
    constants: Vec<Option<Value<'static>>>,
    /// Constant lists on the right of `in`.
    sets: HashMap<Id, BTreeSet<Ordered<'static>>>,
    /// Compiled constant patterns, by the node of the pattern.
    regexes: HashMap<Id, Regex>,
    costs: HashMap<Id, CallCost>,
}

/// Values of variables for one run.
#[derive(Clone, Default)]
pub struct Bindings<'a> {
    values: Vec<(&'a str, Value<'a>)>,
    lazy: Option<(&'a str, &'a dyn Lazy<'a>)>,
}

/// A variable with fields that are found out when they are first asked for (`variables` of admission policies).
pub trait Lazy<'a> {
    /// The field's value, and what finding it cost this time.
    fn field(&self, name: &str) -> Option<Evaluation<'a>>;
}

/// What a run came to.
#[derive(Debug)]
pub struct Evaluation<'a> {
    pub value: Result<Value<'a>, Error>,
    /// Units spent, also when there is no value.
    pub cost: u64,
}

impl<'a> Bindings<'a> {
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives a variable its value.
    #[must_use]
    pub fn with(mut self, name: &'a str, value: Value<'a>) -> Self {
        self.values.push((name, value));
        self
    }

    /// Gives a variable fields that are found out on demand.
    #[must_use]
    pub fn lazy(mut self, name: &'a str, fields: &'a dyn Lazy<'a>) -> Self {
        self.lazy = Some((name, fields));
        self
    }

    pub(crate) fn lazy_fields(&self, name: &str) -> Option<&'a dyn Lazy<'a>> {
        self.lazy.filter(|(known, _)| *known == name).map(|(_, fields)| fields)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Value<'a>> {
        self.values.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| value)
    }
}

impl Program {
    pub(crate) fn new(env: &Env, checked: Checked) -> Self {
        let mut program = Self {
            constants: vec![None; checked.ast.nodes.len()],
            checked,
            variables: env.variables().to_vec(),
            sets: HashMap::new(),
            regexes: HashMap::new(),
            costs: HashMap::new(),
        };
        // Children come before parents.
        for id in 0..program.constants.len() {
            program.constants[id] = program.fold(id);
            program.prepare(id);
        }
        program
    }

    /// The type of its values.
    pub fn output_type(&self) -> &Type {
        self.checked.ty(self.checked.ast.root)
    }

    /// Whether it reads a variable.
    pub fn uses(&self, variable: &str) -> bool {
        let ast = &self.checked.ast;
        (0..ast.nodes.len()).any(|id| {
            matches!(self.checked.refs[id], Reference::Global)
                && matches!(ast.kind(id), Kind::Ident(name) if name == variable)
        })
    }

    /// Whether it reads a field of a variable: `claims.email`, also by `has` and `?.`.
    pub fn selects(&self, variable: &str, field: &str) -> bool {
        let ast = &self.checked.ast;
        (0..ast.nodes.len()).any(|id| {
            matches!(ast.kind(id), Kind::Select { operand, field: known, .. }
                if known == field && matches!(ast.kind(*operand), Kind::Ident(name) if name == variable))
        })
    }

    /// What a run may cost, from the sizes that the variables' declarations allow.
    pub fn estimated_cost(&self) -> Range {
        estimate::estimate(self)
    }

    /// Runs it. Stops with [`Error::CostLimit`] when it cost more than `limit`.
    pub fn evaluate<'a>(&'a self, bindings: &Bindings<'a>, limit: u64) -> Evaluation<'a> {
        let mut machine = Machine::new(self, bindings, limit);
        let value = machine.eval(self.checked.ast.root);
        Evaluation { value, cost: machine.cost() }
    }

    pub(crate) fn checked(&self) -> &Checked {
        &self.checked
    }

    pub(crate) fn variable(&self, name: &str) -> Option<&Decl> {
        self.variables.iter().rev().find(|(known, _)| known == name).map(|(_, decl)| &**decl)
    }

    /// The declaration of keys of maps: strings of no known size.
    pub(crate) fn key(&self) -> &'static Decl {
        static KEY: LazyLock<Decl> = LazyLock::new(|| Decl::sized(Type::String, 0, 0));
        &KEY
    }

    pub(crate) fn constant(&self, id: Id) -> Option<&Value<'static>> {
        self.constants[id].as_ref()
    }

    pub(crate) fn set(&self, id: Id) -> Option<&BTreeSet<Ordered<'static>>> {
        self.sets.get(&id)
    }

    pub(crate) fn regex(&self, id: Id) -> Option<&Regex> {
        self.regexes.get(&id)
    }

    pub(crate) fn call_cost(&self, id: Id) -> CallCost {
        self.costs.get(&id).copied().unwrap_or(CallCost::Fixed(1))
    }

    /// The value of a node that has always the same: literals, containers of such, names of types, conversions.
    fn fold(&self, id: Id) -> Option<Value<'static>> {
        if let Reference::Type(ty) = &self.checked.refs[id] {
            return Some(Value::Type(ty.clone()));
        }
        match self.checked.ast.kind(id) {
            Kind::Literal(literal) => Some(literal_value(literal)),
            Kind::List(items) => {
                let fixed =
                    items.iter().map(|(item, optional)| if *optional { None } else { self.constants[*item].clone() });
                Some(Value::list(fixed.collect::<Option<_>>()?))
            }
            Kind::Map(entries) => {
                let mut map = BTreeMap::new();
                for (key, value, optional) in entries {
                    let key = Key::of(self.constants[*key].as_ref()?)?;
                    if *optional || map.insert(key, self.constants[*value].clone()?).is_some() {
                        return None;
                    }
                }
                Some(Value::map(map))
            }
            Kind::Call { function, target: None, args } => {
                let conversion = matches!(
                    function.as_str(),
                    "bool" | "bytes" | "double" | "duration" | "dyn" | "int" | "string" | "timestamp" | "uint"
                );
                let [arg] = args[..] else { return None };
                let value = self.constants[arg].clone().filter(|_| conversion)?;
                let run = self.checked.function(id)?.0.run?;
                run.run(&[value], &mut Budget::new()).ok()
            }
            _ => None,
        }
    }

    fn prepare(&mut self, id: Id) {
        let Some((function, overloads)) = self.checked.function(id) else { return };
        let mut cost = model(function, overloads);
        let args = self.checked.arguments(id);
        if let (&[_, pattern, ..], "matches" | "find" | "findAll") = (args, function.name)
            && let Some(text) = self.constants[pattern].as_ref().and_then(Value::as_str)
            && let Ok(regex) = regexes::compile(text)
        {
            self.regexes.insert(pattern, regex);
        }
        if let (&[_, list], "@in") = (args, function.name)
            && let Some(Value::List(List::Owned(items, _))) = &self.constants[list]
            && items.iter().all(|item| Key::of(item).is_some())
        {
            let set = items.iter().cloned().map(Ordered).collect();
            self.sets.insert(list, set);
            cost = CallCost::Fixed(0);
        }
        self.costs.insert(id, cost);
    }
}

fn literal_value(literal: &Literal) -> Value<'static> {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(value) => Value::Bool(*value),
        Literal::Int(value) => Value::Int(*value),
        Literal::Uint(value) => Value::Uint(*value),
        Literal::Double(value) => Value::Double(*value),
        Literal::String(text) => Value::text(text.as_str()),
        Literal::Bytes(bytes) => Value::Bytes(bytes.as_slice().into()),
    }
}
