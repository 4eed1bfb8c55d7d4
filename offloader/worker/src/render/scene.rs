//! What a recording looks like, through time. Only what has changed since the picture before is drawn again.

use archive::read::{ReadError, Recording};
use ffmpeg_next::frame::Video;
use offloader_jobs::layout::{Arrangement, Layout};
use offloader_jobs::mattermost::PictureProfile;

use super::focus::Focus;
use super::layout::{COLUMN_TILES, Canvas, GRID_TILES, Rect, fit, plan};
use super::line::{Line, Reaction};
use super::people::People;
use super::picture::Picture;
use super::portraits::Portraits;
use super::signals::Signals;
use super::sound::Level;
use super::theme::{Colour, DARK, LIGHT, Theme};
use super::tile::{Face, Painter};
use super::video::VideoTrack;

/// A recording and the picture of it.
pub struct Scene<'r> {
    painter: Painter,
    arrangement: Arrangement,
    /// Layouts that are still to come, the last one first, from when on in µs.
    later: Vec<(i64, Layout)>,
    /// The newest picture that is there, in full, and nothing else.
    single: bool,
    /// A line at the bottom says how long the call lasts, and who is there.
    line: bool,
    origin: i64,
    people: People,
    portraits: Portraits<'r>,
    signals: Signals,
    focus: Focus,
    videos: Vec<VideoTrack<'r>>,
    picture: Picture,
    /// What is on it.
    shown: Option<Vec<Part>>,
}

/// A part of the picture: two equal ones look the same.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    area: Rect,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    /// A video as large as it fits: which, when its picture came, and whose screen it is, where that is to be said.
    Video { video: usize, picture_us: i64, sharer: Option<usize> },
    /// Somebody.
    Person(Tile),
    /// The line at the bottom.
    Line(Line),
}

/// Somebody on the picture.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tile {
    person: usize,
    speaks: bool,
    muted: bool,
    hand: bool,
    host: bool,
    /// Which camera, and when its picture came.
    camera: Option<(usize, i64)>,
}

impl<'r> Scene<'r> {
    /// The picture of a recording whose time zero is `origin`.
    pub fn new(recording: &'r Recording, profile: &PictureProfile, origin: i64, videos: Vec<VideoTrack<'r>>) -> Self {
        let canvas = Canvas { width: profile.width, height: profile.height };
        let people = People::of(recording.manifest(), profile.always);
        let theme = theme(profile.layout);
        Self {
            painter: Painter { canvas, theme },
            arrangement: profile.layout.arrangement,
            later: profile.later.iter().rev().map(|later| (later.at_ms.saturating_mul(1_000), later.layout)).collect(),
            single: profile.single,
            line: profile.always && !profile.single,
            origin,
            signals: Signals::of(recording, &people, origin),
            people,
            portraits: Portraits::of(recording),
            focus: Focus::default(),
            videos,
            picture: Picture::new(canvas, theme.ground),
            shown: None,
        }
    }

    /// Time goes on: what was heard, and what is seen now. Moments come in order.
    pub fn advance(&mut self, now: i64, levels: &[Level]) -> Result<(), ReadError> {
        self.people.handle_levels(now, levels);
        self.videos.iter_mut().try_for_each(|video| video.advance(now))
    }

    /// The picture at a moment, if it is another than the one before.
    pub fn look(&mut self, now: i64) -> Option<&mut Video> {
        while let Some((_, layout)) = self.later.pop_if(|(from, _)| *from <= now) {
            self.arrangement = layout.arrangement;
            self.painter.theme = theme(layout);
            self.shown = None;
        }
        let parts = self.parts(now);
        let before = self.shown.take();
        let changed = before.as_ref() != Some(&parts);
        if changed {
            // Where a part stands on the same place as before it is drawn over, else everything is drawn anew.
            let places = |parts: &[Part]| parts.iter().map(|part| part.area).collect::<Vec<_>>();
            let before = before.filter(|before| places(before) == places(&parts)).unwrap_or_default();
            if before.is_empty() {
                self.picture.fill(self.painter.canvas.whole(), self.painter.theme.ground);
            }
            for (n, part) in parts.iter().enumerate() {
                if before.get(n) != Some(part) {
                    self.draw(part);
                }
            }
        }
        self.shown = Some(parts);
        changed.then(|| self.picture.frame_mut())
    }

    /// The picture as it stands.
    pub fn picture(&mut self) -> &mut Video {
        self.picture.frame_mut()
    }

