//! Live captions without threads, sockets or a clock: told of sound and of what was heard, asked what to hear next.
//!
//! A track's speech is cut into *lines* (a stretch between pauses). A line is heard again and again while it grows, and once
//! more when it is over; the run whose deadline is earliest goes first. Under load the step between runs grows; the last run
//! of a line is never left out.

use std::collections::VecDeque;
use std::sync::Arc;

use super::stabilise::Stabiliser;
use crate::limits::{LANGUAGE_SETTLES, SPEECH_RATE};
use crate::speech::vad::FRAME;
use crate::speech::{Heard, guard};

/// Speech begins at this probability and is over below the second.
const OPEN: f32 = 0.5;
const CLOSE: f32 = 0.35;
/// Sound kept from before the detector opened: it is late on soft consonants.
const PRE_ROLL: usize = SPEECH_RATE * 35 / 100;
/// A line is over after so much silence. 0.4 s cost 0.7 % more wrong words, 0.9 s made the 90th percentile of the delay 3.3 s.
const PAUSE_FRAMES: usize = SPEECH_RATE * 6 / 10 / FRAME;
/// After so much silence a line is heard even if its next step has not come: the end of a sentence need not wait for the pause
/// that ends the line, and what this run heard is the line's last word unless somebody goes on.
const BREATH_FRAMES: usize = SPEECH_RATE * 22 / 100 / FRAME;
/// A line without a pause is cut at this length; attention costs the square of it.
const LONGEST: usize = SPEECH_RATE * 12;
/// Less voice than this is a click.
const SHORTEST_FRAMES: usize = 6;
/// Less sound than this is not worth a first run: half a word.
const FIRST_RUN: usize = SPEECH_RATE / 2;
/// Steps between two runs of a line, µs, from a free machine to a loaded one.
const STEPS_US: [i64; 3] = [500_000, 1_000_000, 2_000_000];
/// So many runs in a row must have been in time before the step shrinks again: 8 to 16 s of one talker. With 20, one stall of
/// the machine made captions slow for a minute.
const IN_TIME_RUNS: u32 = 8;
/// Sound that does not continue within this many µs of where the last block ended belongs to another line.
const SEAM_US: i64 = 100_000;

/// What there is to hear.
#[derive(Debug, Clone)]
pub struct Run {
    /// Whose.
    pub track: usize,
    /// Which line of the track.
    pub line: u64,
    /// The sound so far.
    pub samples: Arc<[f32]>,
    /// Tokens that stand.
    pub prefix: Vec<i32>,
    /// The line is over: this is its last run.
    pub last: bool,
    /// Two letters, if known.
    pub language: Option<String>,
    /// When it should have been started, Unix µs.
    pub due_us: i64,
    /// End of the last voiced sound in it, Unix µs.
    pub voiced_end_us: i64,
}

/// A line to be shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Whose.
    pub track: usize,
    /// Which of the track's lines.
    pub line: u64,
    /// Never changes again.
    pub committed: String,
    /// May change.
    pub pending: String,
    /// Nothing more will come.
    pub last: bool,
    /// Unix µs of the first sound.
    pub start_us: i64,
    /// Unix µs of the last sound that this text covers.
    pub end_us: i64,
}

#[derive(Debug, Default)]
struct Track {
    lines: VecDeque<Growing>,
    lines_made: u64,
    pre_roll: Vec<f32>,
    /// Where the next block should begin.
    next_us: Option<i64>,
    language: Option<String>,
    /// It is not found out any more.
    settled: bool,
    gone: bool,
}

#[derive(Debug)]
struct Growing {
    number: u64,
    start_us: i64,
    samples: Vec<f32>,
    probabilities: Vec<f32>,
    voiced_frames: usize,
    /// Frame after the last voiced one.
    voiced_end: usize,
    /// Set when it is over: when the last run is due.
    closed_us: Option<i64>,
    /// Samples given to the last run.
    heard_samples: usize,
    /// Samples of the last run whose words can be believed to the end.
    good_samples: usize,
    /// When a run was first seen to be due, by the clock of whoever asks.
    ready_us: Option<i64>,
    running: bool,
    text: Stabiliser,
    shown: bool,
}

