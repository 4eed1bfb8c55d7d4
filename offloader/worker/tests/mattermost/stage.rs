//! The real programs around a stand-in of a Mattermost server, each in a folder and on ports of its own.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use fake_mattermost::{Asked, Fake, LiveKit, Service, Wants};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// Everything that a test needs.
pub(crate) struct Stage {
    pub(crate) fake: Fake,
    /// The same rtcd, as a LiveKit server.
    pub(crate) livekit: LiveKit,
    pub(crate) service: Service,
    pub(crate) dir: TempDir,
    /// The offloader's.
    port: u16,
    offloader: Child,
    _rtcd: Child,
}

/// rtcd's key for LiveKit's clients.
const KEY: (&str, &str) = ("APItest", "a secret that is long enough for a test");

/// What the offloader and its workers said; shown when the test fails.
impl Drop for Stage {
    fn drop(&mut self) {
        let log = std::fs::read_to_string(self.dir.path().join("offloader.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        for line in &lines[lines.len().saturating_sub(200)..] {
            println!("{line}");
        }
    }
}

/// Waits for it; the deadline is for a machine that is busy with a hundred other things.
pub(crate) async fn eventually(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(180);
    while !check().await {
        assert!(Instant::now() < end, "not within three minutes: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A program beside this test's own.
fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let path = own.ancestors().nth(2).unwrap().join(name);
    assert!(path.exists(), "{} is not built: run `cargo build --workspace --bins`", path.display());
    path
}

fn free_port() -> u16 {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = tcp.local_addr().unwrap().port();
        if std::net::UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A port whose TCP connections go on to this one, and whose datagrams go nowhere.
async fn only_tcp_to(port: u16) -> u16 {
    let (listener, silent) = loop {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        if let Ok(silent) = tokio::net::UdpSocket::bind(listener.local_addr().unwrap()).await {
            break (listener, silent);
        }
    };
    let announced = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let _bound = silent;
        while let Ok((mut here, _)) = listener.accept().await {
            let mut there = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut here, &mut there).await });
        }
    });
    announced
}

async fn answers(url: &str) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    eventually(url, async || client.get(url).send().await.is_ok_and(|answer| answer.status().is_success())).await;
}

impl Stage {
    /// With version 1 of the plugin.
    pub(crate) async fn open() -> Self {
        Self::open_with(false, false).await
    }

    /// With its version 2.
    #[allow(dead_code, reason = "not for the bench")]
    pub(crate) async fn open_v2() -> Self {
        Self::open_with(true, false).await
    }

    /// With a media node that lets no UDP through.
    #[allow(dead_code, reason = "not for the bench")]
    pub(crate) async fn open_by_tcp(v2: bool) -> Self {
        Self::open_with(v2, true).await
    }

