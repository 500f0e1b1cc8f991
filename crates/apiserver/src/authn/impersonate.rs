//! `Impersonate-*` headers: acting as somebody else, when RBAC lets one (`kubectl --as`).

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderMap;
use keelson_api::status::Status;

use crate::UserInfo;
use crate::authz::Attributes;
use crate::core::Core;
use crate::user::{AUTHENTICATED, UNAUTHENTICATED};

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
    let values = |name: &str| headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).map(str::to_owned);
    let Some(name) = values(USER).next() else {
        return Err(Status::internal("impersonation headers without a user to impersonate"));
    };
    let may = async |resource: &str, group: &str, namespace: &str, name: &str, subresource: &str| {
        let mut attributes = Attributes::on("impersonate", group, resource, namespace, name);
        attributes.subresource = subresource.into();
        core.authorizer.check(&user, &attributes).await
    };
    let mut groups: Vec<String> = values(GROUP).collect();
    let probe = UserInfo::new(name.as_str(), Vec::<String>::new());
    match probe.as_service_account() {
        Some((namespace, account)) => {
            may("serviceaccounts", "", namespace, account, "").await?;
            if groups.is_empty() {
                groups = UserInfo::service_account(namespace, account, "").groups;
            }
        }
        None => may("users", "", "", &name, "").await?,
    }
    for group in values(GROUP) {
        may("groups", "", "", &group, "").await?;
    }
    let uid = values(UID).next().unwrap_or_default();
    if !uid.is_empty() {
        may("uids", "authentication.k8s.io", "", &uid, "").await?;
    }
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for key in headers.keys() {
        let Some(field) = key.as_str().strip_prefix(EXTRA) else { continue };
        let field = crate::http::query::percent_decode(field);
        for value in values(key.as_str()) {
            may("userextras", "authentication.k8s.io", "", &value, &field).await?;
            extra.entry(field.clone()).or_default().push(value);
        }
    }
    let default = if name == "system:anonymous" { UNAUTHENTICATED } else { AUTHENTICATED };
    if !groups.iter().any(|g| g == AUTHENTICATED || g == UNAUTHENTICATED) {
        groups.push(default.into());
    }
    Ok(Arc::new(UserInfo { name, uid, groups, extra }))
}
