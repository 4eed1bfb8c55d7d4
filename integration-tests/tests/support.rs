//! `conclave support` of a whole site that runs: everything that helps is in the file, and nothing of what must not be.

#![cfg(test)]

use std::io::Write as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use integration_tests::{Site, program, until};
use rtc_client::{ClientError, Dial, Participant};
use serde_json::Value;
use tokio::process::Command;

/// Said over a data channel in the call.
const WORDS: &str = "the harbour master sails at dawn";
/// Of somebody in the call and somebody who has left.
const PEOPLE: [&str; 2] = ["ann-of-the-north", "bob-of-the-south"];
/// One among the settings, one in a log; both are for documents (RFC 5737).
const ADDRESSES: [&str; 2] = ["203.0.113.77", "198.51.100.23"];

/// All regular files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// The files below a folder that hold one of these.
fn holders(folder: &Path, what: &[Vec<u8>]) -> Vec<String> {
    let holds = |bytes: &[u8]| what.iter().find(|what| bytes.windows(what.len()).any(|window| window == what.as_slice()));
    let found = files(folder).into_iter().filter_map(|path| {
        let what = holds(&std::fs::read(&path).unwrap())?;
        Some(format!("{} holds {}", path.display(), String::from_utf8_lossy(what)))
    });
    found.collect()
}

/// Every file of secrets and keys, as it is, as hex and as base64.
fn secrets(site: &Site) -> Vec<Vec<u8>> {
    let data = site.data();
    let mut found: Vec<Vec<u8>> = site.spent.iter().map(|spent| spent.clone().into_bytes()).collect();
    found.push(site.password.clone().into_bytes());
    for name in ["secrets", "offloader/keys"] {
        let kept = files(&data.join(name));
        assert!(kept.len() >= 2, "{kept:?}");
        found.extend(kept.iter().map(|path| std::fs::read(path).unwrap()));
    }
    for name in ["message-server/media-token.key", "message-server/tls-key.pem"] {
        found.push(std::fs::read(data.join(name)).unwrap());
    }
    found
        .into_iter()
        .flat_map(|secret| {
            let secret = secret.trim_ascii().to_vec();
            assert!(secret.len() >= 16);
            let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
            [hex.into_bytes(), STANDARD_NO_PAD.encode(&secret).into_bytes(), secret]
        })
        .collect()
}

/// Makes a bundle and unpacks it; answers with what was said, and where its files are.
async fn bundle(site: &Site, folder: &Path, arguments: &[&str]) -> (String, PathBuf) {
    let file = folder.join("support.tar.gz");
    let output = Command::new(program("conclave").unwrap())
        .args(["support", "--output"])
        .arg(&file)
        .args(arguments)
        .env("CONCLAVE_DATA", site.data())
        .env("CONCLAVE_SERVER", &site.url)
        .env("CONCLAVE_RTCD", &site.rtcd_url)
        .env("CONCLAVE_OFFLOADER", &site.offloader_url)
        .env("CONCLAVE_USER", "admin")
        .env("CONCLAVE_PASSWORD", &site.password)
        .output()
        .await
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    let unpacked = Command::new("tar").arg("-xzf").arg(&file).arg("-C").arg(folder).status().await.unwrap();
    assert!(unpacked.success(), "any tar opens it");
    let inside = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap();
    (said, inside)
}