/// All tracks of a call.
#[derive(Debug, Default)]
pub struct Live {
    tracks: Vec<Track>,
    step: usize,
    in_time: u32,
    adapt: bool,
}

impl Live {
    /// Nothing to hear yet. The step adapts to the load.
    pub fn new() -> Self {
        Self { adapt: true, ..Self::default() }
    }

    /// A fixed step in tests and measurements: 0, 1 or 2 for 0.5, 1 or 2 s.
    pub fn with_step(step: usize) -> Self {
        Self { step: step.min(STEPS_US.len() - 1), ..Self::default() }
    }

    /// A track; its index is used from now on.
    pub fn handle_track(&mut self, language: Option<String>) -> usize {
        self.tracks.push(Track { settled: language.is_some(), language, ..Track::default() });
        self.tracks.len() - 1
    }

    /// Told of sound: whole detector frames and the probability of speech in each.
    pub fn handle_sound(&mut self, track: usize, start_us: i64, samples: &[f32], probabilities: &[f32]) {
        let Some(track) = self.tracks.get_mut(track) else { return };
        if track.next_us.is_some_and(|next| (start_us - next).abs() > SEAM_US) {
            track.close(start_us);
            track.pre_roll.clear();
        }
        for (n, (frame, &p)) in samples.chunks(FRAME).zip(probabilities).enumerate() {
            track.frame(start_us + micros(n * FRAME), frame, p);
        }
        track.next_us = Some(start_us + micros(samples.len()));
    }

    /// Told that no sound came up to now: a mute or DTX ends a line as silence does.
    pub fn handle_quiet(&mut self, track: usize, now_us: i64) {
        let Some(track) = self.tracks.get_mut(track) else { return };
        if track.next_us.is_some_and(|next| now_us - next > micros(PAUSE_FRAMES * FRAME)) {
            track.close(now_us);
            track.pre_roll.clear();
            track.next_us = None;
        }
    }

    /// The track is over; what was said on it is still heard to its end.
    pub fn handle_track_ended(&mut self, track: usize, now_us: i64) {
        if let Some(track) = self.tracks.get_mut(track) {
            track.close(now_us);
            track.gone = true;
        }
    }

    /// Told the time, also while nobody is free for a run: from here on those that are due wait. Only that is lateness: sound
    /// that comes late is not the load's fault.
    pub fn handle_now(&mut self, now_us: i64) {
        let step_us = STEPS_US[self.step];
        for track in &mut self.tracks {
            // Also while it is heard: the next run of the same line waits for this one.
            let due = track.next(step_us).is_some_and(|due| due <= now_us);
            if let Some(line) = track.lines.front_mut().filter(|_| due) {
                line.ready_us.get_or_insert(now_us);
            }
        }
    }

    /// Asked: a line that is over and needs no further run, because the last one heard all of it.
    pub fn poll_line(&mut self) -> Option<Line> {
        let index = self.tracks.iter().position(|track| track.lines.front().is_some_and(Growing::is_complete))?;
        let line = self.tracks.get_mut(index)?.lines.pop_front()?;
        let mut text = line.text;
        text.settle();
        Some(Line {
            track: index,
            line: line.number,
            committed: text.committed(),
            pending: String::new(),
            last: true,
            start_us: line.start_us,
            end_us: line.start_us + micros(line.voiced_end * FRAME),
        })
        .filter(|_| line.shown)
    }

