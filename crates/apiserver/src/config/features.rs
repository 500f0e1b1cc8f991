//! What is served and done only when asked for: `--feature-gates` and `--runtime-config`, as upstream reads them. Only what is
//! off by default can be switched; the rest of the server counts on what is on.

use std::collections::{BTreeMap, BTreeSet};

use keelson_api::kind::Kind;
use keelson_api::kinds;

use crate::Error;

/// Switches by name.
pub type Switches = BTreeMap<String, bool>;

/// Reads `NAME=BOOL,…`; a name alone is on.
pub fn switches(text: &str) -> Result<Switches, String> {
    let mut all = Switches::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, "true"));
        let on = match value.trim() {
            "true" | "True" | "TRUE" | "t" | "T" | "1" => true,
            "false" | "False" | "FALSE" | "f" | "F" | "0" => false,
            other => return Err(format!("invalid value {other:?} of {name}: it is neither true nor false")),
        };
        all.insert(name.trim().to_owned(), on);
    }
    Ok(all)
}

/// The built-in kinds that are served under these switches.
pub(crate) fn served(gates: &Switches, runtime: &Switches) -> Result<Vec<Kind>, Error> {
    let kinds = kinds::all();
    let known: BTreeSet<&str> = kinds.iter().filter_map(|kind| kind.gate).collect();
    let bad = |flag: &str, why: String| Error::Configuration { path: format!("--{flag}"), why };
    if let Some(unknown) = gates.keys().find(|gate| !known.contains(gate.as_str()) && *gate != "AllBeta") {
        return Err(bad("feature-gates", format!("unrecognized feature gate: {unknown}")));
    }
    for (name, on) in runtime {
        check(&kinds, name, *on).map_err(|why| bad("runtime-config", why))?;
    }
    let all_beta = gates.get("AllBeta").copied().unwrap_or(false);
    let is_on = |gate: &str| gates.get(gate).copied().unwrap_or(all_beta);
    Ok(kinds
        .into_iter()
        .filter(|kind| kind.gate.is_none_or(|gate| is_on(gate) && is_asked_for(kind, runtime)))
        .collect())
}

/// The most precise switch decides: resource, group version, then all betas, then everything.
fn is_asked_for(kind: &Kind, runtime: &Switches) -> bool {
    let version = kind.api_version();
    let names = [format!("{version}/{}", kind.resource), version, "api/beta".into(), "api/all".into()];
    names.iter().find_map(|name| runtime.get(name)).copied().unwrap_or(false)
}

/// Whether a switch means something, and does not turn off what must be on.
fn check(kinds: &[Kind], name: &str, on: bool) -> Result<(), String> {
    let must_stay = |kind: &Kind| kind.gate.is_none();
    let (meant, ga): (Vec<&Kind>, bool) = match name {
        "api/all" | "api/ga" => (Vec::new(), true),
        "api/beta" | "api/alpha" => (Vec::new(), false),
        name => {
            let named = |kind: &&Kind| {
                let version = kind.api_version();
                name == version || name == format!("{version}/{}", kind.resource)
            };
            let meant: Vec<&Kind> = kinds.iter().filter(named).collect();
            if meant.is_empty() {
                return Err(format!("unknown api groups, versions or resources: {name}"));
            }
            let ga = meant.iter().any(|kind| must_stay(kind));
            (meant, ga)
        }
    };
    if !on && ga {
        let what = meant.iter().find(|kind| must_stay(kind)).map_or(name, |kind| &*kind.resource);
        return Err(format!("{name}=false: {what} cannot be turned off here"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_served(gates: &str, runtime: &str) -> Result<bool, String> {
        let kinds = served(&switches(gates)?, &switches(runtime)?).map_err(|error| error.to_string())?;
        Ok(kinds.iter().any(|kind| kind.resource == "mutatingadmissionpolicies"))
    }

    #[test]
    fn what_is_off_is_served_when_asked_for_and_gated_in() {
        let (gate, version) = ("MutatingAdmissionPolicy=true", "admissionregistration.k8s.io/v1beta1");
        for (gates, runtime, expected) in [
            ("", "", false),
            (gate, "", false),
            ("", "admissionregistration.k8s.io/v1beta1=true", false),
            (gate, version, true),
            (gate, "admissionregistration.k8s.io/v1beta1=true", true),
            ("AllBeta=true", "api/beta=true", true),
            ("AllBeta=true,MutatingAdmissionPolicy=false", "api/beta=true", false),
            (gate, "api/all=true", true),
            (gate, "api/beta=true,admissionregistration.k8s.io/v1beta1=false", false),
            (
                gate,
                "admissionregistration.k8s.io/v1beta1=false,admissionregistration.k8s.io/v1beta1/mutatingadmissionpolicies",
                true,
            ),
        ] {
            assert_eq!(is_served(gates, runtime), Ok(expected), "{gates} {runtime}");
        }
        for (gates, runtime, why) in [
            ("Nonsense=true", "", "unrecognized feature gate: Nonsense"),
            ("", "nonsense/v1=true", "unknown api groups, versions or resources: nonsense/v1"),
            ("", "apps/v1=false", "cannot be turned off here"),
            ("", "api/all=false", "cannot be turned off here"),
            ("MutatingAdmissionPolicy=maybe", "", "neither true nor false"),
        ] {
            let error = is_served(gates, runtime).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
