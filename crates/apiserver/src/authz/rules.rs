//! RBAC's rules: what one rule allows, and which rules cover others (for escalation checks).

use serde::{Deserialize, Serialize};

use super::Attributes;

/// A `PolicyRule`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Rule {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) verbs: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) api_groups: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) resources: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) resource_names: Vec<String>,
    #[serde(rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty")]
    pub(crate) non_resource_urls: Vec<String>,
}

/// Rules that allow all there is.
pub(crate) fn everything() -> [Rule; 2] {
    let all = || vec!["*".to_owned()];
    [
        Rule { verbs: all(), api_groups: all(), resources: all(), ..Rule::default() },
        Rule { verbs: all(), non_resource_urls: all(), ..Rule::default() },
    ]
}

fn has(list: &[String], item: &str) -> bool {
    list.iter().any(|x| x == "*" || x == item)
}

impl Rule {
    /// Whether the rule allows it.
    pub(crate) fn allows(&self, a: &Attributes) -> bool {
        if !has(&self.verbs, &a.verb) {
            return false;
        }
        if a.resource.is_empty() {
            return self.non_resource_urls.iter().any(|url| match url.strip_suffix('*') {
                Some(prefix) => a.path.starts_with(prefix),
                None => *url == a.path,
            });
        }
        has(&self.api_groups, &a.group)
            && self.resources.iter().any(|r| resource_matches(r, &a.resource, &a.subresource))
            && (self.resource_names.is_empty() || self.resource_names.contains(&a.name))
    }
}

fn resource_matches(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == "*" {
        return true;
    }
    match rule.split_once('/') {
        None => subresource.is_empty() && rule == resource,
        Some((r, s)) => s == subresource && !subresource.is_empty() && (r == resource || r == "*"),
    }
}

/// What of `wanted` is not covered by `owned`, in rules of one verb, group, resource (or URL) and name each. None: nobody
/// gains anything.
pub(crate) fn uncovered(owned: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    wanted.iter().flat_map(break_down).filter(|rule| !owned.iter().any(|o| covers(o, rule))).collect()
}

/// Rules with one verb, group, resource (or URL) and name each.
fn break_down(rule: &Rule) -> Vec<Rule> {
    let mut out = Vec::new();
    for group in &rule.api_groups {
        for resource in &rule.resources {
            for verb in &rule.verbs {
                let one = Rule {
                    verbs: vec![verb.clone()],
                    api_groups: vec![group.clone()],
                    resources: vec![resource.clone()],
                    ..Rule::default()
                };
                if rule.resource_names.is_empty() {
                    out.push(one);
                } else {
                    let names = rule.resource_names.iter();
                    out.extend(names.map(|n| Rule { resource_names: vec![n.clone()], ..one.clone() }));
                }
            }
        }
    }
    for url in &rule.non_resource_urls {
        for verb in &rule.verbs {
            let (verbs, non_resource_urls) = (vec![verb.clone()], vec![url.clone()]);
            out.push(Rule { verbs, non_resource_urls, ..Rule::default() });
        }
    }
    out
}

/// Broken-down rules as upstream shows them: the verbs of one resource together, sorted, each line once.
pub(crate) fn describe(broken_down: &[Rule]) -> String {
    let mut compact: Vec<Rule> = Vec::new();
    for rule in broken_down {
        let simple = rule.non_resource_urls.is_empty();
        let same = |other: &&mut Rule| {
            simple
                && other.non_resource_urls.is_empty()
                && other.api_groups == rule.api_groups
                && other.resources == rule.resources
                && other.resource_names == rule.resource_names
        };
        match compact.iter_mut().find(same) {
            Some(other) => other.verbs.extend_from_slice(&rule.verbs),
            None => compact.push(rule.clone()),
        }
    }
    let lines: std::collections::BTreeSet<String> = compact.iter().map(ToString::to_string).collect();
    lines.into_iter().collect::<Vec<_>>().join("\n")
}

/// Whether `owner` allows all that `one` (broken down) allows.
fn covers(owner: &Rule, one: &Rule) -> bool {
    let all = |owned: &[String], wanted: &[String]| wanted.iter().all(|w| has(owned, w));
    if !all(&owner.verbs, &one.verbs) {
        return false;
    }
    if let Some(url) = one.non_resource_urls.first() {
        return owner.non_resource_urls.iter().any(|o| match o.strip_suffix('*') {
            Some(prefix) => url.starts_with(prefix),
            None => o == url,
        });
    }
    let resources = one.resources.iter().all(|wanted| {
        owner.resources.iter().any(|o| {
            o == "*" || o == wanted || {
                let any = |s: &str| wanted.split_once('/').is_some_and(|(_, sub)| sub == s);
                o.strip_prefix("*/").is_some_and(any)
            }
        })
    });
    all(&owner.api_groups, &one.api_groups)
        && resources
        && (owner.resource_names.is_empty()
            || (!one.resource_names.is_empty() && one.resource_names.iter().all(|n| owner.resource_names.contains(n))))
}

