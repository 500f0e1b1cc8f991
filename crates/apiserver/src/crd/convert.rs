//! Conversion between the versions of a definition. Without a webhook only `apiVersion` changes, and the object is pruned
//! and defaulted as its new version wants it; a webhook is asked about many objects at once.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keelson_api::crd::Definition;
use keelson_api::kind::Kind;
use keelson_api::status::Status;
use keelson_store::KeyValue;
use serde_json::{Value, json};

use super::stored;
use crate::cache::Entry;
use crate::cache::entry::encode;
use crate::cache::view::Convert;
use crate::core::Core;
use crate::webhook::{Error, Webhook};

/// How long a webhook may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Objects, and about how many bytes of them, in one request.
const BATCH_OBJECTS: usize = 500;
const BATCH_BYTES: usize = 4 << 20;

/// Converts objects of one definition.
pub(crate) struct Converter {
    definition: Arc<Definition>,
    /// Why there is none, when it cannot be made.
    webhook: Option<Result<Webhook, Error>>,
    review_version: &'static str,
}

impl Converter {
    pub(crate) fn new(core: &Arc<Core>, definition: Arc<Definition>) -> Self {
        let webhook = definition.webhook.as_ref();
        let versions = webhook.and_then(|webhook| webhook["conversionReviewVersions"].as_array());
        // The first that is known.
        let known = versions.into_iter().flatten().filter_map(Value::as_str).find(|v| matches!(*v, "v1" | "v1beta1"));
        let review_version = if known == Some("v1beta1") { "v1beta1" } else { "v1" };
        let webhook = webhook.map(|webhook| Webhook::new(Arc::downgrade(core), &webhook["clientConfig"]));
        Self { definition, webhook, review_version }
    }

    /// One object, into the version of `kind`.
    pub(crate) async fn convert(&self, object: Value, kind: &Kind) -> Result<Value, Status> {
        let mut converted = self.convert_all(vec![object], kind).await?;
        converted.pop().ok_or_else(|| Status::internal("a conversion lost its object"))
    }

    /// Whether a webhook is asked.
    pub(crate) fn asks(&self) -> bool {
        self.webhook.is_some()
    }

    /// One object, into a version by its `apiVersion`.
    pub(crate) async fn convert_to(&self, object: Value, api_version: &str) -> Result<Value, Status> {
        let Some(kind) = self.definition.kind_of(api_version) else {
            let why = format!("request to convert CR to an invalid group/version: {api_version}");
            return Err(Status::internal(why));
        };
        self.convert(object, kind).await
    }

    /// Objects into the version of `kind`, in the same order.
    pub(crate) async fn convert_all(&self, mut objects: Vec<Value>, kind: &Kind) -> Result<Vec<Value>, Status> {
        let wanted = kind.api_version();
        let Some(webhook) = &self.webhook else {
            for object in objects.iter_mut().filter(|object| object["apiVersion"] != wanted) {
                kind.retype(object);
                self.definition.normalize(object);
            }
            return Ok(objects);
        };
        let other: Vec<usize> = (0..objects.len()).filter(|at| objects[*at]["apiVersion"] != wanted).collect();
        let sent: Vec<Value> = other.iter().map(|at| objects[*at].clone()).collect();
        if sent.is_empty() {
            return Ok(objects);
        }
        let from = format!("{}, Kind={}", sent[0]["apiVersion"].as_str().unwrap_or_default(), kind.kind);
        let failed =
            |why: &dyn std::fmt::Display| Status::internal(format!("conversion webhook for {from} failed: {why}"));
        let webhook = webhook.as_ref().map_err(|e| failed(e))?;
        let uid = uuid::Uuid::new_v4().to_string();
        let api_version = format!("apiextensions.k8s.io/{}", self.review_version);
        let review = json!({
            "kind": "ConversionReview", "apiVersion": api_version,
            "request": {"uid": uid, "desiredAPIVersion": wanted, "objects": sent},
        });
        let mut answer = webhook.call(&review, TIMEOUT).await.map_err(|e| failed(&e))?;
        check_answer(&answer, &api_version, &uid).map_err(|why| failed(&why))?;
        let converted = match answer["response"]["convertedObjects"].take() {
            Value::Array(converted) => converted,
            _ => Vec::new(),
        };
        if converted.len() != sent.len() {
            let (got, expected) = (converted.len(), sent.len());
            let why = format!("conversion webhook for {from} returned {got} objects, expected {expected}");
            return Err(Status::internal(why));
        }
        for ((at, original), mut object) in other.into_iter().zip(&sent).zip(converted) {
            restore(original, &mut object, kind).map_err(|why| {
                let why =
                    format!("conversion webhook for {from} returned invalid converted object at index {at}: {why}");
                Status::internal(why)
            })?;
            self.definition.normalize(&mut object);
            objects[at] = object;
        }
        Ok(objects)
    }
}

