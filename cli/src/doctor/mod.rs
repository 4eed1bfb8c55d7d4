//! `conclave doctor`: goes the way that a browser goes, from the machine where it is run, and names the hop that fails and the fix.

mod finding;
mod mattermost;
mod media;

use std::net::ToSocketAddrs as _;
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use conclave_proto::v1;
use reqwest::Url;

use crate::node::NodeAddress;
use crate::site::{Session, Site};
use finding::{Finding, Outcome};

/// What is examined, and how.
#[derive(Args)]
pub(crate) struct Settings {
    #[command(flatten)]
    site: Site,
    #[command(flatten)]
    node: NodeAddress,
    #[command(flatten)]
    mattermost: mattermost::Mattermost,
    /// Print what was found as JSON
    #[arg(long)]
    json: bool,
}

/// Credentials and addresses to check, and two clocks.
struct Probe {
    ufrag: String,
    pwd: String,
    udp: Vec<String>,
    tcp: Vec<String>,
    warnings: Vec<String>,
    /// Whose clock, what it said, what ours said at about that moment, and how far apart these moments may be, Unix ms.
    clocks: Vec<(&'static str, i64, i64, i64)>,
}

/// 0: nothing failed; 1: something did.
pub(crate) async fn run(settings: &Settings) -> ExitCode {
    let found = match settings.mattermost.examine().await {
        Some(found) => found,
        None => findings(&settings.site, &settings.node).await,
    };
    let failed = found.iter().any(|finding| finding.outcome == Outcome::Fail);
    if settings.json {
        println!("{}", serde_json::json!({ "ok": !failed, "findings": found }));
    } else {
        for finding in &found {
            println!("{finding}");
        }
        println!("\n{}", finding::in_short(&found));
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// All that is found, hop by hop.
pub(crate) async fn findings(site: &Site, node: &NodeAddress) -> Vec<Finding> {
    let mut found = Vec::new();
    examine(site, node, &mut found).await;
    found
}

async fn examine(site: &Site, node: &NodeAddress, found: &mut Vec<Finding>) {
    if !resolves(&site.server, found) || !answers(site, found).await {
        return;
    }
    let probe = if site.user.is_some() {
        let session = match site.sign_in().await {
            Ok(session) => session,
            Err(error) => {
                let fix = "check --user and CONCLAVE_PASSWORD; the account needs the role ops";
                return found.push(Finding::fail("sign-in", &site.server, format!("{error:#}"), fix));
            }
        };
        found.push(Finding::ok("sign-in", &site.server, "signed in"));
        sockets(&session, site, found).await;
        from_site(&session).await
    } else {
        from_node(node).await
    };
    let probe = match probe {
        Ok(probe) => probe,
        Err(error) => {
            let fix =
                "away from the server, sign in with --user and CONCLAVE_PASSWORD (role ops); on it, give --data, and see that rtcd runs";
            return found.push(Finding::fail("media credentials", &site.server, format!("{error:#}"), fix));
        }
    };
    for (whose, said, ours, within) in &probe.clocks {
        found.push(finding::clock(whose, *said, *ours, *within));
    }
    if probe.warnings.is_empty() {
        found.push(Finding::ok("node", "its own view", "no warnings: buffers as wanted, addresses usable"));
    }
    for warning in &probe.warnings {
        found.push(finding::own_view(warning));
    }
    let checks = tokio::task::spawn_blocking(move || media::check(&probe.ufrag, &probe.pwd, &probe.udp, &probe.tcp)).await;
    match checks {
        Ok(checks) => found.extend(checks),
        Err(error) => found.push(Finding::fail("media", &site.server, error.to_string(), "this is a fault of the doctor; report it")),
    }
}

fn resolves(server: &Url, found: &mut Vec<Finding>) -> bool {
    let (Some(host), Some(port)) = (server.host_str(), server.port_or_known_default()) else {
        found.push(Finding::fail("address", server, "names no host", "give it as https://name:port"));
        return false;
    };
    match (host.trim_matches(['[', ']']), port).to_socket_addrs() {
        Ok(addresses) => {
            let list: Vec<String> = addresses.map(|address| address.ip().to_string()).collect();
            found.push(Finding::ok("address", host, list.join(", ")));
            true
        }
        Err(error) => {
            let fix = "the name server of this network does not know the name: add it there, or try another address";
            found.push(Finding::fail("address", host, error.to_string(), fix));
            false
        }
    }
}

async fn answers(site: &Site, found: &mut Vec<Finding>) -> bool {
    let what = if site.server.scheme() == "https" { "https" } else { "http" };
    let asked = async {
        let request = site.client()?.get(site.api("/openapi.json")?).timeout(std::time::Duration::from_secs(10));
        anyhow::Ok(request.send().await?.status())
    };
    match asked.await {
        Ok(status) if status.as_u16() < 500 => {
            found.push(Finding::ok(what, &site.server, "answers"));
            true
        }
        Ok(status) => {
            let fix = "the message server or the proxy in front of it is in trouble: look at its log";
            found.push(Finding::fail(what, &site.server, format!("answers {status}"), fix));
            false
        }
        Err(error) => {
            let (said, fix) = finding::unreachable(&error);
            found.push(Finding::fail(what, &site.server, said, fix));
            false
        }
    }
}

async fn sockets(session: &Session, site: &Site, found: &mut Vec<Finding>) {
    let fix = "a proxy on the way does not pass WebSockets: let it forward the headers Upgrade and Connection, with HTTP/1.1";
    match session.open_socket().await {
        Ok(101) => found.push(Finding::ok("websocket", &site.server, "opens")),
        Ok(status) => found.push(Finding::fail("websocket", &site.server, format!("answered {status} instead of 101"), fix)),
        Err(error) => found.push(Finding::fail("websocket", &site.server, format!("{error:#}"), fix)),
    }
}

async fn from_site(session: &Session) -> anyhow::Result<Probe> {
    let (asked, asked_ms) = (Instant::now(), unix_ms());
    let answer: serde_json::Value = session.post("/ops/probe", &serde_json::json!({})).await?.json().await?;
    // Their clocks were read about half-way between the question and the answer.
    let half = half_ms(asked);
    let ours = asked_ms + half;
    let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
    let list = |name: &str| answer[name].as_array().into_iter().flatten().filter_map(|one| one.as_str().map(str::to_owned)).collect();
    let time = |name: &str| answer[name].as_i64().unwrap_or_default();
    Ok(Probe {
        ufrag: text("ufrag"),
        pwd: text("pwd"),
        udp: list("udp"),
        tcp: list("tcp"),
        warnings: list("warnings"),
        clocks: vec![("message server", time("now_ms"), ours, half), ("media node", time("node_now_ms"), ours, half)],
    })
}

async fn from_node(node: &NodeAddress) -> anyhow::Result<Probe> {
    let (asked, asked_ms) = (Instant::now(), unix_ms());
    let probe: v1::ProbeResponse = node.probe().await?;
    let half = half_ms(asked);
    let ours = asked_ms + half;
    Ok(Probe {
        ufrag: probe.ufrag,
        pwd: probe.pwd,
        udp: probe.udp,
        tcp: probe.tcp,
        warnings: probe.warnings,
        clocks: vec![("media node", probe.now_ms, ours, half)],
    })
}

fn half_ms(since: Instant) -> i64 {
    i64::try_from(since.elapsed().as_millis() / 2).unwrap_or_default()
}

fn unix_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or_default())
}
