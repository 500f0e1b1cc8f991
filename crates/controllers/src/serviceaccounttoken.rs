//! Secrets of type `kubernetes.io/service-account-token`: filled with a token of the account that they name, and deleted with
//! it. Nobody makes such Secrets but users who want a token without an end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use keelson_client::{Key, SharedInformer, WorkQueue, is_conflict, is_not_found, run_workers};
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use serde_json::json;

use crate::common::objects::{annotation, is_deleting, name, namespace, uid};
use crate::context::{Context, objects};

const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
const OF_TYPE: &str = "type=kubernetes.io/service-account-token";
const CA: &str = "ca.crt";
const NAMESPACE: &str = "namespace";
const TOKEN: &str = "token";

/// The `serviceaccount-token-controller`. Without a key it has nothing to do.
pub async fn run(context: Context) {
    let pem = context.config.service_account_private_key_pem.0.as_bytes();
    if pem.is_empty() {
        return;
    }
    let signer = match Signer::new(pem) {
        Ok(signer) => signer,
        Err(error) => return tracing::error!(%error, "the key of service-account tokens cannot be used"),
    };
    let secrets = context.informers.select::<Secret>(None, Some(OF_TYPE));
    let accounts = context.informers.get::<ServiceAccount>();
    if !context.synced(&secrets).await || !context.synced(&accounts).await {
        return;
    }
    let queue: WorkQueue<Key> = WorkQueue::new();
    let on_secret = context.each(&secrets, |change| objects(&change).for_each(|secret| queue.add(Key::of(&**secret))));
    let on_account = context.each(&accounts, |change| {
        for account in objects(&change) {
            let of =
                |secret: &&Arc<Secret>| annotation(&secret.metadata, ACCOUNT_NAME) == Some(name(&account.metadata));
            let all = secrets.list_in(namespace(&account.metadata));
            all.iter().filter(of).for_each(|secret| queue.add(Key::of(&**secret)));
        }
    });
    let workers = context.config.concurrent_serviceaccount_syncs;
    let this =
        Arc::new(Tokens { context: context.clone(), signer, secrets: secrets.clone(), accounts: accounts.clone() });
    let work = run_workers(
        "serviceaccount-token-controller",
        queue.clone(),
        workers,
        context.shutdown.clone(),
        move |key: Key| {
            let this = this.clone();
            async move { this.sync(&key).await }
        },
    );
    tokio::join!(on_secret, on_account, work);
}

struct Signer {
    header: Header,
    key: EncodingKey,
}

impl Signer {
    fn new(pem: &[u8]) -> Result<Self, jsonwebtoken::errors::Error> {
        let (algorithm, key) = match EncodingKey::from_rsa_pem(pem) {
            Ok(key) => (Algorithm::RS256, key),
            Err(_) => (Algorithm::ES256, EncodingKey::from_ec_pem(pem)?),
        };
        Ok(Self { header: Header { typ: None, ..Header::new(algorithm) }, key })
    }

    fn token(&self, secret: &Secret, account: &ServiceAccount) -> Result<String, jsonwebtoken::errors::Error> {
        let (namespace, account_name) = (namespace(&account.metadata), name(&account.metadata));
        let claims = json!({
            "iss": "kubernetes/serviceaccount",
            "kubernetes.io/serviceaccount/namespace": namespace,
            "kubernetes.io/serviceaccount/secret.name": name(&secret.metadata),
            "kubernetes.io/serviceaccount/service-account.name": account_name,
            "kubernetes.io/serviceaccount/service-account.uid": uid(&account.metadata),
            "sub": format!("system:serviceaccount:{namespace}:{account_name}"),
        });
        jsonwebtoken::encode(&self.header, &claims, &self.key)
    }
}

struct Tokens {
    context: Context,
    signer: Signer,
    secrets: SharedInformer<Secret>,
    accounts: SharedInformer<ServiceAccount>,
}

impl Tokens {
    async fn sync(&self, key: &Key) -> Result<Option<Duration>, kube::Error> {
        let Some(secret) = self.secrets.get_key(key).filter(|secret| !is_deleting(&secret.metadata)) else {
            return Ok(None);
        };
        let Some(account) = annotation(&secret.metadata, ACCOUNT_NAME) else { return Ok(None) };
        let namespace = namespace(&secret.metadata);
        let client = &self.context.client;
        let mut found = self.accounts.get(Some(namespace), account).map(|account| (*account).clone());
        if found.as_ref().is_none_or(|account| !belongs(&secret, account)) {
            // The account may be newer than what this process has seen.
            found = Api::<ServiceAccount>::namespaced(client.clone(), namespace).get_opt(account).await?;
        }
        let api = Api::<Secret>::namespaced(client.clone(), namespace);
        let Some(account) = found.filter(|account| belongs(&secret, account)) else {
            let preconditions = Preconditions { uid: secret.metadata.uid.clone(), resource_version: None };
            let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            return match api.delete(key.name(), &params).await {
                Err(error) if !is_not_found(&error) && !is_conflict(&error) => Err(error),
                _ => Ok(None),
            };
        };
        if is_deleting(&account.metadata) {
            return Ok(None);
        }
        let Some(filled) = self.filled(&secret, &account) else { return Ok(None) };
        match api.replace(key.name(), &PostParams::default(), &filled).await {
            // A newer one comes by itself.
            Err(error) if !is_not_found(&error) && !is_conflict(&error) => Err(error),
            _ => Ok(None),
        }
    }

    /// The Secret with what is missing; `None` when nothing is.
    fn filled(&self, secret: &Secret, account: &ServiceAccount) -> Option<Secret> {
        let none = BTreeMap::new();
        let data = secret.data.as_ref().unwrap_or(&none);
        let ca = self.context.config.root_ca_pem.as_bytes();
        let has = |key: &str| data.get(key).is_some_and(|value| !value.0.is_empty());
        let has_ca = ca.is_empty() || data.get(CA).is_some_and(|value| value.0 == ca);
        let has_uid = annotation(&secret.metadata, ACCOUNT_UID) == Some(uid(&account.metadata));
        if has_ca && has_uid && has(NAMESPACE) && has(TOKEN) {
            return None;
        }
        let mut filled = secret.clone();
        let data = filled.data.get_or_insert_default();
        if !has_ca {
            data.insert(CA.into(), ByteString(ca.to_vec()));
        }
        if !has(NAMESPACE) {
            data.insert(NAMESPACE.into(), ByteString(namespace(&secret.metadata).into()));
        }
        if !has(TOKEN) {
            let token = self.signer.token(secret, account);
            let token = token.inspect_err(|error| tracing::error!(%error, "a token cannot be signed")).ok()?;
            data.insert(TOKEN.into(), ByteString(token.into_bytes()));
        }
        let annotations = filled.metadata.annotations.get_or_insert_default();
        annotations.insert(ACCOUNT_NAME.into(), name(&account.metadata).into());
        annotations.insert(ACCOUNT_UID.into(), uid(&account.metadata).into());
        Some(filled)
    }
}

/// Whether a Secret is for this account, and not for one of the same name before it.
fn belongs(secret: &Secret, account: &ServiceAccount) -> bool {
    annotation(&secret.metadata, ACCOUNT_UID).is_none_or(|known| known.is_empty() || known == uid(&account.metadata))
}
