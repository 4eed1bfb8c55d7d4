//! The real program as a child process, on loopback and free ports; killed with the test.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]

use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};

use conclave_proto::v1::signal_client::SignalClient;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tonic::transport::Channel;

use super::{SETTINGS, soon};

pub struct Program {
    pub url: String,
    http: SocketAddr,
    child: Child,
}

impl Program {
    /// Starts it and waits until its log says that it is ready.
    pub async fn start(settings: &[(&str, &str)]) -> Self {
        let mut command = Self::command();
        command.envs(SETTINGS).envs(settings.iter().copied());
        Self::spawn(command).await
    }

    /// The program, without settings.
    pub fn command() -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rtcd"));
        command.env("RUST_LOG_FORMAT", "json").stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Waits until its log says that it is ready.
    pub async fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().expect("starts");
        let mut log = BufReader::new(child.stderr.take().expect("piped")).lines();
        let http = soon("the ready line of the log", async {
            loop {
                let line = log.next_line().await.expect("readable").expect("the program did not end");
                let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
                if line["message"] == "ready" {
                    return line["http"].as_str().expect("the bound address").parse().expect("an address");
                }
            }
        })
        .await;
        // The rest of the log goes where the test's own output goes.
        tokio::spawn(async move {
            while let Ok(Some(line)) = log.next_line().await {
                eprintln!("rtcd: {line}");
            }
        });
        Self { url: format!("http://{http}"), http, child }
    }

    /// Where it listens.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    pub async fn signal(&self) -> SignalClient<Channel> {
        SignalClient::connect(self.url.clone()).await.expect("reachable")
    }

    pub fn terminate(&self) {
        self.signal_with(Signal::TERM);
    }

    pub fn signal_with(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().expect("runs").try_into().expect("a pid")).expect("a pid");
        kill_process(pid, signal).expect("ours");
    }

    /// Status and body of a page.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let mut stream = tokio::net::TcpStream::connect(self.http).await.expect("reachable");
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: rtcd\r\nConnection: close\r\n\r\n").as_bytes()).await.expect("sends");
        let mut answer = String::new();
        soon("a page", stream.read_to_string(&mut answer)).await.expect("text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("HTTP");
        (head.split(' ').nth(1).expect("a status").parse().expect("a number"), body.to_owned())
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        soon("the program's end", self.child.wait()).await.expect("a child")
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}
