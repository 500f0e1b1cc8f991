//! The files of configMap, secret, downwardAPI and projected volumes, gathered from the API.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, Pod, ServiceAccountTokenProjection, Volume};
use tokio::sync::Notify;

use super::atomic::{File, Payload};
use super::token::Tokens;
use crate::downward::{self, Addresses};
use crate::error::Error;
use crate::objects::Objects;
use crate::pod::view;
use crate::quantity::ResourceList;

/// Mode of files whose volume names none.
const DEFAULT_MODE: i32 = 0o644;

/// Where content comes from.
pub(super) struct Gather<'a> {
    pub pod: &'a Pod,
    pub objects: &'a Objects,
    pub tokens: &'a Tokens,
    pub addresses: &'a Addresses,
    pub allocatable: &'a ResourceList,
    /// Told when an object that was read changes.
    pub changed: &'a Arc<Notify>,
}

/// The files of a volume and when they must be made anew.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub payload: Payload,
    pub refresh_at: Option<Timestamp>,
}

impl Gather<'_> {
    /// The files of `volume`; `None` when it is of another kind.
    pub(super) async fn volume(&self, volume: &Volume) -> Result<Option<Gathered>, Error> {
        let mut gathered = Gathered::default();
        if let Some(source) = &volume.config_map {
            let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
            let optional = source.optional == Some(true);
            gathered.payload = self.config_map(&source.name, source.items.as_deref(), mode, optional).await?;
        } else if let Some(source) = &volume.secret {
            let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
            let optional = source.optional == Some(true);
            let name = source.secret_name.as_deref().unwrap_or_default();
            gathered.payload = self.secret(name, source.items.as_deref(), mode, optional).await?;
        } else if let Some(source) = &volume.downward_api {
            let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
            gathered.payload = self.downward(source.items.as_deref().unwrap_or_default(), mode)?;
        } else if let Some(source) = &volume.projected {
            let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
            for source in source.sources.iter().flatten() {
                if let Some(map) = &source.config_map {
                    let optional = map.optional == Some(true);
                    let files = self.config_map(&map.name, map.items.as_deref(), mode, optional).await?;
                    gathered.payload.extend(files);
                }
                if let Some(secret) = &source.secret {
                    let optional = secret.optional == Some(true);
                    let files = self.secret(&secret.name, secret.items.as_deref(), mode, optional).await?;
                    gathered.payload.extend(files);
                }
                if let Some(own) = &source.downward_api {
                    gathered.payload.extend(self.downward(own.items.as_deref().unwrap_or_default(), mode)?);
                }
                if let Some(token) = &source.service_account_token {
                    self.token(token, mode, &mut gathered).await?;
                }
                if source.cluster_trust_bundle.is_some() || source.pod_certificate.is_some() {
                    return Err(Error::message("clusterTrustBundle and podCertificate projections are not supported"));
                }
            }
        } else {
            return Ok(None);
        }
        Ok(Some(gathered))
    }

    async fn config_map(
        &self,
        name: &str,
        items: Option<&[KeyToPath]>,
        mode: i32,
        optional: bool,
    ) -> Result<Payload, Error> {
        let namespace = view::namespace(self.pod);
        match self.objects.config_maps.get(namespace, name, view::uid(self.pod), Some(self.changed)).await? {
            Some(map) => {
                let mut data: BTreeMap<&str, &[u8]> = BTreeMap::new();
                data.extend(map.data.iter().flatten().map(|(key, value)| (key.as_str(), value.as_bytes())));
                data.extend(map.binary_data.iter().flatten().map(|(key, value)| (key.as_str(), value.0.as_slice())));
                select(&data, items, mode, optional, "configmap references non-existent config key")
            }
            None if optional => Ok(Payload::new()),
            None => Err(Error::message(format!("configmap {name:?} not found"))),
        }
    }

    async fn secret(
        &self,
        name: &str,
        items: Option<&[KeyToPath]>,
        mode: i32,
        optional: bool,
    ) -> Result<Payload, Error> {
        let namespace = view::namespace(self.pod);
        match self.objects.secrets.get(namespace, name, view::uid(self.pod), Some(self.changed)).await? {
            Some(secret) => {
                let data: BTreeMap<&str, &[u8]> =
                    secret.data.iter().flatten().map(|(key, value)| (key.as_str(), value.0.as_slice())).collect();
                select(&data, items, mode, optional, "references non-existent secret key")
            }
            None if optional => Ok(Payload::new()),
            None => Err(Error::message(format!("secret {name:?} not found"))),
        }
    }

    fn downward(&self, items: &[DownwardAPIVolumeFile], default_mode: i32) -> Result<Payload, Error> {
        let mut payload = Payload::new();
        for item in items {
            let text = if let Some(selector) = &item.field_ref {
                downward::field(self.pod, selector, self.addresses)?
            } else if let Some(selector) = &item.resource_field_ref {
                downward::resource(self.pod, None, selector, self.allocatable)?
            } else {
                continue;
            };
            let mode = item.mode.unwrap_or(default_mode);
            payload.insert(normal(&item.path), File { data: text.into_bytes(), mode: mode as u32 & 0o777, uid: None });
        }
        Ok(payload)
    }

    async fn token(
        &self,
        source: &ServiceAccountTokenProjection,
        mode: i32,
        gathered: &mut Gathered,
    ) -> Result<(), Error> {
        let token = self.tokens.get(self.pod, source).await?;
        let (mode, uid) = match token_owner(self.pod) {
            TokenOwner::Default => (mode as u32 & 0o777, None),
            TokenOwner::Group => (0o600, None),
            TokenOwner::User(uid) => (0o600, Some(uid)),
        };
        gathered.payload.insert(normal(&source.path), File { data: token.text.into_bytes(), mode, uid });
        let earlier = gathered.refresh_at.filter(|earlier| *earlier < token.refresh_at);
        gathered.refresh_at = Some(earlier.unwrap_or(token.refresh_at));
        Ok(())
    }
}

