//! Starts the real programs for whole-system tests: own data folder, own ports, ended with the test.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
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
/// When it does not within 90 s: a start takes one, and thirty where a machine builds beside its tests.
pub async fn until<F: AsyncFnMut() -> bool>(what: &str, mut check: F) -> anyhow::Result<()> {
    let end = Instant::now() + Duration::from_secs(90);
    while !check().await {
        anyhow::ensure!(Instant::now() < end, "not within 90 s: {what}");
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
        let token = first_token(data.path()).await?;
        let cookie = first_session(&client, &url, &token, &password).await?;
        Ok(Self { url, password, cookie, client, _data: data, _process: process })
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

/// The token in the first administrator's link.
async fn first_token(data: &Path) -> anyhow::Result<String> {
    let link = tokio::fs::read_to_string(data.join("first-login.txt")).await?;
    Ok(link.trim().split_once("token=").context("a link with a token")?.1.to_owned())
}

/// Makes the first administrator, `admin`, called Ada Admin; answers with the session's cookie.
async fn first_session(client: &reqwest::Client, url: &str, token: &str, password: &str) -> anyhow::Result<String> {
    let body = format!(r#"{{"token":"{token}","username":"admin","display_name":"Ada Admin","password":"{password}"}}"#);
    let request = client.post(format!("{url}/api/v1/session/setup")).header("origin", url).header("content-type", "application/json");
    let answer = request.body(body).send().await?.error_for_status()?;
    let cookie = answer.headers().get("set-cookie").context("a session")?.to_str()?;
    Ok(cookie.split(';').next().unwrap_or_default().to_owned())
}

/// Everything, as `conclave up` starts it, with its first administrator.
pub struct Site {
    /// Address of the pages.
    pub url: String,
    /// The media node's.
    pub rtcd_url: String,
    /// The offloader's.
    pub offloader_url: String,
    /// The administrator's password; the name is `admin`.
    pub password: String,
    /// The token that was in the first link, and the session's cookie: both must never be seen again.
    pub spent: [String; 2],
    data: tempfile::TempDir,
    _process: Child,
}

impl Site {
    /// Starts one on loopback, with variables for its parts, and waits until all of it works.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn up(variables: &[(&str, &str)]) -> anyhow::Result<Self> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let [http, https, media, rtcd, offloader] = [free_port()?, free_port()?, free_port()?, free_port()?, free_port()?];
        let data = tempfile::tempdir()?;
        // When it is killed at the test's end, the system tells its parts to end.
        let process = Command::new(program("conclave")?)
            .arg("up")
            .arg("--data")
            .arg(data.path())
            .args(["--http", &format!("127.0.0.1:{http}"), "--https", &format!("127.0.0.1:{https}")])
            .args(["--media-port", &media.to_string(), "--advertise", "127.0.0.1"])
            .args(["--rtcd-port", &rtcd.to_string(), "--offloader-port", &offloader.to_string()])
            .args(["--models", "none"])
            .envs([("RTCD_RTC_ICEADDRESSUDP", "127.0.0.1"), ("RTCD_RTC_ICEADDRESSTCP", "127.0.0.1")])
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let local = |port| format!("http://127.0.0.1:{port}");
        let (url, rtcd_url, offloader_url) = (local(http), local(rtcd), local(offloader));
        let client = http_client()?;
        let answers = async |url: String| match client.get(url).send().await {
            Ok(answer) if answer.status().is_success() => answer.text().await.unwrap_or_default(),
            Ok(_) | Err(_) => String::new(),
        };
        until("all parts work", async || {
            answers(format!("{url}/healthz")).await.contains("\"media_node\":true")
                && !answers(format!("{offloader_url}/healthz")).await.is_empty()
        })
        .await?;
        let password = "correct horse battery staple".to_owned();
        let token = first_token(&data.path().join("message-server")).await?;
        let cookie = first_session(&client, &url, &token, &password).await?;
        Ok(Self { url, rtcd_url, offloader_url, password, spent: [token, cookie], data, _process: process })
    }

    /// Its data folder.
    #[must_use]
    pub fn data(&self) -> &Path {
        self.data.path()
    }
}

/// HTTP without proxies: everything is on loopback.
///
/// # Errors
/// When TLS cannot be set up.
pub fn http_client() -> anyhow::Result<reqwest::Client> {
    Ok(reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?)
}
