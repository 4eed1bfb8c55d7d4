//! `conclave up`: the whole system in one process tree, on embedded defaults.

mod child;
mod ports;
pub(crate) mod secrets;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use child::Part;

/// How long a part may take until it answers its first health check: a cold disk and a first key generation fit in.
const READY_MAX: Duration = Duration::from_secs(60);

/// Settings of `conclave up`. Every one has a variable; none is needed.
#[derive(Args)]
pub(crate) struct UpSettings {
    /// Folder of everything that is kept: database, recordings, keys, logs
    #[arg(long, env = "CONCLAVE_DATA", default_value = "var")]
    data: PathBuf,
    /// Pages for browsers on this machine (localhost needs no certificate)
    #[arg(long, env = "CONCLAVE_HTTP", default_value = "127.0.0.1:8065")]
    http: SocketAddr,
    /// Pages for browsers on other machines, over TLS
    #[arg(long, env = "CONCLAVE_HTTPS", default_value = "0.0.0.0:8066")]
    https: SocketAddr,
    /// UDP and TCP port of all media
    #[arg(long, env = "CONCLAVE_MEDIA_PORT", default_value_t = 8443)]
    media_port: u16,
    /// Address browsers reach the media port at; default: this machine's own addresses
    #[arg(long, env = "CONCLAVE_ADVERTISE")]
    advertise: Option<String>,
    /// TURN servers of your own, for browsers that reach the media port neither by UDP nor by TCP: turn:host:3478, turns:host:5349
    #[arg(long, env = "CONCLAVE_TURN", value_delimiter = ',', requires = "turn_secret")]
    turn: Vec<String>,
    /// What those servers check credentials with (coturn: static-auth-secret)
    #[arg(long, env = "CONCLAVE_TURN_SECRET", hide_env_values = true, requires = "turn")]
    turn_secret: Option<String>,
    /// Control port of the media node, local only
    #[arg(long, env = "CONCLAVE_RTCD_PORT", default_value_t = 8045)]
    rtcd_port: u16,
    /// Control port of the offloader, local only
    #[arg(long, env = "CONCLAVE_OFFLOADER_PORT", default_value_t = 4545)]
    offloader_port: u16,
    /// Folder with the speech models (ggml files); without one, captions and transcripts are off
    #[arg(long, env = "CONCLAVE_MODELS", default_value = "models")]
    models: PathBuf,
    /// Address people type, when it is not the one of --http (a name, a proxy in front)
    #[arg(long, env = "CONCLAVE_PUBLIC_URL")]
    public_url: Option<String>,
    /// Folder of the other programs; default: where this one is
    #[arg(long, env = "CONCLAVE_BIN")]
    bin: Option<PathBuf>,
}

/// Starts everything and stays until it is told to end.
pub(crate) async fn run(settings: UpSettings) -> anyhow::Result<()> {
    std::fs::create_dir_all(settings.data.join("logs"))
        .with_context(|| format!("cannot make {}; choose another folder with --data", settings.data.display()))?;
    let _alone = hold(&settings.data)?;
    let busy = ports::busy(&needs(&settings));
    if !busy.is_empty() {
        let lines: Vec<String> = busy.iter().map(ToString::to_string).collect();
        anyhow::bail!("another program holds ports we need:\n{}", lines.join("\n"));
    }
    let parts = parts(&settings)?;
    let logs = settings.data.join("logs");
    let (stop, stopping) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    let mut running = Running::new();
    for part in parts {
        println!("starting {} …", part.name);
        let (name, logs, stopping) = (part.name, logs.clone(), stopping.clone());
        running.spawn(async move { part.supervise(logs, stopping).await.context(name) });
    }
    let told_to_end = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let mut outcome = tokio::select! {
        () = told_to_end => Ok(()),
        error = stay(&settings, &mut running) => Err(error),
    };
    println!("\nending: recordings are closed and kept …");
    // Also when the start failed: what runs is closed in order and leaves no port taken.
    stop.send_replace(true);
    while let Some(ended) = running.join_next().await {
        outcome = outcome.and(ended.map_err(anyhow::Error::from).flatten());
    }
    println!("ended.");
    outcome
}

/// The parts that run, each until it is told to stop.
type Running = tokio::task::JoinSet<anyhow::Result<()>>;

/// Says when everything runs, and stays; comes back only with what is wrong.
async fn stay(settings: &UpSettings, running: &mut Running) -> anyhow::Error {
    match until_up(ready(settings), running).await {
        Ok(()) => {
            greet(settings);
            first_end(running).await
        }
        Err(error) => error,
    }
}

