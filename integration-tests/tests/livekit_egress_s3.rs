//! LiveKit's egress to S3: a bucket that the operator permits, one whose keys are wrong, and one that nobody permits.

#![cfg(test)]

mod egress_stage;

use std::time::Duration;

use egress_stage::s3::{ACCESS_KEY, S3, SECRET};
use egress_stage::{Stage, probe, talk};
use serde_json::{Value, json};

fn room(endpoint: &str, secret: &str, name: &str) -> Value {
    let s3 = json!({
        "accessKey": ACCESS_KEY, "secret": secret, "bucket": "days", "endpoint": endpoint, "forcePathStyle": true,
        "metadata": { "case": "42" },
        "tagging": "kept=ten",
    });
    json!({ "roomName": "r", "audioOnly": true, "fileOutputs": [{ "filepath": name, "s3": s3 }] })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_goes_to_a_bucket_that_the_operator_permits_and_a_failure_says_why() {
    let s3 = S3::start().await;
    let mut stage = Stage::open(&[("OFFLOADER_EGRESS_S3", format!("https://s3.example, {}", s3.url))]).await;
    let ann = stage.join("r", "ann").await;
    let talking = tokio::spawn(talk(ann.publish_opus("mic", 77).await.unwrap()));
    stage.tracks("r", "ann", 1).await;

    let (status, refused) = stage.ask("Egress/StartRoomCompositeEgress", room("http://127.0.0.1:1", SECRET, "a")).await;
    assert_eq!((status, refused["code"].as_str()), (412, Some("failed_precondition")), "{refused}");
    assert!(refused["msg"].as_str().unwrap().contains("OFFLOADER_EGRESS_S3"), "{refused}");
    let (status, refused) = stage.ask("Egress/StartRoomCompositeEgress", room(&s3.url, SECRET, "../a")).await;
    assert_eq!((status, refused["code"].as_str()), (412, Some("failed_precondition")), "{refused}");

    let good = stage.start("StartRoomCompositeEgress", room(&s3.url, SECRET, "/of/{room_name}/é 1")).await;
    let bad = stage.start("StartRoomCompositeEgress", room(&s3.url, "not the secret of this bucket", "bad")).await;
    stage.has_media(2).await;
    // Overloaded for more than one try of ours.
    s3.bucket.lock().unwrap().faults = 6;
    for egress in [&good, &bad] {
        let (status, stopping) = stage.ask("Egress/StopEgress", json!({ "egressId": egress })).await;
        assert_eq!(status, 200, "{stopping}");
    }
    let complete = stage.reaches(&good, "EGRESS_COMPLETE").await;
    let failed = stage.reaches(&bad, "EGRESS_FAILED").await;

    let result = &complete["file_results"][0];
    let object = {
        let bucket = s3.bucket.lock().unwrap();
        assert_eq!(bucket.faults, 0);
        let beside = format!("/days/of/r/{}.json", good.as_str().unwrap());
        let names: Vec<&str> = bucket.objects.keys().map(String::as_str).collect();
        assert_eq!(names, ["/days/of/r/%C3%A9%201.ogg", &beside], "{:?}", bucket.asked);
        let manifest: Value = serde_json::from_slice(&bucket.objects[&beside].bytes).unwrap();
        assert_eq!(manifest["files"][0]["location"], complete["file_results"][0]["location"]);
        assert_eq!(complete["manifest_location"], format!("{}{beside}", s3.url));
        bucket.objects["/days/of/r/%C3%A9%201.ogg"].clone()
    };
    assert_eq!(result["location"], format!("{}/days/of/r/é 1.ogg", s3.url));
    assert_eq!((&result["filename"], &result["size"]), (&json!("/of/r/é 1.ogg"), &json!(object.bytes.len().to_string())));
    assert!(result["duration"].as_str().unwrap().parse::<u64>().unwrap() > 1_000_000_000, "{result}");
    assert_eq!((object.content_type.as_str(), object.metadata.get("case").map(String::as_str)), ("audio/ogg", Some("42")));
    assert_eq!(object.tagging, "kept=ten");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.ogg");
    std::fs::write(&file, &object.bytes).unwrap();
    assert_eq!(probe(&file).0, ["opus"]);
    assert!(!stage.file("of").exists(), "no copy lies in the folder");

    let error = failed["error"].as_str().unwrap();
    assert!(error.contains(&format!("cannot be brought to {}/days", s3.url)) && error.contains("in the archive"), "{error}");
    // Its secrets are told to nobody, and lie nowhere in the clear.
    for info in [&complete, &failed] {
        let s3 = &info["room_composite"]["file_outputs"][0]["s3"];
        assert_eq!((&s3["access_key"], &s3["secret"]), (&json!("{access_key}"), &json!("{secret}")), "{info}");
        assert!(!info.to_string().contains(ACCESS_KEY));
    }
    for name in ["offloader.db", "offloader.db-wal"] {
        let bytes = std::fs::read(stage.offloader_data().join(name)).unwrap_or_default();
        for secret in [ACCESS_KEY, SECRET, "not the secret"] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{secret} in {name}");
        }
    }
    assert!(std::fs::metadata(stage.offloader_data().join("offloader.db")).unwrap().len() > 0);

    let mut ended = Vec::new();
    while ended.len() < 2 {
        let event = tokio::time::timeout(Duration::from_secs(60), stage.events.recv()).await.expect("in time").expect("an event").event;
        if event["event"] == "egress_ended" {
            ended.push((event["egressInfo"]["egressId"].clone(), event["egressInfo"]["status"].clone()));
        }
    }
    assert!(ended.contains(&(good, json!("EGRESS_COMPLETE"))) && ended.contains(&(bad, json!("EGRESS_FAILED"))), "{ended:?}");
    talking.abort();
    ann.leave().await.unwrap();
}
