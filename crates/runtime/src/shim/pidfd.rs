//! The exit status of a process that is not this process's child, through its pidfd. Linux 6.15 and later tell it once the
//! process has been reaped by whoever its parent is. Unsafe code: no wrapper crate has this ioctl yet.

#![allow(unreachable_pub, reason = "the ioctl macro makes a public function")]
#![allow(unsafe_code, reason = "PIDFD_GET_INFO has no safe wrapper in nix or rustix")]

use std::os::fd::{AsRawFd, BorrowedFd};

/// `struct pidfd_info` of <linux/pidfd.h>, first version (64 bytes); later kernels accept it as it is.
#[repr(C)]
#[derive(Default)]
pub struct PidfdInfo {
    mask: u64,
    cgroup_id: u64,
    ids: [u32; 11],
    exit_code: i32,
}

const PIDFD_INFO_EXIT: u64 = 1 << 3;

nix::ioctl_readwrite!(pidfd_get_info, 0xFF, 11, PidfdInfo);

/// Exit status, or 128 + signal; `None` while it cannot be known.
pub(crate) fn exit_code(pidfd: BorrowedFd<'_>) -> Option<i32> {
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the descriptor is open for as long as it is borrowed, and the kernel writes at most the 64 bytes that the
    // request's number says the structure has; every bit pattern is a value of it.
    unsafe { pidfd_get_info(pidfd.as_raw_fd(), &mut info) }.ok()?;
    if info.mask & PIDFD_INFO_EXIT == 0 {
        return None;
    }
    let (status, signal) = (info.exit_code >> 8 & 0xff, info.exit_code & 0x7f);
    Some(if signal == 0 { status } else { 128 + signal })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    #[test]
    fn the_code_of_a_reaped_process() {
        for (script, code) in [("exit 3", 3), ("kill -9 $$", 137)] {
            let mut child = std::process::Command::new("/bin/sh").args(["-c", script]).spawn().unwrap();
            let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
            child.wait().unwrap();
            let told = super::exit_code(pidfd.as_fd());
            if told.is_none() {
                // Debian 12's kernel is older.
                let release = rustix::system::uname().release().to_string_lossy().into_owned();
                let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
                assert!(
                    (numbers.next(), numbers.next()) < (Some(6), Some(15)),
                    "{script}: Linux {release} says nothing"
                );
                continue;
            }
            assert_eq!(told, Some(code), "{script}");
        }
    }
}
