//! Which devices a container may use, where control groups have no `devices` controller (the unified hierarchy): a program
//! of ours, attached to the container's group, that the kernel asks at every open and mknod. `libcontainer` leaves this out
//! unless it is built with libbpf. On v1 hierarchies `libcontainer` writes the same rules to `devices.allow`.
//!
//! The program is a list of allowed devices, tried one after the other, and a refusal at its end.

use std::{os::fd::AsFd, path::Path};

use serde_json::Value;

use super::sys;
use crate::cgroup;

/// Kinds and accesses as <linux/bpf.h> numbers them.
const BLOCK: u32 = 1;
const CHARACTER: u32 = 2;
const MKNOD: u32 = 1;
const READ: u32 = 2;
const WRITE: u32 = 4;
const ALL: u32 = MKNOD | READ | WRITE;

/// What every container may use: any node may be made, and these may be opened. As in `runc`.
const ALWAYS: [Rule; 10] = [
    Rule { kind: Some(CHARACTER), access: MKNOD, major: None, minor: None },
    Rule { kind: Some(BLOCK), access: MKNOD, major: None, minor: None },
    Rule::character(1, Some(3)),
    Rule::character(1, Some(5)),
    Rule::character(1, Some(7)),
    Rule::character(1, Some(8)),
    Rule::character(1, Some(9)),
    Rule::character(5, Some(0)),
    Rule::character(5, Some(2)),
    Rule::character(136, None),
];
/// Most rules of a program; jumps and the kernel's own limit of instructions allow more.
const MAX_RULES: usize = 256;

/// Devices that may be used; `None` stands for all kinds or numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    kind: Option<u32>,
    access: u32,
    major: Option<u32>,
    minor: Option<u32>,
}

impl Rule {
    const fn character(major: u32, minor: Option<u32>) -> Self {
        Self { kind: Some(CHARACTER), access: ALL, major: Some(major), minor }
    }

    /// From an entry of `linux.resources.devices` that allows something.
    fn parse(entry: &Value) -> Result<Self, String> {
        let kind = match entry.get("type").and_then(Value::as_str) {
            None | Some("a") => None,
            Some("b") => Some(BLOCK),
            Some("c" | "u") => Some(CHARACTER),
            Some(other) => return Err(format!("no such type of device: {other:?}")),
        };
        let letters = entry.get("access").and_then(Value::as_str).unwrap_or("rwm");
        let access = letters.chars().fold(0, |access, letter| {
            access
                | match letter {
                    'r' => READ,
                    'w' => WRITE,
                    'm' => MKNOD,
                    _ => 0,
                }
        });
        let number = |key| entry.get(key).and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok());
        Ok(Self { kind, access, major: number("major"), minor: number("minor") })
    }
}

/// Confines the container with this bundle to the devices of its specification. Does nothing where a `devices` controller
/// has done it, or for a container that may use all of them.
pub(super) fn confine(dir: &Path, group: &Path) -> Result<(), String> {
    if !cgroup::is_unified() {
        return Ok(());
    }
    let file = dir.join("config.json");
    let say = |error: std::io::Error| format!("read {}: {error}", file.display());
    let spec: Value = serde_json::from_slice(&std::fs::read(&file).map_err(say)?).map_err(|error| say(error.into()))?;
    let entries = spec.pointer("/linux/resources/devices").and_then(Value::as_array);
    let Some(rules) = allowed(entries.map_or(&[], Vec::as_slice))? else { return Ok(()) };
    attach(&cgroup::dir("", group), &rules)
}

/// The devices that the entries allow; `None` if that is all of them. An entry that refuses everything makes those before it
/// void; others that refuse are not made by this runtime.
fn allowed(entries: &[Value]) -> Result<Option<Vec<Rule>>, String> {
    let mut rules = Some(ALWAYS.to_vec());
    for entry in entries {
        if entry.get("allow").and_then(Value::as_bool) != Some(true) {
            rules = Some(ALWAYS.to_vec());
            continue;
        }
        match Rule::parse(entry)? {
            Rule { kind: None, access: ALL, major: None, minor: None } => rules = None,
            rule => rules.get_or_insert_default().push(rule),
        }
    }
    match rules {
        Some(rules) if rules.len() > MAX_RULES => Err(format!("more than {MAX_RULES} devices")),
        rules => Ok(rules),
    }
}

fn attach(group: &Path, rules: &[Rule]) -> Result<(), String> {
    let say = |error: std::io::Error| format!("confine {} to its devices: {error}", group.display());
    let program = sys::load_device_program(&program(rules)).map_err(say)?;
    let group = std::fs::File::open(group).map_err(say)?;
    sys::attach_device_program(group.as_fd(), program.as_fd()).map_err(say)
}

/// One instruction of <linux/bpf.h>: operation, destination and source register, jump offset, constant.
fn instruction(operation: u8, destination: u8, source: u8, offset: i16, constant: u32) -> u64 {
    let registers = if cfg!(target_endian = "little") { destination | source << 4 } else { destination << 4 | source };
    let [o0, o1] = offset.to_ne_bytes();
    let [c0, c1, c2, c3] = constant.to_ne_bytes();
    u64::from_ne_bytes([operation, registers, o0, o1, c0, c1, c2, c3])
}

