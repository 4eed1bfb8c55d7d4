//! `conclave doctor --mattermost`: the hops between an offloader's machine and a Mattermost site, each named with its fix when it fails.

#![cfg(test)]

use std::path::Path;

use fake_mattermost::{Fake, LiveKit};
use integration_tests::program;
use serde_json::Value;
use tokio::process::Command;

async fn site() -> Fake {
    let livekit = LiveKit { url: "ws://127.0.0.1:1".to_owned(), key: "key".to_owned(), secret: "secret".to_owned() };
    Fake::start_v2(livekit).await.unwrap()
}

async fn doctor(url: &str, more: &[&str]) -> (bool, Vec<Value>) {
    let output =
        Command::new(program("conclave").unwrap()).args(["doctor", "--json", "--mattermost", url]).args(more).output().await.unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(report["ok"].as_bool(), Some(output.status.success()));
    (output.status.success(), report["findings"].as_array().unwrap().clone())
}

fn of<'a>(findings: &'a [Value], check: &str) -> &'a Value {
    findings.iter().find(|finding| finding["check"] == check).unwrap_or_else(|| panic!("nothing about {check}: {findings:?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_can_be_reached_is_well_hop_by_hop() {
    let fake = site().await;
    let (well, findings) = doctor(&format!("{}/", fake.url), &[]).await;
    assert!(well, "{findings:?}");
    for check in ["address", "http", "clock", "plugin", "websocket", "upload"] {
        assert_eq!(of(&findings, check)["outcome"], "ok", "{findings:?}");
    }
    let found = of(&findings, "plugin")["found"].as_str().unwrap();
    assert!(found.contains("version 2.0.0") && found.contains("LiveKitURL"), "{found}");
    assert!(of(&findings, "upload")["found"].as_str().unwrap().contains("16 MiB"), "{findings:?}");
    assert_eq!(fake.violations(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_proxy_does_not_pass_is_named_with_the_fix() {
    let fake = site().await;
    fake.faults(|faults| (faults.body_limit, faults.no_websockets, faults.no_plugin) = (Some(8 << 20), true, true));
    let (well, findings) = doctor(&fake.url, &[]).await;
    assert!(!well);
    assert_eq!(of(&findings, "http")["outcome"], "ok");
    for (check, outcome, fix) in
        [("plugin", "fail", "/plugins/"), ("websocket", "fail", "Upgrade"), ("upload", "warn", "client_max_body_size")]
    {
        let finding = of(&findings, check);
        assert_eq!(finding["outcome"], outcome, "{finding}");
        assert!(finding["fix"].as_str().unwrap().contains(fix), "{finding}");
    }
    fake.faults(|faults| faults.body_limit = Some(1 << 20));
    let (_, findings) = doctor(&fake.url, &[]).await;
    let upload = of(&findings, "upload");
    assert!(upload["outcome"] == "fail" && upload["found"].as_str().unwrap().contains("no recording can be uploaded"), "{upload}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_is_another_or_nobodys_is_told() {
    let fake = site().await;
    // Mattermost is not below that path.
    let (well, findings) = doctor(&format!("{}/chat", fake.url), &[]).await;
    let http = of(&findings, "http");
    assert!(!well && http["outcome"] == "fail" && http["fix"].as_str().unwrap().contains("with its path"), "{http}");
    let (well, findings) = doctor("http://127.0.0.1:1", &[]).await;
    let http = of(&findings, "http");
    assert!(!well && http["fix"].as_str().unwrap().contains("nothing listens there"), "{http}");
    let (well, findings) = doctor("http://no-such-host.invalid", &[]).await;
    assert!(!well && of(&findings, "address")["outcome"] == "fail", "{findings:?}");
    let (well, findings) = doctor("ftp://chat.example.org", &[]).await;
    assert!(!well && of(&findings, "address")["found"].as_str().unwrap().contains("no address of a web server"), "{findings:?}");
}

/// A site over TLS with a certificate of nobody's authority, and its PEM file.
async fn own_authority(folder: &Path) -> (String, String) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let pem = folder.join("ca.pem");
    std::fs::write(&pem, made.cert.pem()).unwrap();
    let config =
        axum_server::tls_rustls::RustlsConfig::from_pem(made.cert.pem().into(), made.signing_key.serialize_pem().into()).await.unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let ping = axum::routing::get(|| async { axum::Json(serde_json::json!({ "status": "OK" })) });
    let elsewhere = axum::routing::get(|| async { axum::response::Redirect::temporary("https://chat.example.org/") });
    let app = axum::Router::new().route("/api/v4/system/ping", ping).route("/old/api/v4/system/ping", elsewhere);
    tokio::spawn(axum_server::from_tcp_rustls(listener, config).unwrap().serve(app.into_make_service()));
    (format!("https://localhost:{port}"), pem.to_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_believed_only_where_its_authority_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (url, pem) = own_authority(folder.path()).await;
    let (well, findings) = doctor(&url, &[]).await;
    let https = of(&findings, "https");
    assert!(!well && https["fix"].as_str().unwrap().contains("TLS_CA_CERT_FILE"), "{https}");
    let (_, findings) = doctor(&url, &["--mattermost-ca", &pem]).await;
    assert_eq!(of(&findings, "https")["outcome"], "ok", "{findings:?}");
    // Tokens do not follow to another host.
    let (well, findings) = doctor(&format!("{url}/old"), &["--mattermost-ca", &pem]).await;
    let https = of(&findings, "https");
    assert!(!well && https["found"].as_str().unwrap().contains("https://chat.example.org/"), "{https}");
    std::fs::write(&pem, "nothing").unwrap();
    let (well, findings) = doctor(&url, &["--mattermost-ca", &pem]).await;
    assert!(!well && of(&findings, "certificate")["found"].as_str().unwrap().contains("certificate"), "{findings:?}");
}
