//! A job's row.

use serde::{Deserialize, Serialize};

use crate::order::RecordParams;

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Capture of a call, until it ends or is stopped.
    Record,
    /// Live captions, until the call ends or they are stopped.
    Caption,
    /// Derived: one file for people.
    Render,
    /// Derived: words with times.
    Transcribe,
    /// The rendered file goes to the server that asked for it.
    PublishRecording,
    /// The words go there.
    PublishTranscript,
}

impl Kind {
    /// All kinds, the most urgent first.
    pub const ALL: [Self; 6] =
        [Self::Record, Self::Caption, Self::PublishRecording, Self::PublishTranscript, Self::Transcribe, Self::Render];

    /// Its name, as on the worker's command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Caption => "caption",
            Self::Render => "render",
            Self::Transcribe => "transcribe",
            Self::PublishRecording => "publish_recording",
            Self::PublishTranscript => "publish_transcript",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Made from a finished recording; can be repeated at any time.
    pub fn is_derived(self) -> bool {
        match self {
            Self::Record | Self::Caption | Self::PublishRecording | Self::PublishTranscript => false,
            Self::Render | Self::Transcribe => true,
        }
    }

    /// What a publication must wait for: the job that makes what it publishes.
    pub fn made_by(self) -> Option<Self> {
        match self {
            Self::PublishRecording => Some(Self::Render),
            Self::PublishTranscript => Some(Self::Transcribe),
            Self::Record | Self::Caption | Self::Render | Self::Transcribe => None,
        }
    }
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waits for a worker.
    Queued,
    /// A worker has it.
    Running,
    /// A worker has it and was asked to end.
    Stopping,
    /// Ended as it should.
    Done,
    /// Given up; the error says what to do.
    Failed,
}

impl State {
    /// All states.
    pub const ALL: [Self; 5] = [Self::Queued, Self::Running, Self::Stopping, Self::Done, Self::Failed];

    /// Its name in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    /// The state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Nothing changes any more.
    pub fn is_final(self) -> bool {
        match self {
            Self::Queued | Self::Running | Self::Stopping => false,
            Self::Done | Self::Failed => true,
        }
    }

    /// A worker has it.
    pub fn is_leased(self) -> bool {
        match self {
            Self::Running | Self::Stopping => true,
            Self::Queued | Self::Done | Self::Failed => false,
        }
    }
}

/// Who works on it, and until when without a word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The worker.
    pub owner: String,
    /// When it was taken, by the store's clock.
    pub since_ms: i64,
    /// When it ends, by the store's clock.
    pub until_ms: i64,
}

/// What somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// What to do.
    pub kind: Kind,
    /// For whom.
    pub tenant: String,
    /// The call.
    pub call_id: String,
    /// The recording, if there is one.
    pub recording_id: String,
    /// Asking twice with the same key gives the same job.
    pub idempotency_key: String,
    /// Parameters as JSON.
    pub params: String,
}

/// One job.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Its id.
    pub id: String,
    /// What was asked for.
    pub spec: Spec,
    /// Where it stands.
    pub state: State,
    /// How many times it was leased.
    pub attempt: u32,
    /// Failures in a row without getting on in between.
    pub failures: u32,
    /// Times in a row that it could not be done, by no fault of its own.
    pub blocked: u32,
    /// Grows with every lease, never falls. Whoever writes must name the latest.
    pub fence: u64,
    /// Who works on it.
    pub lease: Option<Lease>,
    /// Worker of the latest lease; stays when the lease is over. What it left on its disk is what the next one needs.
    pub last_owner: String,
    /// Not before this time.
    pub run_after_ms: i64,
    /// 0…1 for derived jobs.
    pub progress: f32,
    /// Why it waits or failed; empty while somebody works on it. History is in the log.
    pub error: String,
    /// Where the next attempt may go on.
    pub checkpoint: String,
    /// What that was when an attempt last failed: who stands there again has come no further.
    pub failed_checkpoint: String,
    /// Numbers that the worker tells while it runs.
    pub stats: String,
    /// What the worker gave at the end.
    pub result: String,
    /// When it was asked for.
    pub created_at_ms: i64,
    /// Last change.
    pub updated_at_ms: i64,
}

