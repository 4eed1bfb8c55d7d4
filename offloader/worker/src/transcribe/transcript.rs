//! The speakers' words in one order, and the forms that people and players read them in.

pub use offloader_jobs::order::{MissingTrack, Transcript, TranscriptSegment as Segment, TranscriptWord as TimedWord};

/// Puts the speakers' segments into one order and numbers them.
pub fn merge(language: String, model: String, mut segments: Vec<Segment>) -> Transcript {
    segments.sort_by(|a, b| (a.start_ms, a.end_ms, &a.identity).cmp(&(b.start_ms, b.end_ms, &b.identity)));
    for (n, segment) in segments.iter_mut().enumerate() {
        segment.id = format!("s{}", n + 1);
    }
    Transcript { language, model, segments, missing: Vec::new() }
}

/// A line for people about each track that is missing.
pub fn missing(transcript: &Transcript) -> impl Iterator<Item = String> {
    transcript.missing.iter().map(|track| {
        let seconds = track.from_ms.max(0) / 1_000;
        let clock = format!("{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60);
        format!("Words of {} are missing, from {clock} on: their recording cannot be read.", one_line(&track.display_name))
    })
}

/// How many words there are.
pub fn words(transcript: &Transcript) -> u64 {
    transcript.segments.iter().map(|segment| segment.words.len() as u64).sum()
}

/// WebVTT with a voice span a cue (<https://www.w3.org/TR/webvtt1/>).
pub fn vtt(transcript: &Transcript) -> String {
    let mut out = String::from("WEBVTT\n");
    for line in missing(transcript) {
        out.push_str(&format!("\nNOTE {}\n", escape(&line)));
    }
    for segment in &transcript.segments {
        out.push_str(&format!(
            "\n{}\n{} --> {}\n<v {}>{}</v>\n",
            segment.id,
            stamp(segment.start_ms),
            // A cue without length is not shown by players.
            stamp(segment.end_ms.max(segment.start_ms + 1)),
            escape(&segment.display_name),
            escape(&segment.text),
        ));
    }
    out
}

/// For reading: time, name, words.
pub fn text(transcript: &Transcript) -> String {
    let mut out = String::new();
    for segment in &transcript.segments {
        let seconds = segment.start_ms / 1_000;
        let clock = format!("{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60);
        out.push_str(&format!("[{clock}] {}: {}\n", one_line(&segment.display_name), segment.text));
    }
    missing(transcript).for_each(|line| out.push_str(&format!("{line}\n")));
    out
}

fn stamp(ms: i64) -> String {
    let ms = ms.max(0);
    format!("{:02}:{:02}:{:02}.{:03}", ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60, ms % 1_000)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A name or a word must not end a cue or open a tag.
fn escape(text: &str) -> String {
    one_line(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(identity: &str, start_ms: i64, text: &str) -> Segment {
        let word = |text: &str| TimedWord { text: text.into(), start_ms, end_ms: start_ms + 900, confidence: 0.9 };
        Segment {
            id: String::new(),
            identity: identity.into(),
            display_name: format!("<{identity}>\n--> & Co"),
            start_ms,
            end_ms: start_ms + 900,
            text: text.into(),
            confidence: 0.9,
            words: text.split(' ').map(word).collect(),
        }
    }

    #[test]
    fn speakers_are_merged_by_time() {
        let transcript = merge("en".into(), "m".into(), vec![segment("b", 3_661_001, "later"), segment("a", 500, "first of all")]);
        assert_eq!(transcript.segments[0].id, "s1");
        assert_eq!(transcript.segments[0].identity, "a");
        assert_eq!(super::words(&transcript), 4);
        assert!(super::text(&transcript).contains("[01:01:01] <b> --> & Co: later"));
    }

    #[test]
    fn who_is_missing_is_named_in_every_form() {
        let track = MissingTrack { display_name: "Ada\n-->".into(), from_ms: 61_000, ..MissingTrack::default() };
        let transcript = Transcript { missing: vec![track], ..merge("en".into(), "m".into(), vec![segment("b", 500, "x")]) };
        let line = "Words of Ada --> are missing, from 00:01:01 on: their recording cannot be read.\n";
        assert!(super::text(&transcript).ends_with(line));
        assert!(super::vtt(&transcript).starts_with(&format!("WEBVTT\n\nNOTE {}\ns1\n", line.replace('>', "&gt;"))));
    }

    #[test]
    fn names_cannot_break_the_vtt() {
        let vtt = super::vtt(&merge("en".into(), "m".into(), vec![segment("a", 500, "x < y")]));
        assert_eq!(vtt, "WEBVTT\n\ns1\n00:00:00.500 --> 00:00:01.400\n<v &lt;a&gt; --&gt; &amp; Co>x &lt; y</v>\n");
    }
}
