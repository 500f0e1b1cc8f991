//! Request bodies: from bytes of some encoding to an object that fits its kind's schema.

use keelson_api::codec::{self, Decoded, Encoding};
use keelson_api::kind::Kind;
use keelson_api::schema::Schema;
use keelson_api::status::Status;
use serde_json::Value;

use super::options::FieldValidation;
use super::ownership::keep_reset;

/// What strict field validation found, and what is to become of it.
pub(crate) struct Strictness {
    mode: FieldValidation,
    found: Vec<String>,
}

impl Strictness {
    pub(crate) fn new(mode: FieldValidation) -> Self {
        Self { mode, found: Vec::new() }
    }

    /// Notes findings; 400 when they are errors.
    pub(crate) fn found(&mut self, found: Vec<String>) -> Result<(), Status> {
        self.found_in(found, codec::strict_error)
    }

    /// As [`Strictness::found`], with errors in words of their own.
    pub(crate) fn found_in(&mut self, found: Vec<String>, words: impl Fn(&[String]) -> String) -> Result<(), Status> {
        if self.mode == FieldValidation::Strict && !found.is_empty() {
            return Err(Status::bad_request(words(&found)));
        }
        self.found.extend(found);
        Ok(())
    }

    /// Findings to warn of.
    pub(crate) fn warnings(&mut self) -> Vec<String> {
        if self.mode != FieldValidation::Warn {
            return Vec::new();
        }
        std::mem::take(&mut self.found).into_iter().flat_map(codec::yaml::warnings).collect()
    }
}

/// The schema of a kind.
pub(crate) fn schema_of(kind: &Kind) -> Result<&Schema, Status> {
    kind.structure().ok_or_else(|| Status::internal(format!("no schema {}", kind.schema)))
}

/// The media type of a `Content-Type` header, without parameters.
pub(crate) fn media_type(header: Option<&str>) -> String {
    header.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The encoding of a body; 415 for one that is not known.
fn encoding(media_type: &str, offered: impl Fn(Encoding) -> bool) -> Result<Encoding, Status> {
    let found = if media_type.is_empty() { Some(Encoding::Json) } else { Encoding::from_media_type(media_type) };
    found.filter(|encoding| offered(*encoding)).ok_or_else(|| {
        let accepted: Vec<_> = Encoding::ALL.into_iter().filter(|e| offered(*e)).map(Encoding::media_type).collect();
        Status::unsupported_media_type(format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        ))
    })
}

/// Reads a body as any document. Protobuf says what type it is (DeleteOptions and the like; objects come by way of
/// [`decode`]).
pub(crate) fn decode_any(media_type: &str, body: &[u8]) -> Result<Decoded, Status> {
    let encoding = encoding(media_type, |_| true)?;
    encoding.decode(body).map_err(|e| Status::bad_request(unreadable(encoding, &e)))
}

/// What upstream says of a body that cannot be read.
fn unreadable(encoding: Encoding, error: &codec::Error) -> String {
    match encoding {
        Encoding::Json => format!("couldn't get version/kind; json parse error: {error}"),
        Encoding::Yaml => format!("couldn't get version/kind; {error}"),
        Encoding::Cbor => format!("unable to determine group/version/kind: {error}"),
        Encoding::Protobuf => error.to_string(),
    }
}

/// Reads a body as an object of `kind`. 400 for what is none; strict findings go to `strictness`.
pub(crate) fn decode(kind: &Kind, media_type: &str, body: &[u8], strictness: &mut Strictness) -> Result<Value, Status> {
    let protobuf = codec::protobuf::schema_for(&kind.api_version(), &kind.kind);
    let encoding = encoding(media_type, |e| e != Encoding::Protobuf || protobuf.is_some())?;
    let decoded = match (encoding, protobuf) {
        (Encoding::Protobuf, Some(schema)) => {
            codec::protobuf::decode(body, schema).map(|value| Decoded { value, strict: Vec::new() })
        }
        _ => encoding.decode(body),
    };
    let Decoded { value: mut object, mut strict } = decoded.map_err(|error| {
        let (short, why, shown) = (&kind.kind, unreadable(encoding, &error), summary(body));
        Status::bad_request(format!("the object provided is unrecognized (must be of type {short}): {why} ({shown})"))
    })?;
    check_type(kind, &object)?;
    let bad = |why: &str| {
        let (short, version) = (&kind.kind, &kind.version);
        Status::bad_request(format!("{short} in version {version:?} cannot be handled as a {short}: {why}"))
    };
    conform(schema_of(kind)?, &mut object, &mut strict).map_err(|why| bad(&why.to_string()))?;
    strictness.found(strict).map_err(|strict| bad(&strict.message))?;
    Ok(object)
}

/// The beginning of a body that is no object: as text when it looks like JSON, else in hexadecimal digits.
fn summary(body: &[u8]) -> String {
    const SHOWN_BYTES: usize = 30;
    let shown = body.get(..SHOWN_BYTES).unwrap_or(body);
    let text = match shown.first() {
        None => return "<empty>".into(),
        Some(b'{') => String::from_utf8_lossy(shown).into_owned(),
        Some(_) => shown.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    if shown.len() < body.len() { format!("{text} ...") } else { text }
}

/// `apiVersion` and `kind` are the endpoint's or absent.
fn check_type(kind: &Kind, object: &Value) -> Result<(), Status> {
    let field = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
    let (api_version, name) = (field("apiVersion"), field("kind"));
    if !object.is_object() {
        return Err(Status::bad_request(format!(
            "couldn't get version/kind; json parse error: json: cannot unmarshal {} into Go value of type struct {{ \
             APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}",
            keelson_api::schema::json_type(object)
        )));
    }
    if !name.is_empty() && name != kind.kind {
        let version = api_version.rsplit('/').next().unwrap_or_default();
        return Err(Status::bad_request(format!("{name} in version {version:?} cannot be handled as a {}", kind.kind)));
    }
    if !api_version.is_empty() && api_version != kind.api_version() {
        return Err(Status::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({})",
            kind.api_version()
        )));
    }
    Ok(())
}

/// Prunes `object` to its schema; unknown fields are added to `strict`.
pub(crate) fn conform(schema: &Schema, object: &mut Value, strict: &mut Vec<String>) -> Result<(), String> {
    keep_reset(object);
    match schema.conform(object) {
        Ok(unknown) => {
            strict.extend(unknown);
            Ok(())
        }
        Err(error) => Err(error.to_string()),
    }
}
