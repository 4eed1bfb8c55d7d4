//! Recording and transcription as the plugin keeps them: rows, their states, and the requests to the job service.

use serde_json::{Value, json};

use crate::world::{State, World, new_id, now_ms};

/// What a job makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKind {
    /// A file.
    Recording,
    /// Words.
    Transcribing,
    /// Words while they are said: stands and falls with the transcription, and nobody is asked for it.
    Captioning,
}

impl JobKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Recording => "recording",
            Self::Transcribing => "transcribing",
            Self::Captioning => "captioning",
        }
    }
}

/// A row of `calls_jobs`.
#[derive(Debug, Clone)]
pub struct Job {
    /// The plugin's id.
    pub id: String,
    /// What it makes.
    pub kind: JobKind,
    /// Its channel.
    pub channel: String,
    /// The call's post.
    pub post: String,
    /// The bot's session for it.
    pub auth_token: String,
    /// Unix ms of the request, the start and the end; 0: not yet.
    pub init_at: i64,
    /// See `init_at`.
    pub start_at: i64,
    /// See `init_at`.
    pub end_at: i64,
    /// When its bot was let into the call, in the same count; 0: not yet.
    pub joined_at: i64,
    /// Why it failed.
    pub err: String,
    pub(crate) bot_session: String,
}

impl Job {
    pub(crate) fn state(&self) -> Value {
        let mut state = json!({ "type": self.kind.name(), "init_at": self.init_at, "start_at": self.start_at, "end_at": self.end_at });
        if !self.err.is_empty() {
            state["err"] = json!(self.err);
        }
        state
    }
}

/// What the site's settings say.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wants {
    /// Transcripts are on.
    pub transcription: bool,
    /// Live captions are on.
    pub captions: bool,
}

/// The jobs of one press of the button.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The recording.
    pub recording: Job,
    /// The transcription, if on.
    pub transcription: Option<Job>,
    /// Live captions with it.
    pub captions: bool,
}

/// The job service and what the site's settings say of it.
#[derive(Debug, Clone)]
pub struct Service {
    /// `http://127.0.0.1:4545`.
    pub url: String,
    /// The site's name there.
    pub client_id: String,
    /// At least 32 characters.
    pub auth_key: String,
    /// Further keys that `MM_CALLS_RECORDER_…` and `MM_CALLS_TRANSCRIBER_…` of the server would add.
    pub extra: Vec<(String, String)>,
}

impl Service {
    /// The service at that address.
    #[must_use]
    pub fn new(url: &str) -> Self {
        Self { url: url.to_owned(), client_id: new_id(), auth_key: format!("{}{}", new_id(), new_id()), extra: Vec::new() }
    }
}

impl World {
    pub(crate) fn begin_recording(&self, channel: &str, wants: Wants) -> anyhow::Result<Asked> {
        let mut state = self.lock();
        let Some(post) = state.call(channel).map(|call| call.post.clone()) else { anyhow::bail!("no call ongoing") };
        let mut add = |kind| {
            let job = Job {
                id: new_id(),
                kind,
                channel: channel.to_owned(),
                post: post.clone(),
                auth_token: new_id(),
                init_at: now_ms(),
                start_at: 0,
                end_at: 0,
                joined_at: 0,
                err: String::new(),
                bot_session: String::new(),
            };
            state.jobs.push(job.clone());
            job
        };
        let recording = add(JobKind::Recording);
        let transcription = wants.transcription.then(|| add(JobKind::Transcribing));
        if wants.transcription && wants.captions {
            add(JobKind::Captioning);
        }
        state.tell_jobs(channel);
        Ok(Asked { recording, transcription, captions: wants.captions })
    }

    pub(crate) fn stop_recording(&self, channel: &str) {
        self.lock().stop_jobs(channel, "");
    }
}

impl State {
    /// Tells everybody, and the bots, how the jobs of a channel stand.
    pub(crate) fn tell_jobs(&self, channel: &str) {
        for job in self.jobs.iter().filter(|job| job.channel == channel && (job.end_at == 0 || now_ms() - job.end_at < 1_000)) {
            let data = json!({ "callID": channel, "jobState": job.state() });
            self.tell_call(channel, "call_job_state", &data);
            let bot = self.bot().id.clone();
            if !self.members.iter().any(|member| member.channel == channel && member.user == bot) {
                self.tell_bots("call_job_state", &data);
            }
        }
    }

    /// Ends a channel's jobs and tells the bots to go.
    pub(crate) fn stop_jobs(&mut self, channel: &str, err: &str) {
        let mut stopped = Vec::new();
        for job in self.jobs.iter_mut().filter(|job| job.channel == channel && job.end_at == 0) {
            job.end_at = now_ms();
            err.clone_into(&mut job.err);
            // The row of captions is no job of its own.
            if job.kind != JobKind::Captioning {
                stopped.push(job.id.clone());
            }
        }
        for id in &stopped {
            for _ in 0..=usize::from(self.faults.double_stop) {
                self.tell_bots("job_stop", &json!({ "job_id": id }));
            }
        }
        if !stopped.is_empty() {
            self.tell_jobs(channel);
        }
    }

