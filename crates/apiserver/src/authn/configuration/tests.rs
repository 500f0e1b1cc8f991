use super::*;

/// What loading says is wrong with a `jwt` item, or the whole file where it does not begin with one.
fn wrong(yaml: &str) -> String {
    let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n";
    load(format!("{head}{yaml}").as_bytes(), &["https://own.example.com".into()]).err().unwrap_or_default()
}

const ISSUER: &str = "issuer: {url: https://a.example.com, audiences: [a]}";

fn jwt(rest: &str) -> String {
    wrong(&format!("jwt:\n- {ISSUER}\n  {rest}\n"))
}

#[test]
fn a_good_configuration_is_taken() {
    assert_eq!(wrong(""), "");
    assert_eq!(wrong("anonymous: {enabled: true, conditions: [{path: /livez}]}\n"), "");
    assert_eq!(jwt("claimMappings: {username: {claim: sub, prefix: \"\"}}"), "");
    let all = r#"claimMappings:
    username: {expression: "claims.sub + ':x'"}
    groups: {claim: groups, prefix: "oidc:"}
    uid: {claim: uid}
    extra: [{key: example.com/tenant, valueExpression: claims.tenant}]
  claimValidationRules:
  - {claim: hd, requiredValue: example.com}
  - {expression: "claims.exp - claims.nbf <= 86400", message: too long}
  userValidationRules:
  - {expression: "!user.username.startsWith('system:')", message: reserved}"#;
    assert_eq!(jwt(all), "");
}

#[test]
fn errors_have_paths_and_upstreams_words() {
    let mapped = "claimMappings: {username: {claim: sub, prefix: \"\"}}";
    let issuer = |issuer: &str| wrong(&format!("jwt:\n- issuer: {issuer}\n  {mapped}\n"));
    for (got, expected) in [
        (issuer("{audiences: [a]}"), "jwt[0].issuer.url: Required value"),
        (
            issuer("{url: http://a.example.com, audiences: [a]}"),
            "jwt[0].issuer.url: Invalid value: \"http://a.example.com\": URL scheme must be https",
        ),
        (
            issuer("{url: \"https://u:p@a.example.com/?q=1#f\", audiences: [a]}"),
            "[jwt[0].issuer.url: Invalid value: \"https://u:p@a.example.com/?q=1#f\": URL must not contain a username or \
             password, jwt[0].issuer.url: Invalid value: \"https://u:p@a.example.com/?q=1#f\": URL must not contain a query, \
             jwt[0].issuer.url: Invalid value: \"https://u:p@a.example.com/?q=1#f\": URL must not contain a fragment]",
        ),
        (
            issuer("{url: https://own.example.com, audiences: [a]}"),
            "jwt[0].issuer.url: Invalid value: \"https://own.example.com\": URL must not overlap with disallowed issuers: \
             [https://own.example.com]",
        ),
        (
            issuer("{url: https://a.example.com, discoveryURL: https://a.example.com/, audiences: [a]}"),
            "jwt[0].issuer.discoveryURL: Invalid value: \"https://a.example.com/\": discoveryURL must be different from URL",
        ),
        (
            issuer("{url: https://a.example.com}"),
            "jwt[0].issuer.audiences: Required value: at least one jwt[0].issuer.audiences is required",
        ),
        (
            issuer("{url: https://a.example.com, audiences: [a, b]}"),
            "jwt[0].issuer.audienceMatchPolicy: Invalid value: \"\": audienceMatchPolicy must be MatchAny for multiple audiences",
        ),
        (
            issuer("{url: https://a.example.com, audiences: [a], certificateAuthority: x}"),
            "jwt[0].issuer.certificateAuthority: Invalid value: \"<omitted>\": data does not contain any valid RSA or ECDSA \
             certificates",
        ),
        (
            issuer("{url: https://a.example.com, audiences: [a], egressSelectorType: cluster}"),
            "jwt[0].issuer.egressSelectorType: Invalid value: \"cluster\": egress selector is not supported",
        ),
        (
            wrong(&format!("jwt:\n- {ISSUER}\n")),
            "jwt[0].claimMappings.username: Required value: claim or expression is required",
        ),
        (
            jwt("claimMappings: {username: {claim: sub}}"),
            "jwt[0].claimMappings.username.prefix: Required value: prefix is required when claim is set. It can be set to an \
             empty string to disable prefixing",
        ),
        (
            jwt("claimMappings: {username: {claim: sub, expression: claims.sub}}"),
            "jwt[0].claimMappings.username: Invalid value: \"\": claim and expression can't both be set",
        ),
        (
            jwt("claimMappings: {username: {expression: claims.email}}"),
            "jwt[0].claimMappings.username.expression: Invalid value: \"claims.email\": claims.email_verified must be used in \
             claimMappings.username.expression or claimMappings.extra[*].valueExpression or \
             claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression",
        ),
        (
            jwt(&format!("{mapped}\n  claimValidationRules: [{{expression: \"'x'\"}}]")),
            "jwt[0].claimValidationRules[0].expression: Invalid value: \"'x'\": must evaluate to bool",
        ),
        (
            jwt(&format!("{mapped}\n  claimValidationRules: [{{}}]")),
            "jwt[0].claimValidationRules[0]: Required value: claim or expression is required",
        ),
        (
            jwt(&format!("{mapped}\n  userValidationRules: [{{expression: \"true\"}}, {{expression: \"true\"}}]")),
            "jwt[0].userValidationRules[1].expression: Duplicate value: \"true\"",
        ),
        (
            jwt(
                "claimMappings: {username: {claim: sub, prefix: \"\"}, extra: [{key: k8s.io/x, valueExpression: \"'a'\"}]}",
            ),
            "jwt[0].claimMappings.extra[0].key: Invalid value: \"k8s.io/x\": k8s.io, kubernetes.io and their subdomains are \
             reserved for Kubernetes use",
        ),
        (
            wrong(&format!("jwt:\n- {ISSUER}\n  {mapped}\n- {ISSUER}\n  {mapped}\n")),
            "jwt[1].issuer.url: Duplicate value: \"https://a.example.com\"",
        ),
        (
            wrong("anonymous: {enabled: false, conditions: [{path: /livez}]}\n"),
            "anonymous.conditions: Invalid value: [{Path:/livez}]: enabled should be set to true when conditions are defined",
        ),
    ] {
        assert_eq!(got, expected);
    }
    assert!(wrong("jwts: []\n").contains("unknown field `jwts`"));
    let other =
        load(b"apiVersion: apiserver.config.k8s.io/v2\nkind: AuthenticationConfiguration\n", &[]).err().unwrap();
    assert!(other.contains("is registered for version \"apiserver.config.k8s.io/v2\""), "{other}");
}
