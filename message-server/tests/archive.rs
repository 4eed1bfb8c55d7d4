//! The officer's way through to the archive: what is passed on, both ways, and to whom it is closed.

#![cfg(test)]

mod common;

use axum::{
    Router,
    extract::Request,
    http::{HeaderMap, StatusCode, header},
    response::IntoResponse,
    routing::any,
};
use common::{PASSWORD, Server};
use serde_json::json;

/// Answers with what it was asked, as the archive's end of the connection sees it.
async fn archive(request: Request) -> impl IntoResponse {
    let headers: &HeaderMap = request.headers();
    let text = |name: &str| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let seen = json!({
        "method": request.method().as_str(),
        "path": request.uri().to_string(),
        "actor": text("x-conclave-actor"),
        "name": text("x-conclave-actor-name"),
        "authorization": text("authorization"),
        "range": text("range"),
        "cookie": text("cookie"),
    });
    let status = if headers.contains_key(header::RANGE) { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    (status, [(header::CONTENT_RANGE, "bytes 5-9/100"), (header::SET_COOKIE, "evil=1")], axum::Json(seen))
}

#[tokio::test]
async fn the_archive_learns_who_asks_and_nothing_else_of_them() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/{*path}", any(archive))).await });
    let server = Server::start_with(|settings| {
        settings.offloader = format!("http://{address}");
        settings.offloader_token = message_server::settings::Secret::new("archive-secret");
    })
    .await;
    let mut admin = server.admin().await;
    let body = json!({ "username": "olga", "display_name": "Ольга Officer", "password": PASSWORD, "roles": ["officer"] });
    assert_eq!(admin.post("/users", body).await.status, 201);
    let mut officer = server.sign_in("olga").await;

    let seen = officer.get("/recordings?q=budget&from=1").await;
    assert_eq!(seen.body["path"], "/archive/v1/recordings?q=budget&from=1");
    assert_eq!((seen.body["actor"].as_str(), seen.body["name"].as_str()), (Some(officer.id.as_str()), Some("Ольга Officer")));
    assert_eq!(seen.body["authorization"], "Bearer archive-secret");
    assert_eq!(seen.body["cookie"], json!(null), "the session stays here");
    assert!(!seen.headers.contains_key("set-cookie"));
    assert!(seen.headers["cache-control"].to_str().unwrap().contains("no-store"));

    let part = officer
        .http
        .get(format!("{}/api/v1/recordings/r-1/media", server.origin()))
        .header("cookie", &officer.cookie)
        .header("range", "bytes=5-9")
        .send()
        .await
        .unwrap();
    assert_eq!(part.status().as_u16(), 206);
    assert_eq!(part.headers()["content-range"], "bytes 5-9/100");
    let verified = officer.post("/recordings/r-1/verify", json!({})).await;
    assert_eq!(
        (verified.body["method"].as_str(), verified.body["path"].as_str()),
        (Some("POST"), Some("/archive/v1/recordings/r-1/verify"))
    );

    for path in ["/recordings/%2e%2e/jobs", "/recordings/a%2Fb", "/recordings//x"] {
        assert_eq!(officer.get(path).await.status, 404, "{path}");
    }
    let mut user = server.person(&mut admin, "bob", &["user", "host", "ops", "admin"]).await;
    assert_eq!(user.get("/recordings").await.status, 403);
}
