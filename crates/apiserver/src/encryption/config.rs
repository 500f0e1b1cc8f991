//! `EncryptionConfiguration` (`apiserver.config.k8s.io/v1`): what may stand in it is what upstream accepts, but for `kms`,
//! which is refused.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{Context, SHA256};
use serde::Deserialize;

use super::cipher::{Algorithm, Cipher};
use super::{Key, PLAIN, Pattern, Provider, Rule, Rules};

const API_VERSION: &str = "apiserver.config.k8s.io/v1";
const KIND: &str = "EncryptionConfiguration";
const UNMATCHED_AES: &str = "no matching key was found for the provided AES transformer";
const UNMATCHED_BOX: &str = "no matching key was found for the provided Secretbox transformer";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Configuration {
    api_version: String,
    kind: String,
    #[serde(default)]
    resources: Vec<Resources>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Resources {
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    providers: Vec<ProviderConfiguration>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
struct ProviderConfiguration {
    aesgcm: Option<Keys>,
    aescbc: Option<Keys>,
    secretbox: Option<Keys>,
    identity: Option<Empty>,
    kms: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Empty {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    #[serde(default)]
    keys: Vec<KeyConfiguration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyConfiguration {
    #[serde(default)]
    name: String,
    #[serde(default)]
    secret: String,
}

/// Gives a key its number, by the digest of all that it is.
pub(super) type Number<'a> = dyn FnMut([u8; 32]) -> Result<u16, String> + 'a;

/// Reads the rules from YAML or JSON. Errors name the field, never a key.
pub(super) fn parse(text: &str, number: &mut Number<'_>) -> Result<Rules, String> {
    // The decoders' own words may quote what they did not expect, which may be a key.
    let value = keelson_api::codec::yaml::decode(text.as_bytes()).map_err(|_| "the file is not valid YAML")?.value;
    let Configuration { api_version, kind, resources } = serde_json::from_value(value)
        .map_err(|_| "a field is unknown, missing or of another type than EncryptionConfiguration's")?;
    if api_version != API_VERSION || kind != KIND {
        return Err(format!("no kind {kind:?} is registered for version {api_version:?}"));
    }
    if resources.is_empty() {
        return Err("resources: Required value: at least one resources is required".into());
    }
    let rules = resources.into_iter().enumerate().map(|(i, rule)| rule_of(i, rule, number));
    Ok(Rules { rules: rules.collect::<Result<_, _>>()? })
}

fn rule_of(i: usize, Resources { resources, providers }: Resources, number: &mut Number<'_>) -> Result<Rule, String> {
    let at = format!("resources[{i}]");
    for (field, is_empty) in [("resources", resources.is_empty()), ("providers", providers.is_empty())] {
        if is_empty {
            return Err(format!("{at}.{field}: Required value: at least one {at}.{field} is required"));
        }
    }
    let patterns = resources.iter().enumerate();
    let patterns =
        patterns.map(|(j, name)| pattern(name).map_err(|why| invalid(&format!("{at}.resources[{j}]"), name, why)));
    let patterns: Vec<Pattern> = patterns.collect::<Result<_, _>>()?;
    check_overlap(&patterns).map_err(|why| invalid(&format!("{at}.resources"), &resources.join(" "), why))?;
    let providers = providers.into_iter().enumerate();
    let providers = providers.map(|(j, provider)| provider_of(&format!("{at}.providers[{j}]"), provider, number));
    Ok(Rule { resources: patterns, providers: providers.collect::<Result<_, _>>()? })
}

fn invalid(field: &str, value: &str, why: &str) -> String {
    format!("{field}: Invalid value: {value:?}: {why}")
}

/// What a name in `resources` stands for.
fn pattern(name: &str) -> Result<Pattern, &'static str> {
    if name.chars().any(char::is_uppercase) {
        return Err("resource name should not contain capital letters");
    }
    if name == "*" {
        return Err("use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources");
    }
    if matches!(name, "apiserveripinfo" | "serviceipallocations" | "servicenodeportallocations") {
        return Err("resources which do not have REST API/s cannot be encrypted");
    }
    let (resource, group) = name.split_once('.').unwrap_or((name, ""));
    match (resource, group) {
        (_, "events.k8s.io") => Err("'*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use \
                                     'events' instead in the config file"),
        (_, "extensions") => Err("'extensions' group has been removed and cannot be used for encryption"),
        ("*", "*") => Ok(Pattern { resource: None, group: None }),
        (_, "*") => Err("encrypting the same resource across groups is not supported"),
        ("*", group) => Ok(Pattern { resource: None, group: Some(group.to_owned()) }),
        (resource, group) => Ok(Pattern { resource: Some(resource.to_owned()), group: Some(group.to_owned()) }),
    }
}

fn check_overlap(patterns: &[Pattern]) -> Result<(), &'static str> {
    let pairs = || patterns.iter().enumerate().flat_map(|(i, a)| patterns.iter().skip(i + 1).map(move |b| (a, b)));
    if pairs().any(|(a, b)| a == b) {
        return Err("the same resource cannot be specified multiple times");
    }
    let masks = |a: &Pattern, b: &Pattern| a.resource.is_none() && (a.group.is_none() || a.group == b.group);
    if pairs().any(|(a, b)| masks(a, b) || masks(b, a)) {
        return Err(
            "using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as \
                    they will be masked",
        );
    }
    Ok(())
}

fn provider_of(at: &str, provider: ProviderConfiguration, number: &mut Number<'_>) -> Result<Provider, String> {
    let ProviderConfiguration { aesgcm, aescbc, secretbox, identity, kms } = provider;
    if kms.is_some() {
        return Err(format!("{at}.kms: Forbidden: key management services are not supported; use secretbox or aesgcm"));
    }
    let mut found: Vec<Option<(Algorithm, &str, Keys)>> = Vec::new();
    found.extend(aesgcm.map(|keys| Some((Algorithm::AesGcm, "aesgcm", keys))));
    found.extend(aescbc.map(|keys| Some((Algorithm::AesCbc, "aescbc", keys))));
    found.extend(secretbox.map(|keys| Some((Algorithm::Secretbox, "secretbox", keys))));
    found.extend(identity.map(|Empty {}| None));
    let wrong = |why: &str| format!("{at}: Invalid value: {why}");
    match (found.pop(), found.is_empty()) {
        (None, _) => Err(wrong(
            "provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity",
        )),
        (_, false) => Err(wrong(
            "more than one provider specified in a single element, should split into different list elements",
        )),
        (Some(None), true) => {
            let key = Key { prefix: String::new(), cipher: Cipher::Identity, number: PLAIN };
            Ok(Provider { prefix: String::new(), keys: vec![key], unmatched: "" })
        }
        (Some(Some((algorithm, name, Keys { keys }))), true) => {
            let at = format!("{at}.{name}.keys");
            if keys.is_empty() {
                return Err(format!("{at}: Required value: at least one keys is required"));
            }
            let prefix = format!("k8s:enc:{name}:v1:");
            let keys = keys.into_iter().enumerate();
            let keys = keys.map(|(i, key)| key_of(&format!("{at}[{i}]"), &prefix, algorithm, key, number));
            let keys = keys.collect::<Result<_, _>>()?;
            let unmatched = if algorithm == Algorithm::Secretbox { UNMATCHED_BOX } else { UNMATCHED_AES };
            Ok(Provider { prefix, keys, unmatched })
        }
    }
}

fn key_of(
    at: &str,
    prefix: &str,
    algorithm: Algorithm,
    KeyConfiguration { name, secret }: KeyConfiguration,
    number: &mut Number<'_>,
) -> Result<Key, String> {
    for (field, value) in [("name", &name), ("secret", &secret)] {
        if value.is_empty() {
            return Err(format!("{at}.{field}: Required value: {field} is a mandatory field for a key"));
        }
    }
    let wrong = |why: &str| format!("{at}.secret: Invalid value: \"REDACTED\": {why}");
    let secret = STANDARD.decode(secret).map_err(|_| wrong("secrets must be base64 encoded"))?;
    let cipher = algorithm.cipher(&secret).ok_or_else(|| {
        let lengths: Vec<_> = algorithm.key_lengths().iter().map(usize::to_string).collect();
        let (got, lengths) = (secret.len(), lengths.join(" "));
        wrong(&format!("secret is not of the expected length, got {got}, expected one of [{lengths}]"))
    })?;
    let mut digest = Context::new(&SHA256);
    for part in [prefix.as_bytes(), name.as_bytes(), b"\0", &secret] {
        digest.update(part);
    }
    let digest = digest.finish().as_ref().try_into().map_err(|_| wrong("no digest"))?;
    Ok(Key { prefix: format!("{name}:"), cipher, number: number(digest)? })
}
