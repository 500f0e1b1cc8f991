//! Seccomp profiles of the node's own (`Localhost`), in the format of the OCI runtime specification, as filters for the kernel.
//!
//! One filter of `seccompiler` knows one action beside its default. A profile with more becomes several filters, of which the
//! kernel takes the most severe answer. So where two entries of a profile match one call, the more severe wins here, the first
//! one with libseccomp.

use libcontainer::oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompFilterFlag,
    LinuxSeccompOperator as Operator,
};
use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition, SeccompRule,
};

use super::arch::{self, Rules};

/// The filters of `profile`, in the order in which they are to be installed. Calls that this architecture does not have are
/// passed over, as libseccomp's users do. The error names the profile's field.
pub(crate) fn compile(profile: &LinuxSeccomp) -> Result<Vec<BpfProgram>, String> {
    if profile.listener_path().is_some() || profile.listener_metadata().is_some() {
        return Err("listenerPath is not supported".into());
    }
    let flags = profile.flags().iter().flatten();
    if let Some(flag) = flags.into_iter().find(|flag| !matches!(flag, LinuxSeccompFilterFlag::SeccompFilterFlagLog)) {
        return Err(format!("flags: {flag:?} is not supported"));
    }
    let default = action(profile.default_action(), profile.default_errno_ret())
        .ok_or_else(|| format!("defaultAction {} is not supported", profile.default_action()))?;
    let native = Sorted::new(profile, &default, arch::native)?;
    let listed = profile.architectures().iter().flatten().any(|arch| *arch == Arch::ScmpArchX86);
    let known = listed && arch::narrow("read").is_some();
    let narrow = known.then(|| Sorted::new(profile, &default, arch::narrow)).transpose()?;
    let (narrow_others, narrow_passed) = match narrow {
        Some(narrow) => (narrow.others.into_iter().map(|(_, rules)| Some(rules)).collect(), Some(narrow.passed)),
        None => (vec![None; native.others.len()], None),
    };
    let others = native.others.into_iter().zip(narrow_others);
    let others = others.map(|((answer, rules), narrow)| arch::program(rules, narrow, &SeccompAction::Allow, &answer));
    let mut filters = others.collect::<Result<Vec<_>, _>>()?;
    if default != SeccompAction::Allow {
        // Last: with it in place, installing another might be refused.
        filters.push(arch::program(native.passed, narrow_passed, &default, &SeccompAction::Allow)?);
    }
    Ok(filters)
}

/// A profile's entries for one architecture.
struct Sorted {
    /// What is to pass the filter that answers for every other call.
    passed: Rules,
    /// What further filters answer, in the profile's order whether this architecture has the calls or not.
    others: Vec<(SeccompAction, Rules)>,
}

impl Sorted {
    fn new(
        profile: &LinuxSeccomp,
        default: &SeccompAction,
        number: impl Fn(&str) -> Option<i64>,
    ) -> Result<Self, String> {
        let mut sorted = Self { passed: Rules::new(), others: Vec::new() };
        for entry in profile.syscalls().iter().flatten() {
            let answer = action(entry.action(), entry.errno_ret()).ok_or_else(|| {
                format!("syscalls: action {} of {:?} is not supported", entry.action(), entry.names())
            })?;
            if answer == *default {
                continue;
            }
            let conditions = entry.args().iter().flatten().map(condition).collect::<Result<Vec<_>, _>>()?;
            let index = (answer != SeccompAction::Allow).then(|| {
                sorted.others.iter().position(|(other, _)| *other == answer).unwrap_or_else(|| {
                    sorted.others.push((answer.clone(), Rules::new()));
                    sorted.others.len() - 1
                })
            });
            for call in entry.names().iter().filter_map(|name| number(name)) {
                add(&mut sorted.passed, call, &conditions)?;
                if let Some((_, rules)) = index.and_then(|index| sorted.others.get_mut(index)) {
                    add(rules, call, &conditions)?;
                }
            }
        }
        Ok(sorted)
    }
}

