//! The Kubernetes client for Python, from PyPI (`tools/fetch-python-client`): what programs do with it is in
//! `python_client.py`.

use std::process::Command;

use keelson_testbed::cluster::text;

use super::{BUSYBOX, up_with_busybox};

#[test]
fn the_python_client_works() {
    let cluster = up_with_busybox();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/python_client.py");
    // Bounded: a stream that never ends would hang it.
    let mut python = Command::new("timeout");
    python.args(["120", "python3", script]).arg(cluster.kubeconfig()).arg(BUSYBOX);
    python.env("PYTHONPATH", cluster.tool("python")).env("PYTHONDONTWRITEBYTECODE", "1");
    let output = python.output().expect("running python3");
    assert!(output.status.success(), "{}", text(&output));
    println!("{}", text(&output));
}