    async fn open_with(v2: bool, by_tcp: bool) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let (control, media, jobs) = (free_port(), free_port(), free_port());
        let mut rtcd = Command::new(program("rtcd"));
        if by_tcp {
            let announced = only_tcp_to(media).await.to_string();
            rtcd.env("RTCD_RTC_ICEHOSTOVERRIDE", "127.0.0.1").env("RTCD_RTC_ICEHOSTPORTOVERRIDE", announced);
        }
        let rtcd = rtcd
            .env("RTCD_API_HTTP_LISTENADDRESS", format!("127.0.0.1:{control}"))
            .env("RTCD_API_SECURITY_ALLOWSELFREGISTRATION", "true")
            .env("RTCD_RTC_ICEADDRESSUDP", "127.0.0.1")
            .env("RTCD_RTC_ICEADDRESSTCP", "127.0.0.1")
            .env("RTCD_RTC_ICEPORTUDP", media.to_string())
            .env("RTCD_RTC_ICEPORTTCP", media.to_string())
            .env("RTCD_STORE_DATASOURCE", dir.path().join("rtcd-store"))
            .env("RTCD_LOGGER_ENABLEFILE", "false")
            .env("RTCD_MATTERMOST_ENABLE", "true")
            .env("LIVEKIT_KEYS", format!("{}: {}", KEY.0, KEY.1))
            .current_dir(&dir)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let rtcd_url = format!("http://127.0.0.1:{control}");
        answers(&format!("{rtcd_url}/version")).await;
        // The address of LiveKit's own server with the same key, to see what the same bot finds there.
        let livekit_url = std::env::var("TEST_LIVEKIT_URL").unwrap_or_else(|_| rtcd_url.replace("http", "ws"));
        let livekit = LiveKit { url: livekit_url, key: KEY.0.to_owned(), secret: KEY.1.to_owned() };
        let fake = if v2 { Fake::start_v2(livekit.clone()).await } else { Fake::start(&rtcd_url).await }.unwrap();
        if let Ok(mib) = std::env::var("TEST_SMALL_DISK_MIB") {
            small_disk(&dir.path().join("data"), &mib);
        }
        let offloader = start_offloader(dir.path(), jobs);
        let url = format!("http://127.0.0.1:{jobs}");
        answers(&format!("{url}/version")).await;
        Self { fake, livekit, service: Service::new(&url), dir, port: jobs, offloader, _rtcd: rtcd }
    }

    /// The host presses the button: rows of jobs, before the service is asked.
    pub(crate) fn ask(&self, channel: &str, wants: Wants) -> Asked {
        self.fake.begin_recording(channel, wants).unwrap()
    }

    pub(crate) async fn submit(&self, channel: &str, asked: &Asked) {
        self.fake.submit(&self.service, channel, asked).await.unwrap();
    }

    pub(crate) async fn record(&self, channel: &str, wants: Wants) -> Asked {
        let asked = self.ask(channel, wants);
        self.submit(channel, &asked).await;
        asked
    }

    /// No worker runs and nothing waits.
    pub(crate) async fn idle(&self) {
        let pid = self.offloader.id().unwrap();
        let mut still = 0;
        eventually("no worker runs", async || {
            still = if workers(pid).is_empty() { still + 1 } else { 0 };
            // Between two jobs of one call there is none for a moment.
            still > 30
        })
        .await;
    }

    #[allow(dead_code, reason = "for the bench")]
    /// CPU seconds of the offloader and of its workers that have ended.
    pub(crate) fn cpu(&self) -> f64 {
        stat(self.offloader.id().unwrap()).unwrap().cpu_s
    }

    /// Running workers: process and kind of job.
    pub(crate) fn workers(&self) -> Vec<(u32, String)> {
        let kind = |pid: u32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<String> = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
            let at = words.iter().position(|word| word == "--kind")?;
            Some((pid, words.get(at + 1)?.clone()))
        };
        workers(self.offloader.id().unwrap()).into_iter().filter_map(kind).collect()
    }

    /// Sends a signal to the worker of that kind, once there is one.
    #[allow(dead_code, reason = "not for the bench")]
    pub(crate) async fn signal(&self, kind: &str, signal: rustix::process::Signal) {
        let mut found = None;
        eventually(kind, async || {
            found = self.workers().into_iter().find(|(_, its)| its == kind);
            found.is_some()
        })
        .await;
        rustix::process::kill_process(process(found.unwrap().0), signal).unwrap();
    }

    /// Ends the offloader as a service manager does, and starts it again.
    #[allow(dead_code, reason = "not for the bench")]
    pub(crate) async fn restart(&mut self) {
        rustix::process::kill_process(process(self.offloader.id().unwrap()), rustix::process::Signal::TERM).unwrap();
        assert!(self.offloader.wait().await.unwrap().success(), "it ends in order");
        self.offloader = start_offloader(self.dir.path(), self.port);
        answers(&format!("{}/version", self.service.url)).await;
    }

    /// The offloader or one of its workers has logged this.
    pub(crate) fn log_has(&self, text: &str) -> bool {
        let mut logs = vec![self.dir.path().join("offloader.log")];
        logs.extend(files_below(&self.dir.path().join("data")).into_iter().filter(|path| path.extension().is_some_and(|end| end == "log")));
        logs.iter().any(|path| String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).contains(text))
    }

    /// What the recordings' manifests say so far.
    #[allow(dead_code, reason = "not for the bench")]
    pub(crate) fn manifests(&self) -> String {
        let files = files_below(&self.dir.path().join("data"));
        let manifests = files.iter().filter(|path| path.ends_with(archive::MANIFEST_FILE));
        manifests.map(|path| std::fs::read_to_string(path).unwrap_or_default()).collect()
    }

    /// For people who want to look at it.
    pub(crate) fn keep(&self, name: &str, bytes: &[u8]) {
        if let Some(folder) = std::env::var_os("KEEP_PICTURES") {
            std::fs::write(Path::new(&folder).join(name), bytes).unwrap();
        }
    }
}

/// Where we may mount: see [`in_own_mounts`].
fn small_disk(path: &Path, mib: &str) {
    std::fs::create_dir_all(path).unwrap();
    let size = format!("size={mib}m");
    let done = std::process::Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(path).status().unwrap();
    assert!(done.success());
}

