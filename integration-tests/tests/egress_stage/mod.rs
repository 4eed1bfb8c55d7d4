//! A media node with an API key, an offloader that writes egress files, a receiver of webhooks, and what participants send.

#![allow(dead_code, unreachable_pub, reason = "shared by several tests, each of which uses its part")]

pub mod s3;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use integration_tests::{Rtcd, free_port, http_client, program, until};
use jsonwebtoken::{EncodingKey, Header};
use livekit_protocol::TrackSource;
use rtc_client::{OpusTrack, Participant, Vp8Track};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub const KEY: &str = "APIone";
pub const SECRET: &str = "secret-of-the-first-key";
const OFFLOADER_TOKEN: &str = "an integration test's offloader token";

fn token(video: Value, identity: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({ "iss": KEY, "sub": identity, "nbf": now, "exp": now + 600, "video": video });
    jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

/// A webhook as it came.
pub struct Hook {
    pub event: Value,
    pub body: String,
    /// What stood behind `Authorization`. It is checked where webhooks are tested by themselves.
    pub token: String,
}

/// Collects webhooks.
async fn receiver() -> (String, mpsc::UnboundedReceiver<Hook>) {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let (send, events) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let send = send.clone();
            tokio::spawn(async move {
                let mut bytes = Vec::new();
                while stream.read_buf(&mut bytes).await.is_ok_and(|count| count > 0) {
                    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
                    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
                    let header = |wanted: &str| {
                        let headers = head.lines().filter_map(|line| line.split_once(": "));
                        headers.filter(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.to_owned()).next().unwrap()
                    };
                    let length = header("content-length").parse::<usize>().unwrap();
                    if bytes.len() < end + 4 + length {
                        continue;
                    }
                    let body = String::from_utf8(bytes.drain(..end + 4 + length).skip(end + 4).collect()).unwrap();
                    let event = serde_json::from_str(&body).unwrap();
                    let _ = send.send(Hook { event, body, token: header("authorization") });
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
                }
            });
        }
    });
    (url, events)
}

