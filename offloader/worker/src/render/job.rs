//! The render job: a sealed recording in, one file out: MP4, M4A or Ogg, or a track as it is ([`super::track`]).

use archive::keys::DataKey;
use archive::read::Recording;
use offloader_jobs::egress::FileForm;
use offloader_jobs::order::{RenderOrder, RenderResult};

use super::layout::{COLUMN_TILES, Canvas, GRID_TILES, fit, plan};
use super::media::{Film, Streams, init};
use super::people::People;
use super::picture::{LABEL, Picture, SPEAKING, Size, TILE, shorten};
use super::sound::{Mixer, RATE};
use super::track;
use super::video::VideoTrack;
use crate::audio::origin_us;
use crate::job::{Lease, Outcome, interruption};

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
    std::fs::create_dir_all(&order.output_dir)?;
    if order.form == FileForm::Track {
        return track::write(&recording, &order.output_dir, go_on);
    }
    let origin = origin_us(&recording);
    let duration_us = (recording.ended_at_us() - origin).max(0);
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
    let (has_video, drawn) = (streams.has_pictures(), videos.is_empty());
    let scene = Scene {
        canvas: Canvas { width: order.picture.width, height: order.picture.height },
        single: order.picture.single,
        footer: order.picture.always && !order.picture.single,
        origin,
        people: People::of(recording.manifest(), order.picture.always),
        videos,
    };
    let mut profile = order.picture.clone();
    if drawn {
        // Flat tiles that stand still look the same whatever the encoder tries, so it tries nothing: a fifth of the CPU.
        "ultrafast".clone_into(&mut profile.preset);
    }
    let film = Film::create(&order.output_dir.join(file), &order.title, &profile, streams)?;
    let mixer = Mixer::new(&recording, origin)?;
    let finished = write(film, mixer, scene, order.picture.frame_rate.max(1) as usize, duration_us, has_video, go_on)?;
    Ok(finished.then(|| RenderResult { file: file.into(), mime: mime.into(), duration_ms: duration_us / 1_000, has_video }))
}

fn write(
    mut film: Film,
    mut mixer: Mixer<'_>,
    mut scene: Scene<'_>,
    frame_rate: usize,
    duration_us: i64,
    has_video: bool,
    go_on: &mut dyn FnMut(f32) -> bool,
) -> anyhow::Result<bool> {
    // An empty recording still gives a file that plays.
    let blocks = (usize::try_from(duration_us)? * frame_rate).div_ceil(1_000_000).max(1);
    // 48 000 samples need not divide by the rate: each block goes to where its picture ends.
    let end_of = |n: usize| (n + 1) * RATE / frame_rate;
    let mut shown = None;
    for n in 0..blocks {
        // Progress is told once a second of the recording.
        if n % frame_rate == 0 && !go_on(n as f32 / blocks as f32) {
            return Ok(false);
        }
        let begin = n.checked_sub(1).map_or(0, end_of);
        let (sound, levels) = mixer.block(end_of(n) - begin)?;
        film.add_sound(&sound)?;
        if has_video {
            let now = scene.origin + (n as i64 + 1) * 1_000_000 / frame_rate as i64;
            scene.people.handle_levels(now, &levels);
            for video in &mut scene.videos {
                video.advance(now)?;
            }
            let view = scene.view(now);
            if shown.as_ref() != Some(&view) {
                film.add_picture(n as i64, scene.draw(now, &view).into_frame())?;
                shown = Some(view);
            }
        }
    }
    film.finish(blocks as i64)?;
    Ok(true)
}

/// What a recording looks like, through time.
struct Scene<'r> {
    canvas: Canvas,
    /// The newest picture that is there, in full, and nothing else.
    single: bool,
    /// A line at the bottom says how long the call lasts, and who is there.
    footer: bool,
    origin: i64,
    people: People,
    videos: Vec<VideoTrack<'r>>,
}

/// What is to be seen at a moment: two equal ones give the same picture.
#[derive(Debug, PartialEq)]
struct View {
    /// What is shown in full or beside everybody, and which of its pictures: the screen shared last, as a rule.
    screen: Option<(usize, i64)>,
    people: Vec<Shown>,
    footer: Option<String>,
}

/// Somebody on the picture.
#[derive(Debug, PartialEq)]
struct Shown {
    identity: String,
    name: String,
    speaks: bool,
    /// Which camera, and which of its pictures.
    camera: Option<(usize, i64)>,
}

impl Scene<'_> {
    fn view(&self, now: i64) -> View {
        let last = |wanted: &dyn Fn(&VideoTrack<'_>) -> bool| {
            let found = self.videos.iter().enumerate().rfind(|(_, video)| wanted(video) && video.visible(now));
            found.map(|(n, video)| (n, video.picture_us()))
        };
        if self.single {
            return View { screen: last(&|_| true), people: Vec::new(), footer: None };
        }
        let screen = last(&|video| video.screen);
        let most = if screen.is_some() { COLUMN_TILES as usize } else { GRID_TILES };
        let people = self.people.present(now, most).into_iter().map(|person| Shown {
            identity: person.identity.clone(),
            name: person.name.clone(),
            speaks: person.speaks(now),
            camera: last(&|video| !video.screen && video.identity == person.identity),
        });
        let people: Vec<Shown> = people.collect();
        let footer = self.footer.then(|| {
            let seconds = (now - self.origin) / 1_000_000;
            let clock = format!("{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60);
            let count = self.people.count(now);
            let noun = if count == 1 { "participant" } else { "participants" };
            format!("{clock}   {count} {noun}")
        });
        View { screen, people, footer }
    }

    fn draw(&mut self, now: i64, view: &View) -> Picture {
        let mut picture = Picture::new(self.canvas);
        let mut canvas = self.canvas;
        if self.single {
            if let Some(video) = view.screen.and_then(|(n, _)| self.videos.get_mut(n))
                && let Some((width, height)) = video.size()
            {
                let into = fit(width, height, canvas.whole());
                if let Some(scaled) = video.scaled(into) {
                    picture.draw(into, scaled);
                }
            }
            return picture;
        }
        if let Some(text) = &view.footer {
            let line = canvas.footer();
            picture.fill(line, LABEL);
            picture.text(line.x + 16, line.y + line.height.saturating_sub(Size::Small.height()) / 2, text, Size::Small);
            canvas = canvas.above_footer();
        }
        let plan = plan(canvas, view.people.len(), view.screen.is_some());
        let screen = view.screen.and_then(|(n, _)| self.videos.get_mut(n));
        if let (Some(screen), Some(area)) = (screen, plan.screen)
            && let Some((width, height)) = screen.size()
        {
            let into = fit(width, height, area);
            if let Some(scaled) = screen.scaled(into) {
                picture.draw(into, scaled);
            }
            let sharer = screen.identity.clone();
            if let Some(name) = self.people.name(&sharer) {
                picture.label(area, &format!("{name} is sharing"));
            }
        }
        for (person, tile) in view.people.iter().zip(&plan.people) {
            picture.fill(*tile, TILE);
            let camera = person.camera.and_then(|(n, _)| self.videos.get_mut(n)).filter(|camera| camera.visible(now));
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
            if person.speaks {
                picture.border(*tile, 4, SPEAKING);
            }
        }
        picture
    }
}
