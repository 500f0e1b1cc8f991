//! What is known so far of an audited request, and the event that is made of it at each stage.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::USER_AGENT;
use http::{HeaderMap, Uri};
use jiff::Timestamp;
use keelson_client::clock;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::legacy::Line;
use super::policy::{Level, Stage, Verdict};
use crate::UserInfo;
use crate::http::path::RequestInfo;
use crate::registry::create::micro_time;

/// Bytes of `userAgent`.
const USER_AGENT_BYTES: usize = 1024;
/// Annotations of one event; more are left out.
const MAX_ANNOTATIONS: usize = 256;
/// The annotation of an event whose objects were too large.
const TRUNCATED: &str = "audit.k8s.io/truncated";

/// A request that is audited.
#[derive(Debug)]
pub(crate) struct Record {
    level: Level,
    omit_stages: Vec<Stage>,
    omit_managed_fields: bool,
    id: String,
    uri: String,
    verb: String,
    user: Option<Arc<UserInfo>>,
    source_ips: Vec<IpAddr>,
    user_agent: String,
    received: Timestamp,
    later: Mutex<Later>,
}

/// What comes to be known while the request is served.
#[derive(Debug, Default)]
struct Later {
    object: Option<ObjectRef>,
    impersonated: Option<Arc<UserInfo>>,
    status: Option<Value>,
    request: Option<Box<RawValue>>,
    response: Option<Box<RawValue>>,
    annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct ObjectRef {
    #[serde(skip_serializing_if = "String::is_empty")]
    resource: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    uid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    api_group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    api_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    resource_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    subresource: String,
}

/// `authentication.k8s.io/v1 UserInfo`
#[derive(Serialize)]
struct User<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    username: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    uid: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    groups: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    extra: Option<&'a BTreeMap<String, Vec<String>>>,
}

/// The event on the wire, fields in upstream's order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    kind: &'static str,
    api_version: &'static str,
    level: Level,
    #[serde(rename = "auditID")]
    audit_id: &'a str,
    stage: Stage,
    #[serde(rename = "requestURI")]
    request_uri: &'a str,
    verb: &'a str,
    user: User<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    impersonated_user: Option<User<'a>>,
    #[serde(rename = "sourceIPs", skip_serializing_if = "<[IpAddr]>::is_empty")]
    source_ips: &'a [IpAddr],
    #[serde(skip_serializing_if = "str::is_empty")]
    user_agent: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_ref: Option<&'a ObjectRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_status: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_object: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_object: Option<&'a RawValue>,
    request_received_timestamp: String,
    stage_timestamp: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

/// A request as it came in.
pub(crate) struct Incoming<'a> {
    pub(crate) id: &'a str,
    pub(crate) uri: &'a Uri,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) info: &'a RequestInfo,
    /// The peer; `None` for components in this process.
    pub(crate) address: Option<IpAddr>,
    pub(crate) received: Timestamp,
}

impl Record {
    pub(super) fn new(verdict: &Verdict<'_>, request: &Incoming<'_>, user: Option<Arc<UserInfo>>) -> Self {
        let Incoming { id, uri, headers, info, address, received } = *request;
        let object = info.target.as_ref().map(|target| ObjectRef {
            resource: target.resource.clone(),
            namespace: target.namespace.clone(),
            name: target.name.clone(),
            api_group: target.group.clone(),
            api_version: target.version.clone(),
            subresource: target.subresource.clone(),
            ..ObjectRef::default()
        });
        Self {
            level: verdict.level,
            omit_stages: verdict.omit_stages.to_vec(),
            omit_managed_fields: verdict.omit_managed_fields,
            id: id.to_owned(),
            uri: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            verb: info.verb.clone(),
            user,
            source_ips: source_ips(headers, address),
            user_agent: user_agent(headers),
            received,
            later: Mutex::new(Later { object, ..Later::default() }),
        }
    }

    pub(crate) fn level(&self) -> Level {
        self.level
    }

    /// Adds an annotation, unless its key is there.
    pub(crate) fn annotate(&self, key: impl Into<String>, value: impl Into<String>) {
        let annotations = &mut self.later.lock().annotations;
        if annotations.len() < MAX_ANNOTATIONS {
            annotations.entry(key.into()).or_insert_with(|| value.into());
        }
    }

    /// The user acts as another.
    pub(crate) fn impersonated(&self, user: &Arc<UserInfo>) {
        self.later.lock().impersonated = Some(user.clone());
    }

    /// The body that was sent, as JSON. What it says of the object's identity is noted at every level, the body itself only
    /// where the policy wants it. A patch is no object.
    pub(crate) fn request_object(&self, json: &[u8], patch: bool) {
        if !patch && let Ok(view) = serde_json::from_slice::<Identity>(json) {
            let mut later = self.later.lock();
            let object = later.object.get_or_insert_default();
            let metadata = view.metadata.unwrap_or_default();
            for (field, value) in [
                (&mut object.namespace, metadata.namespace),
                (&mut object.name, metadata.name),
                (&mut object.uid, metadata.uid),
                (&mut object.resource_version, metadata.resource_version),
            ] {
                if field.is_empty() {
                    *field = value.unwrap_or_default();
                }
            }
        }
        if self.level >= Level::Request {
            let body = self.body(json);
            self.later.lock().request = body;
        }
    }

    /// The body of the response, as JSON, where the policy wants it.
    pub(crate) fn response_object(&self, json: &[u8]) {
        let body = self.body(json);
        self.later.lock().response = body;
    }

