//! What a job is given with: the keys of the recorder's and the transcriber's environments, in small letters.
//!
//! The plugin puts every `MM_CALLS_RECORDER_…` and `MM_CALLS_TRANSCRIBER_…` of its server among them, as texts. What names the call
//! must be right; how it is to look is brought into its bounds, with a line in the log, and never fails a job.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use offloader_jobs::layout::Layout;
use offloader_jobs::mattermost::{MattermostCall, MattermostCaptions, MattermostRecording, MattermostTranscription, PictureProfile};
use offloader_jobs::vocabulary::Vocabulary;
use serde_json::{Map, Value};

use super::runner::Kind;

/// Longest address of a server.
const URL_LEN_MAX: usize = 2_048;
const PRESETS: [&str; 6] = ["medium", "fast", "faster", "veryfast", "superfast", "ultrafast"];
const MODELS: [&str; 5] = ["tiny", "base", "small", "medium", "large"];
/// Stands in answers and in the store for what nobody is to read there.
const HIDDEN: &str = "(redacted)";

/// What is wanted of a call.
pub(super) struct Asked {
    /// For the capture; of recording and transcription one is there.
    pub(super) call: MattermostCall,
    /// The plugin's own id of it.
    pub(super) piece_id: String,
    /// Language of the speech, if known.
    pub(super) language: Option<String>,
    /// What was changed or cannot be had.
    pub(super) notes: Vec<String>,
}

/// Reads what came with a job.
pub(super) fn read(kind: Kind, input: &Map<String, Value>) -> Result<Asked, String> {
    let mut input = Input { input, notes: Vec::new() };
    let (site_url, channel_id, post_id) = (input.site_url()?, input.id("call_id")?, input.id("post_id")?);
    let auth_token = input.id("auth_token")?;
    let ca_file = input.ca_file();
    let livekit_url = input.livekit_url();
    let language = input.language("language");
    let mut call = MattermostCall { site_url, channel_id, post_id, ca_file, livekit_url, ..MattermostCall::default() };
    let piece_id = match kind {
        Kind::Recording => {
            let id = input.id("recording_id")?;
            input.only("output_format", "mp4");
            call.recording = Some(MattermostRecording { id: id.clone(), auth_token, picture: input.picture() });
            id
        }
        Kind::Transcribing => {
            let id = input.id("transcription_id")?;
            input.only("output_format", "vtt");
            input.only("transcribe_api", "whisper.cpp");
            call.transcription = Some(input.transcription(id.clone(), auth_token, language.clone()));
            id
        }
    };
    Ok(Asked { call, piece_id, language, notes: input.notes })
}

/// The same without secrets, for answers and for the store.
pub(super) fn redacted(input: &Map<String, Value>) -> Map<String, Value> {
    let secret = |key: &str| {
        let key = key.to_lowercase();
        // Options of a recogniser hold its key.
        key == "transcribe_api_options" || ["token", "secret", "password", "key", "credential"].iter().any(|word| key.contains(word))
    };
    let hidden = |value: &Value| match value {
        // Nothing is nothing.
        Value::String(text) if text.is_empty() || text == "null" => value.clone(),
        Value::Null => Value::Null,
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => HIDDEN.into(),
    };
    input.iter().map(|(key, value)| (key.clone(), if secret(key) { hidden(value) } else { value.clone() })).collect()
}

struct Input<'a> {
    input: &'a Map<String, Value>,
    notes: Vec<String>,
}

