//! What recording a call costs, beside what calls-recorder does: a browser on a virtual screen, filmed by ffmpeg.
//!
//! One call with three talkers, first without, then with a moving shared screen; the same seconds of it for both. CPU seconds of
//! everything that takes part, from the start of its processes to the finished file: the offloader with its workers (capture, rendering,
//! publication) here; Xvfb, PulseAudio, Chromium and ffmpeg there, as calls-recorder has them, but for the page, which draws less than
//! the real one and so favours the browser. What the browser takes while it films, without starting and ending, is told too.
//!
//! `./x bench-recording [SECONDS] [voices|screen]`; the browser's part needs Xvfb, PulseAudio (`apt-get install xvfb pulseaudio`), Chromium and ffmpeg.

#![allow(
    missing_docs,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "a measurement"
)]

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/mattermost/people.rs"]
mod people;
#[path = "../tests/mattermost/stage.rs"]
mod stage;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use axum::routing::get;
use fake_mattermost::Wants;
use people::{Screen, Talker};
use stage::{Stage, eventually};

const HERE: &str = env!("CARGO_MANIFEST_DIR");
const SIZE: &str = "1280x720";

fn main() {
    let seconds: u64 = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(40);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(measure(seconds));
}

async fn measure(seconds: u64) {
    let stage = Stage::open().await;
    let channel = stage.fake.channel("Town Square");
    let mut talkers = Vec::new();
    for (n, name) in ["ada-lovelace", "grace-hopper", "alan-turing"].iter().enumerate() {
        talkers.push(Talker::join(&stage.fake, &channel, name, n as u32).await);
    }
    let page = serve_page().await;
    let only = std::env::args().find(|word| ["voices", "screen"].contains(&word.as_str()));
    for shares in [false, true] {
        if only.as_ref().is_some_and(|only| (only == "screen") != shares) {
            continue;
        }
        let screen = if shares { Some(Screen::share_moving(&mut talkers[0]).await) } else { None };
        let ours = ours(&stage, &channel, &mut talkers, seconds).await;
        let (theirs, filming) = theirs(&stage, &channel, &mut talkers, seconds, &page).await;
        let what = if shares { "three talkers and a shared screen" } else { "three talkers" };
        println!(
            "{what}, {seconds} s: ours {:.2} CPU-s ({:.3} of a core, {:.0} at a time on one); browser {:.2} CPU-s ({:.3} of a core, {:.1}), \
             {filming:.2} of them while it films: {:.1} times",
            ours,
            ours / seconds as f64,
            seconds as f64 / ours,
            theirs,
            theirs / seconds as f64,
            seconds as f64 / theirs,
            theirs / ours
        );
        if let Some(screen) = screen {
            screen.stop(&talkers[0]).await;
        }
    }
    // The programs end with it; what their people still have to say does not matter.
    drop(stage);
    std::process::exit(0);
}

/// They speak for so long.
async fn speak(talkers: &mut [Talker], seconds: u64) {
    let (tracks, _) = common::meeting();
    let speaking = talkers.iter_mut().zip(&tracks).map(|(talker, (_, samples))| {
        let enough: Vec<f32> = samples.iter().copied().cycle().take(seconds as usize * 16_000).collect();
        async move { talker.say(&enough).await }
    });
    futures_util::future::join_all(speaking).await;
}

async fn ours(stage: &Stage, channel: &str, talkers: &mut [Talker], seconds: u64) -> f64 {
    let before = stage.cpu();
    let posts = stage.fake.posts().len();
    let asked = stage.record(channel, Wants::default()).await;
    eventually("it has started", async || stage.fake.job(&asked.recording.id).is_some_and(|job| job.start_at > 0)).await;
    speak(talkers, seconds).await;
    stage.fake.stop_recording(channel);
    eventually("the post", async || stage.fake.posts().len() > posts).await;
    stage.idle().await;
    stage.cpu() - before
}

