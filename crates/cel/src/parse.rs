//! From tokens to an [`Ast`], by precedence climbing; macros are expanded on the way.

mod macros;

use keelson_api::validation::names::RESERVED_IN_EXPRESSIONS;

use crate::ast::{Ast, Id, Kind, Literal, Node};
use crate::error::{Issue, Issues};
use crate::lex::{Spanned, Token, lex};
use crate::limits;

pub(crate) struct Parser {
    source: Vec<char>,
    tokens: Vec<Spanned>,
    next: usize,
    depth: usize,
    issues: Vec<Issue>,
    ast: Ast,
    bindings: bool,
}

/// The parser gives up; why is noted.
pub(super) struct Stop;

type Parsed<T = Id> = Result<T, Stop>;

/// Parses a whole expression. `bindings` allows `cel.bind`.
pub(crate) fn parse(text: &str, bindings: bool) -> Result<Ast, Issues> {
    if text.len() > limits::EXPRESSION_CHARS {
        let size = text.chars().count();
        if size > limits::EXPRESSION_CHARS {
            let message =
                format!("expression code point size exceeds limit: size: {size}, limit {}", limits::EXPRESSION_CHARS);
            return Err(Issues::new("", vec![Issue { at: None, message }]));
        }
    }
    let source: Vec<char> = text.chars().collect();
    let (tokens, issues) = lex(&source);
    let mut parser = Parser { source, tokens, next: 0, depth: 0, issues, ast: Ast::default(), bindings };
    let root = parser.expression();
    if let Ok(root) = root {
        parser.ast.root = root;
        if parser.peek() != &Token::End {
            let shown = parser.shown();
            parser.issue(parser.at(), format!("Syntax error: extraneous input '{shown}' expecting <EOF>"));
        }
    }
    if parser.issues.is_empty() { Ok(parser.ast) } else { Err(Issues::new(text, parser.issues)) }
}