impl Input<'_> {
    /// As the original hands it on: every value as a text. `None`: not there, or nothing.
    fn text(&self, key: &str) -> Option<String> {
        match self.input.get(key)? {
            Value::String(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
            Value::Bool(flag) => Some(flag.to_string()),
            Value::Number(number) => Some(number.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }

    fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    /// Ids of Mattermost: 26 small letters and digits.
    fn id(&self, key: &str) -> Result<String, String> {
        let id = self.text(key).ok_or_else(|| format!("{key} should not be empty"))?;
        let fits = id.len() == 26 && id.bytes().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit());
        if fits { Ok(id) } else { Err(format!("{key} should be 26 small letters and digits")) }
    }

    fn site_url(&self) -> Result<String, String> {
        let text = self.text("site_url").ok_or("site_url should not be empty")?;
        let url = text.trim_end_matches('/');
        let parsed: axum::http::Uri = url.parse().map_err(|_| "site_url should be an address".to_owned())?;
        let web = matches!(parsed.scheme_str(), Some("http" | "https")) && parsed.host().is_some_and(|host| !host.is_empty());
        let plain = parsed.query().is_none() && !url.contains(['#', '@']) && url.len() <= URL_LEN_MAX;
        if web && plain { Ok(url.to_owned()) } else { Err("site_url should be http:// or https://, a host, and perhaps a path".into()) }
    }

    fn ca_file(&mut self) -> Option<PathBuf> {
        let path = PathBuf::from(self.text("tls_ca_cert_file")?);
        if path.is_absolute() && Path::new(&path).is_file() {
            return Some(path);
        }
        self.note("tls_ca_cert_file names no file of the offloader's machine by its full path: the machine's own certificates hold".into());
        None
    }

    /// `MM_CALLS_RECORDER_LIVEKIT_URL` of the Mattermost server.
    fn livekit_url(&mut self) -> Option<String> {
        let text = self.text("livekit_url")?;
        let parsed: Option<axum::http::Uri> = text.parse().ok();
        let known = |uri: &axum::http::Uri| {
            matches!(uri.scheme_str(), Some("ws" | "wss" | "http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
        };
        if text.len() <= URL_LEN_MAX && parsed.as_ref().is_some_and(known) && !text.contains(['#', '@']) {
            return Some(text.trim_end_matches('/').to_owned());
        }
        self.note("livekit_url should be ws:// or wss:// and a host: the plugin's own address of LiveKit holds".into());
        None
    }

    fn number(&mut self, key: &str, range: RangeInclusive<u32>, default: u32) -> u32 {
        let Some(text) = self.text(key) else { return default };
        // A number that JSON writes with a point or an exponent is one too.
        let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
        let Some(number) = number else {
            self.note(format!("{key} is no number: {default} is taken"));
            return default;
        };
        let clamped = (number.round() as i64).clamp(i64::from(*range.start()), i64::from(*range.end()));
        if (clamped as f64 - number).abs() > f64::EPSILON {
            self.note(format!("{key} is not within {} and {}: {clamped} is taken", range.start(), range.end()));
        }
        u32::try_from(clamped).unwrap_or(default)
    }

    fn flag(&mut self, key: &str, default: bool) -> bool {
        match self.text(key).as_deref().map(str::to_lowercase).as_deref() {
            None => default,
            Some("true" | "t" | "1" | "yes" | "on") => true,
            Some("false" | "f" | "0" | "no" | "off") => false,
            Some(_) => {
                self.note(format!("{key} is neither true nor false: {default} is taken"));
                default
            }
        }
    }

    fn choice(&mut self, key: &str, choices: &[&str], default: &str) -> String {
        match self.text(key) {
            None => default.to_owned(),
            Some(text) if choices.contains(&text.as_str()) => text,
            Some(_) => {
                self.note(format!("{key} is none of {}: {default} is taken", choices.join(", ")));
                default.to_owned()
            }
        }
    }

    /// There is one way to do it.
    fn only(&mut self, key: &str, way: &str) {
        self.choice(key, &[way], way);
    }

    /// A code of the recogniser's, `de`, or nothing for "find out".
    fn language(&mut self, key: &str) -> Option<String> {
        let text = self.text(key)?.to_lowercase();
        if text == "auto" {
            return None;
        }
        if (2..=3).contains(&text.len()) && text.bytes().all(|letter| letter.is_ascii_lowercase()) {
            return Some(text);
        }
        self.note(format!("{key} is no code of a language: it is found out"));
        None
    }

    /// `MM_CALLS_TRANSCRIBER_VOCABULARY` of the Mattermost server.
    fn vocabulary(&mut self) -> Vocabulary {
        let Some(text) = self.text("vocabulary") else { return Vocabulary::default() };
        text.parse().unwrap_or_else(|error| {
            self.note(format!("vocabulary is left out: {error}"));
            Vocabulary::default()
        })
    }

    fn picture(&mut self) -> PictureProfile {
        PictureProfile {
            width: self.number("width", 1_280..=3_840, 1_920) & !1,
            height: self.number("height", 720..=2_160, 1_080) & !1,
            frame_rate: self.number("frame_rate", 10..=60, 30),
            video_kbps: self.number("video_rate", 500..=10_000, 1_500),
            audio_kbps: self.number("audio_rate", 32..=320, 64),
            opus: false,
            preset: self.choice("video_preset", &PRESETS, "fast"),
            always: true,
            cameras: self.flag("cameras", true),
            single: false,
            layout: self.choice("layout", &Layout::NAMES, "grid").parse().unwrap_or_default(),
            later: Vec::new(),
        }
    }

    fn transcription(&mut self, id: String, auth_token: String, language: Option<String>) -> MattermostTranscription {
        let cores = std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX));
        let captions = self.flag("live_captions_on", false).then(|| MattermostCaptions {
            model_size: self.choice("live_captions_model_size", &MODELS, "tiny"),
            transcribers: self.number("live_captions_num_transcribers", 1..=cores, 1),
            threads: self.number("live_captions_num_threads_per_transcriber", 1..=cores, 2.min(cores)),
            language: self.language("live_captions_language").unwrap_or_else(|| "en".into()),
        });
        MattermostTranscription {
            id,
            auth_token,
            model_size: self.choice("model_size", &MODELS, "base"),
            threads: self.number("num_threads", 0..=cores, 0),
            language,
            vocabulary: self.vocabulary(),
            omit_speaker: self.flag("webvtt_omit_speaker", false),
            compact_silence_ms: self.number("text_compact_silence_threshold_ms", 1..=u32::MAX, 2_000),
            compact_segment_ms: self.number("text_compact_max_segment_duration_ms", 1..=u32::MAX, 10_000),
            captions,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use offloader_jobs::layout::Arrangement;
    use serde_json::json;

    fn id(letter: char) -> String {
        letter.to_string().repeat(26)
    }

    fn recording(more: Value) -> Map<String, Value> {
        with(json!({ "recording_id": id('r') }), more)
    }

    fn with(piece: Value, more: Value) -> Map<String, Value> {
        let mut input = json!({ "site_url": "https://chat.example.org/", "call_id": id('c'), "post_id": id('p'), "auth_token": id('t') });
        for part in [piece, more] {
            input.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
        }
        input.as_object().unwrap().clone()
    }

    #[test]
    fn the_plugins_three_profiles_come_as_they_are() {
        for (size, rate, audio, frames, preset) in
            [((1280, 720), 1000, 64, 15, "ultrafast"), ((1280, 720), 1500, 64, 20, "veryfast"), ((1920, 1080), 2500, 64, 20, "veryfast")]
        {
            let more = json!({ "width": size.0, "height": size.1, "video_rate": rate, "audio_rate": audio, "frame_rate": frames,
                "video_preset": preset, "output_format": "mp4" });
            let asked = read(Kind::Recording, &recording(more)).unwrap();
            let recording = asked.call.recording.unwrap();
            let expected = PictureProfile {
                width: size.0,
                height: size.1,
                frame_rate: frames,
                video_kbps: rate,
                audio_kbps: audio,
                opus: false,
                preset: preset.into(),
                always: true,
                cameras: true,
                single: false,
                layout: Layout::default(),
                later: Vec::new(),
            };
            assert_eq!(recording.picture, expected);
            assert!(asked.notes.is_empty(), "{:?}", asked.notes);
            assert_eq!((recording.id, recording.auth_token, asked.piece_id), (id('r'), id('t'), id('r')));
            assert_eq!(asked.call.site_url, "https://chat.example.org");
        }
    }

    #[test]
    fn nothing_said_is_the_recorders_default_and_nonsense_is_brought_into_bounds() {
        let picture = |more: Value| {
            let asked = read(Kind::Recording, &recording(more)).unwrap();
            (asked.call.recording.unwrap().picture, asked.notes.len())
        };
        let (default, notes) = picture(json!({}));
        assert_eq!((default.width, default.height, default.frame_rate, default.video_kbps, notes), (1920, 1080, 30, 1500, 0));
        assert_eq!((default.audio_kbps, default.preset.as_str()), (64, "fast"));
        // As texts, which is how a server's environment comes.
        let texts = json!({ "width": "2560", "height": "1440.0", "frame_rate": " 24 ", "cameras": "false", "extra_chromium_args": "--x",
            "layout": "speaker-light" });
        let (texts, notes) = picture(texts);
        assert_eq!((texts.width, texts.height, texts.frame_rate, texts.cameras, notes), (2560, 1440, 24, false, 0));
        assert_eq!(texts.layout, Layout { arrangement: Arrangement::Speaker, light: true });
        let wild = json!({ "width": 99_999, "height": -3, "frame_rate": 0, "video_rate": 1e21, "audio_rate": "loud", "video_preset": "slow",
            "output_format": "webm", "cameras": "perhaps", "layout": "mosaic" });
        let (wild, notes) = picture(wild);
        assert_eq!((wild.width, wild.height, wild.frame_rate, wild.video_kbps, wild.audio_kbps), (3840, 720, 10, 10_000, 64));
        assert_eq!((wild.preset.as_str(), wild.cameras, wild.layout, notes), ("fast", true, Layout::default(), 9));
        assert_eq!(picture(json!({ "width": 1281, "height": 721 })).0.width % 2, 0);
    }

    #[test]
    fn transcriptions_come_with_their_options_and_captions_only_where_wanted() {
        let read = |more: Value| read(Kind::Transcribing, &with(json!({ "transcription_id": id('s') }), more)).unwrap();
        let plain = read(json!({ "transcribe_api_options": "null", "live_captions_on": false }));
        let words = plain.call.transcription.unwrap();
        assert_eq!((words.model_size.as_str(), words.threads, words.captions.is_none()), ("base", 0, true));
        assert_eq!((words.compact_silence_ms, words.compact_segment_ms, words.omit_speaker), (2_000, 10_000, false));
        assert!(plain.notes.is_empty() && plain.call.recording.is_none(), "{:?}", plain.notes);
        let full =
            read(json!({ "transcribe_api": "azure", "transcribe_api_options": "{\"AZURE_SPEECH_KEY\":\"k\"}", "model_size": "small",
            "output_format": "vtt", "num_threads": "1", "live_captions_on": true, "live_captions_model_size": "huge",
            "live_captions_num_transcribers": 1, "live_captions_num_threads_per_transcriber": 1, "live_captions_language": "de",
            "webvtt_omit_speaker": "true", "text_compact_silence_threshold_ms": 0, "language": "FR" }));
        let words = full.call.transcription.unwrap();
        assert_eq!((words.model_size.as_str(), words.threads, words.omit_speaker, words.compact_silence_ms), ("small", 1, true, 1));
        let captions = words.captions.unwrap();
        assert_eq!((captions.model_size.as_str(), captions.transcribers, captions.language.as_str()), ("tiny", 1, "de"));
        assert_eq!((words.language.as_deref(), full.language.as_deref()), (Some("fr"), Some("fr")));
        assert_eq!(full.notes.len(), 3, "azure, huge, 0 ms: {:?}", full.notes);
        let named = read(json!({ "vocabulary": "Ngozi Okafor, Kubernetes" }));
        assert_eq!(named.call.transcription.unwrap().vocabulary.entries().collect::<Vec<_>>(), ["Ngozi Okafor", "Kubernetes"]);
        for wrong in ["Okafor\u{7}Kubernetes".to_owned(), "Okafor, ".repeat(300)] {
            let wrong = read(json!({ "vocabulary": wrong }));
            assert!(wrong.call.transcription.unwrap().vocabulary.is_empty() && wrong.notes.len() == 1, "{:?}", wrong.notes);
        }
    }

    #[test]
    fn what_names_the_call_must_be_right() {
        for (key, value) in [
            ("site_url", json!("")),
            ("site_url", json!("chat.example.org")),
            ("site_url", json!("ftp://chat.example.org")),
            ("site_url", json!("https://user:pass@chat.example.org")),
            ("site_url", json!("https://chat.example.org/?x=1")),
            ("call_id", json!("short")),
            ("call_id", json!(id('C'))),
            ("post_id", Value::Null),
            ("recording_id", json!("../../../../../../etc/passwd")),
            ("auth_token", json!(7)),
        ] {
            let error = read(Kind::Recording, &recording(json!({ key: value }))).err().unwrap();
            assert!(error.starts_with(key), "{key}: {error}");
        }
        // A path is fine, which is more than the original takes.
        let under = read(Kind::Recording, &recording(json!({ "site_url": "http://10.0.0.1:8065/chat//" }))).unwrap();
        assert_eq!(under.call.site_url, "http://10.0.0.1:8065/chat");
    }

    #[test]
    fn a_certificate_is_taken_only_where_there_is_one() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        assert_eq!(
            read(Kind::Recording, &recording(json!({ "tls_ca_cert_file": path }))).unwrap().call.ca_file.as_deref(),
            Some(file.path())
        );
        for other in ["relative.pem", "/nowhere/ca.pem", "/"] {
            let asked = read(Kind::Recording, &recording(json!({ "tls_ca_cert_file": other }))).unwrap();
            assert_eq!((asked.call.ca_file, asked.notes.len()), (None, 1), "{other}");
        }
    }

    #[test]
    fn livekit_may_be_elsewhere_for_the_bot() {
        let read = |url: &str| {
            let asked = read(Kind::Recording, &recording(json!({ "livekit_url": url }))).unwrap();
            (asked.call.livekit_url, asked.notes.len())
        };
        for (url, taken) in [("wss://livekit.internal/", "wss://livekit.internal"), (" http://10.0.0.7:7880 ", "http://10.0.0.7:7880")] {
            assert_eq!(read(url), (Some(taken.to_owned()), 0));
        }
        for wrong in ["livekit.internal", "ftp://livekit.internal", "ws://", "ws://user:secret@livekit.internal"] {
            assert_eq!(read(wrong), (None, 1), "{wrong}");
        }
        assert_eq!(read(""), (None, 0));
    }

    #[test]
    fn secrets_are_hidden_wherever_they_stand() {
        let input =
            recording(json!({ "transcribe_api_options": "{\"AZURE_SPEECH_KEY\":\"k\"}", "azure_speech_key": "k", "My_Password": "p",
            "width": 1280, "empty_token": "" }));
        let shown = redacted(&input);
        assert_eq!((shown["auth_token"].as_str(), shown["transcribe_api_options"].as_str()), (Some(HIDDEN), Some(HIDDEN)));
        assert_eq!((shown["azure_speech_key"].as_str(), shown["My_Password"].as_str()), (Some(HIDDEN), Some(HIDDEN)));
        assert_eq!(
            (shown["width"].as_i64(), shown["empty_token"].as_str(), shown["call_id"].as_str()),
            (Some(1280), Some(""), input["call_id"].as_str())
        );
        assert_eq!(redacted(&recording(json!({ "transcribe_api_options": "null" })))["transcribe_api_options"], "null");
    }
}