/// Adds a rule. A call without rules of its own matches always, whatever else is said of it.
fn add(rules: &mut Rules, number: i64, conditions: &[SeccompCondition]) -> Result<(), String> {
    if conditions.is_empty() {
        rules.insert(number, Vec::new());
        return Ok(());
    }
    let rule = SeccompRule::new(conditions.to_vec()).map_err(|error| error.to_string())?;
    match rules.get_mut(&number) {
        Some(always) if always.is_empty() => {}
        Some(some) => some.push(rule),
        None => {
            rules.insert(number, vec![rule]);
        }
    }
    Ok(())
}

fn action(action: Action, errno: Option<u32>) -> Option<SeccompAction> {
    Some(match action {
        Action::ScmpActAllow => SeccompAction::Allow,
        Action::ScmpActErrno => SeccompAction::Errno(errno.unwrap_or(libc::EPERM as u32)),
        Action::ScmpActTrace => SeccompAction::Trace(errno.unwrap_or(libc::EPERM as u32)),
        Action::ScmpActKill | Action::ScmpActKillThread => SeccompAction::KillThread,
        Action::ScmpActKillProcess => SeccompAction::KillProcess,
        Action::ScmpActTrap => SeccompAction::Trap,
        Action::ScmpActLog => SeccompAction::Log,
        Action::ScmpActNotify => return None,
    })
}

fn condition(argument: &LinuxSeccompArg) -> Result<SeccompCondition, String> {
    let op = match argument.op() {
        Operator::ScmpCmpNe => Op::Ne,
        Operator::ScmpCmpLt => Op::Lt,
        Operator::ScmpCmpLe => Op::Le,
        Operator::ScmpCmpEq => Op::Eq,
        Operator::ScmpCmpGe => Op::Ge,
        Operator::ScmpCmpGt => Op::Gt,
        Operator::ScmpCmpMaskedEq => Op::MaskedEq(argument.value()),
    };
    let value = match argument.op() {
        Operator::ScmpCmpMaskedEq => argument.value_two().unwrap_or(0),
        _ => argument.value(),
    };
    let index = u8::try_from(argument.index()).map_err(|_| format!("syscalls: no argument {}", argument.index()))?;
    SeccompCondition::new(index, Len::Qword, op, value).map_err(|error| format!("syscalls: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(profile: &str, expected: Result<usize, &str>) {
        let profile: LinuxSeccomp = serde_json::from_str(profile).unwrap();
        let outcome = compile(&profile).map(|filters| filters.len());
        match (outcome, expected) {
            (Ok(count), Ok(expected)) => assert_eq!(count, expected),
            (Err(error), Err(expected)) => assert!(error.contains(expected), "{error}"),
            (outcome, expected) => panic!("{outcome:?} is not {expected:?}"),
        }
    }

    #[test]
    fn profiles() {
        check(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#, Ok(0));
        let names = r#""names":["mkdir","mkdirat","no_such_call","arm_sync_file_range"]"#;
        check(
            &format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{{{names},"action":"SCMP_ACT_ERRNO"}}]}}"#),
            Ok(1),
        );
        check(
            &format!(
                r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{{names},"action":"SCMP_ACT_ALLOW"}},
                    {{"names":["clone3"],"action":"SCMP_ACT_ERRNO","errnoRet":38}},
                    {{"names":["personality"],"action":"SCMP_ACT_ALLOW",
                      "args":[{{"index":0,"value":8,"op":"SCMP_CMP_EQ"}}]}}]}}"#
            ),
            Ok(2),
        );
        check(r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#, Err("defaultAction"));
        check(r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/s"}"#, Err("listenerPath"));
        check(
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO",
                "args":[{"index":9,"value":8,"op":"SCMP_CMP_EQ"}]}]}"#,
            Err("syscalls"),
        );
    }
}
