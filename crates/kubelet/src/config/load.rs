//! Reading `KubeletConfiguration` from a file (`--config`) and from the `*.conf` files of a directory (`--config-dir`),
//! which are merged over it in the order of their names, lists replaced whole. Unknown, duplicate and unsupported
//! fields are refused by name.

use std::path::{Path, PathBuf};

use keelson_api::codec;
use serde_json::{Map, Value};

use super::file::KubeletConfiguration;
use super::{Config, unsupported};

const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";
const KIND: &str = "KubeletConfiguration";
/// A configuration is never that long.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Drop-in files at most.
const MAX_DROP_INS: usize = 256;

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file or the directory cannot be read.
    #[error("failed to load kubelet config file {path:?}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A file's content is refused; the message names the field.
    #[error("failed to load kubelet config file {path:?}: {message}")]
    Invalid {
        /// Which.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// The merged whole is refused; the message names the field.
    #[error("invalid configuration: {0}")]
    Conflict(String),
}

/// Puts what the file and the directory say into `config`.
pub fn load(config: &mut Config, file: Option<&Path>, directory: Option<&Path>) -> Result<(), LoadError> {
    let mut merged = Value::Object(Map::new());
    for path in file.map(Path::to_path_buf).into_iter().chain(drop_ins(directory)?) {
        let document = read(&path)?;
        merge(&mut merged, document);
    }
    typed(&merged).map_err(LoadError::Conflict)?.apply(config).map_err(LoadError::Conflict)
}

fn drop_ins(directory: Option<&Path>) -> Result<Vec<PathBuf>, LoadError> {
    let Some(directory) = directory else { return Ok(Vec::new()) };
    let failed = |source| LoadError::Read { path: directory.to_path_buf(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "conf") && path.is_file() {
            found.push(path);
        }
    }
    if found.len() > MAX_DROP_INS {
        let message = format!("more than {MAX_DROP_INS} drop-in files");
        return Err(LoadError::Invalid { path: directory.to_path_buf(), message });
    }
    found.sort();
    Ok(found)
}

fn read(path: &Path) -> Result<Value, LoadError> {
    let failed = |source| LoadError::Read { path: path.to_path_buf(), source };
    let invalid = |message| LoadError::Invalid { path: path.to_path_buf(), message };
    if std::fs::metadata(path).map_err(failed)?.len() > MAX_FILE_BYTES {
        return Err(invalid(format!("it is longer than {MAX_FILE_BYTES} bytes")));
    }
    let content = std::fs::read(path).map_err(failed)?;
    let decoded = codec::Encoding::Yaml.decode(&content).map_err(|error| invalid(error.to_string()))?;
    if !decoded.strict.is_empty() {
        return Err(invalid(codec::strict_error(&decoded.strict)));
    }
    check(decoded.value).map_err(invalid)
}

/// The document's fields without its kind, each known and of the right type.
fn check(value: Value) -> Result<Value, String> {
    let Value::Object(mut fields) = value else { return Err("it is not an object".into()) };
    for (name, expected) in [("apiVersion", API_VERSION), ("kind", KIND)] {
        match fields.remove(name) {
            Some(Value::String(found)) if found == expected => {}
            Some(found) => return Err(format!("{name}: {found} must be {expected:?}")),
            None => return Err(format!("{name}: must be {expected:?}, it is missing")),
        }
    }
    let mut whole = Value::Object(fields);
    drop_nulls(&mut whole);
    if let Value::Object(fields) = &mut whole {
        let mut refused = Ok(());
        fields.retain(|name, value| match unsupported::check(name, value) {
            None => true,
            Some(verdict) => {
                if refused.is_ok() {
                    refused = verdict;
                }
                false
            }
        });
        refused?;
    }
    let known = serde_json::to_value(typed(&whole)?).map_err(|error| error.to_string())?;
    let mut unknown = Vec::new();
    find_unknown(&whole, &known, "", &mut unknown);
    if unknown.is_empty() { Ok(whole) } else { Err(codec::strict_error(&unknown)) }
}

/// The typed form; the error begins with the name of the field that does not fit.
fn typed(whole: &Value) -> Result<KubeletConfiguration, String> {
    let error = match serde_json::from_value(whole.clone()) {
        Ok(typed) => return Ok(typed),
        Err(error) => error,
    };
    let culprit = whole.as_object().into_iter().flatten().find_map(|(name, value)| {
        let alone = Value::Object([(name.clone(), value.clone())].into_iter().collect());
        serde_json::from_value::<KubeletConfiguration>(alone).err().map(|error| format!("{name}: {error}"))
    });
    Err(culprit.unwrap_or_else(|| error.to_string()))
}

