//! The Jobs service: asked by the message server, worked by workers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use conclave_proto::v1;
use conclave_proto::v1::jobs_server::{Jobs, JobsServer};
use futures_util::Stream;
use offloader_jobs::layout::{LaterLayout, UnknownLayout};
use offloader_jobs::limits::{JSON_BYTES_MAX, LEASE_MS};
use offloader_jobs::order::{CaptionParams, RecordParams};
use offloader_jobs::{Capacity, Job, Kind, Load, Outcome, Refused, Spec, State, choose};
use std::pin::Pin;
use tokio::sync::broadcast::error::RecvError;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::app::{App, random};
use crate::finish::FinishError;
use crate::limits::{GRPC_BYTES_MAX, JOBS_LISTED_MAX, LEASE_WAIT_MAX};
use crate::store::StoreError;
use crate::store::jobs::{ChangeError, JobFilter};
use crate::submit::SubmitError;
use crate::tokens::Caller;
use crate::work::OrderError;

/// Ids and keys from outside.
const ID_BYTES_MAX: usize = 256;

/// The service.
#[derive(Clone)]
pub struct JobsService {
    app: Arc<App>,
}

impl JobsService {
    /// Ready to be routed.
    pub fn server(app: Arc<App>) -> JobsServer<Self> {
        JobsServer::new(Self { app }).max_decoding_message_size(GRPC_BYTES_MAX).max_encoding_message_size(GRPC_BYTES_MAX)
    }

    /// Worker calls: the service may, a worker only for its own attempt.
    fn worker(&self, caller: &Caller, id: &str, fence: u64) -> Result<(), Status> {
        match caller {
            Caller::Service => Ok(()),
            Caller::Worker { job, fence: own } if job == id && *own == fence => Ok(()),
            Caller::Worker { .. } => Err(Status::permission_denied("this token is for another attempt")),
        }
    }

    fn status(&self, error: ChangeError) -> Status {
        match error {
            ChangeError::Unknown(_) => Status::not_found(error.to_string()),
            ChangeError::Refused(_) => {
                self.app.counts.stale.fetch_add(1, Ordering::Relaxed);
                Status::failed_precondition(error.to_string())
            }
            ChangeError::Store(error) => unavailable(&error),
        }
    }

    async fn find(&self, id: &str) -> Result<Job, Status> {
        let job = self.app.store.job(id).await.map_err(|error| unavailable(&error))?;
        job.ok_or_else(|| Status::not_found(format!("no job with id {id}")))
    }

    async fn add(&self, spec: Spec) -> Result<Job, Status> {
        let app = &self.app;
        if let Some(job) = app.store.job_by_key(&spec.tenant, &spec.idempotency_key).await.map_err(|error| unavailable(&error))? {
            return same(job, &spec);
        }
        let now_ms = app.store.now_ms().await.map_err(|error| unavailable(&error))?;
        let job = Job::new(format!("job-{}", Uuid::now_v7()), spec.clone(), now_ms);
        let added = match spec.kind {
            Kind::Record => self.add_recording(job).await?,
            Kind::Caption | Kind::Render | Kind::Transcribe | Kind::PublishRecording | Kind::PublishTranscript => {
                app.store.add_job(&job).await.map_err(|error| unavailable(&error))?.0
            }
        };
        app.wake.notify_one();
        let job = same(added, &spec)?;
        app.told(&job);
        Ok(job)
    }

    async fn add_recording(&self, job: Job) -> Result<Job, Status> {
        if let Some(egress) = crate::egress::egress_of(&job) {
            self.app.check_egress(&egress).map_err(Status::failed_precondition)?;
        }
        self.app.add_recording(job).await.map_err(|error| submit_status(&error))
    }

