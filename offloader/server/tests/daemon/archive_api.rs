//! The archive as an officer uses it: find, play, download, verify; and what is written down about that.

use archive::bundle::verify_bundle;
use archive::capture::{CaptureWriter, StartInfo};
use archive::keys::SiteSigner;
use reqwest::header;
use serde_json::Value;
use sqlx::Connection;

use crate::house::{House, until};
use crate::worker::{SENTENCES, media_bytes};

async fn house() -> House {
    House::with(|settings| settings.model_path = Some("/some/model.bin".into())).await
}

async fn found(house: &House, query: &str) -> Vec<String> {
    let answer = house.json(&format!("/recordings?{query}")).await;
    answer["recordings"].as_array().unwrap().iter().map(|recording| recording["title"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn officer_finds_plays_downloads_and_proves_a_recording() {
    let house = house().await;
    let id = house.recorded("c-1", "Planning").await;
    finds_it_by_what_was_said_and_who_was_there(&house, &id).await;
    plays_it(&house, &id).await;
    reads_it(&house, &id).await;
    proves_it(&house, &id).await;
    every_access_is_written_down(&house, &id).await;
}

async fn finds_it_by_what_was_said_and_who_was_there(house: &House, id: &str) {
    let answer = house.json("/recordings?q=QUARTERLY").await;
    let recording = &answer["recordings"][0];
    assert_eq!(recording["id"], id);
    let hit = &recording["hits"][0];
    assert_eq!((hit["speaker"].as_str(), hit["start_ms"].as_i64()), (Some("Ann"), Some(1000)));
    assert_eq!((hit["text"].as_str(), hit["match"].as_str()), (Some(SENTENCES[1]), Some("quarterly")));
    let planning = vec!["Planning".to_owned()];
    for query in [
        "q=thurs",
        "q=%22quarterly+report%22",
        "q=nunez",
        "q=Se%C3%B1or",
        "person=u-1",
        "person=ann",
        "channel=ch-1",
        "channel=town",
        "q=report&person=Ann",
        "from=1",
        "",
    ] {
        assert_eq!(found(house, query).await, planning, "{query}");
    }
    for query in [
        "q=tuesday",
        "q=%22report+quarterly%22",
        "q=morning+thursday",
        "person=ben",
        "person=%25",
        "channel=_",
        "to=1",
        "q=report&person=ben",
        "q=%22%22%27%3B",
        "q=NEAR(a",
    ] {
        assert_eq!(found(house, query).await, [""; 0], "{query}");
    }
    let detail = house.json(&format!("/recordings/{id}")).await;
    assert_eq!(detail["state"], "sealed");
    assert_eq!(detail["participants"][0]["display_name"], "Ann");
    assert_eq!(detail["render"]["mime"], "audio/mp4");
    assert_eq!((detail["transcript"]["words"].as_i64(), detail["transcript"]["language"].as_str()), (Some(12), Some("en")));
    assert_eq!(detail["tracks"][0]["source"], "microphone");
    assert_eq!(detail["consents"][0]["granted"], true);
    assert_eq!(detail["seal"]["root"].as_str().unwrap().len(), 64);
    assert!(detail["events"].as_array().unwrap().iter().any(|event| event["type"] == "joined"));
}

async fn plays_it(house: &House, id: &str) {
    let whole: Vec<u8> = (0..media_bytes()).map(|i| (i % 251) as u8).collect();
    let answer = house.get(&format!("/recordings/{id}/media")).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()[header::CONTENT_TYPE]), (200, &header::HeaderValue::from_static("audio/mp4")));
    assert_eq!(answer.headers()[header::ACCEPT_RANGES], "bytes");
    assert!(answer.bytes().await.unwrap() == whole);
    let size = whole.len();
    let chunk = archive::limits::CHUNK_BYTES;
    for (from, to) in [(0, 1), (0, size), (5, 6), (chunk - 1, chunk + 1), (chunk, 2 * chunk), (100, 3 * chunk + 7), (size - 1, size)] {
        let answer =
            house.get(&format!("/recordings/{id}/media")).header(header::RANGE, format!("bytes={from}-{}", to - 1)).send().await.unwrap();
        assert_eq!(answer.status(), 206);
        assert_eq!(answer.headers()[header::CONTENT_RANGE], format!("bytes {from}-{}/{size}", to - 1).as_str());
        assert!(answer.bytes().await.unwrap() == whole[from..to], "{from}..{to}");
    }
    let beyond = house.get(&format!("/recordings/{id}/media")).header(header::RANGE, format!("bytes={size}-")).send().await.unwrap();
    assert_eq!(beyond.status(), 416);
    // What lies in the archive is not the media.
    let stored = std::fs::read_dir(house.path(&format!("data/archive/recordings/{id}/derived"))).unwrap();
    for file in stored {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(64).any(|window| window == &whole[..64]));
        assert!(!bytes.windows(9).any(|window| window == b"quarterly"));
    }
    let download = house.get(&format!("/recordings/{id}/media?download=1")).send().await.unwrap();
    assert!(download.headers()[header::CONTENT_DISPOSITION].to_str().unwrap().starts_with("attachment"));
}

