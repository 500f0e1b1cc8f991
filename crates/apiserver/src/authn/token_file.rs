//! The file of static tokens: lines of token, user, UID and, in quotes, groups. It is read once, at start, as upstream does.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::answers::{Fingerprint, fingerprint};
use crate::{Error, UserInfo};

/// Largest file.
const MAX_BYTES: u64 = 16 << 20;

/// Users by their tokens' digests.
pub(super) struct TokenFile {
    users: HashMap<Fingerprint, Arc<UserInfo>>,
}

impl TokenFile {
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let bad = |why: String| Error::Configuration { path: path.display().to_string(), why };
        let bytes = crate::webhook::kubeconfig::read(path, MAX_BYTES)?;
        let text = String::from_utf8(bytes).map_err(|e| bad(e.to_string()))?;
        Self::parse(&text).map_err(bad)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut users = HashMap::new();
        for (number, record) in records(text)?.into_iter().enumerate() {
            let [token, name, uid, rest @ ..] = record.as_slice() else {
                let found = record.len();
                return Err(format!("must have at least 3 columns (token, user name, user uid), found {found}"));
            };
            if token.is_empty() {
                tracing::warn!(record = number + 1, "empty token has been found in the token file");
                continue;
            }
            let groups = rest.first().map_or("", String::as_str).split(',').map(str::to_owned);
            let groups: Vec<String> = groups.filter(|group| !group.is_empty()).collect();
            let user = UserInfo { name: name.clone(), uid: uid.clone(), groups, ..UserInfo::default() };
            if users.insert(fingerprint(token), Arc::new(user.authenticated())).is_some() {
                tracing::warn!(record = number + 1, "duplicate token has been found in the token file");
            }
        }
        Ok(Self { users })
    }

    pub(super) fn user(&self, token: &str) -> Option<Arc<UserInfo>> {
        self.users.get(&fingerprint(token)).cloned()
    }
}

/// Comma-separated values: fields may be quoted, a quote in them is doubled; empty lines are none.
fn records(text: &str) -> Result<Vec<Vec<String>>, String> {
    let mut records = Vec::new();
    let mut record: Vec<String> = Vec::new();
    let mut field = String::new();
    let mut chars = text.chars().peekable();
    let mut quoted = false;
    let mut was_quoted = false;
    loop {
        match chars.next() {
            Some('"') if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            Some('"') if quoted => quoted = false,
            Some('"') if field.is_empty() && !was_quoted => (quoted, was_quoted) = (true, true),
            None if quoted => return Err("a quoted field has no end".into()),
            Some(c) if quoted => field.push(c),
            Some('"') => return Err(format!("bare \" in a field of record {}", records.len() + 1)),
            Some('\r') if chars.peek() == Some(&'\n') => {}
            Some(',') => {
                record.push(std::mem::take(&mut field));
                was_quoted = false;
            }
            end @ (Some('\n') | None) => {
                if !record.is_empty() || !field.is_empty() || was_quoted {
                    record.push(std::mem::take(&mut field));
                    records.push(std::mem::take(&mut record));
                }
                was_quoted = false;
                if end.is_none() {
                    return Ok(records);
                }
            }
            Some(_) if was_quoted => return Err(format!("text after a quoted field in record {}", records.len() + 1)),
            Some(c) => field.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_users() {
        let text = "t1,jane,u1\nt2,bob,u2,\"dev,ops\"\r\n\n\"t,3\",\"a \"\"b\"\"\",u3,dev,more\n,none,u4\n";
        let file = TokenFile::parse(text).unwrap();
        let groups = |token: &str| file.user(token).map(|user| user.groups.join(" "));
        assert_eq!(groups("t1").unwrap(), "system:authenticated");
        assert_eq!(groups("t2").unwrap(), "dev ops system:authenticated");
        assert_eq!((groups("t,3").unwrap().as_str(), groups("")), ("dev system:authenticated", None));
        assert_eq!(file.user("t,3").unwrap().name, "a \"b\"");
    }

    #[test]
    fn what_is_no_such_file_is_refused() {
        for (text, why) in [
            ("t1,jane", "must have at least 3 columns (token, user name, user uid), found 2"),
            ("t1,\"jane,u1", "a quoted field has no end"),
            ("t1,ja\"ne,u1", "bare \" in a field of record 1"),
            ("t1,\"jane\"x,u1", "text after a quoted field in record 1"),
        ] {
            assert_eq!(TokenFile::parse(text).err().unwrap(), why);
        }
    }
}
