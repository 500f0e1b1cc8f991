//! What is demanded of the rules of a definition: that they compile, that their cost in the worst case is bearable, that
//! they ask for old values only where there are some, and that defaults obey them.

use std::sync::Arc;

use keelson_api::status::FieldError;
use serde_json::Value as Json;

use super::objects::Rules;
use super::{Rule, embedded, flag, is_granular, is_keyed_list, properties, rules_at, values_schema};
use crate::limits::{REQUEST_BYTES, RUNTIME_BUDGET, STATIC_ESTIMATED_COST, STATIC_ESTIMATED_CRD_COST};
use crate::schema::declare;
use crate::types::{Decl, Type};

/// Checks the rules in `openAPIV3Schema`, which stands at `path` and is structural.
pub fn check(path: &str, schema: &Json) -> Vec<FieldError> {
    let mut checker = Checker { errors: Vec::new(), total: 0, expensive: Vec::new() };
    let root = Place { path: path.to_owned(), often: Some(1), uncorrelatable: None, root: true };
    if !has_rules(schema) {
        return Vec::new();
    }
    let decl = declare(schema, true, "selfType");
    checker.node(schema, decl.as_ref(), &root);
    let Checker { mut errors, total, mut expensive } = checker;
    if total > STATIC_ESTIMATED_CRD_COST {
        expensive.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
        let why = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
        errors.extend(expensive.iter().take(4).map(|(path, _)| FieldError::forbidden(path, why)));
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        errors.push(FieldError::forbidden(path, &over_budget(what, total, STATIC_ESTIMATED_CRD_COST)));
    }
    if errors.is_empty() {
        check_defaults(path, schema, &mut errors);
    }
    errors
}

/// Whether there is any rule in a schema.
pub(super) fn has_rules(schema: &Json) -> bool {
    !rules_at(schema).is_empty()
        || properties(schema).any(|(_, property)| has_rules(property))
        || values_schema(schema).is_some_and(has_rules)
        || schema.get("items").is_some_and(has_rules)
        || schema.get("allOf").and_then(Json::as_array).into_iter().flatten().any(has_rules)
}

/// Where a schema node stands.
#[derive(Clone)]
struct Place {
    path: String,
    /// How many values it describes at most in one object; `None` for any number.
    often: Option<u64>,
    /// The list or map above in which values cannot be told to be the same as before.
    uncorrelatable: Option<String>,
    root: bool,
}

struct Checker {
    errors: Vec<FieldError>,
    total: u64,
    expensive: Vec<(String, u64)>,
}

impl Checker {
    fn node(&mut self, schema: &Json, decl: Option<&Arc<Decl>>, place: &Place) {
        let child = |path: String, factor: Option<u64>, correlatable: bool| Place {
            path,
            often: place.often.zip(factor).map(|(often, factor)| often.saturating_mul(factor)),
            uncorrelatable: place.uncorrelatable.clone().or_else(|| (!correlatable).then(|| place.path.clone())),
            root: false,
        };
        let size = |name: &str| schema.get(name).and_then(Json::as_i64).map(|size| size.max(0).unsigned_abs());
        let below = |schema: &Json, known: Option<&Arc<Decl>>| match known {
            Some(decl) if !embedded(schema) => Some(decl.clone()),
            _ => declare(schema, embedded(schema), "selfType"),
        };
        if let Some(values) = values_schema(schema).filter(|values| has_rules(values)) {
            let place = child(format!("{}.additionalProperties", place.path), size("maxProperties"), true);
            self.node(values, below(values, decl.and_then(|decl| decl.items.as_ref())).as_ref(), &place);
        }
        for (name, property) in properties(schema).filter(|(_, property)| has_rules(property)) {
            let place = child(format!("{}.properties[{name}]", place.path), Some(1), is_granular(schema));
            let known = crate::schema::escape(name).and_then(|name| decl?.field(&name)).map(|field| &field.decl);
            let known = known.filter(|_| !(place.root && name == "metadata"));
            self.node(property, below(property, known).as_ref(), &place);
        }
        if let Some(items) = schema.get("items").filter(|items| has_rules(items)) {
            let place = child(format!("{}.items", place.path), size("maxItems"), is_keyed_list(schema));
            self.node(items, below(items, decl.and_then(|decl| decl.items.as_ref())).as_ref(), &place);
        }
        for (index, rule) in rules_at(schema).iter().enumerate() {
            let path = format!("{}.x-kubernetes-validations[{index}]", place.path);
            match decl {
                Some(decl) => self.rule(rule, schema, decl, place, &path),
                None => {
                    let why = "Internal error: internal error: failed to construct type information for \
                               x-kubernetes-validations rules: unable to convert structural schema to CEL declarations";
                    let field = format!("{}.x-kubernetes-validations", place.path);
                    self.errors.push(FieldError { reason: "InternalError", field, message: why.into() });
                    break;
                }
            }
        }
    }

