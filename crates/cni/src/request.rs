//! The environment half of a CNI call: which command, for which container and interface.

use std::path::PathBuf;

use crate::error::{CniError, code};

/// `CNI_COMMAND`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Join the container to the network.
    Add,
    /// Undo ADD; succeeds when there is nothing left to undo.
    Del,
    /// Verify that what ADD made is still there.
    Check,
    /// Remove whatever belongs to containers that no longer exist.
    Gc,
    /// Say whether ADD could be served.
    Status,
    /// List the supported versions.
    Version,
}

/// The validated environment of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `CNI_COMMAND`.
    pub command: Command,
    /// `CNI_CONTAINERID`; empty for commands that name no container.
    pub container_id: String,
    /// `CNI_IFNAME`: the interface's name inside the container.
    pub ifname: String,
    /// `CNI_NETNS`: the container's network namespace. May be absent for DEL.
    pub netns: Option<PathBuf>,
}

impl Request {
    /// Reads and checks the `CNI_*` variables that the command needs.
    pub fn parse(env: impl Fn(&str) -> Option<String>) -> Result<Self, CniError> {
        let get = |name: &str| env(name).filter(|value| !value.is_empty());
        let command = match get("CNI_COMMAND").as_deref() {
            Some("ADD") => Command::Add,
            Some("DEL") => Command::Del,
            Some("CHECK") => Command::Check,
            Some("GC") => Command::Gc,
            Some("STATUS") => Command::Status,
            Some("VERSION") => Command::Version,
            Some(other) => return Err(invalid(format!("unknown CNI_COMMAND: {other}"))),
            None => return Err(missing(&["CNI_COMMAND"])),
        };
        let (container_id, ifname, netns) = (get("CNI_CONTAINERID"), get("CNI_IFNAME"), get("CNI_NETNS"));
        let mut absent = Vec::new();
        if matches!(command, Command::Add | Command::Del | Command::Check) {
            for (name, value) in [("CNI_CONTAINERID", &container_id), ("CNI_IFNAME", &ifname)] {
                if value.is_none() {
                    absent.push(name);
                }
            }
            if command != Command::Del && netns.is_none() {
                absent.push("CNI_NETNS");
            }
        }
        if !absent.is_empty() {
            return Err(missing(&absent));
        }
        let request = Self {
            command,
            container_id: container_id.unwrap_or_default(),
            ifname: ifname.unwrap_or_default(),
            netns: netns.map(PathBuf::from),
        };
        if matches!(command, Command::Add | Command::Del | Command::Check) {
            check_container_id(&request.container_id)?;
            check_ifname(&request.ifname)?;
        }
        Ok(request)
    }
}

/// The specification's rule: an alphanumeric, then alphanumerics, `_`, `.` and `-`.
fn check_container_id(id: &str) -> Result<(), CniError> {
    let mut chars = id.chars();
    let starts_well = chars.next().is_some_and(|c| c.is_ascii_alphanumeric());
    // 200: an address, the id and an interface name make one file name of at most 255 bytes.
    if starts_well && id.len() <= 200 && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')) {
        return Ok(());
    }
    Err(invalid(format!("invalid CNI_CONTAINERID {id:?}")))
}

/// The kernel's rule for names of interfaces.
fn check_ifname(name: &str) -> Result<(), CniError> {
    let printable = name.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':');
    if printable && name.len() <= 15 && name != "." && name != ".." {
        return Ok(());
    }
    Err(invalid(format!("invalid CNI_IFNAME {name:?}")))
}

fn invalid(details: String) -> CniError {
    CniError::new(code::INVALID_ENVIRONMENT, "invalid environment", details)
}

fn missing(names: &[&str]) -> CniError {
    let details = format!("required env variables [{}] missing", names.join(","));
    CniError::new(code::INVALID_ENVIRONMENT, "invalid environment", details)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(vars: &[(&str, &str)]) -> Result<Request, String> {
        let get = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        Request::parse(get).map_err(|e| format!("{} {}", e.code, e.details))
    }

    #[test]
    fn says_which_variables_are_missing() {
        assert_eq!(parse(&[]).unwrap_err(), "4 required env variables [CNI_COMMAND] missing");
        let names = "4 required env variables [CNI_CONTAINERID,CNI_IFNAME,CNI_NETNS] missing";
        assert_eq!(parse(&[("CNI_COMMAND", "ADD")]).unwrap_err(), names);
        let names = "4 required env variables [CNI_CONTAINERID,CNI_IFNAME] missing";
        assert_eq!(parse(&[("CNI_COMMAND", "DEL"), ("CNI_IFNAME", "")]).unwrap_err(), names);
        assert_eq!(parse(&[("CNI_COMMAND", "FLY")]).unwrap_err(), "4 unknown CNI_COMMAND: FLY");
    }

    #[test]
    fn refuses_names_that_are_paths() {
        let id = |id| parse(&[("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", id), ("CNI_IFNAME", "eth0")]);
        assert!(id("0a-b_c.d").is_ok());
        for bad in ["../x", "-a", "a/b", "a:b", "ä", &"a".repeat(201)] {
            assert!(id(bad).is_err(), "{bad}");
        }
        let name = |name| parse(&[("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "a"), ("CNI_IFNAME", name)]);
        assert!(name("eth0").is_ok());
        for bad in ["..", "a/b", "a b", "a:b", "sixteen-bytes-xx"] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn commands_about_no_container_need_no_container() {
        for command in ["VERSION", "STATUS", "GC"] {
            assert!(parse(&[("CNI_COMMAND", command)]).is_ok(), "{command}");
        }
    }
}
