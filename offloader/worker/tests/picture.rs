//! What a recorded call looks like: layouts, portraits, and what people signal.
#![cfg(test)]

mod common;

use std::path::{Path, PathBuf};

use archive::keys::DataKey;
use common::film::{Still, portrait, still};
use common::recording::{Timed, Writer, pictures, voice};
use offload_worker::notes::Sign;
use offload_worker::render::job::render;
use offloader_jobs::egress::FileForm;
use offloader_jobs::layout::LaterLayout;
use offloader_jobs::mattermost::PictureProfile;
use offloader_jobs::order::RenderOrder;

const START_US: i64 = 1_795_000_000_000_000;
const SECOND: i64 = 1_000_000;
const RED: [u8; 3] = [250, 10, 10];
const BLUE: [u8; 3] = [10, 10, 250];
const GREEN: [u8; 3] = [0x3d, 0xd6, 0x8c];
const YELLOW: [u8; 3] = [0xff, 0xbc, 0x1f];

fn rendered(dir: &Path, data_key: &DataKey, layout: &str) -> PathBuf {
    rendered_with(dir, data_key, layout, &[])
}

/// With other layouts from some second on.
fn rendered_with(dir: &Path, data_key: &DataKey, layout: &str, later: &[(i64, &str)]) -> PathBuf {
    let later = later.iter().map(|(second, name)| LaterLayout { at_ms: START_US / 1_000 + second * 1_000, layout: name.parse().unwrap() });
    let picture = PictureProfile { always: true, layout: layout.parse().unwrap(), later: later.collect(), ..PictureProfile::default() };
    let order = RenderOrder {
        recording_id: "rec-1".into(),
        dir: dir.join("rec"),
        data_key: data_key.to_hex(),
        output_dir: dir.join(layout),
        title: "Weekly".into(),
        picture,
        form: FileForm::default(),
        free_bytes_min: 0,
    };
    let result = render(&order, &mut |_| true).unwrap().unwrap();
    dir.join(layout).join(result.file)
}

/// A second of speech every second from one to another.
fn speech(sid: &str, from_s: i64, to_s: i64) -> Vec<Timed> {
    let (tracks, _) = common::meeting();
    let loud: Vec<f32> = tracks[0].1.iter().copied().filter(|sample| sample.abs() > 0.02).collect();
    let samples: Vec<f32> = loud.into_iter().cycle().take(((to_s - from_s) * 16_000) as usize).collect();
    voice(sid, START_US + from_s * SECOND, &samples)
}

/// Ada, red, speaks for six seconds; then Bob, blue; from the twelfth second on Ada shares a yellow screen. Cem says nothing.
fn meeting(dir: &Path) -> DataKey {
    let mut writer = Writer::new(&dir.join("rec"), START_US);
    let mut packets = Vec::new();
    for (identity, name) in [("a", "Ada Lovelace"), ("b", "Bob Çelik"), ("c", "Cem")] {
        writer.person(identity, name);
    }
    for (identity, name, from, to) in [("a", "Ada Lovelace", 0, 6), ("b", "Bob Çelik", 6, 12)] {
        writer.track(&format!("mic-{identity}"), identity, name, "microphone", "audio/opus");
        packets.extend(speech(&format!("mic-{identity}"), from, to));
    }
    packets.extend(writer.portrait(START_US + 1_000, "a", portrait("red")));
    packets.extend(writer.portrait(START_US + 2_000, "b", portrait("blue")));
    writer.track("screen", "a", "Ada Lovelace", "screen_share", "video/VP8");
    packets.extend(pictures("screen", "VP8", "yellow", "1280x720", 4, START_US + 12 * SECOND));
    writer.finish(packets, START_US + 16 * SECOND)
}

/// The middle of the large place, of the first tile beside it, and the ground.
fn large_side_ground(still: &Still) -> ([u8; 3], [u8; 3], [u8; 3]) {
    (still.at(504, 300), still.at(1_140, 50), still.at(3, 3))
}

fn like(point: [u8; 3], colour: [u8; 3]) -> bool {
    point.iter().zip(colour).all(|(a, b)| a.abs_diff(b) < 60)
}

#[test]
fn who_speaks_is_large_or_the_shared_screen_and_the_others_stand_beside() {
    let dir = tempfile::tempdir().unwrap();
    let file = rendered(dir.path(), &meeting(dir.path()), "speaker");
    let (large, side, ground) = large_side_ground(&still(&file, 4.0));
    assert!(like(large, RED) && like(side, BLUE), "Ada speaks: {large:?} {side:?}");
    assert!(ground.iter().all(|value| *value < 50), "{ground:?}");
    // A word of Bob's does not take the place: it is his after the pause that ends Ada's turn.
    assert!(like(large_side_ground(&still(&file, 6.3)).0, RED));
    let during = still(&file, 10.0);
    let (large, side, _) = large_side_ground(&during);
    assert!(like(large, BLUE) && like(side, RED), "Bob speaks: {large:?} {side:?}");
    assert!(during.count(8..1_000, 8..12, GREEN) > 500, "his tile has the speaker's frame");
    let (large, side, _) = large_side_ground(&still(&file, 14.0));
    assert!(like(large, [250, 250, 10]) && like(side, RED), "the screen is large, Ada first beside it: {large:?} {side:?}");
}

