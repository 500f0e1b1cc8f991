//! Who a container runs as: users and groups by the image's own `/etc/passwd` and `/etc/group`.

use std::{collections::BTreeSet, path::Path};

use keelson_cri::v1::{LinuxContainerSecurityContext, SupplementalGroupsPolicy};

use crate::{Error, image::layer::read_file_in};

/// Longest account file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// A resolved user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub home: Option<String>,
}

/// The user for a container with this security context and the image's `User` field, by the account files below `rootfs`.
pub(crate) fn resolve(context: &LinuxContainerSecurityContext, image_user: &str, rootfs: &Path) -> Result<User, Error> {
    let file = |path: &str| {
        let bytes = read_file_in(rootfs, path, MAX_FILE_BYTES).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    resolve_with(context, image_user, &file("etc/passwd"), &file("etc/group"))
}

fn resolve_with(
    context: &LinuxContainerSecurityContext,
    image_user: &str,
    passwd: &str,
    group: &str,
) -> Result<User, Error> {
    let wanted = match (&context.run_as_user, context.run_as_username.as_str()) {
        (Some(uid), _) => uid.value.to_string(),
        (None, "") => image_user.to_owned(),
        (None, name) => name.to_owned(),
    };
    let (name, group_name) = match wanted.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (wanted.as_str(), None),
    };
    let account = match name {
        "" => find_account(passwd, "0").unwrap_or(Account {
            uid: 0,
            gid: 0,
            name: "root".into(),
            home: Some("/root".into()),
        }),
        _ => match (find_account(passwd, name), name.parse()) {
            (Some(account), _) => account,
            (None, Ok(uid)) => Account { uid, gid: 0, name: String::new(), home: None },
            (None, Err(_)) => {
                return Err(Error::Invalid(format!("unable to find user {name}: no matching entries in passwd file")));
            }
        },
    };
    let mut gid = match group_name {
        None | Some("") => account.gid,
        Some(name) => find_group(group, name)
            .or_else(|| name.parse().ok())
            .ok_or_else(|| Error::Invalid(format!("unable to find group {name}: no matching entries in group file")))?,
    };
    if let Some(value) = &context.run_as_group {
        gid = id(value.value)?;
    }
    let mut groups = BTreeSet::new();
    if context.supplemental_groups_policy() == SupplementalGroupsPolicy::Merge && !account.name.is_empty() {
        groups.extend(memberships(group, &account.name));
    }
    for group in &context.supplemental_groups {
        groups.insert(id(*group)?);
    }
    groups.insert(gid);
    Ok(User { uid: account.uid, gid, groups: groups.into_iter().collect(), home: account.home })
}

fn id(value: i64) -> Result<u32, Error> {
    u32::try_from(value).map_err(|_| Error::Invalid(format!("{value} is not a user or group ID")))
}

struct Account {
    uid: u32,
    gid: u32,
    name: String,
    home: Option<String>,
}

/// The entry whose name or number is `wanted`.
fn find_account(passwd: &str, wanted: &str) -> Option<Account> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, ..] = fields.as_slice() else { return None };
        if *name != wanted && *uid != wanted {
            return None;
        }
        let home = Some(*home).filter(|home| !home.is_empty()).map(String::from);
        Some(Account { uid: uid.parse().ok()?, gid: gid.parse().ok()?, name: (*name).into(), home })
    })
}

fn find_group(group: &str, wanted: &str) -> Option<u32> {
    group.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, gid) = (fields.next()?, fields.nth(1)?);
        if name == wanted { gid.parse().ok() } else { None }
    })
}

fn memberships<'a>(group: &'a str, user: &'a str) -> impl Iterator<Item = u32> + 'a {
    group.lines().filter_map(move |line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [_, _, gid, members] = fields.as_slice() else { return None };
        if members.split(',').any(|member| member == user) { gid.parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use keelson_cri::v1::Int64Value;

    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:Web:/srv:/bin/sh\nbroken\n";
    const GROUP: &str = "root:x:0:\nwww:x:34:\nlogs:x:40:web,other\n";

    fn check(user: &str, context: &LinuxContainerSecurityContext, expected: Option<(u32, u32, &[u32])>) {
        let resolved = resolve_with(context, user, PASSWD, GROUP).ok();
        let resolved = resolved.as_ref().map(|user| (user.uid, user.gid, user.groups.as_slice()));
        assert_eq!(resolved, expected, "{user} {context:?}");
    }

    #[test]
    fn image_users() {
        let none = LinuxContainerSecurityContext::default();
        check("", &none, Some((0, 0, &[0])));
        check("web", &none, Some((33, 34, &[34, 40])));
        check("33", &none, Some((33, 34, &[34, 40])));
        check("web:logs", &none, Some((33, 40, &[40])));
        check("1000", &none, Some((1000, 0, &[0])));
        check("1000:1001", &none, Some((1000, 1001, &[1001])));
        check("nobody", &none, None);
        check("web:none", &none, None);
    }

    #[test]
    fn the_pod_has_the_last_word() {
        let value = |value| Some(Int64Value { value });
        let context = LinuxContainerSecurityContext {
            run_as_user: value(33),
            run_as_group: value(7),
            supplemental_groups: vec![9],
            ..Default::default()
        };
        check("root", &context, Some((33, 7, &[7, 9, 40])));
        let strict = LinuxContainerSecurityContext {
            supplemental_groups_policy: SupplementalGroupsPolicy::Strict as i32,
            ..context
        };
        check("root", &strict, Some((33, 7, &[7, 9])));
        let negative =
            LinuxContainerSecurityContext { run_as_user: value(1), run_as_group: value(-1), ..Default::default() };
        check("", &negative, None);
    }
}
