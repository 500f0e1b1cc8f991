//! The functions and operators that expressions know: a table of names and signatures (`functions.txt`), and for each
//! name the code that runs it.

use std::collections::HashMap;
use std::sync::OnceLock;

use crate::library::{self, Code};
use crate::types::{OpaqueType, Type};

/// A function or operator with all of its overloads.
#[derive(Debug)]
pub(crate) struct Function {
    pub name: &'static str,
    pub overloads: Vec<Overload>,
    /// `None` for operators that the evaluator sees to itself.
    pub run: Option<Code>,
}

#[derive(Debug)]
pub(crate) struct Overload {
    pub id: &'static str,
    /// The first argument is the target (`target.function(…)`).
    pub member: bool,
    pub args: Vec<Type>,
    pub result: Type,
    /// Type variables.
    pub params: u32,
}

/// Looks a function up by name.
pub(crate) fn find(name: &str) -> Option<&'static Function> {
    static TABLE: OnceLock<HashMap<&'static str, Function>> = OnceLock::new();
    TABLE.get_or_init(table).get(name)
}

fn table() -> HashMap<&'static str, Function> {
    let mut table: HashMap<&'static str, Function> = HashMap::new();
    let mut add = |name: &'static str, id: &'static str, signature: &'static str| {
        let function = table.entry(name).or_insert_with(|| Function {
            name,
            overloads: Vec::new(),
            run: library::implementation(name),
        });
        function.overloads.push(overload(id, signature));
    };
    for line in include_str!("functions.txt").lines().filter(|line| !line.starts_with('#')) {
        let mut columns = line.splitn(3, " | ");
        let (Some(name), Some(id), Some(signature)) = (columns.next(), columns.next(), columns.next()) else {
            continue;
        };
        add(name, id, signature);
        // The other comparisons are those of `<`.
        if let Some(rest) = id.strip_prefix("less_") {
            for (name, prefix) in [("_<=_", "less_equals_"), ("_>_", "greater_"), ("_>=_", "greater_equals_")] {
                add(name, String::leak(format!("{prefix}{rest}")), signature);
            }
        }
    }
    table
}

fn overload(id: &'static str, signature: &'static str) -> Overload {
    let mut reader = Reader { text: signature, params: 0 };
    let mut args = Vec::new();
    let member = !signature.starts_with('(');
    if member {
        args.push(reader.ty());
        reader.eat(".");
    }
    reader.eat("(");
    while !reader.eat(")") {
        args.push(reader.ty());
        reader.eat(", ");
    }
    reader.eat(" ");
    let result = reader.ty();
    Overload { id, member, args, result, params: reader.params }
}

struct Reader {
    text: &'static str,
    params: u32,
}

impl Reader {
    fn eat(&mut self, text: &str) -> bool {
        match self.text.strip_prefix(text) {
            Some(rest) => {
                self.text = rest;
                true
            }
            None => false,
        }
    }

    fn ty(&mut self) -> Type {
        let end = self.text.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(self.text.len());
        let (word, rest) = self.text.split_at(end);
        self.text = rest;
        match word {
            "bool" => Type::Bool,
            "int" => Type::Int,
            "uint" => Type::Uint,
            "double" => Type::Double,
            "string" => Type::String,
            "bytes" => Type::Bytes,
            "duration" => Type::Duration,
            "timestamp" => Type::Timestamp,
            "type" => Type::Type,
            "quantity" => Type::Opaque(OpaqueType::Quantity),
            "ip" => Type::Opaque(OpaqueType::Ip),
            "cidr" => Type::Opaque(OpaqueType::Cidr),
            "url" => Type::Opaque(OpaqueType::Url),
            "format" => Type::Opaque(OpaqueType::Format),
            "semver" => Type::Opaque(OpaqueType::Semver),
            "authorizer" => Type::Opaque(OpaqueType::Authorizer),
            "pathcheck" => Type::Opaque(OpaqueType::PathCheck),
            "groupcheck" => Type::Opaque(OpaqueType::GroupCheck),
            "resourcecheck" => Type::Opaque(OpaqueType::ResourceCheck),
            "decision" => Type::Opaque(OpaqueType::Decision),
            "A" | "B" => {
                let id = u32::from(word == "B");
                self.params = self.params.max(id + 1);
                Type::Param(id)
            }
            "list" | "optional" => {
                self.eat("(");
                let of = self.ty();
                self.eat(")");
                if word == "list" { Type::list(of) } else { Type::optional(of) }
            }
            "map" => {
                self.eat("(");
                let key = self.ty();
                self.eat(", ");
                let value = self.ty();
                self.eat(")");
                Type::map(key, value)
            }
            _ => Type::Dyn,
        }
    }
}

/// The type that a name stands for in an expression (`type(x) == int`).
pub(crate) fn type_named(name: &str) -> Option<Type> {
    Some(match name {
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "null_type" => Type::Null,
        "type" => Type::Type,
        "list" => Type::list(Type::Dyn),
        "map" => Type::map(Type::Dyn, Type::Dyn),
        "optional_type" => Type::optional(Type::Dyn),
        "google.protobuf.Duration" => Type::Duration,
        "google.protobuf.Timestamp" => Type::Timestamp,
        _ => Type::Opaque(OpaqueType::ALL.into_iter().find(|ty| ty.name() == name)?),
    })
}