/// Fields of `given` that `known`, which was read from it, does not have.
fn find_unknown(given: &Value, known: &Value, path: &str, unknown: &mut Vec<String>) {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => {
            for (name, value) in given {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match known.get(name) {
                    Some(known) => find_unknown(value, known, &path, unknown),
                    None => unknown.push(format!("unknown field {path:?}")),
                }
            }
        }
        (Value::Array(given), Value::Array(known)) => {
            for (index, (given, known)) in given.iter().zip(known).enumerate() {
                find_unknown(given, known, &format!("{path}[{index}]"), unknown);
            }
        }
        _ => {}
    }
}

/// Null is as good as absent.
fn drop_nulls(value: &mut Value) {
    if let Value::Object(fields) = value {
        fields.retain(|_, value| !value.is_null());
        fields.values_mut().for_each(drop_nulls);
    }
}

/// RFC 7386, but that nothing is taken away.
fn merge(target: &mut Value, source: Value) {
    match (target, source) {
        (Value::Object(target), Value::Object(source)) => {
            for (name, value) in source {
                merge(target.entry(name).or_insert(Value::Null), value);
            }
        }
        (target, source) => *target = source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eviction::signal::{Amount, Signal};

    fn config() -> Config {
        Config::new("n", "127.0.0.1".parse().unwrap())
    }

    fn with_head(body: &str) -> String {
        format!("apiVersion: {API_VERSION}\nkind: {KIND}\n{body}")
    }

    fn load_text(body: &str) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        std::fs::write(&path, with_head(body)).unwrap();
        let mut config = config();
        load(&mut config, Some(&path), None).map(|()| config).map_err(|error| error.to_string())
    }

    #[test]
    fn bad_settings_are_refused_by_name() {
        for (body, complaint) in [
            ("maxPod: 5", "strict decoding error: unknown field \"maxPod\""),
            ("maxPods: 5\nmaxPods: 6", "key \"maxPods\" already set in map"),
            ("authentication: {x509: {clientCa: x}}", "unknown field \"authentication.x509.clientCa\""),
            ("registerWithTaints: [{key: a, effect: NoSchedule, colour: red}]", "\"registerWithTaints[0].colour\""),
            ("maxPods: many", "maxPods: invalid type"),
            ("syncFrequency: 5", "syncFrequency: "),
            ("syncFrequency: -5s", "syncFrequency: must not be negative"),
            ("readOnlyPort: 10255", "readOnlyPort: this kubelet does not support the value 10255"),
            ("protectKernelDefaults: true", "protectKernelDefaults: "),
            ("makeIPTablesUtilChains: false", "makeIPTablesUtilChains: "),
            ("cgroupDriver: systemd", "cgroupDriver: \"systemd\" is not supported"),
            ("authentication: {anonymous: {enabled: true}}", "authentication.anonymous.enabled: "),
            ("authorization: {mode: AlwaysAllow}", "authorization.mode: "),
            ("serializeImagePulls: true\nmaxParallelImagePulls: 2", "maxParallelImagePulls: cannot be larger than 1"),
            ("maxParallelImagePulls: 0", "maxParallelImagePulls: must be a positive number"),
            ("enableSystemLogQuery: true", "enableSystemLogQuery: NodeLogQuery feature gate is required"),
            (
                "featureGates: {NodeLogQuery: true}\nenableSystemLogQuery: true\nenableSystemLogHandler: false",
                "enableSystemLogQuery: enableSystemLogHandler is required",
            ),
            ("featureGates: {Nonsense: true}", "featureGates: unrecognized feature gate: Nonsense"),
            ("evictionHard: {colour.available: 5%}", "evictionHard.colour.available: unknown eviction signal"),
            ("containerLogMaxFiles: 1", "containerLogMaxFiles: must be greater than 1"),
            ("containerLogMonitorInterval: 1s", "containerLogMonitorInterval: "),
            ("crashLoopBackOff: {maxContainerRestartPeriod: 301s}", "crashLoopBackOff.maxContainerRestartPeriod: "),
            ("tlsCertFile: /x", "tlsPrivateKeyFile: is required with tlsCertFile"),
            ("tlsMinVersion: VersionTLS10", "tlsMinVersion: "),
            ("podLogsDir: logs", "podLogsDir: "),
            ("allowedUnsafeSysctls: [\"*\"]", "allowedUnsafeSysctls: "),
            ("memorySwap: {swapBehavior: UnlimitedSwap}", "memorySwap.swapBehavior: \"UnlimitedSwap\" must be one of"),
            (
                "imagePullCredentialsVerificationPolicy: Sometimes",
                "imagePullCredentialsVerificationPolicy: \"Sometimes\"",
            ),
            (
                "featureGates: {KubeletEnsureSecretPulledImages: false}\nimagePullCredentialsVerificationPolicy: AlwaysVerify",
                "imagePullCredentialsVerificationPolicy: must not be set",
            ),
            (
                "preloadedImagesVerificationAllowlist: [r.example/a]",
                "preloadedImagesVerificationAllowlist: can't be set",
            ),
            (
                "imagePullCredentialsVerificationPolicy: NeverVerifyAllowlistedImages\n\
                 preloadedImagesVerificationAllowlist: [\"r.example/a:1\"]",
                "preloadedImagesVerificationAllowlist: neither tag nor digest",
            ),
        ] {
            let refused = load_text(body).err().unwrap_or_else(|| panic!("{body} is accepted"));
            assert!(refused.contains(complaint), "{body}: {refused}");
        }
        for (text, complaint) in [
            ("kind: KubeletConfiguration", "apiVersion: must be"),
            ("apiVersion: v1\nkind: KubeletConfiguration", "apiVersion: \"v1\" must be"),
            ("[]", "not an object"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("c");
            std::fs::write(&path, text).unwrap();
            let refused = load(&mut config(), Some(&path), None).unwrap_err().to_string();
            assert!(refused.contains(complaint), "{text}: {refused}");
        }
        assert!(load(&mut config(), Some(Path::new("/nonexistent")), None).is_err());
    }

    /// What kubeadm and Go's encoder write: zero values for everything that nobody set.
    #[test]
    fn empty_values_change_nothing() {
        let body = "authentication: {anonymous: {enabled: false}, webhook: {cacheTTL: 0s, enabled: true}, x509: {}}\n\
                    authorization: {mode: Webhook, webhook: {cacheAuthorizedTTL: 0s, cacheUnauthorizedTTL: 0s}}\n\
                    cpuManagerReconcilePeriod: 0s\nfileCheckFrequency: 0s\nimageMinimumGCAge: 0s\nlogging:\n  \
                    flushFrequency: 0\n  options: {json: {infoBufferSize: \"0\"}}\n  verbosity: 0\nmemorySwap: {}\n\
                    nodeStatusReportFrequency: 0s\nnodeStatusUpdateFrequency: 0s\nshutdownGracePeriod: 0s\n\
                    runtimeRequestTimeout: 0s\nsyncFrequency: 0s\nport: 0\n";
        assert_eq!(format!("{:?}", load_text(body).unwrap()), format!("{:?}", config()));
    }

    #[test]
    fn drop_ins_go_over_the_file_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let main = dir.path().join("kubelet.yaml");
        let drop = dir.path().join("conf.d");
        std::fs::create_dir(&drop).unwrap();
        let text = "maxPods: 10\nclusterDNS: [10.0.0.1, 10.0.0.2]\nevictionHard: {memory.available: 1Gi, \
                    nodefs.available: 7%}\nnodeStatusUpdateFrequency: 3s\n";
        std::fs::write(&main, with_head(text)).unwrap();
        std::fs::write(drop.join("20-b.conf"), with_head("maxPods: 30\nclusterDNS: [10.0.0.3]")).unwrap();
        let first = "maxPods: 20\nevictionHard: {nodefs.available: 8%}\nauthentication: {webhook: {cacheTTL: 1m30s}}";
        std::fs::write(drop.join("10-a.conf"), with_head(first)).unwrap();
        std::fs::write(drop.join("99-z.yaml"), "not: read").unwrap();
        let mut config = config();
        load(&mut config, Some(&main), Some(&drop)).unwrap();
        assert_eq!((config.max_pods, config.cluster_dns.len()), (30, 1));
        let hard =
            [(Signal::MemoryAvailable, Amount::Quantity(1 << 30)), (Signal::NodefsAvailable, Amount::Percent(8.0))];
        assert_eq!(config.eviction_hard, hard.into(), "what is not named has no threshold");
        assert_eq!(config.authentication_webhook_cache_ttl.as_secs(), 90);
        assert_eq!(config.node_status_report_frequency.as_secs(), 3, "follows the update's frequency");
        let shown = serde_json::to_value(KubeletConfiguration::of(&config)).unwrap();
        assert_eq!(shown.pointer("/authentication/webhook/cacheTTL").unwrap(), "1m30s");
        assert_eq!(shown["maxPods"], 30);
        // What is shown can be read again, and says the same.
        let mut again = super::tests::config();
        typed(&shown).unwrap().apply(&mut again).unwrap();
        assert_eq!(format!("{again:?}"), format!("{config:?}"));
        std::fs::write(drop.join("30-c.conf"), with_head("serializeImagePulls: true")).unwrap();
        std::fs::write(drop.join("40-d.conf"), with_head("maxParallelImagePulls: 4")).unwrap();
        let refused = load(&mut config, Some(&main), Some(&drop)).unwrap_err().to_string();
        assert!(refused.contains("maxParallelImagePulls"), "settings of several files conflict: {refused}");
    }
}
