//! The worker's side of a job: its order, its lease, its end.
//!
//! The lease is kept by a thread of its own, so that neither a slow disk nor a long decode lets it run out. What the thread
//! learns it says in one [`Word`]; who does the work looks at that and stops in the way that fits the work.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use conclave_proto::v1::{self as pb, jobs_client::JobsClient};
use offloader_jobs::order::WorkOrder;
use tokio::sync::watch;
use tonic::metadata::MetadataValue;
use tonic::service::{Interceptor, interceptor::InterceptedService};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::limits;

/// What the work is to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// Go on.
    Work,
    /// End it properly: somebody asked for that.
    Stop,
    /// The process is to end, another will go on: put everything down and go.
    Release,
    /// The lease could not be renewed in time: stop writing, another worker may have the job by now.
    Expired,
    /// Another worker has the job: not one byte more.
    Fenced,
}

/// How a job ended.
#[derive(Debug)]
pub enum Outcome {
    /// Done, with the result's JSON.
    Done(String),
    /// Put down for the next worker ([`Word::Release`]).
    Released,
    /// Not done. Trying again may help or not.
    Failed {
        /// For the operator: what happened and what to do.
        error: String,
        /// Whether another attempt makes sense.
        retry: bool,
    },
    /// This machine has no room for it now: the job waits, and that is no failure.
    Blocked {
        /// For the operator: what is missing and what to do.
        error: String,
    },
    /// See [`Word::Expired`].
    Expired,
    /// See [`Word::Fenced`].
    Fenced,
}

impl Outcome {
    /// No other attempt follows it.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Done(_) | Self::Failed { retry: false, .. } => true,
            Self::Failed { retry: true, .. } | Self::Released | Self::Blocked { .. } | Self::Expired | Self::Fenced => false,
        }
    }

    /// The process's exit code. 3 and 4 are told apart from failures by the supervisor.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Done(_) | Self::Released => 0,
            Self::Failed { .. } | Self::Blocked { .. } => 1,
            Self::Fenced => 3,
            Self::Expired => 4,
        }
    }
}

/// Which job, and how to speak to the offloader. No `Debug`: it holds a token.
#[derive(Clone)]
pub struct JobAddress {
    /// The offloader, http://host:port.
    pub url: String,
    /// The job's own token.
    pub token: String,
    /// The job.
    pub id: String,
    /// The number every write carries.
    pub fence: u64,
}

/// Adds `authorization: Bearer …` to every call.
#[derive(Clone)]
pub struct Bearer(MetadataValue<tonic::metadata::Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// Speaks to the offloader for one job.
pub type Client = JobsClient<InterceptedService<Channel, Bearer>>;

impl JobAddress {
    /// A client that connects when it is first used, and again after a break.
    pub fn client(&self) -> anyhow::Result<Client> {
        self.client_for(limits::CALL_TIMEOUT)
    }

    /// The same for calls whose answer may take so long. An offloader that vanished without a word is noticed sooner.
    fn client_for(&self, answer: Duration) -> anyhow::Result<Client> {
        let bearer = Bearer(format!("Bearer {}", self.token).parse()?);
        let channel = Endpoint::from_shared(self.url.clone())?
            .connect_timeout(limits::CALL_TIMEOUT)
            .timeout(answer)
            .http2_keep_alive_interval(limits::CALL_TIMEOUT)
            .keep_alive_timeout(limits::CALL_TIMEOUT)
            .connect_lazy();
        Ok(JobsClient::with_interceptor(channel, bearer).max_decoding_message_size(limits::JOB_MESSAGE_BYTES))
    }

    /// What is to be done. Asked again, it brings a fresh tap token.
    pub async fn order(&self) -> anyhow::Result<WorkOrder> {
        self.order_over(&mut self.client()?).await
    }

    /// The same over a connection that is there: for who asks often.
    pub async fn order_over(&self, client: &mut Client) -> anyhow::Result<WorkOrder> {
        let started = Instant::now();
        loop {
            match client.get(pb::GetJobRequest { id: self.id.clone() }).await {
                Ok(job) => return Ok(serde_json::from_str(&job.into_inner().params_json)?),
                Err(status) if passing(status.code()) && started.elapsed() < limits::LEASE_SILENCE => {
                    tokio::time::sleep(limits::RETRY_PAUSE).await;
                }
                Err(status) => anyhow::bail!("the offloader at {} did not give the job's order: {}", self.url, status.message()),
            }
        }
    }

    /// Notes where the next attempt may go on. Tried until the lease is over.
    pub async fn checkpoint(&self, checkpoint: &impl serde::Serialize) -> anyhow::Result<()> {
        let request = pb::CheckpointRequest { id: self.id.clone(), fence: self.fence, checkpoint_json: serde_json::to_string(checkpoint)? };
        let mut client = self.client()?;
        let started = Instant::now();
        loop {
            match client.checkpoint(request.clone()).await {
                Ok(_) => return Ok(()),
                Err(status) if passing(status.code()) && started.elapsed() < limits::LEASE_SILENCE => {
                    tokio::time::sleep(limits::RETRY_PAUSE).await;
                }
                Err(status) => anyhow::bail!("the offloader did not take the checkpoint: {}", status.message()),
            }
        }
    }

    /// Tells how it ended. Tried until the lease is over: an offloader that restarts must not cost a finished job.
    pub async fn finish(&self, outcome: &Outcome) -> anyhow::Result<()> {
        let request = pb::FinishRequest { id: self.id.clone(), fence: self.fence, ..pb::FinishRequest::default() };
        let request = match outcome {
            Outcome::Done(result) => pb::FinishRequest { ok: true, result_json: result.clone(), ..request },
            Outcome::Released => pb::FinishRequest { retry: true, ..request },
            Outcome::Failed { error, retry } => pb::FinishRequest { error: error.clone(), retry: *retry, ..request },
            Outcome::Blocked { error } => pb::FinishRequest { error: error.clone(), retry: true, blocked: true, ..request },
            Outcome::Expired | Outcome::Fenced => return Ok(()),
        };
        // A file is checked, encrypted and stored before the answer comes, and the offloader keeps the lease meanwhile: asked again
        // after some seconds, it would begin anew each time.
        let mut client = self.client_for(limits::FINISH_TIMEOUT)?;
        let mut silent = Instant::now();
        loop {
            let asked = Instant::now();
            match client.finish(request.clone()).await {
                Ok(_) => return Ok(()),
                Err(status) if passing(status.code()) => {
                    if asked.elapsed() > limits::CALL_TIMEOUT {
                        silent = Instant::now();
                    }
                    anyhow::ensure!(
                        silent.elapsed() < limits::LEASE_SILENCE,
                        "the offloader did not take the result: {}",
                        status.message()
                    );
                    tokio::time::sleep(limits::RETRY_PAUSE).await;
                }
                Err(status) => anyhow::bail!("the offloader did not take the result: {}", status.message()),
            }
        }
    }
}

/// Errors that may be gone in a moment.
fn passing(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown | Code::Aborted | Code::ResourceExhausted)
}

