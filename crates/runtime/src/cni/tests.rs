//! Plugins here are shell scripts that note how they were called.

use std::os::unix::fs::PermissionsExt;

use super::*;

struct World {
    dir: tempfile::TempDir,
    cni: Cni,
}

impl World {
    fn new(config: &str, plugins: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (conf, bin) = (dir.path().join("conf"), dir.path().join("bin"));
        std::fs::create_dir(&conf).unwrap();
        std::fs::create_dir(&bin).unwrap();
        std::fs::write(conf.join("10-test.conflist"), config).unwrap();
        for (name, script) in plugins {
            let log = dir.path().join("log");
            let script = format!(
                "#!/bin/sh\ninput=$(cat)\necho \"$CNI_COMMAND {name} $input\" >> {}\n{script}\n",
                log.display()
            );
            std::fs::write(bin.join(name), script).unwrap();
            std::fs::set_permissions(bin.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let cni = Cni::new(conf, bin);
        Self { dir, cni }
    }

    fn log(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        text.lines().map(String::from).collect()
    }

    fn pod(&self) -> Pod {
        Pod {
            sandbox_id: "sandbox".into(),
            netns: self.dir.path().join("netns"),
            namespace: "default".into(),
            name: "web".into(),
            uid: "u".into(),
            port_mappings: vec![json!({"hostPort": 80})],
        }
    }
}

const TWO: &str = r#"{"cniVersion":"1.0.0","name":"net","plugins":[
    {"type":"first"},{"type":"second","capabilities":{"portMappings":true}}]}"#;
const RESULT: &str = r#"echo '{"cniVersion":"1.0.0","ips":[{"address":"10.1.2.3/24"}]}'"#;

#[tokio::test]
async fn a_chain_passes_results_on() {
    let world = World::new(TWO, &[("first", RESULT), ("second", RESULT)]);
    let mut attachment = Attachment::new(world.cni.network().unwrap(), world.pod());
    world.cni.add(&mut attachment).await.unwrap();
    assert_eq!(attachment.addresses(), ["10.1.2.3"]);
    world.cni.check(&attachment).await.unwrap();
    world.cni.del(&attachment).await.unwrap();
    let log = world.log();
    let calls: Vec<String> = log.iter().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(calls, ["ADD first", "ADD second", "CHECK first", "CHECK second", "DEL second", "DEL first"]);
    assert!(!log[0].contains("prevResult") && !log[0].contains("portMappings"), "{}", log[0]);
    assert!(
        log[1].contains("prevResult") && log[1].contains(r#""runtimeConfig":{"portMappings":[{"hostPort":80}]}"#),
        "{}",
        log[1]
    );
    assert!(log[5].contains("prevResult"));
}

#[tokio::test]
async fn a_failed_add_says_why_and_can_be_undone() {
    let failing =
        r#"[ $CNI_COMMAND = DEL ] || { echo '{"code":11,"msg":"no addresses","details":"range is full"}'; exit 1; }"#;
    let world = World::new(TWO, &[("first", RESULT), ("second", failing)]);
    let mut attachment = Attachment::new(world.cni.network().unwrap(), world.pod());
    let error = world.cni.add(&mut attachment).await.unwrap_err();
    assert_eq!(error.to_string(), r#"plugin type="second" name="net" failed (add): no addresses; range is full"#);
    world.cni.del(&attachment).await.unwrap();
    assert!(world.log().last().unwrap().starts_with("DEL first"));
}

#[test]
fn no_network_yet() {
    let world = World::new("{}", &[]);
    assert!(world.cni.network().unwrap_err().to_string().contains("no network name"));
    std::fs::remove_file(world.dir.path().join("conf/10-test.conflist")).unwrap();
    let error = world.cni.network().unwrap_err().to_string();
    assert_eq!(error, "Network plugin returns error: cni plugin not initialized");
    let missing = World::new(TWO, &[("first", "")]);
    assert!(missing.cni.network().unwrap_err().to_string().contains(r#"failed to find plugin "second""#));
}

#[test]
fn a_single_plugin_is_a_list_of_one() {
    let network = parse(r#"{"name":"n","type":"bridge","cniVersion":"0.4.0"}"#).unwrap();
    assert_eq!((network.plugins.len(), network.version.as_str()), (1, "0.4.0"));
    for text in ["", "[]", "{}", r#"{"name":"n"}"#, r#"{"name":"n","plugins":[]}"#, r#"{"name":"n","plugins":{}}"#] {
        assert!(parse(text).is_err(), "{text}");
    }
}
