//! Transcripts in the two layouts that Mattermost's players and readers know.

use offloader_jobs::mattermost::MattermostTranscription;

use crate::transcribe::transcript::{Segment, Transcript, missing};

/// Bounds of the original where the site says nothing.
const COMPACT_SILENCE_MS: u32 = 2_000;
const COMPACT_SEGMENT_MS: u32 = 10_000;

/// WebVTT: `<v NAME>(NAME) TEXT` in each cue, or the text alone.
pub fn vtt(transcript: &Transcript, omit_speaker: bool) -> String {
    let mut out = String::from("WEBVTT\n");
    for line in missing(transcript) {
        out.push_str(&format!("\nNOTE {}\n", escaped(&line)));
    }
    for segment in &transcript.segments {
        let (name, text) = (escaped(&plain_name(&segment.display_name)), escaped(&one_line(&segment.text)));
        // A cue without length is not shown by players.
        let end_ms = segment.end_ms.max(segment.start_ms + 1);
        out.push_str(&format!("\n{} --> {}\n", stamp(segment.start_ms), stamp(end_ms)));
        out.push_str(&if omit_speaker { format!("{text}\n") } else { format!("<v {name}>({name}) {text}\n") });
    }
    out
}

/// Blocks of time, name and words; what somebody says in one go is one block.
pub fn text(transcript: &Transcript, wanted: &MattermostTranscription) -> String {
    let or = |asked: u32, default: u32| i64::from(if asked == 0 { default } else { asked });
    let silence_ms = or(wanted.compact_silence_ms, COMPACT_SILENCE_MS);
    let length_ms = or(wanted.compact_segment_ms, COMPACT_SEGMENT_MS);
    let mut blocks: Vec<Segment> = Vec::new();
    for segment in &transcript.segments {
        match blocks.last_mut() {
            Some(block)
                if block.identity == segment.identity
                    && segment.start_ms - block.end_ms < silence_ms
                    && segment.start_ms - block.start_ms < length_ms =>
            {
                block.end_ms = segment.end_ms;
                block.text = format!("{} {}", block.text.trim(), segment.text.trim());
            }
            _ => blocks.push(Segment { words: Vec::new(), ..segment.clone() }),
        }
    }
    let blocks: Vec<String> = blocks
        .iter()
        .map(|block| {
            let (name, text) = (plain_name(&block.display_name), one_line(&block.text));
            format!("{} -> {}\n{name}\n{text}\n", clock(block.start_ms), clock(block.end_ms))
        })
        .collect();
    blocks.into_iter().chain(missing(transcript).map(|line| format!("{line}\n"))).collect::<Vec<_>>().join("\n")
}

/// Letters, digits and what names have besides; anything else could be taken for a tag or a path.
fn plain_name(name: &str) -> String {
    let kept: String = name.chars().filter(|c| c.is_alphanumeric() || c.is_whitespace() || matches!(c, '.' | '-' | '_')).collect();
    one_line(&kept)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

fn stamp(ms: i64) -> String {
    let ms = ms.max(0);
    format!("{:02}:{:02}:{:02}.{:03}", ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60, ms % 1_000)
}

/// To the nearest second; unlike the original's, never `:60`.
fn clock(ms: i64) -> String {
    let seconds = (ms.max(0) + 500) / 1_000;
    format!("{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transcribe::transcript::MissingTrack;

    fn segment(identity: &str, start_ms: i64, end_ms: i64, text: &str) -> Segment {
        Segment {
            identity: identity.into(),
            display_name: format!("{identity}  <O'Brien>"),
            start_ms,
            end_ms,
            text: text.into(),
            ..Segment::default()
        }
    }

    fn transcript(segments: Vec<Segment>) -> Transcript {
        Transcript { language: "en".into(), model: "m".into(), segments, ..Transcript::default() }
    }

    #[test]
    fn who_is_missing_is_named_in_both() {
        let track = MissingTrack { display_name: "Ada <x>".into(), ..MissingTrack::default() };
        let said = Transcript { missing: vec![track], ..transcript(vec![segment("Bob", 0, 900, "hello")]) };
        assert!(vtt(&said, false).starts_with("WEBVTT\n\nNOTE Words of Ada &lt;x&gt; are missing, from 00:00:00 on: "));
        assert!(
            text(&said, &MattermostTranscription::default())
                .ends_with("hello\n\nWords of Ada <x> are missing, from 00:00:00 on: their recording cannot be read.\n")
        );
    }

    #[test]
    fn cues_have_the_layout_of_the_original() {
        let said = transcript(vec![segment("Ada", 1_500, 2_750, "a < b & \"c\""), segment("Bob", 3_661_000, 3_661_000, "later")]);
        let expected = "WEBVTT\n\n00:00:01.500 --> 00:00:02.750\n<v Ada OBrien>(Ada OBrien) a &lt; b &amp; &#34;c&#34;\n\n\
                        01:01:01.000 --> 01:01:01.001\n<v Bob OBrien>(Bob OBrien) later\n";
        assert_eq!(vtt(&said, false), expected);
        assert!(vtt(&said, true).contains("--> 00:00:02.750\na &lt; b &amp; &#34;c&#34;\n"));
    }

    #[test]
    fn what_is_said_in_one_go_is_one_block() {
        let said = transcript(vec![
            segment("Ada", 0, 1_000, "one"),
            segment("Ada", 2_999, 4_000, "two"),
            segment("Ada", 6_000, 9_700, "three"),
            segment("Bob", 9_750, 9_900, "four"),
            segment("Bob", 59_600, 59_800, "five"),
        ]);
        let blocks = text(&said, &MattermostTranscription::default());
        assert_eq!(
            blocks,
            "00:00:00 -> 00:00:04\nAda OBrien\none two\n\n00:00:06 -> 00:00:10\nAda OBrien\nthree\n\n\
             00:00:10 -> 00:00:10\nBob OBrien\nfour\n\n00:01:00 -> 00:01:00\nBob OBrien\nfive\n"
        );
        // Ten seconds after its beginning a block is over, however short the pauses.
        let long = transcript((0..12).map(|n| segment("Ada", n * 1_000, n * 1_000 + 900, "x")).collect());
        assert_eq!(text(&long, &MattermostTranscription::default()).matches("->").count(), 2);
        let wide = MattermostTranscription { compact_segment_ms: 60_000, ..Default::default() };
        assert_eq!(text(&long, &wide).matches("->").count(), 1);
    }
}