    /// What the answer is: a `Status`, or nothing but its code.
    pub(crate) fn answered(&self, code: u16, status: Option<Value>) {
        let mut status = status.unwrap_or_else(|| json!({"metadata": {}, "code": code}));
        if let Some(map) = status.as_object_mut() {
            map.remove("kind");
            map.remove("apiVersion");
            map.entry("code").or_insert_with(|| code.into());
        }
        self.later.lock().status = Some(status);
    }

    fn body(&self, json: &[u8]) -> Option<Box<RawValue>> {
        if !self.omit_managed_fields {
            return serde_json::from_slice(json).ok();
        }
        let mut value: Value = serde_json::from_slice(json).ok()?;
        drop_managed_fields(&mut value);
        serde_json::value::to_raw_value(&value).ok()
    }

    pub(super) fn uri(&self) -> &str {
        &self.uri
    }

    /// The event of a stage; `None` when the policy leaves the stage out.
    pub(super) fn at(&self, stage: Stage) -> Option<Moment<'_>> {
        if self.omit_stages.contains(&stage) {
            return None;
        }
        let at = if stage == Stage::RequestReceived { self.received } else { clock::now() };
        Some(Moment { record: self, stage, at })
    }
}

/// A stage of a request.
pub(super) struct Moment<'a> {
    record: &'a Record,
    stage: Stage,
    at: Timestamp,
}

impl Moment<'_> {
    /// Whether the event would be smaller without objects.
    pub(super) fn has_objects(&self) -> bool {
        self.record.level >= Level::Request
    }

    /// As a line of JSON; truncated, it says so and has no objects.
    pub(super) fn json(&self, truncated: bool) -> Bytes {
        let Self { record, stage, at } = self;
        let later = record.later.lock();
        let annotations = match truncated {
            true => {
                let mut annotations = later.annotations.clone();
                annotations.insert(TRUNCATED.into(), "true".into());
                Cow::Owned(annotations)
            }
            false => Cow::Borrowed(&later.annotations),
        };
        let event = Event {
            kind: "Event",
            api_version: "audit.k8s.io/v1",
            level: record.level,
            audit_id: &record.id,
            stage: *stage,
            request_uri: &record.uri,
            verb: &record.verb,
            user: user(record.user.as_deref()),
            impersonated_user: later.impersonated.as_deref().map(|impersonated| user(Some(impersonated))),
            source_ips: &record.source_ips,
            user_agent: &record.user_agent,
            object_ref: later.object.as_ref(),
            response_status: later.status.as_ref(),
            request_object: later.request.as_deref().filter(|_| !truncated),
            response_object: later.response.as_deref().filter(|_| !truncated),
            request_received_timestamp: micro_time(record.received),
            stage_timestamp: micro_time(*at),
            annotations: &annotations,
        };
        // Its parts are plain data: there is nothing that could not be written.
        let mut line = serde_json::to_vec(&event).unwrap_or_default();
        line.push(b'\n');
        line.into()
    }

    /// As a line of text.
    pub(super) fn legacy(&self) -> Bytes {
        let Self { record, stage, .. } = self;
        let later = record.later.lock();
        let line = Line {
            received: record.received,
            id: &record.id,
            stage: *stage,
            ip: record.source_ips.first(),
            verb: &record.verb,
            user: record.user.as_deref(),
            impersonated: later.impersonated.as_deref(),
            user_agent: &record.user_agent,
            namespace: later.object.as_ref().map(|object| object.namespace.as_str()),
            uri: &record.uri,
            code: later.status.as_ref().and_then(|status| status["code"].as_u64()),
        };
        format!("{line}\n").into()
    }
}

/// What identifies the object of a body.
#[derive(serde::Deserialize)]
struct Identity {
    metadata: Option<IdentityFields>,
}

#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct IdentityFields {
    namespace: Option<String>,
    name: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
}

fn user(user: Option<&UserInfo>) -> User<'_> {
    match user {
        None => User { username: "", uid: "", groups: &[], extra: None },
        Some(UserInfo { name, uid, groups, extra }) => {
            User { username: name, uid, groups, extra: Some(extra).filter(|extra| !extra.is_empty()) }
        }
    }
}

/// The clients that proxies name, then the peer.
fn source_ips(headers: &HeaderMap, address: Option<IpAddr>) -> Vec<IpAddr> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut all: Vec<IpAddr> = text("x-forwarded-for").split(',').filter_map(|ip| ip.trim().parse().ok()).collect();
    if let Ok(real) = text("x-real-ip").trim().parse()
        && !all.contains(&real)
    {
        all.push(real);
    }
    let peer = address.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
    if all.last() != Some(&peer) {
        all.push(peer);
    }
    all
}

fn user_agent(headers: &HeaderMap) -> String {
    let agent = headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match agent.get(..USER_AGENT_BYTES) {
        Some(short) if agent.len() > USER_AGENT_BYTES => format!("{short}...TRUNCATED"),
        _ => agent.to_owned(),
    }
}

/// Of an object, a list's items, or a table's rows.
fn drop_managed_fields(value: &mut Value) {
    fn drop_own(value: &mut Value) {
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
    }
    drop_own(value);
    for item in value.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
        drop_own(item);
    }
    for row in value.get_mut("rows").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(object) = row.get_mut("object") {
            drop_own(object);
        }
    }
}
