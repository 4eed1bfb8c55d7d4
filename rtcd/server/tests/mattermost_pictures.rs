//! Pictures of Mattermost's clients: two codecs at once, and what nobody has announced yet.

#![cfg(test)]

mod common;

use common::mattermost::Site;
use common::page::{Able, Page, SCREEN_ON, Seen, VIDEO_ON, sending};
use serde_json::json;
use str0m::format::Codec;

/// Numbers of the frames in VP8, and of those in AV1.
const VP8: std::ops::Range<u32> = 1_000_000..2_000_000;
const AV1: std::ops::Range<u32> = 2_000_000..3_000_000;

/// Waits until `count` frames of these numbers were heard, and none of the others meanwhile.
async fn hears_only(page: &mut Page, codec: Codec, numbers: std::ops::Range<u32>, count: usize) {
    let mut came = 0;
    page.until("frames of one codec", |seen| {
        if let Seen::Frame { codec: of, number, .. } = seen {
            assert_eq!((*of, numbers.contains(number)), (codec, true), "{number}");
            came += 1;
        }
        (came == count).then_some(())
    })
    .await;
}

/// Row 31: a screen comes twice, and each viewer is sent one of the two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_screen_in_two_codecs_each_viewer_is_sent_the_one_it_can_show() {
    let site = Site::registered().await;
    let mut ann = Page::comes(&site, "call", "ann", Able::with_av1()).await;
    ann.says(SCREEN_ON, &json!({ "screenStreamID": "screen" }));
    let vp8 = ann.publishes("screen", Codec::Vp8, VP8.start).await;
    let both = ann.publishes("screen", Codec::Av1, AV1.start).await;
    assert!(vp8.contains(" VP8/90000") && both.contains(" VP8/90000") && both.contains(" AV1/90000"), "{both}");

    let mut old = Page::comes(&site, "call", "old", Able::default()).await;
    let mut new = Page::comes(&site, "call", "new", Able::with_av1()).await;
    // What counts is what the plugin was told, not what the page's stack could do.
    let mut silent = Page::comes(&site, "call", "silent", Able { says_av1: false, ..Able::with_av1() }).await;
    for (page, codec, numbers) in [(&mut old, Codec::Vp8, VP8), (&mut new, Codec::Av1, AV1), (&mut silent, Codec::Vp8, VP8)] {
        let offer = page.offer("the screen", |sdp| sending(sdp, "screen").is_some()).await;
        assert_eq!(offer.matches(" screen_ann_").count(), 1, "one of two: {offer}");
        hears_only(page, codec, numbers, 50).await;
    }
}

/// Row 31: the original gives nothing to who knows AV1 where there is only VP8.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_knows_av1_is_sent_vp8_where_there_is_nothing_else() {
    let site = Site::registered().await;
    let mut ann = Page::comes(&site, "call", "ann", Able::with_av1()).await;
    ann.says(SCREEN_ON, &json!({ "screenStreamID": "screen" }));
    ann.publishes("screen", Codec::Vp8, VP8.start).await;
    let mut new = Page::comes(&site, "call", "new", Able::with_av1()).await;
    hears_only(&mut new, Codec::Vp8, VP8, 20).await;
    // The better one comes later, and takes its place.
    ann.publishes("screen", Codec::Av1, AV1.start).await;
    assert_eq!(new.hears("AV1", AV1, 1).await, Codec::Av1);
    hears_only(&mut new, Codec::Av1, AV1, 20).await;
}

/// Row 26: the page says what its camera is only after it sends it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_picture_that_nobody_announced_is_nobodys_until_somebody_does() {
    let site = Site::registered().await;
    let mut ann = Page::comes(&site, "call", "ann", Able::default()).await;
    let mut ben = Page::comes(&site, "call", "ben", Able::default()).await;
    ann.publishes("camera", Codec::Vp8, VP8.start).await;
    // What comes later is there before.
    ann.publishes("mic", Codec::Opus, 3_000_000).await;
    let offer = ben.offer("the voice", |sdp| sending(sdp, "voice").is_some()).await;
    assert!(!offer.contains("m=video"), "{offer}");
    let mut heard = 0;
    ben.until("the voice", |seen| {
        if let Seen::Frame { codec, .. } = seen {
            assert_eq!(*codec, Codec::Opus);
            heard += 1;
        }
        (heard == 20).then_some(())
    })
    .await;

    ann.says(VIDEO_ON, &json!({ "videoStreamID": "camera" }));
    ben.offer("the picture", |sdp| sending(sdp, "video").is_some()).await;
    assert_eq!(ben.hears("the picture", VP8, 20).await, Codec::Vp8);
}