impl std::fmt::Display for Rule {
    /// As upstream shows missing rules: `{APIGroups:["apps"], Resources:["deployments"], Verbs:["get" "list"]}`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parts = Vec::new();
        for (name, list) in [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ] {
            if !list.is_empty() {
                let quoted: Vec<_> = list.iter().map(|x| format!("{x:?}")).collect();
                parts.push(format!("{name}:[{}]", quoted.join(" ")));
            }
        }
        write!(f, "{{{}}}", parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &str, groups: &str, resources: &str, names: &str) -> Rule {
        let list = |s: &str| s.split(',').filter(|x| !x.is_empty()).map(|x| x.trim_matches('.').to_owned()).collect();
        Rule {
            verbs: list(verbs),
            api_groups: list(groups),
            resources: list(resources),
            resource_names: list(names),
            non_resource_urls: Vec::new(),
        }
    }

    #[track_caller]
    fn check(rule: &Rule, action: &str, expected: bool) {
        let p: Vec<&str> = action.split(' ').collect();
        let (resource, subresource) = p[2].split_once('/').unwrap_or((p[2], ""));
        let mut a = Attributes::on(p[0], p[1].trim_matches('.'), resource, "", p.get(3).unwrap_or(&""));
        a.subresource = subresource.into();
        assert_eq!(rule.allows(&a), expected, "{rule} {action}");
    }

    #[test]
    fn rules_allow() {
        let pods = rule("get,list", ".", "pods,pods/log", "");
        check(&pods, "get . pods a", true);
        check(&pods, "get . pods/log a", true);
        check(&pods, "get . pods/exec a", false);
        check(&pods, "create . pods", false);
        check(&pods, "get apps pods a", false);
        let named = rule("get", ".", "secrets", "a");
        check(&named, "get . secrets a", true);
        check(&named, "get . secrets b", false);
        let scale = rule("*", "*", "*/scale", "");
        check(&scale, "update apps deployments/scale a", true);
        check(&scale, "update apps deployments a", false);
        check(&rule("*", "*", "*", ""), "delete apps deployments/scale a", true);
    }

    #[test]
    fn coverage() {
        let all = [rule("*", "*", "*", "")];
        assert!(uncovered(&all, &[rule("get", "apps", "deployments", "x")]).is_empty());
        let some = [rule("get,list", "apps", "deployments", "")];
        let missing = uncovered(&some, &[rule("get,delete", "apps", "deployments", "")]);
        assert_eq!(missing, [rule("delete", "apps", "deployments", "")]);
        assert!(!uncovered(&[rule("get", "apps", "deployments", "x")], &some).is_empty());
        let covers = |owned: Rule, wanted: Rule| uncovered(&[owned], &[wanted]).is_empty();
        assert!(covers(rule("*", "*", "*/scale", ""), rule("update", "apps", "deployments/scale", "x")));
        assert!(!covers(rule("*", "*", "*/scale", ""), rule("update", "apps", "deployments", "")));
        assert!(!covers(rule("*", "*", "pods", ""), rule("get", ".", "*", "")));
        assert!(!covers(rule("get,list", "*", "*", ""), rule("*", ".", "pods", "")), "new verbs are not among those");
        assert!(covers(rule("get", ".", "pods", "a,b"), rule("get", ".", "pods", "b")));
        assert!(!covers(rule("get", ".", "pods", "a,b"), rule("get", ".", "pods", "b,c")));
        assert!(covers(urls("get", "/api/*"), urls("get", "/api/v1")));
        assert!(covers(urls("*", "*"), urls("post", "/x/*")));
        assert!(!covers(urls("get", "/api"), urls("get", "/api/*")));
        assert!(!covers(rule("*", "*", "*", ""), urls("get", "/api")), "resources are no paths");
    }

    fn urls(verb: &str, url: &str) -> Rule {
        Rule { verbs: vec![verb.into()], non_resource_urls: vec![url.into()], ..Rule::default() }
    }

    #[test]
    fn missing_rules_are_shown_together() {
        let wanted =
            [rule("list,get", "apps,batch", "jobs", ""), rule("get", ".", "secrets", "b,a"), urls("get", "/x")];
        let expected = r#"{APIGroups:[""], Resources:["secrets"], ResourceNames:["a"], Verbs:["get"]}
{APIGroups:[""], Resources:["secrets"], ResourceNames:["b"], Verbs:["get"]}
{APIGroups:["apps"], Resources:["jobs"], Verbs:["list" "get"]}
{APIGroups:["batch"], Resources:["jobs"], Verbs:["list" "get"]}
{NonResourceURLs:["/x"], Verbs:["get"]}"#;
        assert_eq!(describe(&uncovered(&[], &wanted)), expected);
    }
}
