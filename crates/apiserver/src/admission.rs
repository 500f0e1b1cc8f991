//! Admission: what is decided about a request with knowledge of other objects. Each plugin is one file; here is their order.
//! Mutating plugins run on the object with its defaults, before the kind's own preparation and validation; validating ones
//! after those.

mod attributes;
mod certificates;
mod claim_resize;
mod default_class;
mod default_tolerations;
mod expressions;
mod extensions;
mod lazily;
mod limit_ranger;
mod matching;
mod namespace_lifecycle;
mod namespaces;
mod node_restriction;
mod node_taints;
pub(crate) mod plugin;
mod pod_security;
mod policies;
mod priority;
mod rbac_escalation;
mod reinvocation;
mod resource_quota;
mod runtime_class;
mod service_account;
pub(crate) mod settings;
mod storage_protection;
#[cfg(test)]
mod tests;
mod topology_labels;
mod webhooks;

use std::sync::Arc;

use keelson_api::status::Status;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::Instant;

use crate::UserInfo;
use crate::audit::Level;
use crate::core::Core;
use crate::metrics::Step;
use crate::registry::Resource;
use crate::registry::options::{DeleteOptions, WriteOptions};

pub(crate) use extensions::Extensions;
pub(crate) use namespace_lifecycle::namespace_exists;
use plugin::Plugin;
pub(crate) use plugin::names as controllers;
pub(crate) use policies::typecheck;

/// What somebody does to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
    /// `exec`, `attach`, `portforward`, `proxy`.
    Connect,
}

impl Operation {
    /// As rules and reviews write it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// Who judges a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judges {
    /// Plugins, policies and webhooks.
    All,
    /// The plugins alone: writes of the server itself, which nobody's webhook may hold up.
    Plugins,
    /// Nobody: a step of something that has been judged as a whole.
    Nobody,
}

/// What is said about a request beside yes or no. Empty for most, and then nothing is allocated.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    warnings: Mutex<Vec<String>>,
    annotations: Mutex<Vec<(Level, String, String)>>,
}

impl Notes {
    /// Warns the client.
    pub(crate) fn warn(&self, text: impl Into<String>) {
        self.warnings.lock().push(text.into());
    }

    /// Adds an annotation to the audit event, unless there is one of that key.
    pub(crate) fn annotate(&self, key: impl Into<String>, value: impl Into<String>) {
        self.annotate_from(Level::Metadata, key, value);
    }

    /// As [`Notes::annotate`], for events of this level and above.
    pub(crate) fn annotate_from(&self, level: Level, key: impl Into<String>, value: impl Into<String>) {
        let (key, mut all) = (key.into(), self.annotations.lock());
        if !all.iter().any(|(_, known, _)| *known == key) {
            all.push((level, key, value.into()));
        }
    }

    /// The warnings so far, which are then gone.
    pub(crate) fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.lock())
    }

    /// The annotations so far that an event of this level may show; all are then gone.
    pub(crate) fn take_annotations(&self, level: Level) -> impl Iterator<Item = (String, String)> + use<> {
        let all = std::mem::take(&mut *self.annotations.lock());
        all.into_iter().filter(move |(from, ..)| *from <= level).map(|(_, key, value)| (key, value))
    }
}

/// Who asks, who judges, and where to write down what they say.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) user: &'a Arc<UserInfo>,
    pub(crate) judges: Judges,
    pub(crate) notes: &'a Notes,
}

/// The options of a request.
#[derive(Clone, Copy)]
pub(crate) enum Options<'a> {
    Write(&'a WriteOptions),
    Delete(&'a DeleteOptions),
    /// A `CONNECT` has none.
    None,
}

/// A request that is being judged. For names see upstream's `admission.Attributes`.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) core: &'a Core,
    pub(crate) resource: &'a Resource,
    /// Empty for the object itself.
    pub(crate) subresource: &'a str,
    pub(crate) operation: Operation,
    pub(crate) namespace: &'a str,
    /// Empty before a name is generated.
    pub(crate) name: &'a str,
    /// The name, or what one is generated from: what refusals say.
    pub(crate) shown: &'a str,
    pub(crate) user: &'a UserInfo,
    pub(crate) judges: Judges,
    pub(crate) notes: &'a Notes,
    pub(crate) options: Options<'a>,
    /// The stored object of updates and deletes.
    pub(crate) old: Option<&'a Value>,
}

