//! Mount points of this process, from the kernel's mount table.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The table of this process's mount namespace, see proc_pid_mountinfo(5).
pub const TABLE: &str = "/proc/self/mountinfo";

/// Mount points at or below `dir`, deepest first. An error is why the [`TABLE`] cannot be read.
pub fn below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let table = std::fs::read_to_string(TABLE)?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescaped);
    let mut points: Vec<PathBuf> = points.filter(|point| point.starts_with(dir)).collect();
    points.reverse();
    Ok(points)
}

/// A path of the table, in which the kernel writes spaces, tabs, newlines, backslashes and `#` as octal numbers.
pub fn unescaped(field: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_mount_table() {
        for (field, path) in [
            ("/a", "/a"),
            ("/a\\040b\\011c\\012d", "/a b\tc\nd"),
            ("/a\\134040", "/a\\040"),
            ("/a\\043\\9", "/a#\\9"),
            ("/a\\0", "/a\\0"),
        ] {
            assert_eq!(unescaped(field), Path::new(path), "{field}");
        }
    }

    #[test]
    fn everything_is_below_the_root() {
        let all = below(Path::new("/")).unwrap();
        assert!(all.contains(&PathBuf::from("/proc")), "{all:?}");
    }
}