async fn reads_it(house: &House, id: &str) {
    let transcript = house.json(&format!("/recordings/{id}/transcript.json")).await;
    assert_eq!(transcript["segments"][2]["text"], SENTENCES[2]);
    let text = house.get(&format!("/recordings/{id}/transcript.txt")).send().await.unwrap().text().await.unwrap();
    assert_eq!(text, SENTENCES.join("\n"));
    let vtt = house.get(&format!("/recordings/{id}/transcript.vtt")).send().await.unwrap();
    assert_eq!(vtt.headers()[header::CONTENT_TYPE], "text/vtt; charset=utf-8");
}

async fn verified(house: &House, id: &str) -> Value {
    house.post(&format!("/recordings/{id}/verify")).send().await.unwrap().json().await.unwrap()
}

async fn proves_it(house: &House, id: &str) {
    let report = verified(house, id).await;
    assert_eq!((&report["ok"], &report["signature_ok"]), (&true.into(), &true.into()), "{report}");
    let segments = report["checked_segments"].as_u64().unwrap();
    assert!(segments >= 1);

    let answer = house.get(&format!("/recordings/{id}/bundle")).send().await.unwrap();
    let length = answer.content_length().unwrap();
    let bundle = answer.bytes().await.unwrap();
    assert_eq!(bundle.len() as u64, length);
    let key = SiteSigner::from_pkcs8(&std::fs::read(house.path("data/keys/signing.pk8")).unwrap()).unwrap().public();
    let offline = verify_bundle(&bundle[..], &[key]).unwrap();
    assert!(offline.ok, "{offline:?}");
    assert_eq!(offline.checked_segments, segments);
    assert_eq!(report["root"], offline.root.as_str());
    assert!(bundle.windows(20).any(|window| window == &SENTENCES[1].as_bytes()[..20]), "the transcript is readable in the bundle");
    for at in (0..bundle.len()).step_by(bundle.len() / 200) {
        let mut changed = bundle.to_vec();
        changed[at] ^= 1;
        assert!(!verify_bundle(&changed[..], &[]).unwrap().ok, "byte {at}");
    }
    // Nothing decrypted stays behind.
    until("the export's folder to go", || std::fs::read_dir(house.path("data/work")).unwrap().next().is_none()).await;
}

async fn every_access_is_written_down(house: &House, id: &str) {
    let accesses = house.json(&format!("/recordings/{id}/accesses")).await;
    let actions: Vec<&str> = accesses["accesses"].as_array().unwrap().iter().map(|access| access["action"].as_str().unwrap()).collect();
    for action in ["view", "play", "download", "verify", "read transcript.json"] {
        assert!(actions.contains(&action), "{action} is not in {actions:?}");
    }
    // Seven ranges and a whole file, but one person who played.
    assert_eq!(actions.iter().filter(|action| **action == "play").count(), 1);
    let mine = house.json("/accesses?mine=1").await;
    let search = mine["accesses"]
        .as_array()
        .unwrap()
        .iter()
        .find(|access| access["action"] == "search" && access["detail"].as_str().unwrap().contains("QUARTERLY"));
    assert_eq!(search.unwrap()["actor_name"], "Olga");
    let others = house.get("/accesses?mine=1").header("x-conclave-actor", "u-else").send().await.unwrap();
    // Two actor headers: the first counts, and that is Olga's.
    assert_eq!(others.json::<Value>().await.unwrap()["accesses"].as_array().unwrap().len(), mine["accesses"].as_array().unwrap().len());
}

