//! The transcribe job: a closed recording in, three files out.

use std::path::Path;

use archive::keys::DataKey;
use archive::manifest::Track;
use archive::read::Recording;
use archive::record::{GapReason, Record};
use offloader_jobs::order::{ModelOrder, TranscribeOrder, TranscribeResult};

use super::speaker::{Speaker, Who};
use super::transcript::{Segment, Transcript, merge, text, vtt, words};
use crate::audio::{opus_track::OpusTrack, origin_us};
use crate::job::{Lease, Outcome, interruption};
use crate::limits::SPEECH_RATE;
use crate::speech::{Model, ModelFiles, model::Purpose};

/// Does a transcribe job. Blocks for as long as it takes: give it a thread.
pub fn run(order: &TranscribeOrder, lease: &Lease) -> Outcome {
    // Without a model, or with a broken one, another attempt finds the same.
    let model = match Model::open(&files(&order.model), Purpose::Transcript) {
        Ok(model) => model,
        Err(error) => return Outcome::Failed { error: error.to_string(), retry: false },
    };
    let mut interrupted = None;
    let made = transcript(order, &model, &mut |progress| {
        lease.set_progress(progress);
        interrupted = interruption(lease.word());
        interrupted.is_none()
    });
    match (interrupted, made) {
        (Some(outcome), _) => outcome,
        (None, Ok(Some(transcript))) => match save(&transcript, &order.output_dir) {
            Ok(result) => Outcome::Done(result),
            Err(error) => Outcome::Failed { error: format!("cannot write the transcript: {error:#}"), retry: true },
        },
        (None, Ok(None)) => Outcome::Released,
        (None, Err(error)) => Outcome::Failed { error: format!("transcription failed: {error:#}"), retry: true },
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
    let (mut recogniser, mut detector) = (model.recogniser()?, model.voice_detector()?);
    let configured = order.language.clone().filter(|l| !l.is_empty()).map(|l| two_letters(&l));
    let mut found: Vec<Segment> = Vec::new();
    let mut languages: Vec<(String, usize)> = Vec::new();
    for track in tracks {
        let who = Who { identity: track.info.identity.clone(), display_name: track.info.display_name.clone() };
        let mut decoder = OpusTrack::new(SPEECH_RATE as u32, 1)?;
        let mut speaker = Speaker::new(&mut recogniser, &mut detector, who, configured.clone(), origin_us(&recording));
        let packets: u64 = track.segments.iter().map(|s| s.packets).sum::<u64>().max(1);
        for (n, record) in recording.records(track.number).enumerate() {
            match record? {
                Record::Packet(packet) => {
                    if let Some(piece) = decoder.handle_packet(packet.at_us, packet.seq, packet.timestamp, &packet.payload) {
                        speaker.handle_piece(&piece)?;
                    }
                }
                Record::Gap(gap) if gap.reason == GapReason::Worker => decoder.handle_takeover(),
                Record::Gap(_) => {}
            }
            // Once a second of sound.
            if n % 50 == 0 {
                let within = (n as f32 / packets as f32).min(1.0) * track.segments.len() as f32;
                if !go_on((done_segments as f32 + within) / all_segments.max(1) as f32) {
                    return Ok(None);
                }
            }
        }
        let (segments, language) = speaker.finish()?;
        let said: usize = segments.iter().map(|s| s.words.len()).sum();
        languages.extend(language.map(|language| (language, said)));
        found.extend(segments);
        done_segments += track.segments.len();
    }
    let most_heard = languages.into_iter().max_by_key(|(_, words)| *words).map(|(language, _)| language);
    let language = configured.or(most_heard).unwrap_or_else(|| "en".into());
    Ok(Some(merge(language, model.name().to_string(), found)))
}

/// "en-GB" is "en" to the model.
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
