//! The recording of a call and everybody's consent to it: one state machine, told what happened, answering with what to do.
//!
//! ```text
//!            start               everybody present answered,        job accepted
//!   off ───────────► asking ──── at least one agreed ──► starting ───────────────► recording
//!    ▲                 │ stop, or nobody agreed              │ stop                   │ stop
//!    ├─────────────────┘                                     ▼                        ▼
//!    └───────────────────────────── job ended ◄────────── stopping ◄──────────────────┘
//! ```
//!
//! Nothing of a participant is stored before that participant agreed. A late joiner is asked too and is not stored
//! until then; the recording goes on meanwhile. Who declines stays in the call. An answer may be changed while the
//! recording runs. Does no I/O: [`super::recording`] loads, saves and carries out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where a call's recording stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Nothing is recorded.
    Off,
    /// Participants are being asked.
    Asking,
    /// Everybody answered; the recorder is being started. Pages see `asking` with nobody waited for.
    #[serde(skip)]
    Starting,
    /// The recorder runs.
    Recording,
    /// The recorder is told to stop.
    Stopping,
}

impl Serialize for Phase {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let shown = if *self == Self::Starting { Self::Asking } else { *self };
        serializer.serialize_str(shown.name())
    }
}

impl Phase {
    /// The stored name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Asking => "asking",
            Self::Starting => "starting",
            Self::Recording => "recording",
            Self::Stopping => "stopping",
        }
    }

    /// From the stored name.
    pub fn parse(name: &str) -> Self {
        [Self::Asking, Self::Starting, Self::Recording, Self::Stopping].into_iter().find(|phase| phase.name() == name).unwrap_or(Self::Off)
    }

    /// A recording is wanted or runs: who joins now is asked.
    pub fn asks(self) -> bool {
        matches!(self, Self::Asking | Self::Starting | Self::Recording)
    }
}

/// What a participant answered to the notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// Nothing yet.
    None,
    /// Agreed.
    Granted,
    /// Declined: stays in the call, is not stored.
    Declined,
}

impl Answer {
    /// The stored name.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Granted => "granted",
            Self::Declined => "declined",
        }
    }

    /// From the stored name.
    pub fn parse(name: &str) -> Self {
        match name {
            "granted" => Self::Granted,
            "declined" => Self::Declined,
            _ => Self::None,
        }
    }
}

/// One participant, as this machine knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// In the call now.
    pub present: bool,
    /// Their answer for this recording.
    pub answer: Answer,
}

/// The state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consent {
    /// Where it stands.
    pub phase: Phase,
    /// Counts the recordings of this call; answers belong to one of them.
    pub number: i64,
    /// Everybody who was in the call since it is asked, present or not.
    pub members: BTreeMap<String, Member>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input<'a> {
    /// A host wants a recording.
    Start,
    /// A participant answered.
    Answer {
        /// Who.
        identity: &'a str,
        /// Agreed?
        granted: bool,
    },
    /// A participant is in the call (again).
    Joined(&'a str),
    /// A participant is out of the call.
    Left(&'a str),
    /// The offloader has taken the job.
    Accepted,
    /// A host wants it to end.
    Stop,
    /// The job is over, or cannot be.
    JobEnded,
    /// The call is over.
    CallEnded,
}

/// What to do about it, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Tell the media node whether this participant may be stored.
    TellMedia {
        /// Who.
        identity: String,
        /// May be stored.
        granted: bool,
    },
    /// See to it that the job runs.
    RunJob,
    /// See to it that the job stops.
    StopJob,
    /// Show or hide the badge at every participant.
    Badge(bool),
}

/// Why an input does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// Start while one runs.
    AlreadyOn,
    /// Stop or answer while none runs.
    NotOn,
    /// The one before is still being closed.
    StillStopping,
    /// The answer of somebody who is not in the call.
    NotPresent,
}

