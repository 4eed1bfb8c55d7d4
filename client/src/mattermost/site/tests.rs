//! Against a small server that keeps what it was asked.

use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::*;

/// What was asked: method, path, authorization and body.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    line: String,
    authorization: String,
    length: String,
    body: Vec<u8>,
}

#[derive(Clone, Default)]
struct Plugin {
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Plugin {
    /// Its site's address.
    async fn open(&self) -> Address {
        let app = axum::Router::new().fallback(answer).with_state(self.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let at = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, app).await });
        Address { site_url: format!("http://{at}/chat/"), token: "secret".to_owned(), ca_file: None }
    }

    fn last(&self) -> Asked {
        self.asked.lock().expect("kept").last().cloned().expect("something was asked")
    }
}

async fn answer(State(plugin): State<Plugin>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let path = uri.path().strip_prefix("/chat/plugins/com.mattermost.calls/bot").unwrap_or("elsewhere").to_owned();
    let line = format!("{method} {path}");
    let asked = Asked { line: line.clone(), authorization: header(AUTHORIZATION), length: header(CONTENT_LENGTH), body: body.to_vec() };
    plugin.asked.lock().expect("kept").push(asked);
    let error = |status: StatusCode, message: &str| {
        (status, axum::Json(json!({ "message": message, "detailed_error": "", "status_code": status.as_u16() }))).into_response()
    };
    match line.as_str() {
        "GET /calls/chan/filename" => axum::Json(json!({ "filename": "Call_Town_Square_2026" })).into_response(),
        "GET /calls/chan/sessions/sess/profile" => {
            axum::Json(json!({ "id": "u", "username": "ann", "first_name": "Ann", "last_name": "", "extra": 1 })).into_response()
        }
        "GET /calls/chan/sessions/gone/profile" => error(StatusCode::NOT_FOUND, "not found"),
        "GET /channels/chan" => axum::Json(json!({ "id": "chan", "display_name": "Town Square", "type": "O" })).into_response(),
        "GET /users/u/image" => vec![137, 80].into_response(),
        "POST /calls/chan/jobs/late/status" => error(StatusCode::BAD_REQUEST, "job has ended"),
        "POST /calls/chan/jobs/job/status" | "POST /calls/chan/recordings" | "POST /calls/chan/transcriptions" => {
            StatusCode::OK.into_response()
        }
        "POST /uploads" => axum::Json(json!({ "id": "up", "file_offset": 0, "file_size": 10 })).into_response(),
        "GET /uploads/up" => axum::Json(json!({ "id": "up", "file_offset": 4, "file_size": 10 })).into_response(),
        "POST /uploads/up" if body.len() == 4 => StatusCode::NO_CONTENT.into_response(),
        "POST /uploads/up" => axum::Json(json!({ "id": "file" })).into_response(),
        "GET /calls/huge/filename" => vec![b' '; ANSWER_MAX + 1].into_response(),
        "GET /calls/proxy/filename" => (StatusCode::BAD_GATEWAY, "<html>no</html>").into_response(),
        "GET /calls/moved/filename" => (StatusCode::FOUND, [("location", "http://127.0.0.1:9/")]).into_response(),
        "GET /calls/odd/filename" => "not json".into_response(),
        _ => error(StatusCode::FORBIDDEN, "no such route"),
    }
}

#[tokio::test]
async fn names_and_portraits() {
    let plugin = Plugin::default();
    let site = Site::new(&plugin.open().await).expect("a site");
    assert_eq!(site.filename("chan").await.expect("a name"), "Call_Town_Square_2026");
    assert_eq!(plugin.last().authorization, "Bearer secret");
    let profile = site.profile("chan", "sess").await.expect("a profile");
    assert_eq!((profile.user_id.as_str(), profile.display_name()), ("u", "Ann"));
    let gone = site.profile("chan", "gone").await.expect_err("gone");
    assert!(matches!(&gone, SiteError::Refused { status: 404, message } if message == "not found"), "{gone}");
    assert!(!gone.is_ambiguous());
    assert_eq!(site.channel("chan").await.expect("a channel").display_name, "Town Square");
    assert_eq!(site.image("u").await.expect("a portrait")[..], [137, 80]);
}

