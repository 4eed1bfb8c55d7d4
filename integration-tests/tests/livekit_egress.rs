//! LiveKit's egress with all its parts: a media node, an offloader, its worker, participants of a stack that is not ours.

#![cfg(test)]

mod egress_stage;

use std::time::Duration;

use egress_stage::{Stage, appear, corners, probe, talk};
use integration_tests::until;
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_is_recorded_to_a_file_and_webhooks_tell_of_it() {
    let mut stage = Stage::open(&[]).await;
    let ann = stage.join("the daily", "ann").await;
    let talking = tokio::spawn(talk(ann.publish_opus("mic", 77).await.unwrap()));

    let outside = json!({ "roomName": "the daily", "fileOutputs": [{ "filepath": "../out.mp4" }] });
    let (status, refused) = stage.ask("Egress/StartRoomCompositeEgress", outside).await;
    assert_eq!((status, refused["code"].as_str()), (412, Some("failed_precondition")), "{refused}");

    let wanted = json!({ "roomName": "the daily", "fileOutputs": [{ "filepath": "days/{room_name}" }], "preset": "H264_720P_30" });
    let (status, info) = stage.ask("Egress/StartRoomCompositeEgress", wanted).await;
    assert_eq!((status, &info["room_name"]), (200, &json!("the daily")), "{info}");
    let egress = &info["egress_id"];
    assert!(egress.as_str().is_some_and(|id| id.starts_with("EG_")));
    stage.reaches(egress, "EGRESS_ACTIVE").await;
    let (_, rooms) = stage.ask("RoomService/ListRooms", json!({})).await;
    assert_eq!(rooms["rooms"][0]["active_recording"], true);
    stage.has_media(1).await;

    let (status, stopping) = stage.ask("Egress/StopEgress", json!({ "egressId": egress })).await;
    assert_eq!(status, 200, "{stopping}");
    let complete = stage.reaches(egress, "EGRESS_COMPLETE").await;
    let file = stage.file("days/the daily.mp4");
    let bytes = std::fs::read(&file).unwrap();
    let result = &complete["file_results"][0];
    assert_eq!((&result["location"], &result["size"]), (&json!(file), &json!(bytes.len().to_string())));
    assert!(result["duration"].as_str().unwrap().parse::<u64>().unwrap() > 1_000_000_000, "{result}");
    let beside = stage.file(&format!("days/{}.json", egress.as_str().unwrap()));
    assert_eq!(complete["manifest_location"], json!(beside));
    let manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(&beside).unwrap()).unwrap();
    assert_eq!((&manifest["egress_id"], &manifest["room_name"]), (egress, &json!("the daily")));
    assert_eq!(manifest["files"], json!([{ "filename": "days/the daily.mp4", "location": file }]));
    for part in [&b"ftyp"[..], b"avc1", b"mp4a", b"moov"] {
        assert!(bytes.windows(part.len()).any(|window| window == part), "an MP4 with pictures and sound");
    }

    let (status, again) = stage.ask("Egress/StopEgress", json!({ "egressId": egress })).await;
    assert_eq!((status, again["code"].as_str()), (412, Some("failed_precondition")));
    let (_, none) = stage.ask("Egress/StopEgress", json!({ "egressId": "EG_none" })).await;
    assert_eq!(none["code"], "not_found");
    let (_, active) = stage.ask("Egress/ListEgress", json!({ "active": true })).await;
    assert!(active.get("items").is_none(), "{active}");
    until("nobody is vouched for any more", async || {
        let (_, rooms) = stage.ask("RoomService/ListRooms", json!({})).await;
        rooms["rooms"][0].get("active_recording").is_none()
    })
    .await
    .unwrap();

    let mut told: Vec<(String, String)> = Vec::new();
    while told.last().is_none_or(|(name, _)| name != "egress_ended") {
        let event = tokio::time::timeout(Duration::from_secs(60), stage.events.recv()).await.expect("in time").expect("an event").event;
        let Some(info) = event.get("egressInfo") else { continue };
        assert_eq!(&info["egressId"], egress);
        let status = info["status"].as_str().unwrap_or("EGRESS_STARTING");
        told.push((event["event"].as_str().unwrap().to_owned(), status.to_owned()));
        if status == "EGRESS_COMPLETE" {
            assert_eq!(info["fileResults"][0]["location"], json!(file));
        }
    }
    assert_eq!(told.first().unwrap().0, "egress_started");
    assert_eq!(told.last().unwrap(), &("egress_ended".to_owned(), "EGRESS_COMPLETE".to_owned()));
    assert!(told[1..told.len() - 1].iter().all(|(name, _)| name == "egress_updated"), "{told:?}");
    talking.abort();
    ann.leave().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_person_or_single_tracks_are_recorded_and_nobody_else() {
    let stage = Stage::open(&[]).await;
    let (ann, bob) = (stage.join("r", "ann").await, stage.join("r", "bob").await);
    let (anns, bobs) = (appear(&ann, 100).await, appear(&bob, 200).await);
    let tracks = stage.tracks("r", "ann", 2).await;
    let sid = |kind: &str| {
        // The default kind, sound, is left out of the JSON.
        let found = tracks.iter().find(|track| track.get("type").map_or("AUDIO", |kind| kind.as_str().unwrap()) == kind);
        found.unwrap_or_else(|| panic!("{kind}: {tracks:?}"))["sid"].clone()
    };
    let (mic, cam) = (sid("AUDIO"), sid("VIDEO"));

    let ask = async |method: &str, body| stage.ask(&format!("Egress/{method}"), body).await;
    let file = |name: &str| json!([{ "filepath": name }]);
    let nobody = ask("StartParticipantEgress", json!({ "roomName": "r", "identity": "carol", "fileOutputs": file("x") })).await;
    assert_eq!((nobody.0, nobody.1["msg"].as_str()), (404, Some("participant does not exist")));
    let nothing = ask("StartTrackEgress", json!({ "roomName": "r", "trackId": "TR_none", "file": { "filepath": "x" } })).await;
    assert_eq!((nothing.0, nothing.1["msg"].as_str()), (404, Some("track is not found")));
    let wrong = json!({ "roomName": "r", "audioTrackId": cam, "fileOutputs": file("x") });
    let (status, wrong) = ask("StartTrackCompositeEgress", wrong).await;
    assert_eq!((status, wrong["code"].as_str()), (400, Some("invalid_argument")), "{wrong}");

    let person = json!({ "roomName": "r", "identity": "ann", "fileOutputs": file("{publisher_identity}") });
    let person = stage.start("StartParticipantEgress", person).await;
    let both = json!({ "roomName": "r", "audioTrackId": mic, "videoTrackId": cam, "fileOutputs": file("both.mp4") });
    let both = stage.start("StartTrackCompositeEgress", both).await;
    let sound = json!({ "roomName": "r", "trackId": mic, "file": { "filepath": "{track_type}-{track_source}", "disableManifest": true } });
    let sound = stage.start("StartTrackEgress", sound).await;
    let pictures = stage.start("StartTrackEgress", json!({ "roomName": "r", "trackId": cam, "file": { "filepath": "cam.mp4" } })).await;
    let heard = json!({ "roomName": "r", "audioOnly": true, "fileOutputs": file("room") });
    let heard = stage.start("StartRoomCompositeEgress", heard).await;
    for egress in [&person, &both, &sound, &pictures, &heard] {
        let info = stage.reaches(egress, "EGRESS_ACTIVE").await;
        let names = ["participant", "track_composite", "track", "room_composite"];
        assert_eq!(names.iter().filter(|name| info.get(**name).is_some()).count(), 1, "it tells what was asked: {info}");
    }
    stage.has_media(5).await;
    // Everybody is seen by the room's egress; the others' tap is told of ann alone.
    for folder in std::fs::read_dir(stage.offloader_data().join("recordings")).unwrap().flatten() {
        let manifest = std::fs::read_to_string(folder.path().join("manifest.jsonl")).unwrap();
        let (anns, bobs) = (manifest.contains("\"identity\":\"ann\""), manifest.contains("\"identity\":\"bob\""));
        assert!(anns && bobs == manifest.contains("everybody's consent"), "{manifest}");
    }

    // A track that ends, ends its egress; the one of both goes on with the other.
    let mute = async |sid: &serde_json::Value| {
        stage.ask("RoomService/MutePublishedTrack", json!({ "room": "r", "identity": "ann", "trackSid": sid, "muted": true })).await
    };
    assert_eq!(mute(&mic).await.0, 200, "silence is no end");
    assert_eq!(stage.ask("Egress/StopEgress", json!({ "egressId": heard })).await.0, 200);
    let (file_of_room, whole) = (stage.file("room.ogg"), stage.reaches(&heard, "EGRESS_COMPLETE").await);
    assert_eq!(whole["file_results"][0]["location"], json!(file_of_room));
    assert_eq!(probe(&file_of_room).0, ["opus"]);
    // She leaves: nothing more comes of hers, while the room goes on.
    anns.iter().for_each(tokio::task::JoinHandle::abort);
    ann.leave().await.unwrap();
    for (egress, name, codecs) in [
        (&person, "ann.mp4", &["aac", "h264"][..]),
        (&both, "both.mp4", &["aac", "h264"]),
        (&sound, "audio-microphone.ogg", &["opus"]),
        (&pictures, "cam.webm", &["vp8"]),
    ] {
        let info = stage.reaches(egress, "EGRESS_COMPLETE").await;
        let file = stage.file(name);
        assert_eq!(info["file_results"][0]["location"], json!(file), "{info}");
        assert_eq!(info["source_type"], "EGRESS_SOURCE_TYPE_SDK");
        assert_eq!(info.get("manifest_location").is_none(), *egress == sound, "{info}");
        let (found, seconds) = probe(&file);
        assert_eq!(found, codecs, "{name}");
        // How much depends on how fast this machine went on to silence her.
        assert!(seconds > 0.1, "{name}: {seconds}");
        assert!(info["file_results"][0]["duration"].as_str().unwrap().parse::<u64>().unwrap() > 100_000_000, "{info}");
    }
    until("nobody is vouched for any more", async || {
        let (_, rooms) = stage.ask("RoomService/ListRooms", json!({})).await;
        rooms["rooms"][0].get("active_recording").is_none()
    })
    .await
    .unwrap();
    bobs.iter().for_each(tokio::task::JoinHandle::abort);
    bob.leave().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_request_asks_for_any_part_of_a_room_and_a_rooms_layout_changes() {
    let stage = Stage::open(&[]).await;
    let ann = stage.join("r", "ann").await;
    let anns = appear(&ann, 500).await;
    let mic = stage.tracks("r", "ann", 2).await.into_iter().find(|track| track.get("type").is_none()).expect("a sound")["sid"].clone();
    let file = |name: &str| json!([{ "file": { "filepath": name } }]);
    let room = json!({ "roomName": "r", "template": { "layout": "speaker" }, "outputs": file("room") });
    let room = stage.start("StartEgress", room).await;
    let her = json!({ "participantVideo": { "identity": "ann", "preferScreenShare": true }, "audio": { "routes": [{ "participantIdentity": "ann" }] } });
    let person = stage.start("StartEgress", json!({ "roomName": "r", "media": her, "outputs": file("{publisher_identity}") })).await;
    let sound = json!({ "audio": { "routes": [{ "trackId": mic }] } });
    let sound = json!({ "roomName": "r", "media": sound, "preset": "PASSTHROUGH", "outputs": file("{track_type}") });
    let sound = stage.start("StartEgress", sound).await;
    for (egress, source) in [(&room, "EGRESS_SOURCE_TYPE_WEB"), (&person, "EGRESS_SOURCE_TYPE_SDK"), (&sound, "EGRESS_SOURCE_TYPE_SDK")] {
        let info = stage.reaches(egress, "EGRESS_ACTIVE").await;
        assert_eq!(info["egress"]["room_name"], "r", "it tells what was asked: {info}");
        assert_eq!(info.get("source_type").map_or("EGRESS_SOURCE_TYPE_WEB", |kind| kind.as_str().unwrap()), source);
    }
    stage.has_media(3).await;

    let update = async |egress: &serde_json::Value, layout: &str| {
        stage.ask("Egress/UpdateLayout", json!({ "egressId": egress, "layout": layout })).await
    };
    for (egress, layout, status, code) in
        [(&json!("EG_none"), "grid", 404, "not_found"), (&room, "mosaic", 501, "unimplemented"), (&person, "grid", 501, "unimplemented")]
    {
        let (found, refused) = update(egress, layout).await;
        assert_eq!((found, refused["code"].as_str()), (status, Some(code)), "{refused}");
    }
    let (status, info) = update(&room, "single-speaker-light").await;
    assert_eq!((status, &info["egress_id"]), (200, &room), "{info}");
    // Something is said in the new layout too.
    tokio::time::sleep(Duration::from_secs(2)).await;
    anns.iter().for_each(tokio::task::JoinHandle::abort);
    ann.leave().await.unwrap();
    for (egress, name, codecs) in
        [(&room, "room.mp4", &["aac", "h264"][..]), (&person, "ann.mp4", &["aac", "h264"]), (&sound, "audio.ogg", &["opus"])]
    {
        stage.reaches(egress, "EGRESS_COMPLETE").await;
        assert_eq!(probe(&stage.file(name)).0, codecs, "{name}");
    }
    let corner = corners(&stage.file("room.mp4"));
    assert!(corner.first().is_some_and(|dark| *dark < 60) && corner.last().is_some_and(|light| *light > 200), "{corner:?}");
    let (status, late) = update(&room, "grid").await;
    assert_eq!((status, late["code"].as_str()), (412, Some("failed_precondition")), "{late}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_whose_maker_ordered_it_records_by_itself() {
    let mut stage = Stage::open(&[]).await;
    let egress = json!({
        "room": { "audioOnly": true, "fileOutputs": [{ "filepath": "whole/{room_name}" }] },
        "participant": { "fileOutputs": [{ "filepath": "people/{publisher_identity}" }] },
        "tracks": { "filepath": "tracks/{track_type}" },
    });
    let (status, refused) = stage.ask("RoomService/CreateRoom", json!({ "name": "r", "egress": { "tracks": { "azure": {} } } })).await;
    assert_eq!((status, refused["code"].as_str()), (501, Some("unimplemented")), "{refused}");
    let (status, room) = stage.ask("RoomService/CreateRoom", json!({ "name": "r", "egress": egress })).await;
    assert_eq!(status, 200, "{room}");
    let ann = stage.join("r", "ann").await;
    let anns = appear(&ann, 300).await;
    let tracks = stage.tracks("r", "ann", 2).await;
    let begun =
        async || stage.ask("Egress/ListEgress", json!({ "roomName": "r" })).await.1["items"].as_array().cloned().unwrap_or_default();
    until("the room, the person and both tracks are recorded", async || begun().await.len() >= 4).await.unwrap();
    let begun = begun().await;
    for info in &begun {
        stage.reaches(&info["egress_id"], "EGRESS_ACTIVE").await;
    }
    stage.has_media(4).await;
    anns.iter().for_each(tokio::task::JoinHandle::abort);
    ann.leave().await.unwrap();
    for info in &begun {
        stage.reaches(&info["egress_id"], "EGRESS_COMPLETE").await;
    }
    assert_eq!(probe(&stage.file("whole/r.ogg")).0, ["opus"]);
    assert_eq!(probe(&stage.file("people/ann.mp4")).0, ["aac", "h264"]);
    for track in &tracks {
        let (kind, ending) = if track.get("type").is_some() { ("video", "webm") } else { ("audio", "ogg") };
        let name = format!("tracks/{kind}-{}.{ending}", track["sid"].as_str().unwrap());
        assert_eq!(probe(&stage.file(&name)).0.len(), 1, "{name}");
    }
    assert_eq!(begun.len(), 4, "each once: {begun:?}");

    // What the offloader alone can know is told when it is due.
    let outside = json!({ "participant": { "fileOutputs": [{ "filepath": "../out" }] } });
    let (status, room) = stage.ask("RoomService/CreateRoom", json!({ "name": "elsewhere", "egress": outside })).await;
    assert_eq!(status, 200, "{room}");
    let bob = stage.join("elsewhere", "bob").await;
    let bobs = appear(&bob, 400).await;
    let failed = loop {
        let event = tokio::time::timeout(Duration::from_secs(60), stage.events.recv()).await.expect("in time").expect("an event").event;
        if event["egressInfo"]["roomName"] == "elsewhere" {
            break event;
        }
    };
    assert_eq!((&failed["event"], &failed["egressInfo"]["status"]), (&json!("egress_ended"), &json!("EGRESS_FAILED")), "{failed}");
    assert!(failed["egressInfo"]["error"].as_str().is_some_and(|error| !error.is_empty()), "{failed}");
    bobs.iter().for_each(tokio::task::JoinHandle::abort);
    bob.leave().await.unwrap();
}
