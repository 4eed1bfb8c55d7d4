//! The transcribe job: a closed recording in, three files out.

use std::path::Path;
use std::time::Instant;

use archive::keys::DataKey;
use archive::manifest::Track;
use archive::read::Recording;
use archive::record::{GapReason, Record};
use offloader_jobs::order::{ModelOrder, TranscribeOrder, TranscribeResult};

use super::speaker::{Speaker, Who};
use super::transcript::{MissingTrack, Segment, Transcript, merge, text, vtt, words};
use crate::audio::opus_track::{OpusTrack, Piece};
use crate::audio::origin_us;
use crate::job::{Lease, Outcome, interruption};
use crate::limits::SPEECH_RATE;
use crate::room::Room;
use crate::speech::{Model, ModelFiles, Recogniser, VoiceDetector, model::Purpose};

/// Does a transcribe job. Blocks for as long as it takes: give it a thread.
pub fn run(order: &TranscribeOrder, lease: &Lease) -> Outcome {
    // Without a model, or with a broken one, another attempt finds the same.
    let model = match Model::open(&files(&order.model), Purpose::Transcript) {
        Ok(model) => model.expecting(&order.model.vocabulary),
        Err(error) => return Outcome::Failed { error: error.to_string(), retry: false },
    };
    let mut interrupted = None;
    let mut room = Room::new(&order.output_dir, order.free_bytes_min);
    let made = transcript(order, &model, &mut |progress| {
        lease.set_progress(progress);
        interrupted = interruption(lease.word()).or_else(|| room.poll_missing(Instant::now()));
        interrupted.is_none()
    });
    match (interrupted, made) {
        (Some(outcome), _) => outcome,
        (None, Ok(Some(transcript))) => match save(&transcript, &order.output_dir) {
            Ok(result) => Outcome::Done(result),
            Err(error) => room.failed("cannot write the transcript", &error),
        },
        (None, Ok(None)) => Outcome::Released,
        (None, Err(error)) => room.failed("transcription failed", &error),
    }
}

/// The offloader's setting as ours.
pub fn files(order: &ModelOrder) -> ModelFiles {
    ModelFiles {
        model: order.path.clone(),
        model_sha256: order.sha256.clone(),
        vad: order.vad_path.clone(),
        vad_sha256: order.vad_sha256.clone(),
    }
}

/// Hears all tracks that carry voices. `go_on` gets the progress and may say no.
pub fn transcript(order: &TranscribeOrder, model: &Model, go_on: &mut dyn FnMut(f32) -> bool) -> anyhow::Result<Option<Transcript>> {
    let recording = Recording::open(&order.dir, &DataKey::from_hex(&order.data_key)?)?;
    let tracks: Vec<&Track> = recording.tracks().iter().filter(|track| track.info.kind == "audio").collect();
    let all_segments: usize = tracks.iter().map(|track| track.segments.len()).sum();
    let mut done_segments = 0;
    let mut voices = (model.recogniser()?, model.voice_detector()?);
    let configured = order.language.clone().filter(|l| !l.is_empty()).map(|l| two_letters(&l));
    let mut found: Vec<Segment> = Vec::new();
    let mut languages: Vec<(String, usize)> = Vec::new();
    let mut missing: Vec<MissingTrack> = Vec::new();
    for track in &tracks {
        let mut within = |share: f32| go_on((done_segments as f32 + share * track.segments.len() as f32) / all_segments.max(1) as f32);
        let Some(heard) = hear(&recording, track, &mut voices, configured.clone(), order.last_try, &mut within)? else { return Ok(None) };
        if let Some((at_us, error)) = heard.broken {
            let name = &track.info.display_name;
            let error = error.context(format!("the sound of {name} (track {})", track.number));
            // It may have been the disk, for a moment. The others' words are not lost for it in the end.
            if !order.last_try {
                return Err(error);
            }
            tracing::warn!(identity = %track.info.identity, "words are missing in the transcript: {error:#}");
            missing.push(MissingTrack {
                identity: track.info.identity.clone(),
                display_name: name.clone(),
                from_ms: (at_us - origin_us(&recording)) / 1_000,
                reason: format!("{error:#}"),
            });
        }
        let said: usize = heard.segments.iter().map(|s| s.words.len()).sum();
        languages.extend(heard.language.map(|language| (language, said)));
        found.extend(heard.segments);
        done_segments += track.segments.len();
    }
    if let Some(first) = missing.first().filter(|_| found.is_empty() && missing.len() == tracks.len()) {
        anyhow::bail!("{}", first.reason);
    }
    let most_heard = languages.into_iter().max_by_key(|(_, words)| *words).map(|(language, _)| language);
    let language = configured.or(most_heard).unwrap_or_else(|| "en".into());
    Ok(Some(Transcript { missing, ..merge(language, model.name().to_string(), found) }))
}

