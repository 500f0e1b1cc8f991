//! What is wrong with an expression, and what goes wrong when it runs.

use std::borrow::Cow;
use std::fmt;

/// What is wrong with an expression, written as cel-go does: place, message, and the line with a mark under the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issues {
    list: Vec<Issue>,
    source: String,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// Offset in characters; `None` for the whole text.
    pub at: Option<u32>,
    pub message: String,
}

impl Issues {
    pub(crate) fn new(source: &str, mut list: Vec<Issue>) -> Self {
        list.sort_by_key(|issue| issue.at);
        Self { list, source: source.to_owned() }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Issue> {
        self.list.iter()
    }
}

impl std::error::Error for Issues {}

impl fmt::Display for Issues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, issue) in self.list.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            let Some(at) = issue.at else {
                write!(f, "ERROR: <input>:-1:0: {}", issue.message)?;
                continue;
            };
            let (mut line, mut column) = (1, 0u32);
            for c in self.source.chars().take(at as usize) {
                if c == '\n' {
                    line += 1;
                    column = 0;
                } else {
                    column += 1;
                }
            }
            write!(f, "ERROR: <input>:{line}:{}: {}", column + 1, issue.message)?;
            if let Some(text) = self.source.split('\n').nth(line - 1) {
                write!(f, "\n | {}\n | ", text.replace('\t', " "))?;
                for c in text.chars().take(column as usize) {
                    f.write_str(if c.is_ascii() { "." } else { "．" })?;
                }
                f.write_str("^")?;
            }
        }
        Ok(())
    }
}

/// Why an evaluation has no value. Upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Arguments of types that an operator or function does not take; happens where static checking had only `dyn`.
    #[error("no such overload")]
    NoSuchOverload,
    /// The budget is spent. Nothing absorbs it.
    #[error("operation cancelled: actual cost limit exceeded")]
    CostLimit,
    /// A variable has no value.
    #[error("no such attribute(s): {0}")]
    NoSuchAttribute(String),
    /// `no such key: x`, `index out of bounds: 3`, `division by zero`, …
    #[error("{0}")]
    Other(Cow<'static, str>),
}

impl Error {
    pub(crate) fn new(message: impl Into<Cow<'static, str>>) -> Self {
        Self::Other(message.into())
    }

    pub(crate) fn no_such_key(key: impl fmt::Display) -> Self {
        Self::new(format!("no such key: {key}"))
    }
}
