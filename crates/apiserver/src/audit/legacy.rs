//! An event as a line of text (`--audit-log-format=legacy`): who asked for what, without objects.

use std::fmt::{self, Display, Write as _};
use std::net::IpAddr;

use jiff::Timestamp;

use super::policy::Stage;
use crate::UserInfo;

/// The parts of a line.
pub(super) struct Line<'a> {
    pub(super) received: Timestamp,
    pub(super) id: &'a str,
    pub(super) stage: Stage,
    pub(super) ip: Option<&'a IpAddr>,
    pub(super) verb: &'a str,
    pub(super) user: Option<&'a UserInfo>,
    pub(super) impersonated: Option<&'a UserInfo>,
    pub(super) user_agent: &'a str,
    pub(super) namespace: Option<&'a str>,
    pub(super) uri: &'a str,
    pub(super) code: Option<u64>,
}

impl Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user.filter(|user| !user.name.is_empty());
        let groups = user.filter(|user| !user.groups.is_empty()).map_or("<none>".into(), groups);
        let fields = [
            ("id", self.id),
            ("stage", &format!("{:?}", self.stage)),
            ("ip", &self.ip.map_or("<unknown>".into(), IpAddr::to_string)),
            ("method", self.verb),
            ("user", user.map_or("<none>", |user| &user.name)),
            ("groups", &groups),
            ("as", self.impersonated.map_or("<self>", |user| &user.name)),
            ("asgroups", &self.impersonated.map_or("<lookup>".into(), self::groups)),
            ("user-agent", self.user_agent),
            ("namespace", self.namespace.filter(|namespace| !namespace.is_empty()).unwrap_or("<none>")),
            ("uri", self.uri),
        ];
        write!(f, "{} AUDIT:", self.received)?;
        for (name, value) in fields {
            write!(f, " {name}={}", Quoted(value))?;
        }
        match self.code {
            Some(code) => write!(f, " response=\"{code}\""),
            None => f.write_str(" response=\"<deferred>\""),
        }
    }
}

/// Each in quotes.
fn groups(user: &UserInfo) -> String {
    user.groups.iter().map(|group| Quoted(group).to_string()).collect::<Vec<_>>().join(",")
}

/// As Go quotes text: on one line, whatever is in it.
struct Quoted<'a>(&'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for char in self.0.chars() {
            match char {
                '"' | '\\' => write!(f, "\\{char}")?,
                '\u{7}' => f.write_str("\\a")?,
                '\u{8}' => f.write_str("\\b")?,
                '\u{b}' => f.write_str("\\v")?,
                '\u{c}' => f.write_str("\\f")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                char if char < ' ' || char == '\u{7f}' => write!(f, "\\x{:02x}", u32::from(char))?,
                // What Rust would escape is what cannot be seen.
                char if char.is_ascii() || char.escape_debug().count() == 1 => f.write_char(char)?,
                char if u32::from(char) < 0x1_0000 => write!(f, "\\u{:04x}", u32::from(char))?,
                char => write!(f, "\\U{:08x}", u32::from(char))?,
            }
        }
        f.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_who_asked_for_what() {
        let user = UserInfo::new("jane \"j\"", ["devs", "ops"]);
        let ip = "203.0.113.9".parse().unwrap();
        let mut line = Line {
            received: "2026-01-02T03:04:05.678Z".parse().unwrap(),
            id: "1-2",
            stage: Stage::ResponseComplete,
            ip: Some(&ip),
            verb: "get",
            user: Some(&user),
            impersonated: None,
            user_agent: "tester/1\n\u{1b}é\u{2028}",
            namespace: Some("default"),
            uri: "/api/v1/namespaces/default/pods/a",
            code: Some(200),
        };
        assert_eq!(
            line.to_string(),
            r#"2026-01-02T03:04:05.678Z AUDIT: id="1-2" stage="ResponseComplete" ip="203.0.113.9" method="get" user="jane \"j\"" groups="\"devs\",\"ops\",\"system:authenticated\"" as="<self>" asgroups="<lookup>" user-agent="tester/1\n\x1bé\u2028" namespace="default" uri="/api/v1/namespaces/default/pods/a" response="200""#
        );
        line = Line { ip: None, user: None, impersonated: Some(&user), namespace: Some(""), code: None, ..line };
        let text = line.to_string();
        for part in [
            r#"ip="<unknown>""#,
            r#"user="<none>" groups="<none>" as="jane \"j\"" asgroups="\"devs\",\"ops\",\"system:authenticated\"""#,
            r#"namespace="<none>""#,
            r#"response="<deferred>""#,
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
