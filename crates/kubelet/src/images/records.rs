//! What the kubelet remembers of its pulls, in upstream's files (`kubelet.config.k8s.io/v1beta1`), so that either kubelet can
//! take up where the other ended: `<root>/image_manager/pulling` has one file per image that is being pulled,
//! `<root>/image_manager/pulled` one per image that was, with the secrets that were good for it. No secret is in them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::credentials::repository;
use crate::error::Error;
use crate::managers::state_file::write_whole;

const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";
/// Upstream's before v1.35, with the same fields.
const OLD_API_VERSION: &str = "kubelet.config.k8s.io/v1alpha1";
/// A record is never that long: it has a line per secret, and those are not more than [`MOST_SECRETS`] each.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// Secrets that only turn out to be good for an image are added up to here, as upstream.
const MOST_SECRETS: usize = 100;

/// A pull that began.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ImagePullIntent {
    kind: String,
    api_version: String,
    image: String,
}

/// An image that was pulled.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ImagePulledRecord {
    kind: String,
    api_version: String,
    last_updated_time: Timestamp,
    image_ref: String,
    /// By repository: what gives access to it.
    #[serde(default)]
    credential_mapping: BTreeMap<String, Access>,
}

/// Who may use an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Access {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kubernetes_secrets: Vec<PullSecret>,
    /// Kept for a kubelet with credential providers; this one has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kubernetes_service_accounts: Vec<serde_json::Value>,
    /// It was pulled without credentials.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub node_pods_accessible: bool,
}

/// Credentials that were good for an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PullSecret {
    pub uid: String,
    pub namespace: String,
    pub name: String,
    pub credential_hash: String,
}

impl PullSecret {
    fn is_same_object(&self, other: &PullSecret) -> bool {
        (&self.uid, &self.namespace, &self.name) == (&other.uid, &other.namespace, &other.name)
    }
}

/// What is known of an image that is present.
#[derive(Debug)]
pub(super) enum Origin {
    /// The kubelet did not bring it.
    Preloaded,
    /// The kubelet brought it, for those with this access; `None` where nobody knows for whom.
    Pulled(Option<Access>),
}

/// The files. All calls block, for a moment.
#[derive(Debug)]
pub(super) struct Records {
    pulling: PathBuf,
    pulled: PathBuf,
    /// Pulls under way by image. Whoever reads or writes files has it.
    under_way: Mutex<HashMap<String, u32>>,
}