impl Job {
    /// A new job, waiting.
    pub fn new(id: String, spec: Spec, now_ms: i64) -> Self {
        Self {
            id,
            spec,
            state: State::Queued,
            attempt: 0,
            failures: 0,
            blocked: 0,
            fence: 0,
            lease: None,
            last_owner: String::new(),
            run_after_ms: now_ms,
            progress: 0.0,
            error: String::new(),
            checkpoint: String::new(),
            failed_checkpoint: String::new(),
            stats: String::new(),
            result: String::new(),
            created_at_ms: now_ms,
            updated_at_ms: now_ms,
        }
    }

    /// What follows from a job that is done: a recording is made into a file for people and into words. What a Mattermost
    /// server asked for is brought to it; of what it did not ask for nothing is made.
    pub fn follow_ups(&self) -> Vec<Spec> {
        if self.spec.kind != Kind::Record || self.state != State::Done {
            return Vec::new();
        }
        let params = self.record_params();
        let kinds = match params.mattermost {
            // LiveKit's egress is a file and nothing else.
            None => match params.egress {
                Some(egress) if egress.s3.is_some() => vec![Kind::Render, Kind::PublishRecording],
                Some(_) => vec![Kind::Render],
                None => vec![Kind::Transcribe, Kind::Render],
            },
            Some(call) => {
                let file = call.recording.is_some().then_some([Kind::Render, Kind::PublishRecording]);
                let words = call.transcription.is_some().then_some([Kind::Transcribe, Kind::PublishTranscript]);
                file.into_iter().chain(words).flatten().collect()
            }
        };
        kinds.into_iter().map(|kind| Spec { kind, idempotency_key: self.spec.follow_up_key(kind), ..self.spec.clone() }).collect()
    }
}

impl Job {
    /// Another server asked for it and waits for what comes of it.
    pub fn answers_another_server(&self) -> bool {
        self.record_params().mattermost.is_some()
    }

    /// What was asked for; nothing that can be read is nothing special.
    fn record_params(&self) -> RecordParams {
        serde_json::from_str(&self.spec.params).unwrap_or_default()
    }
}

impl Spec {
    /// The key of what follows from this recording.
    pub fn follow_up_key(&self, kind: Kind) -> String {
        format!("{}:{}", kind.name(), self.recording_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::{EgressOrder, S3Bucket};
    use crate::mattermost::{MattermostCall, MattermostRecording, MattermostTranscription};

    fn follow_ups(call: Option<MattermostCall>) -> Vec<String> {
        follow_ups_of(&RecordParams { mattermost: call.map(Box::new), ..RecordParams::default() })
    }

    fn follow_ups_of(params: &RecordParams) -> Vec<String> {
        let spec = Spec {
            kind: Kind::Record,
            tenant: "t".into(),
            call_id: "c".into(),
            recording_id: "rec-1".into(),
            idempotency_key: "k".into(),
            params: serde_json::to_string(params).unwrap(),
        };
        let job = Job { state: State::Done, ..Job::new("job-1".into(), spec, 0) };
        job.follow_ups().into_iter().map(|spec| spec.idempotency_key).collect()
    }

    #[test]
    fn an_egress_is_a_file_and_goes_to_a_bucket_where_one_is_named() {
        let follow_ups = |s3: Option<S3Bucket>| {
            let egress = Some(Box::new(EgressOrder { s3, ..EgressOrder::default() }));
            follow_ups_of(&RecordParams { egress, ..RecordParams::default() })
        };
        assert_eq!(follow_ups(None), ["render:rec-1"]);
        assert_eq!(follow_ups(Some(S3Bucket::default())), ["render:rec-1", "publish_recording:rec-1"]);
    }

    #[test]
    fn what_another_server_asked_for_is_made_and_brought_to_it_and_nothing_else() {
        assert_eq!(follow_ups(None), ["transcribe:rec-1", "render:rec-1"]);
        let (file, words) = (Some(MattermostRecording::default()), Some(MattermostTranscription::default()));
        let call = MattermostCall { recording: file.clone(), transcription: words.clone(), ..MattermostCall::default() };
        assert_eq!(follow_ups(Some(call)), ["render:rec-1", "publish_recording:rec-1", "transcribe:rec-1", "publish_transcript:rec-1"]);
        assert_eq!(
            follow_ups(Some(MattermostCall { recording: file, ..MattermostCall::default() })),
            ["render:rec-1", "publish_recording:rec-1"]
        );
        let alone = MattermostCall { transcription: words, ..MattermostCall::default() };
        assert_eq!(follow_ups(Some(alone)), ["transcribe:rec-1", "publish_transcript:rec-1"]);
    }
}