fn check_answer(answer: &Value, api_version: &str, uid: &str) -> Result<(), String> {
    let response = &answer["response"];
    if api_version.ends_with("/v1") {
        let (version, kind) =
            (answer["apiVersion"].as_str().unwrap_or_default(), answer["kind"].as_str().unwrap_or_default());
        if (version, kind) != (api_version, "ConversionReview") {
            return Err(format!(
                "expected webhook response of {api_version}, Kind=ConversionReview, got {version}, Kind={kind}"
            ));
        }
    }
    if !response.is_object() {
        return Err("no response provided".into());
    }
    let got = response["uid"].as_str().unwrap_or_default();
    if api_version.ends_with("/v1") && got != uid {
        return Err(format!("expected response.uid={uid:?}, got {got:?}"));
    }
    let result = &response["result"];
    let (status, message) =
        (result["status"].as_str().unwrap_or_default(), result["message"].as_str().unwrap_or_default());
    match (status, message) {
        ("Success", _) => Ok(()),
        (status, "") => Err(format!("response.result.status was '{status}', not 'Success'")),
        (_, message) => Err(message.to_owned()),
    }
}

/// A webhook may change labels and annotations and nothing else of metadata; what it sent of the rest is put right, and
/// what identifies the object must be what it was.
fn restore(original: &Value, object: &mut Value, kind: &Kind) -> Result<(), String> {
    let text = |object: &Value, key: &str| object[key].as_str().unwrap_or_default().to_owned();
    let (version, wanted) = (text(object, "apiVersion"), kind.api_version());
    if version != wanted {
        return Err(format!("invalid groupVersion (expected {wanted}, received {version})"));
    }
    if text(object, "kind") != kind.kind {
        return Err(format!("invalid kind (expected {}, received {})", kind.kind, text(object, "kind")));
    }
    for (field, name) in [("name", "name"), ("namespace", "namespace"), ("uid", "UID")] {
        let (e, a) = (text(&original["metadata"], field), text(&object["metadata"], field));
        if e != a {
            return Err(format!("must have the same {name}: {e} != {a}"));
        }
    }
    let mut metadata = original["metadata"].clone();
    for key in ["labels", "annotations"] {
        let Some(map) = metadata.as_object_mut() else { return Err("missing metadata in input object".into()) };
        match object["metadata"].get(key).filter(|value| !value.is_null()) {
            Some(value) => {
                let strings = value.as_object().is_some_and(|map| map.values().all(Value::is_string));
                if !strings {
                    return Err(format!("metadata.{key}: must be a map of strings"));
                }
                map.insert(key.into(), value.clone());
            }
            None => drop(map.remove(key)),
        }
    }
    object["metadata"] = metadata;
    Ok(())
}

/// What a view of one version is made with.
pub(crate) struct Viewer {
    pub(crate) converter: Arc<Converter>,
    pub(crate) kind: Arc<Kind>,
}

#[async_trait]
impl Convert for Viewer {
    async fn convert(&self, entries: Vec<Arc<Entry>>) -> Result<Vec<Arc<Entry>>, Status> {
        let mut out = Vec::with_capacity(entries.len());
        let mut rest = entries.as_slice();
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |entry: &&Arc<Entry>| {
                bytes += entry.value.len();
                bytes <= BATCH_BYTES
            };
            let count = rest.iter().take(BATCH_OBJECTS).take_while(fits).count().max(1);
            let (batch, more) = rest.split_at(count);
            rest = more;
            let objects: Result<Vec<Value>, Status> = batch.iter().map(|entry| entry.decode()).collect();
            let converted = self.converter.convert_all(objects?, &self.kind).await?;
            for (entry, object) in batch.iter().zip(converted) {
                let value = if stored::is_of(entry, &self.kind) { entry.value.clone() } else { encode(&object, None)? };
                let revision = entry.revision;
                let kv = KeyValue { key: entry.key.clone(), value, create_revision: revision, mod_revision: revision };
                out.push(Arc::new(Entry::new(&self.kind, kv).map_err(Status::internal)?));
            }
        }
        Ok(out)
    }
}
