//! One track as its publisher sent it: not decoded, in the container that is usual for its codec.

use std::io::BufWriter;
use std::path::Path;

use anyhow::Context as _;
use archive::manifest::Track;
use archive::read::Recording;
use archive::record::{GapReason, Record};
use archive::tracks::write_track;
use offloader_jobs::order::RenderResult;

use super::depacket::{Codec, Depacketiser};
use super::media::Copied;
use crate::audio::clock::RtpClock;

/// Frames between two looks at whether to go on.
const LOOK_EVERY: u64 = 300;

/// Writes the recording's only track with media. `None`: told to stop.
pub fn write(recording: &Recording, dir: &Path, go_on: &mut dyn FnMut(f32) -> bool) -> anyhow::Result<Option<RenderResult>> {
    let mut tracks = recording.tracks().iter().filter(|track| !track.segments.is_empty());
    let track = tracks.next().context("nothing of the track was recorded")?;
    anyhow::ensure!(tracks.next().is_none(), "the recording has several tracks, where one was to be recorded");
    if !go_on(0.0) {
        return Ok(None);
    }
    if track.info.kind == "audio" { write_sound(recording, track, dir).map(Some) } else { write_pictures(recording, track, dir, go_on) }
}

fn write_sound(recording: &Recording, track: &Track, dir: &Path) -> anyhow::Result<RenderResult> {
    anyhow::ensure!(track.info.mime.eq_ignore_ascii_case("audio/opus"), "no file is made of a track of {}", track.info.mime);
    let mut out = BufWriter::new(std::fs::File::create(dir.join("media.ogg"))?);
    write_track(recording, track, &mut out)?;
    let (first, last) = (track.segments.first(), track.segments.last());
    let length_us = first.zip(last).map_or(0, |(first, last)| last.to_us - first.from_us);
    Ok(RenderResult { file: "media.ogg".into(), mime: "audio/ogg".into(), duration_ms: length_us / 1_000, has_video: false })
}

fn write_pictures(
    recording: &Recording,
    track: &Track,
    dir: &Path,
    go_on: &mut dyn FnMut(f32) -> bool,
) -> anyhow::Result<Option<RenderResult>> {
    let mime = &track.info.mime;
    let codec = Codec::from_mime(mime).with_context(|| format!("no file is made of a track of {mime}"))?;
    let file = format!("media.{}", codec.container());
    let new_clock = || RtpClock::new(if track.info.clock_rate == 0 { 90_000 } else { track.info.clock_rate });
    let packets: u64 = track.segments.iter().map(|segment| segment.packets).sum();
    let (mut depacketiser, mut clock) = (Depacketiser::new(codec), new_clock());
    let mut out: Option<(i64, Copied)> = None;
    let mut undecoded = None;
    let mut seen = 0_u64;
    for record in recording.records(track.number) {
        let packet = match record? {
            Record::Packet(packet) => packet,
            Record::Gap(gap) => {
                depacketiser.handle_gap();
                if gap.reason == GapReason::Worker {
                    clock = new_clock();
                }
                continue;
            }
        };
        seen += 1;
        if seen.is_multiple_of(LOOK_EVERY) && !go_on(seen as f32 / packets.max(seen) as f32) {
            return Ok(None);
        }
        let Some(frame) = depacketiser.handle_packet(&packet) else { continue };
        let at_us = clock.handle_packet(frame.at_us, frame.timestamp);
        let (first_us, copied) = match &mut out {
            Some(out) => out,
            None if !frame.key => continue,
            None => match Copied::create(&dir.join(&file), codec, &frame) {
                Ok(copied) => out.insert((at_us, copied)),
                // A key frame without what a decoder needs before it: the next one may have it.
                Err(error) => {
                    undecoded = Some(error);
                    continue;
                }
            },
        };
        copied.add(((at_us - *first_us) * 9 / 100).max(0), frame)?;
    }
    let Some((_, copied)) = out else {
        return Err(undecoded.map_or_else(|| anyhow::anyhow!("the track has no whole picture"), anyhow::Error::from));
    };
    let duration_ms = copied.finish()? / 90;
    let mime = match codec {
        Codec::H264 => "video/mp4",
        Codec::Vp8 | Codec::Vp9 => "video/webm",
        Codec::Av1 => "video/x-ivf",
    };
    Ok(Some(RenderResult { file, mime: mime.into(), duration_ms, has_video: true }))
}