    /// A bot left: what it made is over, and so is its sibling.
    pub(crate) fn bot_left(&mut self, channel: &str, session: &str) {
        if self.jobs.iter().any(|job| job.bot_session == session && job.end_at == 0) {
            self.stop_jobs(channel, "");
        }
    }

    /// Nobody came in time.
    pub(crate) fn check_starts(&mut self) {
        let late: Vec<(String, JobKind)> = self
            .jobs
            .iter()
            .filter(|job| job.kind != JobKind::Captioning && job.end_at == 0 && job.start_at == 0)
            .filter(|job| now_ms() - job.init_at > 60_000)
            .map(|job| (job.channel.clone(), job.kind))
            .collect();
        for (channel, kind) in late {
            let what = if kind == JobKind::Recording { "recording" } else { "transcriber" };
            self.breach(format!("the {what} job did not start within a minute"));
            self.stop_jobs(&channel, &format!("failed to start {what} job: timed out waiting for bot to join call"));
        }
    }

    /// A job reports; the answer is a status code and a text.
    pub(crate) fn report(&mut self, channel: &str, id: &str, kind: &str, status: &str, error: &str) -> (u16, &'static str) {
        if self.call(channel).is_none() {
            return (400, "no call ongoing");
        }
        if !["recording", "transcribing"].contains(&kind) {
            return (400, "invalid job type");
        }
        if !self.jobs.iter().any(|job| job.channel == channel && job.kind.name() == kind) {
            return (400, "no job ongoing");
        }
        let Some(job) = self.jobs.iter_mut().find(|job| job.id == id && job.kind.name() == kind && job.channel == channel) else {
            return (400, "invalid job ID");
        };
        if job.end_at > 0 {
            return (400, "job has ended");
        }
        match status {
            "started" if job.start_at > 0 => (400, "job has already started"),
            "started" => {
                job.start_at = now_ms();
                let (kind, start_at) = (job.kind, job.start_at);
                let captions = |job: &&mut Job| {
                    kind == JobKind::Transcribing && job.kind == JobKind::Captioning && job.channel == channel && job.end_at == 0
                };
                self.jobs.iter_mut().filter(captions).for_each(|job| job.start_at = start_at);
                self.tell_jobs(channel);
                (200, "")
            }
            "failed" => {
                self.stop_jobs(channel, error);
                (200, "")
            }
            _ => (400, "unsupported status type"),
        }
    }
}

/// `POST /jobs` for the recording, then for the transcription, as the plugin does.
pub(crate) async fn submit(site: &str, transcriber: &str, service: &Service, channel: &str, asked: &Asked) -> anyhow::Result<()> {
    let base = |job: &Job| json!({ "site_url": site, "call_id": channel, "post_id": job.post, "auth_token": job.auth_token });
    let recording = &asked.recording;
    let mut input = base(recording);
    merge(
        &mut input,
        &json!({ "recording_id": recording.id, "width": 1280, "height": 720, "video_rate": 1500, "audio_rate": 64,
        "frame_rate": 20, "video_preset": "veryfast", "output_format": "mp4" }),
    );
    post(service, "recording", 3_600, "mattermost/calls-recorder:v0.8.13", input).await?;
    if let Some(transcription) = &asked.transcription {
        let mut input = base(transcription);
        merge(
            &mut input,
            &json!({ "transcription_id": transcription.id, "transcribe_api": "whisper.cpp", "transcribe_api_options": "null",
            "model_size": "base", "output_format": "vtt", "num_threads": 2, "live_captions_on": asked.captions,
            "live_captions_model_size": "tiny", "live_captions_num_transcribers": 1, "live_captions_num_threads_per_transcriber": 2,
            "live_captions_language": "en" }),
        );
        post(service, "transcribing", 7_200, transcriber, input).await?;
    }
    Ok(())
}

fn merge(into: &mut Value, more: &Value) {
    if let (Some(into), Some(more)) = (into.as_object_mut(), more.as_object()) {
        into.extend(more.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
}

async fn post(service: &Service, kind: &str, seconds: u32, runner: &str, mut input: Value) -> anyhow::Result<()> {
    for (key, value) in &service.extra {
        input[key] = json!(value);
    }
    let job = json!({ "type": kind, "max_duration_sec": seconds, "runner": runner, "input_data": input });
    let answer = reqwest::Client::builder()
        .no_proxy()
        .build()?
        .post(format!("{}/jobs", service.url))
        .basic_auth(&service.client_id, Some(&service.auth_key))
        .json(&job)
        .send()
        .await?;
    let (status, text) = (answer.status(), answer.text().await?);
    anyhow::ensure!(status.is_success(), "request failed: {status} {text}");
    Ok(())
}
