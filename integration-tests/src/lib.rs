//! Starts the real programs for whole-system tests: own data folder, own ports, ended with the test.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::process::{Child, Command};

/// Where cargo put the programs: beside the folder of this test's own program.
///
/// # Errors
/// When `name` was not built: `./x test` builds all programs first.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.ancestors().nth(2).context("a test program lies two folders below its target folder")?;
    let path = folder.join(name);
    anyhow::ensure!(path.exists(), "{} is not built; run `cargo build --workspace --bins`", path.display());
    Ok(path)
}

/// A port nobody holds now, for TCP and UDP.
///
/// # Errors
/// When the system has none left.
pub fn free_port() -> anyhow::Result<u16> {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0")?;
        let port = tcp.local_addr()?.port();
        if std::net::UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
}

/// Waits until `check` says yes. The only way these tests wait.
///
/// # Errors
/// When it does not within 30 s.
pub async fn until<F: AsyncFnMut() -> bool>(what: &str, mut check: F) -> anyhow::Result<()> {
    let end = Instant::now() + Duration::from_secs(30);
    while !check().await {
        anyhow::ensure!(Instant::now() < end, "not within 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// A media node by itself.
pub struct Rtcd {
    /// Its gRPC and HTTP address.
    pub url: String,
    /// The signalling secret.
    pub token: String,
    /// UDP and TCP port of its media.
    pub media_port: u16,
    process: Child,
}

impl Rtcd {
    /// Starts one on loopback and waits until it is healthy.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(|_| Vec::new()).await
    }

    /// As [`Rtcd::start`], with variables of its own; they may depend on the media port.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_with(change: impl FnOnce(u16) -> Vec<(&'static str, String)>) -> anyhow::Result<Self> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (control, media_port) = (free_port()?, free_port()?);
        let token = "an integration test's signalling secret".to_owned();
        let process = Command::new(program("rtcd")?)
            .env("RTCD_API_HTTP_LISTENADDRESS", format!("127.0.0.1:{control}"))
            .env("RTCD_RTC_ICEADDRESSUDP", "127.0.0.1")
            .env("RTCD_RTC_ICEADDRESSTCP", "127.0.0.1")
            .env("RTCD_RTC_ICEPORTUDP", media_port.to_string())
            .env("RTCD_RTC_ICEPORTTCP", media_port.to_string())
            .env("RTCD_SIGNAL_TOKEN", &token)
            .env("RTCD_TAP_SECRET", "an integration test's tap secret, long enough")
            .envs(change(media_port))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let node = Self { url: format!("http://127.0.0.1:{control}"), token, media_port, process };
        let client = http_client()?;
        let health = format!("{}/healthz", node.url);
        until("rtcd is healthy", async || client.get(&health).send().await.is_ok_and(|answer| answer.status().is_success())).await?;
        Ok(node)
    }

    /// All metrics, as text.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn metrics(&self) -> anyhow::Result<String> {
        Ok(http_client()?.get(format!("{}/metrics", self.url)).send().await?.text().await?)
    }

    /// True while the process runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }
}

/// A message server by itself, with its first administrator, who has every role.
pub struct MessageServer {
    /// Its HTTP address.
    pub url: String,
    /// The administrator's password; the name is `admin`.
    pub password: String,
    cookie: String,
    client: reqwest::Client,
    _data: tempfile::TempDir,
    _process: Child,
}

impl MessageServer {
    /// Starts one on loopback that uses this media node.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(node: &Rtcd) -> anyhow::Result<Self> {
        let (http, tls) = (free_port()?, free_port()?);
        let data = tempfile::tempdir()?;
        let process = Command::new(program("message-server")?)
            .env("MESSAGE_SERVER_LISTEN", format!("127.0.0.1:{http}"))
            .env("MESSAGE_SERVER_TLS_LISTEN", format!("127.0.0.1:{tls}"))
            .env("MESSAGE_SERVER_DATA", data.path())
            .env("MESSAGE_SERVER_RTCD", &node.url)
            .env("MESSAGE_SERVER_RTCD_TOKEN", &node.token)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let (url, client, password) = (format!("http://127.0.0.1:{http}"), http_client()?, "correct horse battery staple".to_owned());
        let health = format!("{url}/healthz");
        until("the message server is healthy and linked", async || {
            let Ok(answer) = client.get(&health).send().await else { return false };
            answer.text().await.is_ok_and(|text| text.contains("\"media_node\":true"))
        })
        .await?;
        let link = tokio::fs::read_to_string(data.path().join("first-login.txt")).await?;
        let token = link.trim().split_once("token=").context("a link with a token")?.1.to_owned();
        let mut server = Self { url, password, cookie: String::new(), client, _data: data, _process: process };
        let body = format!(r#"{{"token":"{token}","username":"admin","display_name":"Ada Admin","password":"{}"}}"#, server.password);
        let answer = server.send(reqwest::Method::POST, "/session/setup", Some(body)).await?;
        let cookie = answer.headers().get("set-cookie").context("a session")?.to_str()?;
        server.cookie = cookie.split(';').next().unwrap_or_default().to_owned();
        Ok(server)
    }

    async fn send(&self, method: reqwest::Method, path: &str, body: Option<String>) -> anyhow::Result<reqwest::Response> {
        let request = self.client.request(method, format!("{}/api/v1{path}", self.url));
        let request = request.header("origin", &self.url).header("cookie", &self.cookie).header("content-type", "application/json");
        Ok(request.body(body.unwrap_or_default()).send().await?.error_for_status()?)
    }

    /// Reads from its API as the administrator.
    ///
    /// # Errors
    /// When it does not answer, or not well.
    pub async fn get(&self, path: &str) -> anyhow::Result<String> {
        Ok(self.send(reqwest::Method::GET, path, None).await?.text().await?)
    }
}

/// HTTP without proxies: everything is on loopback.
///
/// # Errors
/// When TLS cannot be set up.
pub fn http_client() -> anyhow::Result<reqwest::Client> {
    Ok(reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?)
}