    async fn next_for(&self, worker: &str, kinds: &[Kind]) -> Result<Option<Job>, Status> {
        let filter = JobFilter { states: vec![State::Queued], ..JobFilter::default() };
        let waiting = self.app.store.jobs(&filter).await.map_err(|error| unavailable(&error))?;
        let now_ms = self.app.store.now_ms().await.map_err(|error| unavailable(&error))?;
        let ready: Vec<&Job> = waiting.iter().filter(|job| self.app.may_take(job, now_ms) && self.app.media_is_here(job)).collect();
        let ready = self.app.not_too_early(ready).await.map_err(|error| Status::unavailable(format!("{error:#}")))?;
        // A worker from elsewhere brings its own capacity: one job.
        let Some(job) = choose(ready, kinds, Capacity { workers_max: 1, memory: None }, Load::default(), |_| 0, now_ms) else {
            return Ok(None);
        };
        let owner = format!("{}/{worker}", self.app.node);
        let unavailable = |error: anyhow::Error| Status::unavailable(format!("{error:#}"));
        let Some((job, previous_owner)) = self.app.lease(&job.id, &owner).await.map_err(unavailable)? else { return Ok(None) };
        self.app.prepare_capture(&job, &previous_owner).await.map_err(unavailable)?;
        Ok(Some(job))
    }
}

fn submit_status(error: &SubmitError) -> Status {
    match error {
        SubmitError::Params(_) => invalid(format!("params_json: {error}")),
        SubmitError::Key(_) => Status::internal(error.to_string()),
        SubmitError::Store(error) => unavailable(error),
    }
}

fn same(job: Job, spec: &Spec) -> Result<Job, Status> {
    if job.same_request(spec.kind, &spec.call_id) {
        Ok(job)
    } else {
        Err(Status::already_exists(format!("the idempotency key was used for another request (job {}): use a new key", job.id)))
    }
}

#[tonic::async_trait]
impl Jobs for JobsService {
    async fn submit(&self, request: Request<v1::SubmitRequest>) -> Result<Response<v1::Job>, Status> {
        service_only(&request)?;
        let spec = spec_of(request.into_inner())?;
        if spec.kind.is_derived() {
            let recording = self.app.store.recording(&spec.recording_id).await.map_err(|error| unavailable(&error))?;
            if recording.is_none_or(|recording| recording.state != "sealed") {
                return Err(Status::failed_precondition(format!("recording {} is not sealed (yet)", spec.recording_id)));
            }
        }
        Ok(Response::new(wire(&self.add(spec).await?)))
    }

    async fn stop(&self, request: Request<v1::StopRequest>) -> Result<Response<v1::Job>, Status> {
        service_only(&request)?;
        let request = request.into_inner();
        let change = |job: &mut Job, now_ms: i64| -> Result<(), Refused> {
            job.stop(&request.reason, now_ms);
            Ok(())
        };
        let (job, ()) = self.app.store.change_job(&request.id, change).await.map_err(|error| self.status(error))?;
        tracing::info!(job = %job.id, state = job.state.name(), "job asked to stop");
        self.app.told(&job);
        self.app.wake.notify_one();
        Ok(Response::new(wire(&job)))
    }

    async fn lay_out(&self, request: Request<v1::LayOutRequest>) -> Result<Response<v1::Job>, Status> {
        service_only(&request)?;
        let request = request.into_inner();
        let layout = request.layout.parse().map_err(|error: UnknownLayout| invalid(error.to_string()))?;
        let later = LaterLayout { at_ms: request.at_ms, layout };
        let change = |job: &mut Job, now_ms| match crate::egress::laid_out(job, later) {
            Some(params) => job.extend(params, now_ms).map(|()| true),
            None => Ok(false),
        };
        let (job, done) = self.app.store.change_job(&request.id, change).await.map_err(|error| self.status(error))?;
        if !done {
            return Err(Status::failed_precondition("an egress of a whole room has layouts, and at most 1000 after each other"));
        }
        self.app.told(&job);
        Ok(Response::new(wire(&job)))
    }

