//! How operations are called: tags, operation ids and the nouns of descriptions.

/// `CoreV1`, `RbacAuthorizationV1`: what names a group version in operation ids.
pub(super) fn group_version(group: &str, version: &str) -> String {
    format!("{}{}", self::group(group), camel(version))
}

/// `Core`, `RbacAuthorization` for `rbac.authorization.k8s.io`
pub(super) fn group(group: &str) -> String {
    if group.is_empty() {
        return "Core".to_owned();
    }
    group.trim_end_matches(".k8s.io").split('.').map(camel).collect()
}

/// `core`, `rbacAuthorization`
pub(super) fn group_tag(group: &str) -> String {
    let name = self::group(group);
    let mut chars = name.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// `core_v1`, `rbacAuthorization_v1`
pub(super) fn tag(group: &str, version: &str) -> String {
    format!("{}_{version}", group_tag(group))
}

/// The word with a capital.
pub(super) fn camel(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// `a Pod`, `an Event`, and `Endpoints`, a plural.
pub(super) fn with_article(noun: &str) -> String {
    if noun.ends_with('s') && !noun.ends_with("ss") {
        noun.to_owned()
    } else if noun.starts_with(['A', 'E', 'I', 'O', 'U']) {
        format!("an {noun}")
    } else {
        format!("a {noun}")
    }
}