/// What was heard of a track.
struct Heard {
    segments: Vec<Segment>,
    language: Option<String>,
    /// Since when, and why, not all of it could be heard.
    broken: Option<(i64, anyhow::Error)>,
}

/// Hears one track, `beyond` what cannot be read where that is wanted. `None`: told to stop.
fn hear(
    recording: &Recording,
    track: &Track,
    (recogniser, detector): &mut (Recogniser, VoiceDetector),
    language: Option<String>,
    beyond: bool,
    go_on: &mut dyn FnMut(f32) -> bool,
) -> anyhow::Result<Option<Heard>> {
    let who = Who { identity: track.info.identity.clone(), display_name: track.info.display_name.clone() };
    let mut decoder = OpusTrack::new(SPEECH_RATE as u32, 1)?;
    let mut speaker = Speaker::new(recogniser, detector, who, language, origin_us(recording));
    let packets: u64 = track.segments.iter().map(|s| s.packets).sum::<u64>().max(1);
    let (mut at_us, mut broken) = (track.at_us, None);
    for (n, record) in recording.records(track.number).enumerate() {
        let heard = match record {
            Ok(Record::Packet(packet)) => {
                at_us = packet.at_us;
                listen(&mut speaker, &decoder.handle_packet(packet.at_us, packet.seq, packet.timestamp, &packet.payload))
            }
            Ok(Record::Gap(gap)) => {
                if gap.reason == GapReason::Worker {
                    listen(&mut speaker, &decoder.handle_takeover())
                } else {
                    Ok(())
                }
            }
            Err(error) => {
                broken.get_or_insert((at_us, error.into()));
                if !beyond {
                    break;
                }
                Ok(())
            }
        };
        if let Err(error) = heard {
            broken.get_or_insert((at_us, error));
            break;
        }
        // Once a second of sound.
        if n % 50 == 0 && !go_on((n as f32 / packets as f32).min(1.0)) {
            return Ok(None);
        }
    }
    if let Err(error) = listen(&mut speaker, &decoder.finish()) {
        broken.get_or_insert((at_us, error));
    }
    let (segments, language) = match speaker.finish() {
        Ok(heard) => heard,
        Err(error) => {
            broken.get_or_insert((at_us, error.into()));
            (Vec::new(), None)
        }
    };
    Ok(Some(Heard { segments, language, broken }))
}

/// "en-GB" is "en" to the model.
fn listen(speaker: &mut Speaker<'_>, pieces: &[Piece]) -> anyhow::Result<()> {
    Ok(pieces.iter().try_for_each(|piece| speaker.handle_piece(piece))?)
}

fn two_letters(language: &str) -> String {
    language.split(['-', '_']).next().unwrap_or_default().to_lowercase()
}

fn save(transcript: &Transcript, dir: &Path) -> anyhow::Result<String> {
    std::fs::create_dir_all(dir)?;
    std::fs::write(dir.join("transcript.json"), serde_json::to_vec(transcript)?)?;
    std::fs::write(dir.join("transcript.vtt"), vtt(transcript))?;
    std::fs::write(dir.join("transcript.txt"), text(transcript))?;
    let result = TranscribeResult { language: transcript.language.clone(), model: transcript.model.clone(), words: words(transcript) };
    Ok(serde_json::to_string(&result)?)
}