    /// What is to be seen at a moment, and where.
    fn parts(&mut self, now: i64) -> Vec<Part> {
        let canvas = self.painter.canvas;
        if self.single {
            // Of one person who shares a screen beside the camera, the screen.
            let video = self.last_video(now, |video| video.screen).or_else(|| self.last_video(now, |_| true));
            let what = video.map(|(video, picture_us)| What::Video { video, picture_us, sharer: None });
            return what.map(|what| Part { area: canvas.whole(), what }).into_iter().collect();
        }
        let mut parts = Vec::new();
        let mut above = canvas;
        if self.line {
            above = canvas.above_footer();
            parts.push(Part { area: canvas.footer(), what: What::Line(self.bottom(now)) });
        }
        let screen = self.last_video(now, |video| video.screen).map(|(video, picture_us)| {
            let sharer = self.videos.get(video).and_then(|video| self.people.number(&video.identity));
            What::Video { video, picture_us, sharer }
        });
        // Followed beside a screen too: when it goes, who speaks is large at once.
        let speaker = if self.arrangement == Arrangement::Grid { None } else { self.focus.at(now, &self.people) };
        let (large, but) = match (screen, speaker) {
            (Some(screen), _) => (Some(screen), None),
            (None, Some(person)) => (self.tile(person, now).map(What::Person), Some(person)),
            (None, None) => (None, None),
        };
        let most = match (self.arrangement, &large) {
            (Arrangement::SingleSpeaker, _) => 0,
            (Arrangement::Grid | Arrangement::Speaker, Some(_)) => COLUMN_TILES as usize,
            (Arrangement::Grid | Arrangement::Speaker, None) => GRID_TILES,
        };
        let people = self.people.present(now, but, most);
        let plan = plan(above, people.len(), large.is_some());
        parts.extend(plan.large.zip(large).map(|(area, what)| Part { area, what }));
        let tiles = people.into_iter().filter_map(|person| self.tile(person, now));
        parts.extend(plan.people.into_iter().zip(tiles).map(|(area, tile)| Part { area, what: What::Person(tile) }));
        parts
    }

    /// The last of the videos that are to be seen: of screens the one shared last, as a rule.
    fn last_video(&self, now: i64, wanted: impl Fn(&VideoTrack<'_>) -> bool) -> Option<(usize, i64)> {
        let found = self.videos.iter().enumerate().rfind(|(_, video)| wanted(video) && video.visible(now));
        found.map(|(n, video)| (n, video.picture_us()))
    }

    fn tile(&self, number: usize, now: i64) -> Option<Tile> {
        let person = self.people.get(number)?;
        Some(Tile {
            person: number,
            speaks: person.speaks(now),
            muted: person.is_muted(now),
            hand: self.signals.hand(number, now),
            host: self.signals.host(number, now),
            camera: self.last_video(now, |video| !video.screen && video.identity == person.identity),
        })
    }

    /// How long the call has lasted, how many are there, who reacts.
    fn bottom(&self, now: i64) -> Line {
        let seconds = (now - self.origin) / 1_000_000;
        let clock = format!("{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60);
        let count = self.people.count(now);
        let noun = if count == 1 { "participant" } else { "participants" };
        let reactions = self.signals.pills(now).into_iter().map(|pill| {
            let name = self.people.get(pill.person).map_or("", |person| &person.name);
            let who = if pill.count == 1 { name.to_owned() } else { format!("x{}", pill.count) };
            Reaction { emoji: pill.emoji, who }
        });
        Line { words: format!("{clock}   {count} {noun}"), reactions: reactions.collect() }
    }

    fn draw(&mut self, part: &Part) {
        let (painter, area) = (self.painter, part.area);
        match &part.what {
            What::Video { video, sharer, .. } => {
                draw_video(&mut self.picture, &mut self.videos, area, *video, painter.theme.ground);
                if let Some(sharer) = sharer.and_then(|sharer| self.people.get(sharer)) {
                    painter.label(&mut self.picture, area, &format!("{} is sharing", sharer.name));
                }
            }
            What::Person(tile) => self.draw_person(area, tile),
            What::Line(line) => painter.line(&mut self.picture, area, line),
        }
    }

    fn draw_person(&mut self, area: Rect, tile: &Tile) {
        let Some(person) = self.people.get(tile.person) else { return };
        let face = Face {
            identity: &person.identity,
            name: &person.name,
            speaks: tile.speaks,
            muted: tile.muted,
            hand: tile.hand,
            host: tile.host,
        };
        let painter = self.painter;
        if let Some((camera, _)) = tile.camera {
            draw_video(&mut self.picture, &mut self.videos, area, camera, painter.theme.tile);
            painter.over_camera(&mut self.picture, area, &face);
        } else {
            let portrait = painter.disc(area).and_then(|disc| self.portraits.get(face.identity, disc.width));
            painter.drawn(&mut self.picture, area, &face, portrait);
        }
    }
}

fn theme(layout: Layout) -> Theme {
    if layout.light { LIGHT } else { DARK }
}

/// A video's picture as large as it fits, on a ground.
fn draw_video(picture: &mut Picture, videos: &mut [VideoTrack<'_>], area: Rect, video: usize, ground: Colour) {
    let placed = videos.get_mut(video).and_then(|video| {
        let into = video.size().map(|(width, height)| fit(width, height, area))?;
        Some((into, video.scaled(into)?))
    });
    match placed {
        Some((into, scaled)) => {
            picture.fill_around(into, area, ground);
            picture.draw(into, scaled);
        }
        None => picture.fill(area, ground),
    }
}