#[tokio::test]
async fn any_change_in_the_archive_is_found_and_named() {
    let house = house().await;
    let id = house.recorded("c-1", "Planning").await;
    let folder = house.path(&format!("data/archive/recordings/{id}"));
    let mut files = vec![folder.join("manifest.jsonl"), folder.join("seal.json")];
    for part in ["segments", "derived"] {
        files.extend(std::fs::read_dir(folder.join(part)).unwrap().map(|file| file.unwrap().path()));
    }
    assert!(files.len() >= 7, "{files:?}");
    for file in files {
        let whole = std::fs::read(&file).unwrap();
        let mut changed = whole.clone();
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        std::fs::write(&file, &changed).unwrap();
        let report = verified(&house, &id).await;
        assert_eq!(report["ok"], false, "{}", file.display());
        let name = file.file_name().unwrap().to_str().unwrap();
        let bad = report["first_bad"]["segment"].as_str().unwrap();
        let derived = file.parent().unwrap().ends_with("derived");
        assert!(bad == name || (derived && (bad.starts_with("media") || bad.starts_with("transcript"))), "{bad} for {name}");
        std::fs::remove_file(&file).unwrap();
        assert_eq!(verified(&house, &id).await["ok"], false, "{} missing", file.display());
        std::fs::write(&file, &whole).unwrap();
    }
    assert_eq!(verified(&house, &id).await["ok"], true);
}

/// What somebody with the disk, the database and the site key can do: the recording again, in other words, under keys of their own.
async fn rewrite(house: &House, id: &str, forger: &SiteSigner) {
    let app = &house.daemon.as_ref().unwrap().app;
    let row = app.store.recording(id).await.unwrap().unwrap();
    let grant = forger.grant(id, 1, &app.data_key(&row).unwrap(), &row.wrapped_key, &app.keys.site.id()).unwrap();
    let made = house.path("forged");
    let (mut writer, _) = CaptureWriter::open(&made, &grant, StartInfo::default(), row.started_at_ms * 1000).unwrap();
    writer.participant(row.started_at_ms * 1000, "u-9".into(), "Nobody".into(), true).unwrap();
    writer.end(row.started_at_ms * 1000 + 1, "call_ended").unwrap();
    let seal = archive::seal::seal(&made, forger, row.started_at_ms + 1).unwrap();
    let stored = house.path(&format!("data/archive/recordings/{id}"));
    for file in ["manifest.jsonl", "seal.json"] {
        std::fs::copy(made.join(file), stored.join(file)).unwrap();
    }
    let mut database = sqlx::SqliteConnection::connect(&format!("sqlite://{}", house.path("data/offloader.db").display())).await.unwrap();
    sqlx::query("UPDATE recordings SET root = $1 WHERE id = $2").bind(&seal.root).bind(id).execute(&mut database).await.unwrap();
    sqlx::query("DELETE FROM derivatives WHERE recording_id = $1").bind(id).execute(&mut database).await.unwrap();
}

#[tokio::test]
async fn what_an_export_decrypted_is_gone_when_the_daemon_comes_back() {
    let mut house = house().await;
    house.close().await;
    let left = house.path("data/work/export-0198-cut-off");
    std::fs::create_dir_all(left.join("tracks")).unwrap();
    std::fs::write(left.join("tracks/a.ogg"), "what Ann said").unwrap();
    let attempt = house.path("data/work/job-unknown-1");
    std::fs::create_dir_all(&attempt).unwrap();
    house.open(|_| {}).await;
    assert!(!left.exists());
    assert!(attempt.exists(), "only exports' folders");
}

#[tokio::test]
async fn a_recording_written_anew_with_another_key_is_found_and_goes_nowhere() {
    let house = house().await;
    let id = house.recorded("c-1", "Planning").await;
    let forger = SiteSigner::from_pkcs8(&SiteSigner::generate_pkcs8().unwrap()).unwrap();
    rewrite(&house, &id, &forger).await;
    let report = verified(&house, &id).await;
    assert_eq!((&report["ok"], &report["signature_ok"]), (&false.into(), &false.into()), "{report}");
    let why = report["first_bad"]["reason"].as_str().unwrap();
    assert!(report["first_bad"]["segment"] == "seal.json" && why.contains(&forger.public().id()), "{report}");
    assert!(why.contains("OFFLOADER_OLDER_SIGNING_KEYS"), "{why}");
    let refused = house.get(&format!("/recordings/{id}/bundle")).send().await.unwrap();
    assert_eq!(refused.status(), 409);
    let refused: Value = refused.json().await.unwrap();
    let why = refused["error"]["message"].as_str().unwrap();
    assert!(refused["error"]["code"] == "changed" && why.contains(&forger.public().id()), "{refused}");
    // Nor is anything made from it.
    let app = &house.daemon.as_ref().unwrap().app;
    let error = app.fetch_into(&id, &house.path("fetched")).await.unwrap_err().to_string();
    assert!(error.contains(&forger.public().id()), "{error}");
    assert!(!house.path("fetched/manifest.jsonl").exists());
}

