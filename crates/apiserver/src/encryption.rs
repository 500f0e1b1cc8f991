//! Encryption at rest: the form in which objects are kept in the store, by upstream's `EncryptionConfiguration`. The watch
//! cache holds plain objects; what is read from the store passes [`Encryption::open`], what is written [`Encryption::seal`].
//!
//! - [`config`]: the configuration file
//! - [`cipher`]: upstream's providers
//! - [`own`]: the configuration that a server makes for itself
//! - [`reload`]: follows the file

mod cipher;
mod config;
mod own;
pub(crate) mod reload;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use keelson_api::status::Status;
use keelson_store::KeyValue;
use parking_lot::Mutex;

use self::cipher::Cipher;
use crate::Error;
use crate::cache::{Cache, Entry, ResourceCache};

/// Every encrypted value starts so.
const MARK: &[u8] = b"k8s:enc:";

/// Where the configuration is.
#[derive(Clone, Debug)]
pub struct EncryptionFile {
    /// `--encryption-provider-config`
    pub path: PathBuf,
    /// `--encryption-provider-config-automatic-reload`
    pub automatic_reload: bool,
    /// It was made at this start: what is encrypted already, it cannot open.
    pub made: bool,
}

/// Seals and opens stored values. Without a configuration it passes them through.
#[derive(Default)]
pub(crate) struct Encryption {
    rules: ArcSwap<Rules>,
    /// Digests of the keys ever used by this process; a key's place is its number.
    keys: Mutex<Vec<[u8; 32]>>,
}

/// A stored version that cannot be had: it cannot be decrypted, or is no object.
pub(crate) struct Unreadable {
    pub(crate) key: Arc<str>,
    pub(crate) why: String,
}

/// Which resources are kept how.
#[derive(Default)]
struct Rules {
    /// The first that names a resource decides.
    rules: Vec<Rule>,
}

struct Rule {
    resources: Vec<Pattern>,
    providers: Vec<Provider>,
}

/// `secrets`, `deployments.apps`, `*.apps`, `*.` (the core group), `*.*`
#[derive(Debug, PartialEq)]
struct Pattern {
    /// `None`: all of them.
    resource: Option<String>,
    group: Option<String>,
}

struct Provider {
    /// `k8s:enc:aesgcm:v1:`; empty for identity.
    prefix: String,
    keys: Vec<Key>,
    /// The error when no key has the name that a value says.
    unmatched: &'static str,
}

struct Key {
    /// `key1:`; empty for identity.
    prefix: String,
    cipher: Cipher,
    number: u16,
}

/// The number of what is not encrypted.
pub(crate) const PLAIN: u16 = 0;

impl Pattern {
    fn matches(&self, group: &str, resource: &str) -> bool {
        self.resource.as_deref().is_none_or(|r| r == resource) && self.group.as_deref().is_none_or(|g| g == group)
    }
}

impl Rules {
    fn providers(&self, cache: &ResourceCache) -> Option<&[Provider]> {
        let (group, resource) = (cache.group(), cache.resource());
        let rule = self.rules.iter().find(|rule| rule.resources.iter().any(|p| p.matches(group, resource)))?;
        Some(&rule.providers)
    }

    /// The key that seals.
    fn writer(&self, cache: &ResourceCache) -> Option<(&Provider, &Key)> {
        let provider = self.providers(cache)?.first()?;
        Some((provider, provider.keys.first()?))
    }
}

impl Encryption {
    /// Reads the configuration.
    pub(crate) fn load(file: Option<&EncryptionFile>) -> Result<Self, Error> {
        let encryption = Self::default();
        if let Some(file) = file {
            let path = || file.path.display().to_string();
            let text = std::fs::read_to_string(&file.path).map_err(|source| Error::File { path: path(), source })?;
            encryption.configure(&text).map_err(|why| Error::Encryption { path: path(), why })?;
        }
        Ok(encryption)
    }

    /// Refuses a key that was made at this start when the store holds objects under another one.
    pub(crate) fn check_made(&self, file: Option<&EncryptionFile>, cache: &Cache) -> Result<(), Error> {
        match file {
            Some(file) if file.made && cache.all().iter().any(|cache| cache.has_unreadable()) => {
                // It would be taken for the right one at the next start.
                let _ = std::fs::remove_file(&file.path);
                let why = "the store holds objects that were encrypted with another key; put the file of the server that \
                           wrote them here";
                Err(Error::Encryption { path: file.path.display().to_string(), why: why.into() })
            }
            _ => Ok(()),
        }
    }

