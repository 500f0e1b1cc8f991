//! Kernel parameters the node's packet path needs.

use std::{fs::File, io, path::Path};

use crate::Error;

/// What must be set. Redirects would tell pods to talk past the node.
const NEEDED: [(&str, &str); 2] = [("net/ipv4/ip_forward", "1"), ("net/ipv4/conf/all/send_redirects", "0")];

/// Sets them in `netns`, or in the calling thread's network namespace.
pub(crate) fn prepare(netns: Option<&Path>) -> Result<(), Error> {
    let Some(path) = netns else { return set_all() };
    // A thread of its own enters the namespace and ends there.
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            let entered = File::open(path)
                .and_then(|ns| nix::sched::setns(ns, nix::sched::CloneFlags::CLONE_NEWNET).map_err(io::Error::from));
            entered.map_err(|e| Error::Sysctl(format!("parameters of namespace {}", path.display()), e))?;
            set_all()
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn set_all() -> Result<(), Error> {
    NEEDED.iter().try_for_each(|(key, value)| {
        let path = Path::new("/proc/sys").join(key);
        // Where it has the value already, /proc/sys may well be read-only.
        if std::fs::read_to_string(&path).is_ok_and(|now| now.trim() == *value) {
            return Ok(());
        }
        std::fs::write(&path, value).map_err(|e| Error::Sysctl(format!("{} to {value}", path.display()), e))
    })
}
