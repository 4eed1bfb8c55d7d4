//! The render job: a sealed recording in, one MP4 or M4A out.

use std::path::Path;

use archive::keys::DataKey;
use archive::read::Recording;
use offloader_jobs::order::{RenderOrder, RenderResult};

use super::layout::{GRID_TILES, fit, plan};
use super::media::{FRAME_RATE, Mp4, init};
use super::people::People;
use super::picture::{Picture, SPEAKING, Size, TILE, shorten};
use super::sound::{Mixer, RATE};
use super::video::VideoTrack;
use crate::audio::origin_us;
use crate::job::{Lease, Outcome, interruption};

/// Sound is mixed in blocks as long as a picture stands.
const BLOCK: usize = RATE / FRAME_RATE;
/// Progress is told once a second of the recording.
const TELL_EVERY: usize = FRAME_RATE;

/// Does a render job. Blocks for as long as it takes: give it a thread.
pub fn run(order: &RenderOrder, lease: &Lease) -> Outcome {
    let mut interrupted = None;
    let made = render(order, &mut |progress| {
        lease.set_progress(progress);
        interrupted = interruption(lease.word());
        interrupted.is_none()
    });
    match (interrupted, made) {
        (Some(outcome), _) => outcome,
        (None, Ok(Some(result))) => Outcome::Done(serde_json::to_string(&result).unwrap_or_default()),
        (None, Ok(None)) => Outcome::Released,
        (None, Err(error)) => Outcome::Failed { error: format!("rendering failed: {error:#}"), retry: true },
    }
}

/// Makes the file. `go_on` gets the progress and may say no.
pub fn render(order: &RenderOrder, go_on: &mut dyn FnMut(f32) -> bool) -> anyhow::Result<Option<RenderResult>> {
    init()?;
    let recording = Recording::open(&order.dir, &DataKey::from_hex(&order.data_key)?)?;
    let origin = origin_us(&recording);
    let duration_us = (recording.ended_at_us() - origin).max(0);
    let mut videos = Vec::new();
    for track in recording.tracks().iter().filter(|t| t.info.kind == "video" && !t.segments.is_empty()) {
        match VideoTrack::open(&recording, track)? {
            Some(video) => videos.push(video),
            None => tracing::warn!(mime = %track.info.mime, "a track's codec is not known here: it is left out of the picture"),
        }
    }
    let has_video = !videos.is_empty();
    let (file, mime) = if has_video { ("media.mp4", "video/mp4") } else { ("media.m4a", "audio/mp4") };
    std::fs::create_dir_all(&order.output_dir)?;
    let finished = write(&order.output_dir.join(file), order, &recording, origin, duration_us, &mut videos, go_on)?;
    Ok(finished.then(|| RenderResult { file: file.into(), mime: mime.into(), duration_ms: duration_us / 1_000, has_video }))
}

fn write(
    path: &Path,
    order: &RenderOrder,
    recording: &Recording,
    origin: i64,
    duration_us: i64,
    videos: &mut [VideoTrack<'_>],
    go_on: &mut dyn FnMut(f32) -> bool,
) -> anyhow::Result<bool> {
    let mut mixer = Mixer::new(recording, origin)?;
    let mut people = People::of(recording.manifest());
    let mut mp4 = Mp4::create(path, &order.title, !videos.is_empty())?;
    // An empty recording still gives a file that plays.
    let blocks = usize::try_from(duration_us)?.div_ceil(1_000_000 / FRAME_RATE).max(1);
    for n in 0..blocks {
        if n % TELL_EVERY == 0 && !go_on(n as f32 / blocks as f32) {
            return Ok(false);
        }
        let (sound, levels) = mixer.block(BLOCK)?;
        mp4.add_sound(&sound)?;
        if !videos.is_empty() {
            let now = origin + (n as i64 + 1) * 1_000_000 / FRAME_RATE as i64;
            people.handle_levels(now, &levels);
            for video in videos.iter_mut() {
                video.advance(now)?;
            }
            mp4.add_picture(draw(now, &people, videos).into_frame())?;
        }
    }
    mp4.finish()?;
    Ok(true)
}

fn draw(now: i64, people: &People, videos: &mut [VideoTrack<'_>]) -> Picture {
    let mut picture = Picture::new();
    // The screen shared last; who shares it is named on it.
    let screen = videos.iter_mut().rfind(|v| v.screen && v.visible(now));
    let shown = people.present(now, if screen.is_some() { 5 } else { GRID_TILES });
    let plan = plan(shown.len(), screen.is_some());
    if let (Some(screen), Some(area)) = (screen, plan.screen)
        && let Some((width, height)) = screen.size()
    {
        let into = fit(width, height, area);
        if let Some(scaled) = screen.scaled(into) {
            picture.draw(into, scaled);
        }
        if let Some(sharer) = shown.iter().find(|p| p.identity == screen.identity) {
            picture.label(area, &format!("{} is sharing", sharer.name));
        }
    }
    for (person, tile) in shown.iter().zip(&plan.people) {
        picture.fill(*tile, TILE);
        let camera = videos.iter_mut().rfind(|v| !v.screen && v.identity == person.identity && v.visible(now));
        let drawn = camera.and_then(|camera| {
            let into = camera.size().map(|(width, height)| fit(width, height, *tile))?;
            picture.draw(into, camera.scaled(into)?);
            Some(())
        });
        if drawn.is_some() {
            picture.label(*tile, &person.name);
        } else {
            let name = shorten(&person.name, (tile.width.saturating_sub(16) / Size::Large.width()) as usize);
            let wide = name.chars().count() as u32 * Size::Large.width();
            let (x, y) = (tile.x + tile.width.saturating_sub(wide) / 2, tile.y + tile.height.saturating_sub(Size::Large.height()) / 2);
            picture.text(x, y, &name, Size::Large);
        }
        if person.speaks(now) {
            picture.border(*tile, 4, SPEAKING);
        }
    }
    picture
}