/// Binds tighter the higher; 0 is no binary operator.
fn binary(token: &Token) -> Option<(u8, &'static str)> {
    let Token::Punct(text) = token else { return None };
    Some(match *text {
        "<" => (1, "_<_"),
        "<=" => (1, "_<=_"),
        ">" => (1, "_>_"),
        ">=" => (1, "_>=_"),
        "==" => (1, "_==_"),
        "!=" => (1, "_!=_"),
        "in" => (1, "@in"),
        "+" => (2, "_+_"),
        "-" => (2, "_-_"),
        "*" => (3, "_*_"),
        "/" => (3, "_/_"),
        "%" => (3, "_%_"),
        _ => return None,
    })
}

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.next).map_or(&Token::End, |spanned| &spanned.token)
    }

    fn at(&self) -> u32 {
        self.tokens.get(self.next).or(self.tokens.last()).map_or(0, |spanned| spanned.at)
    }

    fn shown(&self) -> String {
        self.tokens
            .get(self.next)
            .map_or_else(|| "<EOF>".into(), |spanned| spanned.token.text(&self.source, spanned.at, spanned.end))
    }

    fn is(&self, text: &str) -> bool {
        matches!(self.peek(), Token::Punct(found) if *found == text)
    }

    fn eat(&mut self, text: &str) -> bool {
        let found = self.is(text);
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, text: &str) -> Parsed<()> {
        if self.eat(text) {
            return Ok(());
        }
        let shown = self.shown();
        self.stop(format!("Syntax error: mismatched input '{shown}' expecting '{text}'"))
    }

    fn issue(&mut self, at: u32, message: String) {
        if self.issues.len() < limits::ISSUES {
            self.issues.push(Issue { at: Some(at), message });
        }
    }

    fn stop<T>(&mut self, message: String) -> Parsed<T> {
        let at = self.at();
        // What the lexer could not read explains what follows.
        if self.issues.is_empty() {
            self.issue(at, message);
        }
        Err(Stop)
    }

    fn add(&mut self, kind: Kind, at: u32) -> Parsed {
        let mut depth = 0;
        kind.children(|child| depth = depth.max(self.ast.nodes[child].depth));
        if usize::from(depth) >= limits::TREE_DEPTH {
            self.issue(at, format!("expression recursion limit exceeded: {}", limits::TREE_DEPTH));
            return Err(Stop);
        }
        self.ast.nodes.push(Node { kind, at, depth: depth + 1 });
        Ok(self.ast.nodes.len() - 1)
    }

    fn call(&mut self, function: &str, args: Vec<Id>, at: u32) -> Parsed {
        self.add(Kind::Call { function: function.into(), target: None, args }, at)
    }

    fn literal(&mut self, literal: Literal, at: u32) -> Parsed {
        self.add(Kind::Literal(literal), at)
    }

    fn expression(&mut self) -> Parsed {
        self.depth += 1;
        if self.depth > limits::NESTING {
            let at = self.at();
            self.issue(at, format!("expression recursion limit exceeded: {}", limits::NESTING));
            return Err(Stop);
        }
        let mut expr = self.logical("||", "_||_")?;
        if self.is("?") {
            let at = self.at();
            self.next += 1;
            let yes = self.logical("||", "_||_")?;
            self.expect(":")?;
            let no = self.expression()?;
            expr = self.call("_?_:_", vec![expr, yes, no], at)?;
        }
        self.depth -= 1;
        Ok(expr)
    }

    /// A chain of one logical operator, as a balanced tree.
    fn logical(&mut self, symbol: &'static str, function: &'static str) -> Parsed {
        let one = |parser: &mut Self| if symbol == "||" { parser.logical("&&", "_&&_") } else { parser.binary(1) };
        let mut terms = vec![one(self)?];
        let mut places = Vec::new();
        while self.is(symbol) {
            places.push(self.at());
            self.next += 1;
            terms.push(one(self)?);
        }
        self.balance(function, &terms, &places)
    }

    fn balance(&mut self, function: &str, terms: &[Id], places: &[u32]) -> Parsed {
        if let [only] = terms {
            return Ok(*only);
        }
        let middle = terms.len().div_ceil(2);
        let left = self.balance(function, &terms[..middle], &places[..middle - 1])?;
        let right = self.balance(function, &terms[middle..], &places[middle..])?;
        self.call(function, vec![left, right], places[middle - 1])
    }

    fn binary(&mut self, level: u8) -> Parsed {
        let mut left = if level == 3 { self.unary()? } else { self.binary(level + 1)? };
        while let Some((found, function)) = binary(self.peek()) {
            if found != level {
                break;
            }
            let at = self.at();
            self.next += 1;
            let right = if level == 3 { self.unary()? } else { self.binary(level + 1)? };
            left = self.call(function, vec![left, right], at)?;
        }
        Ok(left)
    }

    fn unary(&mut self) -> Parsed {
        let at = self.at();
        let symbol = if self.is("!") {
            "!"
        } else if self.is("-") {
            "-"
        } else {
            return self.member();
        };
        let mut count = 0;
        while self.is(symbol) {
            // The last minus belongs to a literal that follows it.
            let literal = symbol == "-"
                && matches!(
                    self.tokens.get(self.next + 1).map(|spanned| &spanned.token),
                    Some(Token::Int(_) | Token::Double(_))
                );
            if literal {
                break;
            }
            self.next += 1;
            count += 1;
        }
        let operand = self.member()?;
        if count % 2 == 0 {
            return Ok(operand);
        }
        self.call(if symbol == "!" { "!_" } else { "-_" }, vec![operand], at)
    }

    fn member(&mut self) -> Parsed {
        let mut expr = self.primary()?;
        loop {
            let at = self.at();
            if self.eat(".") {
                let optional = self.eat("?");
                let Token::Ident(name) = self.peek().clone() else {
                    let shown = self.shown();
                    return self.stop(format!("Syntax error: no viable alternative at input '.{shown}'"));
                };
                self.next += 1;
                let open = self.at();
                if !optional && self.eat("(") {
                    let args = self.arguments(")")?;
                    expr = self.member_call(expr, name, args, open)?;
                } else if !optional && self.is("{") && self.ast.qualified_name(expr).is_some() && self.struct_follows()
                {
                    let qualified = format!("{}.{name}", self.ast.qualified_name(expr).unwrap_or_default());
                    expr = self.structure(qualified)?;
                } else {
                    expr = self.add(Kind::Select { operand: expr, field: name, test: false, optional }, at)?;
                }
            } else if self.eat("[") {
                let optional = self.eat("?");
                let index = self.expression()?;
                self.expect("]")?;
                expr = self.call(if optional { "_[?_]" } else { "_[_]" }, vec![expr, index], at)?;
            } else {
                return Ok(expr);
            }
        }
    }

    /// Whether `{` starts the fields of a message: `name:` or `}` follows.
    fn struct_follows(&self) -> bool {
        let token = |ahead: usize| self.tokens.get(self.next + ahead).map(|spanned| &spanned.token);
        match token(1) {
            Some(Token::Punct("}")) => true,
            Some(Token::Punct("?")) => true,
            Some(Token::Ident(_)) => matches!(token(2), Some(Token::Punct(":"))),
            _ => false,
        }
    }

    /// Up to and with the closing bracket.
    fn arguments(&mut self, close: &'static str) -> Parsed<Vec<Id>> {
        let mut args = Vec::new();
        if self.eat(close) {
            return Ok(args);
        }
        loop {
            args.push(self.expression()?);
            if self.eat(close) {
                return Ok(args);
            }
            if !self.eat(",") {
                let shown = self.shown();
                return self.stop(format!("Syntax error: mismatched input '{shown}' expecting '{close}'"));
            }
        }
    }

    fn primary(&mut self) -> Parsed {
        let at = self.at();
        let token = self.peek().clone();
        self.next += 1;
        match token {
            Token::Int(magnitude) => match i64::try_from(magnitude) {
                Ok(value) => self.literal(Literal::Int(value), at),
                Err(_) => {
                    self.issue(at, "invalid int literal".into());
                    Err(Stop)
                }
            },
            Token::Uint(value) => self.literal(Literal::Uint(value), at),
            Token::Double(value) => self.literal(Literal::Double(value), at),
            Token::String(text) => self.literal(Literal::String(text), at),
            Token::Bytes(bytes) => self.literal(Literal::Bytes(bytes), at),
            Token::Punct("true") => self.literal(Literal::Bool(true), at),
            Token::Punct("false") => self.literal(Literal::Bool(false), at),
            Token::Punct("null") => self.literal(Literal::Null, at),
            Token::Punct("-") => {
                let literal = match self.peek() {
                    Token::Int(magnitude) => Literal::Int((*magnitude as i64).wrapping_neg()),
                    Token::Double(value) => Literal::Double(-value),
                    _ => {
                        self.next -= 1;
                        return self.unexpected();
                    }
                };
                self.next += 1;
                self.literal(literal, at)
            }
            Token::Punct("(") => {
                let expr = self.expression()?;
                self.expect(")")?;
                Ok(expr)
            }
            Token::Punct("[") => self.list(at),
            Token::Punct("{") => self.map(at),
            Token::Punct(".") => match self.peek().clone() {
                // A leading dot names the root container, which is the only one.
                Token::Ident(name) => {
                    self.next += 1;
                    self.name(name, at)
                }
                _ => self.unexpected(),
            },
            Token::Ident(name) => self.name(name, at),
            Token::Punct(_) | Token::End => {
                self.next -= 1;
                self.unexpected()
            }
        }
    }

    fn unexpected(&mut self) -> Parsed {
        let shown = self.shown();
        self.stop(format!(
            "Syntax error: mismatched input '{shown}' expecting {{'[', '{{', '(', '.', '-', '!', 'true', 'false', \
             'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}}"
        ))
    }

    fn name(&mut self, name: String, at: u32) -> Parsed {
        if RESERVED_IN_EXPRESSIONS.contains(&name.as_str()) {
            self.issue(at, format!("reserved identifier: {name}"));
            return Err(Stop);
        }
        let open = self.at();
        if self.eat("(") {
            let args = self.arguments(")")?;
            return self.global_call(name, args, open);
        }
        if self.is("{") && self.struct_follows() {
            return self.structure(name);
        }
        self.add(Kind::Ident(name), at)
    }

    fn list(&mut self, at: u32) -> Parsed {
        let mut items = Vec::new();
        while !self.eat("]") {
            let optional = self.eat("?");
            items.push((self.expression()?, optional));
            if !self.eat(",") {
                self.expect("]")?;
                break;
            }
        }
        self.add(Kind::List(items), at)
    }

    fn map(&mut self, at: u32) -> Parsed {
        let mut entries = Vec::new();
        while !self.eat("}") {
            let optional = self.eat("?");
            let key = self.expression()?;
            self.expect(":")?;
            entries.push((key, self.expression()?, optional));
            if !self.eat(",") {
                self.expect("}")?;
                break;
            }
        }
        self.add(Kind::Map(entries), at)
    }

    fn structure(&mut self, name: String) -> Parsed {
        let at = self.at();
        self.expect("{")?;
        let mut fields = Vec::new();
        while !self.eat("}") {
            let optional = self.eat("?");
            let Token::Ident(field) = self.peek().clone() else { return self.unexpected() };
            self.next += 1;
            self.expect(":")?;
            fields.push((field, self.expression()?, optional));
            if !self.eat(",") {
                self.expect("}")?;
                break;
            }
        }
        self.add(Kind::Struct { name, fields }, at)
    }
}
