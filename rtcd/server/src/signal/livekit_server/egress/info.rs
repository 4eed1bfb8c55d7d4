//! An egress as LiveKit describes it, read from its jobs: the recording, the file that is made of it, and its way to a bucket.

use std::collections::HashMap;

use conclave_proto::v1::{self, JobKind, JobState};
use livekit_protocol as lk;
use lk::EgressStatus as Status;
use offloader_jobs::egress::{EgressKind, EgressOrder, EgressResult};
use offloader_jobs::order::{RecordParams, RecordResult};

/// Its jobs.
#[derive(Clone, Debug)]
pub struct Pair {
    /// What was asked for.
    pub order: EgressOrder,
    /// The recording.
    pub record: v1::Job,
    /// The file, once the recording is over.
    pub render: Option<v1::Job>,
    /// Its way to a bucket, where it goes to one.
    pub publish: Option<v1::Job>,
}

/// The egresses among these jobs, oldest first.
#[must_use]
pub fn pairs(jobs: Vec<v1::Job>) -> Vec<Pair> {
    let (records, others): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|job| job.kind() == JobKind::Record);
    let (renders, others): (Vec<_>, Vec<_>) = others.into_iter().partition(|job| job.kind() == JobKind::Render);
    let published = others.into_iter().filter(|job| job.kind() == JobKind::PublishRecording);
    let by_recording = |job: v1::Job| (job.recording_id.clone(), job);
    let mut renders: HashMap<String, v1::Job> = renders.into_iter().map(by_recording).collect();
    let mut published: HashMap<String, v1::Job> = published.map(by_recording).collect();
    let pair = |record: v1::Job| {
        let (render, publish) = (renders.remove(&record.recording_id), published.remove(&record.recording_id));
        Some(Pair { render, publish, ..Pair::of(record)? })
    };
    let mut pairs: Vec<Pair> = records.into_iter().filter_map(pair).collect();
    pairs.sort_by_key(|pair| pair.record.created_at_ms);
    pairs
}

/// Nothing more comes of it.
#[must_use]
pub fn is_over(status: Status) -> bool {
    match status {
        Status::EgressStarting | Status::EgressActive | Status::EgressEnding => false,
        Status::EgressComplete | Status::EgressFailed | Status::EgressAborted | Status::EgressLimitReached => true,
    }
}

impl Pair {
    /// Of a recording. `None`: it is no egress's.
    #[must_use]
    pub fn of(record: v1::Job) -> Option<Self> {
        let params: RecordParams = serde_json::from_str(&record.params_json).ok()?;
        Some(Self { order: *params.egress?, record, render: None, publish: None })
    }

    /// The recording takes no more media.
    #[must_use]
    pub fn has_recorded(&self) -> bool {
        matches!(self.record.state(), JobState::Done | JobState::Failed)
    }

    fn status(&self) -> (Status, &str) {
        let error = |job| -> &str {
            let job: &v1::Job = job;
            if job.error.is_empty() { "the job failed" } else { &job.error }
        };
        if let Some(publish) = self.publish.as_ref().filter(|_| self.is_rendered()) {
            return match publish.state() {
                JobState::Done => (Status::EgressComplete, ""),
                JobState::Failed => (Status::EgressFailed, error(publish)),
                JobState::Unspecified | JobState::Queued | JobState::Running | JobState::Stopping => (Status::EgressEnding, ""),
            };
        }
        match (self.record.state(), self.render.as_ref().map(|job| (job.state(), job))) {
            (_, Some((JobState::Done, _))) if self.order.s3.is_some() => (Status::EgressEnding, ""),
            (_, Some((JobState::Done, _))) => (Status::EgressComplete, ""),
            (_, Some((JobState::Failed, job))) => (Status::EgressFailed, error(job)),
            (_, Some(_)) => (Status::EgressEnding, ""),
            (JobState::Failed, None) => (Status::EgressFailed, error(&self.record)),
            (JobState::Done, None) => match serde_json::from_str::<RecordResult>(&self.record.stats_json) {
                Ok(result) if result.segments > 0 || self.record.attempt > 1 => (Status::EgressEnding, ""),
                Ok(_) | Err(_) => (Status::EgressAborted, "it ended before any media came"),
            },
            (JobState::Stopping, None) => (Status::EgressEnding, ""),
            (JobState::Running, None) => (Status::EgressActive, ""),
            // Waits for its first worker, or for another one.
            (JobState::Queued, None) if self.record.attempt > 0 => (Status::EgressActive, ""),
            (JobState::Queued | JobState::Unspecified, None) => (Status::EgressStarting, ""),
        }
    }

