//! The static checker: finds the type of each node and the overloads that a call may mean.

mod unify;

use std::sync::Arc;

use crate::ast::{ACCUMULATOR, Ast, Fold, Id, Kind, Literal};
use crate::env::Env;
use crate::error::{Issue, Issues};
use crate::functions::{self, Function, Overload};
use crate::limits;
use crate::types::{Object, Type};
use unify::Unifier;

/// What a name or call turned out to be.
#[derive(Clone, Debug, Default)]
pub(crate) enum Reference {
    #[default]
    None,
    /// Distance from the bottom of the evaluator's stack of locals.
    Local(usize),
    Global,
    Accumulator,
    Type(Type),
    Call(&'static Function, Vec<&'static Overload>),
    /// A call of a namespaced function (`sets.contains`): the target is part of the name.
    Namespaced(&'static Function, Vec<&'static Overload>),
    Struct(Arc<Object>),
}

/// An expression with what the checker found.
#[derive(Debug)]
pub(crate) struct Checked {
    pub ast: Ast,
    pub types: Vec<Type>,
    pub refs: Vec<Reference>,
    /// Of calls, the arguments with the target first.
    args: Vec<Box<[Id]>>,
}

impl Checked {
    pub(crate) fn ty(&self, id: Id) -> &Type {
        &self.types[id]
    }

    /// The function that a call means.
    pub(crate) fn function(&self, id: Id) -> Option<(&'static Function, &[&'static Overload])> {
        match &self.refs[id] {
            Reference::Call(function, overloads) | Reference::Namespaced(function, overloads) => {
                Some((function, overloads))
            }
            _ => None,
        }
    }

    /// The arguments of a call, with the target first.
    pub(crate) fn arguments(&self, id: Id) -> &[Id] {
        &self.args[id]
    }
}

fn arguments(kind: &Kind, reference: &Reference) -> Box<[Id]> {
    match kind {
        Kind::Call { target, args, .. } => {
            let target = if matches!(reference, Reference::Namespaced(..)) { None } else { *target };
            target.into_iter().chain(args.iter().copied()).collect()
        }
        _ => Box::default(),
    }
}

pub(crate) fn check(env: &Env, source: &str, ast: Ast) -> Result<Checked, Issues> {
    let count = ast.nodes.len();
    let mut checker = Checker {
        env,
        ast: &ast,
        types: vec![None; count],
        refs: vec![Reference::None; count],
        unifier: Unifier::default(),
        scopes: Vec::new(),
        locals: 0,
        issues: Vec::new(),
    };
    checker.check(ast.root);
    let Checker { types, refs, unifier, issues, .. } = checker;
    if !issues.is_empty() {
        return Err(Issues::new(source, issues));
    }
    let types = types.iter().map(|ty| ty.as_ref().map_or(Type::Dyn, |ty| unifier.finish(ty))).collect();
    let args = ast.nodes.iter().zip(&refs).map(|(node, reference)| arguments(&node.kind, reference)).collect();
    Ok(Checked { ast, types, refs, args })
}

struct Checker<'e> {
    env: &'e Env,
    ast: &'e Ast,
    types: Vec<Option<Type>>,
    refs: Vec<Reference>,
    unifier: Unifier,
    /// Variables of macros: name, type, slot of the evaluator's stack.
    scopes: Vec<(&'e str, Type, Option<usize>)>,
    locals: usize,
    issues: Vec<Issue>,
}

impl<'e> Checker<'e> {
    fn issue(&mut self, id: Id, message: String) {
        if self.issues.len() < limits::ISSUES {
            self.issues.push(Issue { at: Some(self.ast.node(id).at), message });
        }
    }

    fn shown(&self, ty: &Type) -> Type {
        self.unifier.finish(ty)
    }

    fn check(&mut self, id: Id) -> Type {
        // Macros share nodes.
        if let Some(known) = &self.types[id] {
            return known.clone();
        }
        let ast = self.ast;
        let ty = match ast.kind(id) {
            Kind::Literal(literal) => literal_type(literal),
            Kind::Ident(name) => self.ident(id, name),
            Kind::Select { operand, field, test, optional } => self.select(id, *operand, field, *test, *optional),
            Kind::Call { function, target, args } => self.call(id, function, *target, args),
            Kind::List(items) => self.list(items),
            Kind::Map(entries) => self.map(entries),
            Kind::Struct { name, fields } => self.structure(id, name, fields),
            Kind::Fold(fold) => self.fold(fold),
            Kind::Bind { var, init, body } => {
                let init = self.check(*init);
                self.push(var, init);
                let ty = self.check(*body);
                self.pop();
                ty
            }
        };
        self.types[id] = Some(ty.clone());
        ty
    }

