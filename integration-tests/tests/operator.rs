//! What an operator types, against a running media node.

#![cfg(test)]

use integration_tests::{Rtcd, program};
use rtc_client::{Dial, Participant};
use tokio::process::Command;

async fn conclave(node: &Rtcd, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(program("conclave").unwrap())
        .args(arguments)
        .env("CONCLAVE_RTCD", &node.url)
        .env("RTCD_SIGNAL_TOKEN", &node.token)
        .output()
        .await
        .unwrap();
    (output.status.success(), format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conclave_status_names_the_call() {
    let node = Rtcd::start().await.unwrap();
    let (_alice, _events) = Participant::join(&Dial::new(&node.url, &node.token, "standup", "alice"), "127.0.0.1").await.unwrap();
    let (fine, text) = conclave(&node, &["status"]).await;
    assert!(fine, "{text}");
    assert!(text.contains("standup") && text.contains("alice"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conclave_status_says_where_it_looked_when_nothing_answers() {
    let node = Rtcd::start().await.unwrap();
    let (fine, text) = conclave(&node, &["status", "--rtcd", "http://127.0.0.1:1"]).await;
    assert!(!fine);
    assert!(text.contains("127.0.0.1:1") && text.contains("--rtcd"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conclave_drain_refuses_new_calls() {
    let node = Rtcd::start().await.unwrap();
    // An empty node would be gone by now.
    let (_alice, _events) = Participant::join(&Dial::new(&node.url, &node.token, "standup", "alice"), "127.0.0.1").await.unwrap();
    let (fine, text) = conclave(&node, &["drain", "--deadline-s", "60"]).await;
    assert!(fine && text.contains("--cancel"), "{text}");
    let bob = Dial::new(&node.url, &node.token, "new", "bob");
    let refused = Participant::join(&bob, "127.0.0.1").await.err().expect("a draining node took a new call").to_string();
    assert!(refused.contains("maintenance") && refused.contains("try again"), "{refused}");
    let (fine, text) = conclave(&node, &["status"]).await;
    assert!(fine && text.contains("DRAINING"), "{text}");

    let (fine, text) = conclave(&node, &["drain", "--cancel"]).await;
    assert!(fine, "{text}");
    Participant::join(&bob, "127.0.0.1").await.expect("a call after the drain was taken back");
}
