//! The APIServices of one moment: who serves a group version, and which place it has among others.

use std::cmp::Reverse;
use std::sync::Arc;

use keelson_api::kinds::local_priority;
use serde_json::Value;

use super::remote::Remote;

/// An APIService, as requests and documents see it.
#[derive(Clone)]
pub(crate) struct Listed {
    pub(crate) group: String,
    pub(crate) version: String,
    /// `groupPriorityMinimum` and `versionPriority`: higher comes first.
    priority: (i64, i64),
    /// `None`: this server.
    pub(crate) remote: Option<Arc<Remote>>,
}

impl Listed {
    pub(super) fn new(object: &Value, remote: Option<Arc<Remote>>) -> Self {
        let spec = &object["spec"];
        let text = |field: &str| spec[field].as_str().unwrap_or_default().to_owned();
        let number = |field: &str| spec[field].as_i64().unwrap_or_default();
        let priority = (number("groupPriorityMinimum"), number("versionPriority"));
        Self { group: text("group"), version: text("version"), priority, remote }
    }
}

/// All APIServices.
#[derive(Default)]
pub(crate) struct Routes {
    services: Vec<Listed>,
    /// Those of other servers; there are seldom more than a few.
    remotes: Vec<Arc<Remote>>,
}

impl Routes {
    pub(super) fn new(mut services: Vec<Listed>) -> Self {
        services.sort_by(|a, b| (&a.group, &a.version).cmp(&(&b.group, &b.version)));
        let remotes = services.iter().filter_map(|service| service.remote.clone()).collect();
        Self { services, remotes }
    }

    pub(super) fn remote(&self, group: &str, version: &str) -> Option<&Arc<Remote>> {
        self.remotes.iter().find(|remote| remote.group == group && remote.version == version)
    }

    /// Group versions of other servers.
    pub(crate) fn remotes(&self) -> &[Arc<Remote>] {
        &self.remotes
    }

    /// By what a group version is sorted in its group: the version's priority, highest first.
    pub(crate) fn version_order(&self, group: &str, version: &str) -> Reverse<i64> {
        let place = self.services.binary_search_by(|s| (s.group.as_str(), s.version.as_str()).cmp(&(group, version)));
        let known = place.ok().and_then(|at| self.services.get(at)).map(|service| service.priority.1);
        Reverse(known.unwrap_or_else(|| local_priority(group, version).1))
    }

    /// By what a group is sorted: the highest priority that one of its versions gives it.
    pub(crate) fn group_order(&self, group: &str) -> Reverse<i64> {
        let known = self.services.iter().filter(|service| service.group == group).map(|service| service.priority.0);
        Reverse(known.max().unwrap_or_else(|| local_priority(group, "").0))
    }
}
