//! Whisper's decoder driven by hand: one encoder pass over a window as small as the audio, then greedy decoding with a guard.
//!
//! `whisper_full` encodes 30 s whatever it is given and answers a bad decode with hotter ones. A window fitted to the audio is
//! 4 to 13 times cheaper; the guard against loops then does what the temperature fallback was for, and better (measured, see
//! docs/speech.md). For transcripts the last step goes through `whisper_full` all the same, because only there whisper.cpp
//! aligns tokens with the audio (dynamic time warping over the cross attention).

use std::sync::Arc;

use whisper_rs::{FullParams, SamplingStrategy, WhisperContext, WhisperError, WhisperState};

use super::ending::Ending;
use super::guard;
use super::vocabulary::Likely;
use crate::limits::SPEECH_RATE;

/// One thread's working memory on the shared model.
pub struct Recogniser {
    context: Arc<WhisperContext>,
    state: WhisperState,
    timed: bool,
    likely: Likely,
}

/// What to listen for.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Two-letter code; none: English-only models need none, others use English.
    pub language: Option<String>,
    /// Tokens that are settled already: decoding goes on after them. Live only.
    pub prefix: Vec<i32>,
}

/// A piece of a word, as the model counts.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// The model's number for it.
    pub id: i32,
    /// How sure the model was, 0 to 1.
    pub p: f32,
    /// Its bytes: a character may be spread over two tokens.
    pub bytes: Vec<u8>,
    /// When its sound ended, in seconds from the start; only from a model opened for transcripts.
    pub end_s: Option<f32>,
}

/// What was heard in one piece of audio.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    /// The text, in pieces, without control tokens.
    pub tokens: Vec<Token>,
    /// How likely the model thinks that nobody spoke.
    pub no_speech: f32,
    /// The guard had to cut a loop.
    pub looped: bool,
    /// The last token that came was the end, as whisper.cpp's alignment needs it: see `ending.rs`.
    pub ended: bool,
}

impl Heard {
    /// The text as it stands.
    pub fn text(&self) -> String {
        let bytes: Vec<u8> = self.tokens.iter().flat_map(|t| t.bytes.iter().copied()).collect();
        String::from_utf8_lossy(&bytes).trim().to_string()
    }

    /// Whether it should be shown at all.
    pub fn believable(&self) -> bool {
        guard::believable(&self.tokens, self.no_speech)
    }
}

/// Encoder positions beyond the audio, 50 a second. When speech fills the window the decoder repeats itself; with 2 s of room
/// it does in few cases, which the guard catches, and a second try with more room resolves.
const MARGIN: usize = 100;
/// Room for transcripts with the tiny models: 4 s gave the fewest wrong words (3.3 % against 4.0 % with 2 s); base has the same
/// 3.05 % with both.
const MARGIN_WIDE: usize = 200;
/// Encoder width of the tiny models.
const SMALLEST_WIDTH: i32 = 384;
/// Encoder positions of Whisper's full window.
const FULL_WINDOW: usize = 1_500;
/// whisper.cpp refuses less than 100 ms, and the model was never trained on less than about a second.
const SHORTEST: usize = SPEECH_RATE;

impl Recogniser {
    pub(super) fn new(context: Arc<WhisperContext>, timed: bool, likely: Likely) -> Result<Self, WhisperError> {
        let state = context.create_state()?;
        Ok(Self { context, state, timed, likely })
    }

    /// Words of one piece of audio (at most 30 s). With a loop or no result worth believing it is tried once more, wider.
    pub fn hear(&mut self, samples: &[f32], request: &Request) -> Result<Heard, WhisperError> {
        let padded;
        let samples = if samples.len() < SHORTEST {
            padded = [samples, &vec![0.0; SHORTEST - samples.len()]].concat();
            &padded
        } else {
            &samples[..samples.len().min(30 * SPEECH_RATE)]
        };
        if self.timed {
            let margin = if self.context.model_n_audio_state() <= SMALLEST_WIDTH { MARGIN_WIDE } else { MARGIN };
            let heard = self.hear_timed(samples, request, margin, &[])?;
            if !heard.looped {
                return self.with_likely_words(samples, request, margin, heard);
            }
            let again = self.hear_timed(samples, request, margin + 256, &[])?;
            return Ok(if again.looped && again.tokens.len() > heard.tokens.len() { heard } else { again });
        }
        self.hear_live(samples, request, MARGIN)
    }

    /// Hears once more where that gives a word of the vocabulary that was not in what was `heard`, see `vocabulary.rs`. The sound is
    /// encoded already, so that most pieces cost a decode more.
    fn with_likely_words(&mut self, samples: &[f32], request: &Request, margin: usize, heard: Heard) -> Result<Heard, WhisperError> {
        let likely = self.likely.clone();
        if likely.tokens.is_empty() || !heard.believable() {
            return Ok(heard);
        }
        let tried = self.decode(samples, request, &likely.tokens, heard.no_speech)?;
        if tried.looped || !likely.adds(&heard.text(), &tried.text()) {
            return Ok(heard);
        }
        let named = self.hear_timed(samples, request, margin, &likely.tokens)?;
        Ok(better_named(&likely, heard, named))
    }