    /// Asked: what to hear next. The earliest deadline wins.
    pub fn poll_run(&mut self, now_us: i64) -> Option<Run> {
        self.handle_now(now_us);
        let step_us = STEPS_US[self.step];
        let (due_us, index) = self.tracks.iter().enumerate().filter_map(|(n, t)| t.due(step_us).map(|due| (due, n))).min()?;
        if due_us > now_us {
            return None;
        }
        let ready_us = self.tracks.get_mut(index)?.lines.front_mut()?.ready_us.take();
        self.adapt(now_us - ready_us.unwrap_or(now_us));
        let track = self.tracks.get_mut(index)?;
        let language = track.language.clone().filter(|_| track.settled);
        let line = track.lines.front_mut()?;
        line.running = true;
        line.heard_samples = line.samples.len();
        Some(Run {
            track: index,
            line: line.number,
            samples: line.samples.as_slice().into(),
            prefix: line.text.prefix(),
            last: line.closed_us.is_some(),
            language,
            due_us,
            voiced_end_us: line.start_us + micros(line.voiced_end * FRAME),
        })
    }

    /// Asked: when to look again. `None`: not before more sound came or a run ended.
    pub fn poll_timeout(&self) -> Option<i64> {
        let step_us = STEPS_US[self.step];
        self.tracks.iter().filter_map(|t| t.due(step_us)).min()
    }

    /// Told what a run heard.
    pub fn handle_heard(&mut self, run: &Run, mut heard: Heard, language: Option<String>) -> Option<Line> {
        let track = self.tracks.get_mut(run.track)?;
        if let Some(language) = language.filter(|_| !track.settled) {
            track.language = Some(language);
            track.settled = run.samples.len() >= LANGUAGE_SETTLES;
        }
        let line = track.lines.front_mut().filter(|line| line.number == run.line)?;
        line.running = false;
        let believable = heard.believable();
        line.good_samples = if believable && !heard.looped { run.samples.len() } else { 0 };
        let tokens = guard::without_sounds(std::mem::take(&mut heard.tokens));
        if run.last {
            line.text.finish(if believable { tokens } else { Vec::new() });
        } else if believable {
            line.text.handle_run(tokens, run.samples.len());
        }
        let shown = Line {
            track: run.track,
            line: run.line,
            committed: line.text.committed(),
            pending: if run.last { String::new() } else { line.text.pending() },
            last: run.last,
            start_us: line.start_us,
            end_us: run.voiced_end_us,
        };
        // A line that never had words is nobody's business; one that had is taken back properly.
        let tell = line.shown || !(shown.committed.is_empty() && shown.pending.is_empty());
        line.shown |= tell;
        if run.last {
            track.lines.pop_front();
        }
        tell.then_some(shown)
    }

    /// A run could not be done; the line is tried again with more sound, or given up if it is over.
    pub fn handle_failed(&mut self, run: &Run) {
        let Some(track) = self.tracks.get_mut(run.track) else { return };
        if let Some(line) = track.lines.front_mut().filter(|line| line.number == run.line) {
            line.running = false;
            if run.last {
                track.lines.pop_front();
            }
        }
    }

    /// The track's language, as far as it is known.
    pub fn language(&self, track: usize) -> Option<&str> {
        self.tracks.get(track)?.language.as_deref()
    }

    /// Lines that have not had their last run.
    pub fn unfinished(&self) -> usize {
        self.tracks.iter().map(|t| t.lines.len()).sum()
    }

    /// The step between runs now, µs.
    pub fn step_us(&self) -> i64 {
        STEPS_US[self.step]
    }

    fn adapt(&mut self, late_us: i64) {
        if !self.adapt {
            return;
        }
        if late_us > STEPS_US[self.step] / 2 {
            self.step = (self.step + 1).min(STEPS_US.len() - 1);
            self.in_time = 0;
        } else {
            self.in_time += 1;
            if self.in_time >= IN_TIME_RUNS {
                self.step = self.step.saturating_sub(1);
                self.in_time = 0;
            }
        }
    }
}

