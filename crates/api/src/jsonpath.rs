//! JSONPath as kubectl and CRDs write it: `.spec.replicas`, `.status.conditions[?(@.type=="Ready")].status`,
//! `.metadata.annotations['a\.b']`, `.items[0:2].name`, `..name`. A missing key is no error, it finds nothing.
//!
//! Paths come from clients, so there are limits: on a path's length and nesting, and on the values that one search visits.

mod find;
mod parse;
#[cfg(test)]
mod tests;

use serde_json::Value;

/// Longest path.
const MAX_BYTES: usize = 4096;
/// Filters and unions inside each other.
const MAX_DEPTH: usize = 8;
/// Values that one search looks at.
const MAX_VISITS: usize = 1 << 20;

/// What is wrong with a path, or with a search along it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The path cannot be read.
    #[error("{0}")]
    Syntax(String),
    /// The search visits more values than a search may.
    #[error("the path visits too many values")]
    TooMuch,
    /// A filter compares a list or a map.
    #[error("invalid type for comparison")]
    NotComparable,
}

/// A parsed path.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath {
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    /// `.*`, `[*]`
    Wildcard,
    /// `..`: the value and everything below it.
    Recursive,
    /// `[2]`
    Index(i64),
    /// `[first:end:every]`
    Slice(Option<i64>, Option<i64>, usize),
    /// `['a','b']`, `[0,2]`
    Union(Vec<Vec<Step>>),
    Filter(Box<Filter>),
}

/// `[?(left op right)]`
#[derive(Clone, Debug, PartialEq)]
struct Filter {
    left: Operand,
    /// Without one, `left` must find something.
    test: Option<(Op, Operand)>,
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    /// From the element (`@`) or, with `true`, from the root (`$`).
    Path(Vec<Step>, bool),
    Literal(Value),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl JsonPath {
    /// Reads a path without the braces that kubectl's templates have around it.
    pub fn parse(text: &str) -> Result<Self, Error> {
        parse::path(text).map(|steps| Self { steps })
    }

    /// All values that the path leads to, in order.
    pub fn find<'v>(&self, root: &'v Value) -> Result<Vec<&'v Value>, Error> {
        find::find(&self.steps, root)
    }

    /// The first of [`JsonPath::find`]; `None` also when the search is too long.
    pub fn first<'v>(&self, root: &'v Value) -> Option<&'v Value> {
        // Most paths are plain fields, for which nothing has to be collected.
        let mut at = root;
        for step in &self.steps {
            match step {
                Step::Field(name) => at = at.get(name)?,
                _ => return self.find(root).ok()?.first().copied(),
            }
        }
        Some(at)
    }

    /// The field names, when the path is nothing but fields.
    pub fn fields(&self) -> Option<Vec<String>> {
        let name = |step: &'_ Step| match step {
            Step::Field(name) => Some(name.clone()),
            _ => None,
        };
        self.steps.iter().map(name).collect()
    }
}
