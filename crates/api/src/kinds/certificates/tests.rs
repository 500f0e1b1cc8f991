use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{request_der, requested_groups};
use crate::kind::{Stamp, Write};
use crate::kinds::testing::{check, check_row, check_write, created, kind, with};

const CSR: &str = "certificates.k8s.io/v1 CertificateSigningRequest";

/// A request for `jane` in group `devs`, as PEM in base64.
fn request() -> Value {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, "jane");
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "devs");
    STANDARD.encode(params.serialize_request(&key).unwrap().pem().unwrap()).into()
}

fn certificate() -> Value {
    let signed = rcgen::generate_simple_self_signed(vec!["a".to_string()]).unwrap();
    STANDARD.encode(signed.cert.pem()).into()
}

fn csr() -> Value {
    json!({"spec": {"request": request(), "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"]}})
}

fn stamped(mut object: Value, write: Write<'_>) -> Value {
    let extra = [("k".to_string(), vec!["v".to_string()])].into();
    let groups = ["g".to_string()];
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    let stamp = Stamp { now, user: "jane", uid: "u-1", groups: &groups, extra: &extra };
    kind(CSR).strategy.stamp(&mut object, write, &stamp);
    object
}

#[test]
fn a_create_says_who_asked() {
    let claimed = json!({"spec": {"username": "root", "groups": ["system:masters"], "uid": "x", "extra": {"a": ["b"]}},
        "status": {"conditions": [{"type": "Approved", "status": "True"}]}});
    let made = created(CSR, with(&csr(), claimed));
    assert_eq!(made.get("status"), None);
    let made = stamped(made, Write::Create);
    let spec = &made["spec"];
    assert_eq!(
        (&spec["username"], &spec["uid"], &spec["groups"], &spec["extra"]),
        (&json!("jane"), &json!("u-1"), &json!(["g"]), &json!({"k": ["v"]}))
    );
    check(CSR, csr(), &[]);
    check_row(CSR, made.clone(), "60m kubernetes.io/kube-apiserver-client jane <none> Pending");
    let finished = with(
        &made,
        json!({"spec": {"expirationSeconds": 3600}, "status": {"certificate": "eA==", "conditions": [{"type": "Approved"}, {"type": "Failed"}]}}),
    );
    check_row(CSR, finished, "60m kubernetes.io/kube-apiserver-client jane 60m Approved,Failed,Issued");
    check_row(CSR, json!({"status": {"conditions": [{"type": "Denied"}]}}), "60m <none>  <none> Denied");
    let field = &kind(CSR).field_selectors[0];
    assert_eq!((&*field.path, field.get(&made).as_ref()), ("spec.signerName", "kubernetes.io/kube-apiserver-client"));
    assert_eq!(requested_groups(&made["spec"]["request"]), ["devs"]);
    assert!(requested_groups(&json!("x")).is_empty());
}