#[tokio::test]
async fn after_a_change_of_the_signing_key_the_older_one_counts_where_it_is_listed() {
    let mut house = house().await;
    let id = house.recorded("c-1", "Planning").await;
    let audited = house.path("data/archive/audit/heads");
    until("a signed head", || std::fs::read_dir(&audited).is_ok_and(|mut files| files.next().is_some())).await;
    house.close().await;
    let key = house.path("data/keys/signing.pk8");
    let older = SiteSigner::from_pkcs8(&std::fs::read(&key).unwrap()).unwrap().public();
    std::fs::remove_file(&key).unwrap();
    let file = house.path("older.pem");
    std::fs::write(&file, older.to_pem()).unwrap();
    house.open(|_| {}).await;
    let report = verified(&house, &id).await;
    assert_eq!(report["ok"], false, "{report}");
    assert!(report["first_bad"]["reason"].as_str().unwrap().contains("OFFLOADER_OLDER_SIGNING_KEYS"), "{report}");
    house.close().await;
    house.open(|settings| settings.older_signing_keys = vec![file.clone()]).await;
    let report = verified(&house, &id).await;
    assert_eq!(report["ok"], true, "{report}");
    assert_eq!(report["key_id"], older.id().as_str());
    let bundle = house.get(&format!("/recordings/{id}/bundle")).send().await.unwrap().bytes().await.unwrap();
    let now = SiteSigner::from_pkcs8(&std::fs::read(&key).unwrap()).unwrap().public();
    assert!(verify_bundle(&bundle[..], &[now, older]).unwrap().ok);
}

#[tokio::test]
async fn changed_or_shortened_audit_log_is_found() {
    let house = house().await;
    for i in 0..70 {
        house.get(&format!("/recordings?q=word{i}")).send().await.unwrap();
    }
    let heads = house.path("data/archive/audit/heads");
    // One is signed for the very first entries, the next after 64 more.
    let covers_the_searches = |file: std::io::Result<std::fs::DirEntry>| file.unwrap().file_name().to_str().unwrap() > "000000000060.json";
    until("a signed head in the object store", || std::fs::read_dir(&heads).is_ok_and(|mut files| files.any(covers_the_searches))).await;
    let check = || async { house.post("/audit/verify").send().await.unwrap().json::<Value>().await.unwrap() };
    assert_eq!(check().await["ok"], true);
    let mut database = sqlx::SqliteConnection::connect(&format!("sqlite://{}", house.path("data/offloader.db").display())).await.unwrap();
    // Somebody with the database changes what was searched for, puts it back, takes the end away.
    let (detail,): (String,) = sqlx::query_as("SELECT detail FROM audit WHERE n = 5").fetch_one(&mut database).await.unwrap();
    sqlx::query("UPDATE audit SET detail = 'nothing' WHERE n = 5").execute(&mut database).await.unwrap();
    let report = check().await;
    assert_eq!((&report["ok"], &report["first_bad"]), (&false.into(), &"entry 5".into()));
    sqlx::query("UPDATE audit SET detail = $1 WHERE n = 5").bind(detail).execute(&mut database).await.unwrap();
    assert_eq!(check().await["ok"], true);
    sqlx::query("DELETE FROM audit WHERE n > 10").execute(&mut database).await.unwrap();
    sqlx::query("DELETE FROM audit_heads").execute(&mut database).await.unwrap();
    let report = check().await;
    assert_eq!(report["ok"], false);
    assert!(report["first_bad"].as_str().unwrap().contains("missing"), "{report}");
}

#[tokio::test]
async fn long_lists_come_in_pages() {
    let house = House::with(|settings| settings.worker_bin = "/bin/false".into()).await;
    let mut client = house.client().await;
    for i in 0..5 {
        client.submit(crate::house::record(&format!("c-{i}"), &format!("Call {i}"))).await.unwrap();
    }
    let (mut titles, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = house.json(&format!("/recordings?limit=2&cursor={cursor}")).await;
        titles.extend(page["recordings"].as_array().unwrap().iter().map(|recording| recording["title"].as_str().unwrap().to_owned()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(titles, ["Call 4", "Call 3", "Call 2", "Call 1", "Call 0"]);
}