    fn push(&mut self, name: &'e str, ty: Type) {
        let slot = if name == ACCUMULATOR {
            None
        } else {
            self.locals += 1;
            Some(self.locals - 1)
        };
        self.scopes.push((name, ty, slot));
    }

    fn pop(&mut self) {
        if let Some((_, _, Some(_))) = self.scopes.pop() {
            self.locals -= 1;
        }
    }

    /// The type of a variable, macro's or global.
    fn variable(&mut self, id: Id, name: &str) -> Option<Type> {
        if let Some((_, ty, slot)) = self.scopes.iter().rev().find(|(known, ..)| *known == name) {
            self.refs[id] = slot.map_or(Reference::Accumulator, Reference::Local);
            return Some(ty.clone());
        }
        let decl = self.env.lookup(name)?;
        self.refs[id] = Reference::Global;
        Some(decl.ty.clone())
    }

    fn ident(&mut self, id: Id, name: &str) -> Type {
        if let Some(ty) = self.variable(id, name) {
            return ty;
        }
        if let Some(ty) = functions::type_named(name) {
            self.refs[id] = Reference::Type(ty);
            return Type::Type;
        }
        self.undeclared(id, name)
    }

    fn undeclared(&mut self, id: Id, name: &str) -> Type {
        self.issue(id, format!("undeclared reference to '{name}' (in container '')"));
        Type::Error
    }

    fn is_variable(&self, name: &str) -> bool {
        self.scopes.iter().any(|(known, ..)| *known == name) || self.env.lookup(name).is_some()
    }

    /// The dotted name of a chain that starts at no variable.
    fn namespace(&self, id: Id) -> Option<String> {
        let name = self.ast.qualified_name(id)?;
        let root = name.split('.').next().unwrap_or_default();
        (!self.is_variable(root)).then_some(name)
    }

    fn select(&mut self, id: Id, operand: Id, field: &str, test: bool, optional: bool) -> Type {
        if !test
            && !optional
            && let Some(namespace) = self.namespace(operand)
            && let Some(ty) = functions::type_named(&format!("{namespace}.{field}"))
        {
            self.refs[id] = Reference::Type(ty);
            return Type::Type;
        }
        // `authorizer.requestResource` is a variable of its own.
        if !test
            && !optional
            && let Some(name) = self.ast.qualified_name(id)
            && !self.scopes.iter().any(|(known, ..)| name.split('.').next() == Some(known))
            && let Some(decl) = self.env.lookup(&name)
        {
            self.refs[id] = Reference::Global;
            return decl.ty.clone();
        }
        let target = self.check(operand);
        let target = self.unifier.shallow(&target);
        let (inner, wrapped) = match &target {
            Type::Optional(of) => (self.unifier.shallow(of), true),
            _ => (target.clone(), false),
        };
        let ty = match &inner {
            Type::Dyn | Type::Error => inner.clone(),
            Type::Param(_) => {
                self.unifier.assign(&inner, &Type::Dyn);
                Type::Dyn
            }
            Type::Map(entry) => entry.1.clone(),
            Type::Object(object) => match object.fields.get(field) {
                Some(field) => field.decl.ty.clone(),
                None => {
                    self.issue(id, format!("undefined field '{field}'"));
                    Type::Error
                }
            },
            other => {
                let shown = self.shown(other);
                self.issue(id, format!("type '{shown}' does not support field selection"));
                Type::Error
            }
        };
        if test {
            Type::Bool
        } else if (wrapped || optional) && ty != Type::Error {
            Type::optional(ty)
        } else {
            ty
        }
    }

    fn call(&mut self, id: Id, name: &str, target: Option<Id>, args: &[Id]) -> Type {
        let mut types = Vec::with_capacity(args.len() + 1);
        let namespaced = target.and_then(|target| self.namespace(target)).and_then(|namespace| {
            let qualified = format!("{namespace}.{name}");
            self.env.function(&qualified)
        });
        if let Some(function) = namespaced {
            for arg in args {
                types.push(self.check(*arg));
            }
            let (ty, overloads) = self.resolve(id, function, false, &types);
            self.refs[id] = Reference::Namespaced(function, overloads);
            self.literals(id, function, args);
            return ty;
        }
        let known = self.env.function(name);
        if let Some(target) = target {
            types.push(self.check(target));
        }
        for arg in args {
            // The one list whose items may be of several types.
            let mixed = name == "format" && target.is_some() && matches!(self.ast.kind(*arg), Kind::List(_));
            types.push(if mixed { self.mixed_list(*arg) } else { self.check(*arg) });
        }
        let Some(function) = known else { return self.undeclared(id, name) };
        let (ty, overloads) = self.resolve(id, function, target.is_some(), &types);
        self.refs[id] = Reference::Call(function, overloads);
        self.literals(id, function, args);
        ty
    }

