//! A site with a certificate of its own authority: believed where the operator says so, and nowhere else.

#![cfg(test)]

use std::path::Path;

use axum::Router;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum_server::tls_rustls::RustlsConfig;
use rtc_client::ClientError;
use rtc_client::mattermost::{Address, Bot, BotDial, Site, SiteError};

/// Who the test's site knows.
const TOKEN: &str = "a token";

async fn upgrade(headers: HeaderMap, upgrade: WebSocketUpgrade) -> Response {
    if headers.get("authorization").is_none_or(|value| value != "Bearer a token") {
        return (StatusCode::UNAUTHORIZED, "who are you?").into_response();
    }
    upgrade.on_upgrade(serve)
}

/// Lets everybody in who says anything.
async fn serve(mut socket: WebSocket) {
    let hello = r#"{"event":"hello","data":{"connection_id":"conn"},"broadcast":{},"seq":0}"#;
    let joined = r#"{"event":"custom_com.mattermost.calls_join","data":{"connID":"conn"},"broadcast":{},"seq":1}"#;
    if socket.send(Message::text(hello)).await.is_err() {
        return;
    }
    while let Some(Ok(message)) = socket.recv().await {
        if message.to_text().is_ok_and(|text| text.contains("calls_join")) {
            let _ = socket.send(Message::text(joined)).await;
        }
    }
}

/// The site's address and its certificate's file.
async fn open(folder: &Path) -> Address {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let ca_file = folder.join("ca.pem");
    std::fs::write(&ca_file, made.cert.pem()).expect("writes");
    let config = RustlsConfig::from_pem(made.cert.pem().into_bytes(), made.signing_key.serialize_pem().into_bytes()).await;
    let filename = get(|| async { axum::Json(serde_json::json!({ "filename": "Call" })) });
    let app = Router::new()
        .route("/api/v4/websocket", get(upgrade))
        .route("/plugins/com.mattermost.calls/bot/calls/{channel}/filename", filename);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    listener.set_nonblocking(true).expect("can be awaited");
    let port = listener.local_addr().expect("an address").port();
    let server = axum_server::from_tcp_rustls(listener, config.expect("a usable certificate")).expect("serves");
    tokio::spawn(server.serve(app.into_make_service()));
    Address { site_url: format!("https://localhost:{port}"), token: TOKEN.to_owned(), ca_file: Some(ca_file) }
}

fn dial(address: Address) -> BotDial {
    BotDial {
        address,
        channel_id: "chan".to_owned(),
        job_id: None,
        resume: None,
        local: "127.0.0.1".to_owned(),
        livekit_url: None,
        pictures: true,
        av1: false,
        dc_signaling: true,
    }
}

#[tokio::test]
async fn requests_and_websocket_believe_the_operators_authority_and_no_stranger() {
    let folder = tempfile::tempdir().expect("a folder");
    let address = open(folder.path()).await;
    assert_eq!(Site::new(&address).expect("a site").filename("chan").await.expect("an answer"), "Call");
    let (bot, _events) = Bot::join(dial(address.clone())).await.expect("joins over wss");
    assert_eq!(bot.ids().original_conn_id, "conn");
    drop(bot);

    let stranger = Address { ca_file: None, ..address.clone() };
    let refused = Site::new(&stranger).expect("a site").filename("chan").await.expect_err("a stranger");
    assert!(matches!(refused, SiteError::Unreachable(_)), "{refused:?}");
    let refused = Bot::join(dial(stranger)).await.err().expect("a stranger");
    assert!(matches!(&refused, ClientError::Site(SiteError::Unreachable(why)) if why.contains("certificate")), "{refused:?}");
    assert!(!refused.to_string().contains(TOKEN));

    let nobody = Address { token: "another".to_owned(), ..address };
    let refused = Bot::join(dial(nobody)).await.err().expect("not known");
    assert!(matches!(&refused, ClientError::Site(SiteError::Refused { status: 401, message }) if message == "who are you?"), "{refused:?}");
}
