//! A real server on a real port with a real database in a folder of its own, and people who talk to it over HTTP.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "shared by several test programs, each of which uses a part")]

pub mod jobs;
pub mod node;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use message_server::{
    app::App,
    calls::presence,
    people::setup,
    settings::{Secret, Settings},
    spawn_background,
};
use node::Node;
use serde_json::{Value, json};

pub const PASSWORD: &str = "correct horse battery staple";

pub struct Server {
    pub app: Arc<App>,
    pub address: SocketAddr,
    pub data: tempfile::TempDir,
    tasks: tokio::task::JoinSet<()>,
    serving: tokio::task::JoinHandle<()>,
    first_link: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.abort_all();
        self.serving.abort();
    }
}

pub fn settings(data: &std::path::Path) -> Settings {
    Settings {
        data: data.to_owned(),
        // A port nobody listens on: the media node is away.
        rtcd: "http://127.0.0.1:9".to_owned(),
        rtcd_token: Secret::new("link-secret"),
        offloader: "http://127.0.0.1:9".to_owned(),
        ..Settings::default()
    }
}

impl Server {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut Settings)) -> Self {
        let data = tempfile::tempdir().unwrap();
        Self::start_in(data, change).await
    }

    /// Beside a media node of its own, once the link to it is up.
    pub async fn with_node() -> (Arc<Node>, Self) {
        let node = Node::start().await;
        let rtcd = format!("http://{}", node.address);
        let server = Self::start_with(|settings| settings.rtcd = rtcd).await;
        until("the link is up", || async { server.app.link.is_up().then_some(()) }).await;
        (node, server)
    }

    pub async fn start_in(data: tempfile::TempDir, change: impl FnOnce(&mut Settings)) -> Self {
        let _by_another_test = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut settings = settings(data.path());
        change(&mut settings);
        let (app, events) = App::open(settings).await.unwrap();
        message_server::channels::ensure_first(&app.store).await.unwrap();
        let first_link = setup::offer(&app.store, data.path(), "http://here").await.unwrap().unwrap_or_default();
        let tasks = spawn_background(&app, events);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = message_server::web::router::router(Arc::clone(&app));
        let serving = tokio::spawn(async move {
            axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>()).await.unwrap();
        });
        Self { app, address, data, tasks, serving, first_link }
    }

    /// Ends it as a crash would (nothing is told to anybody) and keeps the folder.
    pub async fn kill(mut self) -> tempfile::TempDir {
        self.tasks.abort_all();
        self.serving.abort();
        self.app.store.close().await;
        std::mem::replace(&mut self.data, tempfile::tempdir().unwrap())
    }

    pub fn token_of_first_link(&self) -> String {
        self.first_link.split("token=").nth(1).unwrap().to_owned()
    }

    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn stranger(&self) -> Person {
        Person { http: reqwest::Client::new(), origin: self.origin(), cookie: String::new(), id: String::new() }
    }

    /// The first administrator, through the one-time link.
    pub async fn admin(&self) -> Person {
        let mut admin = self.stranger();
        let body = json!({ "token": self.token_of_first_link(), "username": "admin", "display_name": "Ada Admin", "password": PASSWORD });
        let answer = admin.post("/session/setup", body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        admin
    }

    /// A person with these roles.
    pub async fn person(&self, admin: &mut Person, name: &str, roles: &[&str]) -> Person {
        let body = json!({ "username": name, "display_name": format!("{name} Person"), "password": PASSWORD, "roles": roles });
        let answer = admin.post("/users", body).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        self.sign_in(name).await
    }

    pub async fn sign_in(&self, name: &str) -> Person {
        let mut person = self.stranger();
        let answer = person.post("/session", json!({ "username": name, "password": PASSWORD })).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        person
    }

    /// The id of the channel every server starts with.
    pub async fn channel(&self, person: &mut Person) -> String {
        person.get("/channels").await.body["channels"][0]["id"].as_str().unwrap().to_owned()
    }

    /// A call in the first channel.
    pub async fn call(&self, person: &mut Person) -> String {
        let channel = self.channel(person).await;
        let answer = person.post(&format!("/channels/{channel}/call"), json!({})).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body["call"]["id"].as_str().unwrap().to_owned()
    }

    /// What the media node says when somebody's media session is there.
    pub async fn in_call(&self, call: &str, person: &mut Person) {
        let answer = person.post(&format!("/calls/{call}/join"), json!({})).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let sid = format!("PA_{}", person.id);
        presence::joined(&self.app, call, message_server::clock::now_ms(), &person.id, &sid, "X").await.unwrap();
    }
}

pub struct Answer {
    pub status: u16,
    pub body: Value,
    pub headers: reqwest::header::HeaderMap,
}

#[derive(Clone)]
pub struct Person {
    pub http: reqwest::Client,
    pub origin: String,
    pub cookie: String,
    pub id: String,
}

impl Person {
    pub async fn call(&mut self, method: &str, path: &str, body: Option<Value>) -> Answer {
        let url = if path.starts_with("/livekit") || path == "/" || path.starts_with("/api") {
            format!("{}{path}", self.origin)
        } else {
            format!("{}/api/v1{path}", self.origin)
        };
        let mut request = self
            .http
            .request(method.parse().unwrap(), url)
            .header("origin", &self.origin)
            .header("cookie", &self.cookie)
            .timeout(Duration::from_secs(30));
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let response = request.send().await.unwrap();
        if let Some(cookie) = response.headers().get("set-cookie") {
            self.cookie = cookie.to_str().unwrap().split(';').next().unwrap().to_owned();
        }
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        if let Some(id) = body["user"]["id"].as_str() {
            self.id = id.to_owned();
        }
        Answer { status, body, headers }
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.call("GET", path, None).await
    }

    pub async fn post(&mut self, path: &str, body: Value) -> Answer {
        self.call("POST", path, Some(body)).await
    }

    /// The call as this person sees it.
    pub async fn see(&mut self, call: &str) -> Value {
        let answer = self.get(&format!("/calls/{call}")).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    }
}

/// Asks until it is so. The limit is only for a failing test to end.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut check: impl FnMut() -> F) -> T {
    let limit = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(std::time::Instant::now() < limit, "not so within 60 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
