//! Seccomp profiles of the node's own (`Localhost`), in the format of the OCI runtime specification, as filters for the kernel.
//!
//! One filter of `seccompiler` knows one action beside its default. A profile with more becomes several filters, of which the
//! kernel takes the most severe answer. So where two entries of a profile match one call, the more severe wins here, the first
//! one with libseccomp.

use std::{collections::BTreeMap, str::FromStr};

use libcontainer::oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompFilterFlag,
    LinuxSeccompOperator as Operator,
};
use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition, SeccompFilter,
    SeccompRule,
};
use syscalls::Sysno;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

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
    // What is to pass the filter that answers for every other call, and what further filters answer.
    let mut passed = Rules::new();
    let mut others: Vec<(SeccompAction, Rules)> = Vec::new();
    for entry in profile.syscalls().iter().flatten() {
        let answer = action(entry.action(), entry.errno_ret())
            .ok_or_else(|| format!("syscalls: action {} of {:?} is not supported", entry.action(), entry.names()))?;
        if answer == default {
            continue;
        }
        for call in entry.names().iter().filter_map(|name| Sysno::from_str(name).ok()) {
            let conditions = entry.args().iter().flatten().map(condition).collect::<Result<Vec<_>, _>>()?;
            add(&mut passed, call, &conditions)?;
            if answer != SeccompAction::Allow {
                let index = others.iter().position(|(other, _)| *other == answer).unwrap_or_else(|| {
                    others.push((answer.clone(), Rules::new()));
                    others.len() - 1
                });
                if let Some((_, rules)) = others.get_mut(index) {
                    add(rules, call, &conditions)?;
                }
            }
        }
    }
    let others = others.into_iter().map(|(answer, rules)| program(rules, SeccompAction::Allow, answer));
    let mut filters = others.collect::<Result<Vec<_>, _>>()?;
    if default != SeccompAction::Allow {
        // Last: with it in place, installing another might be refused.
        filters.push(program(passed, default, SeccompAction::Allow)?);
    }
    Ok(filters)
}

fn program(rules: Rules, otherwise: SeccompAction, matched: SeccompAction) -> Result<BpfProgram, String> {
    let arch = std::env::consts::ARCH.try_into().map_err(|error| format!("{error}"))?;
    let filter = SeccompFilter::new(rules, otherwise, matched, arch).map_err(|error| error.to_string())?;
    BpfProgram::try_from(filter).map_err(|error| error.to_string())
}

/// Adds a rule. A call without rules of its own matches always, whatever else is said of it.
fn add(rules: &mut Rules, call: Sysno, conditions: &[SeccompCondition]) -> Result<(), String> {
    let number = i64::from(call.id());
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
