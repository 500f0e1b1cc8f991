//! `shim userns`: makes a user namespace and, once the runtime has given it IDs, the namespaces that are to belong to it. It
//! stays until its standard input ends.

use std::io::{Read, Write};

use nix::{
    sched::{CloneFlags, unshare},
    unistd::{Gid, Uid, setgroups, setresgid, setresuid},
};

pub(super) fn make() -> Result<(), String> {
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|error| format!("unshare the user namespace: {error}"))?;
    say()?;
    let mut byte = [0];
    std::io::stdin().read_exact(&mut byte).map_err(|error| format!("wait for the IDs: {error}"))?;
    become_root()?;
    let others = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    unshare(others).map_err(|error| format!("unshare the other namespaces: {error}"))?;
    say()?;
    let _ = std::io::stdin().read(&mut byte);
    Ok(())
}

/// Becomes the root of the user namespace that this process is in.
pub(super) fn become_root() -> Result<(), String> {
    let say = |error: nix::Error| format!("become root of the user namespace: {error}");
    let (root, group) = (Uid::from_raw(0), Gid::from_raw(0));
    setgroups(&[]).map_err(say)?;
    setresgid(group, group, group).map_err(say)?;
    setresuid(root, root, root).map_err(say)
}

fn say() -> Result<(), String> {
    let mut stdout = std::io::stdout();
    stdout.write_all(b"\n").and_then(|()| stdout.flush()).map_err(|error| format!("answer: {error}"))
}
