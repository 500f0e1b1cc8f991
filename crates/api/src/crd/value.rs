//! Value validation: what an object must be like, in the words of upstream's OpenAPI validator. On updates, a value that
//! is as it was is not judged again (KEP-4008), so that a tightened schema does not block what it does not concern.

use serde_json::{Number, Value};

use super::node::{Additional, Checks, JsonType, Node};
use crate::status::FieldError;
use crate::validation::{Errors, View};

/// Errors reported for one object; more would help nobody.
const MAX_ERRORS: usize = 256;

/// How upstream shows the path of the whole object.
const ROOT: &str = "<nil>";

impl Node {
    /// Everything about the value that breaks the schema. `old` is what stood there before.
    pub fn check_value(&self, view: View, old: Option<&Value>, errors: &mut Errors) {
        if errors.len() >= MAX_ERRORS || old == Some(view.value) {
            return;
        }
        if let Some(ty) = self.ty.map(JsonType::as_str).or(self.int_or_string.then_some("integer or string"))
            && !self.type_fits(view.value)
        {
            if !(view.value.is_null() && self.nullable) {
                errors.push(wrong_type(view, ty));
            }
            return;
        }
        if view.value.is_null() {
            if self.nullable {
                return;
            }
            if self.ty.is_none() && self.checks.is_none() {
                return;
            }
        }
        if let Some(checks) = &self.checks {
            checks.check(self, view, errors);
        }
        match view.value {
            Value::Object(map) => {
                let allowed = !matches!(self.additional, Additional::Allowed(false));
                for key in map.keys() {
                    let old = old.and_then(|old| old.get(key));
                    match self.child(key) {
                        Some(node) => node.check_value(view.get(key), old, errors),
                        None if allowed => {}
                        None => errors.push(FieldError::forbidden(view.get(key).path(), "not allowed")),
                    }
                }
            }
            Value::Array(_) => {
                let Some(node) = &self.items else { return };
                let old = self.old_items(old);
                for item in view.items() {
                    node.check_value(item, old.of(item.value), errors);
                }
            }
            _ => {}
        }
    }

    fn type_fits(&self, value: &Value) -> bool {
        if self.int_or_string {
            return value.is_string() || matches!(value, Value::Number(n) if is_whole(n));
        }
        match (self.ty, value) {
            (None, _)
            | (Some(JsonType::Object), Value::Object(_))
            | (Some(JsonType::Array), Value::Array(_))
            | (Some(JsonType::String), Value::String(_))
            | (Some(JsonType::Number), Value::Number(_))
            | (Some(JsonType::Boolean), Value::Bool(_)) => true,
            (Some(JsonType::Integer), Value::Number(n)) => is_whole(n),
            _ => false,
        }
    }

    fn is_valid(&self, view: View) -> Result<(), Errors> {
        let mut errors = Errors::new();
        self.check_value(view, None, &mut errors);
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}

impl Checks {
    fn check(&self, node: &Node, view: View, errors: &mut Errors) {
        self.check_composites(view, errors);
        match view.value {
            Value::String(text) => self.check_string(text, view, errors),
            Value::Number(n) => self.check_number(node, n, view, errors),
            Value::Array(items) => {
                if let Some(min) = self.min_items.filter(|min| items.len() < *min) {
                    errors.push(body(view, &format!("should have at least {min} items")));
                }
                if let Some(max) = self.max_items.filter(|max| items.len() > *max) {
                    errors.push(FieldError::too_many(path(view), items.len(), max));
                }
            }
            Value::Object(map) => {
                if let Some(min) = self.min_properties.filter(|min| map.len() < *min) {
                    errors.push(body(view, &format!("should have at least {min} properties")));
                }
                if let Some(max) = self.max_properties.filter(|max| map.len() > *max) {
                    errors.push(FieldError::too_many(path(view), map.len(), max));
                }
                for name in self.required.iter().filter(|name| !map.contains_key(*name)) {
                    errors.push(view.get(name).required(""));
                }
            }
            _ => {}
        }
        if !self.allowed.is_empty() && !self.allowed.iter().any(|allowed| equal(allowed, view.value)) {
            let shown: Vec<String> = self.allowed.iter().map(text_of).collect();
            let shown: Vec<&str> = shown.iter().map(String::as_str).collect();
            errors.push(FieldError::not_supported(path(view), view.value.clone(), &shown));
        }
    }

    fn check_string(&self, text: &str, view: View, errors: &mut Errors) {
        let length = if self.max_length.is_some() || self.min_length.is_some() { text.chars().count() } else { 0 };
        if let Some(max) = self.max_length.filter(|max| length > *max) {
            errors.push(FieldError::too_long(path(view), max));
        }
        if let Some(min) = self.min_length.filter(|min| length < *min) {
            errors.push(body(view, &format!("should be at least {min} chars long")));
        }
        if let Some((pattern, regex)) = &self.pattern
            && !regex.is_match(text)
        {
            let shown = view.value.clone();
            let why = format!("{} in body should match '{pattern}'", name(view));
            errors.push(FieldError::invalid(path(view), shown, &why));
        }
        if let Some(format) = self.format.filter(|format| !format.fits(text)) {
            let (format, shown) = (format.as_str(), Value::from(text));
            errors.push(type_error(view, shown.clone(), &format!("must be of type {format}: {shown}")));
        }
    }