async fn offloader(port: u16, data: &Path, rtcd: &str, more: &[(&str, String)]) -> Child {
    let process = Command::new(program("offloader").unwrap())
        .env("OFFLOADER_LISTEN", format!("127.0.0.1:{port}"))
        .env("OFFLOADER_TOKEN", OFFLOADER_TOKEN)
        .env("OFFLOADER_TAP_SECRET", "an integration test's tap secret, long enough")
        .env("OFFLOADER_DATA", data.join("offloader"))
        .env("OFFLOADER_EGRESS_DIR", data.join("egress"))
        .env("OFFLOADER_RTCD", rtcd)
        .env("OFFLOADER_POLL_MS", "200")
        .envs(more.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let client = http_client().unwrap();
    let health = format!("http://127.0.0.1:{port}/healthz");
    until("the offloader is healthy", async || client.get(&health).send().await.is_ok_and(|answer| answer.status().is_success()))
        .await
        .unwrap();
    process
}

/// All parts, ended when dropped.
pub struct Stage {
    node: Rtcd,
    client: reqwest::Client,
    /// What webhooks were told.
    pub events: mpsc::UnboundedReceiver<Hook>,
    data: TempDir,
    _offloader: Child,
}

impl Stage {
    /// With more settings of the offloader.
    pub async fn open(more: &[(&str, String)]) -> Self {
        let data = tempfile::tempdir().unwrap();
        let (hooks, events) = receiver().await;
        let port = free_port().unwrap();
        let node = Rtcd::start_with(|_| {
            vec![
                ("LIVEKIT_KEYS", format!("{KEY}: {SECRET}")),
                ("RTCD_WEBHOOK_URLS", hooks),
                ("RTCD_WEBHOOK_APIKEY", KEY.to_owned()),
                ("RTCD_OFFLOADER_URL", format!("http://127.0.0.1:{port}")),
                ("RTCD_OFFLOADER_TOKEN", OFFLOADER_TOKEN.to_owned()),
            ]
        })
        .await
        .unwrap();
        let _offloader = offloader(port, data.path(), &node.url, more).await;
        Self { node, client: http_client().unwrap(), events, data, _offloader }
    }

    /// Where LiveKit's clients find the media node.
    pub fn url(&self) -> String {
        self.node.url.replace("http://", "ws://")
    }

    /// Somebody joins a room.
    pub async fn join(&self, room: &str, identity: &str) -> Participant {
        let ticket = token(json!({ "roomJoin": true, "room": room }), identity);
        Participant::join_room(&self.url(), &ticket, "127.0.0.1").await.unwrap().0
    }

    /// The file of that name in the folder for egress.
    pub fn file(&self, name: &str) -> PathBuf {
        self.data.path().join("egress").join(name)
    }

    /// The offloader's own data.
    pub fn offloader_data(&self) -> PathBuf {
        self.data.path().join("offloader")
    }

    /// Status and answer of a call.
    pub async fn ask(&self, method: &str, body: Value) -> (u16, Value) {
        // As LiveKit's server SDKs: what is done in a room is asked with a grant of that room.
        let room = body["room"].as_str().unwrap_or_default();
        let grants = json!({ "roomCreate": true, "roomRecord": true, "roomList": true, "roomAdmin": true, "room": room });
        let request = self.client.post(format!("{}/twirp/livekit.{method}", self.node.url)).bearer_auth(token(grants, ""));
        let answer = request.header("content-type", "application/json").body(body.to_string()).send().await.unwrap();
        (answer.status().as_u16(), serde_json::from_str(&answer.text().await.unwrap()).unwrap())
    }

    /// Starts an egress; answers its id.
    pub async fn start(&self, method: &str, body: Value) -> Value {
        let (status, info) = self.ask(&format!("Egress/{method}"), body).await;
        assert_eq!(status, 200, "{info}");
        assert!(info["egress_id"].as_str().is_some_and(|id| id.starts_with("EG_")), "{info}");
        info["egress_id"].clone()
    }

    /// Waits until an egress has this status.
    pub async fn reaches(&self, egress: &Value, status: &str) -> Value {
        let end = Instant::now() + Duration::from_secs(180);
        loop {
            let (_, list) = self.ask("Egress/ListEgress", json!({ "egressId": egress })).await;
            let info = list["items"][0].clone();
            if info["status"] == status {
                return info;
            }
            assert!(Instant::now() < end && info.get("error").is_none(), "not {status}: {info}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Waits until media is in `count` recordings: it came through the tap, and a segment was closed.
    pub async fn has_media(&self, count: usize) {
        let recordings = self.offloader_data().join("recordings");
        until("media in the recordings", async || with_segments(&recordings) >= count).await.unwrap();
    }

    /// Somebody's tracks by their source, once the room tells of as many as are wanted.
    pub async fn tracks(&self, room: &str, identity: &str, count: usize) -> Vec<Value> {
        let mut tracks = Vec::new();
        until("the tracks", async || {
            let (_, person) = self.ask("RoomService/GetParticipant", json!({ "room": room, "identity": identity })).await;
            tracks = person["tracks"].as_array().cloned().unwrap_or_default();
            tracks.len() == count && tracks.iter().all(|track| track.get("mime_type").is_some())
        })
        .await
        .unwrap();
        tracks
    }
}

/// Sends sound until it is aborted or the connection ends.
pub async fn talk(mut track: OpusTrack) {
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    for number in 0_u32.. {
        pace.tick().await;
        let mut frame = vec![0xf8];
        frame.extend_from_slice(&number.to_be_bytes());
        frame.resize(80, 0x55);
        if track.send(Bytes::from(frame)).await.is_err() {
            return;
        }
    }
}

/// Folders with a segment that was closed.
fn with_segments(recordings: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(recordings) else { return 0 };
    let has_segment = |folder: &Path| {
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
        files
            .filter_map(|file| std::fs::read(file.path()).ok())
            .any(|bytes| String::from_utf8_lossy(&bytes).contains("\"kind\":\"segment\""))
    };
    entries.flatten().filter(|entry| has_segment(&entry.path())).count()
}

/// Somebody who talks and shows a moving picture until the task is aborted.
pub async fn appear(person: &Participant, ssrc: u32) -> [JoinHandle<()>; 2] {
    let sound = tokio::spawn(talk(person.publish_opus("mic", ssrc).await.unwrap()));
    let pictures = tokio::spawn(show(person.publish_vp8("cam", TrackSource::Camera, ssrc + 1).await.unwrap()));
    [sound, pictures]
}

/// Ten pictures a second, one in ten of them a key frame.
async fn show(mut track: Vp8Track) {
    let frames = film();
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    for (number, frame) in (0_u32..).zip(frames.iter().cycle()) {
        pace.tick().await;
        if track.send(frame, number.wrapping_mul(9_000)).await.is_err() {
            return;
        }
    }
}

/// A test pattern in VP8, encoded by the ffmpeg program.
fn film() -> Vec<Vec<u8>> {
    let out = std::process::Command::new("ffmpeg")
        .args(["-v", "error", "-f", "lavfi", "-i", "testsrc2=s=320x180:r=10:d=2", "-pix_fmt", "yuv420p", "-g", "10"])
        .args(["-c:v", "libvpx", "-b:v", "300k", "-deadline", "realtime", "-auto-alt-ref", "0", "-f", "ivf", "-"])
        .output()
        .expect("the ffmpeg program (./x installs it)");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let (mut rest, mut frames) = (&out.stdout[32..], Vec::new());
    while let Some((head, body)) = rest.split_at_checked(12) {
        let (frame, after) = body.split_at(u32::from_le_bytes(head[..4].try_into().unwrap()) as usize);
        frames.push(frame.to_vec());
        rest = after;
    }
    frames
}

/// How light the upper left corner of each picture of a film is.
pub fn corners(file: &Path) -> Vec<u8> {
    let out = std::process::Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(file)
        .args(["-vf", "crop=2:2:0:0,format=gray", "-f", "rawvideo", "-"])
        .output()
        .expect("the ffmpeg program (./x installs it)");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout.chunks(4).map(|corner| corner[0]).collect()
}

/// Codecs and length in seconds of a file, by the ffprobe program.
pub fn probe(file: &Path) -> (Vec<String>, f64) {
    let out = std::process::Command::new("ffprobe")
        .args(["-v", "error", "-show_streams", "-show_format", "-of", "json"])
        .arg(file)
        .output()
        .expect("the ffprobe program (./x installs it)");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let json: Value = serde_json::from_slice(&out.stdout).unwrap();
    let mut codecs: Vec<String> =
        json["streams"].as_array().unwrap().iter().map(|stream| stream["codec_name"].as_str().unwrap().to_owned()).collect();
    codecs.sort();
    (codecs, json["format"]["duration"].as_str().unwrap().parse().unwrap())
}
