//! What every kind's validation is built from: [`View`], a value that knows where it is, and small checks over it.
//! A path is text only once a rule is broken; until then it is a chain on the stack.

use std::fmt;

use serde_json::{Map, Value};

use crate::status::FieldError;

pub mod conditions;
pub mod labels;
pub mod meta;
pub mod names;
#[cfg(test)]
mod tests;

/// Broken rules, in the order found.
pub type Errors = Vec<FieldError>;

pub(crate) static NULL: Value = Value::Null;

/// A value inside an object and its path. `null` and missing are one and the same.
#[derive(Clone, Copy)]
pub struct View<'p, 'v> {
    pub value: &'v Value,
    step: Step<'v>,
    parent: Option<&'p View<'p, 'v>>,
}

#[derive(Clone, Copy)]
enum Step<'v> {
    Field(&'v str),
    Index(usize),
    Key(&'v str),
}

impl<'v> View<'_, 'v> {
    /// The object itself; its path is empty.
    pub fn root(value: &'v Value) -> Self {
        Self { value, step: Step::Field(""), parent: None }
    }

    /// `value`, as if it were found at `path`.
    pub fn at(path: &'v str, value: &'v Value) -> Self {
        Self { value, step: Step::Field(path), parent: None }
    }
}

impl<'p, 'v> View<'p, 'v> {
    /// The field `name`.
    pub fn get(&'p self, name: &'v str) -> View<'p, 'v> {
        View { value: self.value.get(name).unwrap_or(&NULL), step: Step::Field(name), parent: Some(self) }
    }

    /// The same value under this path, for values that stand elsewhere (old objects, defaults).
    pub fn with(&self, value: &'v Value) -> View<'p, 'v> {
        View { value, ..*self }
    }

    /// Elements of a list, nothing for anything else.
    pub fn items(&'p self) -> impl Iterator<Item = View<'p, 'v>> {
        let items = self.value.as_array().map(Vec::as_slice).unwrap_or_default();
        items.iter().enumerate().map(|(i, value)| View { value, step: Step::Index(i), parent: Some(self) })
    }

    /// Entries of a map, as `path[key]`.
    pub fn entries(&'p self) -> impl Iterator<Item = (&'v str, View<'p, 'v>)> {
        let entries = self.value.as_object().into_iter().flatten();
        entries.map(|(key, value)| (key.as_str(), View { value, step: Step::Key(key), parent: Some(self) }))
    }

    /// A string, or the empty one.
    pub fn str(&self) -> &'v str {
        self.value.as_str().unwrap_or_default()
    }

    pub fn int(&self) -> Option<i64> {
        self.value.as_i64()
    }

    /// A boolean; missing is false.
    pub fn bool(&self) -> bool {
        self.value.as_bool().unwrap_or(false)
    }

    pub fn map(&self) -> Option<&'v Map<String, Value>> {
        self.value.as_object()
    }

    pub fn len(&self) -> usize {
        match self.value {
            Value::Array(items) => items.len(),
            Value::Object(map) => map.len(),
            Value::String(text) => text.len(),
            _ => 0,
        }
    }

    /// Present (pointers upstream).
    pub fn is_set(&self) -> bool {
        !self.value.is_null()
    }

    /// Missing, or an empty string, list or map.
    pub fn is_empty(&self) -> bool {
        match self.value {
            Value::Null => true,
            Value::Array(_) | Value::Object(_) | Value::String(_) => self.len() == 0,
            _ => false,
        }
    }

    /// `spec.containers[0].name`
    pub fn path(&self) -> String {
        self.to_string()
    }

    pub fn required(&self, detail: &str) -> FieldError {
        FieldError::required(self.path(), detail)
    }

    pub fn invalid(&self, detail: &str) -> FieldError {
        FieldError::invalid(self.path(), self.value.clone(), detail)
    }

    /// Without the value, where that would say nothing.
    pub fn invalid_bare(&self, detail: &str) -> FieldError {
        let message = format!("Invalid value: {detail}");
        FieldError { reason: "FieldValueInvalid", field: self.path(), message }
    }

    /// For strings, which upstream shows as `""` when they are missing.
    pub fn invalid_str(&self, detail: &str) -> FieldError {
        FieldError::invalid(self.path(), self.str(), detail)
    }

    pub fn forbidden(&self, detail: &str) -> FieldError {
        FieldError::forbidden(self.path(), detail)
    }

    pub fn not_supported(&self, supported: &[&str]) -> FieldError {
        let value = if self.is_set() { self.value.clone() } else { "".into() };
        FieldError::not_supported(self.path(), value, supported)
    }

    pub fn duplicate(&self) -> FieldError {
        FieldError::duplicate(self.path(), self.value.clone())
    }

    pub fn not_found(&self) -> FieldError {
        FieldError::not_found(self.path(), self.value.clone())
    }

    pub fn too_long(&self, max_bytes: usize) -> FieldError {
        FieldError::too_long(self.path(), max_bytes)
    }

    pub fn too_many(&self, max: usize) -> FieldError {
        FieldError::too_many(self.path(), self.len(), max)
    }
}