impl Track {
    fn frame(&mut self, at_us: i64, frame: &[f32], p: f32) {
        let open = self.lines.back_mut().filter(|line| line.closed_us.is_none());
        let Some(line) = open else {
            if p >= OPEN {
                self.lines_made += 1;
                let mut samples = std::mem::take(&mut self.pre_roll);
                let start_us = at_us - micros(samples.len());
                samples.extend_from_slice(frame);
                let frames = samples.len().div_ceil(FRAME);
                let mut probabilities = vec![0.0; frames.saturating_sub(1)];
                probabilities.push(p);
                self.lines.push_back(Growing {
                    number: self.lines_made,
                    start_us,
                    samples,
                    probabilities,
                    voiced_frames: 1,
                    voiced_end: frames,
                    closed_us: None,
                    heard_samples: 0,
                    good_samples: 0,
                    ready_us: None,
                    running: false,
                    text: Stabiliser::default(),
                    shown: false,
                });
            } else {
                self.pre_roll.extend_from_slice(frame);
                // Whole frames only, so that a line's frames stay aligned with its probabilities.
                let surplus = self.pre_roll.len().saturating_sub(PRE_ROLL).div_ceil(FRAME) * FRAME;
                self.pre_roll.drain(..surplus.min(self.pre_roll.len()));
            }
            return;
        };
        line.samples.extend_from_slice(frame);
        line.probabilities.push(p);
        if p >= CLOSE {
            line.voiced_frames += 1;
            line.voiced_end = line.probabilities.len();
        }
        let end_us = at_us + micros(frame.len());
        if line.probabilities.len() - line.voiced_end >= PAUSE_FRAMES {
            self.close(end_us);
        } else if line.samples.len() >= LONGEST {
            self.cut(end_us);
        }
    }

    fn close(&mut self, now_us: i64) {
        let Some(line) = self.lines.back_mut().filter(|line| line.closed_us.is_none()) else { return };
        if line.voiced_frames < SHORTEST_FRAMES && !line.shown && !line.running {
            self.lines.pop_back();
        } else {
            line.closed_us = Some(now_us);
        }
    }

    /// Ends a line that has no pause where it is least like speech, but not before what is committed: words that were shown
    /// for good must not be heard again in the next line.
    fn cut(&mut self, now_us: i64) {
        let Some(line) = self.lines.back_mut() else { return };
        let settled = line.text.settled_samples().max(if line.running { line.heard_samples } else { 0 });
        let from = (LONGEST * 2 / 3).max(settled).div_ceil(FRAME).min(line.probabilities.len());
        let at = (from..line.probabilities.len())
            .min_by(|&a, &b| line.probabilities[a].total_cmp(&line.probabilities[b]))
            .unwrap_or(line.probabilities.len());
        let rest = line.samples.split_off((at * FRAME).min(line.samples.len()));
        let probabilities = line.probabilities.split_off(at);
        line.voiced_end = line.voiced_end.min(at);
        line.closed_us = Some(now_us);
        // What was heard may be of the next line now.
        line.good_samples = 0;
        if rest.is_empty() {
            return;
        }
        let voiced = |p: &f32| *p >= CLOSE;
        self.lines_made += 1;
        let next = Growing {
            number: self.lines_made,
            start_us: line.start_us + micros(at * FRAME),
            voiced_frames: probabilities.iter().filter(|p| voiced(p)).count(),
            voiced_end: probabilities.iter().rposition(voiced).map_or(0, |n| n + 1),
            samples: rest,
            probabilities,
            closed_us: None,
            heard_samples: 0,
            good_samples: 0,
            ready_us: None,
            running: false,
            text: Stabiliser::default(),
            shown: false,
        };
        self.lines.push_back(next);
    }

    /// When the oldest line's next run is due. The next line waits for it, so that captions stay in order.
    fn due(&self, step_us: i64) -> Option<i64> {
        self.lines.front().filter(|line| !line.running).and_then(|_| self.next(step_us))
    }

