use std::sync::Arc;

use bytes::Bytes;
use keelson_api::kinds;
use keelson_store::KeyValue;

use super::Encryption;
use crate::cache::ResourceCache;

const KEY: &str = "/registry/secrets/n/a";
const PLAIN: &[u8] = b"{\"kind\":\"Secret\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"a\"},\"data\":{}}";

fn cache(kind: &str) -> ResourceCache {
    ResourceCache::new(Arc::new(kinds::all().into_iter().find(|k| k.kind == kind).unwrap()))
}

fn kv(key: &str, value: Bytes) -> KeyValue {
    KeyValue { key: key.into(), value, create_revision: 1, mod_revision: 1 }
}

/// A configuration of one rule. A provider is `aescbc:key1=<byte>*<length>,key2=…`.
fn config(resources: &str, providers: &[&str]) -> String {
    use base64::Engine;
    let mut out = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [{resources}]\n  providers:\n"
    );
    for provider in providers {
        let Some((name, keys)) = provider.split_once(':') else {
            out.push_str(&format!("  - {provider}: {{}}\n"));
            continue;
        };
        out.push_str(&format!("  - {name}:\n      keys:\n"));
        for key in keys.split(',') {
            let (key, secret) = key.split_once('=').unwrap();
            let (byte, length) = secret.split_once('*').unwrap();
            let secret = vec![byte.parse::<u8>().unwrap(); length.parse().unwrap()];
            let secret = base64::engine::general_purpose::STANDARD.encode(secret);
            out.push_str(&format!("      - name: {key}\n        secret: {secret}\n"));
        }
    }
    out
}

fn configured(resources: &str, providers: &[&str]) -> Encryption {
    let encryption = Encryption::default();
    encryption.configure(&config(resources, providers)).unwrap();
    encryption
}

#[test]
fn what_is_sealed_can_be_opened() {
    let secrets = cache("Secret");
    for (provider, prefix) in [
        ("aesgcm:key1=1*16", "k8s:enc:aesgcm:v1:key1:"),
        ("aesgcm:key1=1*24", "k8s:enc:aesgcm:v1:key1:"),
        ("aesgcm:key1=1*32", "k8s:enc:aesgcm:v1:key1:"),
        ("aescbc:key1=1*16", "k8s:enc:aescbc:v1:key1:"),
        ("aescbc:key1=1*24", "k8s:enc:aescbc:v1:key1:"),
        ("aescbc:key1=1*32", "k8s:enc:aescbc:v1:key1:"),
        ("secretbox:key1=1*32", "k8s:enc:secretbox:v1:key1:"),
    ] {
        let encryption = configured("secrets", &[provider]);
        let sealed = encryption.seal(&secrets, KEY, Bytes::from_static(PLAIN)).unwrap();
        assert!(sealed.starts_with(prefix.as_bytes()), "{provider}");
        assert!(!sealed.windows(8).any(|w| PLAIN.windows(8).any(|p| p == w)), "{provider}: nothing shows through");
        let again = encryption.seal(&secrets, KEY, Bytes::from_static(PLAIN)).unwrap();
        assert_ne!(sealed, again, "{provider}: every write has a nonce of its own");
        let mut read = kv(KEY, sealed.clone());
        encryption.open(&secrets, &mut read).unwrap();
        assert_eq!(read.value, PLAIN, "{provider}");
        // Damage and truncation are errors, at every length.
        for length in prefix.len()..sealed.len() {
            let mut cut = kv(KEY, sealed.slice(..length));
            assert!(encryption.open(&secrets, &mut cut).is_err(), "{provider}: {length}");
        }
    }
}

#[test]
fn moved_to_another_name_a_gcm_value_is_refused() {
    let secrets = cache("Secret");
    let encryption = configured("secrets", &["aesgcm:key1=1*32"]);
    let sealed = encryption.seal(&secrets, KEY, Bytes::from_static(PLAIN)).unwrap();
    let error = encryption.open(&secrets, &mut kv("/registry/secrets/n/b", sealed)).unwrap_err();
    assert_eq!(error, "unable to transform key \"/registry/secrets/n/b\": cipher: message authentication failed");
}

