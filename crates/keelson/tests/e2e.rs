//! What users do, on real clusters with the real kubectl: each test starts a cluster of its own with `keelson up` and
//! removes it. Run by `make test`, as root.

mod e2e {
    mod about;
    mod access;
    mod admission;
    mod aggregation;
    mod audit;
    mod changes;
    mod controller;
    mod custom;
    mod faults;
    mod generators;
    mod hello;
    mod helm;
    mod isolation;
    mod kubectl;
    mod late_kinds;
    mod lifecycle;
    mod live;
    mod metrics;
    mod nodes;
    mod pods;
    mod policies;
    mod proxies;
    mod python;
    mod rollout;
    mod self_healing;
    mod several;
    mod streams;
    #[cfg(target_arch = "x86_64")]
    mod unified;
    mod webhook;

    use keelson_testbed::cluster::Cluster;

    /// A busybox that is loaded, not pulled.
    pub(crate) const BUSYBOX: &str = "registry.test/busybox:1";

    /// A fresh cluster.
    pub(crate) fn up() -> Cluster {
        Cluster::up(env!("CARGO_BIN_EXE_keelson"), &[])
    }

    /// A fresh cluster that has [`BUSYBOX`].
    pub(crate) fn up_with_busybox() -> Cluster {
        let cluster = up();
        load_busybox(&cluster);
        cluster
    }

    pub(crate) fn load_busybox(cluster: &Cluster) {
        let archive = cluster.path("busybox.tar");
        keelson_testbed::image::busybox(BUSYBOX).and_then(|image| image.write_archive(&archive)).expect("an archive");
        let loaded = cluster.keelson_ok("image load", &[archive.to_str().expect("UTF-8")]);
        assert!(loaded.contains(BUSYBOX), "{loaded}");
    }

    /// Runs a pod of busybox that sleeps, and waits until it is ready.
    pub(crate) fn run_busybox(cluster: &Cluster, name: &str) {
        cluster.kubectl(&format!("run {name} --image {BUSYBOX} -- sleep 3600"));
        cluster.kubectl(&format!("wait --for=condition=Ready pod/{name} --timeout=60s"));
    }

    /// A line of shell says exactly this on the terminal (see [`Cluster::shell`]).
    pub(crate) fn says(cluster: &Cluster, line: &str, expected: &str) {
        assert_eq!(cluster.shell(line), expected, "{line}");
    }

    /// A line of shell says all of this on the terminal, among other things.
    pub(crate) fn mentions(cluster: &Cluster, line: &str, expected: &[&str]) -> String {
        let output = cluster.shell(line);
        for words in expected {
            assert!(output.contains(words), "{words:?} is not in what {line} says:\n{output}");
        }
        output
    }

    /// One HTTP request from this machine; `None` when nothing answers.
    pub(crate) fn http_get(address: (&str, u16), path: &str) -> Option<String> {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(std::time::Duration::from_secs(5))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.starts_with("HTTP/1.1 200").then_some(answer)
    }
}
