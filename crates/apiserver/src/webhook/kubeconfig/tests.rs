use std::path::Path;

use super::*;

fn load(dir: &Path, text: &str) -> Result<Webhook, String> {
    let path = dir.join("config");
    std::fs::write(&path, text).unwrap();
    Webhook::from_kubeconfig(&path).map_err(|e| e.to_string())
}

fn config(cluster: &str, user: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
         clusters: [{{name: k, cluster: {{{cluster}}}}}]\nusers: [{{name: u, user: {{{user}}}}}]\n"
    )
}

#[test]
fn credentials_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let server = "server: 'https://hook.example:8443/authorize'";
    let webhook = load(dir.path(), &config(server, "token: abc")).unwrap();
    assert_eq!(webhook.url, "https://hook.example:8443/authorize");
    assert_eq!(webhook.credentials.header().unwrap().unwrap(), "Bearer abc");
    let webhook = load(dir.path(), &config(server, "username: a, password: b")).unwrap();
    assert_eq!(webhook.credentials.header().unwrap().unwrap(), "Basic YTpi");
    // A file beside the kubeconfig.
    std::fs::write(dir.path().join("token"), "xyz\n").unwrap();
    let webhook = load(dir.path(), &config(server, "tokenFile: token")).unwrap();
    assert_eq!(webhook.credentials.header().unwrap().unwrap(), "Bearer xyz");
    let webhook = load(dir.path(), &config(server, "")).unwrap();
    assert!(webhook.credentials.header().unwrap().is_none());
}

#[test]
fn what_cannot_be_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let check = |cluster: &str, user: &str, expected: &str| {
        let why = load(dir.path(), &config(cluster, user)).err().unwrap_or_default();
        assert!(why.contains(expected), "{cluster} {user}: {why:?}");
        assert!(!why.contains("s3cret"), "{why}");
    };
    let https = "server: 'https://a'";
    check("server: 'http://a'", "", "must be an https:// URL");
    check("server: 'https://a', insecure-skip-tls-verify: true", "", "insecure-skip-tls-verify");
    check("server: 'https://a', proxy-url: 'http://b'", "", "proxy-url");
    check("server: 'https://a', certificate-authority-data: AAAA", "", "certificate-authority");
    check("server: 'https://a', certificate-authority: nowhere.crt", "", "nowhere.crt");
    check(https, "exec: {command: x}", "exec and auth-provider");
    check(https, "client-certificate-data: AAAA", "must be given together");
    check(https, "as: root", "impersonation");
    check(https, "token: \"s3cret\\n\"", "no text of a header");
    let why = load(dir.path(), "current-context: x").err().unwrap();
    assert!(why.contains("context \"x\" does not exist"), "{why}");
    let why = load(dir.path(), "{}").err().unwrap();
    assert!(why.contains("current-context is not set"), "{why}");
    let why = load(dir.path(), "[1, 2").err().unwrap();
    assert!(why.contains("yaml"), "{why}");
    assert!(Webhook::from_kubeconfig(&dir.path().join("none")).is_err());
}
