use keelson_cri::v1::CdiDevice;

use super::*;

const GPU: &str = r#"{"cdiVersion": "0.6.0", "kind": "v.test/gpu", "containerEdits": {"env": ["DRIVER=1"]}, "devices": [
    {"name": "zero", "containerEdits": {
        "env": ["GPU=zero"],
        "deviceNodes": [{"path": "/dev/gpu0", "hostPath": "/dev/zero", "permissions": "rw"}],
        "mounts": [{"hostPath": "/usr/lib/v", "containerPath": "/lib/v", "options": ["ro", "nosuid", "bind"]}],
        "hooks": [{"hookName": "createContainer", "path": "/bin/hook", "args": ["hook", "x"], "timeout": 5}]}},
    {"name": "one", "containerEdits": {"env": ["GPU=one"], "deviceNodes": [{"path": "/dev/null"}]}}]}"#;
const NIC: &str =
    "cdiVersion: 1.0.0\nkind: v.test/nic\ndevices:\n- name: a\n  containerEdits:\n    additionalGids: [0, 44]\n";

fn files(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn resolved(dirs: &[&tempfile::TempDir], names: &[&str]) -> Result<Edits, String> {
    let dirs: Vec<_> = dirs.iter().map(|dir| dir.path().to_owned()).collect();
    let names: Vec<_> = names.iter().map(|name| name.to_string()).collect();
    resolve(&dirs, &names).map_err(|error| error.to_string())
}

#[test]
fn devices_change_the_specification() {
    let dir = files(&[("gpu.json", GPU), ("nic.yaml", NIC), ("README", "not a file of ours")]);
    let edits = resolved(&[&dir], &["v.test/gpu=zero", "v.test/gpu=one", "v.test/nic=a"]).unwrap();
    let mut spec = json!({
        "process": {"env": ["PATH=/bin", "GPU=none"], "user": {"uid": 7, "gid": 0, "additionalGids": [5]}},
        "mounts": [{"destination": "/"}, {"destination": "/lib/v/deeper"}, {"destination": "/lib/v"}],
        "linux": {"devices": [{"path": "/dev/null", "type": "c"}], "resources": {"devices": [{"allow": false}]}},
    });
    edits.apply(&mut spec).unwrap();
    assert_eq!(spec["process"]["env"], json!(["PATH=/bin", "GPU=one", "DRIVER=1"]));
    assert_eq!(spec["process"]["user"]["additionalGids"], json!([5, 44]));
    let places: Vec<_> = spec["mounts"].as_array().unwrap().iter().map(|mount| mount["destination"].clone()).collect();
    assert_eq!(places, ["/", "/lib/v", "/lib/v/deeper"]);
    assert_eq!(spec["mounts"][1]["options"], json!(["ro", "nosuid", "bind"]));
    let devices = spec["linux"]["devices"].as_array().unwrap();
    assert_eq!(
        (&devices[0]["path"], &devices[0]["minor"], &devices[0]["uid"]),
        (&json!("/dev/null"), &json!(3), &json!(7))
    );
    assert_eq!(
        (&devices[1]["path"], &devices[1]["minor"], &devices[1]["gid"]),
        (&json!("/dev/gpu0"), &json!(5), &json!(0))
    );
    let rules = spec["linux"]["resources"]["devices"].as_array().unwrap();
    assert_eq!(rules[1], json!({"allow": true, "type": "c", "major": 1, "minor": 5, "access": "rw"}));
    assert_eq!(rules[2]["access"], "rwm");
    assert_eq!(spec["hooks"]["createContainer"], json!([{"path": "/bin/hook", "args": ["hook", "x"], "timeout": 5}]));
}

#[test]
fn later_directories_hide_earlier_ones() {
    let (first, second) = (files(&[("a.json", GPU)]), files(&[("b.json", &GPU.replace("GPU=one", "GPU=uno"))]));
    let edits = resolved(&[&first, &second], &["v.test/gpu=one"]).unwrap();
    assert_eq!(edits.env, ["DRIVER=1", "GPU=uno"]);
    let both = files(&[("a.json", GPU), ("b.json", GPU)]);
    let error = resolved(&[&both], &["v.test/gpu=one"]).unwrap_err();
    assert!(error.contains("unresolvable CDI devices v.test/gpu=one (") && error.contains("another file"), "{error}");
}

#[test]
fn what_is_wrong_is_named() {
    let none = files(&[]);
    let error = resolved(&[&none], &["v.test/gpu=one", "v.test/gpu=two"]).unwrap_err();
    assert!(
        error.ends_with("CDI device injection failed: unresolvable CDI devices v.test/gpu=one, v.test/gpu=two"),
        "{error}"
    );
    for (change, to, expected) in [
        ("0.6.0", "9.0.0", "cdiVersion: unknown version"),
        ("v.test/gpu", "gpu", "kind: \"gpu\" is not VENDOR/CLASS"),
        ("\"zero\"", "\"-zero\"", "invalid name"),
        ("DRIVER=1", "DRIVER", "containerEdits.env: \"DRIVER\""),
        ("\"rw\"", "\"rx\"", "permissions: \"rx\""),
        ("createContainer", "create", "unknown hookName \"create\""),
        ("\"env\": [\"GPU=zero\"]", "\"envs\": []", "envs"),
    ] {
        let error = parse(&GPU.replace(change, to)).err().unwrap_or_default();
        assert!(error.contains(expected), "{change} as {to}: {error}");
    }
    let rdt = files(&[("a.json", &GPU.replace("\"DRIVER=1\"]", "\"DRIVER=1\"], \"intelRdt\": {\"closID\": \"x\"}"))]);
    let error = resolved(&[&rdt], &["v.test/gpu=one"]).unwrap_err();
    assert!(error.contains("containerEdits.intelRdt"), "{error}");
    let gone = files(&[("a.json", &GPU.replace("/dev/zero", "/dev/none"))]);
    let edits = resolved(&[&gone], &["v.test/gpu=zero"]).unwrap();
    assert!(edits.apply(&mut json!({})).is_err());
}

#[test]
fn names_come_from_the_field_and_from_annotations() {
    let config = ContainerConfig {
        cdi_devices: vec![CdiDevice { name: "v/a=1".into() }],
        annotations: [("cdi.k8s.io/x".into(), "v/a=1,v/a=2".into()), ("other".into(), "v/a=3".into())].into(),
        ..Default::default()
    };
    assert_eq!(names(&config), ["v/a=1", "v/a=2"]);
}
