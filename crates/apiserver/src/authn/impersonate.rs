//! `Impersonate-*` headers: acting as somebody else, when RBAC lets one (`kubectl --as`).

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue};
use keelson_api::status::Status;
use keelson_api::validation::names;

use crate::UserInfo;
use crate::authz::Attributes;
use crate::core::Core;
use crate::user::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";

/// The user as whom the request is to be judged.
pub(crate) async fn effective_user(
    core: &Core,
    user: Arc<UserInfo>,
    headers: &HeaderMap,
) -> Result<Arc<UserInfo>, Status> {
    if !headers.keys().any(|key| key.as_str().starts_with("impersonate-")) {
        return Ok(user);
    }
    let values = |name: &str| -> Result<Vec<String>, Status> { headers.get_all(name).iter().map(text).collect() };
    let named = values(USER)?.into_iter().next().filter(|name| !name.is_empty());
    let Some(name) = named else { return Err(Status::internal(without_user(headers))) };
    let may = async |resource: &str, group: &str, namespace: &str, name: &str, subresource: &str| {
        let mut attributes = Attributes::on("impersonate", group, resource, namespace, name);
        attributes.subresource = subresource.into();
        core.authorizer.check(&user, &attributes).await
    };
    let named_groups = values(GROUP)?;
    let mut groups = named_groups.clone();
    match service_account(&name) {
        Some((namespace, account)) => {
            may("serviceaccounts", "", namespace, account, "").await?;
            if groups.is_empty() {
                groups = UserInfo::service_account(namespace, account, "").groups;
            }
        }
        None => may("users", "", "", &name, "").await?,
    }
    for group in &named_groups {
        may("groups", "", "", group, "").await?;
    }
    let uid = values(UID)?.into_iter().next().unwrap_or_default();
    if !uid.is_empty() {
        may("uids", "authentication.k8s.io", "", &uid, "").await?;
    }
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for key in headers.keys() {
        let Some(field) = key.as_str().strip_prefix(EXTRA) else { continue };
        let field = crate::http::query::percent_decode(field);
        for value in values(key.as_str())? {
            may("userextras", "authentication.k8s.io", "", &value, &field).await?;
            extra.entry(field.clone()).or_default().push(value);
        }
    }
    // Whoever is somebody is authenticated, unless a group says that he is not; nobody never is.
    let has = |wanted: &str| groups.iter().any(|group| group == wanted);
    if name == ANONYMOUS {
        if !has(UNAUTHENTICATED) {
            groups.push(UNAUTHENTICATED.into());
        }
    } else if !has(AUTHENTICATED) && !has(UNAUTHENTICATED) {
        groups.push(AUTHENTICATED.into());
    }
    Ok(Arc::new(UserInfo { name, uid, groups, extra }))
}

/// A header's text. One that is none is refused: leaving out a group could let somebody do more.
fn text(value: &HeaderValue) -> Result<String, Status> {
    let text = std::str::from_utf8(value.as_bytes());
    text.map(str::to_owned).map_err(|_| Status::bad_request("impersonation headers must be UTF-8"))
}

/// Namespace and name, where a user's name is a service account's; other names that begin so are plain users'.
fn service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    let good = names::label(namespace).is_empty() && names::subdomain(name).is_empty();
    good.then_some((namespace, name))
}

/// What upstream says of headers that name no user: it shows the references that it makes of them.
fn without_user(headers: &HeaderMap) -> String {
    let shown = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let mut requests: Vec<String> =
        headers.get_all(GROUP).iter().map(|group| format!("{{Group  {}    }}", shown(group))).collect();
    for (key, value) in headers {
        if let Some(field) = key.as_str().strip_prefix(EXTRA) {
            let field = crate::http::query::percent_decode(field);
            requests.push(format!("{{UserExtra  {}  authentication.k8s.io/v1  {field}}}", shown(value)));
        }
    }
    let uids = headers.get_all(UID).iter().take(1);
    requests.extend(uids.map(|uid| format!("{{UID  {}  authentication.k8s.io/v1  }}", shown(uid))));
    format!("requested [{}] without impersonating a user", requests.join(" "))
}
