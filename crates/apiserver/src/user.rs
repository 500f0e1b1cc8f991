//! Who makes a request.

use std::collections::BTreeMap;

/// Who a request is from that says nothing about it.
pub(crate) const ANONYMOUS: &str = "system:anonymous";
/// Group of everybody who proved an identity.
pub(crate) const AUTHENTICATED: &str = "system:authenticated";
/// Group of those who did not.
pub(crate) const UNAUTHENTICATED: &str = "system:unauthenticated";
/// Group that no rule can stop.
pub(crate) const MASTERS: &str = "system:masters";

/// Key of [`UserInfo::extra`] that tells credentials of one user apart.
pub(crate) const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// An identity, as authentication found it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct UserInfo {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// An authenticated user; `system:authenticated` is added to the groups.
    pub fn new<G: Into<String>>(name: impl Into<String>, groups: impl IntoIterator<Item = G>) -> Self {
        let mut groups: Vec<String> = groups.into_iter().map(Into::into).collect();
        if !groups.iter().any(|group| group == AUTHENTICATED) {
            groups.push(AUTHENTICATED.into());
        }
        Self { name: name.into(), groups, ..Self::default() }
    }

    /// Adds `system:authenticated`, unless the groups say already whether the user is.
    pub(crate) fn authenticated(mut self) -> Self {
        let known = |group: &String| group == AUTHENTICATED || group == UNAUTHENTICATED;
        if self.name != ANONYMOUS && !self.groups.iter().any(known) {
            self.groups.push(AUTHENTICATED.into());
        }
        self
    }

    /// `system:anonymous`
    pub fn anonymous() -> Self {
        Self { name: ANONYMOUS.into(), groups: vec![UNAUTHENTICATED.into()], ..Self::default() }
    }

    /// A service account's user.
    pub fn service_account(namespace: &str, name: &str, uid: &str) -> Self {
        let groups = ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
        Self { uid: uid.into(), ..Self::new(format!("system:serviceaccount:{namespace}:{name}"), groups) }
    }

    /// Whether the user is in `group`.
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// Namespace and name, for a service account.
    pub fn as_service_account(&self) -> Option<(&str, &str)> {
        self.name.strip_prefix("system:serviceaccount:")?.split_once(':')
    }

    /// The node's name, for a kubelet.
    pub fn as_node(&self) -> Option<&str> {
        let name = self.name.strip_prefix("system:node:").filter(|name| !name.is_empty());
        name.filter(|_| self.in_group("system:nodes"))
    }
}
