//! The site set-up: PostgreSQL instead of SQLite, S3 instead of a folder. The same stories, the same results.
//!
//! Each test starts the real server if the machine has it (`postgres`; `moto_server` from PyPI, or the
//! program named in TEST_S3_SERVER) and says so if not.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use archive::bundle::verify_bundle;
use offloader::objects::{ObjectError, Objects};

use crate::house::{House, until};
use crate::servers::{Server, free_port, postgres, program};
use crate::worker::SENTENCES;

#[tokio::test]
async fn the_whole_story_on_postgresql() {
    let Some((_server, url)) = postgres() else {
        eprintln!("no PostgreSQL on this machine: not tested against it");
        return;
    };
    let house = House::with(|settings| {
        settings.database.clone_from(&url);
        settings.model_path = Some("/some/model.bin".into());
    })
    .await;
    let id = house.recorded("c-1", "Planning").await;
    let answer = house.json("/recordings?q=QUARTERLY&person=ann&channel=town").await;
    assert_eq!(answer["recordings"][0]["id"], id.as_str());
    let hit = &answer["recordings"][0]["hits"][0];
    assert_eq!((hit["text"].as_str(), hit["match"].as_str()), (Some(SENTENCES[1]), Some("quarterly")));
    for (query, found) in [
        ("q=thurs", 1),
        ("q=%22quarterly+report%22", 1),
        ("q=%22report+quarterly%22", 0),
        ("q=tuesday", 0),
        ("q=%27%29%3B+%26+%7C+%21", 0),
        ("q=zz%3A*+%7C", 0),
    ] {
        let answer = house.json(&format!("/recordings?{query}")).await;
        assert_eq!(answer["recordings"].as_array().unwrap().len(), found, "{query}");
    }
    let bundle = house.get(&format!("/recordings/{id}/bundle")).send().await.unwrap().bytes().await.unwrap();
    assert!(verify_bundle(&bundle[..], &[]).unwrap().ok);
    let report: serde_json::Value = house.post("/audit/verify").send().await.unwrap().json().await.unwrap();
    assert_eq!(report["ok"], true, "{report}");
}

/// An S3 server with one bucket. Its address goes to the client as any operator gives it: by the environment.
async fn s3() -> Option<Server> {
    let named = std::env::var_os("TEST_S3_SERVER").map(PathBuf::from);
    let program = named.or_else(|| program(&["moto_server"]))?;
    let dir = tempfile::tempdir().unwrap();
    let port = std::env::var("AWS_ENDPOINT_URL").ok()?.rsplit(':').next()?.to_owned();
    let child = Command::new(program).args(["-H", "127.0.0.1", "-p", &port]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
    let server = Server::new(child, dir);
    let url = format!("http://127.0.0.1:{port}/evidence");
    let client = reqwest::Client::new();
    let begun = Instant::now();
    while !client.put(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
        assert!(begun.elapsed() < Duration::from_secs(60), "the S3 server does not answer");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Some(server)
}

/// Run by the test below in a process with the settings of an operator in its environment.
#[tokio::test]
async fn s3_process() {
    if std::env::var("AWS_ENDPOINT_URL").is_err() {
        return;
    }
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let _server = s3().await.unwrap();
    let house = House::with(|settings| {
        settings.archive = "s3://evidence/conclave".into();
        settings.model_path = Some("/some/model.bin".into());
    })
    .await;
    let id = house.recorded("c-1", "Planning").await;
    // Nothing of it is left on this machine: a player and an export read from S3.
    until("the local folder to go", || !house.path(&format!("data/recordings/{id}")).exists()).await;
    let range = house.get(&format!("/recordings/{id}/media")).header("range", "bytes=70000-70003").send().await.unwrap();
    assert_eq!((range.status().as_u16(), range.bytes().await.unwrap().len()), (206, 4));
    let report: serde_json::Value = house.post(&format!("/recordings/{id}/verify")).send().await.unwrap().json().await.unwrap();
    assert_eq!(report["ok"], true, "{report}");
    let bundle = house.get(&format!("/recordings/{id}/bundle")).send().await.unwrap().bytes().await.unwrap();
    assert!(verify_bundle(&bundle[..], &[]).unwrap().ok);
    // A sealed object is not overwritten.
    let objects = Objects::open("s3://evidence/conclave").unwrap();
    let name = format!("recordings/{id}/seal.json");
    let seal = objects.get(&name).await.unwrap();
    objects.put(&name, seal.clone()).await.unwrap();
    assert!(matches!(objects.put(&name, "forged".into()).await, Err(ObjectError::Differs(_))));
    assert_eq!(objects.get(&name).await.unwrap(), seal);
    println!("stored and read back over S3");
}

#[test]
fn the_whole_story_on_s3() {
    if std::env::var_os("TEST_S3_SERVER").is_none() && program(&["moto_server"]).is_none() {
        eprintln!("no S3 server on this machine (pip install 'moto[s3,server]'): not tested against it");
        return;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["site::s3_process", "--exact", "--nocapture"])
        .env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", free_port()))
        .env("AWS_ALLOW_HTTP", "true")
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env("AWS_REGION", "us-east-1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("stored and read back over S3"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn what_is_sealed_in_a_folder_is_not_overwritten_either() {
    let dir = tempfile::tempdir().unwrap();
    let objects = Objects::open(&format!("file://{}", dir.path().display())).unwrap();
    objects.put("a/b", "first".into()).await.unwrap();
    objects.put("a/b", "first".into()).await.unwrap();
    assert!(matches!(objects.put("a/b", "second".into()).await, Err(ObjectError::Differs(_))));
    assert_eq!(objects.get("a/b").await.unwrap(), "first");
}