    /// A last pass over a finished live piece: no prefix, and wider if the guard fires.
    pub fn hear_final(&mut self, samples: &[f32], request: &Request) -> Result<Heard, WhisperError> {
        let free = Request { language: request.language.clone(), prefix: Vec::new() };
        let heard = self.hear(samples, &free)?;
        if !heard.looped || self.timed {
            return Ok(heard);
        }
        self.hear_live(&samples[..samples.len().min(30 * SPEECH_RATE)], &free, MARGIN + 256)
    }

    /// The language spoken, as a two-letter code. Costs a full encoder pass: once a speaker, then keep it.
    pub fn detect_language(&mut self, samples: &[f32]) -> Result<String, WhisperError> {
        if !self.context.is_multilingual() {
            return Ok("en".into());
        }
        self.state.pcm_to_mel(&samples[..samples.len().min(30 * SPEECH_RATE)], 1)?;
        let (id, _) = self.state.lang_detect(0, 1)?;
        Ok(whisper_rs::get_lang_str(id).unwrap_or("en").to_string())
    }

    fn parameters<'a, 'b>(&self, language: &'a str, seconds: f32, margin: usize) -> FullParams<'a, 'b> {
        let mut parameters = FullParams::new(SamplingStrategy::Greedy { best_of: 1 });
        // More threads spin against each other as soon as anything else wants the CPU: 0.9 CPU seconds became 16 (measured).
        parameters.set_n_threads(1);
        parameters.set_language(Some(language));
        parameters.set_no_context(true);
        parameters.set_single_segment(true);
        parameters.set_no_timestamps(true);
        parameters.set_temperature_inc(0.0);
        parameters.set_suppress_blank(true);
        parameters.set_print_special(false);
        parameters.set_print_progress(false);
        parameters.set_print_realtime(false);
        parameters.set_print_timestamps(false);
        let positions = (seconds * 50.0).ceil() as usize + margin;
        parameters.set_audio_ctx(positions.div_ceil(64).saturating_mul(64).min(FULL_WINDOW) as i32);
        parameters
    }