/// Waits until all answer; a part that cannot be started is told of at once, not when the wait has run out.
async fn until_up(ready: impl Future<Output = anyhow::Result<()>>, running: &mut Running) -> anyhow::Result<()> {
    tokio::select! {
        biased;
        error = first_end(running) => Err(error),
        ready = ready => ready,
    }
}

/// A part's task ends by itself only when something is wrong.
async fn first_end(running: &mut Running) -> anyhow::Error {
    match running.join_next().await {
        Some(Ok(Err(error))) => error,
        Some(Err(error)) => error.into(),
        Some(Ok(Ok(()))) | None => anyhow::anyhow!("a part is not looked after any more"),
    }
}

/// One system per data folder: two would write the same database and recordings.
fn hold(data: &Path) -> anyhow::Result<std::fs::File> {
    let path = data.join("up.lock");
    let file = std::fs::File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(|_| {
        anyhow::anyhow!("another `conclave up` uses {}; end it first, or start this one with another --data", data.display())
    })?;
    Ok(file)
}

fn needs(settings: &UpSettings) -> Vec<ports::Need> {
    let local = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    let everywhere = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
    vec![
        ports::Need { what: "the pages (HTTP)", at: settings.http, udp: false, setting: "--http (CONCLAVE_HTTP)" },
        ports::Need { what: "the pages (HTTPS)", at: settings.https, udp: false, setting: "--https (CONCLAVE_HTTPS)" },
        ports::Need { what: "media", at: everywhere(settings.media_port), udp: true, setting: "--media-port (CONCLAVE_MEDIA_PORT)" },
        ports::Need { what: "rtcd", at: local(settings.rtcd_port), udp: false, setting: "--rtcd-port (CONCLAVE_RTCD_PORT)" },
        ports::Need {
            what: "offloader",
            at: local(settings.offloader_port),
            udp: false,
            setting: "--offloader-port (CONCLAVE_OFFLOADER_PORT)",
        },
    ]
}

fn parts(settings: &UpSettings) -> anyhow::Result<Vec<Part>> {
    let data = std::path::absolute(&settings.data)?;
    let bin = match &settings.bin {
        Some(folder) => folder.clone(),
        None => std::env::current_exe()?.parent().map(Path::to_path_buf).unwrap_or_default(),
    };
    let signal_token = secrets::keep(&data, secrets::SIGNAL)?;
    let tap_secret = secrets::keep(&data, secrets::TAP)?;
    let offloader_token = secrets::keep(&data, secrets::OFFLOADER)?;
    let rtcd_url = format!("http://127.0.0.1:{}", settings.rtcd_port);
    let offloader_url = format!("http://127.0.0.1:{}", settings.offloader_port);

    let mut rtcd = vec![
        ("RTCD_API_HTTP_LISTENADDRESS", format!("127.0.0.1:{}", settings.rtcd_port)),
        ("RTCD_RTC_ICEPORTUDP", settings.media_port.to_string()),
        ("RTCD_RTC_ICEPORTTCP", settings.media_port.to_string()),
        ("RTCD_SIGNAL_TOKEN", signal_token.clone()),
        ("RTCD_TAP_SECRET", tap_secret.clone()),
    ];
    if let Some(address) = &settings.advertise {
        rtcd.push(("RTCD_RTC_ICEHOSTOVERRIDE", address.clone()));
    }
    if let Some(secret) = &settings.turn_secret {
        rtcd.push(("RTCD_RTC_ICESERVERS", serde_json::json!([{ "urls": settings.turn }]).to_string()));
        rtcd.push(("RTCD_RTC_TURNCONFIG_STATICAUTHSECRET", secret.clone()));
    }
    let mut offloader = vec![
        ("OFFLOADER_LISTEN", format!("127.0.0.1:{}", settings.offloader_port)),
        ("OFFLOADER_TOKEN", offloader_token.clone()),
        ("OFFLOADER_DATA", data.join("offloader").display().to_string()),
        ("OFFLOADER_RTCD", rtcd_url.clone()),
        ("OFFLOADER_TAP_SECRET", tap_secret),
        ("OFFLOADER_WORKER_BIN", bin.join("offload-worker").display().to_string()),
    ];
    offloader.extend(models(&settings.models)?);
    let mut message_server = vec![
        ("MESSAGE_SERVER_LISTEN", settings.http.to_string()),
        ("MESSAGE_SERVER_TLS_LISTEN", settings.https.to_string()),
        ("MESSAGE_SERVER_DATA", data.join("message-server").display().to_string()),
        ("MESSAGE_SERVER_RTCD", rtcd_url),
        ("MESSAGE_SERVER_RTCD_TOKEN", signal_token),
        ("MESSAGE_SERVER_OFFLOADER", offloader_url),
        ("MESSAGE_SERVER_OFFLOADER_TOKEN", offloader_token),
    ];
    if let Some(url) = &settings.public_url {
        message_server.push(("MESSAGE_SERVER_PUBLIC_URL", url.clone()));
    }
    // Media first: the others reach out to it and try again until it is there.
    Ok(vec![
        Part { name: "rtcd", program: bin.join("rtcd"), environment: rtcd },
        Part { name: "offloader", program: bin.join("offloader"), environment: offloader },
        Part { name: "message-server", program: bin.join("message-server"), environment: message_server },
    ])
}