impl fmt::Display for View<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bare = match self.parent {
            None => true,
            Some(parent) => {
                parent.fmt(f)?;
                parent.parent.is_none() && matches!(parent.step, Step::Field(""))
            }
        };
        match self.step {
            Step::Field("") => Ok(()),
            Step::Field(name) if bare => f.write_str(name),
            Step::Field(name) => write!(f, ".{name}"),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) => write!(f, "[{key}]"),
        }
    }
}

/// `Required value` unless there is something. Says whether there is.
pub fn required(view: View, errors: &mut Errors) -> bool {
    if view.is_empty() {
        errors.push(view.required(""));
    }
    !view.is_empty()
}

/// One of `supported`, which are sorted as upstream lists them; missing is reported as required.
pub fn required_one_of(view: View, supported: &[&str], errors: &mut Errors) {
    if required(view, errors) {
        one_of(view, supported, errors);
    }
}

/// One of `supported`; missing (as `""`) is not.
pub fn one_of(view: View, supported: &[&str], errors: &mut Errors) {
    if !supported.contains(&view.str()) {
        errors.push(view.not_supported(supported));
    }
}

/// Not below zero; missing is fine.
pub fn non_negative(view: View, errors: &mut Errors) {
    if view.int().is_some_and(|n| n < 0) {
        errors.push(view.invalid("must be greater than or equal to 0"));
    }
}

/// Above zero; missing is fine.
pub fn positive(view: View, errors: &mut Errors) {
    if view.int().is_some_and(|n| n <= 0) {
        errors.push(view.invalid("must be greater than 0"));
    }
}

/// Within `low..=high`; missing counts as zero.
pub fn within(view: View, low: i64, high: i64, errors: &mut Errors) {
    let n = view.int().unwrap_or(0);
    if n < low || n > high {
        errors.push(FieldError::invalid(view.path(), n, &format!("must be between {low} and {high}, inclusive")));
    }
}

/// A port number; missing counts as zero.
pub fn port(view: View, errors: &mut Errors) {
    within(view, 1, 65535, errors);
}

/// The rule of `check`, one error per complaint.
pub fn checked(view: View, check: fn(&str) -> Vec<String>, errors: &mut Errors) {
    errors.extend(check(view.str()).iter().map(|complaint| view.invalid_str(complaint)));
}

/// The same as in the old object.
pub fn immutable(new: View, old: &Value, errors: &mut Errors) {
    if !same(new.value, old) {
        errors.push(new.invalid("field is immutable"));
    }
}

/// As [`immutable`], for a struct of a built-in type, by its name below `io.k8s.`
pub fn immutable_as(ty: &str, new: View, old: &Value, errors: &mut Errors) {
    if new.value.is_null() != old.is_null() || !same_as(ty, new.value, old) {
        errors.push(new.invalid("field is immutable"));
    }
}

/// Equality of two values of a built-in type, by its name below `io.k8s.` ([`crate::schema::Schema::same`]).
pub fn same_as(ty: &str, a: &Value, b: &Value) -> bool {
    a == b || crate::schema::builtin(&format!("io.k8s.{ty}")).is_some_and(|schema| schema.same(a, b))
}

/// Equality with missing, `null`, `[]` and `{}` as one, for values in which no pointer leads to a struct.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            a.iter().all(|(key, value)| same(value, b.get(key).unwrap_or(&NULL)))
                && b.iter().all(|(key, value)| a.contains_key(key) || is_nothing(value))
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        _ => a == b || (is_nothing(a) && is_nothing(b)),
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.values().all(is_nothing),
        _ => false,
    }
}