/// Runs one of the tests of this binary with the offloader's data on a small disk, in a mount namespace that goes away with it. Where
/// nobody may mount that is said, and not tested.
#[allow(dead_code, reason = "not for the bench")]
pub(crate) fn in_own_mounts(test: &str, disk_mib: u64, free_min_mib: u64) {
    let unshare = |arguments: &[&str]| {
        let mut command = std::process::Command::new("unshare");
        command.args(if rustix::process::geteuid().is_root() { &["-m"][..] } else { &["-rm"][..] }).args(arguments);
        command
    };
    if !unshare(&["true"]).stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        eprintln!("no mount namespaces for us on this machine: a full disk is not tested");
        return;
    }
    let this = std::env::current_exe().unwrap();
    let output = unshare(&[this.to_str().unwrap(), test, "--exact", "--nocapture", "--test-threads=1"])
        .env("TEST_SMALL_DISK_MIB", disk_mib.to_string())
        .env("OFFLOADER_DISK_FREE_MIN_MB", free_min_mib.to_string())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.flat_map(|entry| if entry.path().is_dir() { files_below(&entry.path()) } else { vec![entry.path()] }).collect()
}

/// With the configuration of calls-offloader alone, as a site that changes over has it.
fn start_offloader(dir: &Path, port: u16) -> Child {
    let models = super::common::model_files();
    let log = std::fs::File::options().create(true).append(true).open(dir.join("offloader.log")).unwrap();
    Command::new(program("offloader"))
        .env("API_HTTP_LISTENADDRESS", format!("127.0.0.1:{port}"))
        .env("API_SECURITY_ALLOWSELFREGISTRATION", "true")
        .env("STORE_DATASOURCE", dir.join("data"))
        .env("JOBS_MAXCONCURRENTJOBS", "10")
        .env("OFFLOADER_MODEL_PATH", models.model.unwrap())
        .env("OFFLOADER_VAD_PATH", models.vad.unwrap())
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::from(log.try_clone().unwrap()))
        .stderr(Stdio::from(log))
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

fn workers(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| stat(*pid).is_some_and(|its| its.parent == parent && !its.ended)).collect()
}

pub(crate) fn process(pid: u32) -> rustix::process::Pid {
    rustix::process::Pid::from_raw(pid as i32).unwrap()
}

/// A process.
pub(crate) struct Stat {
    pub(crate) parent: u32,
    /// It has ended and nobody has waited for it yet.
    pub(crate) ended: bool,
    /// CPU seconds of it and of its children that have ended.
    pub(crate) cpu_s: f64,
}

pub(crate) fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit(')').next()?.split_whitespace().collect();
    let ticks: f64 = fields.get(11..15)?.iter().filter_map(|field| field.parse::<f64>().ok()).sum();
    let cpu_s = ticks / rustix::param::clock_ticks_per_second() as f64;
    Some(Stat { parent: fields[1].parse().ok()?, ended: fields[0] == "Z", cpu_s })
}

/// What ffprobe says of a file.
pub(crate) fn probe(media: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), media).unwrap();
    let out = std::process::Command::new("ffprobe")
        .args(["-v", "error", "-show_streams", "-show_format", "-of", "json"])
        .arg(file.path())
        .output()
        .expect("the ffprobe program (./x installs it)");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// Decodes all of a film: its length in seconds.
#[allow(dead_code, reason = "not for the bench")]
pub(crate) fn decoded(media: &[u8]) -> f64 {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), media).unwrap();
    let run = |program: &str, before: &[&str], after: &[&str]| {
        let mut command = std::process::Command::new(program);
        let out = command.args(before).arg(file.path()).args(after).output().expect("ffmpeg's programs (./x installs them)");
        assert!(out.status.success() && out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    run("ffmpeg", &["-v", "error", "-xerror", "-i"], &["-f", "null", "-"]);
    run("ffprobe", &["-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0"], &[]).trim().parse().unwrap()
}

/// The colour of a point of the picture at a second.
#[allow(dead_code, reason = "not for the bench")]
pub(crate) fn pixel(media: &[u8], second: u32, x: u32, y: u32) -> [u8; 3] {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), media).unwrap();
    let out = std::process::Command::new("ffmpeg")
        .args(["-v", "error", "-ss", &second.to_string(), "-i"])
        .arg(file.path())
        .args(["-frames:v", "1", "-vf", &format!("crop=2:2:{x}:{y},scale=1:1"), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"])
        .output()
        .unwrap();
    out.stdout.try_into().unwrap_or_else(|bytes| panic!("{bytes:?} {}", String::from_utf8_lossy(&out.stderr)))
}
