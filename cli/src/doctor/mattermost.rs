//! The way from this machine to a Mattermost site, as the offloader's bot goes it, as far as it is asked without a session: name, TLS,
//! the server, its Calls plugin, the WebSocket, and how much a proxy lets through at once.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use reqwest::header::{CONNECTION, CONTENT_LENGTH, DATE, LOCATION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use reqwest::{Body, Certificate, Client, Response, StatusCode, Url};
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::finding::{self, Finding};
use super::{half_ms, resolves, unix_ms};

/// Which site, and whom to believe.
#[derive(Args, Clone)]
pub(crate) struct Mattermost {
    /// Instead of our own site: examine the way that a recording bot takes from this machine to a Mattermost site,
    /// https://chat.example.org; run it where the offloader runs
    #[arg(long = "mattermost", value_name = "URL")]
    site: Option<Url>,
    /// Certificates (PEM) of an authority that signed the site's, as MM_CALLS_RECORDER_TLS_CA_CERT_FILE names them
    #[arg(long = "mattermost-ca", value_name = "PEM", requires = "site")]
    ca_file: Option<PathBuf>,
}

/// An answer to a small question.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// What the offloader sends at once, and the least that Mattermost takes as the first part of a file.
const PIECES: [usize; 2] = [16 << 20, 5 << 20];
/// So long a head goes before its body.
const HEAD_FIRST: Duration = Duration::from_secs(2);
/// Such a piece over a thin line.
const PIECE_WITHIN: Duration = Duration::from_secs(60);
/// Longest answer that is read.
const ANSWER_MAX: usize = 64 << 10;
/// The plugin's routes.
const PLUGIN: [&str; 2] = ["plugins", "com.mattermost.calls"];

impl Mattermost {
    /// All that is found, hop by hop; `None`: it is not wanted.
    pub(super) async fn examine(&self) -> Option<Vec<Finding>> {
        let site = self.site.as_ref()?;
        let mut found = Vec::new();
        if matches!(site.scheme(), "http" | "https") {
            Way { site, found: &mut found }.examine(self.client()).await;
        } else {
            found.push(Finding::fail("address", site, "is no address of a web server", "give it as --mattermost https://chat.example.org"));
        }
        Some(found)
    }

    fn client(&self) -> anyhow::Result<Client> {
        // As the bot asks: no proxy, no other host by a redirect.
        let redirects = reqwest::redirect::Policy::none();
        let mut builder = Client::builder().no_proxy().http1_only().redirect(redirects).connect_timeout(Duration::from_secs(5));
        if let Some(path) = &self.ca_file {
            let name = path.display();
            let pem = std::fs::read(path).with_context(|| format!("{name} cannot be read"))?;
            let certificates = Certificate::from_pem_bundle(&pem).with_context(|| format!("{name} is no PEM"))?;
            anyhow::ensure!(!certificates.is_empty(), "{name} holds no certificate in PEM");
            for certificate in certificates {
                builder = builder.add_root_certificate(certificate);
            }
        }
        Ok(builder.build()?)
    }
}

struct Way<'a> {
    site: &'a Url,
    found: &'a mut Vec<Finding>,
}

