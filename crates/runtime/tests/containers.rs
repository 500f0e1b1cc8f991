//! Real containers on this kernel, through CRI. Needs root and busybox-static.

mod world;

use keelson_cri::v1::*;
use world::World;

#[tokio::test]
async fn a_container_runs_and_ends() {
    let mut world = World::new().await;
    let pod = world.pod("echo");
    let sandbox = world.run_pod(&pod).await;
    let config = world.shell("main", "echo out; echo err >&2; printf tail; exit 7");
    let id = world.run(&sandbox, &pod, config).await;
    let status = world.ended(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (7, "Error"));
    assert!(status.created_at <= status.started_at && status.started_at <= status.finished_at, "{status:?}");
    let mut lines = world.container_log("main.log");
    lines.sort();
    assert_eq!(lines, ["stderr F err", "stdout F out", "stdout P tail"]);
    world.finish().await;
}