async fn theirs(stage: &Stage, channel: &str, talkers: &mut [Talker], seconds: u64, page: &str) -> (f64, f64) {
    let dir = tempfile::tempdir().unwrap();
    let asked = stage.ask(channel, Wants::default());
    let quiet = |command: &mut Command| command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let Ok(screen) = quiet(Command::new("Xvfb").args([":45", "-screen", "0", &format!("{SIZE}x24"), "-dpi", "96"])) else {
        println!("Xvfb is not installed: nothing to compare with");
        return (f64::NAN, f64::NAN);
    };
    let socket = dir.path().join("sound.socket");
    let server = format!("unix:{}", socket.display());
    let Ok(sound) = quiet(
        Command::new("pulseaudio")
            .env("XDG_RUNTIME_DIR", dir.path())
            .env("HOME", dir.path())
            .args(["-n", "--daemonize=no", "--exit-idle-time=-1", "--disable-shm=no", "--use-pid-file=no"])
            .args(["-L", &format!("module-native-protocol-unix auth-anonymous=1 socket={}", socket.display())])
            .args(["-L", "module-null-sink sink_name=grab"]),
    ) else {
        println!("PulseAudio is not installed: nothing to compare with");
        end(screen);
        return (f64::NAN, f64::NAN);
    };
    tokio::time::sleep(Duration::from_secs(1)).await;
    let url = format!("{page}?site={}&channel={channel}&job={}&token={}", stage.fake.url, asked.recording.id, asked.recording.auth_token);
    let browser = quiet(
        Command::new("chromium")
            .env("DISPLAY", ":45")
            .env("PULSE_SERVER", &server)
            .env("HOME", dir.path())
            .args(["--no-sandbox", "--kiosk", "--incognito", "--disable-gpu", "--no-first-run", "--window-position=0,0"])
            .args(["--autoplay-policy=no-user-gesture-required", "--use-fake-ui-for-media-stream", "--window-size=1280,720"])
            .args(["--allow-loopback-in-peer-connection", "--disable-features=WebRtcHideLocalIpsWithMdns"])
            .arg(format!("--user-data-dir={}", dir.path().display()))
            .arg(url),
    )
    .expect("chromium");
    eventually("the browser is in the call", async || stage.fake.sessions(channel).len() > talkers.len()).await;
    let film = dir.path().join("film.mp4");
    let mut camera = quiet(
        Command::new("ffmpeg")
            .env("PULSE_SERVER", &server)
            .args(["-v", "error", "-f", "pulse", "-i", "grab.monitor"])
            .args(["-f", "x11grab", "-draw_mouse", "0", "-s", SIZE, "-r", "20", "-i", ":45"])
            .args(["-c:v", "libx264", "-preset", "veryfast", "-b:v", "1500k", "-pix_fmt", "yuv420p", "-c:a", "aac", "-b:a", "64k"])
            .args(["-movflags", "+faststart"])
            .arg(&film),
    )
    .expect("ffmpeg");
    let all = [screen.id(), sound.id(), browser.id(), camera.id()];
    let spent = || all.iter().map(|pid| tree_cpu(*pid)).sum::<f64>();
    let before = spent();
    speak(talkers, seconds).await;
    let filming = spent() - before;
    let pid = rustix::process::Pid::from_raw(camera.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    // Ended, not yet waited for: what it took is still told.
    eventually("the film is finished", async || stage::stat(camera.id()).is_some_and(|camera| camera.ended)).await;
    let whole = spent();
    let _ = camera.wait();
    keep(&film, seconds);
    stage.fake.stop_recording(channel);
    for child in [browser, screen, sound] {
        end(child);
    }
    eventually("the browser is out of the call", async || stage.fake.sessions(channel).len() == talkers.len()).await;
    (whole, filming)
}

/// What was filmed must hold the call's sound, or it is no recording.
fn keep(film: &Path, seconds: u64) {
    let said = Command::new("ffmpeg").arg("-i").arg(film).args(["-af", "volumedetect", "-f", "null", "-"]).output().expect("ffmpeg");
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    let told = |key: &str| said.lines().find_map(|line| line.split_once(key).map(|(_, rest)| rest.trim().to_owned())).unwrap_or_default();
    println!("the browser's film of {seconds} s: {}, loudest {}", told("Duration:"), told("max_volume:"));
    if let Some(folder) = std::env::var_os("KEEP_PICTURES") {
        let _ = std::fs::copy(film, Path::new(&folder).join("browser.mp4"));
    }
}

fn end(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// CPU seconds of a process and everything below it.
fn tree_cpu(root: u32) -> f64 {
    let processes: Vec<u32> =
        std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    let stats: Vec<(u32, u32, f64)> =
        processes.into_iter().filter_map(|pid| stage::stat(pid).map(|stat| (pid, stat.parent, stat.cpu_s))).collect();
    let mut tree = vec![root];
    let mut n = 0;
    while n < tree.len() {
        let above = tree[n];
        tree.extend(stats.iter().filter(|(_, parent, _)| *parent == above).map(|(pid, _, _)| *pid));
        n += 1;
    }
    stats.iter().filter(|(pid, _, _)| tree.contains(pid)).map(|(_, _, cpu)| cpu).sum()
}

/// The page and what it loads.
async fn serve_page() -> String {
    let read = |path: String| std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let browser = format!("{HERE}/../../integration-tests/browser");
    let html = read(format!("{HERE}/benches/recording_page.html"));
    let calls = read(format!("{browser}/lib/calls_page.js"));
    let msgpack = read(format!("{browser}/node_modules/@msgpack/msgpack/dist.umd/msgpack.min.js"));
    let file = |kind: &'static str, text: String| get(move || async move { ([(axum::http::header::CONTENT_TYPE, kind)], text) });
    let routes = axum::Router::new()
        .route("/", file("text/html", html))
        .route("/calls_page.js", file("text/javascript", calls))
        .route("/msgpack.js", file("text/javascript", msgpack));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    url
}