    fn language<'r>(&self, request: &'r Request) -> &'r str {
        match &request.language {
            Some(language) if self.context.is_multilingual() && known_language(language) => language,
            _ => "en",
        }
    }

    /// Encode, decode and align through whisper.cpp's own loop, after `likely` words.
    fn hear_timed(&mut self, samples: &[f32], request: &Request, margin: usize, likely: &[i32]) -> Result<Heard, WhisperError> {
        let seconds = samples.len() as f32 / SPEECH_RATE as f32;
        let eot = self.context.token_eot();
        let ending = Ending::new(guard::token_budget(seconds), eot, self.context.n_vocab());
        let mut parameters = self.parameters(self.language(request), seconds, margin);
        ending.rule(&mut parameters);
        parameters.set_tokens(likely);
        self.state.full(parameters, samples)?;
        let mut heard = Heard { ended: true, ..Heard::default() };
        for segment in self.state.as_iter() {
            for n in 0..segment.n_tokens() {
                let Some(token) = segment.get_token(n) else { break };
                let data = token.token_data();
                heard.ended = data.id >= eot;
                if heard.ended {
                    continue;
                }
                let end_s = (data.t_dtw >= 0).then_some(data.t_dtw as f32 / 100.0);
                heard.tokens.push(Token { id: data.id, p: data.p, bytes: token.to_bytes().map(<[u8]>::to_vec).unwrap_or_default(), end_s });
            }
        }
        // whisper.cpp's own figure for this is always 0 without timestamps.
        self.state.decode(&[self.context.token_sot()], 0, 1)?;
        heard.no_speech = self.no_speech()?;
        // whisper.cpp decodes on through a loop: look for its first full turn, not only at the end.
        for end in 1..=heard.tokens.len() {
            if let Some(drop) = guard::repetition(&heard.tokens[..end]) {
                heard.looped = true;
                heard.tokens.truncate(end - drop);
                break;
            }
        }
        heard.looped |= heard.tokens.len() >= guard::token_budget(seconds);
        Ok(heard)
    }

    /// Encode, then decode token by token, going on after a settled prefix.
    fn hear_live(&mut self, samples: &[f32], request: &Request, margin: usize) -> Result<Heard, WhisperError> {
        let seconds = samples.len() as f32 / SPEECH_RATE as f32;
        let language = self.language(request).to_string();
        let mut parameters = self.parameters(&language, seconds, margin);
        // One token: mel and encoder run at the fitted window, which whisper.cpp lets nobody set otherwise.
        parameters.set_max_tokens(1);
        self.state.full(parameters, samples)?;
        // What the model expects right after the start says whether it thinks that anybody spoke.
        self.state.decode(&[self.context.token_sot()], 0, 1)?;
        let no_speech = self.no_speech()?;

        let heard = self.decode(samples, request, &[], no_speech)?;
        let likely = self.likely.clone();
        if likely.tokens.is_empty() || heard.looped || !heard.believable() {
            return Ok(heard);
        }
        let named = self.decode(samples, request, &likely.tokens, no_speech)?;
        Ok(better_named(&likely, heard, named))
    }

    /// Decodes what was encoded last, token by token, after `likely` words and going on after a settled prefix.
    fn decode(&mut self, samples: &[f32], request: &Request, likely: &[i32], no_speech: f32) -> Result<Heard, WhisperError> {
        let seconds = samples.len() as f32 / SPEECH_RATE as f32;
        let mut prompt = Vec::new();
        if !likely.is_empty() {
            prompt.push(self.context.token_prev());
            prompt.extend(likely);
            prompt.push(self.context.token_sot());
        }
        // Without likely words the start is there: `no_speech` came of it.
        let from = usize::from(likely.is_empty());
        if self.context.is_multilingual() {
            let id = whisper_rs::get_lang_id(self.language(request)).unwrap_or(0);
            prompt.extend([self.context.token_lang(id), self.context.token_transcribe()]);
        }
        prompt.push(self.context.token_not());
        prompt.extend(&request.prefix);
        let Some((last, head)) = prompt.split_last() else { return Ok(Heard::default()) };
        // `get_logits` answers row 0, so only a decode of a single token has logits one can use.
        if !head.is_empty() {
            self.state.decode(head, from, 1)?;
        }
        let (mut next, mut past) = (*last, head.len() + from);

        let mut heard = Heard { tokens: Vec::new(), no_speech, looped: false, ended: false };
        for &id in &request.prefix {
            heard.tokens.push(Token { id, p: 1.0, bytes: self.bytes(id), end_s: None });
        }
        let budget = guard::token_budget(seconds);
        loop {
            self.state.decode(&[next], past, 1)?;
            past += 1;
            let (id, p) = self.best(heard.tokens.is_empty())?;
            if id == self.context.token_eot() {
                heard.ended = true;
                break;
            }
            heard.tokens.push(Token { id, p, bytes: self.bytes(id), end_s: None });
            if let Some(drop) = guard::repetition(&heard.tokens) {
                heard.looped = true;
                // What was forced stays: it has been shown for good.
                let keep = (heard.tokens.len() - drop).max(request.prefix.len());
                heard.tokens.truncate(keep);
                break;
            }
            if heard.tokens.len() >= budget.max(request.prefix.len() + 1) {
                heard.looped = true;
                break;
            }
            next = id;
        }
        Ok(heard)
    }

    /// The likeliest next token: text or end, and not the end or a blank as the first.
    fn best(&self, first: bool) -> Result<(i32, f32), WhisperError> {
        let logits = self.state.get_logits()?;
        let eot = self.context.token_eot() as usize;
        let allowed = logits.get(..=eot).ok_or(WhisperError::NullPointer)?;
        let (mut best, mut top) = (eot, f32::NEG_INFINITY);
        for (id, &logit) in allowed.iter().enumerate() {
            if logit > top && !(first && (id == eot || id == BLANK)) {
                (best, top) = (id, logit);
            }
        }
        let sum: f32 = allowed.iter().map(|&logit| (logit - top).exp()).sum();
        Ok((best as i32, 1.0 / sum.max(1.0)))
    }

    fn no_speech(&self) -> Result<f32, WhisperError> {
        let logits = self.state.get_logits()?;
        let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = logits.iter().map(|&logit| (logit - top).exp()).sum();
        Ok(logits.get(self.context.token_nosp() as usize).map_or(0.0, |&logit| (logit - top).exp() / sum))
    }

    fn bytes(&self, id: i32) -> Vec<u8> {
        self.context.token_to_bytes(id).map(<[u8]>::to_vec).unwrap_or_default()
    }
}

/// What was heard with likely words where that gives one of them, and else what was heard without.
fn better_named(likely: &Likely, heard: Heard, named: Heard) -> Heard {
    let taken = !named.looped && named.believable() && likely.adds(&heard.text(), &named.text());
    if taken { named } else { heard }
}

/// Whether Whisper knows this two-letter code.
pub fn known_language(code: &str) -> bool {
    // whisper-rs turns the code into a C string and panics on a NUL.
    code.len() <= 3 && code.bytes().all(|b| b.is_ascii_lowercase()) && whisper_rs::get_lang_id(code).is_some()
}

/// A language's English name, for people; the code itself where Whisper has none.
pub fn language_name(code: &str) -> String {
    let name =
        known_language(code).then(|| whisper_rs::get_lang_id(code).and_then(whisper_rs::get_lang_str_full)).flatten().unwrap_or(code);
    let mut letters = name.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// The token " " of all Whisper vocabularies (GPT-2's byte order puts it at 220).
const BLANK: usize = 220;