impl Consent {
    /// Told what happened; answers what to do.
    pub fn handle(&mut self, input: Input<'_>) -> Result<Vec<Effect>, Unfit> {
        let mut effects = Vec::new();
        match input {
            Input::Start => self.start(&mut effects)?,
            Input::Answer { identity, granted } => self.answer(identity, granted, &mut effects)?,
            Input::Joined(identity) => self.joined(identity, &mut effects),
            Input::Left(identity) => {
                if let Some(member) = self.members.get_mut(identity) {
                    member.present = false;
                }
                self.settle(&mut effects);
            }
            Input::Accepted => {
                if self.phase == Phase::Starting {
                    self.phase = Phase::Recording;
                    effects.push(Effect::Badge(true));
                }
            }
            Input::Stop => self.stop(&mut effects)?,
            Input::JobEnded => match self.phase {
                Phase::Starting | Phase::Recording | Phase::Stopping => self.off(&mut effects),
                Phase::Off | Phase::Asking => {}
            },
            Input::CallEnded => {
                // The media node forgets the call and its consents by itself; a word now would only reach the record
                // that is just being closed, as if everybody had withdrawn at the end.
                for member in self.members.values_mut() {
                    member.answer = Answer::None;
                }
                self.off(&mut effects);
            }
        }
        Ok(effects)
    }

    /// Present participants who have not answered.
    pub fn waiting_for(&self) -> impl Iterator<Item = &str> {
        let asks = self.phase.asks();
        self.members
            .iter()
            .filter(move |(_, member)| asks && member.present && member.answer == Answer::None)
            .map(|(identity, _)| identity.as_str())
    }

    fn start(&mut self, effects: &mut Vec<Effect>) -> Result<(), Unfit> {
        match self.phase {
            Phase::Off => {}
            Phase::Asking | Phase::Starting | Phase::Recording => return Err(Unfit::AlreadyOn),
            Phase::Stopping => return Err(Unfit::StillStopping),
        }
        self.number += 1;
        self.phase = Phase::Asking;
        // An agreement is to one recording: whoever agreed before is asked again.
        self.revoke_all(effects);
        self.members.retain(|_, member| member.present);
        Ok(())
    }

    fn answer(&mut self, identity: &str, granted: bool, effects: &mut Vec<Effect>) -> Result<(), Unfit> {
        if !self.phase.asks() {
            return Err(Unfit::NotOn);
        }
        let member = self.members.get_mut(identity).filter(|member| member.present).ok_or(Unfit::NotPresent)?;
        member.answer = if granted { Answer::Granted } else { Answer::Declined };
        effects.push(Effect::TellMedia { identity: identity.to_owned(), granted });
        self.settle(effects);
        Ok(())
    }

    fn joined(&mut self, identity: &str, effects: &mut Vec<Effect>) {
        let member = self.members.entry(identity.to_owned()).or_insert(Member { present: true, answer: Answer::None });
        member.present = true;
        if self.phase.asks() && member.answer != Answer::None {
            // The media node may have forgotten (it restarted, or the participant joined anew): say it again.
            effects.push(Effect::TellMedia { identity: identity.to_owned(), granted: member.answer == Answer::Granted });
        }
    }

    fn stop(&mut self, effects: &mut Vec<Effect>) -> Result<(), Unfit> {
        match self.phase {
            Phase::Off => Err(Unfit::NotOn),
            Phase::Stopping => Ok(()),
            Phase::Asking => {
                self.off(effects);
                Ok(())
            }
            Phase::Starting | Phase::Recording => {
                // Agreements end with the job, not before: withdrawn now they would enter the record as withdrawn.
                self.phase = Phase::Stopping;
                effects.push(Effect::StopJob);
                effects.push(Effect::Badge(false));
                Ok(())
            }
        }
    }