#[tokio::test]
async fn a_jobs_state_has_its_reason_under_the_plugins_own_key() {
    let plugin = Plugin::default();
    let site = Site::new(&plugin.open().await).expect("a site");
    site.status("chan", "job", JobType::Recording, &JobStatus::Started).await.expect("taken");
    let body = |asked: Asked| serde_json::from_slice::<Value>(&asked.body).expect("JSON");
    assert_eq!(body(plugin.last()), json!({ "JobType": "recording", "Status": "started" }));
    site.status("chan", "job", JobType::Transcribing, &JobStatus::Failed("no model".to_owned())).await.expect("taken");
    let failed = json!({ "JobType": "transcribing", "Status": "failed", "omitempty": "no model", "error": "no model" });
    let told = body(plugin.last());
    assert_eq!((&told["JobType"], &told["Status"], &told["omitempty"]), (&failed["JobType"], &failed["Status"], &failed["omitempty"]));
    let late = site.status("chan", "late", JobType::Recording, &JobStatus::Started).await.expect_err("over");
    assert_eq!((late.status(), late.to_string().contains("job has ended")), (Some(400), true));
}

#[tokio::test]
async fn a_file_goes_in_parts_with_their_lengths() {
    let plugin = Plugin::default();
    let site = Site::new(&plugin.open().await).expect("a site");
    let upload = site.create_upload("chan", "a.mp4", 10).await.expect("announced");
    assert_eq!((upload.id.as_str(), upload.file_size), ("up", 10));
    let body: Value = serde_json::from_slice(&plugin.last().body).expect("JSON");
    assert_eq!(body, json!({ "channel_id": "chan", "filename": "a.mp4", "file_size": 10 }));
    let parts = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"01")), Ok(Bytes::from_static(b"23"))]);
    assert_eq!(site.send("up", reqwest::Body::wrap_stream(parts), 4).await.expect("taken"), Sent::Incomplete);
    let asked = plugin.last();
    assert_eq!((asked.body.as_slice(), asked.length.as_str()), (&b"0123"[..], "4"));
    assert_eq!(site.upload("up").await.expect("known").file_offset, 4);
    assert_eq!(site.send("up", &b"456789"[..], 6).await.expect("taken"), Sent::Complete("file".to_owned()));
}

#[tokio::test]
async fn what_was_made_is_published_in_the_plugins_words() {
    let plugin = Plugin::default();
    let site = Site::new(&plugin.open().await).expect("a site");
    site.publish_recording("chan", "job", "post", &["f".to_owned()]).await.expect("taken");
    let body = |asked: Asked| serde_json::from_slice::<Value>(&asked.body).expect("JSON");
    assert_eq!(body(plugin.last()), json!({ "JobID": "job", "PostID": "post", "FileIDs": ["f"] }));
    let file_ids = vec!["vtt".to_owned(), "txt".to_owned()];
    let words = Transcription { title: "t".to_owned(), language: "en".to_owned(), file_ids };
    site.publish_transcriptions("chan", "job", "post", &[words]).await.expect("taken");
    let words = json!([{ "Title": "t", "Language": "en", "FileIDs": ["vtt", "txt"] }]);
    assert_eq!(body(plugin.last()), json!({ "JobID": "job", "PostID": "post", "Transcriptions": words }));
}

#[tokio::test]
async fn what_is_no_answer_of_the_plugin_is_an_error_of_its_kind() {
    let plugin = Plugin::default();
    let address = plugin.open().await;
    let site = Site::new(&address).expect("a site");
    let of = |channel: &'static str| {
        let site = site.clone();
        async move { site.filename(channel).await.expect_err("no name") }
    };
    assert!(matches!(of("huge").await, SiteError::Malformed(text) if text.contains("more than")));
    assert!(matches!(of("odd").await, SiteError::Malformed(_)));
    let proxy = of("proxy").await;
    assert!(matches!(&proxy, SiteError::Refused { status: 502, message } if message == "<html>no</html>") && proxy.is_ambiguous());
    assert!(matches!(of("moved").await, SiteError::Refused { status: 302, .. }), "the token follows to nobody");
    assert_eq!(of("any other").await.status(), Some(403));
    // A port that nobody listens on.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let at = listener.local_addr().expect("an address");
    drop(listener);
    let away = Site::new(&Address { site_url: format!("http://{at}"), ..address }).expect("a site");
    let error = away.filename("chan").await.expect_err("nobody");
    assert!(matches!(error, SiteError::Unreachable(_)) && !error.is_ambiguous(), "{error}");
    assert!(!error.to_string().contains("secret"));
}