/// The models `./x` puts into the folder, with the digests in `SHA256SUMS` beside them. None: the feature is off and says so.
fn models(folder: &Path) -> anyhow::Result<Vec<(&'static str, String)>> {
    let sums = folder.join("SHA256SUMS");
    let Ok(text) = std::fs::read_to_string(&sums) else {
        println!("no speech models in {}: captions and transcripts are off (`./x models` gets them)", folder.display());
        return Ok(Vec::new());
    };
    let folder = std::path::absolute(folder)?;
    let find = |part: &str| {
        text.lines()
            .filter_map(|line| line.split_once("  "))
            .find(|(_, file)| file.contains(part))
            .map(|(sum, file)| (sum.to_owned(), folder.join(file.trim()).display().to_string()))
    };
    let mut environment = Vec::new();
    // Captions want the quick model, transcripts the better one; either serves for both.
    let quick = find("tiny.en").or_else(|| find("base"));
    let better = find("base").or_else(|| find("tiny.en"));
    for (found, path, sum) in [
        (better, "OFFLOADER_MODEL_PATH", "OFFLOADER_MODEL_SHA256"),
        (quick, "OFFLOADER_CAPTION_MODEL_PATH", "OFFLOADER_CAPTION_MODEL_SHA256"),
        (find("silero"), "OFFLOADER_VAD_PATH", "OFFLOADER_VAD_SHA256"),
    ] {
        let (digest, file) = found.with_context(|| format!("{} names no file for {path}; run `./x models`", sums.display()))?;
        environment.push((path, file));
        environment.push((sum, digest));
    }
    Ok(environment)
}

/// Waits until every part answers its health check.
async fn ready(settings: &UpSettings) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(2)).no_proxy().build()?;
    let checks = [
        ("rtcd", format!("http://127.0.0.1:{}/healthz", settings.rtcd_port)),
        ("offloader", format!("http://127.0.0.1:{}/healthz", settings.offloader_port)),
        ("message-server", format!("http://{}/healthz", settings.http)),
    ];
    let logs = settings.data.join("logs");
    for (name, url) in checks {
        let answered = tokio::time::timeout(READY_MAX, async {
            loop {
                if client.get(&url).send().await.is_ok_and(|response| response.status().is_success()) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        answered.await.map_err(|_| {
            anyhow::anyhow!(
                "{name} does not answer {url} after {} s; its log says why: {}",
                READY_MAX.as_secs(),
                logs.join(format!("{name}.log")).display()
            )
        })?;
        println!("{name} is ready");
    }
    Ok(())
}

fn greet(settings: &UpSettings) {
    let address = settings.public_url.clone().unwrap_or_else(|| format!("http://localhost:{}", settings.http.port()));
    println!("\nConclave is running:  {address}");
    println!("from other machines:  https://<this machine>:{}  (own certificate: the browser asks once)", settings.https.port());
    let link = settings.data.join("message-server/first-login.txt");
    if let Ok(text) = std::fs::read_to_string(&link) {
        println!("first administrator:  {}", text.trim());
    }
    println!("data and logs:        {}", settings.data.display());
    println!("ctrl-C ends it; everything is kept.");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn part_that_cannot_be_started_is_told_of_while_the_others_are_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("logs");
        std::fs::write(&logs, "").unwrap();
        let (_stop, stopping) = watch::channel(false);
        let part = Part { name: "rtcd", program: "/bin/true".into(), environment: Vec::new() };
        let mut running = Running::new();
        running.spawn(async move { part.supervise(logs, stopping).await.context("rtcd") });
        let error = until_up(std::future::pending(), &mut running).await.unwrap_err();
        assert!(format!("{error:#}").starts_with("rtcd: "), "{error:#}");
    }
}
