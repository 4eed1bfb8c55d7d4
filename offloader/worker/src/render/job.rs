//! The render job: a sealed recording in, one file out: MP4, M4A or Ogg, or a track as it is ([`super::track`]).

use std::time::Instant;

use archive::keys::DataKey;
use archive::read::Recording;
use offloader_jobs::egress::FileForm;
use offloader_jobs::order::{RenderOrder, RenderResult};

use super::effort::Content;
use super::media::{Film, Streams, init};
use super::scene::Scene;
use super::sound::{Mixer, RATE};
use super::track;
use super::video::VideoTrack;
use crate::audio::origin_us;
use crate::job::{Lease, Outcome, interruption};
use crate::room::Room;

/// Does a render job. Blocks for as long as it takes: give it a thread.
pub fn run(order: &RenderOrder, lease: &Lease) -> Outcome {
    let mut interrupted = None;
    let mut room = Room::new(&order.output_dir, order.free_bytes_min);
    let made = render(order, &mut |progress| {
        lease.set_progress(progress);
        interrupted = interruption(lease.word()).or_else(|| room.poll_missing(Instant::now()));
        interrupted.is_none()
    });
    match (interrupted, made) {
        (Some(outcome), _) => outcome,
        (None, Ok(Some(result))) => Outcome::Done(serde_json::to_string(&result).unwrap_or_default()),
        (None, Ok(None)) => Outcome::Released,
        (None, Err(error)) => room.failed("rendering failed", &error),
    }
}

/// Makes the file. `go_on` gets the progress and may say no.
pub fn render(order: &RenderOrder, go_on: &mut dyn FnMut(f32) -> bool) -> anyhow::Result<Option<RenderResult>> {
    init()?;
    let recording = Recording::open(&order.dir, &DataKey::from_hex(&order.data_key)?)?;
    std::fs::create_dir_all(&order.output_dir)?;
    if order.form == FileForm::Track {
        return track::write(&recording, &order.output_dir, go_on);
    }
    let origin = origin_us(&recording);
    let duration_us = (recording.shown_until_us() - origin).max(0);
    let mut videos = Vec::new();
    for track in recording.tracks().iter().filter(|t| t.info.kind == "video" && !t.segments.is_empty()) {
        match VideoTrack::open(&recording, track)? {
            Some(video) if video.screen || order.picture.cameras => videos.push(video),
            Some(_) => {}
            None => tracing::warn!(mime = %track.info.mime, "a track's codec is not known here: it is left out of the picture"),
        }
    }
    let (streams, file, mime) = match order.form {
        FileForm::Ogg => (Streams::OggSound, "media.ogg", "audio/ogg"),
        FileForm::SilentMp4 => (Streams::Pictures, "media.mp4", "video/mp4"),
        FileForm::Mp4 | FileForm::Track if videos.is_empty() && !order.picture.always => (Streams::Sound, "media.m4a", "audio/mp4"),
        FileForm::Mp4 | FileForm::Track => (Streams::Both, "media.mp4", "video/mp4"),
    };
    let (has_video, content) = (streams.has_pictures(), Content::of(&videos));
    let scene = Scene::new(&recording, &order.picture, origin, videos);
    let film = Film::create(&order.output_dir.join(file), &order.title, &order.picture, content, streams)?;
    let mixer = Mixer::new(&recording, origin)?;
    let timing = Timing { origin, duration_us, frame_rate: order.picture.frame_rate.max(1) as usize };
    let finished = write(film, mixer, scene, &timing, has_video, go_on)?;
    Ok(finished.then(|| RenderResult { file: file.into(), mime: mime.into(), duration_ms: duration_us / 1_000, has_video }))
}

/// When a recording begins, how long it is, and in how many pictures a second it is shown.
struct Timing {
    origin: i64,
    duration_us: i64,
    frame_rate: usize,
}

fn write(
    mut film: Film,
    mut mixer: Mixer<'_>,
    mut scene: Scene<'_>,
    timing: &Timing,
    has_video: bool,
    go_on: &mut dyn FnMut(f32) -> bool,
) -> anyhow::Result<bool> {
    let &Timing { origin, duration_us, frame_rate } = timing;
    // An empty recording still gives a file that plays.
    let blocks = (usize::try_from(duration_us)? * frame_rate).div_ceil(1_000_000).max(1);
    // 48 000 samples need not divide by the rate: each block goes to where its picture ends.
    let end_of = |n: usize| (n + 1) * RATE / frame_rate;
    for n in 0..blocks {
        // Progress is told once a second of the recording.
        if n % frame_rate == 0 && !go_on(n as f32 / blocks as f32) {
            return Ok(false);
        }
        let begin = n.checked_sub(1).map_or(0, end_of);
        let (sound, levels) = mixer.block(end_of(n) - begin)?;
        film.add_sound(&sound)?;
        if has_video {
            let now = origin + (n as i64 + 1) * 1_000_000 / frame_rate as i64;
            scene.advance(now, &levels)?;
            if let Some(picture) = scene.look(now) {
                film.add_picture(n as i64, picture)?;
            }
        }
    }
    film.finish(blocks as i64, scene.picture())?;
    Ok(true)
}