impl Records {
    pub(super) fn open(root: &Path) -> Result<Records, Error> {
        let dir = root.join("image_manager");
        let (pulling, pulled) = (dir.join("pulling"), dir.join("pulled"));
        for dir in [&pulling, &pulled] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(Error::file("create", dir))?;
        }
        Ok(Records { pulling, pulled, under_way: Mutex::default() })
    }

    /// A pull of `image` begins.
    pub(super) fn begin(&self, image: &str) -> Result<(), Error> {
        let mut under_way = self.under_way.lock();
        let intent = ImagePullIntent {
            kind: "ImagePullIntent".into(),
            api_version: API_VERSION.into(),
            image: image.to_string(),
        };
        write(&self.pulling, image, &intent)?;
        *under_way.entry(image.to_string()).or_default() += 1;
        Ok(())
    }

    /// It ended; on success with what the image is called and who may use it.
    pub(super) fn end(&self, image: &str, pulled: Option<(&str, Access)>, now: Timestamp) -> Result<(), Error> {
        let mut under_way = self.under_way.lock();
        if let Some((reference, access)) = pulled {
            // Without this record the other stays: the image must not count as one that the kubelet did not bring.
            self.allow(image, reference, Some(access), now)?;
        }
        let left = under_way.get(image).copied().unwrap_or(1).saturating_sub(1);
        if left > 0 {
            under_way.insert(image.to_string(), left);
            return Ok(());
        }
        remove(&self.pulling.join(file_name(image)))?;
        under_way.remove(image);
        Ok(())
    }

    /// Where the present image is from.
    pub(super) fn origin(&self, image: &str, reference: &str) -> Result<Origin, Error> {
        let under_way = self.under_way.lock();
        if let Some(mut record) = self.pulled(reference)? {
            return Ok(Origin::Pulled(record.credential_mapping.remove(&repository(image))));
        }
        let begun = under_way.contains_key(image)
            || read::<ImagePullIntent>(&self.pulling.join(file_name(image)))?.is_some_and(|found| found.image == image);
        Ok(if begun { Origin::Pulled(None) } else { Origin::Preloaded })
    }

    /// Whether one of `secrets` was good for the image: by its content, or as the same object that has changed since. What was
    /// not known of it is noted.
    pub(super) fn accepts(&self, image: &str, reference: &str, access: &Access, secrets: &[PullSecret]) -> bool {
        for secret in secrets {
            for known in &access.kubernetes_secrets {
                let same_content = !known.credential_hash.is_empty() && known.credential_hash == secret.credential_hash;
                let same_object = known.is_same_object(secret);
                if !same_content && !same_object {
                    continue;
                }
                let room = access.kubernetes_secrets.len() < MOST_SECRETS;
                if !same_content && !room {
                    continue;
                }
                if !(same_content && same_object) && room {
                    let _one_at_a_time = self.under_way.lock();
                    let more = Access { kubernetes_secrets: vec![secret.clone()], ..Access::default() };
                    if let Err(error) = self.allow(image, reference, Some(more), keelson_client::clock::now()) {
                        tracing::warn!(%error, image, "who may use an image cannot be noted");
                    }
                }
                return true;
            }
        }
        false
    }

    /// Pulls that an earlier kubelet did not see the end of: of those that are among `present` (names and ids), nobody knows
    /// for whom they were.
    pub(super) fn recover(&self, present: &BTreeMap<String, String>, now: Timestamp) {
        let _one_at_a_time = self.under_way.lock();
        for intent in list::<ImagePullIntent>(&self.pulling) {
            let Some(reference) = present.get(&intent.image) else { continue };
            let done = self.allow(&intent.image, reference, None, now);
            if let Err(error) = done.and_then(|()| remove(&self.pulling.join(file_name(&intent.image)))) {
                tracing::warn!(%error, image = intent.image, "a pull that was cut off cannot be noted");
            }
        }
    }

    /// Forgets images that are not `known` and were not pulled since `until`.
    pub(super) fn prune(&self, known: &BTreeSet<String>, until: Timestamp) {
        let _one_at_a_time = self.under_way.lock();
        for record in list::<ImagePulledRecord>(&self.pulled) {
            if record.last_updated_time < until
                && !known.contains(&record.image_ref)
                && let Err(error) = remove(&self.pulled.join(file_name(&record.image_ref)))
            {
                tracing::warn!(%error, image = record.image_ref, "the record of an image that is gone stays");
            }
        }
    }

    fn pulled(&self, reference: &str) -> Result<Option<ImagePulledRecord>, Error> {
        let found = read::<ImagePulledRecord>(&self.pulled.join(file_name(reference)))?;
        Ok(found.filter(|record| record.image_ref == reference))
    }

    /// Adds to the image's record, or begins it. Without `access` it only says that the kubelet brought the image.
    fn allow(&self, image: &str, reference: &str, access: Option<Access>, now: Timestamp) -> Result<(), Error> {
        // A record that cannot be read is written anew.
        let known = self.pulled(reference).unwrap_or_default();
        let is_new = known.is_none();
        let mut record = known.unwrap_or_else(|| ImagePulledRecord {
            kind: "ImagePulledRecord".into(),
            api_version: API_VERSION.into(),
            last_updated_time: now,
            image_ref: reference.to_string(),
            credential_mapping: BTreeMap::new(),
        });
        let changed = access.is_some_and(|access| {
            let place = record.credential_mapping.entry(repository(image)).or_default();
            let before = place.clone();
            place.merge(access);
            *place != before
        });
        if !is_new && !changed {
            return Ok(());
        }
        (record.api_version, record.last_updated_time) = (API_VERSION.into(), whole_seconds(now));
        write(&self.pulled, reference, &record)
    }
}