    fn rule(&mut self, rule: &Json, schema: &Json, decl: &Arc<Decl>, place: &Place, path: &str) {
        let Some(compiled) = Rule::compile(rule, schema, decl) else { return };
        let at = format!("{path}.rule");
        let often = place.often.unwrap_or(REQUEST_BYTES / (decl.min_size + 1));
        match &compiled.program {
            Ok(program) => {
                let cost = program.estimated_cost().max.saturating_mul(often);
                self.observe(&at, "estimated rule cost", cost);
            }
            Err(why) => self.errors.push(FieldError::of_struct("FieldValueInvalid", &at, &shown(rule), why)),
        }
        if let Some((_, expression)) = &compiled.message_expression {
            let at = format!("{path}.messageExpression");
            match expression {
                Ok(program) => self.observe(&at, "estimated messageExpression cost", program.estimated_cost().max),
                Err(why) => self.errors.push(FieldError::of_struct("FieldValueInvalid", &at, &shown(rule), why)),
            }
        }
        if compiled.uses_old_self {
            if let Some(within) = &place.uncorrelatable {
                let why = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {within}");
                let source = rule.get("rule").cloned().unwrap_or_default();
                self.errors.push(FieldError::invalid(&at, source, &why));
            }
        } else if let Some(value) = rule.get("optionalOldSelf").filter(|value| !value.is_null()) {
            let why = "may not be set if oldSelf is not used in rule";
            self.errors.push(FieldError::invalid(format!("{path}.optionalOldSelf"), value.clone(), why));
        }
    }

    fn observe(&mut self, path: &str, what: &str, cost: u64) {
        if cost > STATIC_ESTIMATED_COST {
            self.errors.push(FieldError::forbidden(path, &over_budget(what, cost, STATIC_ESTIMATED_COST)));
        }
        self.total = self.total.saturating_add(cost);
        if cost >= STATIC_ESTIMATED_CRD_COST / 100 {
            self.expensive.push((path.to_owned(), cost));
        }
    }
}

fn over_budget(what: &str, cost: u64, limit: u64) -> String {
    let excess = cost as f64 / limit as f64;
    let factor = if excess > 100.0 {
        "more than 100x".to_owned()
    } else if excess < 1.5 {
        format!("{excess:.6}x")
    } else {
        format!("{excess:.1}x")
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and \
         maxLength where arrays, maps, and strings are declared)"
    )
}

/// A rule as upstream's messages show it: by its Go fields.
fn shown(rule: &Json) -> String {
    let text = |key: &str| rule.get(key).and_then(Json::as_str).unwrap_or_default();
    let reason = match text("reason") {
        "" => "(*apiextensions.FieldValueErrorReason)(nil)".to_owned(),
        reason => format!("(*apiextensions.FieldValueErrorReason)({reason:?})"),
    };
    let optional = match rule.get("optionalOldSelf") {
        Some(Json::Bool(value)) => format!("(*bool)({value})"),
        _ => "(*bool)(nil)".to_owned(),
    };
    format!(
        "apiextensions.ValidationRule{{Rule:{:?}, Message:{:?}, MessageExpression:{:?}, Reason:{reason}, FieldPath:{:?}, \
         OptionalOldSelf:{optional}}}",
        text("rule"),
        text("message"),
        text("messageExpression"),
        text("fieldPath"),
    )
}

/// Runs the rules over each default, with a budget for all of them.
fn check_defaults(path: &str, schema: &Json, errors: &mut Vec<FieldError>) {
    let mut budget = RUNTIME_BUDGET as i64;
    defaults(path, schema, &mut budget, errors);
}

fn defaults(path: &str, schema: &Json, budget: &mut i64, errors: &mut Vec<FieldError>) {
    if *budget < 0 {
        return;
    }
    if let Some(default) = schema.get("default")
        && let Some(rules) = Rules::at(schema, embedded(schema))
    {
        let verdict = rules.run(&format!("{path}.default"), default, Some(default), false, budget);
        errors.extend(verdict.errors);
    }
    for (name, property) in properties(schema) {
        defaults(&format!("{path}.properties[{name}]"), property, budget, errors);
    }
    if let Some(values) = values_schema(schema) {
        defaults(&format!("{path}.additionalProperties"), values, budget, errors);
    }
    if let Some(items) = schema.get("items") {
        defaults(&format!("{path}.items"), items, budget, errors);
    }
}

/// Whether rules may see a node at all; used where a definition is run rather than checked.
pub(super) fn visible(schema: &Json) -> bool {
    flag(schema, "x-kubernetes-int-or-string") || schema.get("type").is_some_and(|ty| ty.is_string())
}

/// The `type` of a schema, which errors give instead of the value.
pub(super) fn type_name(schema: &Json, decl: Option<&Arc<Decl>>) -> String {
    match schema.get("type").and_then(Json::as_str) {
        Some(ty) => ty.to_owned(),
        None => match decl.map(|decl| &decl.ty) {
            Some(Type::Object(_)) => "object".to_owned(),
            _ => String::new(),
        },
    }
}