impl Way<'_> {
    async fn examine(&mut self, client: anyhow::Result<Client>) {
        let client = match client {
            Ok(client) => client,
            Err(error) => {
                let fix =
                    "--mattermost-ca (and MM_CALLS_RECORDER_TLS_CA_CERT_FILE on the Mattermost server) names a PEM file of this machine";
                return self.found.push(Finding::fail("certificate", self.site, format!("{error:#}"), fix));
            }
        };
        if !resolves(self.site, self.found) || !self.server(&client).await {
            return;
        }
        self.plugin(&client).await;
        self.socket(&client).await;
        self.pieces(&client).await;
    }

    fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.site.clone();
        url.set_query(None);
        url.set_fragment(None);
        // An address of the web has a path.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    /// Does a Mattermost server answer?
    async fn server(&mut self, client: &Client) -> bool {
        #[derive(Deserialize)]
        struct Ping {
            status: String,
        }
        let what = if self.site.scheme() == "https" { "https" } else { "http" };
        let (asked, asked_ms) = (Instant::now(), unix_ms());
        let answer = match client.get(self.url(&["api", "v4", "system", "ping"])).timeout(ANSWER_WITHIN).send().await {
            Ok(answer) => answer,
            Err(error) => {
                let (said, fix) = unreachable(&error.into());
                self.found.push(Finding::fail(what, self.site, said, fix));
                return false;
            }
        };
        let half = half_ms(asked);
        let (status, date) = (answer.status(), answer.headers().get(DATE).and_then(|date| date.to_str().ok()).map(str::to_owned));
        if status.is_redirection() {
            let to = answer.headers().get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("somewhere else").to_owned();
            let fix = "set the Site URL of Mattermost (ServiceSettings.SiteURL), which jobs are given, to the address that it leads to";
            self.found.push(Finding::fail(what, self.site, format!("sends us on to {to}, where a bot's token must not follow"), fix));
            return false;
        }
        let ping: Option<Ping> = json(answer).await;
        match (status, ping) {
            (StatusCode::OK, Some(ping)) if ping.status.eq_ignore_ascii_case("ok") => {
                self.found.push(Finding::ok(what, self.site, "a Mattermost server answers"));
            }
            (_, Some(ping)) => {
                let fix = "the server is not well: look at its log and its database";
                self.found.push(Finding::warn(
                    what,
                    self.site,
                    format!("a Mattermost server answers {status}, and says {}", ping.status),
                    fix,
                ));
            }
            (status, None) => {
                let fix = if status.is_server_error() {
                    "the proxy does not reach Mattermost behind it: look at its log"
                } else {
                    "give the Site URL of Mattermost as it is, with its path where it has one"
                };
                self.found.push(Finding::fail(what, self.site, format!("answers {status}, and not as Mattermost does"), fix));
                return false;
            }
        }
        let said = date.and_then(|date| OffsetDateTime::parse(&date.replace("GMT", "+0000"), &Rfc2822).ok());
        if let Some(said) = said {
            // It counts whole seconds: the middle of the one that it names.
            self.found.push(finding::clock("Mattermost", said.unix_timestamp() * 1_000 + 500, asked_ms + half, half + 500));
        }
        true
    }

    /// Is the Calls plugin there, and where does its version have media?
    async fn plugin(&mut self, client: &Client) {
        #[derive(Deserialize)]
        struct Version {
            version: String,
        }
        let name = "com.mattermost.calls";
        let answer = match client.get(self.url(&[&PLUGIN[..], &["version"]].concat())).timeout(ANSWER_WITHIN).send().await {
            Ok(answer) => answer,
            Err(error) => {
                let (said, fix) = unreachable(&error.into());
                return self.found.push(Finding::fail("plugin", name, said, fix));
            }
        };
        let status = answer.status();
        let version: Option<Version> = json(answer).await;
        self.found.push(match (status, version) {
            (StatusCode::OK, Some(Version { version })) => {
                let major = version.trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
                let media = match major {
                    Some(0 | 1) => ", whose media is rtcd's: this machine must reach rtcd's media port (8443, UDP)",
                    Some(_) => ", whose media is LiveKit's: this machine must reach LiveKitURL and its media ports",
                    None => "",
                };
                Finding::ok("plugin", name, format!("version {version}{media}"))
            }
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => {
                Finding::ok("plugin", name, "is there; which version it is it tells nobody without a session")
            }
            (StatusCode::NOT_FOUND | StatusCode::NOT_IMPLEMENTED, _) => {
                let fix = "enable it in the System Console (Plugins, Calls); where it is enabled, let the proxy pass /plugins/";
                Finding::fail("plugin", name, format!("is not there ({status})"), fix)
            }
            (status, _) => {
                let fix = "let the proxy pass /plugins/ to Mattermost, and look at Mattermost's log for the plugin";
                Finding::fail("plugin", name, format!("answers {status}"), fix)
            }
        });
    }

    async fn socket(&mut self, client: &Client) {
        let request = client
            .get(self.url(&["api", "v4", "websocket"]))
            .header(CONNECTION, "upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_KEY, "Y29uY2xhdmUgZG9jdG9yIQ==")
            .timeout(ANSWER_WITHIN);
        let fix = "a proxy on the way does not pass WebSockets: let it forward the headers Upgrade and Connection, with HTTP/1.1, for /api/v4/websocket";
        self.found.push(match request.send().await.map(|answer| answer.status()) {
            Ok(StatusCode::SWITCHING_PROTOCOLS) => Finding::ok("websocket", self.site, "opens"),
            // It is understood as one, and wants to know who asks.
            Ok(StatusCode::UNAUTHORIZED) => Finding::ok("websocket", self.site, "is there, for whoever has a session"),
            Ok(status) => Finding::fail("websocket", self.site, format!("answered {status} instead of 101"), fix),
            Err(error) => Finding::fail("websocket", self.site, unreachable(&error.into()).0, fix),
        });
    }

    /// How large a request gets through. What it is for is refused by the server; a proxy refuses its size before that.
    async fn pieces(&mut self, client: &Client) {
        let mut refused = None;
        for size in PIECES {
            // Who refuses a size does it by the head alone; who has the whole body thrown at them may cut the line before they are heard.
            let later = futures_util::stream::once(async move {
                tokio::time::sleep(HEAD_FIRST).await;
                Ok::<_, std::io::Error>(vec![0_u8; size])
            });
            let request = client.post(self.url(&["api", "v4", "system", "ping"])).header(CONTENT_LENGTH, size);
            let request = request.body(Body::wrap_stream(later)).timeout(PIECE_WITHIN);
            let mib = size >> 20;
            match request.send().await.map(|answer| answer.status()) {
                Ok(StatusCode::PAYLOAD_TOO_LARGE) => refused = Some(mib),
                Ok(_) => {
                    self.found.push(match refused {
                        None => Finding::ok("upload", self.site, format!("{mib} MiB at once pass")),
                        Some(larger) => Finding::warn(
                            "upload",
                            self.site,
                            format!("{mib} MiB at once pass, {larger} MiB do not: files go in smaller pieces"),
                            "let the proxy take more (nginx: client_max_body_size 32m), or leave it: it only takes longer",
                        ),
                    });
                    return;
                }
                Err(error) => {
                    let fix = "look whether a proxy on the way bounds the time or the size of requests (nginx: client_max_body_size)";
                    let said = format!("what becomes of {mib} MiB at once is not known: {}", unreachable(&error.into()).0);
                    return self.found.push(Finding::warn("upload", self.site, said, fix));
                }
            }
        }
        let fix =
            "let the proxy take at least 5 MiB at once, which Mattermost wants of a file's first part (nginx: client_max_body_size 32m)";
        self.found.push(Finding::fail("upload", self.site, "5 MiB at once are too much for a proxy: no recording can be uploaded", fix));
    }
}

/// A short answer in JSON.
async fn json<T: serde::de::DeserializeOwned>(mut answer: Response) -> Option<T> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.ok()? {
        if body.len() + chunk.len() > ANSWER_MAX {
            return None;
        }
        body.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&body).ok()
}

/// What a failed request means, and what to do about it.
fn unreachable(error: &anyhow::Error) -> (String, &'static str) {
    let (said, fix) = finding::unreachable(error);
    let lower = said.to_lowercase();
    let fix = if lower.contains("certificate") || lower.contains("unknownissuer") {
        "this machine does not trust the certificate: install the site's own authority here, or name its PEM file: --mattermost-ca here, \
         MM_CALLS_RECORDER_TLS_CA_CERT_FILE and MM_CALLS_TRANSCRIBER_TLS_CA_CERT_FILE on the Mattermost server for jobs"
    } else if lower.contains("refused") {
        "nothing listens there: see that Mattermost or the proxy in front of it runs, and that address and port are right"
    } else if fix.contains("message server") {
        "see that Mattermost runs and that a browser on this machine opens the address"
    } else {
        fix
    };
    (said, fix)
}
