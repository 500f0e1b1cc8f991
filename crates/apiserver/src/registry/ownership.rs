//! Who owns the fields that a write changes: [`keelson_api::apply`] with this server's kinds and clock. Where a webhook
//! converts between a kind's versions, [`conversions`] has what it answered.

mod conversions;

use std::sync::Arc;

use keelson_api::apply::{self, Versions, Writer};
use keelson_api::kind::Kind;
use keelson_api::schema::Schema;
use keelson_api::status::{FieldError, Status};
use keelson_api::validation::meta;
use serde_json::Value;

pub(crate) use self::conversions::Conversions;
use super::Served;
use super::body::schema_of;
use super::create;
use super::options::WriteOptions;
use crate::core::Core;

/// A write by one manager to one endpoint.
pub(crate) struct Ownership<'a> {
    kind: &'a Kind,
    api_version: String,
    subresource: &'a str,
    options: &'a WriteOptions,
    now: String,
    others: OtherVersions<'a>,
}

impl<'a> Ownership<'a> {
    /// `kind` is the endpoint's body's.
    pub(crate) fn new(core: &Core, kind: &'a Kind, subresource: &'a str, options: &'a WriteOptions) -> Self {
        let others = OtherVersions { served: core.registry.served(), kind, conversions: None };
        Self { kind, api_version: kind.api_version(), subresource, options, now: create::now(), others }
    }

    /// With what a webhook has converted so far; for kinds that need one.
    pub(crate) fn converted(mut self, conversions: &'a Conversions<'a>) -> Self {
        self.others.conversions = conversions.is_needed().then_some(conversions);
        self
    }

    fn writer(&self) -> Result<Writer<'_>, Status> {
        Ok(Writer {
            manager: &self.options.manager,
            api_version: &self.api_version,
            kind: &self.kind.kind,
            schema: schema_of(self.kind)?,
            subresource: self.subresource,
            now: &self.now,
            reset: self.kind.reset_fields(self.subresource),
            versions: &self.others,
        })
    }

    /// Notes in `new` who owns what after this write; does nothing when the object brings that with it. What it returns is
    /// wrong about managed fields that the client wrote.
    pub(crate) async fn track(&self, old: Option<&Value>, new: &mut Value) -> Result<Vec<FieldError>, Status> {
        let Some(conversions) = self.others.conversions else { return self.track_now(old, new) };
        loop {
            let mut tracked = new.clone();
            let errors = self.track_now(old, &mut tracked)?;
            match conversions.fetch().await {
                Ok(true) => {}
                // Whoever wrote in a version that nothing can be converted to, loses what was written.
                Err(status) => tracing::warn!(error = %status, "owners of fields in other versions are forgotten"),
                Ok(false) => {
                    *new = tracked;
                    return Ok(errors);
                }
            }
        }
    }

    /// The same where no webhook has a say.
    pub(crate) fn track_now(&self, old: Option<&Value>, new: &mut Value) -> Result<Vec<FieldError>, Status> {
        if !self.options.tracked {
            return Ok(Vec::new());
        }
        Ok(apply::update(&self.writer()?, old, new).err().unwrap_or_default())
    }

    /// As [`Ownership::track`], for a new object whose stored form is its JSON: if it can be, what there is to note is left apart, ready to
    /// be stored by [`Resource::to_stored`](super::Resource::to_stored).
    pub(crate) async fn track_new(&self, new: &mut Value) -> Result<(Option<Vec<u8>>, Vec<FieldError>), Status> {
        if self.options.tracked {
            let writer = self.writer()?;
            if apply::is_first(&writer, new) {
                return Ok((apply::first(&writer, new), Vec::new()));
            }
        }
        Ok((None, self.track(None, new).await?))
    }

    /// The live object with a configuration applied to it.
    pub(crate) fn apply(&self, live: Option<&Value>, config: &Value) -> Result<Value, Status> {
        apply::apply(&self.writer()?, live, config, self.options.force)
    }
}

/// The versions of a kind that are stored as one.
struct OtherVersions<'a> {
    served: Arc<Served>,
    kind: &'a Kind,
    /// Where a webhook converts.
    conversions: Option<&'a Conversions<'a>>,
}

impl OtherVersions<'_> {
    fn between(&self, object: &Value, from: &Kind, to: &Kind) -> Option<Value> {
        match self.conversions {
            Some(conversions) => conversions.get(object, to),
            None => Some(convert(object, from, to)),
        }
    }

    fn find(&self, api_version: &str) -> Option<&Kind> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let other = &*self.served.get(group, version, &self.kind.resource)?.kind;
        let stored = |kind: &Kind| match &kind.storage {
            Some(storage) => (storage.group.to_owned(), storage.resource.to_owned()),
            None => (kind.group.to_string(), kind.resource.to_string()),
        };
        (stored(other) == stored(self.kind)).then_some(other)
    }
}

impl Versions for OtherVersions<'_> {
    fn convert<'s>(&'s self, object: &Value, api_version: &str) -> Option<(Value, &'s Schema)> {
        let other = self.find(api_version)?;
        Some((self.between(object, self.kind, other)?, other.structure()?))
    }

    fn convert_back(&self, object: &Value, api_version: &str) -> Option<Value> {
        self.between(object, self.find(api_version)?, self.kind)
    }
}

/// An object of `from` as one of `to`, which is stored alike.
pub(super) fn convert(object: &Value, from: &Kind, to: &Kind) -> Value {
    let mut object = object.clone();
    if let Some(storage) = &from.storage {
        (storage.to_stored)(&mut object);
    }
    match &to.storage {
        Some(storage) => (storage.from_stored)(&mut object),
        None => meta::set_type(to, &mut object),
    }
    object
}

/// Puts back the times of managed fields when nothing else changed: an update that says what is there already writes
/// nothing.
pub(crate) fn keep_times(object: &mut Value, old: &Value) {
    fn entries(object: &Value) -> Option<&Vec<Value>> {
        object.get("metadata")?.get("managedFields")?.as_array()
    }
    let (Some(new), Some(before)) = (entries(object), entries(old)) else { return };
    if new.len() != before.len() || !new.iter().zip(before).all(|(new, old)| same_but_time(new, old)) || new == before {
        return;
    }
    let (new, before) = (Value::Array(new.clone()), Value::Array(before.clone()));
    create::set(object, "managedFields", before);
    if object != old {
        create::set(object, "managedFields", new);
    }
}

fn same_but_time(new: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else { return false };
    let known = |key: &&String| *key != "time";
    new.keys().filter(known).eq(old.keys().filter(known))
        && new.iter().filter(|(key, _)| known(key)).all(|(key, value)| old.get(key) == Some(value))
}

/// An empty list asks for managed fields to be forgotten, which decoding would drop; a list of nothing says the same.
pub(crate) fn keep_reset(object: &mut Value) {
    let list = object.get_mut("metadata").and_then(|m| m.get_mut("managedFields")).and_then(Value::as_array_mut);
    if let Some(list) = list.filter(|list| list.is_empty()) {
        list.push(Value::Object(serde_json::Map::new()));
    }
}
