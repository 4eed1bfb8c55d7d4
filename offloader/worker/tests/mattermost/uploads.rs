//! Files that go to the server in several pieces, of the sizes that are used at a real one.

use fake_mattermost::Wants;
use rustix::process::Signal;

use super::people::{Screen, Talker};
use super::stage::{Stage, decoded, eventually};

/// What the proxy before the server takes at a time …
const BODY_MAX: usize = 6 << 20;
/// … and what the first piece of several has at least, by Mattermost's own rule.
const FIRST_PIECE: usize = 5 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_in_pieces_goes_on_where_it_stopped_whoever_ends_in_between() {
    let mut stage = Stage::open().await;
    stage.service.extra.push(("video_rate".to_owned(), "10000".to_owned()));
    let channel = stage.fake.channel("Town Square");
    let mut ada = Talker::join(&stage.fake, &channel, "ada-lovelace", 0).await;
    let asked = stage.record(&channel, Wants::default()).await;
    eventually("it has started", async || stage.fake.job(&asked.recording.id).is_some_and(|job| job.start_at > 0)).await;
    let screen = Screen::share_noise(&mut ada).await;
    ada.say(&vec![0.0; 16_000 * 15]).await;
    screen.stop(&ada).await;
    stage.fake.faults(|faults| (faults.body_limit, faults.uploads_held) = (Some(BODY_MAX), true));
    stage.fake.stop_recording(&channel);

    // Less is sent until the proxy takes it; then nothing more goes through.
    let requests = || stage.fake.upload_lengths();
    eventually("a piece after the first", async || {
        requests().iter().position(|length| *length == FIRST_PIECE).is_some_and(|first| requests().len() > first + 1)
    })
    .await;
    let sent = requests();
    let refused = sent.iter().take_while(|length| **length > BODY_MAX).count();
    assert!(refused > 0 && sent[refused] == FIRST_PIECE, "halved until it is taken, and no further: {sent:?}");
    assert_eq!(stage.fake.upload_bytes(), FIRST_PIECE as u64);
    stage.signal("publish_recording", Signal::KILL).await;
    eventually("another publisher", async || requests().len() > sent.len() + 1).await;
    stage.restart().await;
    let sent = stage.fake.upload_lengths().len();
    eventually("the publisher after the restart", async || stage.fake.upload_lengths().len() > sent).await;
    stage.fake.faults(|faults| faults.uploads_held = false);

    eventually("the post", async || !stage.fake.posts().is_empty()).await;
    stage.idle().await;
    let posts = stage.fake.posts();
    assert_eq!(posts.len(), 1, "{posts:?}");
    let media = stage.fake.file(&posts[0].file_ids[0]).unwrap();
    assert!(decoded(&media.bytes) > 14.0);
    assert_eq!(stage.fake.uploads_made(), 1, "gone on with, not begun anew");
    assert_eq!(stage.fake.upload_bytes(), media.bytes.len() as u64, "no byte went twice");
    assert_eq!(stage.fake.violations(), Vec::<String>::new());
}
