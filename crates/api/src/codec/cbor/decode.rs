//! CBOR to `Value`: definite and indefinite lengths, text and byte strings, and the tags that mean something to JSON.
//! Nothing is allocated for what a head claims, only for what is there.

use base64::Engine as _;
use minicbor::Decoder;
use minicbor::data::{IanaTag, Type};
use serde_json::{Map, Number, Value};

use super::super::MAX_DEPTH;
use super::Error;
use crate::schema::format_time;

/// Values in one document; a one-byte item takes much more in memory.
const MAX_VALUES: usize = 1 << 20;

pub(super) fn document(bytes: &[u8]) -> Result<Value, Error> {
    let mut reader = Reader::new(bytes);
    let value = reader.value(0)?;
    let (end, all) = (reader.decoder.position(), bytes.len());
    if end < all {
        return Err(Error(format!("cbor: {} bytes of extraneous data starting at index {end}", all - end)));
    }
    Ok(value)
}

pub(super) fn sequence(bytes: &[u8]) -> Result<Vec<Value>, Error> {
    let mut reader = Reader::new(bytes);
    let mut values = Vec::new();
    while reader.decoder.position() < bytes.len() {
        values.push(reader.value(0)?);
    }
    Ok(values)
}

struct Reader<'a> {
    decoder: Decoder<'a>,
    /// Values that may still come.
    left: usize,
}

