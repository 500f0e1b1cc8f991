//! Macros: calls that stand for something longer.

use super::{Parsed, Parser, Stop};
use crate::ast::{ACCUMULATOR, Fold, FoldKind, Id, Kind, Literal};

const NOT_A_NAME: &str = "argument must be a simple name";

/// The parts of a macro over a range.
struct Parts {
    range: Id,
    var: String,
    var2: Option<String>,
    filter: Option<Id>,
    expr: Id,
    kind: FoldKind,
}

impl Parser {
    pub(super) fn global_call(&mut self, name: String, args: Vec<Id>, at: u32) -> Parsed {
        if name == "has" && args.len() == 1 {
            return self.has(args[0], at);
        }
        self.call(&name, args, at)
    }

    pub(super) fn member_call(&mut self, target: Id, name: String, args: Vec<Id>, at: u32) -> Parsed {
        let parts = match (name.as_str(), args.as_slice()) {
            ("all", &[var, expr]) => self.one(target, var, None, expr, FoldKind::All)?,
            ("exists", &[var, expr]) => self.one(target, var, None, expr, FoldKind::Exists)?,
            ("exists_one" | "existsOne", &[var, expr]) => self.one(target, var, None, expr, FoldKind::ExistsOne)?,
            ("map", &[var, expr]) => self.one(target, var, None, expr, FoldKind::List)?,
            ("map", &[var, filter, expr]) => self.one(target, var, Some(filter), expr, FoldKind::List)?,
            ("filter", &[var, filter]) => {
                let name = self.variable(var, NOT_A_NAME)?;
                let item = self.add(Kind::Ident(name), at)?;
                self.one(target, var, Some(filter), item, FoldKind::List)?
            }
            ("all", &[var, var2, expr]) => self.two(target, var, var2, None, expr, FoldKind::All)?,
            ("exists", &[var, var2, expr]) => self.two(target, var, var2, None, expr, FoldKind::Exists)?,
            ("existsOne" | "exists_one", &[var, var2, expr]) => {
                self.two(target, var, var2, None, expr, FoldKind::ExistsOne)?
            }
            ("transformList", &[var, var2, expr]) => self.two(target, var, var2, None, expr, FoldKind::List)?,
            ("transformList", &[var, var2, filter, expr]) => {
                self.two(target, var, var2, Some(filter), expr, FoldKind::List)?
            }
            ("transformMap", &[var, var2, expr]) => self.two(target, var, var2, None, expr, FoldKind::Map)?,
            ("transformMap", &[var, var2, filter, expr]) => {
                self.two(target, var, var2, Some(filter), expr, FoldKind::Map)?
            }
            ("transformMapEntry", &[var, var2, expr]) => self.two(target, var, var2, None, expr, FoldKind::MapEntry)?,
            ("transformMapEntry", &[var, var2, filter, expr]) => {
                self.two(target, var, var2, Some(filter), expr, FoldKind::MapEntry)?
            }
            ("optMap", &[var, expr]) => return self.opt_map(target, var, expr, false, at),
            ("optFlatMap", &[var, expr]) => return self.opt_map(target, var, expr, true, at),
            ("bind", &[var, init, body])
                if self.bindings && matches!(self.ast.kind(target), Kind::Ident(name) if name == "cel") =>
            {
                let var = self.variable(var, "cel.bind() variable names must be simple identifiers")?;
                return self.add(Kind::Bind { var, init, body }, at);
            }
            _ => return self.add(Kind::Call { function: name, target: Some(target), args }, at),
        };
        self.fold(parts, at)
    }

    fn has(&mut self, arg: Id, at: u32) -> Parsed {
        if let Kind::Select { operand, field, test: false, optional: false } = self.ast.kind(arg) {
            let (operand, field) = (*operand, field.clone());
            return self.add(Kind::Select { operand, field, test: true, optional: false }, at);
        }
        self.issue(self.ast.node(arg).at, "invalid argument to has() macro".into());
        Err(Stop)
    }

    fn variable(&mut self, id: Id, message: &str) -> Parsed<String> {
        match self.ast.kind(id) {
            Kind::Ident(name) => Ok(name.clone()),
            _ => {
                self.issue(self.ast.node(id).at, message.into());
                Err(Stop)
            }
        }
    }