    fn resolve(
        &mut self,
        id: Id,
        function: &'static Function,
        member: bool,
        args: &[Type],
    ) -> (Type, Vec<&'static Overload>) {
        let mut found: Vec<&'static Overload> = Vec::new();
        let mut result: Option<Type> = None;
        for overload in &function.overloads {
            if overload.member != member || overload.args.len() != args.len() {
                continue;
            }
            let base = self.unifier.fresh(overload.params);
            let wanted: Vec<Type> = overload.args.iter().map(|ty| unify::instantiate(ty, base)).collect();
            if !self.unifier.assign_all(args, &wanted) {
                continue;
            }
            found.push(overload);
            let ty = self.unifier.resolve(&unify::instantiate(&overload.result, base));
            result = Some(match result {
                None => ty,
                Some(before) if before == ty => before,
                Some(_) => Type::Dyn,
            });
        }
        match result {
            Some(ty) => (ty, found),
            None => {
                if !args.iter().any(|ty| matches!(self.unifier.shallow(ty), Type::Error)) {
                    let shown: Vec<String> = args.iter().map(|ty| self.shown(ty).to_string()).collect();
                    let applied = match (member, shown.split_first()) {
                        (true, Some((target, rest))) => format!("{target}.({})", rest.join(", ")),
                        _ => format!("({})", shown.join(", ")),
                    };
                    self.issue(
                        id,
                        format!("found no matching overload for '{}' applied to '{applied}'", function.name),
                    );
                }
                (Type::Error, found)
            }
        }
    }

    /// Literals that no run could take are found now.
    fn literals(&mut self, _id: Id, function: &'static Function, args: &[Id]) {
        let (Some(&first), name) = (args.first(), function.name) else { return };
        let pattern = match name {
            "matches" | "find" | "findAll" => {
                *args.get(usize::from(name == "matches" && args.len() == 2)).unwrap_or(&first)
            }
            _ => first,
        };
        let Some(text) = self.ast.literal_str(pattern) else { return };
        let bad = match name {
            "duration" => crate::library::time::parse_duration(text).is_none(),
            "timestamp" => crate::library::time::parse_timestamp(text).is_none(),
            "matches" => crate::library::regexes::compile(text).is_err(),
            _ => false,
        };
        if bad {
            self.issue(pattern, format!("invalid {name} argument"));
        }
    }

    fn join(&mut self, at: Id, before: Option<Type>, next: Type) -> Type {
        let Some(before) = before else { return next };
        if self.unifier.assign_all(std::slice::from_ref(&before), std::slice::from_ref(&next)) {
            let (a, b) = (self.unifier.resolve(&before), self.unifier.resolve(&next));
            return if b.is_dyn_or_error() || matches!(a, Type::Null) { b } else { a };
        }
        let message = format!("expected type '{}' but found '{}'", self.shown(&before), self.shown(&next));
        self.issue(at, message);
        Type::Error
    }

    /// What an optional item (`[?x]`) holds.
    fn unwrap_optional(&mut self, id: Id, ty: Type) -> Type {
        match self.unifier.shallow(&ty) {
            Type::Optional(of) => (*of).clone(),
            Type::Dyn | Type::Error => Type::Dyn,
            other => {
                let message = format!("expected type 'optional_type({0})' but found '{0}'", self.shown(&other));
                self.issue(id, message);
                Type::Error
            }
        }
    }

    fn list(&mut self, items: &'e [(Id, bool)]) -> Type {
        let mut joined = None;
        for (item, optional) in items {
            let mut ty = self.check(*item);
            if *optional {
                ty = self.unwrap_optional(*item, ty);
            }
            joined = Some(self.join(*item, joined, ty));
        }
        Type::list(joined.unwrap_or_else(|| Type::Param(self.unifier.fresh(1))))
    }