/// Who must be able to read a token.
enum TokenOwner {
    Default,
    Group,
    User(u32),
}

/// A pod with an fsGroup reads tokens by its group; one whose containers all run as one user, by that user.
fn token_owner(pod: &Pod) -> TokenOwner {
    let Some(spec) = view::spec(pod) else { return TokenOwner::Default };
    let context = spec.security_context.as_ref();
    if context.and_then(|context| context.fs_group).is_some() {
        return TokenOwner::Group;
    }
    let pod_user = context.and_then(|context| context.run_as_user);
    let users: Vec<Option<i64>> = view::init_containers(pod)
        .iter()
        .chain(view::containers(pod))
        .map(|container| container.security_context.as_ref().and_then(|own| own.run_as_user).or(pod_user))
        .collect();
    match users.first() {
        Some(Some(user)) if users.iter().all(|other| other == &Some(*user)) => {
            u32::try_from(*user).map_or(TokenOwner::Default, TokenOwner::User)
        }
        _ => TokenOwner::Default,
    }
}

fn normal(path: &str) -> String {
    path.split('/').filter(|part| !part.is_empty() && *part != ".").collect::<Vec<_>>().join("/")
}

fn select(
    data: &BTreeMap<&str, &[u8]>,
    items: Option<&[KeyToPath]>,
    mode: i32,
    optional: bool,
    complaint: &str,
) -> Result<Payload, Error> {
    let file = |data: &[u8], mode: i32| File { data: data.to_vec(), mode: mode as u32 & 0o777, uid: None };
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return Ok(data.iter().map(|(key, value)| (key.to_string(), file(value, mode))).collect());
    };
    let mut payload = Payload::new();
    for item in items {
        match data.get(item.key.as_str()) {
            Some(value) => {
                payload.insert(normal(&item.path), file(value, item.mode.unwrap_or(mode)));
            }
            None if optional => {}
            None => return Err(Error::message(format!("{complaint}: {}", item.key))),
        }
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_pick_and_rename() {
        let data: BTreeMap<&str, &[u8]> = [("a", b"1".as_slice()), ("b", b"2")].into();
        let item = |key: &str, path: &str, mode| KeyToPath { key: key.into(), path: path.into(), mode };
        let all = select(&data, None, 0o644, false, "").unwrap();
        assert_eq!(all.keys().collect::<Vec<_>>(), ["a", "b"]);
        let some = select(&data, Some(&[item("b", "x//y", Some(0o400))]), 0o644, false, "").unwrap();
        assert_eq!(some.get("x/y").map(|file| (file.data.as_slice(), file.mode)), Some((b"2".as_slice(), 0o400)));
        let missing =
            select(&data, Some(&[item("c", "c", None)]), 0o644, false, "configmap references non-existent config key");
        assert_eq!(missing.unwrap_err().to_string(), "configmap references non-existent config key: c");
        assert!(select(&data, Some(&[item("c", "c", None)]), 0o644, true, "").unwrap().is_empty());
    }
}
