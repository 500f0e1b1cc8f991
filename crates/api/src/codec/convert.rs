//! Files of objects from one encoding to another, with no server: unknown fields go and values become canonical, as when a
//! server reads them, but nothing is defaulted or validated. Kinds that we do not know pass as they are.

#[cfg(test)]
mod tests;

use serde_json::Value;

use super::{Decoded, Encoding, Error, cbor, json, protobuf, yaml};

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted {
    pub bytes: Vec<u8>,
    /// Fields that were dropped or came twice, by document.
    pub warnings: Vec<String>,
}

/// Converts all documents of a file. Errors name the document, when there are several, and the field.
pub fn convert(input: &[u8], output: Encoding) -> Result<Converted, Error> {
    let documents = documents(input)?;
    if documents.is_empty() {
        return Err(Error("no objects in it".into()));
    }
    if output == Encoding::Protobuf && documents.len() > 1 {
        let n = documents.len();
        return Err(Error(format!("{n} documents: protobuf has no way to hold more than one; put them into a List")));
    }
    let several = documents.len() > 1;
    let (mut bytes, mut warnings) = (Vec::new(), Vec::new());
    for (i, document) in documents.into_iter().enumerate() {
        let place = |text: String| if several { format!("document {}: {text}", i + 1) } else { text };
        let Decoded { mut value, mut strict } = document;
        conform(&mut value, &mut strict).map_err(|e| Error(place(e.0)))?;
        warnings.extend(strict.into_iter().flat_map(super::yaml::warnings).map(place));
        let written = write(&value, output).map_err(|e| Error(place(e.0)))?;
        if output == Encoding::Yaml && i > 0 {
            bytes.extend_from_slice(b"---\n");
        }
        bytes.extend_from_slice(&written);
    }
    Ok(Converted { bytes, warnings })
}

/// The documents of a file: one in protobuf, any number in the other encodings.
fn documents(input: &[u8]) -> Result<Vec<Decoded>, Error> {
    match Encoding::detect(input) {
        Encoding::Protobuf => Ok(vec![Encoding::Protobuf.decode(input)?]),
        Encoding::Cbor => cbor::decode_sequence(input),
        Encoding::Json => json_stream(input),
        Encoding::Yaml => yaml_documents(input),
    }
}

fn json_stream(mut input: &[u8]) -> Result<Vec<Decoded>, Error> {
    let mut documents = Vec::new();
    loop {
        let mut stream = serde_json::Deserializer::from_slice(input).into_iter::<serde::de::IgnoredAny>();
        let length = match stream.next() {
            None => return Ok(documents),
            Some(Ok(_)) => stream.byte_offset(),
            // The decoder says it in better words.
            Some(Err(_)) => input.len(),
        };
        let (document, rest) = input.split_at(length);
        documents.push(json::decode(document)?);
        input = rest;
    }
}

fn yaml_documents(input: &[u8]) -> Result<Vec<Decoded>, Error> {
    let mut documents = Vec::new();
    let mut start = 0;
    let ends = input.windows(4).enumerate().filter(|(i, w)| *w == b"\n---" && is_separator(&input[i + 4..]));
    for end in ends.map(|(i, _)| i + 1).chain([input.len()]) {
        let document = yaml::decode(input.get(start..end).unwrap_or_default())?;
        start = end;
        // Only comments.
        if !document.value.is_null() {
            documents.push(document);
        }
    }
    Ok(documents)
}

/// Whether what follows `---` makes it a line of its own.
fn is_separator(rest: &[u8]) -> bool {
    rest.first().is_none_or(u8::is_ascii_whitespace)
}

/// As a server reads it; also what a `List` holds.
fn conform(object: &mut Value, strict: &mut Vec<String>) -> Result<(), Error> {
    let text = |key: &str| object.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let (Some(api_version), Some(kind)) = (text("apiVersion"), text("kind")) else {
        let missing = if text("kind").is_none() { "Kind" } else { "apiVersion" };
        return Err(Error(format!("Object '{missing}' is missing in it")));
    };
    let schema = protobuf::schema_for(api_version, kind);
    if (api_version, kind) == ("v1", "List") {
        for (i, item) in object.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten().enumerate() {
            let mut inner = Vec::new();
            conform(item, &mut inner).map_err(|e| Error(format!("items[{i}]: {e}")))?;
            strict.extend(inner.into_iter().map(|text| format!("items[{i}]: {text}")));
        }
    }
    if let Some(schema) = schema {
        strict.extend(schema.conform(object).map_err(|e| Error(e.0))?);
    }
    Ok(())
}

fn write(object: &Value, output: Encoding) -> Result<Vec<u8>, Error> {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let schema = protobuf::schema_for(text("apiVersion"), text("kind"));
    match (output, schema) {
        (Encoding::Json, _) => {
            let mut text = serde_json::to_vec_pretty(object).map_err(|e| Error(e.to_string()))?;
            text.push(b'\n');
            Ok(text)
        }
        (Encoding::Protobuf, None) => {
            let (kind, api_version) = (text("kind"), text("apiVersion"));
            Err(Error(format!("{api_version} {kind} is no built-in kind: it has no protobuf form")))
        }
        _ => output.encode(object, schema),
    }
}