    fn is_rendered(&self) -> bool {
        self.render.as_ref().is_some_and(|job| job.state() == JobState::Done)
    }

    /// What was asked, as it was asked.
    fn request(&self) -> Option<lk::egress_info::Request> {
        use lk::egress_info::Request;
        let request = self.order.request.clone();
        if self.order.unified {
            return serde_json::from_value(request).ok().map(Request::Egress);
        }
        match self.order.kind {
            EgressKind::RoomComposite => serde_json::from_value(request).ok().map(Request::RoomComposite),
            EgressKind::Participant => serde_json::from_value(request).ok().map(Request::Participant),
            EgressKind::TrackComposite => serde_json::from_value(request).ok().map(Request::TrackComposite),
            EgressKind::Track => serde_json::from_value(request).ok().map(Request::Track),
        }
    }

    /// As LiveKit describes it. Times are Unix ns.
    #[must_use]
    #[expect(deprecated, reason = "older SDKs still read the result that newer ones have in a list")]
    pub fn info(&self) -> lk::EgressInfo {
        const NS_PER_MS: i64 = 1_000_000;
        let (status, error) = self.status();
        let last = self.publish.as_ref().filter(|_| self.is_rendered()).or(self.render.as_ref()).unwrap_or(&self.record);
        let started_at = self.record.created_at_ms * NS_PER_MS;
        let ended_at = if is_over(status) { last.updated_at_ms * NS_PER_MS } else { 0 };
        let made = self.render.as_ref().filter(|_| status == Status::EgressComplete);
        let made = made.and_then(|job| serde_json::from_str::<EgressResult>(&job.stats_json).ok());
        let published = self.publish.as_ref().and_then(|job| serde_json::from_str::<EgressResult>(&job.stats_json).ok());
        let delivered = made.as_ref().and_then(|made| made.delivered.clone().or(published.and_then(|published| published.delivered)));
        let delivered = delivered.unwrap_or_default();
        let file = lk::FileInfo {
            filename: self.order.path.clone(),
            started_at,
            ended_at,
            duration: made.as_ref().map_or(0, |made| made.duration_ms * NS_PER_MS),
            size: i64::try_from(delivered.bytes).unwrap_or(i64::MAX),
            location: delivered.location,
        };
        let manifest_location = delivered.manifest;
        lk::EgressInfo {
            egress_id: self.order.id.clone(),
            room_id: self.order.room_id.clone(),
            room_name: self.order.room_name.clone(),
            status: status.into(),
            started_at,
            ended_at,
            updated_at: last.updated_at_ms * NS_PER_MS,
            error: error.to_owned(),
            file_results: vec![file.clone()],
            result: Some(lk::egress_info::Result::File(file)),
            manifest_location,
            request: self.request(),
            source_type: match self.order.kind {
                EgressKind::RoomComposite => lk::EgressSourceType::Web.into(),
                EgressKind::Participant | EgressKind::TrackComposite | EgressKind::Track => lk::EgressSourceType::Sdk.into(),
            },
            ..lk::EgressInfo::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(kind: JobKind, state: JobState, stats: &str) -> v1::Job {
        let egress = EgressOrder { id: "EG_1".into(), room_name: "r".into(), path: "a.mp4".into(), ..EgressOrder::default() };
        let params = RecordParams { egress: Some(Box::new(egress)), ..RecordParams::default() };
        v1::Job {
            kind: kind.into(),
            state: state.into(),
            recording_id: "rec-1".into(),
            params_json: serde_json::to_string(&params).expect("JSON"),
            stats_json: stats.to_owned(),
            error: if state == JobState::Failed { "why".to_owned() } else { String::new() },
            attempt: u32::from(state != JobState::Queued),
            created_at_ms: 1,
            updated_at_ms: 5,
            ..v1::Job::default()
        }
    }

    #[test]
    fn where_it_goes_to_a_bucket_it_is_complete_when_it_is_there() {
        let made = r#"{"file":"media.mp4","duration_ms":7}"#;
        let there = r#"{"duration_ms":0,"delivered":{"location":"https://b.s3.example/a.mp4","bytes":11}}"#;
        for (render, publish, expected) in [
            (JobState::Running, Some(JobState::Queued), Status::EgressEnding),
            (JobState::Done, None, Status::EgressEnding),
            (JobState::Done, Some(JobState::Running), Status::EgressEnding),
            (JobState::Done, Some(JobState::Done), Status::EgressComplete),
            (JobState::Done, Some(JobState::Failed), Status::EgressFailed),
            // Nothing was made that could go anywhere.
            (JobState::Failed, Some(JobState::Failed), Status::EgressFailed),
        ] {
            let publish = publish.map(|state| job(JobKind::PublishRecording, state, there));
            let mut found =
                pairs([job(JobKind::Record, JobState::Done, ""), job(JobKind::Render, render, made)].into_iter().chain(publish).collect());
            let Some(pair) = found.first_mut() else { unreachable!() };
            pair.order.s3 = Some(offloader_jobs::egress::S3Bucket::default());
            let info = pair.info();
            assert_eq!(info.status(), expected, "{render:?}");
            let done = expected == Status::EgressComplete;
            assert_eq!((info.file_results[0].size, info.file_results[0].duration), if done { (11, 7_000_000) } else { (0, 0) });
            assert_eq!(info.file_results[0].location, if done { "https://b.s3.example/a.mp4" } else { "" });
        }
    }

    #[test]
    fn the_status_follows_both_jobs() {
        let segments = r#"{"reason":"stopped","packets":9,"segments":2}"#;
        let file = r#"{"file":"media.mp4","duration_ms":7,"delivered":{"location":"/srv/a.mp4","bytes":11}}"#;
        for (record, stats, render, expected) in [
            (JobState::Queued, "", None, Status::EgressStarting),
            (JobState::Running, "", None, Status::EgressActive),
            (JobState::Stopping, "", None, Status::EgressEnding),
            (JobState::Done, segments, None, Status::EgressEnding),
            (JobState::Done, r#"{"reason":"stopped"}"#, None, Status::EgressAborted),
            (JobState::Done, "", None, Status::EgressAborted),
            (JobState::Failed, "", None, Status::EgressFailed),
            (JobState::Done, segments, Some(JobState::Queued), Status::EgressEnding),
            (JobState::Done, segments, Some(JobState::Running), Status::EgressEnding),
            (JobState::Done, segments, Some(JobState::Failed), Status::EgressFailed),
            (JobState::Done, segments, Some(JobState::Done), Status::EgressComplete),
            // What was saved of a lost recording is a file too.
            (JobState::Failed, "", Some(JobState::Done), Status::EgressComplete),
        ] {
            let jobs = render.map(|state| job(JobKind::Render, state, file)).into_iter().chain([job(JobKind::Record, record, stats)]);
            let found = pairs(jobs.collect());
            let [pair] = &found[..] else { unreachable!("{found:?}") };
            let info = pair.info();
            assert_eq!(info.status(), expected, "{record:?} {render:?}");
            assert_eq!(info.ended_at > 0, is_over(expected));
            assert_eq!(info.error.is_empty(), !matches!(expected, Status::EgressFailed | Status::EgressAborted));
            if expected == Status::EgressComplete {
                assert_eq!((info.file_results[0].size, info.file_results[0].duration), (11, 7_000_000));
                assert_eq!(info.file_results[0].location, "/srv/a.mp4");
            }
        }
        assert!(pairs(vec![v1::Job { kind: JobKind::Record.into(), params_json: "{}".into(), ..v1::Job::default() }]).is_empty());
    }
}