    fn mixed_list(&mut self, id: Id) -> Type {
        self.ast.kind(id).children(|item| {
            self.check(item);
        });
        let ty = Type::list(Type::Dyn);
        self.types[id] = Some(ty.clone());
        ty
    }

    fn map(&mut self, entries: &'e [(Id, Id, bool)]) -> Type {
        let (mut keys, mut values) = (None, None);
        for (key, value, optional) in entries {
            let ty = self.check(*key);
            keys = Some(self.join(*key, keys, ty));
            let mut ty = self.check(*value);
            if *optional {
                ty = self.unwrap_optional(*value, ty);
            }
            values = Some(self.join(*value, values, ty));
        }
        let key = keys.unwrap_or_else(|| Type::Param(self.unifier.fresh(1)));
        // No container can be a key; a type with both sides nested could double at each level.
        let key = match self.unifier.shallow(&key) {
            Type::List(_) | Type::Map(_) | Type::Optional(_) => Type::Dyn,
            key => key,
        };
        let value = values.unwrap_or_else(|| Type::Param(self.unifier.fresh(1)));
        Type::map(key, value)
    }

    fn structure(&mut self, id: Id, name: &str, fields: &'e [(String, Id, bool)]) -> Type {
        let open = self.env.is_open(name);
        let object = match open {
            true => Some(Arc::new(Object { name: name.to_owned(), ..Object::default() })),
            false => self.env.structure_named(name).cloned(),
        };
        if object.is_none() {
            self.undeclared(id, name);
        }
        for (field, value, optional) in fields {
            let mut ty = self.check(*value);
            if *optional {
                ty = self.unwrap_optional(*value, ty);
            }
            let Some(object) = object.as_ref().filter(|_| !open) else { continue };
            let Some(known) = object.fields.get(field) else {
                self.issue(*value, format!("undefined field '{field}'"));
                continue;
            };
            let wanted = known.decl.ty.clone();
            if !self.unifier.assign_all(&[ty.clone()], std::slice::from_ref(&wanted)) {
                let message = format!(
                    "expected type of field '{field}' is '{}' but provided type is '{}'",
                    self.shown(&wanted),
                    self.shown(&ty)
                );
                self.issue(*value, message);
            }
        }
        match object {
            Some(object) => {
                self.refs[id] = Reference::Struct(object.clone());
                Type::Object(object)
            }
            None => Type::Error,
        }
    }

    fn fold(&mut self, fold: &'e Fold) -> Type {
        let range = self.check(fold.range);
        let (single, first, second) = match self.unifier.shallow(&range) {
            Type::List(items) => ((*items).clone(), Type::Int, (*items).clone()),
            Type::Map(entry) => (entry.0.clone(), entry.0.clone(), entry.1.clone()),
            Type::Dyn | Type::Error | Type::Param(_) => (Type::Dyn, Type::Dyn, Type::Dyn),
            other => {
                let shown = self.shown(&other);
                self.issue(
                    fold.range,
                    format!(
                        "expression of type '{shown}' cannot be range of a comprehension (must be list, map, or dynamic)"
                    ),
                );
                (Type::Error, Type::Error, Type::Error)
            }
        };
        let init = self.check(fold.init);
        self.push(ACCUMULATOR, init.clone());
        match &fold.var2 {
            Some(var2) => {
                self.push(&fold.var, first);
                self.push(var2, second);
            }
            None => self.push(&fold.var, single),
        }
        let condition = self.check(fold.condition);
        self.expect(fold.condition, &condition, &Type::Bool);
        let step = self.check(fold.step);
        self.expect(fold.step, &step, &init);
        self.pop();
        if fold.var2.is_some() {
            self.pop();
        }
        let ty = self.check(fold.result);
        self.pop();
        self.unifier.resolve(&ty)
    }

    fn expect(&mut self, id: Id, found: &Type, wanted: &Type) {
        if !self.unifier.assign_all(std::slice::from_ref(found), std::slice::from_ref(wanted)) {
            let message = format!("expected type '{}' but found '{}'", self.shown(wanted), self.shown(found));
            self.issue(id, message);
        }
    }
}

fn literal_type(literal: &Literal) -> Type {
    match literal {
        Literal::Null => Type::Null,
        Literal::Bool(_) => Type::Bool,
        Literal::Int(_) => Type::Int,
        Literal::Uint(_) => Type::Uint,
        Literal::Double(_) => Type::Double,
        Literal::String(_) => Type::String,
        Literal::Bytes(_) => Type::Bytes,
    }
}
