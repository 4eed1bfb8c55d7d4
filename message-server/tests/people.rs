//! Signing in, the first administrator, guests, and what bad requests get.

#![cfg(test)]

mod common;

use std::time::Duration;

use common::{PASSWORD, Person, Server, until};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{Message, client::IntoClientRequest as _},
};

/// An open page's event socket, after its hello.
async fn page(server: &Server, person: &Person) -> WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>> {
    let mut request = format!("ws://{}/api/v1/events", server.address).into_client_request().unwrap();
    request.headers_mut().insert("origin", server.origin().parse().unwrap());
    request.headers_mut().insert("cookie", person.cookie.parse().unwrap());
    let mut socket = tokio_tungstenite::connect_async(request).await.unwrap().0;
    let hello = tokio::time::timeout(Duration::from_secs(60), socket.next()).await.unwrap().unwrap().unwrap();
    assert!(hello.to_text().unwrap().contains(r#""hello""#), "{hello}");
    socket
}

#[tokio::test]
async fn the_first_link_makes_one_administrator_and_no_second() {
    let server = Server::start().await;
    let file = server.data.path().join("first-login.txt");
    assert!(std::fs::read_to_string(&file).unwrap().contains(&server.token_of_first_link()));
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    // A bad name does not use the link up.
    let mut stranger = server.stranger();
    let bad = json!({ "token": server.token_of_first_link(), "username": "x", "display_name": "X", "password": PASSWORD });
    assert_eq!(stranger.post("/session/setup", bad).await.status, 400);
    let mut admin = server.admin().await;
    assert!(!file.exists());
    let session = admin.get("/session").await.body;
    assert!(session["user"]["roles"].as_array().unwrap().contains(&json!("admin")), "{session}");
    let again = json!({ "token": server.token_of_first_link(), "username": "eve", "display_name": "Eve", "password": PASSWORD });
    assert_eq!(stranger.post("/session/setup", again).await.status, 401);
}

#[tokio::test]
async fn the_cookie_is_closed_to_scripts_and_sign_out_ends_the_session() {
    let server = Server::start().await;
    let mut admin = server.admin().await;
    let answer = server.stranger().post("/session", json!({ "username": "ADMIN ", "password": PASSWORD })).await;
    let cookie = answer.headers["set-cookie"].to_str().unwrap().to_owned();
    for attribute in ["HttpOnly", "Secure", "SameSite=Lax", "Path=/"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    let mut copy = admin.clone();
    assert_eq!(admin.call("DELETE", "/session", None).await.status, 204);
    assert_eq!(copy.get("/session").await.status, 401, "the server has to forget it, not only the browser");
}

#[tokio::test]
async fn guessing_a_password_is_stopped_and_the_error_says_how_long() {
    let server = Server::start().await;
    server.admin().await;
    let mut eve = server.stranger();
    let mut last = 0;
    for n in 0..10 {
        let answer = eve.post("/session", json!({ "username": "admin", "password": format!("wrong password {n}") })).await;
        last = answer.status;
        if last == 429 {
            assert!(answer.headers.contains_key("retry-after"));
            break;
        }
        assert_eq!(last, 401);
    }
    assert_eq!(last, 429);
    // The right one does not get through either, and an unknown account looks the same.
    assert_eq!(eve.post("/session", json!({ "username": "admin", "password": PASSWORD })).await.status, 429);
    assert_eq!(eve.post("/session", json!({ "username": "unknown", "password": PASSWORD })).await.status, 401);
}

#[tokio::test]
async fn changed_rights_work_at_once_and_the_last_administrator_stays() {
    let server = Server::start().await;
    let mut admin = server.admin().await;
    let mut user = server.person(&mut admin, "bob", &["user"]).await;
    assert_eq!(user.get("/ops/captions").await.status, 403);
    let path = format!("/users/{}", user.id);
    assert_eq!(admin.call("PATCH", &path, Some(json!({ "roles": ["ops"] }))).await.status, 200);
    assert_eq!(user.get("/ops/captions").await.status, 200);
    assert_eq!(user.get("/channels").await.status, 403);
    assert_eq!(admin.call("PATCH", &path, Some(json!({ "disabled": true }))).await.status, 200);
    assert_eq!(user.get("/session").await.status, 401);
    let own = format!("/users/{}", admin.id);
    assert_eq!(admin.call("PATCH", &own, Some(json!({ "roles": ["user"] }))).await.status, 409);
    assert_eq!(admin.call("PATCH", &own, Some(json!({ "disabled": true }))).await.status, 409);
    let twice = json!({ "username": "bob", "display_name": "Bob", "password": PASSWORD, "roles": ["user"] });
    assert_eq!(admin.post("/users", twice).await.status, 409);
}

#[tokio::test]
async fn a_guest_link_dies_with_its_call() {
    let server = Server::start().await;
    let mut admin = server.admin().await;
    let call = server.call(&mut admin).await;
    let link = admin.post(&format!("/calls/{call}/guest-links"), json!({})).await.body;
    let url = link["url"].as_str().unwrap();
    assert!(url.starts_with(&format!("{}/join/", server.origin())), "{url}");
    let token = url.rsplit('/').next().unwrap().to_owned();
    let mut guest = server.stranger();
    assert_eq!(guest.post("/session/guest", json!({ "token": token, "display_name": "Gus" })).await.status, 200);
    assert!(guest.id.starts_with("g-"));
    assert_eq!(guest.post(&format!("/calls/{call}/join"), json!({})).await.status, 200);
    message_server::calls::presence::end(&server.app, &call, message_server::clock::now_ms()).await.unwrap();
    let mut late = server.stranger();
    assert_eq!(late.post("/session/guest", json!({ "token": token, "display_name": "Lea" })).await.status, 401);
    assert_eq!(guest.post(&format!("/calls/{call}/join"), json!({})).await.status, 410);
}

#[tokio::test]
async fn requests_of_foreign_sites_and_without_origin_change_nothing() {
    let server = Server::start().await;
    let admin = server.admin().await;
    for origin in [Some("http://evil.example"), Some("null"), None] {
        let mut request = admin
            .http
            .post(format!("{}/api/v1/channels", server.origin()))
            .header("cookie", &admin.cookie)
            .header("content-type", "application/json")
            .body(r#"{"name":"Trojan"}"#);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        assert_eq!(request.send().await.unwrap().status().as_u16(), 403, "{origin:?}");
    }
    let mut admin = admin;
    assert_eq!(admin.get("/channels").await.body["channels"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn bad_bodies_get_clear_errors() {
    let server = Server::start().await;
    let mut admin = server.admin().await;
    let channel = server.channel(&mut admin).await;
    let long = admin.post(&format!("/channels/{channel}/messages"), json!({ "text": "x".repeat(9_000) })).await;
    assert_eq!(long.status, 400);
    assert!(long.body["error"]["message"].as_str().unwrap().contains("8000"), "{}", long.body);
    let oversized = admin.post(&format!("/channels/{channel}/messages"), json!({ "text": "x".repeat(200_000) })).await;
    assert_eq!((oversized.status, oversized.body["error"]["code"].as_str()), (413, Some("too_large")));
    for body in [json!({}), json!([]), json!({ "text": 1 }), json!({ "text": "  " })] {
        assert_eq!(admin.post(&format!("/channels/{channel}/messages"), body).await.status, 400);
    }
    let wrong = admin.call("DELETE", "/channels", None).await;
    assert_eq!((wrong.status, wrong.body["error"]["code"].as_str()), (405, Some("wrong_method")));
    let missing = admin.get("/no-such-thing").await;
    assert_eq!((missing.status, missing.body["error"]["code"].as_str()), (404, Some("not_found")));
}

#[tokio::test]
async fn pages_and_answers_carry_the_security_headers() {
    let server = Server::start().await;
    let mut stranger = server.stranger();
    for path in ["/", "/session", "/livekit/rtc/validate"] {
        let answer = stranger.get(path).await;
        let policy = answer.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("default-src 'self'") && policy.contains("frame-ancestors 'none'"), "{policy}");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
        assert!(answer.headers.contains_key("x-request-id"));
    }
    let health = reqwest::get(format!("{}/healthz", server.origin())).await.unwrap();
    assert_eq!(health.status().as_u16(), 200);
    // A proxy on this machine must not make it public.
    let proxied = stranger.http.get(format!("{}/metrics", server.origin())).header("x-forwarded-for", "1.2.3.4").send().await.unwrap();
    assert_eq!(proxied.status().as_u16(), 404);
}

#[tokio::test]
async fn messages_reach_open_pages_and_count_as_unread() {
    let server = Server::start().await;
    let mut admin = server.admin().await;
    let mut bob = server.person(&mut admin, "bob", &["user"]).await;
    let channel = server.channel(&mut bob).await;
    let address = server.address;
    let open = |origin: String, cookie: String| async move {
        let mut request = format!("ws://{address}/api/v1/events").into_client_request().unwrap();
        request.headers_mut().insert("origin", origin.parse().unwrap());
        request.headers_mut().insert("cookie", cookie.parse().unwrap());
        tokio_tungstenite::connect_async(request).await
    };
    assert!(open("http://evil.example".to_owned(), bob.cookie.clone()).await.is_err(), "a foreign page listens in");
    assert!(open(server.origin(), String::new()).await.is_err());
    let (mut socket, _) = open(server.origin(), bob.cookie.clone()).await.unwrap();
    let mut next = async || loop {
        let message = tokio::time::timeout(std::time::Duration::from_secs(30), socket.next()).await.unwrap();
        if let Some(Ok(tokio_tungstenite::tungstenite::Message::Text(text))) = message {
            return serde_json::from_str::<serde_json::Value>(&text).unwrap();
        }
    };
    assert_eq!(next().await["type"], "hello");
    assert_eq!(admin.post(&format!("/channels/{channel}/messages"), json!({ "text": "good <morning>" })).await.status, 201);
    let event = next().await;
    assert_eq!((event["type"].as_str(), event["message"]["text"].as_str()), (Some("message"), Some("good <morning>")));
    assert!(event["at_ms"].is_i64());
    assert_eq!(bob.get("/channels").await.body["channels"][0]["unread"], 1);
    bob.post(&format!("/channels/{channel}/read"), json!({})).await;
    assert_eq!(bob.get("/channels").await.body["channels"][0]["unread"], 0);
    // A call rings, and ends.
    let call = server.call(&mut admin).await;
    let event = next().await;
    assert_eq!((event["type"].as_str(), event["call"]["id"].as_str()), (Some("ring"), Some(call.as_str())));
    assert_eq!(event["call"]["you"]["host"], false);
    // Signing out closes the page's socket.
    bob.call("DELETE", "/session", None).await;
    until("the socket is closed", || async { server.app.hub.is_empty().then_some(()) }).await;
}

#[tokio::test]
async fn a_pages_ping_is_answered_and_other_texts_are_not() {
    let server = Server::start().await;
    let admin = server.admin().await;
    let mut socket = page(&server, &admin).await;
    for text in ["", "ping", r#"{"type":"hello"}"#, r#"{"type":"ping"}"#] {
        socket.send(Message::Text(text.into())).await.unwrap();
    }
    // Each in its turn: the answer to the last is the only one.
    loop {
        let message = tokio::time::timeout(Duration::from_secs(60), socket.next()).await.unwrap().unwrap().unwrap();
        if message.is_text() {
            break assert_eq!(message.to_text().unwrap(), r#"{"type":"pong"}"#);
        }
        assert!(message.is_ping(), "{message}");
    }
    socket.send(Message::Close(None)).await.unwrap();
    while let Some(Ok(message)) = socket.next().await {
        assert!(!message.is_text(), "{message}");
    }
}

#[tokio::test]
async fn an_open_page_notices_that_its_session_or_its_rights_are_gone() {
    let server = Server::start().await;
    let mut admin = server.admin().await;
    let bob = server.person(&mut admin, "bob", &["user", "officer"]).await;
    let eve = server.person(&mut admin, "eve", &["user"]).await;
    // What another server on the same database does, or time: nobody tells this one.
    for (person, sql) in [
        (&bob, "UPDATE users SET roles = 'user' WHERE id = $1"),
        (&bob, "UPDATE sessions SET expires_at_ms = 1 WHERE user_id = $1"),
        (&eve, "DELETE FROM sessions WHERE user_id = $1"),
    ] {
        let mut socket = page(&server, person).await;
        sqlx::query(sql).bind(&person.id).execute(server.app.store.writer()).await.unwrap();
        let mut pings = tokio::time::interval(Duration::from_millis(50));
        let closed = async {
            loop {
                tokio::select! {
                    _ = pings.tick() => { let _closing = socket.send(Message::Text(r#"{"type":"ping"}"#.into())).await; }
                    message = socket.next() => match message {
                        Some(Ok(Message::Close(frame))) => return frame.map(|frame| u16::from(frame.code)),
                        Some(Ok(_)) => {}
                        Some(Err(_)) | None => return None,
                    },
                }
            }
        };
        let code = tokio::time::timeout(Duration::from_secs(20), closed).await.expect("closed at a ping");
        assert_eq!(code, Some(1008), "{sql}");
    }
}
