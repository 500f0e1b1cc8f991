//! `fieldPath` of a rule: `.a.b['c']`, for which schemas say whether a name is a field or the key of a map.

use serde_json::Value as Json;

use super::values_schema;

/// The path as errors show it; `None` when it leads nowhere.
pub(super) fn normalize(text: &str, schema: &Json) -> Option<String> {
    let (mut out, mut rest, mut schema) = (String::new(), text, schema);
    while !rest.is_empty() {
        let name: String;
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[', ']']).unwrap_or(after.len());
            name = after.get(..end)?.to_owned();
            rest = &after[end..];
        } else {
            let after = rest.strip_prefix("['")?;
            let (quoted, used) = unquote(after)?;
            name = quoted;
            rest = after.get(used..)?.strip_prefix(']')?;
        }
        if let Some(properties) = schema.get("properties").and_then(Json::as_object) {
            schema = properties.get(&name)?;
            if !out.is_empty() {
                out.push('.');
            }
            out.push_str(&name);
        } else {
            schema = values_schema(schema)?;
            out.push_str(&format!("[{name}]"));
        }
    }
    Some(out)
}

/// Up to the closing quote: the text and how many bytes it took.
fn unquote(text: &str) -> Option<(String, usize)> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\'' => return Some((out, at + 1)),
            '\\' => out.push(match chars.next()?.1 {
                'a' => '\u{7}',
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'v' => '\u{b}',
                c @ ('\'' | '\\') => c,
                _ => return None,
            }),
            c => out.push(c),
        }
    }
    None
}