    /// The same, whether the line is being heard or not.
    fn next(&self, step_us: i64) -> Option<i64> {
        let line = self.lines.front().filter(|line| !line.is_complete())?;
        if let Some(closed_us) = line.closed_us {
            return Some(closed_us);
        }
        let heard = if line.heard_samples == 0 { FIRST_RUN } else { line.heard_samples + samples_in(step_us) };
        // Silence at the end adds nothing to hear.
        let voiced = (line.voiced_end * FRAME).min(line.samples.len());
        if line.voiced_frames < SHORTEST_FRAMES || voiced <= line.heard_samples {
            return None;
        }
        let breath = (line.voiced_end + BREATH_FRAMES) * FRAME;
        // On a loaded machine a run more only makes others late.
        let breath = if step_us == STEPS_US[0] { breath } else { heard };
        [heard, breath].into_iter().filter(|&samples| line.samples.len() >= samples).min().map(|samples| line.start_us + micros(samples))
    }
}

impl Growing {
    /// It is over, and a run heard all its speech and that it was over.
    fn is_complete(&self) -> bool {
        self.closed_us.is_some() && !self.running && self.good_samples >= (self.voiced_end + BREATH_FRAMES) * FRAME
    }
}

fn micros(samples: usize) -> i64 {
    samples as i64 * 1_000_000 / SPEECH_RATE as i64
}