#[test]
fn the_first_key_writes_and_all_read() {
    let secrets = cache("Secret");
    let encryption = configured("secrets", &["aesgcm:a=1*32", "identity"]);
    let old = encryption.seal(&secrets, KEY, Bytes::from_static(PLAIN)).unwrap();
    let entry = encryption.entry(&secrets, kv(KEY, old.clone()), false).ok().unwrap();
    assert!(!encryption.is_stale(&secrets, &entry));
    let plain = encryption.entry(&secrets, kv(KEY, Bytes::from_static(PLAIN)), false).ok().unwrap();
    assert!(encryption.is_stale(&secrets, &plain), "what was written before encryption is to be written again");

    encryption.configure(&config("secrets", &["secretbox:b=2*32", "aesgcm:a=1*32"])).unwrap();
    let new = encryption.seal(&secrets, KEY, Bytes::from_static(PLAIN)).unwrap();
    assert!(new.starts_with(b"k8s:enc:secretbox:v1:b:"));
    assert!(encryption.is_stale(&secrets, &entry), "also what is in memory already");
    let mut read = kv(KEY, old.clone());
    encryption.open(&secrets, &mut read).unwrap();
    assert_eq!(read.value, PLAIN);

    // The same name with another secret is another key.
    encryption.configure(&config("secrets", &["aesgcm:a=3*32,a=1*32"])).unwrap();
    encryption.open(&secrets, &mut kv(KEY, old)).unwrap();
    assert!(encryption.is_stale(&secrets, &entry));

    encryption.configure(&config("secrets", &["identity", "secretbox:b=2*32"])).unwrap();
    assert_eq!(encryption.seal(&secrets, KEY, Bytes::from_static(PLAIN)).unwrap(), PLAIN);
    encryption.open(&secrets, &mut kv(KEY, new)).unwrap();
    assert!(encryption.is_stale(&secrets, &entry) && !encryption.is_stale(&secrets, &plain));
}

#[test]
fn what_cannot_be_opened_is_named() {
    let secrets = cache("Secret");
    let sealed = configured("secrets", &["aescbc:k=1*16"]).seal(&secrets, KEY, Bytes::from_static(PLAIN)).unwrap();
    let check = |encryption: Encryption, value: Bytes, why: &str| {
        let error = encryption.open(&secrets, &mut kv(KEY, value)).unwrap_err();
        assert_eq!(error, format!("unable to transform key {KEY:?}: {why}"));
    };
    let plain = Bytes::from_static(PLAIN);
    let unmatched = "no matching key was found for the provided AES transformer";
    check(configured("secrets", &["aesgcm:k=1*16"]), sealed.clone(), "no matching prefix found");
    check(configured("secrets", &["aescbc:other=1*16"]), sealed.clone(), unmatched);
    check(configured("secrets", &["aescbc:k=1*16"]), plain, "no matching prefix found");
    check(configured("secrets", &["identity"]), sealed.clone(), "no matching prefix found");
    check(Encryption::default(), sealed.clone(), "identity transformer tried to read encrypted data");
    check(configured("configmaps", &["aescbc:k=1*16"]), sealed, "identity transformer tried to read encrypted data");
    let short = Bytes::from_static(b"k8s:enc:secretbox:v1:k:abc");
    check(configured("secrets", &["secretbox:k=1*32"]), short, "the stored data was shorter than the required size");
}

#[test]
fn resources_are_named_as_upstream_names_them() {
    let check = |resources: &str, kind: &str, sealed: bool| {
        let encryption = configured(resources, &["secretbox:k=1*32"]);
        let cache = cache(kind);
        let out = encryption.seal(&cache, KEY, Bytes::from_static(PLAIN)).unwrap();
        assert_eq!(out != PLAIN, sealed, "{resources}: {kind}");
    };
    for (resources, kind, sealed) in [
        ("secrets", "Secret", true),
        ("secrets", "ConfigMap", false),
        ("configmaps, secrets", "ConfigMap", true),
        ("\"*.\"", "ConfigMap", true),
        ("\"*.\"", "Deployment", false),
        ("deployments.apps", "Deployment", true),
        ("deployments", "Deployment", false),
        ("\"*.apps\"", "Deployment", true),
        ("\"*.apps\"", "Secret", false),
        ("\"*.*\"", "Deployment", true),
        ("\"*.*\"", "Secret", true),
    ] {
        check(resources, kind, sealed);
    }
}

