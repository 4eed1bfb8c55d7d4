//! The way of LiveKit's signalling: browser ↔ relay ↔ link, with breaks on both sides.

#![cfg(test)]

mod common;

use std::time::Duration;

use common::{Person, Server, until};
use futures_util::{SinkExt as _, StreamExt as _};
use livekit_protocol as livekit;
use prost::Message as _;
use serde_json::json;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{Error, Message, client::IntoClientRequest as _},
};

type Socket = WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>;

async fn ticket(person: &mut Person, call: &str) -> String {
    let answer = person.post(&format!("/calls/{call}/join"), json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body["token"].as_str().unwrap().to_owned()
}

async fn connect(server: &Server, token: &str, more: &str) -> Result<Socket, Error> {
    let request = format!("ws://{}/livekit/rtc?access_token={token}&protocol=17{more}", server.address).into_client_request()?;
    Ok(tokio_tungstenite::connect_async(request).await?.0)
}

fn status(result: Result<Socket, Error>) -> u16 {
    match result {
        Err(Error::Http(response)) => response.status().as_u16(),
        Err(error) => panic!("{error}"),
        Ok(_) => 101,
    }
}

async fn next_frame(socket: &mut Socket) -> Option<Vec<u8>> {
    loop {
        match tokio::time::timeout(Duration::from_secs(60), socket.next()).await.expect("a frame within 60 s") {
            Some(Ok(Message::Binary(bytes))) => return Some(bytes.to_vec()),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Close(_) | Message::Text(_) | Message::Frame(_)) | Err(_)) | None => return None,
        }
    }
}

/// Reads to the end: the last LiveKit leave request, if there was one, and the close code.
async fn end_of(socket: &mut Socket) -> (Option<livekit::LeaveRequest>, u16) {
    let mut leave = None;
    loop {
        match tokio::time::timeout(Duration::from_secs(60), socket.next()).await.expect("an end within 60 s") {
            Some(Ok(Message::Binary(bytes))) => {
                if let Ok(livekit::SignalResponse { message: Some(livekit::signal_response::Message::Leave(request)) }) =
                    livekit::SignalResponse::decode(bytes)
                {
                    leave = Some(request);
                }
            }
            Some(Ok(Message::Close(frame))) => return (leave, frame.map_or(1005, |frame| frame.code.into())),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return (leave, 1006),
        }
    }
}

#[tokio::test]
async fn a_broken_stream_loses_and_repeats_no_frame_in_either_direction() {
    const FRAMES: u32 = 400;
    let (node, server) = Server::with_node().await;
    let mut admin = server.admin().await;
    let call = server.call(&mut admin).await;
    let mut socket = connect(&server, &ticket(&mut admin, &call).await, "").await.unwrap();
    let session = node.joins()[0].session_id.clone();
    for n in 0..FRAMES {
        socket.send(Message::Binary(n.to_be_bytes().to_vec().into())).await.unwrap();
        node.frame(&session, n.to_be_bytes().to_vec());
        if n % 80 == 40 {
            node.break_stream();
        }
        let got = next_frame(&mut socket).await.expect("the browser's socket stays open over breaks of the link");
        assert_eq!(got, n.to_be_bytes());
    }
    let all: Vec<Vec<u8>> = (0..FRAMES).map(|n| n.to_be_bytes().to_vec()).collect();
    until("every frame arrived", || async { (node.frames_of(&session).len() >= all.len()).then_some(()) }).await;
    assert_eq!(node.frames_of(&session), all);
    assert!(node.links() > 3, "the stream was broken");
    assert!(node.leaves().is_empty());
}

#[tokio::test]
async fn a_restarted_media_node_makes_the_client_join_anew() {
    let (node, server) = Server::with_node().await;
    let mut admin = server.admin().await;
    let call = server.call(&mut admin).await;
    let token = ticket(&mut admin, &call).await;
    let mut socket = connect(&server, &token, "").await.unwrap();
    node.restart();
    let (leave, code) = end_of(&mut socket).await;
    assert_eq!(leave.map(|leave| leave.action()), Some(livekit::leave_request::Action::Reconnect));
    assert_eq!(code, 1012);
    // A client that only saw the socket close tries to resume, and is told the same.
    until("the link is up", || async { server.app.link.is_up().then_some(()) }).await;
    let mut socket = connect(&server, &token, "&reconnect=1&sid=PA_gone").await.unwrap();
    let (leave, _) = end_of(&mut socket).await;
    assert_eq!(leave.map(|leave| leave.action()), Some(livekit::leave_request::Action::Reconnect));
    assert!(connect(&server, &token, "").await.is_ok());
}