fn samples_in(us: i64) -> usize {
    (us.max(0) as usize) * SPEECH_RATE / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speech::Token;

    /// A recogniser that knows what is said: one word every 0.4 s of sound.
    fn scripted(run: &Run, words: &str) -> Heard {
        let n = (run.samples.len() / (SPEECH_RATE * 4 / 10)).max(1);
        let tokens = words
            .split(' ')
            .take(n)
            .enumerate()
            .map(|(k, word)| Token { id: k as i32 + 1, p: 0.9, bytes: format!(" {word}").into_bytes(), end_s: None })
            .collect();
        Heard { tokens, ..Heard::default() }
    }

    struct Screen {
        lines: Vec<Line>,
    }

    /// Plays sound in blocks of 256 ms; every run takes `cost_us`.
    fn play(live: &mut Live, parts: &[(f32, f32)], cost_us: i64, words: &str) -> Screen {
        let track = live.handle_track(Some("en".into()));
        let mut screen = Screen { lines: Vec::new() };
        let (mut now, mut busy_until) = (0_i64, 0_i64);
        let mut running: Option<Run> = None;
        let frames: Vec<f32> =
            parts.iter().flat_map(|&(seconds, p)| std::iter::repeat_n(p, (seconds * SPEECH_RATE as f32) as usize / FRAME)).collect();
        for block in frames.chunks(8) {
            let samples = vec![0.1; block.len() * FRAME];
            let end = now + micros(samples.len());
            live.handle_sound(track, now, &samples, block);
            now = end;
            live.handle_now(now);
            if let Some(run) = running.take_if(|_| busy_until <= now) {
                let heard = scripted(&run, words);
                screen.lines.extend(live.handle_heard(&run, heard, None));
            }
            screen.lines.extend(std::iter::from_fn(|| live.poll_line()));
            if running.is_none()
                && let Some(run) = live.poll_run(now)
            {
                busy_until = now + cost_us;
                running = Some(run);
            }
        }
        live.handle_track_ended(track, now);
        loop {
            if let Some(run) = running.take() {
                let heard = scripted(&run, words);
                screen.lines.extend(live.handle_heard(&run, heard, None));
            }
            screen.lines.extend(std::iter::from_fn(|| live.poll_line()));
            running = live.poll_run(now);
            if running.is_none() {
                break;
            }
        }
        screen
    }

    fn assert_stable(lines: &[Line]) {
        for pair in lines.windows(2).filter(|p| p[0].line == p[1].line) {
            assert!(pair[1].committed.starts_with(&pair[0].committed), "{pair:?}");
        }
    }

    const WORDS: &str = "a b c d e f g h i j k l m n o p q r s t u v w x y z aa bb cc dd ee ff gg hh";

    #[test]
    fn a_sentence_grows_and_ends_with_all_its_words() {
        let mut live = Live::new();
        let screen = play(&mut live, &[(1.0, 0.0), (4.0, 0.9), (1.5, 0.0)], 10_000, WORDS);
        assert_stable(&screen.lines);
        let last = screen.lines.last().unwrap();
        assert!(last.last && last.pending.is_empty());
        assert!(last.committed.starts_with("a b c d e f g h i j"), "{last:?}");
        assert!(screen.lines.iter().any(|l| !l.last && !l.committed.is_empty() && !l.pending.is_empty()), "{:?}", screen.lines);
        // The pre-roll is 0.35 s.
        assert!((last.start_us - 650_000).abs() < 70_000, "{}", last.start_us);
        assert_eq!(live.unfinished(), 0);
    }

    #[test]
    fn silence_and_clicks_are_not_heard_at_all() {
        let mut live = Live::new();
        let screen = play(&mut live, &[(3.0, 0.1), (0.1, 0.9), (3.0, 0.0)], 10_000, WORDS);
        assert!(screen.lines.is_empty(), "{:?}", screen.lines);
    }

    #[test]
    fn a_mute_in_the_middle_of_a_word_ends_the_line() {
        let mut live = Live::new();
        let track = live.handle_track(None);
        live.handle_sound(track, 0, &vec![0.1; FRAME * 40], &[0.9; 40]);
        live.handle_quiet(track, micros(FRAME * 40) + 300_000);
        assert!(!live.poll_run(micros(FRAME * 40)).unwrap().last);
        let mut live = Live::new();
        let track = live.handle_track(None);
        live.handle_sound(track, 0, &vec![0.1; FRAME * 40], &[0.9; 40]);
        live.handle_quiet(track, micros(FRAME * 40) + 700_000);
        assert!(live.poll_run(micros(FRAME * 40) + 700_000).unwrap().last);
    }

    #[test]
    fn endless_talk_is_cut_after_what_is_committed() {
        let mut live = Live::new();
        let screen = play(&mut live, &[(0.5, 0.0), (30.0, 0.9), (1.0, 0.0)], 10_000, WORDS);
        assert_stable(&screen.lines);
        let lasts: Vec<&Line> = screen.lines.iter().filter(|l| l.last).collect();
        assert!(lasts.len() >= 3, "{}", lasts.len());
        for pair in lasts.windows(2) {
            assert!(pair[0].end_us <= pair[1].start_us + 1, "no sound belongs to two lines");
        }
    }

    #[test]
    fn under_load_the_step_grows_and_no_last_run_is_left_out() {
        let mut live = Live::new();
        let screen = play(&mut live, &[(0.5, 0.0), (20.0, 0.9), (1.0, 0.0), (3.0, 0.9), (1.0, 0.0)], 1_700_000, WORDS);
        assert!(live.step_us() > STEPS_US[0]);
        assert_stable(&screen.lines);
        assert_eq!(screen.lines.iter().filter(|l| l.last).count() as u64, live.tracks[0].lines_made);
    }

    #[test]
    fn the_end_of_a_sentence_is_heard_at_a_breath_and_needs_no_run_more() {
        let mut live = Live::new();
        let track = live.handle_track(Some("en".into()));
        let mut now = 0;
        let mut sound = |live: &mut Live, frames: usize, p: f32| {
            live.handle_sound(track, now, &vec![0.1; frames * FRAME], &vec![p; frames]);
            now += micros(frames * FRAME);
            now
        };
        // A first run in the middle of it, then the last word and a breath: 0.22 s of quiet, and the next step has not come.
        let at = sound(&mut live, 24, 0.9);
        let run = live.poll_run(at).unwrap();
        live.handle_heard(&run, scripted(&run, WORDS), None).unwrap();
        let at = sound(&mut live, 4, 0.9);
        assert!(live.poll_run(at).is_none());
        let at = sound(&mut live, BREATH_FRAMES, 0.0);
        let run = live.poll_run(at).unwrap();
        assert!(!run.last);
        let shown = live.handle_heard(&run, scripted(&run, WORDS), None).unwrap();
        assert!(!shown.last && !shown.pending.is_empty());
        assert!(live.poll_line().is_none(), "somebody may go on");
        // The pause ends the line: all of it was heard, so it is closed as it stands.
        let at = sound(&mut live, PAUSE_FRAMES, 0.0);
        assert!(live.poll_run(at).is_none());
        let last = live.poll_line().unwrap();
        assert_eq!(last.committed, format!("{} {}", shown.committed, shown.pending).trim());
        assert!(last.last && last.pending.is_empty());
        assert_eq!((live.unfinished(), live.poll_line()), (0, None));
    }

    #[test]
    fn who_goes_on_after_a_breath_is_heard_to_the_end() {
        let mut live = Live::new();
        let screen = play(&mut live, &[(0.5, 0.0), (1.0, 0.9), (0.4, 0.0), (1.0, 0.9), (1.0, 0.0)], 10_000, WORDS);
        assert_stable(&screen.lines);
        let last = screen.lines.last().unwrap();
        assert!(last.last && last.line == 1, "a breath does not end a line: {last:?}");
        assert!(last.committed.split(' ').count() >= 6, "{last:?}");
    }

    #[test]
    fn one_stall_of_the_machine_is_made_up_for_in_seconds() {
        let mut live = Live::new();
        let track = live.handle_track(Some("en".into()));
        let mut slowest = 0;
        // Somebody talks; after 2 s nobody hears for 4 s, then every run is quick.
        for n in 0..25 * 31 {
            let at = micros(n * FRAME);
            live.handle_sound(track, at, &vec![0.1; FRAME], &[0.9]);
            live.handle_now(at);
            if !(2_000_000..6_000_000).contains(&at)
                && let Some(run) = live.poll_run(at)
            {
                live.handle_heard(&run, scripted(&run, WORDS), None);
            }
            slowest = slowest.max(live.step_us());
        }
        assert!(slowest > STEPS_US[0], "the stall was noticed");
        assert_eq!(live.step_us(), STEPS_US[0], "and is over");
    }

    #[test]
    fn sound_that_comes_late_is_not_load() {
        let mut live = Live::new();
        let track = live.handle_track(Some("en".into()));
        // Blocks of 0.2 s that are 0.4 s old when they come, as over a slow line: whoever hears them has nothing else to do.
        for n in 0..100 {
            let start_us = micros(n * 6 * FRAME);
            live.handle_sound(track, start_us, &vec![0.1; 6 * FRAME], &[0.9; 6]);
            if let Some(run) = live.poll_run(start_us + 600_000) {
                live.handle_heard(&run, scripted(&run, WORDS), None);
            }
        }
        assert_eq!(live.step_us(), STEPS_US[0]);
    }

    #[test]
    fn the_earliest_deadline_goes_first() {
        let mut live = Live::new();
        let (a, b) = (live.handle_track(None), live.handle_track(None));
        live.handle_sound(b, 0, &vec![0.1; FRAME * 24], &[0.9; 24]);
        live.handle_sound(a, 100_000, &vec![0.1; FRAME * 24], &[0.9; 24]);
        let now = 900_000;
        assert_eq!(live.poll_run(now).unwrap().track, b);
        assert_eq!(live.poll_run(now).unwrap().track, a);
        assert!(live.poll_run(now).is_none());
    }

    #[test]
    fn a_language_is_settled_by_some_speech_and_not_by_a_word() {
        let mut live = Live::new();
        let track = live.handle_track(None);
        let mut heard = |seconds: usize, language: &str| {
            let run = Run {
                track,
                line: 0,
                samples: vec![0.0; seconds * SPEECH_RATE].into(),
                prefix: Vec::new(),
                last: false,
                language: None,
                due_us: 0,
                voiced_end_us: 0,
            };
            live.handle_heard(&run, Heard::default(), Some(language.to_owned()));
            live.language(track).map(str::to_owned)
        };
        assert_eq!(heard(1, "en").as_deref(), Some("en"));
        assert_eq!(heard(4, "de").as_deref(), Some("de"), "an okay was no English");
        assert_eq!(heard(4, "fr").as_deref(), Some("de"), "settled");
    }
}
