//! The last step of a container's process before its own program: ordinary signal dispositions, and its seccomp filter
//! where it has one.
//!
//! `libcontainer` without libseccomp cannot install filters. Installing one takes `no_new_privs` or CAP_SYS_ADMIN; a
//! process that is to have neither is given two capabilities by the specification and loses them here, filter installed.

use std::{os::unix::process::CommandExt, process::Command};

use caps::{CapSet, Capability};
use libcontainer::{
    oci_spec::runtime::Spec,
    workload::{Executor, ExecutorError, ExecutorValidationError, default::DefaultExecutor},
};
use nix::sys::signal::SigSet;

use super::seccomp::{profile, runtime_default};

/// Annotation of the specification that asks for a filter; its value lists the capabilities to be dropped.
pub(crate) const SECCOMP_ANNOTATION: &str = "keelson.seccomp";
/// Annotation with the filter's profile, if it is not `RuntimeDefault`. The specification's own place for it is lost on
/// processes that are executed in a container.
pub(crate) const SECCOMP_PROFILE_ANNOTATION: &str = "keelson.seccomp.profile";

#[derive(Clone)]
pub(super) struct Filtering;

impl Executor for Filtering {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        if let Some(borrowed) = spec.annotations().as_ref().and_then(|all| all.get(SECCOMP_ANNOTATION)) {
            confine(spec, borrowed).map_err(ExecutorError::Other)?;
        }
        run(spec)
    }

    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        DefaultExecutor {}.validate(spec)
    }
}

/// Replaces this process by the container's program, with no signal blocked (the shim blocks SIGCHLD) and, by the standard
/// library's way of doing it, SIGPIPE as it was before this process's own runtime ignored it.
fn run(spec: &Spec) -> Result<(), ExecutorError> {
    let args = spec.process().as_ref().and_then(|process| process.args().as_ref());
    let (program, rest) = args.and_then(|args| args.split_first()).ok_or(ExecutorError::InvalidArg)?;
    let unblocked = SigSet::empty().thread_set_mask();
    unblocked.map_err(|error| ExecutorError::Other(format!("unblock signals: {error}")))?;
    let error = Command::new(program).args(rest).exec();
    Err(ExecutorError::Other(format!("exec {program:?}: {error}")))
}

fn confine(spec: &Spec, borrowed: &str) -> Result<(), String> {
    let say = |what: &'static str| move |error: caps::errors::CapsError| format!("seccomp: {what}: {error}");
    let borrowed: Vec<&str> = borrowed.split(',').filter(|name| !name.is_empty()).collect();
    let capabilities = spec.process().as_ref().and_then(|process| process.capabilities().as_ref()?.bounding().clone());
    let own: Vec<String> = capabilities
        .iter()
        .flatten()
        .map(|capability| format!("CAP_{capability}"))
        .filter(|name| !borrowed.contains(&name.as_str()))
        .collect();
    let filters = match spec.annotations().as_ref().and_then(|all| all.get(SECCOMP_PROFILE_ANNOTATION)) {
        Some(text) => {
            let own = serde_json::from_str(text).map_err(|error| format!("seccomp: read the profile: {error}"))?;
            profile::compile(&own)?
        }
        None => runtime_default(&own)?,
    };
    for filter in filters {
        seccompiler::apply_filter(&filter).map_err(|error| format!("seccomp: install the filter: {error}"))?;
    }
    let borrowed: Result<Vec<Capability>, _> = borrowed.iter().map(|name| name.parse()).collect();
    let borrowed = borrowed.map_err(say("read the capabilities to drop"))?;
    // The bounding set first: leaving it takes a capability that is about to go.
    for set in [CapSet::Bounding, CapSet::Effective, CapSet::Permitted] {
        for capability in &borrowed {
            caps::drop(None, set, *capability).map_err(say("drop a capability"))?;
        }
    }
    Ok(())
}