#[tokio::test]
async fn after_a_kill_of_the_message_server_the_old_ticket_resumes_the_same_participant() {
    let (node, server) = Server::with_node().await;
    let mut admin = server.admin().await;
    let call = server.call(&mut admin).await;
    server.in_call(&call, &mut admin).await;
    let token = ticket(&mut admin, &call).await;
    let socket = connect(&server, &token, "").await.unwrap();
    let sid = format!("PA_{}", node.joins()[0].identity);
    let raised = admin.post(&format!("/calls/{call}/hand"), json!({ "raised": true })).await;
    assert_eq!(raised.status, 204);
    let before = admin.see(&call).await;
    let data = server.kill().await;
    drop(socket);

    let address = node.address;
    let server = Server::start_in(data, |settings| settings.rtcd = format!("http://{address}")).await;
    let mut socket = connect(&server, &token, &format!("&reconnect=1&sid={sid}")).await.unwrap();
    let join = node.joins().pop().unwrap();
    assert!(join.reconnect && join.participant_sid == sid && join.call_id == call);
    node.frame(&join.session_id, b"hello again".to_vec());
    assert_eq!(next_frame(&mut socket).await.as_deref(), Some(b"hello again".as_slice()));
    // The session cookie, the call and its raised hand are still there (the node lists nobody, so nobody is present).
    admin.origin = server.origin();
    let after = admin.see(&call).await;
    assert_eq!(before["started_at_ms"], after["started_at_ms"]);
}

#[tokio::test]
async fn a_slow_client_hurts_only_itself() {
    let (node, server) = Server::with_node().await;
    let mut admin = server.admin().await;
    let mut bob = server.person(&mut admin, "bob", &["user"]).await;
    let call = server.call(&mut admin).await;
    let slow = connect(&server, &ticket(&mut admin, &call).await, "").await.unwrap();
    let mut quick = connect(&server, &ticket(&mut bob, &call).await, "").await.unwrap();
    let joins = node.joins();
    for n in 0..200_u32 {
        node.frame(&joins[0].session_id, vec![0; 100_000]);
        node.frame(&joins[1].session_id, n.to_be_bytes().to_vec());
        assert_eq!(next_frame(&mut quick).await.unwrap(), n.to_be_bytes());
    }
    let leave = until("the slow one is let go", || async { node.leaves().pop() }).await;
    assert_eq!((leave.session_id, leave.connection_lost), (joins[0].session_id.clone(), true));
    drop(slow);
}

#[tokio::test]
async fn nonsense_from_a_client_ends_its_socket_with_the_right_code() {
    let (node, server) = Server::with_node().await;
    let mut admin = server.admin().await;
    let call = server.call(&mut admin).await;
    let token = ticket(&mut admin, &call).await;
    for message in [Message::Text("{}".into()), Message::Binary(vec![0; 300 * 1024].into())] {
        let mut socket = connect(&server, &token, "").await.unwrap();
        socket.send(message).await.unwrap();
        let (_, code) = end_of(&mut socket).await;
        assert!(matches!(code, 1008 | 1006), "{code}");
    }
    until("both are let go", || async { (node.leaves().len() == 2).then_some(()) }).await;
}

#[tokio::test]
async fn expired_foreign_and_revoked_tickets_open_nothing() {
    let (_node, server) = Server::with_node().await;
    let mut admin = server.admin().await;
    let mut bob = server.person(&mut admin, "bob", &["user"]).await;
    let call = server.call(&mut admin).await;
    let token = ticket(&mut bob, &call).await;
    for bad in ["", "x.y.z", &token[..token.len() - 4]] {
        assert_eq!(status(connect(&server, bad, "").await), 401);
        let validate = bob.get(&format!("/livekit/rtc/validate?access_token={bad}")).await;
        assert_eq!(validate.status, 401);
    }
    let foreign = message_server::relay::token::MediaTokens::new(b"the key of another installation.");
    let grant = |identity: &str, call: &str| message_server::relay::token::Grant {
        identity: identity.to_owned(),
        display_name: "X".to_owned(),
        call: call.to_owned(),
        host: true,
    };
    assert_eq!(status(connect(&server, &foreign.mint(&grant(&bob.id, &call)).unwrap(), "").await), 401);
    // Good signatures for what does not exist or was never granted.
    for (identity, call) in [(bob.id.as_str(), "call-none"), ("u-none", call.as_str())] {
        let token = server.app.media_tokens.mint(&grant(identity, call)).unwrap();
        assert_eq!(status(connect(&server, &token, "").await), 401, "{identity} {call}");
    }
    // A page of another site, with a good token.
    let mut request = format!("ws://{}/livekit/rtc?access_token={token}", server.address).into_client_request().unwrap();
    request.headers_mut().insert("origin", "http://evil.example".parse().unwrap());
    assert!(matches!(tokio_tungstenite::connect_async(request).await, Err(Error::Http(response)) if response.status() == 403));
    // Good, then removed by the host: the ticket is dead although it has not expired.
    let socket = connect(&server, &token, "").await.unwrap();
    let removed = admin.post(&format!("/calls/{call}/participants/{}/remove", bob.id), json!({})).await;
    assert_eq!(removed.status, 204, "{}", removed.body);
    assert_eq!(status(connect(&server, &token, "").await), 401);
    assert_eq!(bob.post(&format!("/calls/{call}/join"), json!({})).await.status, 403);
    drop(socket);
    // And after the call.
    let token = ticket(&mut admin, &call).await;
    assert_eq!(admin.post(&format!("/calls/{call}/end"), json!({})).await.status, 204);
    assert_eq!(status(connect(&server, &token, "").await), 401);
}

