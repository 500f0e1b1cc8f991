//! Fields of upstream's `KubeletConfiguration` that this kubelet has not: they may be left out, be empty, or say what it
//! does anyhow; anything else is refused, so that nothing that is accepted is without effect.

use serde_json::Value;

/// The field's name and the values, besides empty ones, that change nothing here.
const FIELDS: &[(&str, &[&str])] = &[
    ("staticPodURL", &[]),
    ("staticPodURLHeader", &[]),
    ("fileCheckFrequency", &["20s"]),
    ("httpCheckFrequency", &["20s"]),
    ("readOnlyPort", &[]),
    ("tlsCipherSuites", &[]),
    ("registryPullQPS", &["5"]),
    ("registryBurst", &["10"]),
    ("eventRecordQPS", &["50"]),
    ("eventBurst", &["100"]),
    ("enableContentionProfiling", &["false"]),
    ("enableProfilingHandler", &["true"]),
    ("enableDebugFlagsHandler", &["true"]),
    ("oomScoreAdj", &["-999"]),
    ("volumeStatsAggPeriod", &["1m", "1m0s"]),
    ("kubeletCgroups", &[]),
    ("systemCgroups", &[]),
    ("singleProcessOOMKill", &[]),
    ("qosReserved", &[]),
    ("hairpinMode", &["promiscuous-bridge"]),
    ("podCIDR", &[]),
    ("runOnce", &["false"]),
    ("cpuCFSQuotaPeriod", &["100ms"]),
    ("maxOpenFiles", &["1000000"]),
    ("contentType", &["application/json"]),
    ("kubeAPIQPS", &["50"]),
    ("kubeAPIBurst", &["100"]),
    ("podsPerCore", &[]),
    ("enableControllerAttachDetach", &["true"]),
    ("protectKernelDefaults", &["false"]),
    ("makeIPTablesUtilChains", &["true"]),
    ("iptablesMasqueradeBit", &["14"]),
    ("iptablesDropBit", &["15"]),
    ("containerLogMaxWorkers", &["1"]),
    ("configMapAndSecretChangeDetectionStrategy", &["Watch"]),
    ("showHiddenMetricsForVersion", &[]),
    ("systemReservedCgroup", &[]),
    ("kubeReservedCgroup", &[]),
    ("enforceNodeAllocatable", &["pods"]),
    ("volumePluginDir", &["/usr/libexec/kubernetes/kubelet-plugins/volume/exec/"]),
    ("kernelMemcgNotification", &["false"]),
    ("logging", &["text"]),
    ("memoryThrottlingFactor", &["0.9"]),
    ("tracing", &[]),
    ("localStorageCapacityIsolation", &["true"]),
    ("imageServiceEndpoint", &[]),
    ("userNamespaces", &[]),
];

/// Whether this is one of them; `Err` says what it must not be.
pub(super) fn check(name: &str, value: &Value) -> Option<Result<(), String>> {
    let (_, fine) = FIELDS.iter().find(|(known, _)| *known == name)?;
    Some(if harmless(value, fine) {
        Ok(())
    } else {
        Err(format!("{name}: this kubelet does not support the value {value}; leave the field out"))
    })
}

/// Whether nothing in `value` says more than "nothing" or one of the words.
fn harmless(value: &Value, words: &[&str]) -> bool {
    let word = |text: &str| words.contains(&text);
    match value {
        Value::Null => true,
        Value::Bool(given) => word(if *given { "true" } else { "false" }),
        Value::Number(number) => number.as_f64() == Some(0.0) && !word("true") || word(&number.to_string()),
        Value::String(text) => matches!(text.as_str(), "" | "0" | "0s") || word(text),
        Value::Array(items) => items.iter().all(|item| harmless(item, words)),
        Value::Object(fields) => fields.values().all(|field| harmless(field, words)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_not_done_is_not_accepted() {
        let why = check("readOnlyPort", &json!(10255)).unwrap().unwrap_err();
        assert!(why.starts_with("readOnlyPort: this kubelet does not support the value"), "{why}");
        assert_eq!(check("readOnlyPort", &json!(0)), Some(Ok(())));
        assert_eq!(check("memorySwap", &json!({})), None, "others look at it");
    }
}