    fn check_number(&self, node: &Node, n: &Number, view: View, errors: &mut Errors) {
        let Some(value) = n.as_f64() else { return };
        let shown = |bound: f64| Number::from_f64(bound).map_or_else(String::new, |n| shown_number(&n));
        let fail = |errors: &mut Errors, why: String| {
            let why = format!("{} in body {why}", name(view));
            errors.push(FieldError::invalid(path(view), view.value.clone(), &why));
        };
        if node.ty == Some(JsonType::Integer)
            && self.format == Some(super::format::Format::Int32)
            && i32::try_from(n.as_i64().unwrap_or(i64::MAX)).is_err()
        {
            errors.push(type_error(view, "int64".into(), "must be of type int32: \"int64\""));
        }
        if let Some(multiple) = self.multiple_of.filter(|m| *m > 0.0 && !is_multiple(value, *m)) {
            fail(errors, format!("should be a multiple of {}", shown(multiple)));
        }
        match self.maximum {
            Some(max) if self.exclusive_maximum && value >= max => {
                fail(errors, format!("should be less than {}", shown(max)));
            }
            Some(max) if value > max => fail(errors, format!("should be less than or equal to {}", shown(max))),
            _ => {}
        }
        match self.minimum {
            Some(min) if self.exclusive_minimum && value <= min => {
                fail(errors, format!("should be greater than {}", shown(min)));
            }
            Some(min) if value < min => fail(errors, format!("should be greater than or equal to {}", shown(min))),
            _ => {}
        }
    }

    fn check_composites(&self, view: View, errors: &mut Errors) {
        // These errors are about combinations, and upstream reports them without the field.
        let combination = |why: String| FieldError::invalid(ROOT, "", &format!("{:?} {why}", view.path()));
        if !self.any_of.is_empty() {
            let mut first = None;
            let found = self.any_of.iter().any(|node| match node.is_valid(view) {
                Ok(()) => true,
                Err(errors) => {
                    first.get_or_insert(errors);
                    false
                }
            });
            if !found {
                errors.push(combination("must validate at least one schema (anyOf)".into()));
                errors.extend(first.into_iter().flatten());
            }
        }
        if !self.one_of.is_empty() {
            let mut first = None;
            let mut valid = 0;
            for node in &self.one_of {
                match node.is_valid(view) {
                    Ok(()) => valid += 1,
                    Err(errors) => drop(first.get_or_insert(errors)),
                }
            }
            if valid != 1 {
                let found =
                    if valid == 0 { "Found none valid".into() } else { format!("Found {valid} valid alternatives") };
                errors.push(combination(format!("must validate one and only one schema (oneOf). {found}")));
                if valid == 0 {
                    errors.extend(first.into_iter().flatten());
                }
            }
        }
        if !self.all_of.is_empty() {
            let mut failed = Errors::new();
            let mut valid = 0;
            for node in &self.all_of {
                match node.is_valid(view) {
                    Ok(()) => valid += 1,
                    Err(errors) => failed.extend(errors),
                }
            }
            if valid < self.all_of.len() {
                let none = if valid == 0 { ". None validated" } else { "" };
                errors.push(combination(format!("must validate all the schemas (allOf){none}")));
                errors.extend(failed);
            }
        }
        if self.not.as_ref().is_some_and(|node| node.is_valid(view).is_ok()) {
            errors.push(combination("must not validate the schema (not)".into()));
        }
    }
}

fn path(view: View) -> String {
    let path = view.path();
    if path.is_empty() { ROOT.into() } else { path }
}

fn name(view: View) -> String {
    view.path()
}

/// An error about the whole of a list, map or string.
fn body(view: View, why: &str) -> FieldError {
    FieldError::invalid(path(view), view.value.clone(), &format!("{} in body {why}", name(view)))
}

fn wrong_type(view: View, wanted: &str) -> FieldError {
    let found = match view.value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if is_whole(n) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    type_error(view, found.into(), &format!("must be of type {wanted}: {found:?}"))
}

fn type_error(view: View, shown: Value, why: &str) -> FieldError {
    let why = format!("{} in body {why}", name(view));
    FieldError { reason: "FieldValueTypeInvalid", ..FieldError::invalid(path(view), shown, &why) }
}

/// A member of an enumeration as text.
fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn is_whole(n: &Number) -> bool {
    n.is_i64() || n.is_u64() || n.as_f64().is_some_and(|n| n.fract() == 0.0)
}

/// As Go shows a float: without a fraction when there is none.
fn shown_number(n: &Number) -> String {
    match n.as_f64() {
        Some(n) if n.fract() == 0.0 && n.abs() < 1e21 => format!("{n:.0}"),
        _ => n.to_string(),
    }
}

/// Equality in which `1` and `1.0` are the same.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

/// Whether `value` is `factor` times a whole number, as near as floats can tell: 0.3 is a multiple of 0.1.
fn is_multiple(value: f64, factor: f64) -> bool {
    let times = if factor < 1.0 { 1.0 / factor * value } else { value / factor };
    let whole = times.trunc();
    times == whole || (times - whole).abs() / (times.abs() + whole.abs()) < 1e-9
}

#[cfg(test)]
mod tests {
    use super::is_multiple;

    #[test]
    fn multiples_are_told_in_spite_of_rounding() {
        assert!(is_multiple(0.3, 0.1) && is_multiple(6.0, 3.0) && is_multiple(0.0, 5.0) && is_multiple(-4.0, 2.0));
        assert!(!is_multiple(0.35, 0.1) && !is_multiple(7.0, 2.0) && !is_multiple(0.5, 1.0));
    }
}
