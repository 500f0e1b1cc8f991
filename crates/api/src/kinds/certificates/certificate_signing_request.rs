//! CertificateSigningRequest

use std::borrow::Cow;

use serde_json::{Value, json};

use super::rules;
use crate::apply::Reset;
use crate::kind::{Column, Kind, NameRule, Stamp, Strategy, Verb, Write};
use crate::kinds::mutate::{Object, child, make, set};
use crate::kinds::prepare_plain;
use crate::kinds::print::{NONE, age, human_duration, items, or, or_none};
use crate::schema::format_time;
use crate::status::FieldError;

/// What the server says of whoever asked.
const ASKER: [&str; 4] = ["username", "uid", "groups", "extra"];

pub(crate) fn kind() -> Kind {
    Kind::cluster(
        "certificates.k8s.io",
        "v1",
        "CertificateSigningRequest",
        "certificatesigningrequests",
        &CertificateSigningRequest,
    )
    .short("csr")
    .sub("approval", &[Verb::Get, Verb::Patch, Verb::Update])
    .with_status()
    .select("spec.signerName", |csr| Cow::Borrowed(csr["spec"]["signerName"].as_str().unwrap_or_default()))
    .columns(vec![
        age(),
        Column::string("SignerName", "Who is to sign.", |csr, _| or_none(&csr["spec"]["signerName"])),
        Column::string("Requestor", "Who asked.", |csr, _| or(&csr["spec"]["username"], "")),
        Column::string("RequestedDuration", "How long the certificate is wanted for.", |csr, _| {
            csr["spec"]["expirationSeconds"].as_i64().map_or(NONE.into(), human_duration).into()
        }),
        Column::string("Condition", "What has become of it.", |csr, _| state(csr).into()),
    ])
}

fn state(csr: &Value) -> String {
    let status = &csr["status"];
    let is = |kind: &str| items(&status["conditions"]).any(|condition| condition["type"] == kind);
    let decided = match (is("Denied"), is("Approved")) {
        (true, _) => "Denied",
        (false, true) => "Approved",
        (false, false) => "Pending",
    };
    let failed = if is("Failed") { ",Failed" } else { "" };
    let issued = if status["certificate"].as_str().unwrap_or_default().is_empty() { "" } else { ",Issued" };
    format!("{decided}{failed}{issued}")
}

#[derive(Debug)]
struct CertificateSigningRequest;

impl Strategy for CertificateSigningRequest {
    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        match write {
            Write::Create => {
                prepare_plain(object, write);
                if let Some(spec) = object.as_object_mut().and_then(|object| child(object, "spec")) {
                    ASKER.iter().for_each(|field| drop(spec.remove(*field)));
                }
            }
            Write::Update(old) => {
                prepare_plain(object, write);
                if let Some(map) = object.as_object_mut() {
                    replace(map, "spec", old.get("spec"));
                }
            }
            Write::Subresource("approval", old) => {
                let conditions = object.get("status").and_then(|status| status.get("conditions")).cloned();
                prepare_plain(object, Write::Update(old));
                let Some(map) = object.as_object_mut() else { return };
                replace(map, "spec", old.get("spec"));
                if let Some(status) = make(map, "status") {
                    replace(status, "conditions", conditions.as_ref());
                }
            }
            Write::Subresource(_, old) => {
                prepare_plain(object, write);
                let conditions = object.pointer_mut("/status/conditions").and_then(Value::as_array_mut);
                if let Some(conditions) = conditions {
                    ["Approved", "Denied"].iter().for_each(|kind| keep_conditions(conditions, old, kind));
                }
            }
        }
    }

    fn stamp(&self, object: &mut Value, write: Write<'_>, stamp: &Stamp<'_>) {
        let Some(map) = object.as_object_mut() else { return };
        match write {
            Write::Create => {
                let Some(spec) = make(map, "spec") else { return };
                if !stamp.user.is_empty() {
                    spec.insert("username".into(), stamp.user.into());
                }
                if !stamp.uid.is_empty() {
                    spec.insert("uid".into(), stamp.uid.into());
                }
                if !stamp.groups.is_empty() {
                    spec.insert("groups".into(), stamp.groups.into());
                }
                if !stamp.extra.is_empty() {
                    spec.insert("extra".into(), json!(stamp.extra));
                }
            }
            Write::Update(_) => {}
            Write::Subresource(_, old) => {
                let Some(status) = child(map, "status") else { return };
                set_times(status, old, &format_time(stamp.now, 0));
            }
        }
    }

    fn reset_fields(&self, subresource: &str) -> Option<Reset> {
        (subresource == "approval").then_some(Reset::Fields(&[&["f:spec"], &["f:status", "f:certificate"]]))
    }

    fn validate(&self, object: &Value, write: Write<'_>) -> Vec<FieldError> {
        rules::validate(object, write)
    }

    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }
}

fn replace(map: &mut Object, key: &str, value: Option<&Value>) {
    match value {
        Some(value) => drop(map.insert(key.into(), value.clone())),
        None => drop(map.remove(key)),
    }
}

/// A status update that names as many conditions of a kind as there are keeps them as they are.
fn keep_conditions(conditions: &mut [Value], old: &Value, kind: &str) {
    let old: Vec<&Value> = items(&old["status"]["conditions"]).filter(|old| old["type"] == kind).collect();
    let new: Vec<&mut Value> = conditions.iter_mut().filter(|new| new["type"] == kind).collect();
    if new.len() == old.len() {
        for (new, old) in new.into_iter().zip(old) {
            *new = old.clone();
        }
    }
}

/// Fills in when each condition was last touched, and when it came to be what it is.
fn set_times(status: &mut Object, old: &Value, now: &str) {
    for condition in crate::kinds::mutate::each(status, "conditions") {
        set(condition, "lastUpdateTime", now);
        let same = |old: &&Value| ["type", "status"].iter().all(|field| old.get(*field) == condition.get(*field));
        let since = items(&old["status"]["conditions"]).find(same).and_then(|old| old["lastTransitionTime"].as_str());
        let since = since.unwrap_or(now).to_string();
        set(condition, "lastTransitionTime", since);
    }
}