impl<'a> Request<'a> {
    /// A write with options.
    pub(crate) fn write(
        core: &'a Core,
        resource: &'a Resource,
        operation: Operation,
        (namespace, name, subresource): (&'a str, &'a str, &'a str),
        options: &'a WriteOptions,
    ) -> Self {
        let WriteOptions { user, judges, notes, .. } = options;
        let (judges, options) = (*judges, Options::Write(options));
        Self {
            core,
            resource,
            subresource,
            operation,
            namespace,
            name,
            shown: name,
            user,
            judges,
            notes,
            options,
            old: None,
        }
    }

    /// Whether it is about objects of this resource themselves.
    fn is(&self, group: &str, resource: &str) -> bool {
        self.subresource.is_empty() && self.is_any(group, resource)
    }

    /// Whether it is about this resource, subresources included.
    fn is_any(&self, group: &str, resource: &str) -> bool {
        self.resource.kind.group == group && self.resource.kind.resource == resource
    }

    /// Whether a plugin runs.
    fn has(&self, plugin: Plugin) -> bool {
        self.core.admission.has(plugin)
    }

    /// Asks a plugin, if it runs, and measures it.
    fn ask(&self, plugin: Plugin, step: Step, work: impl FnOnce() -> Result<(), Status>) -> Result<(), Status> {
        if !self.has(plugin) {
            return Ok(());
        }
        let begin = Instant::now();
        let result = work();
        self.measured(plugin, step, begin, result.is_err());
        result
    }

    /// The same for one that may have to wait, and runs.
    async fn wait(
        &self,
        plugin: Plugin,
        step: Step,
        work: impl Future<Output = Result<(), Status>>,
    ) -> Result<(), Status> {
        let begin = Instant::now();
        let result = work.await;
        self.measured(plugin, step, begin, result.is_err());
        result
    }

    fn measured(&self, plugin: Plugin, step: Step, begin: Instant, rejected: bool) {
        if plugin.handles(self.operation) {
            let (took, metrics) = (begin.elapsed(), &self.core.metrics.admission);
            metrics.controller(plugin as usize, step, self.operation, took, rejected);
        }
    }

    fn forbidden(&self, why: &str) -> Status {
        self.resource.forbidden(self.shown, why)
    }

    /// Whether nothing is to be changed.
    pub(crate) fn is_dry_run(&self) -> bool {
        match self.options {
            Options::Write(options) => options.dry_run,
            Options::Delete(options) => options.is_dry_run(),
            Options::None => false,
        }
    }

    /// `CreateOptions`, `UpdateOptions` or `DeleteOptions`, as they were sent; null for a `CONNECT`.
    pub(crate) fn options(&self) -> Value {
        match self.options {
            Options::Write(options) => options.to_value(self.operation),
            Options::Delete(options) => options.to_value(),
            Options::None => Value::Null,
        }
    }
}

/// Lets plugins, policies and webhooks change the object, before the kind prepares and validates it. Whether policies or
/// webhooks did: what they made of it may be anything that fits the schema.
pub(crate) async fn mutate(request: &Request<'_>, object: &mut Value) -> Result<bool, Status> {
    if request.judges == Judges::Nobody {
        return Ok(false);
    }
    let begin = Instant::now();
    let result = async {
        plugins(request, object).await?;
        extensions::mutate(request, object).await
    };
    let result = result.await;
    request.core.metrics.admission.step(Step::Admit, request.operation, begin.elapsed(), result.is_err());
    result
}

async fn plugins(request: &Request<'_>, object: &mut Value) -> Result<(), Status> {
    use Step::Admit;
    request.ask(Plugin::LimitRanger, Admit, || {
        limit_ranger::mutate(request, object);
        Ok(())
    })?;
    if request.has(Plugin::ServiceAccount) {
        request.wait(Plugin::ServiceAccount, Admit, service_account::mutate(request, object)).await?;
    }
    request.ask(Plugin::TaintNodesByCondition, Admit, || {
        node_taints::mutate(request, object);
        Ok(())
    })?;
    request.ask(Plugin::Priority, Admit, || priority::mutate(request, object))?;
    request.ask(Plugin::DefaultTolerationSeconds, Admit, || {
        default_tolerations::mutate(request, object);
        Ok(())
    })?;
    request.ask(Plugin::StorageObjectInUseProtection, Admit, || {
        storage_protection::mutate(request, object);
        Ok(())
    })?;
    request.ask(Plugin::DefaultStorageClass, Admit, || default_class::storage(request, object))?;
    request.ask(Plugin::DefaultIngressClass, Admit, || default_class::ingress(request, object))?;
    if request.has(Plugin::RuntimeClass) {
        request.wait(Plugin::RuntimeClass, Admit, runtime_class::mutate(request, object)).await?;
    }
    request.ask(Plugin::PodTopologyLabels, Admit, || topology_labels::mutate(request, object))
}

/// Lets plugins, policies and webhooks refuse the request. A delete has no object (null).
pub(crate) async fn validate(request: &Request<'_>, object: &Value) -> Result<(), Status> {
    if request.judges == Judges::Nobody {
        return Ok(());
    }
    let begin = Instant::now();
    let result = judge(request, object).await;
    request.core.metrics.admission.step(Step::Validate, request.operation, begin.elapsed(), result.is_err());
    result
}

/// Upstream asks some of these while it mutates: they are measured under its name for that.
async fn judge(request: &Request<'_>, object: &Value) -> Result<(), Status> {
    use Step::{Admit, Validate};
    // ResourceQuota, which counts what everybody else has let pass, goes last.
    request.ask(Plugin::NamespaceLifecycle, Admit, || namespace_lifecycle::validate(request))?;
    if request.has(Plugin::NodeRestriction) {
        request.wait(Plugin::NodeRestriction, Admit, node_restriction::validate(request, object)).await?;
    }
    request.ask(Plugin::LimitRanger, Validate, || limit_ranger::validate(request, object))?;
    request.ask(Plugin::ServiceAccount, Validate, || service_account::validate(request, object))?;
    if request.has(Plugin::PodSecurity) {
        request.wait(Plugin::PodSecurity, Validate, pod_security::validate(request, object)).await?;
    }
    request.ask(Plugin::Priority, Validate, || priority::validate(request, object))?;
    request.ask(Plugin::PersistentVolumeClaimResize, Validate, || claim_resize::validate(request, object))?;
    if request.has(Plugin::CertificateApproval) {
        request.wait(Plugin::CertificateApproval, Validate, certificates::approval(request)).await?;
    }
    if request.has(Plugin::CertificateSigning) {
        request.wait(Plugin::CertificateSigning, Validate, certificates::signing(request, object)).await?;
    }
    request.ask(Plugin::CertificateSubjectRestriction, Validate, || certificates::subject(request, object))?;
    rbac_escalation::validate(request, object).await?;
    extensions::validate(request, object).await?;
    if request.has(Plugin::ResourceQuota) {
        request.wait(Plugin::ResourceQuota, Validate, resource_quota::validate(request, object)).await?;
    }
    Ok(())
}