/// The text that bytes become by the tag around them.
#[derive(Clone, Copy)]
enum Later {
    Text,
    Base64Url,
    Base64,
    Base16,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { decoder: Decoder::new(bytes), left: MAX_VALUES }
    }

    fn value(&mut self, depth: usize) -> Result<Value, Error> {
        self.tagged(depth, Later::Text)
    }

    fn tagged(&mut self, depth: usize, later: Later) -> Result<Value, Error> {
        if depth > MAX_DEPTH {
            return Err(Error(format!("cbor: exceeded max nested level {MAX_DEPTH}")));
        }
        self.left = self.left.checked_sub(1).ok_or_else(|| Error(format!("cbor: more than {MAX_VALUES} values")))?;
        Ok(match self.decoder.datatype().map_err(wrong)? {
            Type::Bool => Value::Bool(self.decoder.bool().map_err(wrong)?),
            Type::Null => {
                self.decoder.null().map_err(wrong)?;
                Value::Null
            }
            Type::U8 | Type::U16 | Type::U32 | Type::U64 => self.integer()?,
            Type::I8 | Type::I16 | Type::I32 | Type::I64 | Type::Int => self.integer()?,
            Type::F16 => float(f64::from(self.decoder.f16().map_err(wrong)?))?,
            Type::F32 => float(f64::from(self.decoder.f32().map_err(wrong)?))?,
            Type::F64 => float(self.decoder.f64().map_err(wrong)?)?,
            Type::Bytes | Type::BytesIndef | Type::String | Type::StringIndef => Value::String(self.text(later)?),
            Type::Array | Type::ArrayIndef => self.array(depth)?,
            Type::Map | Type::MapIndef => self.map(depth)?,
            Type::Tag => self.tag(depth)?,
            other => return Err(Error(format!("cbor: {other} has no JSON form"))),
        })
    }

    fn integer(&mut self) -> Result<Value, Error> {
        let number = i128::from(self.decoder.int().map_err(wrong)?);
        let number = i64::try_from(number)
            .map_err(|_| Error(format!("cbor: cannot unmarshal {number} into Go value of type int64 (overflow)")))?;
        Ok(number.into())
    }

    fn text(&mut self, later: Later) -> Result<String, Error> {
        if matches!(self.decoder.datatype().map_err(wrong)?, Type::String | Type::StringIndef) {
            let parts = self.decoder.str_iter().map_err(wrong)?;
            return parts.map(|part| part.map_err(wrong)).collect();
        }
        let mut bytes = Vec::new();
        for part in self.decoder.bytes_iter().map_err(wrong)? {
            bytes.extend_from_slice(part.map_err(wrong)?);
        }
        Ok(match later {
            // Bytes that are not UTF-8 become U+FFFD, as they would on the way to JSON in upstream.
            Later::Text => {
                String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
            }
            Later::Base64Url => base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(bytes),
            Later::Base64 => base64::prelude::BASE64_STANDARD.encode(bytes),
            Later::Base16 => bytes.iter().map(|b| format!("{b:02X}")).collect(),
        })
    }

    /// Whether another item of an array or map follows; `length` counts down, or is `None` until a break.
    fn more(&mut self, length: &mut Option<u64>) -> Result<bool, Error> {
        match length {
            Some(0) => Ok(false),
            Some(n) => {
                *n -= 1;
                Ok(true)
            }
            None if self.decoder.datatype().map_err(wrong)? == Type::Break => {
                self.decoder.set_position(self.decoder.position() + 1);
                Ok(false)
            }
            None => Ok(true),
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value, Error> {
        let mut length = self.decoder.array().map_err(wrong)?;
        let mut items = Vec::new();
        while self.more(&mut length)? {
            items.push(self.value(depth + 1)?);
        }
        Ok(Value::Array(items))
    }

    fn map(&mut self, depth: usize) -> Result<Value, Error> {
        let mut length = self.decoder.map().map_err(wrong)?;
        let mut fields = Map::new();
        while self.more(&mut length)? {
            let key = match self.decoder.datatype().map_err(wrong)? {
                Type::Bytes | Type::BytesIndef | Type::String | Type::StringIndef => self.text(Later::Text)?,
                other => return Err(Error(format!("cbor: cannot use {other} as a map key"))),
            };
            let value = self.value(depth + 1)?;
            let index = fields.len();
            match fields.entry(key) {
                serde_json::map::Entry::Vacant(entry) => {
                    entry.insert(value);
                }
                serde_json::map::Entry::Occupied(entry) => {
                    return Err(Error(format!(
                        "cbor: found duplicate map key {:?} at map element index {index}",
                        entry.key()
                    )));
                }
            }
        }
        Ok(Value::Object(fields))
    }

    fn tag(&mut self, depth: usize) -> Result<Value, Error> {
        let tag = self.decoder.tag().map_err(wrong)?;
        let later = match IanaTag::try_from(tag) {
            Ok(IanaTag::PosBignum | IanaTag::NegBignum) => return Err(Error("cbor: bignum is not supported".into())),
            Ok(IanaTag::DateTime) => {
                let value = self.value(depth + 1)?;
                let valid = value.as_str().is_some_and(|text| text.parse::<jiff::Timestamp>().is_ok());
                return if valid { Ok(value) } else { Err(Error(format!("cbor: cannot set {value} for time.Time"))) };
            }
            Ok(IanaTag::Timestamp) => return time(&self.value(depth + 1)?),
            Ok(IanaTag::ToBase64Url) => Later::Base64Url,
            Ok(IanaTag::ToBase64) => Later::Base64,
            Ok(IanaTag::ToBase16) => Later::Base16,
            _ => Later::Text,
        };
        self.tagged(depth + 1, later)
    }
}

/// Seconds since 1970 as RFC 3339.
fn time(value: &Value) -> Result<Value, Error> {
    let out_of_range = || Error(format!("cbor: cannot set {value} for time.Time"));
    let time = match (value.as_i64(), value.as_f64()) {
        (Some(seconds), _) => jiff::Timestamp::from_second(seconds),
        (None, Some(seconds)) => jiff::Timestamp::from_microsecond((seconds * 1e6) as i64),
        (None, None) => return Err(out_of_range()),
    };
    let time = time.map_err(|_| out_of_range())?;
    Ok(format_time(time, if time.subsec_nanosecond() == 0 { 0 } else { 6 }).into())
}

fn float(value: f64) -> Result<Value, Error> {
    Number::from_f64(value).map(Value::Number).ok_or_else(|| Error("cbor: number is not finite".into()))
}

fn wrong(error: minicbor::decode::Error) -> Error {
    if error.is_end_of_input() { Error("unexpected EOF".into()) } else { Error(format!("cbor: {error}")) }
}
