//! `serviceaccounts/token`: issues a token, bound to the objects that the request names.

use bytes::Bytes;
use keelson_api::kind::Write;
use keelson_api::status::{FieldError, Status};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::admission::{self, Operation, Request};
use crate::authn::token::{Audiences, Claims, Kubernetes, MAX_SECONDS, MIN_SECONDS, Reference};
use crate::cache::Entry;
use crate::dispatch::Call;
use crate::http::reply::{self, Reply};
use crate::registry::body::{Strictness, decode};
use crate::registry::create::{self, text, timestamp};
use crate::registry::options::WriteOptions;
use crate::registry::render;

const DEFAULT_SECONDS: i64 = 3600;
/// The life that projected volumes ask for by default. Such tokens live on for a year, so that old clients that never read
/// the file again keep working; a warning is due after the life asked for.
const PROJECTED_SECONDS: i64 = 3607;
const EXTENDED_SECONDS: i64 = 365 * 24 * 3600;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    audiences: Vec<String>,
    expiration_seconds: Option<i64>,
    bound_object_ref: Option<Bound>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Bound {
    api_version: String,
    kind: String,
    name: String,
    uid: String,
}

pub(super) async fn serve(call: &Call, body: Bytes) -> Reply {
    let Call { core, resource, target, query, .. } = call;
    let Some(tokens) = &core.authenticator.tokens else {
        return Err(Status::unavailable("this server has no key that signs service account tokens"));
    };
    let options = WriteOptions::of(call, "CreateOptions")?;
    let mut strictness = Strictness::new(options.field_validation);
    let kind = core.registry.body("authentication.k8s.io", "TokenRequest")?;
    let mut object = decode(kind, &call.media_type(), &body, &mut strictness)?;
    keelson_api::validation::meta::set_type(kind, &mut object);
    kind.strategy.default(&mut object);
    let at = (target.namespace.as_str(), target.name.as_str(), "token");
    let request = Request::write(core, resource, Operation::Create, at, &options);
    admission::mutate(&request, &mut object).await?;
    let spec = object.get("spec").cloned().unwrap_or_else(|| json!({}));
    let spec: Spec = serde_json::from_value(spec).map_err(|e| Status::bad_request(e.to_string()))?;
    for (key, wanted, what) in [("name", &target.name, "name"), ("namespace", &target.namespace, "namespace")] {
        let said = text(&object, key);
        if !said.is_empty() && said != wanted {
            let why = format!("must match the service account {what} if specified");
            let errors = [FieldError::invalid(format!("metadata.{key}"), said, &why)];
            return Err(Status::invalid("authentication.k8s.io", "TokenRequest", &target.name, &errors));
        }
    }
    let mut seconds = spec.expiration_seconds.unwrap_or(DEFAULT_SECONDS);
    let mut errors = kind.strategy.validate(&object, Write::Create);
    if errors.is_empty() {
        errors.extend(judge_seconds(seconds));
    }
    if !errors.is_empty() {
        return Err(Status::invalid("authentication.k8s.io", "TokenRequest", "", &errors));
    }
    let namespace = target.namespace.as_str();
    let entry = resource.cache()?.get(namespace, &target.name);
    let account = reference(&*entry.ok_or_else(|| resource.not_found(&target.name))?)?;
    let mut private = Kubernetes { namespace: namespace.into(), serviceaccount: account, ..Kubernetes::default() };
    if let Some(bound) = &spec.bound_object_ref {
        bind(call, bound, &mut private)?;
    }
    admission::validate(&request, &object).await?;
    let mut warnings = Vec::new();
    if let Some(longest) = tokens.max_seconds.filter(|longest| seconds > *longest) {
        warnings.push(format!("requested expiration of {seconds} seconds shortened to {longest} seconds"));
        seconds = longest;
    }
    let now = keelson_client::clock::now().as_second();
    let audiences = if spec.audiences.is_empty() { tokens.audiences.clone() } else { spec.audiences };
    let for_api = audiences.iter().all(|audience| tokens.audiences.contains(audience));
    let extended = tokens.extend && seconds == PROJECTED_SECONDS && for_api && private.pod.is_some();
    let life = if extended { EXTENDED_SECONDS } else { seconds };
    private.warnafter = extended.then_some(now + seconds);
    let claims = Claims {
        aud: Audiences::Many(audiences.clone()),
        exp: now + life,
        iat: now,
        iss: tokens.issuer.clone(),
        jti: uuid::Uuid::new_v4().to_string(),
        sub: format!("system:serviceaccount:{namespace}:{}", target.name),
        kubernetes: private,
        nbf: now,
    };
    let token = tokens.sign(&claims).map_err(Status::internal)?;
    let expires = jiff::Timestamp::from_second(now + seconds).map_err(Status::internal)?;
    if let Some(map) = object.as_object_mut() {
        let metadata = json!({"name": target.name, "namespace": namespace, "creationTimestamp": create::now()});
        map.insert("metadata".into(), metadata);
        map.insert("status".into(), json!({"token": token, "expirationTimestamp": timestamp(expires)}));
        if let Some(spec) = map.entry("spec").or_insert_with(|| json!({})).as_object_mut() {
            spec.insert("audiences".into(), audiences.into());
            spec.insert("expirationSeconds".into(), seconds.into());
        }
    }
    let mut response = render::object(resource, 201, object, call.accepted()?, query)?;
    reply::warn(&mut response, &warnings);
    Ok(response)
}

