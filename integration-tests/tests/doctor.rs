//! `conclave doctor` and `conclave pcap` against the real programs: what is fine is said to be, what is broken is named with its fix.

#![cfg(test)]

use integration_tests::{MessageServer, Rtcd, program};
use rtc_client::{Dial, Participant};
use serde_json::Value;
use tokio::process::Command;

async fn conclave(server: &MessageServer, arguments: &[&str]) -> (Option<i32>, Vec<u8>, String) {
    let output = Command::new(program("conclave").unwrap())
        .args(arguments)
        .env("CONCLAVE_SERVER", &server.url)
        .env("CONCLAVE_USER", "admin")
        .env("CONCLAVE_PASSWORD", &server.password)
        .output()
        .await
        .unwrap();
    (output.status.code(), output.stdout, String::from_utf8_lossy(&output.stderr).into_owned())
}

async fn doctor(node: &Rtcd) -> (Option<i32>, Vec<Value>) {
    let server = MessageServer::start(node).await.unwrap();
    let (code, out, errors) = conclave(&server, &["doctor", "--json"]).await;
    let report: Value = serde_json::from_slice(&out).unwrap_or_else(|_| panic!("no report: {errors}"));
    (code, report["findings"].as_array().unwrap().clone())
}

fn outcome<'a>(findings: &'a [Value], check: &str) -> &'a Value {
    findings.iter().find(|finding| finding["check"] == check).unwrap_or_else(|| panic!("nothing about {check}: {findings:?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_is_well_gets_a_clean_bill() {
    let node = Rtcd::start().await.unwrap();
    let (code, findings) = doctor(&node).await;
    for check in ["address", "http", "sign-in", "websocket", "clock", "udp", "tcp", "mtu"] {
        assert_eq!(outcome(&findings, check)["outcome"], "ok", "{findings:?}");
    }
    assert_eq!(code, Some(0));
    let mtu = outcome(&findings, "mtu")["found"].as_str().unwrap();
    assert!(mtu.contains("1472 bytes"), "{mtu}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_advertised_address_is_named_with_the_setting_that_mends_it() {
    // Nobody listens at .2: the node is bound to .1.
    let node = Rtcd::start_with(|_| vec![("RTCD_RTC_ICEHOSTOVERRIDE", "127.0.0.2".to_owned())]).await.unwrap();
    let (code, findings) = doctor(&node).await;
    assert_eq!(code, Some(1));
    for check in ["udp", "tcp"] {
        let finding = outcome(&findings, check);
        assert_eq!(finding["outcome"], "fail", "{findings:?}");
        assert!(finding["target"].as_str().unwrap().starts_with("127.0.0.2:"), "{finding}");
        assert!(finding["fix"].as_str().unwrap().contains("CONCLAVE_ADVERTISE"), "{finding}");
    }
    assert_eq!(outcome(&findings, "websocket")["outcome"], "ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocked_tcp_alone_is_told_apart() {
    // Announced is the UDP port for both; over TCP the node is elsewhere.
    let elsewhere = integration_tests::free_port().unwrap();
    let node = Rtcd::start_with(|media| {
        vec![
            ("RTCD_RTC_ICEPORTTCP", elsewhere.to_string()),
            ("RTCD_RTC_ICEHOSTOVERRIDE", "127.0.0.1".to_owned()),
            ("RTCD_RTC_ICEHOSTPORTOVERRIDE", media.to_string()),
        ]
    })
    .await
    .unwrap();
    let (code, findings) = doctor(&node).await;
    assert_eq!(code, Some(1));
    assert_eq!(outcome(&findings, "udp")["outcome"], "ok", "{findings:?}");
    let tcp = outcome(&findings, "tcp");
    assert_eq!(tcp["outcome"], "fail", "{findings:?}");
    assert!(tcp["fix"].as_str().unwrap().contains("TCP"), "{tcp}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_there_and_a_wrong_password_are_told() {
    let node = Rtcd::start().await.unwrap();
    let server = MessageServer::start(&node).await.unwrap();
    let (code, out, _) = conclave(&server, &["doctor", "--server", "http://127.0.0.1:1"]).await;
    let text = String::from_utf8_lossy(&out).into_owned();
    assert!(code == Some(1) && text.contains("FAIL  http") && text.contains("nothing listens there"), "{text}");
    let (code, out, _) = conclave(&server, &["doctor", "--user", "nobody"]).await;
    let text = String::from_utf8_lossy(&out).into_owned();
    assert!(code == Some(1) && text.contains("FAIL  sign-in") && text.contains("CONCLAVE_PASSWORD"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_capture_by_command_is_a_file_and_an_entry_on_record() {
    let node = Rtcd::start().await.unwrap();
    let server = MessageServer::start(&node).await.unwrap();
    let (ann, _events) = Participant::join(&Dial::new(&node.url, &node.token, "standup", "ann"), "127.0.0.1").await.unwrap();
    let (code, file, said) = conclave(&server, &["pcap", "--participant", "ann", "--seconds", "1", "--reason", "no sound in room 4"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("on record"), "{said}");
    assert_eq!(file[..4], 0x0A0D_0D0A_u32.to_le_bytes(), "pcapng");
    let deeds: Value = serde_json::from_str(&server.get("/ops/deeds").await.unwrap()).unwrap();
    let deed = &deeds["deeds"][0];
    assert!(deed["by_name"] == "Ada Admin" && deed["subject_id"] == "ann" && deed["call_id"] == "standup", "{deeds}");
    assert!(deed["detail"].as_str().unwrap().contains("room 4"), "{deeds}");
    let (code, _, said) = conclave(&server, &["pcap", "--participant", "eve"]).await;
    assert!(code == Some(1) && said.contains("no running call"), "{said}");
    drop(ann);
}