    async fn get(&self, request: Request<v1::GetJobRequest>) -> Result<Response<v1::Job>, Status> {
        let caller = caller(&request)?;
        let id = request.into_inner().id;
        let job = self.find(&id).await?;
        let mut answer = wire(&job);
        if let Caller::Worker { fence, .. } = &caller {
            self.worker(&caller, &id, *fence)?;
            if *fence != job.fence || !job.state.is_leased() {
                return Err(self.status(Refused::Stale.into()));
            }
            answer.params_json = self.order(&job).await?;
        }
        Ok(Response::new(answer))
    }

    async fn list(&self, request: Request<v1::ListJobsRequest>) -> Result<Response<v1::ListJobsResponse>, Status> {
        service_only(&request)?;
        let request = request.into_inner();
        let states = request.states.iter().filter_map(|state| state_of(*state)).collect();
        let limit = i64::from(request.limit).min(JOBS_LISTED_MAX);
        let filter = JobFilter { tenant: request.tenant, call_id: request.call_id, states, limit, ..JobFilter::default() };
        let jobs = self.app.store.jobs(&filter).await.map_err(|error| unavailable(&error))?;
        Ok(Response::new(v1::ListJobsResponse { jobs: jobs.iter().map(wire).collect() }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::Job, Status>> + Send>>;

    /// First every job that has not ended, then each change.
    async fn watch(&self, request: Request<v1::WatchJobsRequest>) -> Result<Response<Self::WatchStream>, Status> {
        service_only(&request)?;
        let tenant = request.into_inner().tenant;
        // Listening before reading: nothing falls in between.
        let mut updates = self.app.updates.subscribe();
        let app = Arc::clone(&self.app);
        let (sender, receiver) = tokio::sync::mpsc::channel(16);
        tokio::spawn(async move {
            let mut fresh = true;
            loop {
                let jobs = if std::mem::take(&mut fresh) {
                    let states = vec![State::Queued, State::Running, State::Stopping];
                    match app.store.jobs(&JobFilter { tenant: tenant.clone(), states, ..JobFilter::default() }).await {
                        Ok(jobs) => jobs,
                        Err(error) => {
                            let _ = sender.send(Err(unavailable(&error))).await;
                            return;
                        }
                    }
                } else {
                    tokio::select! {
                        update = updates.recv() => match update {
                            // As it is now: two changes close together may be told in the wrong order.
                            Ok(job) => match app.store.job(&job.id).await {
                                Ok(job) => job.into_iter().collect(),
                                Err(_) => { fresh = true; continue }
                            },
                            // Too slow for the changes: begin anew.
                            Err(RecvError::Lagged(_)) => { fresh = true; continue }
                            Err(RecvError::Closed) => return,
                        },
                        () = sender.closed() => return,
                    }
                };
                for job in jobs.iter().filter(|job| tenant.is_empty() || job.spec.tenant == tenant) {
                    if sender.send(Ok(wire(job))).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver))))
    }

    async fn lease(&self, request: Request<v1::LeaseRequest>) -> Result<Response<v1::LeaseResponse>, Status> {
        service_only(&request)?;
        let request = request.into_inner();
        if request.worker.is_empty() || request.worker.len() > ID_BYTES_MAX {
            return Err(invalid("worker: name yourself".into()));
        }
        let kinds: Vec<Kind> = request.kinds.iter().filter_map(|kind| kind_of(*kind)).collect();
        let deadline = tokio::time::Instant::now() + Duration::from_millis(request.wait_ms.into()).min(LEASE_WAIT_MAX);
        loop {
            if let Some(job) = self.next_for(&request.worker, &kinds).await? {
                let mut answer = wire(&job);
                answer.params_json = self.order(&job).await?;
                return Ok(Response::new(v1::LeaseResponse { job: Some(answer), lease_ms: LEASE_MS as u32 }));
            }
            if tokio::time::Instant::now() >= deadline {
                return Ok(Response::new(v1::LeaseResponse { job: None, lease_ms: LEASE_MS as u32 }));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::RenewResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        self.worker(&caller, &request.id, request.fence)?;
        bounded("stats_json", &request.stats_json)?;
        let change = |job: &mut Job, now_ms| {
            let told = (job.progress, job.stats.clone());
            let stop = job.renew(request.fence, request.progress, &request.stats_json, now_ms)?;
            Ok((stop, told != (job.progress, job.stats.clone())))
        };
        let (job, (stop, changed)) = self.app.store.change_job(&request.id, change).await.map_err(|error| self.status(error))?;
        if changed {
            self.app.told(&job);
        }
        Ok(Response::new(v1::RenewResponse { stop }))
    }

    async fn checkpoint(&self, request: Request<v1::CheckpointRequest>) -> Result<Response<v1::CheckpointResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        self.worker(&caller, &request.id, request.fence)?;
        bounded("checkpoint_json", &request.checkpoint_json)?;
        let change = |job: &mut Job, now_ms| job.note_checkpoint(request.fence, &request.checkpoint_json, now_ms);
        self.app.store.change_job(&request.id, change).await.map_err(|error| self.status(error))?;
        Ok(Response::new(v1::CheckpointResponse {}))
    }

    async fn finish(&self, request: Request<v1::FinishRequest>) -> Result<Response<v1::FinishResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        self.worker(&caller, &request.id, request.fence)?;
        bounded("result_json", &request.result_json)?;
        let outcome = if request.ok {
            Outcome::Done { result: request.result_json }
        } else if request.blocked {
            Outcome::Blocked { error: request.error }
        } else if request.retry && request.error.is_empty() {
            Outcome::Released
        } else {
            Outcome::Failed { error: request.error, retry: request.retry }
        };
        match self.app.finish(&request.id, request.fence, outcome).await {
            Ok(_) => Ok(Response::new(v1::FinishResponse {})),
            Err(FinishError::Change(error)) => Err(self.status(error)),
            Err(FinishError::NoRoom(error) | FinishError::Storage(error)) => Err(Status::unavailable(error)),
            Err(error @ FinishError::Result(_)) => {
                // The same worker would give the same again.
                let text = error.to_string();
                let change = |job: &mut Job, now_ms| {
                    job.finish(request.fence, Outcome::Failed { error: text.clone(), retry: true }, now_ms, random())
                };
                let (job, ()) = self.app.store.change_job(&request.id, change).await.map_err(|error| self.status(error))?;
                self.app.told(&job);
                self.app.wake.notify_one();
                Err(Status::invalid_argument(text))
            }
        }
    }
}

impl JobsService {
    async fn order(&self, job: &Job) -> Result<String, Status> {
        let order = self.app.work_order(job).await.map_err(|error| {
            if let OrderError::Store(error) = error { unavailable(&error) } else { Status::internal(error.to_string()) }
        })?;
        serde_json::to_string(&order).map_err(|error| Status::internal(error.to_string()))
    }
}

fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    request.extensions().get::<Caller>().cloned().ok_or_else(|| Status::unauthenticated("no token"))
}

fn service_only<T>(request: &Request<T>) -> Result<(), Status> {
    match caller(request)? {
        Caller::Service => Ok(()),
        Caller::Worker { .. } => Err(Status::permission_denied("a worker's token does not reach further than its job")),
    }
}

fn spec_of(request: v1::SubmitRequest) -> Result<Spec, Status> {
    let kind = kind_of(request.kind).ok_or_else(|| invalid("kind: say what to do".into()))?;
    for (name, value) in [
        ("tenant", &request.tenant),
        ("call_id", &request.call_id),
        ("idempotency_key", &request.idempotency_key),
        ("recording_id", &request.recording_id),
    ] {
        if value.len() > ID_BYTES_MAX {
            return Err(invalid(format!("{name}: longer than {ID_BYTES_MAX} bytes")));
        }
    }
    if request.idempotency_key.is_empty() {
        return Err(invalid("idempotency_key: needed, so that asking twice is harmless".into()));
    }
    bounded("params_json", &request.params_json)?;
    let params = if request.params_json.is_empty() { "{}".to_owned() } else { request.params_json };
    let checked = match kind {
        Kind::Caption => serde_json::from_str::<CaptionParams>(&params).map(|_| ()),
        Kind::Record | Kind::Render | Kind::Transcribe | Kind::PublishRecording | Kind::PublishTranscript => {
            serde_json::from_str::<RecordParams>(&params).map(|_| ())
        }
    };
    checked.map_err(|error| invalid(format!("params_json: {error}")))?;
    if !kind.is_derived() && request.call_id.is_empty() {
        return Err(invalid("call_id: needed".into()));
    }
    Ok(Spec {
        kind,
        tenant: request.tenant,
        call_id: request.call_id,
        // A capture writes a recording of its own.
        recording_id: if kind == Kind::Record { String::new() } else { request.recording_id },
        idempotency_key: request.idempotency_key,
        params,
    })
}

fn bounded(name: &str, json: &str) -> Result<(), Status> {
    if json.len() <= JSON_BYTES_MAX { Ok(()) } else { Err(invalid(format!("{name}: longer than {JSON_BYTES_MAX} bytes"))) }
}

fn invalid(text: String) -> Status {
    Status::invalid_argument(text)
}

fn unavailable(error: &StoreError) -> Status {
    tracing::warn!(%error, "the store failed");
    Status::unavailable(error.to_string())
}

fn kind_of(kind: i32) -> Option<Kind> {
    match v1::JobKind::try_from(kind).ok()? {
        v1::JobKind::Unspecified => None,
        v1::JobKind::Record => Some(Kind::Record),
        v1::JobKind::Caption => Some(Kind::Caption),
        v1::JobKind::Render => Some(Kind::Render),
        v1::JobKind::Transcribe => Some(Kind::Transcribe),
        v1::JobKind::PublishRecording => Some(Kind::PublishRecording),
        v1::JobKind::PublishTranscript => Some(Kind::PublishTranscript),
    }
}

fn state_of(state: i32) -> Option<State> {
    match v1::JobState::try_from(state).ok()? {
        v1::JobState::Unspecified => None,
        v1::JobState::Queued => Some(State::Queued),
        v1::JobState::Running => Some(State::Running),
        v1::JobState::Stopping => Some(State::Stopping),
        v1::JobState::Done => Some(State::Done),
        v1::JobState::Failed => Some(State::Failed),
    }
}

fn wire(job: &Job) -> v1::Job {
    let kind = match job.spec.kind {
        Kind::Record => v1::JobKind::Record,
        Kind::Caption => v1::JobKind::Caption,
        Kind::Render => v1::JobKind::Render,
        Kind::Transcribe => v1::JobKind::Transcribe,
        Kind::PublishRecording => v1::JobKind::PublishRecording,
        Kind::PublishTranscript => v1::JobKind::PublishTranscript,
    };
    let state = match job.state {
        State::Queued => v1::JobState::Queued,
        State::Running => v1::JobState::Running,
        State::Stopping => v1::JobState::Stopping,
        State::Done => v1::JobState::Done,
        State::Failed => v1::JobState::Failed,
    };
    v1::Job {
        id: job.id.clone(),
        kind: kind.into(),
        state: state.into(),
        tenant: job.spec.tenant.clone(),
        call_id: job.spec.call_id.clone(),
        recording_id: job.spec.recording_id.clone(),
        idempotency_key: job.spec.idempotency_key.clone(),
        attempt: job.attempt,
        fence: job.fence,
        lease_owner: job.lease.as_ref().map(|lease| lease.owner.clone()).unwrap_or_default(),
        lease_until_ms: job.lease.as_ref().map_or(0, |lease| lease.until_ms),
        progress: job.progress,
        error: job.error.clone(),
        created_at_ms: job.created_at_ms,
        updated_at_ms: job.updated_at_ms,
        params_json: job.spec.params.clone(),
        checkpoint_json: job.checkpoint.clone(),
        stats_json: if job.state.is_final() && !job.result.is_empty() { job.result.clone() } else { job.stats.clone() },
    }
}
