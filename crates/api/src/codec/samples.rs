//! Objects made from schemas, for tests: drawn at random, and full ones.

use serde_json::{Map, Value, json};

use crate::schema::{Field, Instead, Schema, Type};

/// An object drawn at random, without empty lists (in protobuf they are the same as none).
pub(crate) fn random(schema: &Schema, seed: u64) -> Value {
    Draw(seed).object(schema, 0)
}

/// An object with every field of the type set, always the same, but for `kind` and `apiVersion`, which protobuf keeps only
/// of whole objects. Types that hold themselves do so once.
pub(crate) fn full(schema: &Schema) -> Value {
    Full { inside: Vec::new(), count: 0 }.object(schema)
}

/// Fields, those of inline messages included.
fn fields(schema: &Schema) -> Vec<&Field> {
    let inline = schema.inline.iter().filter_map(|f| match &f.ty {
        Type::Struct(link) => Some(fields(link)),
        _ => None,
    });
    schema.fields.iter().chain(inline.flatten()).collect()
}

/// A small generator of our own.
struct Draw(u64);

impl Draw {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }

    fn object(&mut self, schema: &Schema, depth: u64) -> Value {
        let mut map = Map::new();
        for field in fields(schema).into_iter().filter(|f| f.tag != 0) {
            // Schemas hold schemas.
            if depth < 4 && self.next(2 + depth * 2) == 0 {
                map.insert(field.name.to_string(), self.value(&field.ty, depth));
            }
        }
        Value::Object(map)
    }

    fn value(&mut self, ty: &Type, depth: u64) -> Value {
        match ty {
            Type::Bool => (self.next(2) == 0).into(),
            Type::Int32 => (self.next(1 << 31) as i32 - (1 << 30)).into(),
            Type::Int64 => (self.next(u64::MAX) as i64).into(),
            // Whole numbers are written as such.
            Type::Double => ((self.next(1000) as f64 + 0.5) / 8.0).into(),
            Type::String | Type::Duration => ["", "a", "ü\u{0}", "long text"][self.next(4) as usize].into(),
            Type::Bytes => ["", "AA==", "/+8="][self.next(3) as usize].into(),
            Type::Quantity => ["1", "100m", "1Gi"][self.next(3) as usize].into(),
            Type::Time => ["2026-01-02T03:04:05Z", "1969-12-31T23:59:59Z"][self.next(2) as usize].into(),
            Type::MicroTime => {
                ["2026-01-02T03:04:05.000001Z", "1960-01-02T03:04:05.999999Z"][self.next(2) as usize].into()
            }
            Type::IntOrString => [json!(7), json!(-1), json!("50%"), json!("")][self.next(4) as usize].clone(),
            Type::Any | Type::Fields => json!({"any": [self.next(9), null]}),
            Type::Struct(link) => self.object(link, depth + 1),
            Type::List(item) => (0..=self.next(3)).map(|_| self.value(item, depth)).collect(),
            Type::Map(item) => (0..=self.next(3)).map(|i| (format!("k{i}"), self.value(item, depth))).collect(),
            Type::Wrapped(inner) => self.value(inner, depth),
            Type::Or(_, Instead::Bool) if self.next(2) == 0 => (self.next(2) == 0).into(),
            Type::Or(item, Instead::List) if self.next(2) == 0 => json!([self.value(item, depth)]),
            Type::Or(_, Instead::Strings) if self.next(2) == 0 => json!(["a"]),
            Type::Or(item, _) => self.value(item, depth),
        }
    }
}

struct Full {
    /// Names of the types being made.
    inside: Vec<String>,
    count: i64,
}

impl Full {
    fn object(&mut self, schema: &Schema) -> Value {
        let mut map = Map::new();
        self.inside.push(schema.name.to_string());
        for field in fields(schema).into_iter().filter(|f| f.tag != 0) {
            if let Some(value) = self.value(&field.ty) {
                map.insert(field.name.to_string(), value);
            }
        }
        self.inside.pop();
        Value::Object(map)
    }

    fn value(&mut self, ty: &Type) -> Option<Value> {
        self.count += 1;
        let n = self.count;
        Some(match ty {
            Type::Bool => true.into(),
            Type::Int32 => if n % 2 == 0 { -n } else { i64::from(i32::MAX) - n }.into(),
            Type::Int64 => if n % 2 == 0 { i64::MIN + n } else { i64::MAX - n }.into(),
            Type::Double => (n as f64 + 0.1).into(),
            Type::String => format!("text-{n} \u{0}\"ü\n: #").into(),
            Type::Duration => format!("{n}m0s").into(),
            Type::Bytes => ["AA==", "/+8=", "AQIDBAU="][n as usize % 3].into(),
            Type::Quantity => format!("{}m", n % 999 + 1).into(),
            Type::Time => format!("2026-01-02T03:{:02}:05Z", n % 60).into(),
            Type::MicroTime => format!("1960-01-02T03:04:05.{:06}Z", n % 1_000_000).into(),
            Type::IntOrString => {
                if n % 2 == 0 {
                    json!(n)
                } else {
                    json!(format!("{n}%"))
                }
            }
            Type::Any | Type::Fields => json!({"any": [n, null, 1.5, "x"], "f:a": {".": {}}}),
            Type::Struct(link) if self.inside.iter().filter(|name| **name == link.name).count() > 1 => return None,
            Type::Struct(link) => self.object(link),
            Type::List(item) => {
                let items: Vec<_> = (0..2).filter_map(|_| self.value(item)).collect();
                return (!items.is_empty()).then(|| items.into());
            }
            Type::Map(item) => {
                let fields: Map<_, _> = (0..2).filter_map(|i| Some((format!("k{i}"), self.value(item)?))).collect();
                return (!fields.is_empty()).then(|| fields.into());
            }
            Type::Wrapped(inner) => return self.value(inner),
            Type::Or(_, Instead::Bool) if n % 2 == 0 => false.into(),
            Type::Or(_, Instead::Strings) if n % 2 == 0 => json!(["a", "b"]),
            Type::Or(item, Instead::List) if n % 2 == 0 => vec![self.value(item)?].into(),
            Type::Or(item, _) => return self.value(item),
        })
    }
}
