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

/// HTTP without proxies: everything is on loopback.
///
/// # Errors
/// When TLS cannot be set up.
pub fn http_client() -> anyhow::Result<reqwest::Client> {
    Ok(reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?)
}
