//! The site as an operator's browser sees it: its address, and a session with the role ops.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use reqwest::{Client, RequestBuilder, Url};

/// Where the site is and who asks.
#[derive(Args, Clone)]
pub(crate) struct Site {
    /// Address that people type
    #[arg(long, env = "CONCLAVE_SERVER", default_value = "http://localhost:8065")]
    pub(crate) server: Url,
    /// Somebody with the role ops
    #[arg(long, env = "CONCLAVE_USER")]
    pub(crate) user: Option<String>,
    /// Their password; better given by the variable than on the command line
    #[arg(long, env = "CONCLAVE_PASSWORD", hide_env_values = true)]
    password: Option<String>,
    /// Accept the site's certificate whoever signed it (its own one, before it has a better)
    #[arg(long)]
    pub(crate) insecure: bool,
}

/// A signed-in operator.
pub(crate) struct Session {
    client: Client,
    server: Url,
    cookie: String,
}

impl Site {
    pub(crate) fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        // No proxy: what is asked for is this machine's own way to the site. HTTP/1.1: WebSockets need it.
        let builder = Client::builder().no_proxy().http1_only().connect_timeout(Duration::from_secs(5));
        Ok(builder.danger_accept_invalid_certs(self.insecure).build()?)
    }

    pub(crate) fn origin(&self) -> String {
        self.server.origin().ascii_serialization()
    }

    pub(crate) fn api(&self, path: &str) -> anyhow::Result<Url> {
        api(&self.server, path)
    }

    /// Signs in.
    pub(crate) async fn sign_in(&self) -> anyhow::Result<Session> {
        let user = self.user.as_deref().context("give somebody with the role ops: --user (or CONCLAVE_USER)")?;
        let password = self.password.as_deref().context("give the password in the variable CONCLAVE_PASSWORD")?;
        let client = self.client()?;
        let body = serde_json::json!({ "username": user, "password": password });
        let request = client.post(self.api("/session")?).header("origin", self.origin()).timeout(Duration::from_secs(20));
        let answer = request.json(&body).send().await.with_context(|| format!("{} does not answer", self.server))?;
        let cookie = answer.headers().get("set-cookie").and_then(|cookie| cookie.to_str().ok()).and_then(|cookie| cookie.split(';').next());
        let cookie = cookie.map(str::to_owned);
        accepted(answer).await?;
        Ok(Session { client, server: self.server.clone(), cookie: cookie.context("the server gave no session")? })
    }
}

impl Session {
    fn with_session(&self, request: RequestBuilder) -> RequestBuilder {
        request.header("origin", self.server.origin().ascii_serialization()).header("cookie", &self.cookie)
    }

    /// An opened but unread answer.
    pub(crate) async fn post(&self, path: &str, body: &serde_json::Value) -> anyhow::Result<reqwest::Response> {
        let url = api(&self.server, path)?;
        accepted(self.with_session(self.client.post(url)).json(body).send().await?).await
    }

    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<serde_json::Value> {
        let url = api(&self.server, path)?;
        let request = self.with_session(self.client.get(url)).timeout(Duration::from_secs(20));
        Ok(accepted(request.send().await?).await?.json().await?)
    }

    /// Asks for a WebSocket; answers with the status, 101 when it opens.
    pub(crate) async fn open_socket(&self) -> anyhow::Result<u16> {
        let url = api(&self.server, "/events")?;
        let request = self
            .with_session(self.client.get(url))
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "Y29uY2xhdmUgZG9jdG9yIQ==")
            .timeout(Duration::from_secs(10));
        Ok(request.send().await?.status().as_u16())
    }
}

fn api(server: &Url, path: &str) -> anyhow::Result<Url> {
    Ok(server.join(&format!("/api/v1{path}"))?)
}

/// The answer, or what the server said is wrong.
async fn accepted(answer: reqwest::Response) -> anyhow::Result<reqwest::Response> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let body: serde_json::Value = answer.json().await.unwrap_or_default();
    match body.pointer("/error/message").and_then(serde_json::Value::as_str) {
        Some(message) => anyhow::bail!("{message}"),
        None => anyhow::bail!("the server answered {status}; is this the address of Conclave?"),
    }
}