#[test]
fn a_single_speaker_fills_the_picture_on_a_light_ground_where_that_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let key = meeting(dir.path());
    let file = rendered(dir.path(), &key, "single-speaker-light");
    for (second, colour) in [(4.0, RED), (10.0, BLUE), (14.0, [250, 250, 10])] {
        let still = still(&file, second);
        assert!(like(still.at(640, 300), colour), "{second}: {:?}", still.at(640, 300));
        assert!(like(still.at(3, 3), [255; 3]), "the ground");
        assert_eq!(still.count(1_010..1_270, 20..300, if colour == RED { BLUE } else { RED }), 0, "{second}: nobody beside");
    }
    let grid = still(&rendered(dir.path(), &key, "grid"), 4.0);
    // Three people in two rows: everybody has a tile of the same size.
    assert!(grid.count(8..636, 8..340, RED) > 5_000 && grid.count(644..1_272, 8..340, BLUE) > 5_000);
    still(&rendered(dir.path(), &key, "grid-light"), 14.0);
    still(&rendered(dir.path(), &key, "speaker-light"), 10.0);
}

#[test]
fn a_layout_holds_from_when_it_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let later = [(3, "single-speaker-light"), (7, "speaker"), (10, "grid")];
    let file = rendered_with(dir.path(), &meeting(dir.path()), "speaker", &later);
    // A picture stands until the next second; what is asked for is the one after.
    let (large, side, ground) = large_side_ground(&still(&file, 1.5));
    assert!(like(large, RED) && like(side, BLUE) && ground.iter().all(|value| *value < 50), "{large:?} {side:?} {ground:?}");
    let alone = still(&file, 4.0);
    assert!(like(alone.at(640, 300), RED) && like(alone.at(3, 3), [255; 3]));
    assert_eq!(alone.count(1_010..1_270, 20..300, BLUE), 0, "nobody beside");
    let (large, side, ground) = large_side_ground(&still(&file, 8.5));
    assert!(like(large, BLUE) && like(side, RED) && ground.iter().all(|value| *value < 50), "{large:?} {side:?} {ground:?}");
    let grid = still(&file, 10.5);
    assert!(grid.count(8..636, 8..340, RED) > 5_000 && grid.count(644..1_272, 8..340, BLUE) > 5_000);
}

#[test]
fn hands_hosts_mutes_and_reactions_are_seen_while_they_last() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::new(&dir.path().join("rec"), START_US);
    let mut packets = Vec::new();
    for (identity, name) in [("a", "Ada Lovelace"), ("b", "Bob")] {
        writer.person(identity, name);
    }
    writer.track("mic-a", "a", "Ada Lovelace", "microphone", "audio/opus");
    packets.extend(speech("mic-a", 0, 2));
    packets.extend(writer.portrait(START_US + 1_000, "b", b"\x89PNG\r\n\x1a\n but that is all of it".to_vec()));
    for (second, identity, sign) in [
        (1, "a", Sign::Host(true)),
        (2, "b", Sign::Hand(true)),
        (3, "a", Sign::Reaction("heart".into())),
        (3, "b", Sign::Reaction("party_blob".into())),
        (6, "b", Sign::Hand(false)),
    ] {
        packets.extend(writer.sign(START_US + second * SECOND + 10_000, identity, &sign));
    }
    // Nobody's: not of the people in the call.
    packets.extend(writer.sign(START_US + 4 * SECOND, "x", &Sign::Reaction("fire".into())));
    let file = rendered(dir.path(), &writer.finish(packets, START_US + 12 * SECOND), "grid");

    let (before, during, after) = (still(&file, 1.8), still(&file, 4.8), still(&file, 9.0));
    let muted = [0xe8, 0x5b, 0x6b];
    let marks = |still: &Still, x: std::ops::Range<usize>| still.count(x, 430..520, muted);
    assert!(marks(&before, 8..636) == 0 && marks(&before, 644..1_272) > 30, "Bob has no microphone, Ada has");
    let hand = |still: &Still| still.count(960..1_200, 190..330, YELLOW);
    assert!(hand(&before) < 20 && hand(&during) > 800 && hand(&after) < 20, "{} {} {}", hand(&before), hand(&during), hand(&after));
    assert!(during.count(100..320, 430..520, YELLOW) > 60, "the host's crown before Ada's name");
    let heart = |still: &Still| still.count(640..1_280, 690..720, [0xf0, 0x43, 0x5a]);
    assert!(heart(&before) == 0 && heart(&during) > 80 && heart(&after) == 0, "{} {} {}", heart(&before), heart(&during), heart(&after));
    let bright = |still: &Still| still.count(640..1_280, 690..720, [0xf4, 0xf6, 0xf8]);
    assert!(bright(&before) == 0 && bright(&during) > 60, "the name of what has no symbol");
}
