//! Element Call's way in: its page shows a Matrix OpenID token to the site's token service, which asks the homeserver who that is, makes
//! the room for people of its own, and signs a token with our API key. The service here is a small one of the tests.
#![cfg(test)]

mod common;

use std::net::SocketAddr;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use common::livekit::{KEY, KEYS, done, http, now_s, token};
use common::program::Program;
use common::{hears, keep_talking, soon};
use rtc_client::{ClientError, Participant};
use serde::Deserialize;
use serde_json::{Value, json};

/// People whose homeserver is the site's own may make rooms.
const OWN_SERVER: &str = "home.example";

#[derive(Deserialize)]
struct Asked {
    room: String,
    openid_token: OpenId,
    device_id: String,
}

#[derive(Deserialize)]
struct OpenId {
    access_token: String,
    token_type: String,
    matrix_server_name: String,
}

#[derive(Deserialize)]
struct UserInfo {
    access_token: String,
}

/// What the service knows.
#[derive(Clone)]
struct Service {
    /// The homeserver (in life: found by the server's name).
    homeserver: String,
    /// Our node.
    node: String,
}

/// The homeserver's answer to whose token it is.
async fn user_info(Query(asked): Query<UserInfo>) -> Result<Json<Value>, StatusCode> {
    let who = match asked.access_token.as_str() {
        "of-alice" => "@alice:home.example",
        "of-bob" => "@bob:far.example",
        _ => return Err(StatusCode::UNAUTHORIZED),
    };
    Ok(Json(json!({ "sub": who })))
}

/// `POST /sfu/get`.
async fn sfu_get(State(service): State<Service>, Json(asked): Json<Asked>) -> Result<Json<Value>, StatusCode> {
    assert_eq!(asked.openid_token.token_type, "Bearer");
    let line = format!("GET /_matrix/federation/v1/openid/userinfo?access_token={}", asked.openid_token.access_token);
    let answer = http(&service.homeserver, &line, &[], b"").await;
    if answer.status != 200 {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let user = answer.json()["sub"].as_str().expect("a user").to_owned();
    if !user.ends_with(&format!(":{}", asked.openid_token.matrix_server_name)) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    if asked.openid_token.matrix_server_name == OWN_SERVER {
        done(&service.node, "CreateRoom", json!({ "name": asked.room, "emptyTimeout": 300, "departureTimeout": 20 })).await;
    }
    let grant = json!({ "roomJoin": true, "room": asked.room, "canPublish": true, "canSubscribe": true });
    let claims = json!({ "sub": format!("{user}:{}", asked.device_id), "exp": now_s() + 3600, "video": grant });
    Ok(Json(json!({ "url": service.node.replace("http://", "ws://"), "jwt": token(KEY, claims) })))
}

async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// What the page does before it dials.
async fn get_token(service: &str, room: &str, server: &str, access_token: &str) -> (u16, Value) {
    let openid = json!({ "access_token": access_token, "token_type": "Bearer", "matrix_server_name": server, "expires_in": 3600 });
    let body = json!({ "room": room, "openid_token": openid, "device_id": "DEVICE" }).to_string();
    let answer = http(service, "POST /sfu/get", &[("Content-Type", "application/json")], body.as_bytes()).await;
    (answer.status, if answer.status == 200 { answer.json() } else { Value::Null })
}

async fn dial(given: &Value) -> Result<(Participant, tokio::sync::mpsc::UnboundedReceiver<rtc_client::Event>), ClientError> {
    let text = |name: &str| given[name].as_str().expect("a text");
    soon("the join", Participant::join_room(text("url"), text("jwt"), "127.0.0.1")).await
}

#[tokio::test]
async fn a_matrix_user_gets_a_token_for_an_openid_token_and_joins_with_it() {
    // As Element's guides have it: rooms are made by the token service alone.
    let program = Program::start(&[KEYS, ("RTCD_LIVEKIT_AUTOCREATE", "false")]).await;
    let homeserver = serve(Router::new().route("/_matrix/federation/v1/openid/userinfo", get(user_info))).await;
    let service = serve(Router::new().route("/sfu/get", post(sfu_get)).with_state(Service { homeserver, node: program.url.clone() })).await;
    let room = "!room:home.example";

    assert_eq!(get_token(&service, room, "home.example", "of-nobody").await.0, 401);
    assert_eq!(get_token(&service, room, "home.example", "of-bob").await.0, 401, "somebody else's server");
    // Who is not of the site's own may join a call and not begin one.
    let (_, of_bob) = get_token(&service, room, "far.example", "of-bob").await;
    let refused = dial(&of_bob).await.err().expect("refused").to_string();
    assert!(refused.contains("404") && refused.contains("requested room does not exist"), "{refused}");

    let (_, of_alice) = get_token(&service, room, "home.example", "of-alice").await;
    let (alice, _to_alice) = dial(&of_alice).await.expect("joins");
    let (_bob, mut to_bob) = dial(&of_bob).await.expect("joins");
    let people = done(&program.url, "ListParticipants", json!({ "room": room })).await;
    let people: Vec<&str> = people["participants"].as_array().expect("a list").iter().filter_map(|who| who["identity"].as_str()).collect();
    assert_eq!(people, ["@alice:home.example:DEVICE", "@bob:far.example:DEVICE"]);
    let talking = keep_talking(alice.publish_opus("mic", 77).await.expect("published"), 0);
    hears("Alice's voice", &mut to_bob, 0..u32::MAX, 5).await;
    talking.abort();
}
