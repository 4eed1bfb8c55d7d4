//! Real servers of the site set-up, each on a port and in a folder of its own, if the machine has them.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// A server that ends with the test.
pub(crate) struct Server {
    child: Child,
    _dir: tempfile::TempDir,
}

impl Server {
    pub(crate) fn new(child: Child, dir: tempfile::TempDir) -> Self {
        Self { child, _dir: dir }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Below those that the kernel gives to others at any moment (32 768 and above), and another test process looks elsewhere: what is free
/// stays free until it is bound, some of them seconds later.
pub(crate) fn free_port() -> u16 {
    static LOOKED_AT: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + (std::process::id() % 1_000) as u16 * 20;
    loop {
        let port = first + LOOKED_AT.fetch_add(1, Ordering::Relaxed) % 2_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

pub(crate) fn program(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    names.iter().flat_map(|name| std::env::split_paths(&path).map(move |dir| dir.join(name))).find(|file| file.is_file())
}

/// PostgreSQL does not run as root: then it runs as `postgres`, in a folder of that user.
pub(crate) fn postgres() -> Option<(Server, String)> {
    let real = std::fs::canonicalize(program(&["postgres"])?).ok()?;
    let bin = real.parent()?.to_owned();
    let root = rustix::process::geteuid().is_root();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let run = |program: &str, arguments: &[&str]| {
        let mut command = if root {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(bin.join(program));
            command
        } else {
            Command::new(bin.join(program))
        };
        command.args(arguments).current_dir("/").stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    if root {
        let done = Command::new("chown").args(["-R", "postgres:postgres"]).arg(dir.path()).status().ok()?;
        assert!(done.success());
    }
    let folder = data.to_str()?;
    let made = run("initdb", &["-D", folder, "-U", "conclave", "--auth=trust", "--no-sync"]).status().ok()?;
    assert!(made.success(), "initdb");
    let port = free_port().to_string();
    let child = run("postgres", &["-D", folder, "-p", &port, "-h", "127.0.0.1", "-k", folder, "-c", "fsync=off"]).spawn().ok()?;
    let server = Server::new(child, dir);
    let begun = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port.parse().ok()?)).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(60), "PostgreSQL does not answer");
        std::thread::sleep(Duration::from_millis(50));
    }
    Some((server, format!("postgres://conclave@127.0.0.1:{port}/postgres")))
}

/// Redis on this port, keeping nothing: what it forgets must not matter.
pub(crate) fn redis(port: u16) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let port = port.to_string();
    let arguments = ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no"];
    let child = Command::new("redis-server").args(arguments).current_dir(dir.path()).stdout(Stdio::null()).spawn().unwrap();
    Server::new(child, dir)
}
