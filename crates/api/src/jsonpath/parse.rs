//! The grammar.

use serde_json::Value;

use super::{Error, Filter, MAX_BYTES, MAX_DEPTH, Op, Operand, Step};

pub(super) fn path(text: &str) -> Result<Vec<Step>, Error> {
    if text.len() > MAX_BYTES {
        return Err(Error::Syntax(format!("a path may have {MAX_BYTES} bytes")));
    }
    let mut parser = Parser { rest: text.trim() };
    parser.eat("$");
    let steps = parser.steps(0)?;
    if !parser.rest.is_empty() {
        return Err(Error::Syntax(format!("unexpected {:?}", first_char(parser.rest))));
    }
    Ok(steps)
}

struct Parser<'a> {
    rest: &'a str,
}

fn first_char(text: &str) -> char {
    text.chars().next().unwrap_or_default()
}

fn ends_name(c: char) -> bool {
    c.is_whitespace() || matches!(c, '.' | ',' | '[' | ']' | '$' | '@' | '{' | '}' | '(' | ')' | '=' | '!' | '<' | '>')
}

impl<'a> Parser<'a> {
    fn eat(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn steps(&mut self, depth: usize) -> Result<Vec<Step>, Error> {
        let mut steps = Vec::new();
        loop {
            if self.eat("..") {
                steps.push(Step::Recursive);
                // `..[0]` goes on with the bracket.
                if !self.rest.starts_with('[') {
                    steps.push(self.name()?);
                }
            } else if self.eat(".") {
                // `.` alone is the value itself, and `.[0]` is `[0]`.
                if !(self.rest.is_empty() || self.rest.starts_with('[')) {
                    steps.push(self.name()?);
                }
            } else if self.eat("[") {
                steps.push(self.bracket(depth)?);
            } else if steps.is_empty() && !self.rest.is_empty() && !ends_name(first_char(self.rest)) {
                steps.push(self.name()?);
            } else {
                return Ok(steps);
            }
        }
    }

    /// A field's name, in which `\` makes the next character an ordinary one.
    fn name(&mut self) -> Result<Step, Error> {
        let mut name = String::new();
        let mut chars = self.rest.char_indices();
        let mut end = self.rest.len();
        while let Some((at, c)) = chars.next() {
            if c == '\\' {
                name.extend(chars.next().map(|(_, c)| c));
            } else if ends_name(c) {
                end = at;
                break;
            } else {
                name.push(c);
            }
        }
        self.rest = self.rest.get(end..).unwrap_or_default();
        match name.as_str() {
            "" => Err(Error::Syntax("a field has no name".into())),
            "*" => Ok(Step::Wildcard),
            _ => Ok(Step::Field(name)),
        }
    }

    /// What follows `[`, its `]` included.
    fn bracket(&mut self, depth: usize) -> Result<Step, Error> {
        if depth >= MAX_DEPTH {
            return Err(Error::Syntax(format!("more than {MAX_DEPTH} levels of brackets")));
        }
        self.space();
        if self.eat("?(") {
            let filter = self.filter(depth + 1)?;
            self.space();
            if !(self.eat(")") && self.eat("]")) {
                return Err(Error::Syntax("unterminated filter".into()));
            }
            return Ok(Step::Filter(Box::new(filter)));
        }
        let mut parts = Vec::new();
        loop {
            self.space();
            parts.push(self.element()?);
            self.space();
            if self.eat("]") {
                break;
            }
            if !self.eat(",") {
                return Err(Error::Syntax("unterminated array".into()));
            }
        }
        if parts.len() == 1
            && let Some(only) = parts.pop()
        {
            return Ok(only);
        }
        Ok(Step::Union(parts.into_iter().map(|step| vec![step]).collect()))
    }

    /// `'name'`, `"name"`, `*`, `1`, `1:2:3`
    fn element(&mut self) -> Result<Step, Error> {
        if let Some(text) = self.quoted()? {
            return Ok(Step::Field(text));
        }
        if self.eat("*") {
            return Ok(Step::Wildcard);
        }
        let end = self.rest.find([',', ']']).ok_or_else(|| Error::Syntax("unterminated array".into()))?;
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        let text = text.trim();
        let bad = || Error::Syntax(format!("invalid array index {text}"));
        let number = |part: &str| match part.trim() {
            "" => Ok(None),
            digits => digits.parse::<i64>().map(Some).map_err(|_| bad()),
        };
        let mut parts = text.splitn(3, ':');
        let first = number(parts.next().unwrap_or_default())?;
        let Some(second) = parts.next() else { return first.map(Step::Index).ok_or_else(bad) };
        let every = match parts.next().map(number).transpose()?.flatten() {
            None => 1,
            Some(every) => usize::try_from(every)
                .ok()
                .filter(|n| *n > 0)
                .ok_or_else(|| Error::Syntax("step must be > 0".into()))?,
        };
        Ok(Step::Slice(first, number(second)?, every))
    }

    fn quoted(&mut self) -> Result<Option<String>, Error> {
        let quote = match first_char(self.rest) {
            c @ ('\'' | '"') => c,
            _ => return Ok(None),
        };
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            if c == '\\' {
                text.extend(chars.next().map(|(_, c)| c));
            } else if c == quote {
                self.rest = self.rest.get(at + 1..).unwrap_or_default();
                return Ok(Some(text));
            } else {
                text.push(c);
            }
        }
        Err(Error::Syntax("unterminated quoted string".into()))
    }

    fn filter(&mut self, depth: usize) -> Result<Filter, Error> {
        let left = self.operand(depth)?;
        self.space();
        const OPS: [(&str, Op); 6] = [
            ("==", Op::Equal),
            ("!=", Op::NotEqual),
            ("<=", Op::LessOrEqual),
            (">=", Op::GreaterOrEqual),
            ("<", Op::Less),
            (">", Op::Greater),
        ];
        let Some((_, op)) = OPS.into_iter().find(|(text, _)| self.eat(text)) else {
            return Ok(Filter { left, test: None });
        };
        Ok(Filter { left, test: Some((op, self.operand(depth)?)) })
    }

    fn operand(&mut self, depth: usize) -> Result<Operand, Error> {
        self.space();
        if let Some(text) = self.quoted()? {
            return Ok(Operand::Literal(text.into()));
        }
        if self.eat("@") {
            return Ok(Operand::Path(self.steps(depth)?, false));
        }
        if self.eat("$") {
            return Ok(Operand::Path(self.steps(depth)?, true));
        }
        if matches!(first_char(self.rest), '.' | '[') {
            return Ok(Operand::Path(self.steps(depth)?, false));
        }
        let ends = |c: char| c.is_whitespace() || matches!(c, ')' | '=' | '!' | '<' | '>');
        let end = self.rest.find(ends).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        match serde_json::from_str::<Value>(word) {
            Ok(literal @ (Value::Bool(_) | Value::Number(_))) => Ok(Operand::Literal(literal)),
            _ => Err(Error::Syntax(format!("unrecognized {word:?} in a filter"))),
        }
    }
}
