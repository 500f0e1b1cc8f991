//! Tokens of an expression, with their places.

use crate::error::Issue;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    Ident(String),
    /// Magnitude; the parser applies a sign.
    Int(u64),
    Uint(u64),
    Double(f64),
    String(String),
    Bytes(Vec<u8>),
    /// An operator or bracket, and the words `in`, `true`, `false`, `null`.
    Punct(&'static str),
    End,
}

impl Token {
    /// As messages name it.
    pub(crate) fn text(&self, source: &[char], at: u32, end: u32) -> String {
        match self {
            Self::End => "<EOF>".into(),
            _ => source.get(at as usize..end as usize).unwrap_or_default().iter().collect(),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Spanned {
    pub token: Token,
    pub at: u32,
    pub end: u32,
}

const PUNCTUATION: [&str; 27] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "(", ")", "[", "]", "{", "}", ".", ",", "-", "!", "?", ":", "+", "*",
    "/", "%", "=", "&", "|",
];

const WORDS: [&str; 4] = ["in", "true", "false", "null"];

/// Splits a source into tokens; the last is [`Token::End`].
pub(crate) fn lex(source: &[char]) -> (Vec<Spanned>, Vec<Issue>) {
    let mut lexer = Lexer { source, at: 0, issues: Vec::new() };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blank();
        let at = lexer.at;
        let Some(token) = lexer.next() else { continue };
        let end = token == Token::End;
        tokens.push(Spanned { token, at: at as u32, end: lexer.at as u32 });
        if end || lexer.issues.len() > 20 {
            break;
        }
    }
    if tokens.last().is_none_or(|last| last.token != Token::End) {
        tokens.push(Spanned { token: Token::End, at: lexer.at as u32, end: lexer.at as u32 });
    }
    (tokens, lexer.issues)
}

struct Lexer<'s> {
    source: &'s [char],
    at: usize,
    issues: Vec<Issue>,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.source.get(self.at + ahead).copied()
    }

    fn skip_blank(&mut self) {
        while let Some(c) = self.peek(0) {
            if matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{c}') {
                self.at += 1;
            } else if c == '/' && self.peek(1) == Some('/') {
                while self.peek(0).is_some_and(|c| c != '\n') {
                    self.at += 1;
                }
            } else {
                break;
            }
        }
    }

    /// `None` after a problem that was noted.
    fn next(&mut self) -> Option<Token> {
        let Some(c) = self.peek(0) else { return Some(Token::End) };
        if c.is_ascii_digit() || (c == '.' && self.peek(1).is_some_and(|c| c.is_ascii_digit())) {
            return self.number();
        }
        if let Some(prefix) = self.string_prefix() {
            return self.string(prefix);
        }
        if c.is_ascii_alphabetic() || c == '_' {
            let start = self.at;
            while self.peek(0).is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') {
                self.at += 1;
            }
            let word: String = self.source[start..self.at].iter().collect();
            return Some(match WORDS.iter().find(|known| **known == word) {
                Some(known) => Token::Punct(known),
                None => Token::Ident(word),
            });
        }
        let found = PUNCTUATION.iter().find(|text| text.chars().enumerate().all(|(i, c)| self.peek(i) == Some(c)));
        match found {
            Some(&text) if !matches!(text, "=" | "&" | "|") => {
                self.at += text.len();
                Some(Token::Punct(text))
            }
            _ => {
                let at = self.at;
                self.at += 1;
                let shown = if c == '=' { "= ".to_owned() } else { c.to_string() };
                self.issue(at, format!("Syntax error: token recognition error at: '{shown}'"));
                None
            }
        }
    }

    fn issue(&mut self, at: usize, message: String) {
        self.issues.push(Issue { at: Some(at as u32), message });
    }

    fn number(&mut self) -> Option<Token> {
        let start = self.at;
        let digits = |lexer: &mut Self| {
            while lexer.peek(0).is_some_and(|c| c.is_ascii_digit()) {
                lexer.at += 1;
            }
        };
        if self.peek(0) == Some('0') && matches!(self.peek(1), Some('x')) {
            self.at += 2;
            let from = self.at;
            while self.peek(0).is_some_and(|c| c.is_ascii_hexdigit()) {
                self.at += 1;
            }
            let text: String = self.source[from..self.at].iter().collect();
            return self.integer(start, u64::from_str_radix(&text, 16).ok());
        }
        digits(self);
        let mut float = false;
        if self.peek(0) == Some('.') && self.peek(1).is_some_and(|c| c.is_ascii_digit()) {
            float = true;
            self.at += 1;
            digits(self);
        }
        if matches!(self.peek(0), Some('e' | 'E')) {
            let sign = usize::from(matches!(self.peek(1), Some('+' | '-')));
            if self.peek(1 + sign).is_some_and(|c| c.is_ascii_digit()) {
                float = true;
                self.at += 1 + sign;
                digits(self);
            }
        }
        let text: String = self.source[start..self.at].iter().collect();
        if float {
            return match text.parse::<f64>() {
                Ok(value) if value.is_finite() => Some(Token::Double(value)),
                _ => {
                    self.issue(start, "invalid double literal".into());
                    Some(Token::Double(0.0))
                }
            };
        }
        self.integer(start, text.parse().ok())
    }

    fn integer(&mut self, start: usize, value: Option<u64>) -> Option<Token> {
        let unsigned = matches!(self.peek(0), Some('u' | 'U'));
        if unsigned {
            self.at += 1;
        }
        // One more than the largest int is fine behind a minus, which the parser sees to.
        let fits = value.filter(|value| unsigned || *value <= 1 << 63);
        if fits.is_none() {
            self.issue(start, if unsigned { "invalid uint literal" } else { "invalid int literal" }.into());
        }
        let value = fits.unwrap_or_default();
        Some(if unsigned { Token::Uint(value) } else { Token::Int(value) })
    }

    fn string_prefix(&self) -> Option<Prefix> {
        let (mut raw, mut bytes) = (false, false);
        for length in 0..3 {
            match self.peek(length)? {
                '"' | '\'' => return Some(Prefix { length, raw, bytes }),
                'r' | 'R' if !raw => raw = true,
                'b' | 'B' if !bytes && !raw => bytes = true,
                _ => return None,
            }
        }
        None
    }

    fn string(&mut self, prefix: Prefix) -> Option<Token> {
        let start = self.at;
        self.at += prefix.length;
        let quote = self.peek(0)?;
        let long = self.peek(1) == Some(quote) && self.peek(2) == Some(quote);
        self.at += if long { 3 } else { 1 };
        let (mut text, mut bytes) = (String::new(), Vec::new());
        loop {
            let Some(c) = self.peek(0) else { return self.unterminated(start) };
            if c == quote && (!long || (self.peek(1) == Some(quote) && self.peek(2) == Some(quote))) {
                self.at += if long { 3 } else { 1 };
                break;
            }
            if !long && matches!(c, '\n' | '\r') {
                return self.unterminated(start);
            }
            let at = self.at;
            self.at += 1;
            let escaped = if c == '\\' && !prefix.raw {
                match self.escape(prefix.bytes) {
                    Some(escaped) => escaped,
                    None => {
                        let shown: String = self.source[start..self.at.min(self.source.len())].iter().collect();
                        self.issue(at, format!("Syntax error: token recognition error at: '{shown}'"));
                        return None;
                    }
                }
            } else {
                Escaped::Char(c)
            };
            match escaped {
                Escaped::Char(c) if prefix.bytes => {
                    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                }
                Escaped::Char(c) => text.push(c),
                Escaped::Byte(byte) => bytes.push(byte),
            }
        }
        Some(if prefix.bytes { Token::Bytes(bytes) } else { Token::String(text) })
    }

    fn unterminated(&mut self, start: usize) -> Option<Token> {
        let rest: String = self.source[start..].iter().take(60).collect();
        self.issue(start, format!("Syntax error: token recognition error at: '{rest}'"));
        self.at = self.source.len();
        None
    }

    /// Behind a backslash.
    fn escape(&mut self, bytes: bool) -> Option<Escaped> {
        let c = self.peek(0)?;
        self.at += 1;
        let simple = match c {
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            '\\' | '?' | '"' | '\'' | '`' => c,
            'x' | 'X' => return self.code(2, 16, bytes),
            'u' if !bytes => return self.code(4, 16, false),
            'U' if !bytes => return self.code(8, 16, false),
            '0'..='3' => {
                self.at -= 1;
                return self.code(3, 8, bytes);
            }
            _ => return None,
        };
        Some(Escaped::Char(simple))
    }

    fn code(&mut self, digits: usize, radix: u32, byte: bool) -> Option<Escaped> {
        let mut value = 0u32;
        for _ in 0..digits {
            value = value.checked_mul(radix)?.checked_add(self.peek(0)?.to_digit(radix)?)?;
            self.at += 1;
        }
        if byte { u8::try_from(value).ok().map(Escaped::Byte) } else { char::from_u32(value).map(Escaped::Char) }
    }
}

struct Prefix {
    length: usize,
    raw: bool,
    bytes: bool,
}

enum Escaped {
    Char(char),
    Byte(u8),
}
