//! The life of pods on a real node: a table with one row for each path through it, and what upstream's kubelet (v1.35)
//! says on the way: phase, conditions, states, reasons, messages, exit codes and events, word for word. The same rows run
//! on our runtime and on Debian's containerd.

mod ends;
mod images;
mod init;
mod probes;
mod refused;
mod render;
mod restarts;
mod statics;
mod surroundings;
mod table;

use keelson_testbed::cluster::Cluster;

use super::load_busybox;
use table::Row;

/// An image without a command.
const EMPTY: &str = "registry.test/empty:1";

#[test]
fn pods_live_as_upstreams_do() {
    run("keelson", &[]);
}

#[test]
fn pods_live_as_upstreams_do_on_containerd() {
    run("containerd", &["--container-runtime", "containerd"]);
}

fn rows(runtime: &str, node: &str) -> Vec<Row> {
    let files = [
        ends::rows(runtime),
        images::rows(runtime),
        init::rows(),
        probes::rows(),
        refused::rows(node),
        restarts::rows(),
        surroundings::rows(),
    ];
    files.into_iter().flatten().collect()
}

fn run(runtime: &str, args: &[&str]) {
    let cluster = Cluster::up(env!("CARGO_BIN_EXE_keelson"), args);
    load_busybox(&cluster);
    let archive = cluster.path("empty.tar");
    let empty = keelson_testbed::image::Image::new(EMPTY).layer(keelson_testbed::image::Layer::new().dir("tmp", 0o777));
    empty.write_archive(&archive).expect("an archive");
    cluster.keelson_ok("image load", &[archive.to_str().expect("UTF-8")]);
    let rows = rows(runtime, cluster.profile());
    table::check(cluster, runtime, rows);
}