#[test]
fn requests() {
    let spec = |spec: Value| with(&csr(), json!({"spec": spec}));
    let text = |text: &str| STANDARD.encode(text);
    let pem = String::from_utf8(STANDARD.decode(request().as_str().unwrap()).unwrap()).unwrap();
    let (first, rest) = pem.split_at(60);
    let swapped = if rest.starts_with('A') { "B" } else { "A" };
    let broken = text(&format!("{first}{swapped}{}", &rest[1..]));
    for (request, complaint) in [
        (text("hello"), "PEM block type must be CERTIFICATE REQUEST"),
        (text(&pem.replace("CERTIFICATE REQUEST", "CERTIFICATE")), "PEM block type must be CERTIFICATE REQUEST"),
        (
            text("-----BEGIN CERTIFICATE REQUEST-----\neA==\n-----END CERTIFICATE REQUEST-----\n"),
            "x509: malformed certificate request",
        ),
        (broken, ""),
    ] {
        let object = created(CSR, spec(json!({"request": request})));
        let errors = kind(CSR).strategy.validate(&object, Write::Create);
        let [error] = errors.as_slice() else { panic!("{errors:?}") };
        assert_eq!(error.field, "spec.request");
        assert!(error.message.ends_with(complaint), "{}", error.message);
    }
    check(
        CSR,
        spec(
            json!({"usages": ["client auth", "client auth", "fly"], "signerName": "kubernetes.io/legacy-unknown", "expirationSeconds": 599}),
        ),
        &[
            "spec.usages[2]: Unsupported value: \"fly\": supported values: \"any\", \"cert sign\", \"client auth\", \"code signing\", \"content commitment\", \"crl sign\", \"data encipherment\", \"decipher only\", \"digital signature\", \"email protection\", \"encipher only\", \"ipsec end system\", \"ipsec tunnel\", \"ipsec user\", \"key agreement\", \"key encipherment\", \"microsoft sgc\", \"netscape sgc\", \"ocsp signing\", \"s/mime\", \"server auth\", \"signing\", \"timestamping\"",
            "spec.usages[1]: Duplicate value: \"client auth\"",
            "spec.signerName: Invalid value: \"kubernetes.io/legacy-unknown\": the legacy signerName is not allowed via this API version",
            "spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 600 seconds (10 minutes)",
        ],
    );
    check(CSR, spec(json!({"usages": null})), &["spec.usages: Required value"]);
    let label = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
    let cases: [(&str, Vec<String>); 5] = [
        ("", vec!["Required value".into()]),
        (
            "a",
            vec![
                "Invalid value: \"a\": must be a fully qualified domain and path of the form 'example.com/signer-name'"
                    .into(),
            ],
        ),
        ("a/b", vec!["Invalid value: \"a\": should be a domain with at least two segments separated by dots".into()]),
        ("A.b/c", vec![format!("Invalid value: \"A.b\": validating label \"A\": {label}")]),
        ("a.b/c.d", vec![]),
    ];
    for (signer, expected) in cases {
        let expected: Vec<String> = expected.iter().map(|why| format!("spec.signerName: {why}")).collect();
        check(CSR, spec(json!({"signerName": signer})), &expected.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

/// A request whose organization is `system:masters` in this encoding.
fn masters(value: impl Into<rcgen::DnValue>) -> String {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, value);
    params.serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap().pem().unwrap()
}

#[test]
fn subjects_are_read_in_one_way() {
    let checked = |pem: &str| {
        let object = created(CSR, with(&csr(), json!({"spec": {"request": STANDARD.encode(pem)}})));
        let errors = kind(CSR).strategy.validate(&object, Write::Create);
        errors.first().map(|error| error.message.clone()).unwrap_or_default()
    };
    assert_eq!(checked(&masters("system:masters")), "");
    let odd: [rcgen::DnValue; 3] = [
        rcgen::DnValue::TeletexString("system:masters".try_into().unwrap()),
        rcgen::DnValue::BmpString("system:masters".try_into().unwrap()),
        rcgen::DnValue::UniversalString("system:masters".try_into().unwrap()),
    ];
    for value in odd {
        let why = checked(&masters(value.clone()));
        assert!(
            why.ends_with("each organization of the subject must be a UTF8String, PrintableString or IA5String"),
            "{value:?}: {why}"
        );
    }
    // A block that does not start a line is text before the request, for everybody.
    let plain = String::from_utf8(STANDARD.decode(request().as_str().unwrap()).unwrap()).unwrap();
    let hidden = format!("x{}{plain}", masters("system:masters"));
    assert_eq!(checked(&hidden), "");
    assert_eq!(requested_groups(&STANDARD.encode(&hidden).into()), ["devs"]);
    assert_eq!(request_der(hidden.as_bytes()), request_der(plain.as_bytes()));
}

#[test]
fn nothing_changes_but_through_subresources() {
    let made = stamped(created(CSR, csr()), Write::Create);
    let patch =
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"usages": ["any"]}, "status": {"certificate": "eA=="}});
    let changed = check_write(CSR, "", &made, patch, &[]);
    assert_eq!((&changed["spec"], changed.get("status")), (&made["spec"], None));
    assert_eq!(changed["metadata"]["labels"]["a"], "b");
}