/// The program. The kernel hands a structure in register 1: access in the upper and kind in the lower half of the first
/// word, then major and minor number.
fn program(rules: &[Rule]) -> Vec<u64> {
    const LOAD_WORD: u8 = 0x61;
    const MOVE: u8 = 0xb7;
    const MOVE_REGISTER: u8 = 0xbf;
    const AND: u8 = 0x57;
    const SHIFT_RIGHT: u8 = 0x77;
    const JUMP_UNLESS: u8 = 0x55;
    const EXIT: u8 = 0x95;
    const RESULT: u8 = 0;
    const CONTEXT: u8 = 1;
    const KIND: u8 = 2;
    const ACCESS: u8 = 3;
    const MAJOR: u8 = 4;
    const MINOR: u8 = 5;
    let mut program = vec![
        instruction(LOAD_WORD, KIND, CONTEXT, 0, 0),
        instruction(MOVE_REGISTER, ACCESS, KIND, 0, 0),
        instruction(AND, KIND, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        instruction(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        instruction(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    for rule in rules {
        // A test that fails jumps past the rest of the rule: the tests after it and the two instructions that allow.
        let mut tests: Vec<(u8, u32)> = Vec::new();
        tests.extend(rule.kind.map(|kind| (KIND, kind)));
        tests.extend(rule.major.map(|major| (MAJOR, major)));
        tests.extend(rule.minor.map(|minor| (MINOR, minor)));
        if rule.access != ALL {
            // What is asked for beyond the rule has to be nothing. The context's register is free by now.
            program.push(instruction(MOVE_REGISTER, CONTEXT, ACCESS, 0, 0));
            program.push(instruction(AND, CONTEXT, 0, 0, !rule.access));
            tests.insert(0, (CONTEXT, 0));
        }
        let count = tests.len();
        for (index, (register, value)) in tests.into_iter().enumerate() {
            program.push(instruction(JUMP_UNLESS, register, 0, (count - index + 1) as i16, value));
        }
        program.push(instruction(MOVE, RESULT, 0, 0, 1));
        program.push(instruction(EXIT, 0, 0, 0, 0));
    }
    program.push(instruction(MOVE, RESULT, 0, 0, 0));
    program.push(instruction(EXIT, 0, 0, 0, 0));
    program
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use serde_json::json;

    use super::*;

    #[test]
    fn the_last_word_about_everything_counts() {
        let all = json!({"allow": true, "access": "rwm"});
        let none = json!({"allow": false, "access": "rwm"});
        let disk = json!({"allow": true, "type": "b", "major": 8, "minor": 0, "access": "r"});
        assert_eq!(allowed(&[]).unwrap().unwrap().len(), ALWAYS.len());
        assert_eq!(allowed(&[none.clone(), all.clone()]).unwrap(), None);
        let rules = allowed(&[all, none, disk]).unwrap().unwrap();
        assert_eq!(rules.last(), Some(&Rule { kind: Some(BLOCK), access: READ, major: Some(8), minor: Some(0) }));
        assert!(allowed(&[json!({"allow": true, "type": "x"})]).is_err());
    }

    /// In a group of the unified hierarchy, which need not have controllers.
    #[test]
    fn the_kernel_refuses_other_devices() {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let unified = mounts.lines().find_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
            [_, point, "cgroup2", ..] => Some(Path::new(point)),
            _ => None,
        });
        let group = unified.expect("a unified hierarchy").join(format!("keelson-devices-{}", std::process::id()));
        std::fs::create_dir(&group).unwrap();
        let nodes = tempfile::tempdir().unwrap();
        let zero = json!({"allow": true, "type": "c", "major": 4, "minor": 0, "access": "r"});
        let rules = allowed(&[json!({"allow": false, "access": "rwm"}), zero]).unwrap().unwrap();
        attach(&group, &rules).unwrap();
        // /dev/loop-control (10:237), /dev/tty0 (4:0) for reading only; what is not a device is not asked about.
        let script = r#"
            echo $$ > "$1/cgroup.procs"; cd "$2"
            mknod null c 1 3 && mknod kmsg c 1 11 && mknod disk b 7 0 && mknod tty0 c 4 0 && mknod mem c 1 1
            for node in null kmsg disk mem; do (: < $node) 2>/dev/null && echo "r $node"; done
            for node in null tty0 kmsg; do (: >> $node) 2>/dev/null && echo "w $node"; done
            (: < tty0) 2>&1 | grep -o "not permitted"; echo file > file && cat file"#;
        let output = Command::new("/bin/sh").args(["-c", script, "sh"]).arg(&group).arg(nodes.path()).output().unwrap();
        let removed = std::fs::remove_dir(&group);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "r null\nw null\nfile\n", "{output:?}");
        removed.unwrap();
    }
}