#[tokio::test]
async fn who_is_signed_out_everywhere_is_out_of_the_call_and_the_old_ticket_is_dead() {
    let (node, server) = Server::with_node().await;
    let mut admin = server.admin().await;
    let mut bob = server.person(&mut admin, "bob", &["user", "host"]).await;
    let call = server.call(&mut admin).await;
    let path = format!("/users/{}", bob.id);
    for (change, back) in
        [(json!({ "password": common::PASSWORD }), json!({})), (json!({ "roles": ["ops"] }), json!({ "roles": ["user"] }))]
    {
        let token = ticket(&mut bob, &call).await;
        let mut socket = connect(&server, &token, "").await.unwrap();
        assert_eq!(admin.call("PATCH", &path, Some(change.clone())).await.status, 200);
        let (leave, _) = end_of(&mut socket).await;
        assert_eq!(leave.map(|leave| leave.action()), Some(livekit::leave_request::Action::Disconnect), "{change}");
        assert_eq!(status(connect(&server, &token, "&reconnect=1").await), 401, "{change}");
        // Nor is it good again when the right comes back; a new one is.
        assert_eq!(admin.call("PATCH", &path, Some(back)).await.status, 200);
        assert_eq!(status(connect(&server, &token, "").await), 401, "{change}");
        bob = server.sign_in("bob").await;
        assert_eq!(status(connect(&server, &ticket(&mut bob, &call).await, "").await), 101, "{change}");
    }
    // A new name is no reason to leave.
    let mut socket = connect(&server, &ticket(&mut bob, &call).await, "").await.unwrap();
    assert_eq!(admin.call("PATCH", &path, Some(json!({ "display_name": "Robert" }))).await.status, 200);
    let session = node.joins().pop().unwrap().session_id;
    node.frame(&session, b"still here".to_vec());
    assert_eq!(next_frame(&mut socket).await.as_deref(), Some(b"still here".as_slice()));
}

#[tokio::test]
async fn who_is_no_host_any_more_does_not_resume_as_one() {
    let (node, server) = Server::with_node().await;
    let mut admin = server.admin().await;
    let mut bob = server.person(&mut admin, "bob", &["user", "host"]).await;
    let call = server.call(&mut admin).await;
    let token = ticket(&mut bob, &call).await;
    let hosts = || node.joins().pop().unwrap().grants.unwrap().host;
    drop(connect(&server, &token, "").await.unwrap());
    assert!(hosts());
    assert_eq!(admin.call("PATCH", &format!("/users/{}", bob.id), Some(json!({ "roles": ["user"] }))).await.status, 200);
    drop(connect(&server, &token, "").await.unwrap());
    assert!(!hosts());
}

#[tokio::test]
async fn leaving_by_rest_ends_the_media_session_for_good() {
    let (node, server) = Server::with_node().await;
    let mut admin = server.admin().await;
    let call = server.call(&mut admin).await;
    let mut socket = connect(&server, &ticket(&mut admin, &call).await, "").await.unwrap();
    assert_eq!(admin.post(&format!("/calls/{call}/leave"), json!({})).await.status, 204);
    let (leave, code) = end_of(&mut socket).await;
    assert_eq!(leave.map(|leave| leave.action()), Some(livekit::leave_request::Action::Disconnect));
    assert_eq!(code, 1000);
    let left = until("the node hears of it", || async { node.leaves().pop() }).await;
    assert!(!left.connection_lost);
}

#[tokio::test]
async fn without_a_media_node_the_client_is_told_to_try_again() {
    let server = Server::start().await;
    let mut admin = server.admin().await;
    let call = server.call(&mut admin).await;
    let token = ticket(&mut admin, &call).await;
    assert_eq!(status(connect(&server, &token, "").await), 503);
    let validate = admin.get(&format!("/livekit/rtc/validate?access_token={token}")).await;
    assert_eq!(validate.status, 503);
}
