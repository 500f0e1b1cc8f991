//! The label selector grammar, with upstream's error messages.

use super::Error;
use super::labels::{Operator, Requirement};
use crate::validation::names;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Open,
    Close,
    Comma,
    Not,
    Equals,
    DoubleEquals,
    NotEquals,
    Greater,
    Less,
    In,
    NotIn,
    Identifier,
    Error,
    End,
}

/// Splits a selector into tokens. `in` and `notin` are operators only where one is expected.
struct Lexer<'a> {
    rest: &'a str,
}

fn is_special(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

impl<'a> Lexer<'a> {
    /// The next token with its text, and what is left after it.
    fn peek(&self) -> (Token, &'a str, &'a str) {
        let rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
        let Some(first) = rest.chars().next() else { return (Token::End, "", rest) };
        if is_special(first) {
            let symbols = [
                ("==", Token::DoubleEquals),
                ("!=", Token::NotEquals),
                ("=", Token::Equals),
                ("!", Token::Not),
                ("(", Token::Open),
                (")", Token::Close),
                (",", Token::Comma),
                (">", Token::Greater),
                ("<", Token::Less),
            ];
            for (symbol, token) in symbols {
                if let Some(after) = rest.strip_prefix(symbol) {
                    return (token, symbol, after);
                }
            }
            return (Token::Error, rest, "");
        }
        let end = rest.find(|c| is_special(c) || matches!(c, ' ' | '\t' | '\r' | '\n')).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let token = match word {
            "in" => Token::In,
            "notin" => Token::NotIn,
            _ => Token::Identifier,
        };
        (token, word, after)
    }

    /// Where a key or value is expected, keywords are plain words.
    fn look(&self) -> (Token, &'a str) {
        let (token, text, _) = self.peek();
        (if matches!(token, Token::In | Token::NotIn) { Token::Identifier } else { token }, text)
    }

    fn take(&mut self) -> (Token, &'a str) {
        let found = self.look();
        self.rest = self.peek().2;
        found
    }

    fn take_operator(&mut self) -> (Token, &'a str) {
        let (token, text, after) = self.peek();
        self.rest = after;
        (token, text)
    }
}

/// The requirements of a selector, in the order written.
pub(super) fn parse(text: &str) -> Result<Vec<Requirement>, Error> {
    let mut lexer = Lexer { rest: text };
    let mut requirements = Vec::new();
    loop {
        match lexer.look() {
            (Token::Identifier | Token::Not, _) => {
                let requirement = requirement(&mut lexer);
                requirements.push(requirement.map_err(|e| Error(format!("unable to parse requirement: {e}")))?);
                match lexer.take() {
                    (Token::End, _) => return Ok(requirements),
                    (Token::Comma, _) => match lexer.look() {
                        (Token::Identifier | Token::Not, _) => {}
                        (_, found) => return expected(found, "identifier after ','"),
                    },
                    (_, found) => return expected(found, "',' or 'end of string'"),
                }
            }
            (Token::End, _) => return Ok(requirements),
            (_, found) => return expected(found, "!, identifier, or 'end of string'"),
        }
    }
}

fn expected<T>(found: &str, what: &str) -> Result<T, Error> {
    Err(Error(format!("found '{found}', expected: {what}")))
}

fn requirement(lexer: &mut Lexer<'_>) -> Result<Requirement, Error> {
    let (mut token, mut key) = lexer.take();
    let negated = token == Token::Not;
    if negated {
        (token, key) = lexer.take();
    }
    if token != Token::Identifier {
        return expected(key, "identifier");
    }
    check_key("<nil>", key)?;
    if negated {
        return Requirement::new(key, Operator::DoesNotExist, Vec::new());
    }
    if matches!(lexer.look().0, Token::End | Token::Comma) {
        return Requirement::new(key, Operator::Exists, Vec::new());
    }
    let operator = match lexer.take_operator() {
        (Token::In, _) => Operator::In,
        (Token::NotIn, _) => Operator::NotIn,
        (Token::Equals | Token::DoubleEquals, _) => Operator::Equals,
        (Token::NotEquals, _) => Operator::NotEquals,
        (Token::Greater, _) => Operator::GreaterThan,
        (Token::Less, _) => Operator::LessThan,
        (_, found) => return expected(found, "in, notin, =, ==, !=, gt, lt"),
    };
    let values = match operator {
        Operator::In | Operator::NotIn => value_set(lexer)?,
        _ => vec![exact_value(lexer)?.to_owned()],
    };
    Requirement::new(key, operator, values)
}

fn exact_value<'a>(lexer: &mut Lexer<'a>) -> Result<&'a str, Error> {
    if matches!(lexer.look().0, Token::End | Token::Comma) {
        return Ok("");
    }
    match lexer.take() {
        (Token::Identifier, value) => Ok(value),
        (_, found) => expected(found, "identifier"),
    }
}

/// `(a,b)`; an empty place between commas is the empty value.
fn value_set(lexer: &mut Lexer<'_>) -> Result<Vec<String>, Error> {
    let (token, found) = lexer.take();
    if token != Token::Open {
        return Err(Error(format!("found '{found}' expected: '('")));
    }
    match lexer.look() {
        (Token::Close, _) => {
            lexer.take();
            return Ok(Vec::new());
        }
        (Token::Identifier | Token::Comma, _) => {}
        (_, found) => return expected(found, "',', ')' or identifier"),
    }
    let mut values = Vec::new();
    loop {
        match lexer.look() {
            (Token::Identifier, value) => {
                lexer.take();
                values.push(value.to_owned());
            }
            (Token::Comma | Token::Close, _) => values.push(String::new()),
            (_, found) => return expected(found, "',', or identifier"),
        }
        match lexer.take() {
            (Token::Comma, _) => {}
            (Token::Close, _) => return Ok(values),
            (_, found) => return expected(found, "',' or ')'"),
        }
    }
}

/// The rules of a requirement that the grammar does not say.
pub(super) fn check(key: &str, operator: Operator, values: &[String]) -> Result<(), Error> {
    check_key("key", key)?;
    let show = || serde_json::to_string(values).unwrap_or_default();
    let wrong = |why: &str| Err(Error(format!("values: Invalid value: {}: {why}", show())));
    match operator {
        Operator::In | Operator::NotIn if values.is_empty() => {
            return wrong("for 'in', 'notin' operators, values set can't be empty");
        }
        Operator::Equals | Operator::NotEquals if values.len() != 1 => {
            return wrong("exact-match compatibility requires one single value");
        }
        Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
            return wrong("values set must be empty for exists and does not exist");
        }
        Operator::GreaterThan | Operator::LessThan if values.len() != 1 => {
            return wrong("for 'Gt', 'Lt' operators, exactly one value is required");
        }
        Operator::GreaterThan | Operator::LessThan => {
            if let Some((i, value)) = values.iter().enumerate().find(|(_, v)| v.parse::<i64>().is_err()) {
                let why = "for 'Gt', 'Lt' operators, the value must be an integer";
                return Err(Error(format!("values[{i}]: Invalid value: {value:?}: {why}")));
            }
        }
        _ => {}
    }
    for (i, value) in values.iter().enumerate() {
        let errors = names::label_value(value);
        if !errors.is_empty() {
            return Err(Error(format!("values[{i}][{key}]: Invalid value: {value:?}: {}", errors.join("; "))));
        }
    }
    Ok(())
}

fn check_key(path: &str, key: &str) -> Result<(), Error> {
    let errors = names::qualified(key);
    if errors.is_empty() {
        return Ok(());
    }
    Err(Error(format!("{path}: Invalid value: {key:?}: {}", errors.join("; "))))
}