    /// Everybody answered?
    fn settle(&mut self, effects: &mut Vec<Effect>) {
        if self.phase != Phase::Asking {
            return;
        }
        let mut present = self.members.values().filter(|member| member.present).peekable();
        if present.peek().is_none() {
            self.off(effects);
            return;
        }
        let (mut waiting, mut granted) = (false, false);
        for member in present {
            match member.answer {
                Answer::None => waiting = true,
                Answer::Granted => granted = true,
                Answer::Declined => {}
            }
        }
        if waiting {
            return;
        }
        if granted {
            self.phase = Phase::Starting;
            effects.push(Effect::RunJob);
        } else {
            self.off(effects);
        }
    }

    fn off(&mut self, effects: &mut Vec<Effect>) {
        let was_shown = matches!(self.phase, Phase::Recording | Phase::Starting);
        if self.phase != Phase::Off {
            self.revoke_all(effects);
        }
        self.phase = Phase::Off;
        if was_shown {
            effects.push(Effect::Badge(false));
        }
    }

    /// Answers are kept for the job's record by [`super::recording`]; what ends here is their effect.
    fn revoke_all(&mut self, effects: &mut Vec<Effect>) {
        for (identity, member) in &mut self.members {
            if member.answer == Answer::Granted {
                effects.push(Effect::TellMedia { identity: identity.clone(), granted: false });
            }
            member.answer = Answer::None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call_of(people: &[&str]) -> Consent {
        let member = Member { present: true, answer: Answer::None };
        Consent { phase: Phase::Off, number: 0, members: people.iter().map(|name| ((*name).to_owned(), member)).collect() }
    }

    fn answer(identity: &str, granted: bool) -> Input<'_> {
        Input::Answer { identity, granted }
    }

    fn tell(identity: &str, granted: bool) -> Effect {
        Effect::TellMedia { identity: identity.to_owned(), granted }
    }

    #[test]
    fn the_job_starts_only_when_everybody_present_has_answered() {
        let mut consent = call_of(&["ada", "bob"]);
        assert_eq!(consent.handle(Input::Start), Ok(vec![]));
        assert_eq!(consent.handle(answer("ada", true)), Ok(vec![tell("ada", true)]));
        assert_eq!(consent.phase, Phase::Asking);
        assert_eq!(consent.handle(answer("bob", false)), Ok(vec![tell("bob", false), Effect::RunJob]));
        assert_eq!(consent.handle(Input::Accepted), Ok(vec![Effect::Badge(true)]));
        assert_eq!(consent.phase, Phase::Recording);
    }

    #[test]
    fn a_late_joiner_is_asked_while_the_recording_goes_on() {
        let mut consent = call_of(&["ada"]);
        consent.handle(Input::Start).unwrap();
        consent.handle(answer("ada", true)).unwrap();
        consent.handle(Input::Accepted).unwrap();
        assert_eq!(consent.handle(Input::Joined("eve")), Ok(vec![]));
        assert_eq!(consent.waiting_for().collect::<Vec<_>>(), ["eve"]);
        assert_eq!(consent.phase, Phase::Recording);
        assert_eq!(consent.handle(answer("eve", true)), Ok(vec![tell("eve", true)]));
    }

    #[test]
    fn whoever_leaves_while_asked_is_not_waited_for() {
        let mut consent = call_of(&["ada", "bob"]);
        consent.handle(Input::Start).unwrap();
        consent.handle(answer("ada", true)).unwrap();
        assert_eq!(consent.handle(Input::Left("bob")), Ok(vec![Effect::RunJob]));
    }

    #[test]
    fn nothing_starts_when_everybody_declines_or_everybody_leaves() {
        let mut consent = call_of(&["ada", "bob"]);
        consent.handle(Input::Start).unwrap();
        consent.handle(answer("ada", false)).unwrap();
        assert_eq!(consent.handle(answer("bob", false)), Ok(vec![tell("bob", false)]));
        assert_eq!(consent.phase, Phase::Off);
        consent.handle(Input::Start).unwrap();
        consent.handle(Input::Left("ada")).unwrap();
        consent.handle(Input::Left("bob")).unwrap();
        assert_eq!(consent.phase, Phase::Off);
    }

    #[test]
    fn a_second_recording_asks_everybody_again() {
        let mut consent = call_of(&["ada"]);
        consent.handle(Input::Start).unwrap();
        consent.handle(answer("ada", true)).unwrap();
        consent.handle(Input::Accepted).unwrap();
        assert_eq!(consent.handle(Input::Stop), Ok(vec![Effect::StopJob, Effect::Badge(false)]));
        assert_eq!(consent.handle(Input::Start), Err(Unfit::StillStopping));
        assert_eq!(consent.handle(Input::JobEnded), Ok(vec![tell("ada", false)]));
        consent.handle(Input::Start).unwrap();
        assert_eq!((consent.phase, consent.number), (Phase::Asking, 2));
        assert_eq!(consent.waiting_for().collect::<Vec<_>>(), ["ada"]);
    }

    #[test]
    fn answers_and_stops_out_of_place_are_refused() {
        let mut consent = call_of(&["ada"]);
        assert_eq!(consent.handle(answer("ada", true)), Err(Unfit::NotOn));
        assert_eq!(consent.handle(Input::Stop), Err(Unfit::NotOn));
        consent.handle(Input::Start).unwrap();
        assert_eq!(consent.handle(Input::Start), Err(Unfit::AlreadyOn));
        assert_eq!(consent.handle(answer("stranger", true)), Err(Unfit::NotPresent));
    }

    /// The model: a plain record of what the media node and the offloader were told. Over random histories it must
    /// never hold that somebody may be stored who has not agreed to this very recording, nor that a job runs before
    /// everybody present answered once.
    #[test]
    fn nobody_is_ever_stored_without_their_own_answer() {
        let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
        let mut random = move |bound: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % bound
        };
        let people = ["ada", "bob", "eve", "dan"];
        let mut started = 0;
        for _ in 0..2_000 {
            let mut consent = call_of(&people[..2]);
            let mut allowed: BTreeMap<String, bool> = BTreeMap::new();
            let mut agreed: BTreeMap<String, bool> = BTreeMap::new();
            let mut job = false;
            let mut badge = false;
            for _ in 0..40 {
                let who = people[random(4) as usize];
                let input = match random(12) {
                    0 => Input::Start,
                    1..=5 => answer(who, random(3) > 0),
                    6 | 7 => Input::Joined(who),
                    8 => Input::Left(who),
                    9 => Input::Accepted,
                    10 => Input::Stop,
                    _ if job => Input::JobEnded,
                    _ => Input::CallEnded,
                };
                let before = consent.clone();
                let Ok(effects) = consent.handle(input) else {
                    assert_eq!(consent, before, "a refused input changes nothing");
                    continue;
                };
                match input {
                    Input::Start => agreed.clear(),
                    Input::Answer { identity, granted } => {
                        agreed.insert(identity.to_owned(), granted);
                    }
                    Input::JobEnded => job = false,
                    Input::CallEnded => {
                        job = false;
                        allowed.clear();
                    }
                    Input::Joined(_) | Input::Left(_) | Input::Accepted | Input::Stop => {}
                }
                for effect in effects {
                    match effect {
                        Effect::TellMedia { identity, granted } => {
                            allowed.insert(identity, granted);
                        }
                        Effect::RunJob => {
                            assert_eq!(consent.waiting_for().count(), 0);
                            job = true;
                            started += 1;
                        }
                        Effect::StopJob => {}
                        Effect::Badge(shown) => badge = shown,
                    }
                }
                for (identity, allowed) in &allowed {
                    if *allowed {
                        assert_eq!(agreed.get(identity), Some(&true), "{identity} after {input:?}");
                        assert!(consent.phase != Phase::Off, "{identity} may be stored in {:?}", consent.phase);
                    }
                }
                assert_eq!(badge, consent.phase == Phase::Recording, "badge after {input:?}");
            }
        }
        assert!(started > 100, "the histories hardly ever recorded: {started}");
    }
}
