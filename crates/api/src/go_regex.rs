//! Regular expressions as Go's `regexp` reads them, on the `regex` crate, which has the same engine family and guarantees
//! (time linear in the input). What differs is translated: `\d`, `\w`, `\s` and `\b` mean ASCII in Go, `\Q…\E` quotes,
//! and character classes have no set operations.

use regex::{Regex, RegexBuilder};

/// Memory that one compiled expression may take.
const MAX_COMPILED_BYTES: usize = 1 << 20;
/// Longest expression.
const MAX_BYTES: usize = 16 << 10;

/// Compiles a Go expression. The error says what is wrong with it.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > MAX_BYTES {
        return Err(format!("expression is longer than {MAX_BYTES} bytes"));
    }
    let translated = translate(pattern);
    RegexBuilder::new(&translated).size_limit(MAX_COMPILED_BYTES).build().map_err(|e| match e {
        regex::Error::CompiledTooBig(_) => "expression too large".into(),
        // The last line says what; those before it point into the expression.
        e => format!(
            "error parsing regexp: {}: `{pattern}`",
            e.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ")
        ),
    })
}

fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut chars = pattern.chars().peekable();
    let mut in_class = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('d') => out.push_str("[0-9]"),
                Some('D') => out.push_str("[^0-9]"),
                Some('w') => out.push_str("[0-9A-Za-z_]"),
                Some('W') => out.push_str("[^0-9A-Za-z_]"),
                Some('s') => out.push_str("[\\t\\n\\f\\r ]"),
                Some('S') => out.push_str("[^\\t\\n\\f\\r ]"),
                Some('b') if !in_class => out.push_str("(?-u:\\b)"),
                Some('B') if !in_class => out.push_str("(?-u:\\B)"),
                Some('Q') if !in_class => quote(&mut chars, &mut out),
                Some(escaped) => out.extend(['\\', escaped]),
                None => out.push('\\'),
            },
            '[' if !in_class => {
                in_class = true;
                out.push('[');
                if chars.next_if_eq(&'^').is_some() {
                    out.push('^');
                }
                if chars.next_if_eq(&']').is_some() {
                    out.push_str("\\]");
                }
            }
            '[' if chars.peek() == Some(&':') => out.push('['),
            '[' => out.push_str("\\["),
            // The end of `[:alpha:]` ends the class too early for us to know, but not for the reader of the result.
            ']' if in_class => {
                out.push(']');
                in_class = out.ends_with(":]");
            }
            '&' | '~' if in_class => out.extend(['\\', c]),
            '-' if in_class && out.ends_with('-') => out.push_str("\\-"),
            c => out.push(c),
        }
    }
    out
}

/// Copies up to `\E` as plain characters.
fn quote(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, out: &mut String) {
    let mut text = String::new();
    while let Some(c) = chars.next() {
        if c == '\\' && chars.next_if_eq(&'E').is_some() {
            break;
        }
        text.push(c);
    }
    out.push_str(&regex::escape(&text));
}

#[cfg(test)]
mod tests {
    use super::compile;

    #[track_caller]
    fn check(pattern: &str, yes: &[&str], no: &[&str]) {
        let regex = compile(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}"));
        for text in yes {
            assert!(regex.is_match(text), "{pattern} should match {text}");
        }
        for text in no {
            assert!(!regex.is_match(text), "{pattern} should not match {text}");
        }
    }

    #[test]
    fn as_go_reads_them() {
        check(r"^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$", &["* * * * */5"], &["x", "* * *"]);
        check(r"^\d$", &["1"], &["٣"]);
        check(r"^[\d.]+$", &["1.2"], &["a"]);
        check(r"^[^\d]$", &["a"], &["1"]);
        check(r"^[[a]$", &["[", "a"], &["b"]);
        check(r"^[]a]$", &["]", "a"], &["b"]);
        check(r"^[[:alpha:]0]+$", &["ab0"], &["1"]);
        check(r"^[a&&b]$", &["a", "&", "b"], &["c"]);
        check(r"^\Qa.b\E$", &["a.b"], &["axb"]);
        check(r"\bfoo\b", &["a foo b"], &["afoo"]);
        check(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", &["a-b"], &["-a"]);
    }

    #[test]
    fn what_is_none() {
        assert!(compile("(").unwrap_err().starts_with("error parsing regexp"));
        assert!(compile("(?=a)").is_err());
        assert_eq!(compile("(((a{1000}){1000}){1000})").unwrap_err(), "expression too large");
    }
}
