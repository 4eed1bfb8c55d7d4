//! LiveKit's egress with all its parts: a media node, an offloader, its worker, participants of a stack that is not ours.

#![cfg(test)]

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use integration_tests::{Rtcd, free_port, http_client, program, until};
use jsonwebtoken::{EncodingKey, Header};
use rtc_client::{OpusTrack, Participant};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

const KEY: &str = "APIone";
const SECRET: &str = "secret-of-the-first-key";
const OFFLOADER_TOKEN: &str = "an integration test's offloader token";

fn token(video: Value, identity: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({ "iss": KEY, "sub": identity, "nbf": now, "exp": now + 600, "video": video });
    jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

/// Collects webhooks. Their signatures are checked where they are tested by themselves.
async fn receiver() -> (String, mpsc::UnboundedReceiver<Value>) {
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
                    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
                    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse::<usize>().unwrap();
                    if bytes.len() < end + 4 + length {
                        continue;
                    }
                    let body: Vec<u8> = bytes.drain(..end + 4 + length).skip(end + 4).collect();
                    let _ = send.send(serde_json::from_slice(&body).unwrap());
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
                }
            });
        }
    });
    (url, events)
}

async fn offloader(port: u16, data: &Path, rtcd: &str) -> Child {
    let process = Command::new(program("offloader").unwrap())
        .env("OFFLOADER_LISTEN", format!("127.0.0.1:{port}"))
        .env("OFFLOADER_TOKEN", OFFLOADER_TOKEN)
        .env("OFFLOADER_TAP_SECRET", "an integration test's tap secret, long enough")
        .env("OFFLOADER_DATA", data.join("offloader"))
        .env("OFFLOADER_EGRESS_DIR", data.join("egress"))
        .env("OFFLOADER_RTCD", rtcd)
        .env("OFFLOADER_POLL_MS", "200")
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

struct Api<'a> {
    node: &'a Rtcd,
    client: reqwest::Client,
}

impl Api<'_> {
    /// Status and answer of a call.
    async fn ask(&self, method: &str, body: Value) -> (u16, Value) {
        let grants = json!({ "roomRecord": true, "roomList": true });
        let request = self.client.post(format!("{}/twirp/livekit.{method}", self.node.url)).bearer_auth(token(grants, ""));
        let answer = request.header("content-type", "application/json").body(body.to_string()).send().await.unwrap();
        (answer.status().as_u16(), serde_json::from_str(&answer.text().await.unwrap()).unwrap())
    }

    /// Waits until an egress has this status.
    async fn reaches(&self, egress: &Value, status: &str) -> Value {
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
}

async fn talk(mut track: OpusTrack) {
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

/// A segment that was closed in the folder of a recording: media came through the tap.
fn has_segment(recordings: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(recordings) else { return false };
    entries.flatten().any(|entry| {
        let files = std::fs::read_dir(entry.path()).into_iter().flatten().flatten();
        files
            .filter_map(|file| std::fs::read(file.path()).ok())
            .any(|bytes| String::from_utf8_lossy(&bytes).contains("\"kind\":\"segment\""))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_is_recorded_to_a_file_and_webhooks_tell_of_it() {
    let data = tempfile::tempdir().unwrap();
    let (hooks, mut events) = receiver().await;
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
    let _offloader = offloader(port, data.path(), &node.url).await;
    let api = Api { node: &node, client: http_client().unwrap() };
    let ticket = token(json!({ "roomJoin": true, "room": "the daily" }), "ann");
    let (ann, _events) = Participant::join_room(&node.url.replace("http://", "ws://"), &ticket, "127.0.0.1").await.unwrap();
    let talking = tokio::spawn(talk(ann.publish_opus("mic", 77).await.unwrap()));

    let outside = json!({ "roomName": "the daily", "fileOutputs": [{ "filepath": "../out.mp4" }] });
    let (status, refused) = api.ask("Egress/StartRoomCompositeEgress", outside).await;
    assert_eq!((status, refused["code"].as_str()), (412, Some("failed_precondition")), "{refused}");

    let wanted = json!({ "roomName": "the daily", "fileOutputs": [{ "filepath": "days/{room_name}" }], "preset": "H264_720P_30" });
    let (status, info) = api.ask("Egress/StartRoomCompositeEgress", wanted).await;
    assert_eq!((status, &info["room_name"]), (200, &json!("the daily")), "{info}");
    let egress = &info["egress_id"];
    assert!(egress.as_str().is_some_and(|id| id.starts_with("EG_")));
    api.reaches(egress, "EGRESS_ACTIVE").await;
    let (_, rooms) = api.ask("RoomService/ListRooms", json!({})).await;
    assert_eq!(rooms["rooms"][0]["active_recording"], true);
    let recordings = data.path().join("offloader/recordings");
    until("media in the recording", async || has_segment(&recordings)).await.unwrap();

    let (status, stopping) = api.ask("Egress/StopEgress", json!({ "egressId": egress })).await;
    assert_eq!(status, 200, "{stopping}");
    let complete = api.reaches(egress, "EGRESS_COMPLETE").await;
    let file = data.path().join("egress/days/the daily.mp4");
    let bytes = std::fs::read(&file).unwrap();
    let result = &complete["file_results"][0];
    assert_eq!((&result["location"], &result["size"]), (&json!(file), &json!(bytes.len().to_string())));
    assert!(result["duration"].as_str().unwrap().parse::<u64>().unwrap() > 1_000_000_000, "{result}");
    for part in [&b"ftyp"[..], b"avc1", b"mp4a", b"moov"] {
        assert!(bytes.windows(part.len()).any(|window| window == part), "an MP4 with pictures and sound");
    }

    let (status, again) = api.ask("Egress/StopEgress", json!({ "egressId": egress })).await;
    assert_eq!((status, again["code"].as_str()), (412, Some("failed_precondition")));
    let (_, none) = api.ask("Egress/StopEgress", json!({ "egressId": "EG_none" })).await;
    assert_eq!(none["code"], "not_found");
    let (_, active) = api.ask("Egress/ListEgress", json!({ "active": true })).await;
    assert!(active.get("items").is_none(), "{active}");
    until("nobody is vouched for any more", async || {
        let (_, rooms) = api.ask("RoomService/ListRooms", json!({})).await;
        rooms["rooms"][0].get("active_recording").is_none()
    })
    .await
    .unwrap();

    let mut told: Vec<(String, String)> = Vec::new();
    while told.last().is_none_or(|(name, _)| name != "egress_ended") {
        let event = tokio::time::timeout(Duration::from_secs(60), events.recv()).await.expect("in time").expect("an event");
        let Some(info) = event.get("egressInfo") else { continue };
        assert_eq!(&info["egressId"], egress);
        let status = info["status"].as_str().unwrap_or("EGRESS_STARTING");
        told.push((event["event"].as_str().unwrap().to_owned(), status.to_owned()));
        if status == "EGRESS_COMPLETE" {
            assert_eq!(info["fileResults"][0]["location"], json!(file));
        }
    }
    assert_eq!(told.first().unwrap().0, "egress_started");
    assert_eq!(told.last().unwrap(), &("egress_ended".to_owned(), "EGRESS_COMPLETE".to_owned()));
    assert!(told[1..told.len() - 1].iter().all(|(name, _)| name == "egress_updated"), "{told:?}");
    talking.abort();
    ann.leave().await.unwrap();
}