/// Keeps the lease while it lives.
pub struct Lease {
    word: watch::Receiver<Word>,
    say: watch::Sender<Word>,
    report: Arc<Mutex<Report>>,
}

/// What is told with each renewal.
#[derive(Debug, Clone, Default)]
struct Report {
    progress: f32,
    stats_json: String,
}

impl Lease {
    /// Starts renewing, on a thread of its own.
    pub fn keep(address: JobAddress) -> anyhow::Result<Self> {
        let (say, word) = watch::channel(Word::Work);
        let report = Arc::new(Mutex::new(Report::default()));
        let (teller, reported) = (say.clone(), report.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("lease".into()).spawn(move || runtime.block_on(renew(&address, &teller, &reported)))?;
        Ok(Self { word, say, report })
    }

    /// What to do now.
    pub fn word(&self) -> Word {
        *self.word.borrow()
    }

    /// To wait for a change of it.
    pub fn watch(&self) -> watch::Receiver<Word> {
        self.word.clone()
    }

    /// The process was asked to end.
    pub fn release(&self) {
        raise(&self.say, Word::Release);
    }

    /// 0 to 1, told with the next renewal.
    pub fn set_progress(&self, progress: f32) {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).progress = progress.clamp(0.0, 1.0);
    }

    /// Numbers of the running job as JSON, told with the next renewal.
    pub fn set_stats(&self, stats_json: String) {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).stats_json = stats_json;
    }
}

/// A word that is worse than the one before replaces it, never the other way.
fn raise(say: &watch::Sender<Word>, new: Word) {
    let rank = |word: Word| match word {
        Word::Work => 0,
        Word::Stop => 1,
        Word::Release => 2,
        Word::Expired => 3,
        Word::Fenced => 4,
    };
    say.send_if_modified(|word| {
        let worse = rank(new) > rank(*word);
        if worse {
            *word = new;
        }
        worse
    });
}

async fn renew(address: &JobAddress, say: &watch::Sender<Word>, report: &Mutex<Report>) {
    let Ok(mut client) = address.client() else { return raise(say, Word::Expired) };
    let mut renewed = Instant::now();
    loop {
        let now = report.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let request = pb::RenewRequest { id: address.id.clone(), fence: address.fence, progress: now.progress, stats_json: now.stats_json };
        let pause = match client.renew(request).await {
            Ok(answer) => {
                renewed = Instant::now();
                if answer.into_inner().stop {
                    raise(say, Word::Stop);
                }
                limits::RENEW_EVERY
            }
            // The row says that somebody else has it, or that there is no such job.
            Err(status) if matches!(status.code(), Code::FailedPrecondition | Code::NotFound | Code::PermissionDenied) => {
                tracing::warn!(job = %address.id, reason = status.message(), "the lease is gone");
                return raise(say, Word::Fenced);
            }
            Err(status) => {
                tracing::debug!(job = %address.id, reason = status.message(), "renewal failed");
                limits::RETRY_PAUSE
            }
        };
        if renewed.elapsed() > limits::LEASE_SILENCE {
            tracing::warn!(job = %address.id, "the offloader has not answered for {} s: giving the job up", limits::LEASE_SILENCE.as_secs());
            return raise(say, Word::Expired);
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = say.closed() => return,
        }
    }
}

/// What a word means for work that can simply be done again.
pub fn interruption(word: Word) -> Option<Outcome> {
    match word {
        Word::Work => None,
        Word::Stop => Some(Outcome::Failed { error: "stopped on request".into(), retry: false }),
        Word::Release => Some(Outcome::Released),
        Word::Expired => Some(Outcome::Expired),
        Word::Fenced => Some(Outcome::Fenced),
    }
}

/// Unix µs now.
pub fn now_us() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX))
}
