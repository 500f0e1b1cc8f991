//! The last step of a container's process before its own program: ordinary signal dispositions, and its seccomp filter
//! where it has one.
//!
//! `libcontainer` without libseccomp cannot install filters. Installing one takes `no_new_privs` or CAP_SYS_ADMIN; a
//! process that is to have neither is given two capabilities by the specification and loses them here, filter installed.

use std::{
    ffi::{CString, OsString},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use caps::{CapSet, Capability};
use libcontainer::{
    oci_spec::runtime::Spec,
    workload::{Executor, ExecutorError, ExecutorValidationError},
};
use nix::sys::signal::SigSet;

use super::{
    seccomp::{profile, runtime_default},
    sys,
};

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
        let process = spec.process().as_ref();
        let program = process.and_then(|process| process.args().as_ref()?.first());
        let program = program
            .ok_or_else(|| ExecutorValidationError::ArgValidationError("the specification has no command".into()))?;
        let path = process.and_then(|process| search_path(process.env().as_deref().unwrap_or_default()));
        find_program(program, path.unwrap_or_default()).map(drop).map_err(ExecutorValidationError::ArgValidationError)
    }
}

/// The last `PATH` among the entries of an environment.
fn search_path(env: &[String]) -> Option<&str> {
    env.iter().rev().find_map(|entry| entry.strip_prefix("PATH="))
}

/// Finds the file to be executed as this process's user, in the words that `runc` has for what is wrong with it. A name with
/// a slash is a path; others are looked for in the directories of `path`, past what cannot be executed.
fn find_program(program: &str, path: &str) -> Result<PathBuf, String> {
    const NOT_FOUND: &str = "no such file or directory";
    let executable = |file: &Path| {
        let metadata = std::fs::metadata(file).map_err(|error| match error.kind() {
            std::io::ErrorKind::PermissionDenied => "permission denied",
            _ => NOT_FOUND,
        })?;
        if metadata.is_dir() {
            return Err("is a directory");
        }
        let access =
            rustix::fs::accessat(rustix::fs::CWD, file, rustix::fs::Access::EXEC_OK, rustix::fs::AtFlags::EACCESS);
        access.map_err(|_| "permission denied")
    };
    if program.contains('/') {
        let checked = executable(Path::new(program)).map(|()| PathBuf::from(program));
        return checked.map_err(|why| match why {
            NOT_FOUND => format!("exec: {program:?}: stat {program}: {why}"),
            why => format!("exec: {program:?}: {why}"),
        });
    }
    let mut candidates = path.split(':').map(|dir| Path::new(if dir.is_empty() { "." } else { dir }).join(program));
    let found = candidates.find(|file| !program.is_empty() && executable(file).is_ok());
    found.ok_or_else(|| format!("exec: {program:?}: executable file not found in $PATH"))
}

/// Replaces this process by the container's program, with no signal blocked (the shim blocks SIGCHLD) and SIGPIPE as it was
/// before this process's own runtime ignored it. A failure is told on the container's standard error: nobody else listens
/// any more.
fn run(spec: &Spec) -> Result<(), ExecutorError> {
    let args = spec.process().as_ref().and_then(|process| process.args().as_ref()).ok_or(ExecutorError::InvalidArg)?;
    let program = args.first().ok_or(ExecutorError::InvalidArg)?;
    let unblocked = SigSet::empty().thread_set_mask();
    unblocked.map_err(|error| ExecutorError::Other(format!("unblock signals: {error}")))?;
    sys::default_sigpipe();
    let message = replace(program, args, &environment(spec));
    eprintln!("{message}");
    Err(ExecutorError::Other(message))
}

/// This process's environment, which `libcontainer` has made the container's; the specification's where nobody has.
fn environment(spec: &Spec) -> Vec<OsString> {
    let own: Vec<OsString> =
        std::env::vars_os().map(|(name, value)| [name, value].join(std::ffi::OsStr::new("="))).collect();
    if !own.is_empty() {
        return own;
    }
    let env = spec.process().as_ref().and_then(|process| process.env().as_ref());
    env.into_iter().flatten().map(OsString::from).collect()
}

/// Returns only to say why not. The C library's `execvp` would give what the kernel does not know to a shell.
fn replace(program: &str, args: &[String], env: &[OsString]) -> String {
    let path = env.iter().rev().find_map(|entry| entry.to_str()?.strip_prefix("PATH="));
    let file = match find_program(program, path.unwrap_or_default()) {
        Ok(file) => file,
        Err(message) => return message,
    };
    let words: Result<Vec<CString>, _> = args.iter().map(|word| CString::new(word.as_str())).collect();
    let env: Result<Vec<CString>, _> = env.iter().map(|entry| CString::new(entry.as_bytes())).collect();
    let (Ok(file_), Ok(words), Ok(env)) = (CString::new(file.as_os_str().as_bytes()), words, env) else {
        return format!("exec {}: a word of the command holds a zero byte", file.display());
    };
    let error = match nix::unistd::execve(&file_, &words, &env) {
        Ok(never) => match never {},
        Err(nix::Error::ENOEXEC) => "exec format error".to_owned(),
        Err(error) => error.desc().to_lowercase(),
    };
    format!("exec {}: {error}", file.display())
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
        sys::install_filter(&filter).map_err(|error| format!("seccomp: install the filter: {error}"))?;
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn programs_are_found_as_the_kernel_would_execute_them() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        std::fs::create_dir_all(at("a/tool")).unwrap();
        std::fs::create_dir_all(at("b")).unwrap();
        for (name, mode) in [("b/tool", 0o700), ("a/plain", 0o644), ("b/plain", 0o644)] {
            std::fs::write(at(name), "").unwrap();
            std::fs::set_permissions(at(name), PermissionsExt::from_mode(mode)).unwrap();
        }
        let path = format!("{}:{}", at("a"), at("b"));
        // A directory of that name does not end the search, and the owner's permission is enough for the owner.
        assert_eq!(find_program("tool", &path), Ok(at("b/tool").into()));
        assert_eq!(find_program(&at("b/tool"), ""), Ok(at("b/tool").into()));
        for (program, why) in [
            ("plain", "executable file not found in $PATH"),
            ("", "executable file not found in $PATH"),
            (&at("a/plain"), "permission denied"),
            (&at("a"), "is a directory"),
            (&at("none"), "no such file or directory"),
        ] {
            let error = find_program(program, &path).unwrap_err();
            assert!(error.ends_with(why), "{program:?}: {error}");
        }
        assert_eq!(search_path(&["PATH=/a".into(), "A=1".into(), "PATH=/b".into()]), Some("/b"));
    }
}
