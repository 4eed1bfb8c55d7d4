//! `/ws`: the connection between Mattermost's plugin and the real program.

#![cfg(test)]

mod common;

use std::time::Duration;

use common::mattermost::{ADMIN, KEY, Plugin, Site, basic, join, pair, text};
use common::soon;
use futures_util::{SinkExt as _, StreamExt as _};
use rmpv::Value;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// The value of a line of `/metrics` with these beginnings and labels; `None`: there is none.
async fn metric(site: &Site, name: &str, labels: &[&str]) -> Option<f64> {
    let page = site.ask("GET", "/metrics", &[], "").await.body;
    let line = page.lines().find(|line| line.starts_with(&format!("{name}{{")) && labels.iter().all(|label| line.contains(label)))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

async fn until(site: &Site, name: &str, labels: &[&str], expected: Option<f64>) {
    soon(&format!("{name} {labels:?} is {expected:?}"), async {
        while metric(site, name, labels).await != expected {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
}

/// Row 11: who may connect; 401 where the original says 200 and nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_registered_client_gets_a_connection() {
    let site = Site::open().await;
    site.register("a").await;
    let at = site.program.http();
    let of_a = basic("a", KEY);
    let refused = async |headers: &[(&'static str, &str)]| Plugin::dial(at, headers).await.err();
    assert_eq!(refused(&[]).await, Some(401));
    assert_eq!(refused(&[("authorization", &basic("a", "wrong"))]).await, Some(401));
    assert_eq!(refused(&[("authorization", "Bearer nope")]).await, Some(401));
    assert_eq!(refused(&[("authorization", &of_a), ("origin", "http://evil.example")]).await, Some(403));
    assert_eq!(site.ask("GET", "/ws", &[("Authorization", &of_a)], "").await.status, 400, "no upgrade");
    assert_eq!(site.ask("GET", "/ws", &[], "").await.status, 401);
    // Failed attempts are no connections: the original counts itself below zero.
    assert_eq!(metric(&site, "rtcd_ws_connections_total", &[]).await, None);

    let login = site.ask("POST", "/login", &[], &format!(r#"{{"clientID":"a","authKey":"{KEY}"}}"#)).await.json();
    let bearer = format!("Bearer {}", login["bearerToken"].as_str().expect("a token"));
    let mut names = Vec::new();
    let mut open = Vec::new();
    let own = format!("http://{at}");
    for headers in [
        vec![("authorization", &*of_a)],
        vec![("authorization", &*bearer)],
        vec![("authorization", &*of_a), ("origin", &*own)],
        vec![("authorization", &*basic("whoever", ADMIN))],
    ] {
        let (mut plugin, status) = Plugin::dial(at, &headers).await.expect("a connection");
        assert_eq!(status, 101);
        let (kind, hello) = plugin.next().await.expect("a hello");
        let (client, name) = (text(&hello, "clientID").to_owned(), text(&hello, "connID").to_owned());
        assert_eq!((kind.as_str(), name.len()), ("hello", 26), "{hello}");
        assert_eq!(client, if headers[0].1.starts_with("Basic d2hv") { "" } else { "a" });
        assert!(!names.contains(&name), "each has its own name");
        names.push(name);
        open.push(plugin);
    }
    assert_eq!(metric(&site, "rtcd_ws_connections_total", &["clientID=\"a\""]).await, Some(3.0));
    drop(open);
    until(&site, "rtcd_ws_connections_total", &["clientID=\"a\""], None).await;
}

/// Rows 11, 12 and 41: what is not understood costs nothing but itself, what is too large costs the connection; both are counted right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_cannot_be_understood_leave_the_connection_and_too_large_ones_do_not() {
    let site = Site::open().await;
    site.register("a").await;
    let mut plugin = site.connect("a").await;
    plugin.socket.send(Message::Text("a text".into())).await.expect("goes on");
    for frame in [&b""[..], b"\xc1", b"\xa5leave", b"\xa5leave\xc0", b"\xa4join\x80", b"\xa3vad\x80", b"\xa3foo\x01", b"\x01\x02"] {
        plugin.send_bytes(frame.to_vec()).await;
    }
    // As large as may be: a message nobody knows, of 1 MiB in all.
    let mut large = b"\xa3foo\xc6".to_vec();
    large.extend(((1_u32 << 20) - 9).to_be_bytes());
    large.resize(1 << 20, b'x');
    plugin.send_bytes(large).await;
    plugin.send("leave", Value::Map(vec![pair("sessionID", "nobody's")])).await;
    until(&site, "rtcd_ws_messages_total", &["clientID=\"a\"", "type=\"leave\"", "direction=\"in\""], Some(1.0)).await;
    plugin.send("reconnect", Value::Map(vec![pair("sessionID", "nobody's")])).await;
    plugin.send_rtc("nobody's", 4, b"").await;
    for kind in ["type=\"reconnect\"", "type=\"rtc\""] {
        until(&site, "rtcd_ws_messages_total", &["clientID=\"a\"", kind, "direction=\"in\""], Some(1.0)).await;
    }

    let mut other = site.connect("a").await;
    other.send_bytes(vec![0xa0; (1 << 20) + 1]).await;
    let end = soon("a close", async {
        loop {
            match other.socket.next().await {
                Some(Ok(Message::Close(frame))) => return frame.map(|frame| frame.code),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    });
    assert_eq!(end.await, Some(CloseCode::Size));
    // The first one is still there.
    plugin.send("leave", Value::Map(vec![pair("sessionID", "nobody's")])).await;
    until(&site, "rtcd_ws_messages_total", &["clientID=\"a\"", "type=\"leave\"", "direction=\"in\""], Some(2.0)).await;
}

/// Row 15: the admin has no calls of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_cannot_join() {
    let site = Site::open().await;
    site.register("a").await;
    let (mut admin, _) = Plugin::dial(site.program.http(), &[("authorization", &basic("x", ADMIN))]).await.expect("a connection");
    admin.next().await.expect("a hello");
    admin.send("join", join("call", "user", "session")).await;
    admin.send("leave", Value::Map(vec![pair("sessionID", "session")])).await;
    until(&site, "rtcd_ws_messages_total", &["clientID=\"\"", "type=\"leave\""], Some(1.0)).await;
    assert_eq!(metric(&site, "rtcd_ws_messages_total", &["type=\"join\""]).await, None);
    let answer = site.ask("GET", "/calls/call/sessions", &[("Authorization", &basic("a", KEY))], "").await;
    assert_eq!(answer.status, 404);
}

/// Row 11: pings come by themselves, and a connection whose pongs stay away ends; another one of the same client stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_without_pongs_ends() {
    let site = Site::open().await;
    site.register("a").await;
    let mut awake = site.connect("a").await;
    // Reads nothing from now on, so answers no ping either; that it goes on sending does not help it.
    let mut asleep = site.connect("a").await;
    assert_eq!(metric(&site, "rtcd_ws_connections_total", &["clientID=\"a\""]).await, Some(2.0));
    let sending = tokio::spawn(async move {
        // Fails when the connection is gone.
        while asleep.socket.send(Message::Binary(b"\xa3foo\xc0".to_vec().into())).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
    let pinged = tokio::spawn(async move {
        // Reading answers them.
        while let Some(Ok(message)) = awake.socket.next().await {
            if let Message::Ping(payload) = message {
                assert!(payload.is_empty());
                return Some(awake);
            }
        }
        None
    });
    let mut awake = soon("a ping", pinged).await.expect("no panic").expect("the connection goes on");
    let reading = async { while let Some(Ok(_)) = awake.socket.next().await {} };
    tokio::select! {
        () = reading => panic!("the one that answers ends first"),
        () = until(&site, "rtcd_ws_connections_total", &["clientID=\"a\""], Some(1.0)) => {}
    }
    soon("the end for the other one", sending).await.expect("no panic");
}
