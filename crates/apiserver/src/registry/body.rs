//! Request bodies: from bytes of some encoding to an object that fits its kind's schema.

use keelson_api::codec::{self, Decoded};
use keelson_api::kind::Kind;
use keelson_api::schema::Schema;
use keelson_api::status::Status;
use serde_json::Value;

use super::options::FieldValidation;

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
        if self.mode == FieldValidation::Strict && !found.is_empty() {
            return Err(Status::bad_request(codec::strict_error(&found)));
        }
        self.found.extend(found);
        Ok(())
    }

    /// Findings to warn of.
    pub(crate) fn warnings(&mut self) -> Vec<String> {
        if self.mode == FieldValidation::Warn { std::mem::take(&mut self.found) } else { Vec::new() }
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

/// Reads a body as any document.
pub(crate) fn decode_any(media_type: &str, body: &[u8]) -> Result<Decoded, Status> {
    match media_type {
        "" | "application/json" => codec::json::decode(body)
            .map_err(|e| Status::bad_request(format!("couldn't get version/kind; json parse error: {e}"))),
        "application/yaml" => {
            codec::yaml::decode(body).map_err(|e| Status::bad_request(format!("couldn't get version/kind; {e}")))
        }
        // DeleteOptions and the like; objects come by way of `decode`.
        PROTOBUF => {
            let bad = |e: codec::Error| Status::bad_request(e.to_string());
            let envelope = codec::protobuf::open(body).map_err(bad)?;
            let schema = codec::protobuf::schema_for(&envelope.api_version, &envelope.kind).ok_or_else(|| {
                let (kind, version) = (&envelope.kind, &envelope.api_version);
                Status::bad_request(format!("no kind {kind:?} is registered for version {version:?}"))
            })?;
            let value = codec::protobuf::decode_message(envelope.raw, schema).map_err(bad)?;
            Ok(Decoded { value, strict: Vec::new() })
        }
        _ => Err(Status::unsupported_media_type(
            "the body of the request was in an unknown format - accepted media types include: application/json, \
             application/yaml, application/vnd.kubernetes.protobuf",
        )),
    }
}

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// Reads a body as an object of `kind`. 400 for what is none; strict findings go to `strictness`.
pub(crate) fn decode(kind: &Kind, media_type: &str, body: &[u8], strictness: &mut Strictness) -> Result<Value, Status> {
    if media_type == PROTOBUF {
        let object = codec::protobuf::decode(body, schema_of(kind)?).map_err(|e| Status::bad_request(e.to_string()))?;
        check_type(kind, &object)?;
        return Ok(object);
    }
    let Decoded { value: mut object, mut strict } = decode_any(media_type, body).map_err(|mut status| {
        if status.code == 400 {
            let (short, why) = (&kind.kind, &status.message);
            let shown = summary(body);
            status.message = format!("the object provided is unrecognized (must be of type {short}): {why} ({shown})");
        }
        status
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
    match schema.conform(object) {
        Ok(unknown) => {
            strict.extend(unknown);
            Ok(())
        }
        Err(error) => Err(error.to_string()),
    }
}