impl Access {
    fn merge(&mut self, more: Access) {
        if self.node_pods_accessible {
            return;
        }
        if more.node_pods_accessible {
            *self = Access { node_pods_accessible: true, ..Access::default() };
            return;
        }
        for secret in more.kubernetes_secrets {
            self.kubernetes_secrets.retain(|known| !known.is_same_object(&secret));
            self.kubernetes_secrets.push(secret);
        }
        self.kubernetes_secrets.sort_by(|a, b| (&a.namespace, &a.name, &a.uid).cmp(&(&b.namespace, &b.name, &b.uid)));
    }
}

/// As upstream writes times.
fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

fn file_name(of: &str) -> String {
    let digest = Sha256::digest(of);
    format!("sha256-{}", digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

fn write(dir: &Path, of: &str, content: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_vec(content).map_err(|error| Error::message(error.to_string()))?;
    write_whole(&dir.join(file_name(of)), &text)
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let size = match fs::metadata(path) {
        Ok(found) => found.len(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file("read", path)(error)),
    };
    let unusable = |why: String| Error::message(format!("{}: {why}", path.display()));
    if size > MAX_FILE_BYTES {
        return Err(unusable(format!("longer than {MAX_FILE_BYTES} bytes")));
    }
    let text = fs::read(path).map_err(Error::file("read", path))?;
    let value: serde_json::Value = serde_json::from_slice(&text).map_err(|error| unusable(error.to_string()))?;
    let version = value.get("apiVersion").and_then(serde_json::Value::as_str).unwrap_or_default();
    if ![API_VERSION, OLD_API_VERSION].contains(&version) {
        return Err(unusable(format!("apiVersion {version:?} is not known")));
    }
    serde_json::from_value(value).map(Some).map_err(|error| unusable(error.to_string()))
}

/// All records of a directory that can be read.
fn list<T: DeserializeOwned>(dir: &Path) -> Vec<T> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let names = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with("sha256-"));
    names
        .filter_map(|entry| {
            read(&entry.path())
                .inspect_err(|error| tracing::warn!(%error, "a record of an image cannot be read"))
                .ok()
                .flatten()
        })
        .collect()
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::file("remove", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const IMAGE: &str = "r.example/team/app:1";
    const ID: &str = "sha256:abc";

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn secret(name: &str, hash: &str) -> PullSecret {
        PullSecret {
            uid: format!("uid-{name}"),
            namespace: "a".into(),
            name: name.into(),
            credential_hash: hash.into(),
        }
    }

    fn for_secret(secret: PullSecret) -> Access {
        Access { kubernetes_secrets: vec![secret], ..Access::default() }
    }

    fn access(records: &Records, image: &str) -> Option<Access> {
        match records.origin(image, ID).unwrap() {
            Origin::Pulled(access) => access,
            Origin::Preloaded => panic!("the kubelet brought it"),
        }
    }

    #[test]
    fn a_pull_is_remembered_in_upstreams_form() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(dir.path()).unwrap();
        assert!(matches!(records.origin(IMAGE, ID).unwrap(), Origin::Preloaded));
        records.begin(IMAGE).unwrap();
        let intent = dir.path().join("image_manager/pulling").join(file_name(IMAGE));
        assert_eq!(
            fs::read_to_string(&intent).unwrap(),
            format!(r#"{{"kind":"ImagePullIntent","apiVersion":"kubelet.config.k8s.io/v1beta1","image":"{IMAGE}"}}"#)
        );
        assert!(matches!(records.origin(IMAGE, ID).unwrap(), Origin::Pulled(None)), "also while it is pulled");
        records.begin(IMAGE).unwrap();
        records.end(IMAGE, None, at(5)).unwrap();
        assert!(intent.exists(), "another pull of it goes on");
        records.end(IMAGE, Some((ID, for_secret(secret("pull", "h")))), at(1_700_000_000)).unwrap();
        assert!(!intent.exists());
        let record = fs::read(dir.path().join("image_manager/pulled").join(file_name(ID))).unwrap();
        assert_eq!(
            serde_json::from_slice::<serde_json::Value>(&record).unwrap(),
            json!({"kind": "ImagePulledRecord", "apiVersion": "kubelet.config.k8s.io/v1beta1",
                "lastUpdatedTime": "2023-11-14T22:13:20Z", "imageRef": ID,
                "credentialMapping": {"r.example/team/app": {"kubernetesSecrets": [
                    {"uid": "uid-pull", "namespace": "a", "name": "pull", "credentialHash": "h"}]}}})
        );
        // Another kubelet on the same files knows the same.
        let again = Records::open(dir.path()).unwrap();
        assert_eq!(access(&again, IMAGE), Some(for_secret(secret("pull", "h"))));
        assert_eq!(access(&again, "other.example/app"), None, "the same content by another name");
    }

    #[test]
    fn secrets_are_accepted_by_content_or_as_the_same_object() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(dir.path()).unwrap();
        records.end(IMAGE, Some((ID, for_secret(secret("pull", "h")))), at(5)).unwrap();
        let ask = |secrets: &[PullSecret]| {
            let known = access(&records, IMAGE).unwrap();
            records.accepts(IMAGE, ID, &known, secrets)
        };
        assert!(!ask(&[]));
        assert!(!ask(&[secret("other", "x")]));
        assert!(ask(&[secret("other", "h")]), "the same credentials in another secret");
        assert!(ask(&[secret("pull", "rotated")]), "the same secret with other credentials");
        let names: Vec<_> = access(&records, IMAGE).unwrap().kubernetes_secrets;
        assert_eq!(names, [secret("other", "h"), secret("pull", "rotated")], "what turned out is noted");
        records.end(IMAGE, Some((ID, Access { node_pods_accessible: true, ..Access::default() })), at(6)).unwrap();
        let open = access(&records, IMAGE).unwrap();
        assert!(open.node_pods_accessible && open.kubernetes_secrets.is_empty(), "pulled without any: for all");
    }

    #[test]
    fn cut_off_pulls_and_images_that_are_gone() {
        let dir = tempfile::tempdir().unwrap();
        let before = Records::open(dir.path()).unwrap();
        before.begin(IMAGE).unwrap();
        before.begin("r.example/absent:1").unwrap();
        let records = Records::open(dir.path()).unwrap();
        assert!(matches!(records.origin(IMAGE, ID).unwrap(), Origin::Pulled(None)), "before it is looked at");
        records.recover(&[(IMAGE.to_string(), ID.to_string())].into(), at(10));
        assert_eq!(access(&records, IMAGE), None);
        let pulling = || fs::read_dir(dir.path().join("image_manager/pulling")).unwrap().count();
        assert_eq!(pulling(), 1, "one may still come");
        records.prune(&BTreeSet::new(), at(10));
        assert!(matches!(records.origin(IMAGE, ID).unwrap(), Origin::Pulled(None)), "it was noted just now");
        records.prune(&[ID.to_string()].into(), at(11));
        assert!(matches!(records.origin(IMAGE, ID).unwrap(), Origin::Pulled(None)), "it is there");
        records.prune(&BTreeSet::new(), at(11));
        assert!(matches!(records.origin(IMAGE, ID).unwrap(), Origin::Preloaded));
    }

    #[test]
    fn damaged_and_older_records() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(dir.path()).unwrap();
        let path = dir.path().join("image_manager/pulled").join(file_name(ID));
        fs::write(&path, "{").unwrap();
        assert!(records.origin(IMAGE, ID).is_err(), "who may use it is not guessed");
        let old = json!({"kind": "ImagePulledRecord", "apiVersion": OLD_API_VERSION, "imageRef": ID,
            "lastUpdatedTime": "2024-10-21T12:26:40Z",
            "credentialMapping": {"r.example/team/app": {"nodePodsAccessible": true}}});
        fs::write(&path, old.to_string()).unwrap();
        assert!(access(&records, IMAGE).unwrap().node_pods_accessible);
        fs::write(&path, "{").unwrap();
        records.end(IMAGE, Some((ID, for_secret(secret("pull", "h")))), at(5)).unwrap();
        assert_eq!(access(&records, IMAGE), Some(for_secret(secret("pull", "h"))), "a pull writes it anew");
    }
}