fn bytes(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_support_bundle_says_what_helps_and_nothing_that_is_secret_or_personal() {
    let proxies = format!("[\"{}\"]", ADDRESSES[0]);
    let site = Site::up(&[("MESSAGE_SERVER_TRUSTED_PROXIES", &proxies)]).await.unwrap();
    let token = std::fs::read_to_string(site.data().join("secrets/signal-token")).unwrap();
    let join = async |who| Participant::join(&Dial::new(&site.rtcd_url, &token, "standup", who), "127.0.0.1").await.unwrap();
    let (ann, mut heard) = join(PEOPLE[0]).await;
    let (bob, _events) = join(PEOPLE[1]).await;
    until("words are said", async || match bob.send_data(true, "chat", WORDS.as_bytes()).await {
        Ok(()) => true,
        Err(ClientError::NotOpen) => false,
        Err(error) => panic!("{error}"),
    })
    .await
    .unwrap();
    tokio::spawn(async move { while heard.recv().await.is_some() {} });
    bob.leave().await.unwrap();
    let url = format!("{}/api/v1/ops/departed", site.url);
    until("it is known that bob has left", async || {
        let asked = integration_tests::http_client().unwrap().get(&url).header("cookie", &site.spent[1]).send().await.unwrap();
        asked.text().await.unwrap().contains(PEOPLE[1])
    })
    .await
    .unwrap();
    // As if a part forgot itself: the bundle has a second door. And a log that is too long.
    let mut log = std::fs::OpenOptions::new().append(true).open(site.data().join("logs/rtcd.log")).unwrap();
    let debug = format!("{{\"level\":\"DEBUG\",\"fields\":{{\"message\":\"{} {}\"}}}}", PEOPLE[0], WORDS);
    writeln!(log, "{{\"level\":\"WARN\",\"fields\":{{\"message\":\"token {token} from {}:9\"}}}}\n{debug}", ADDRESSES[1]).unwrap();
    let mut log = std::fs::OpenOptions::new().append(true).open(site.data().join("logs/offloader.log")).unwrap();
    log.write_all("{\"level\":\"INFO\",\"fields\":{\"message\":\"again and again\"}}\n".repeat(90_000).as_bytes()).unwrap();

    let folder = tempfile::tempdir().unwrap();
    let (said, inside) = bundle(&site, folder.path(), &[]).await;
    let text = |name: &str| std::fs::read_to_string(inside.join(name)).unwrap_or_else(|_| panic!("no {name}: {said}"));
    let contents: Value = serde_json::from_str(&text("contents.json")).unwrap();
    assert_eq!(contents["missing"], serde_json::json!([]), "{said}");
    for (name, words) in [
        ("README.txt", "conclave support"),
        ("doctor.txt", "address"),
        ("node.txt", "version: \"0."),
        ("calls.txt", "sends: "),
        ("departed.json", "\"sends\": "),
        ("jobs.txt", "attempt"),
        ("settings/rtcd.txt", "signal.token=set"),
        ("settings/offloader.txt", "tap_secret=set"),
        ("settings/message-server.txt", "rtcd_token=set"),
        ("metrics/rtcd.txt", "conclave_rtcd_"),
        ("metrics/offloader.txt", "offloader_"),
        ("metrics/message-server.txt", "# TYPE"),
        ("health/message-server.txt", "\"media_node\":"),
        // "ready", or on a starved machine what is wrong.
        ("readiness/rtcd.txt", "\n"),
        ("machine.txt", "MemAvailable"),
        ("logs/rtcd.log", "\"ready\""),
        ("logs/message-server.log", "linked to the media node"),
    ] {
        assert!(text(name).contains(words), "{name} without {words}:\n{}", text(name));
    }
    // The line that forgot itself is there, without what it should not have said.
    assert!(text("logs/rtcd.log").contains("[secret] from [address "), "{}", text("logs/rtcd.log"));
    assert!(text("settings/message-server.txt").contains("[address "), "{}", text("settings/message-server.txt"));
    assert!(text("logs/offloader.log").len() <= 4 << 20 && text("logs/offloader.log").ends_with("again and again\"}}\n"));

    // The search finds what is there to be found …
    let secrets = secrets(&site);
    assert!(!holders(&site.data().join("secrets"), &secrets).is_empty());
    assert!(!holders(&site.data().join("logs"), &secrets).is_empty());
    let personal = bytes(&[WORDS, PEOPLE[0], PEOPLE[1], "Ada Admin", ADDRESSES[0], ADDRESSES[1]]);
    assert!(!holders(&site.data().join("logs"), &personal).is_empty());
    // … and finds nothing here.
    let nothing: [String; 0] = [];
    assert_eq!(holders(&inside, &secrets), nothing);
    assert_eq!(holders(&inside, &personal), nothing);

    log.set_len(0).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (said, inside) = bundle(&site, folder.path(), &["--identifying"]).await;
    assert!(said.contains("names are in it"), "{said}");
    for wanted in [PEOPLE[0], PEOPLE[1], ADDRESSES[0], ADDRESSES[1]] {
        assert!(!holders(&inside, &bytes(&[wanted])).is_empty(), "{wanted} was asked for");
    }
    assert_eq!(holders(&inside, &secrets), nothing, "whatever is asked");
    assert_eq!(holders(&inside, &bytes(&[WORDS])), nothing, "whatever is asked");
    drop(ann);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_of_a_site_that_is_down_says_what_it_could_not_get() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("logs")).unwrap();
    std::fs::write(folder.path().join("logs/rtcd.log"), "{\"level\":\"ERROR\",\"message\":\"the port is taken\"}\n").unwrap();
    let nobody = "http://127.0.0.1:1";
    let output = Command::new(program("conclave").unwrap())
        .args(["support", "--server", nobody, "--rtcd", nobody, "--offloader", nobody, "--data", ".", "--output", "support.tar.gz"])
        .current_dir(folder.path())
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    for what in ["node.txt", "calls.txt", "jobs.txt", "metrics/message-server.txt", "departed.json"] {
        assert!(said.contains(&format!("not in it: {what}: ")), "{what}: {said}");
    }
    let listed = Command::new("tar").args(["-xzOf", "support.tar.gz"]).current_dir(folder.path()).output().await.unwrap();
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(text.contains("the port is taken") && text.contains("FAIL  http"), "{text}");
}