    fn one(&mut self, range: Id, var: Id, filter: Option<Id>, expr: Id, kind: FoldKind) -> Parsed<Parts> {
        let var = self.variable(var, NOT_A_NAME)?;
        Ok(Parts { range, var, var2: None, filter, expr, kind })
    }

    fn two(&mut self, range: Id, var: Id, var2: Id, filter: Option<Id>, expr: Id, kind: FoldKind) -> Parsed<Parts> {
        let at = self.ast.node(var2).at;
        let var = self.variable(var, NOT_A_NAME)?;
        let second = self.variable(var2, NOT_A_NAME)?;
        if var == second {
            self.issue(at, format!("duplicate variable name: {var}"));
            return Err(Stop);
        }
        Ok(Parts { range, var, var2: Some(second), filter, expr, kind })
    }

    fn accumulator(&mut self, at: u32) -> Parsed {
        self.add(Kind::Ident(ACCUMULATOR.into()), at)
    }

    fn fold(&mut self, parts: Parts, at: u32) -> Parsed {
        let Parts { range, var, var2, filter, expr, kind } = parts;
        let accumulated = self.accumulator(at)?;
        let (init, condition, mut step, result) = match kind {
            FoldKind::All => {
                let init = self.literal(Literal::Bool(true), at)?;
                let condition = self.call("@not_strictly_false", vec![accumulated], at)?;
                let left = self.accumulator(at)?;
                (init, condition, self.call("_&&_", vec![left, expr], at)?, self.accumulator(at)?)
            }
            FoldKind::Exists => {
                let init = self.literal(Literal::Bool(false), at)?;
                let negated = self.call("!_", vec![accumulated], at)?;
                let condition = self.call("@not_strictly_false", vec![negated], at)?;
                let left = self.accumulator(at)?;
                (init, condition, self.call("_||_", vec![left, expr], at)?, self.accumulator(at)?)
            }
            FoldKind::ExistsOne => {
                let (init, one) = (self.literal(Literal::Int(0), at)?, self.literal(Literal::Int(1), at)?);
                let condition = self.literal(Literal::Bool(true), at)?;
                let more = self.call("_+_", vec![accumulated, one], at)?;
                let same = self.accumulator(at)?;
                let step = self.call("_?_:_", vec![expr, more, same], at)?;
                let (total, one) = (self.accumulator(at)?, self.literal(Literal::Int(1), at)?);
                (init, condition, step, self.call("_==_", vec![total, one], at)?)
            }
            FoldKind::List => {
                let init = self.add(Kind::List(Vec::new()), at)?;
                let condition = self.literal(Literal::Bool(true), at)?;
                let item = self.add(Kind::List(vec![(expr, false)]), at)?;
                let step = self.call("_+_", vec![accumulated, item], at)?;
                (init, condition, step, self.accumulator(at)?)
            }
            FoldKind::Map | FoldKind::MapEntry => {
                let init = self.add(Kind::Map(Vec::new()), at)?;
                let condition = self.literal(Literal::Bool(true), at)?;
                let mut args = vec![accumulated];
                if kind == FoldKind::Map {
                    args.push(self.add(Kind::Ident(var.clone()), at)?);
                }
                args.push(expr);
                let step = self.call("cel.@mapInsert", args, at)?;
                (init, condition, step, self.accumulator(at)?)
            }
        };
        if let Some(filter) = filter {
            let same = self.accumulator(at)?;
            step = self.call("_?_:_", vec![filter, step, same], at)?;
        }
        let fold = Fold { range, var, var2, init, condition, step, result, kind, filter, expr };
        self.add(Kind::Fold(Box::new(fold)), at)
    }

    /// `target.hasValue() ? optional.of(var = target.value() in expr) : optional.none()`
    fn opt_map(&mut self, target: Id, var: Id, expr: Id, flat: bool, at: u32) -> Parsed {
        let name = if flat { "optFlatMap()" } else { "optMap()" };
        let var = self.variable(var, &format!("{name} variable name must be a simple identifier"))?;
        let test = self.add(Kind::Call { function: "hasValue".into(), target: Some(target), args: Vec::new() }, at)?;
        let init = self.add(Kind::Call { function: "value".into(), target: Some(target), args: Vec::new() }, at)?;
        let mut found = self.add(Kind::Bind { var, init, body: expr }, at)?;
        if !flat {
            found = self.call("optional.of", vec![found], at)?;
        }
        let none = self.call("optional.none", Vec::new(), at)?;
        self.call("_?_:_", vec![test, found, none], at)
    }
}