fn judge_seconds(seconds: i64) -> Option<FieldError> {
    let field = "spec.expirationSeconds";
    if seconds < MIN_SECONDS {
        Some(FieldError::invalid(field, seconds, "may not specify a duration less than 10 minutes"))
    } else if seconds > MAX_SECONDS {
        Some(FieldError::invalid(field, seconds, "may not specify a duration larger than 2^32 seconds"))
    } else {
        None
    }
}

fn reference(entry: &Entry) -> Result<Reference, Status> {
    let object = entry.decode()?;
    Ok(Reference { name: entry.name().to_owned(), uid: text(&object, "uid").to_owned() })
}

fn bind(call: &Call, bound: &Bound, private: &mut Kubernetes) -> Result<(), Status> {
    let registry = &call.core.registry;
    let namespace = call.target.namespace.as_str();
    let find = |resource: &str, namespace: &str| {
        let resource = registry.known("", resource)?;
        let entry = resource.cache()?.get(namespace, &bound.name).ok_or_else(|| resource.not_found(&bound.name))?;
        let found = reference(&entry)?;
        if !bound.uid.is_empty() && bound.uid != found.uid {
            let wanted = &bound.uid;
            let why = format!(
                "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might \
                 have been deleted and then recreated"
            );
            return Err(Status::conflict("", &bound.kind, &bound.name, &why));
        }
        Ok((found, entry))
    };
    let (group, version) = bound.api_version.split_once('/').unwrap_or(("", &bound.api_version));
    match bound.kind.as_str() {
        _ if !group.is_empty() => return Err(unknown_object(group, version, &bound.kind)),
        "Pod" => {
            let (found, entry) = find("pods", namespace)?;
            let pod = entry.decode()?;
            let field = |path: &str| pod.pointer(path).and_then(Value::as_str).unwrap_or_default();
            let account = field("/spec/serviceAccountName");
            if account != call.target.name {
                return Err(Status::bad_request(format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                    call.target.name
                )));
            }
            let node = field("/spec/nodeName");
            if !node.is_empty() {
                // A node that is not there any more is named without a UID.
                let entry = registry.known("", "nodes")?.cache()?.get("", node);
                let found = entry.map(|entry| reference(&entry)).transpose()?;
                private.node = Some(found.unwrap_or_else(|| Reference { name: node.to_owned(), uid: String::new() }));
            }
            private.pod = Some(found);
        }
        "Secret" => private.secret = Some(find("secrets", namespace)?.0),
        "Node" => private.node = Some(find("nodes", "")?.0),
        other => return Err(unknown_object(group, version, other)),
    }
    Ok(())
}

fn unknown_object(group: &str, version: &str, kind: &str) -> Status {
    Status::bad_request(format!("cannot bind token to object of type {group}/{version}, Kind={kind}"))
}