#[test]
fn unusable_configurations_are_refused_and_show_no_key() {
    let good = config("secrets", &["aesgcm:k=1*16"]);
    let check = |text: String, why: &str| {
        let error = Encryption::default().configure(&text).expect_err(&text);
        assert!(error.contains(why), "{error}");
        assert!(!error.contains("AQEBAQ"), "{error}");
    };
    for (from, to, why) in [
        ("apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v2", "no kind"),
        ("[secrets]", "[]", "resources[0].resources: Required value"),
        ("[secrets]", "[Secrets]", "capital letters"),
        ("[secrets]", "[\"*\"]", "use '*.'"),
        ("[secrets]", "[secrets, \"*.\"]", "overlapping"),
        ("[secrets]", "[secrets, secrets]", "multiple times"),
        ("[secrets]", "[\"*.*\", deployments.apps]", "overlapping"),
        ("[secrets]", "[\"deployments.*\"]", "across groups"),
        ("[secrets]", "[events.events.k8s.io]", "'events' API group"),
        ("aesgcm:", "rot13:", "a field is unknown"),
        ("keys:", "AQEBAQ:", "a field is unknown"),
        ("aesgcm:", "secretbox:", "got 16, expected one of [32]"),
        ("name: k", "name: ''", "keys[0].name: Required value"),
        ("secret: AQEBAQ", "secret: AQEB", "keys[0].secret: Invalid value: \"REDACTED\""),
        ("  - aesgcm:", "  - identity: {}\n    aesgcm:", "more than one provider"),
        ("  - aesgcm:", "  - kms: {name: x}\n  - aesgcm:", "kms: Forbidden"),
    ] {
        assert!(good.contains(from), "{from}");
        check(good.replacen(from, to, 1), why);
    }
    let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  \
                providers:\n  - aescbc: {keys: ";
    check(format!("{head}AQEBAQ}}"), "a field is unknown");
    check(format!("{head}[AQEBAQ==]}}"), "a field is unknown");
    check(format!("{head}[{{name: k, secret: *AQEBAQ}}]}}"), "not valid YAML");
}

/// From outside: Python's `cryptography` (GCM), `openssl enc` (CBC) and PyNaCl; keys of ones, nonces of twos.
#[test]
fn opens_what_other_programs_sealed() {
    let secrets = cache("Secret");
    let sealed = |prefix: &str, hex: &str| {
        let bytes = (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap());
        let mut out = prefix.as_bytes().to_vec();
        out.extend(bytes);
        Bytes::from(out)
    };
    for (provider, prefix, hex) in OUTSIDE {
        let mut read = kv(KEY, sealed(prefix, hex));
        configured("secrets", &[*provider]).open(&secrets, &mut read).unwrap();
        assert_eq!(read.value, "{\"kind\":\"Secret\"}", "{provider}");
    }
}

const OUTSIDE: &[(&str, &str, &str)] = &[
    (
        "aesgcm:key1=1*32",
        "k8s:enc:aesgcm:v1:key1:",
        "0202020202020202020202027cf4a2202433e3c7f19fd9ab2ec2b690df28764ed8d1f76c866bc54956825d4bd2",
    ),
    (
        "aescbc:key1=1*16",
        "k8s:enc:aescbc:v1:key1:",
        "02020202020202020202020202020202e3b9151b363e3c681e9bf0cffb97367eda1e51fbbdd080c43a4d3b43e5236981",
    ),
    (
        "secretbox:key1=1*32",
        "k8s:enc:secretbox:v1:key1:",
        "0202020202020202020202020202020202020202020202025f16e14f92c1c84fc235cb249bb128528647b594105ef077422ed29d2a23c98cd5",
    ),
];
