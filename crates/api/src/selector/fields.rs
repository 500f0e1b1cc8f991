//! Field selectors: `metadata.name=a,status.phase!=Running`, values with `\\`, `\,` and `\=` escaped.

use std::borrow::Cow;
use std::fmt;

use super::Error;

/// One term of a field selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRequirement {
    /// `spec.nodeName`
    pub field: String,
    /// Unescaped.
    pub value: String,
    /// `=` rather than `!=`.
    pub equal: bool,
}

/// A conjunction of terms; none matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    pub requirements: Vec<FieldRequirement>,
}

impl FieldSelector {
    /// From a query string. Which fields a kind has is the caller's to check.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut requirements = Vec::new();
        for term in split_terms(text) {
            if term.is_empty() {
                continue;
            }
            let bad = || Error(format!("invalid selector: '{text}'; can't understand '{term}'"));
            let (field, equal, value) = split_term(term).ok_or_else(bad)?;
            requirements.push(FieldRequirement { field: field.to_owned(), value: unescape(value)?, equal });
        }
        Ok(Self { requirements })
    }

    /// Whether every term holds, given how to read a field.
    pub fn matches<'a>(&self, mut field: impl FnMut(&str) -> Cow<'a, str>) -> bool {
        self.requirements.iter().all(|r| (field(&r.field) == r.value) == r.equal)
    }

    /// The value a field must have, when a term fixes it (`metadata.name=a`): such a list reads one object only.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.requirements.iter().find(|r| r.equal && r.field == field).map(|r| r.value.as_str())
    }

    /// Whether it has no terms and so matches everything.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.requirements.iter().enumerate() {
            let separator = if i > 0 { "," } else { "" };
            let operator = if requirement.equal { "=" } else { "!=" };
            write!(f, "{separator}{}{operator}", requirement.field)?;
            for c in requirement.value.chars() {
                if matches!(c, '\\' | ',' | '=') {
                    f.write_str("\\")?;
                }
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}

fn split_terms(text: &str) -> impl Iterator<Item = &str> {
    let mut escaped = false;
    text.split(move |c| {
        let end = c == ',' && !escaped;
        escaped = c == '\\' && !escaped;
        end
    })
}

/// The first `!=`, `==` or `=` separates field and value.
fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    for (i, _) in term.char_indices() {
        let rest = term.get(i..)?;
        for (operator, equal) in [("!=", false), ("==", true), ("=", true)] {
            if let Some(value) = rest.strip_prefix(operator) {
                return Some((term.get(..i)?, equal, value));
            }
        }
    }
    None
}

fn unescape(value: &str) -> Result<String, Error> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(escaped @ ('\\' | ',' | '=')) => out.push(escaped),
                Some(other) => {
                    return Err(Error(format!("invalid field selector: invalid escape sequence: \\{other}")));
                }
                None => return Err(Error("invalid field selector: invalid escape sequence: \\".into())),
            },
            ',' | '=' => {
                return Err(Error(format!("invalid field selector: unescaped character in value: {}", u32::from(c))));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}