#[test]
fn approval() {
    let made = stamped(created(CSR, csr()), Write::Create);
    let approved = json!({"spec": {"usages": ["any"]}, "status": {
        "certificate": "eA==", "conditions": [{"type": "Approved", "status": "True", "reason": "Ok"}],
    }});
    let changed = check_write(CSR, "approval", &made, approved, &[]);
    assert_eq!((&changed["spec"], changed["status"].get("certificate")), (&made["spec"], None));
    let changed = stamped(changed, Write::Subresource("approval", &made));
    assert_eq!(
        changed["status"]["conditions"],
        json!([{"type": "Approved", "status": "True", "reason": "Ok",
            "lastUpdateTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}])
    );
    let conditions = |conditions: Value| json!({"status": {"conditions": conditions}});
    check_write(
        CSR,
        "approval",
        &made,
        conditions(json!([
            {"type": "Approved", "status": "False"}, {"type": "Denied", "status": "True"}, {"type": "", "status": ""},
            {"type": "Odd", "status": "x"}, {"type": "Odd", "status": "True"},
        ])),
        &[
            "status.conditions[0].status: Unsupported value: \"False\": supported values: \"True\"",
            "status.conditions[1].type: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive",
            "status.conditions[2].type: Required value",
            "status.conditions[2].status: Required value",
            "status.conditions[3].status: Unsupported value: \"x\": supported values: \"False\", \"True\", \"Unknown\"",
            "status.conditions[4].type: Duplicate value: \"Odd\"",
        ],
    );
    check_write(
        CSR,
        "approval",
        &changed,
        conditions(json!([])),
        &["status.conditions: Forbidden: updates may not remove a condition of type \"Approved\""],
    );
}

#[test]
fn signing() {
    let made = stamped(created(CSR, csr()), Write::Create);
    let approved =
        with(&made, json!({"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "Ok"}]}}));
    // The signer need not know the decision exactly; it is kept.
    let signed = json!({"spec": {"usages": ["any"]}, "status": {
        "certificate": certificate(), "conditions": [{"type": "Approved", "status": "True", "reason": "Mine"}],
    }});
    let changed = check_write(CSR, "status", &approved, signed, &[]);
    assert_eq!(
        (&changed["spec"], &changed["status"]["conditions"]),
        (&made["spec"], &approved["status"]["conditions"])
    );
    check_write(
        CSR,
        "status",
        &made,
        json!({"status": {"conditions": [{"type": "Approved", "status": "True"}]}}),
        &["status.conditions: Forbidden: updates may not add a condition of type \"Approved\""],
    );
    check_write(
        CSR,
        "status",
        &approved,
        json!({"status": {"conditions": []}}),
        &["status.conditions: Forbidden: updates may not remove a condition of type \"Approved\""],
    );
    check_write(
        CSR,
        "status",
        &changed,
        json!({"status": {"certificate": certificate()}}),
        &["status.certificate: Forbidden: updates may not modify existing certificate content"],
    );
    let key = "-----BEGIN KEY-----\neA==\n-----END KEY-----\n";
    let bad = "-----BEGIN CERTIFICATE-----\neA==\n-----END CERTIFICATE-----\n";
    for (text, complaint) in [
        ("x", "must contain at least one CERTIFICATE PEM block"),
        (key, "only CERTIFICATE PEM blocks are allowed, found \"KEY\""),
        (bad, "x509: malformed certificate"),
    ] {
        let expected = format!("status.certificate: Invalid value: \"<certificate data>\": {complaint}");
        let patch = json!({"status": {"certificate": STANDARD.encode(text)}});
        check_write(CSR, "status", &approved, patch, &[&expected]);
    }
}
