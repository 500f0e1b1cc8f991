//! The table of built-in types, parsed one type at a time.

use std::collections::HashMap;
use std::sync::{LazyLock, OnceLock};

use super::{Field, Instead, Link, ListType, Merge, Schema, Str, Type};

/// Each type is a line with its name (below `io.k8s.`) and flags, then a line per field: tag, JSON name, type, flags.
/// Types are primitives or names, those without a dot in the same package; `list T`, `map T` and `<T>` (a message that
/// holds a list) nest, as do `or-bool T`, `or-list T` and `or-strings T`. Flags: `!` required, `*` pointer, `0` dropped
/// when empty, `inline`; `merge[=key]`, `replace`, `retainKeys` for strategic merge patch; `keys=a,b=default`, `set`,
/// `atomic` for server-side apply.
const TABLE: &str = include_str!("types.txt");

const PREFIX: &str = "io.k8s.";

/// A built-in type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id(u16);

struct Entry {
    /// Below `io.k8s.`
    name: &'static str,
    flags: &'static str,
    body: &'static str,
    schema: OnceLock<Schema>,
}

struct Index {
    entries: Vec<Entry>,
    by_name: HashMap<&'static str, Id>,
}

static INDEX: LazyLock<Index> = LazyLock::new(|| {
    let mut entries = Vec::new();
    let mut rest = TABLE;
    while let Some((head, after)) = rest.split_once('\n') {
        let mut length = 0;
        for line in after.split_inclusive('\n').take_while(|line| line.starts_with(' ')) {
            length += line.len();
        }
        let (body, next) = after.split_at(length);
        let (name, flags) = head.split_once(' ').unwrap_or((head, ""));
        entries.push(Entry { name, flags, body, schema: OnceLock::new() });
        rest = next;
    }
    let by_name = entries.iter().zip(0..).map(|(entry, i)| (entry.name, Id(i))).collect();
    Index { entries, by_name }
});

/// A built-in type by its full name: `io.k8s.api.core.v1.Pod`.
pub fn builtin(name: &str) -> Option<&'static Schema> {
    Some(INDEX.by_name.get(name.strip_prefix(PREFIX)?)?.get())
}

/// A way to a built-in type, for schemas that refer to it.
pub fn link(name: &str) -> Option<Link> {
    INDEX.by_name.get(name.strip_prefix(PREFIX)?).copied().map(Link::BuiltIn)
}

/// The full names of all built-in types.
pub fn names() -> impl Iterator<Item = String> {
    INDEX.entries.iter().map(|entry| format!("{PREFIX}{}", entry.name))
}

impl Id {
    pub(super) fn get(self) -> &'static Schema {
        let entry = &INDEX.entries[usize::from(self.0)];
        entry.schema.get_or_init(|| parse(entry))
    }
}

fn parse(entry: &'static Entry) -> Schema {
    let package = entry.name.rsplit_once('.').map_or("", |(package, _)| package);
    let mut schema = Schema { name: format!("{PREFIX}{}", entry.name).into(), ..Schema::default() };
    for flag in entry.flags.split(' ') {
        match flag {
            "atomic" => schema.atomic = true,
            "root" => {
                schema.fields.push(Field::plain("apiVersion".into()));
                schema.fields.push(Field::plain("kind".into()));
            }
            _ => {}
        }
    }
    for line in entry.body.lines() {
        let mut words = line.split_ascii_whitespace();
        let tag = words.next().and_then(|tag| tag.parse().ok()).expect("types.txt: a field starts with its tag");
        let name = words.next().expect("types.txt: a field has a name");
        let ty = parse_type(package, &mut words);
        let mut field = Field { tag, ty, ..Field::plain(name.into()) };
        let mut inline = false;
        for flag in words {
            match flag {
                "!" => field.required = true,
                "*" => field.pointer = true,
                "0" => field.drop_empty = true,
                "inline" => inline = true,
                flag => merge_flag(field.merge.get_or_insert_default(), flag),
            }
        }
        if inline { schema.inline.push(field) } else { schema.fields.push(field) }
    }
    schema.fields.sort_by(|a, b| a.name.cmp(&b.name));
    schema.fields.shrink_to_fit();
    schema
}

fn parse_type(package: &str, words: &mut std::str::SplitAsciiWhitespace<'static>) -> Type {
    match words.next().expect("types.txt: a field has a type") {
        "bool" => Type::Bool,
        "int32" => Type::Int32,
        "int64" => Type::Int64,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "quantity" => Type::Quantity,
        "time" => Type::Time,
        "microtime" => Type::MicroTime,
        "duration" => Type::Duration,
        "intorstr" => Type::IntOrString,
        "raw" => Type::Any,
        "fields" => Type::Fields,
        "list" => Type::List(Box::new(parse_type(package, words))),
        "map" => Type::Map(Box::new(parse_type(package, words))),
        "or-bool" => Type::Or(Box::new(parse_type(package, words)), Instead::Bool),
        "or-list" => Type::Or(Box::new(parse_type(package, words)), Instead::List),
        "or-strings" => Type::Or(Box::new(parse_type(package, words)), Instead::Strings),
        "<string>" => Type::Wrapped(Box::new(Type::List(Box::new(Type::String)))),
        name => {
            let local = format!("{package}.{name}");
            let full = if name.contains('.') { name } else { &local };
            Type::Struct(Link::BuiltIn(*INDEX.by_name.get(full).expect("types.txt: a type refers to one in it")))
        }
    }
}

fn merge_flag(merge: &mut Merge, flag: &'static str) {
    match flag.split_once('=').unwrap_or((flag, "")) {
        ("merge", key) => {
            merge.patch_merge = true;
            merge.patch_key = key.into();
        }
        ("replace", _) => merge.patch_replace = true,
        ("retainKeys", _) => merge.retain_keys = true,
        ("set", _) => merge.list_type = ListType::Set,
        ("atomic", _) => merge.list_type = ListType::Atomic,
        ("keys", keys) => {
            merge.list_type = ListType::Map;
            for key in keys.split(',') {
                let (key, default) = key.split_once('=').map_or((key, None), |(key, default)| (key, Some(default)));
                merge.list_map_keys.push(Str::Borrowed(key));
                merge.key_defaults.extend(default.map(|default| (Str::Borrowed(key), default.into())));
            }
        }
        (other, _) => panic!("types.txt: no flag is called {other}"),
    }
}