    /// Uses another configuration from now on.
    fn configure(&self, text: &str) -> Result<(), String> {
        let rules = config::parse(text, &mut |digest| self.number(digest))?;
        self.rules.store(Arc::new(rules));
        Ok(())
    }

    fn number(&self, digest: [u8; 32]) -> Result<u16, String> {
        let mut keys = self.keys.lock();
        let place = keys.iter().position(|known| *known == digest).unwrap_or_else(|| {
            keys.push(digest);
            keys.len() - 1
        });
        u16::try_from(place + 1).map_err(|_| "too many keys since the start".to_owned())
    }

    /// A value as it is to be stored under `key`.
    pub(crate) fn seal(&self, cache: &ResourceCache, key: &str, plain: Bytes) -> Result<Bytes, Status> {
        let rules = self.rules.load();
        let Some((provider, writer)) = rules.writer(cache) else { return Ok(plain) };
        if writer.number == PLAIN {
            return Ok(plain);
        }
        let mut out = Vec::with_capacity(provider.prefix.len() + writer.prefix.len() + plain.len() + cipher::OVERHEAD);
        out.extend_from_slice(provider.prefix.as_bytes());
        out.extend_from_slice(writer.prefix.as_bytes());
        writer.cipher.seal(&plain, key.as_bytes(), &mut out).map_err(Status::internal)?;
        Ok(out.into())
    }

    /// Replaces a stored value with the plain one; returns the number of the key that it was sealed with. The error is
    /// upstream's, and names the key.
    pub(crate) fn open(&self, cache: &ResourceCache, kv: &mut KeyValue) -> Result<u16, String> {
        // Objects are JSON: almost all that is stored is told from what is encrypted by its first byte.
        if !kv.value.starts_with(MARK) {
            return match self.rules.load().providers(cache) {
                Some(providers) if providers.iter().all(|p| !p.prefix.is_empty()) => {
                    Err(unreadable(&kv.key, "no matching prefix found"))
                }
                _ => Ok(PLAIN),
            };
        }
        let rules = self.rules.load();
        let opened = match rules.providers(cache) {
            None => Err("identity transformer tried to read encrypted data".to_owned()),
            Some(providers) => open(providers, &kv.value, kv.key.as_bytes()),
        };
        let (plain, number) = opened.map_err(|why| unreadable(&kv.key, &why))?;
        kv.value = plain.into();
        Ok(number)
    }

    /// A stored version as the cache holds it.
    pub(crate) fn entry(&self, cache: &ResourceCache, mut kv: KeyValue, trusted: bool) -> Result<Entry, Unreadable> {
        let key = kv.key.clone();
        let number = self.open(cache, &mut kv).map_err(|why| Unreadable { key: key.clone(), why })?;
        let damaged = |why| Unreadable { why: format!("unable to decode what is stored under {key:?}: {why}"), key };
        let mut entry = cache.entry(kv, trusted).map_err(damaged)?;
        entry.sealed_with = number;
        Ok(entry)
    }

    /// Whether an object would be sealed otherwise than it was, so that writing it is worth it though nothing changed.
    pub(crate) fn is_stale(&self, cache: &ResourceCache, entry: &Entry) -> bool {
        let rules = self.rules.load();
        rules.writer(cache).map_or(PLAIN, |(_, key)| key.number) != entry.sealed_with
    }
}

fn unreadable(key: &str, why: &str) -> String {
    format!("unable to transform key {key:?}: {why}")
}

/// As upstream, every provider and key whose prefix fits is tried, and a failure keeps no other from being tried.
fn open(providers: &[Provider], value: &[u8], context: &[u8]) -> Result<(Vec<u8>, u16), String> {
    let mut errors = Vec::new();
    for provider in providers.iter().filter(|provider| !provider.prefix.is_empty()) {
        let Some(rest) = value.strip_prefix(provider.prefix.as_bytes()) else { continue };
        let mut failures = Vec::new();
        for key in &provider.keys {
            let Some(sealed) = rest.strip_prefix(key.prefix.as_bytes()) else { continue };
            match key.cipher.open(sealed, context) {
                Ok(plain) => return Ok((plain, key.number)),
                Err(why) => failures.push(why.to_owned()),
            }
        }
        errors.push(aggregate(failures).unwrap_or_else(|| provider.unmatched.to_owned()));
    }
    Err(aggregate(errors).unwrap_or_else(|| "no matching prefix found".to_owned()))
}

/// One error as it is, several as upstream lists them.
fn aggregate(mut errors: Vec<String>) -> Option<String> {
    errors.dedup();
    match errors.len() {
        0 => None,
        1 => errors.pop(),
        _ => Some(format!("[{}]", errors.join(", "))),
    }
}
