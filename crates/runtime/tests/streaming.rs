//! Exec, attach and port-forward through the streaming server, as a kubelet uses it.

mod world;

use std::time::Duration;

use keelson_cri::v1::*;
use keelson_streaming::{
    portforward,
    remotecommand::{Client, Options, Outcome, TerminalSize},
    spdy::{Config, Connection},
    upgrade::dial,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use world::World;

async fn connect(url: &str, options: Options) -> Client {
    let uri = url.parse().unwrap();
    Client::connect(dial(&uri).await.unwrap(), &uri, options, Config::default()).await.unwrap()
}

async fn exec(world: &mut World, id: &str, script: &str, options: Options) -> Client {
    let request = ExecRequest {
        container_id: id.into(),
        cmd: ["/bin/sh", "-c", script].map(String::from).to_vec(),
        tty: options.tty,
        stdin: options.stdin,
        stdout: options.stdout,
        stderr: options.stderr,
    };
    let url = world.clients.runtime.exec(request).await.unwrap().into_inner().url;
    connect(&url, options).await
}

async fn all(reader: Option<keelson_streaming::Reader>) -> String {
    let mut text = String::new();
    let read = async { reader.unwrap().read_to_string(&mut text).await };
    tokio::time::timeout(Duration::from_secs(20), read).await.unwrap().unwrap();
    text
}

const OUTPUTS: Options = Options { stdin: false, stdout: true, stderr: true, tty: false };

#[tokio::test]
async fn exec_streams() {
    let mut world = World::new().await;
    let pod = world.pod("exec");
    let sandbox = world.run_pod(&pod).await;
    let config = world.shell("main", "sleep 1000");
    let id = world.run(&sandbox, &pod, config).await;

    let client = exec(&mut world, &id, "echo out; echo err >&2; exit 3", OUTPUTS).await;
    let (out, err, outcome) = tokio::join!(all(client.stdout), all(client.stderr), client.status.outcome());
    assert_eq!((out.as_str(), err.as_str(), outcome.unwrap()), ("out\n", "err\n", Outcome::ExitCode(3)));

    // Much input, all of it back, and the end of input is seen.
    let mut client = exec(&mut world, &id, "cat; echo end", Options { stdin: true, ..OUTPUTS }).await;
    let sent = "0123456789abcdef".repeat(60_000);
    let mut stdin = client.stdin.take().unwrap();
    let (expected, sent) = (format!("{sent}end\n"), sent);
    let sending = tokio::spawn(async move {
        stdin.write_all(sent.as_bytes()).await.unwrap();
        stdin.shutdown().await.unwrap();
    });
    assert!(all(client.stdout).await == expected);
    assert_eq!(client.status.outcome().await.unwrap(), Outcome::Success);
    sending.await.unwrap();

    let client = exec(&mut world, &id, "exec /no/such/file", OUTPUTS).await;
    assert_eq!(client.status.outcome().await.unwrap(), Outcome::ExitCode(127));
    let request =
        ExecRequest { container_id: id.clone(), cmd: vec!["/no/such".into()], stdout: true, ..Default::default() };
    let url = world.clients.runtime.exec(request).await.unwrap().into_inner().url;
    let client = connect(&url, Options { stdout: true, ..Options::default() }).await;
    let Outcome::Failure(message) = client.status.outcome().await.unwrap() else { panic!() };
    assert!(message.contains("/no/such"), "{message}");
    // A token is good once.
    let uri = url.parse().unwrap();
    let again = Client::connect(dial(&uri).await.unwrap(), &uri, OUTPUTS, Config::default()).await;
    assert!(again.err().unwrap().to_string().contains("404"));
    world.finish().await;
}

#[tokio::test]
async fn exec_with_a_terminal() {
    let mut world = World::new().await;
    let pod = world.pod("tty");
    let sandbox = world.run_pod(&pod).await;
    let config = world.shell("main", "sleep 1000");
    let id = world.run(&sandbox, &pod, config).await;
    let options = Options { stdin: true, stdout: true, stderr: false, tty: true };
    let mut client = exec(&mut world, &id, "tty; read line; stty size; echo got $line; exit 4", options).await;
    client.resize.as_mut().unwrap().send(TerminalSize { width: 101, height: 37 }).await.unwrap();
    let mut stdout = client.stdout.take().unwrap();
    let mut seen = String::new();
    let mut buffer = [0; 256];
    while !seen.contains("/dev/pts/") {
        let count = tokio::time::timeout(Duration::from_secs(10), stdout.read(&mut buffer)).await.unwrap().unwrap();
        assert!(count > 0, "{seen}");
        seen += &String::from_utf8_lossy(&buffer[..count]);
    }
    // Sizes and input travel in order from here on: what was sent before has arrived when the answer comes.
    client.stdin.as_mut().unwrap().write_all(b"word\n").await.unwrap();
    seen += &all(Some(stdout)).await;
    assert!(seen.contains("37 101") && seen.contains("got word"), "{seen:?}");
    assert_eq!(client.status.outcome().await.unwrap(), Outcome::ExitCode(4));
    world.finish().await;
}

#[tokio::test]
async fn attach_shares_a_containers_streams() {
    let mut world = World::new().await;
    let pod = world.pod("attach");
    let sandbox = world.run_pod(&pod).await;
    for tty in [false, true] {
        let name = if tty { "terminal" } else { "plain" };
        let mut config = world.shell(name, "while read line; do echo got $line; done; echo over");
        (config.stdin, config.stdin_once, config.tty) = (true, !tty, tty);
        let id = world.run(&sandbox, &pod, config).await;
        let mut clients = Vec::new();
        for stdin in [true, false] {
            let options = Options { stdin, stdout: true, stderr: !tty, tty };
            let request = AttachRequest { container_id: id.clone(), stdin, tty, stdout: true, stderr: !tty };
            let url = world.clients.runtime.attach(request).await.unwrap().into_inner().url;
            clients.push(connect(&url, options).await);
        }
        let mut listener = clients.pop().unwrap();
        let mut speaker = clients.pop().unwrap();
        // The listener's session exists once it hears; until then, say it again.
        let mut heard = String::new();
        let mut stdout = listener.stdout.take().unwrap();
        let mut buffer = [0; 1024];
        while !heard.contains("got one") {
            speaker.stdin.as_mut().unwrap().write_all(b"one\n").await.unwrap();
            if let Ok(read) = tokio::time::timeout(Duration::from_millis(50), stdout.read(&mut buffer)).await {
                heard += &String::from_utf8_lossy(&buffer[..read.unwrap()]);
            }
        }
        let mut stdin = speaker.stdin.take().unwrap();
        stdin.write_all(if tty { b"two\n\x04" } else { b"two\n" }).await.unwrap();
        stdin.shutdown().await.unwrap();
        heard += &all(Some(stdout)).await;
        let spoken = all(speaker.stdout).await;
        assert!(heard.contains("got two") && heard.contains("over") && spoken.contains("over"), "{heard:?} {spoken:?}");
        assert_eq!(listener.status.outcome().await.unwrap(), Outcome::Success);
        assert_eq!(world.ended(&id).await.exit_code, 0);
        let over = "stdout F over";
        world.logged(&format!("{name}.log"), over).await;
    }
    world.finish().await;
}

#[tokio::test]
async fn ports_are_forwarded() {
    let mut world = World::new().await;
    let pod = world.pod("ports");
    let sandbox = world.run_pod(&pod).await;
    let config = world.shell("main", "httpd -p 127.0.0.1:8080 -h /etc; echo up; sleep 1000");
    world.run(&sandbox, &pod, config).await;
    world.logged("main.log", "stdout F up").await;
    let request = PortForwardRequest { pod_sandbox_id: sandbox, port: vec![] };
    let url = world.clients.runtime.port_forward(request).await.unwrap().into_inner().url;
    let uri = url.parse().unwrap();
    let io = portforward::request(dial(&uri).await.unwrap(), &uri).await.unwrap();
    let mut client = portforward::Client::new(Connection::client(io, Config::default()));
    let (mut data, _error) = client.open(8080).await.unwrap();
    data.write_all(b"GET /hostname HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(10), data.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.contains("200 OK") && answer.ends_with("ports\n"), "{answer}");
    let (_data, mut error) = client.open(9).await.unwrap();
    let mut message = String::new();
    tokio::time::timeout(Duration::from_secs(10), error.read_to_string(&mut message)).await.unwrap().unwrap();
    assert!(message.contains("failed to connect to localhost:9") && message.contains("refused"), "{message}");
    world.finish().await;
}

/// Memory of a process that is its own, in KiB.
fn anonymous_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// The one pod's shim. What it forks looks the same until it is something else.
async fn shim(world: &World) -> u32 {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        let found = world::processes_of(&world.dir.path().join("state/sandboxes"), world.server_pid());
        if let [one] = found[..] {
            return one.try_into().unwrap();
        }
        assert!(std::time::Instant::now() < deadline, "{found:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_costs_no_memory() {
    let mut world = World::new().await;
    let pod = world.pod("slow");
    let sandbox = world.run_pod(&pod).await;
    let config = world.shell("main", "sleep 1000");
    let id = world.run(&sandbox, &pod, config).await;
    let before = anonymous_kib(world.server_pid());
    let script = format!(": {}; exec tr '\\0' x < /dev/zero", world.dir.path().join("flood").display());
    let mut client = exec(&mut world, &id, &script, OUTPUTS).await;
    // It has written what it may once it only waits to write.
    let shim = shim(&world).await;
    let children = std::path::PathBuf::from(format!("/proc/{shim}/task/{shim}/children"));
    let written = || {
        let children = std::fs::read_to_string(&children).unwrap_or_default();
        let io = |pid: &str| {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
            let io = std::fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
            let line = io.lines().find_map(|line| line.strip_prefix("wchar: "))?;
            (name.trim() == "tr").then(|| line.parse::<u64>().ok())?
        };
        children.split_whitespace().find_map(io)
    };
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    let (mut last, mut quiet) = (None, 0);
    while quiet < 30 {
        assert!(std::time::Instant::now() < deadline, "it goes on writing: {last:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = written().filter(|count| *count > 0);
        quiet = if now.is_some() && now == last { quiet + 1 } else { 0 };
        last = now;
    }
    assert!(last.unwrap() < 16 << 20, "{last:?} bytes are under way");
    assert!(anonymous_kib(shim) < 4 << 10, "the shim has {} KiB", anonymous_kib(shim));
    let grown = anonymous_kib(world.server_pid()).saturating_sub(before);
    assert!(grown < 16 << 10, "the runtime has {grown} KiB more");
    // It goes on when it is read again.
    let mut stdout = client.stdout.take().unwrap();
    let mut buffer = vec![0; 64 << 10];
    let mut total = 0;
    while total < 32 << 20 {
        let count = tokio::time::timeout(Duration::from_secs(20), stdout.read(&mut buffer)).await.unwrap().unwrap();
        assert!(count > 0 && buffer[..count].iter().all(|byte| *byte == b'x'));
        total += count;
    }
    drop((client, stdout));
    world.finish().await;
}

#[tokio::test]
async fn a_process_that_does_not_read_stops_its_client() {
    let mut world = World::new().await;
    let pod = world.pod("deaf");
    let sandbox = world.run_pod(&pod).await;
    let config = world.shell("main", "sleep 1000");
    let id = world.run(&sandbox, &pod, config).await;
    let options = Options { stdin: true, ..OUTPUTS };
    world.sh(&id, "mkfifo /tmp/pipe").await;
    let mut client = exec(&mut world, &id, "read x < /tmp/pipe; exec wc -c", options).await;
    let mut stdin = client.stdin.take().unwrap();
    let chunk = vec![b'y'; 64 << 10];
    let mut sent = 0u64;
    while let Ok(written) = tokio::time::timeout(Duration::from_secs(1), stdin.write(&chunk)).await {
        sent += written.unwrap() as u64;
        assert!(sent < 16 << 20, "it takes everything");
    }
    assert!(anonymous_kib(shim(&world).await) < 4 << 10);
    world.sh(&id, "echo go > /tmp/pipe").await;
    let finishing = async {
        stdin.flush().await.unwrap();
        stdin.shutdown().await.unwrap();
    };
    let (counted, ()) = tokio::join!(all(client.stdout), finishing);
    assert_eq!(counted.trim().parse::<u64>().unwrap(), sent);
    world.finish().await;
}

/// Serves echoes at port 7 of the pod's loopback for as long as the test runs. Busybox' `nc` does not do: its backlog is one,
/// and the kernel resets connections that were made by SYN cookies and did not find room there (as many as `SyncookiesFailed`
/// and `EstabResets` of the pod's network count).
fn echo_in(netns: std::fs::File) {
    std::thread::spawn(move || {
        // This thread stays there, as do those that it starts.
        nix::sched::setns(netns, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:7").unwrap();
        for stream in listener.incoming() {
            let (mut from, mut to) = (stream.as_ref().unwrap().try_clone().unwrap(), stream.unwrap());
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
        }
    });
}

#[tokio::test]
async fn many_ports_are_forwarded_at_once() {
    const STREAMS: usize = 64;
    let mut world = World::new().await;
    let pod = world.pod("ports");
    let sandbox = world.run_pod(&pod).await;
    let config = world.shell("main", "until grep -q ':0007 ' /proc/net/tcp; do sleep 0.02; done; echo up; sleep 1000");
    let id = world.run(&sandbox, &pod, config).await;
    let procs = world.processes(&id);
    echo_in(std::fs::File::open(format!("/proc/{}/ns/net", procs.lines().next().unwrap())).unwrap());
    world.logged("main.log", "stdout F up").await;
    let request = PortForwardRequest { pod_sandbox_id: sandbox, port: vec![] };
    let url = world.clients.runtime.port_forward(request).await.unwrap().into_inner().url;
    let uri = url.parse().unwrap();
    let io = portforward::request(dial(&uri).await.unwrap(), &uri).await.unwrap();
    let mut client = portforward::Client::new(Connection::client(io, Config::default()));
    let mut echoes = tokio::task::JoinSet::new();
    for number in 0..STREAMS {
        let (mut data, mut error) = client.open(7).await.unwrap();
        echoes.spawn(async move {
            let sent: Vec<u8> = (0..200_000usize).map(|at| (at * 31 + number) as u8).collect();
            let mut got = vec![0; sent.len()];
            let (mut reader, mut writer) = tokio::io::split(&mut data);
            let (written, read) = tokio::join!(writer.write_all(&sent), reader.read_exact(&mut got));
            if let Err(broken) = written.and(read.map(drop)) {
                let mut why = String::new();
                let _ = error.read_to_string(&mut why).await;
                panic!("stream {number}: {broken}; the server says {why:?}");
            }
            assert!(got == sent, "stream {number} came back changed");
        });
    }
    let all = tokio::time::timeout(Duration::from_secs(60), echoes.join_all()).await;
    assert_eq!(all.unwrap().len(), STREAMS);
    world.finish().await;
}

/// A connection that says nothing is not kept.
#[tokio::test]
async fn silent_connections_end() {
    use tokio::io::AsyncReadExt;
    let mut world = World::new().await;
    let pod = world.pod("silent");
    let sandbox = world.run_pod(&pod).await;
    let request = PortForwardRequest { pod_sandbox_id: sandbox, port: vec![80] };
    let url = world.clients.runtime.port_forward(request).await.unwrap().into_inner().url;
    let address = url.strip_prefix("http://").unwrap().split('/').next().unwrap();
    let mut silent = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut rest = Vec::new();
    let end = tokio::time::timeout(std::time::Duration::from_secs(30), silent.read_to_end(&mut rest)).await;
    assert!(end.is_ok(), "the connection is open still");
    world.finish().await;
}
