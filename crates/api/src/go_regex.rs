//! Regular expressions as Go's `regexp` reads them, on the `regex` crate, which has the same engine family and guarantees
//! (time linear in the input). What differs is translated: `\d`, `\w`, `\s` and `\b` mean ASCII in Go, `\Q…\E` quotes,
//! octal escapes are known, and character classes have no set operations.

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
    let Some(translated) = translate(pattern) else {
        return Err(format!("error parsing regexp: invalid escape sequence: `{pattern}`"));
    };
    RegexBuilder::new(&translated).size_limit(MAX_COMPILED_BYTES).build().map_err(|e| match e {
        regex::Error::CompiledTooBig(_) => "expression too large".into(),
        // The last line says what; those before it point into the expression.
        e => format!(
            "error parsing regexp: {}: `{pattern}`",
            e.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ")
        ),
    })
}

/// The same pattern for the `regex` crate: there `\d`, `\w`, `\s` and `\b` mean Unicode, classes nest and combine, and some
/// of Go's escapes are unknown.
fn translate(pattern: &str) -> Option<String> {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern.chars().peekable();
    let mut class = false;
    // Just behind `[` or `[^`, where `]` is itself.
    let mut first = false;
    while let Some(c) = rest.next() {
        let was_first = std::mem::take(&mut first);
        match c {
            '\\' => match rest.next()? {
                'd' => out.push_str(if class { "0-9" } else { "[0-9]" }),
                'D' => out.push_str("[^0-9]"),
                'w' => out.push_str(if class { "0-9A-Za-z_" } else { "[0-9A-Za-z_]" }),
                'W' => out.push_str("[^0-9A-Za-z_]"),
                's' => out.push_str(if class { "\\t\\n\\f\\r\\x20" } else { "[\\t\\n\\f\\r\\x20]" }),
                'S' => out.push_str("[^\\t\\n\\f\\r\\x20]"),
                'b' if !class => out.push_str("(?-u:\\b)"),
                'B' if !class => out.push_str("(?-u:\\B)"),
                'Q' if !class => quoted(&mut out, &mut rest),
                'E' if !class => {}
                'C' => return None,
                digit @ '0'..='7' => octal(&mut out, digit, &mut rest)?,
                other if other.is_ascii_alphanumeric() => out.extend(['\\', other]),
                other if other.is_ascii() => out.extend(['\\', other]),
                _ => return None,
            },
            '[' if !class => {
                class = true;
                first = true;
                out.push('[');
                if rest.next_if_eq(&'^').is_some() {
                    out.push('^');
                }
            }
            '[' => {
                if rest.peek() == Some(&':') {
                    out.push('[');
                    for c in rest.by_ref() {
                        out.push(c);
                        if c == ']' {
                            break;
                        }
                    }
                } else {
                    out.push_str("\\[");
                }
            }
            ']' if class && was_first => out.push_str("\\]"),
            ']' if class => {
                class = false;
                out.push(']');
            }
            '&' | '~' if class => out.extend(['\\', c]),
            '-' if class && rest.peek() == Some(&'-') => out.push_str("\\-"),
            // Names of groups may be written either way; the crate knows both.
            _ => out.push(c),
        }
    }
    Some(out)
}

fn quoted(out: &mut String, rest: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    let mut text = String::new();
    while let Some(c) = rest.next() {
        if c == '\\' && rest.next_if_eq(&'E').is_some() {
            break;
        }
        text.push(c);
    }
    out.push_str(&regex::escape(&text));
}

fn octal(out: &mut String, first: char, rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<()> {
    let mut value = first.to_digit(8)?;
    // `\1` alone would be a back-reference, which Go refuses.
    if first != '0' && !rest.peek().is_some_and(|c| c.is_digit(8)) {
        return None;
    }
    for _ in 0..2 {
        let Some(digit) = rest.next_if(|c| c.is_digit(8)) else { break };
        value = value * 8 + digit.to_digit(8)?;
    }
    out.push_str(&format!("\\x{{{value:x}}}"));
    Some(())
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
        check(r"^[[]x[]]$", &["[x]"], &["x"]);
        check(r"^\101\x42$", &["AB"], &["A"]);
        check(r"^[^\w]$", &["é", "-"], &["a"]);
        check(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", &["a-b"], &["-a"]);
    }

    #[test]
    fn what_is_none() {
        assert!(compile("(").unwrap_err().starts_with("error parsing regexp"));
        assert!(compile("(?=a)").is_err());
        assert!(compile(r"(a)\1").is_err());
        assert_eq!(compile("(((a{1000}){1000}){1000})").unwrap_err(), "expression too large");
    }
}
