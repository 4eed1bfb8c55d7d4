//! The two neighbours of a worker, spoken to over real gRPC: an offloader that holds one job, and a media node whose tap plays
//! a script. Both only do what a test tells them.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use conclave_proto::v1::{
    self as pb,
    jobs_server::{Jobs, JobsServer},
    tap_server::{Tap, TapServer},
};
use tokio::sync::{mpsc, watch};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

type Items = Pin<Box<dyn Stream<Item = Result<pb::TapItem, Status>> + Send>>;

/// What the tap does on one connection.
#[derive(Clone)]
pub enum Step {
    Item(pb::TapItem),
    /// Not before its time has come.
    Paced(pb::TapItem),
    /// Breaks the connection off with an error.
    Break,
    /// Waits until the worker is told to stop or the test lets go.
    Hold,
}

#[derive(Clone, Default)]
pub struct Seen {
    pub finished: Option<pb::FinishRequest>,
    /// How often it was asked to end the job.
    pub finishes: u32,
    pub renewals: u32,
    pub stats_json: String,
    pub key_frames: Vec<String>,
    pub captions: Vec<(std::time::Instant, pb::Caption)>,
    pub taps: u32,
}

pub struct World {
    pub address: SocketAddr,
    pub seen: Arc<Mutex<Seen>>,
    pub state: watch::Sender<State>,
    changed: watch::Receiver<u64>,
}

#[derive(Clone, Default)]
pub struct State {
    pub order_json: String,
    pub fence: u64,
    pub stop: bool,
    pub let_go: bool,
    /// How long it takes to end a job: files are stored meanwhile.
    pub finish_ms: u64,
}

#[derive(Clone)]
struct Service {
    seen: Arc<Mutex<Seen>>,
    state: watch::Receiver<State>,
    connections: Arc<Mutex<VecDeque<Vec<Step>>>>,
    change: watch::Sender<u64>,
}

impl Service {
    fn note(&self, what: impl FnOnce(&mut Seen)) {
        what(&mut self.seen.lock().unwrap());
        self.change.send_modify(|n| *n += 1);
    }

    fn check(&self, fence: u64) -> Result<(), Status> {
        let current = self.state.borrow().fence;
        if fence == current { Ok(()) } else { Err(Status::failed_precondition(format!("fence is {current}"))) }
    }
}

impl World {
    /// Starts both on one port.
    pub async fn start(connections: Vec<Vec<Step>>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (state, watched) = watch::channel(State { fence: 1, ..State::default() });
        let (change, changed) = watch::channel(0);
        let seen = Arc::new(Mutex::new(Seen::default()));
        let service = Service { seen: seen.clone(), state: watched, connections: Arc::new(Mutex::new(connections.into())), change };
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(JobsServer::new(service.clone()))
                .add_service(TapServer::new(service))
                .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener)),
        );
        Self { address, seen, state, changed }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits until something holds; the whole test has a time limit of its own.
    pub async fn until(&mut self, what: impl Fn(&Seen) -> bool) {
        loop {
            if what(&self.seen.lock().unwrap()) {
                return;
            }
            tokio::time::timeout(std::time::Duration::from_secs(300), self.changed.changed()).await.unwrap().unwrap();
        }
    }

    /// The real program, as the offloader starts it.
    pub fn worker(&self, fence: u64) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_offload-worker"));
        command
            .args(["--job", "job-1", "--fence", &fence.to_string(), "--kind", "test"])
            .env("OFFLOADER_URL", self.url())
            .env("OFFLOADER_TOKEN", "test-token")
            .kill_on_drop(true);
        command
    }
}

#[tonic::async_trait]
impl Jobs for Service {
    async fn get(&self, request: Request<pb::GetJobRequest>) -> Result<Response<pb::Job>, Status> {
        if request.metadata().get("authorization").map(|v| v.as_bytes()) != Some(b"Bearer test-token") {
            return Err(Status::unauthenticated("no token"));
        }
        let state = self.state.borrow().clone();
        Ok(Response::new(pb::Job { id: "job-1".into(), fence: state.fence, params_json: state.order_json, ..pb::Job::default() }))
    }

    async fn renew(&self, request: Request<pb::RenewRequest>) -> Result<Response<pb::RenewResponse>, Status> {
        let request = request.into_inner();
        self.check(request.fence)?;
        self.note(|seen| {
            seen.renewals += 1;
            seen.stats_json = request.stats_json;
        });
        Ok(Response::new(pb::RenewResponse { stop: self.state.borrow().stop }))
    }

    async fn finish(&self, request: Request<pb::FinishRequest>) -> Result<Response<pb::FinishResponse>, Status> {
        let request = request.into_inner();
        self.check(request.fence)?;
        self.note(|seen| seen.finishes += 1);
        let takes = self.state.borrow().finish_ms;
        tokio::time::sleep(std::time::Duration::from_millis(takes)).await;
        self.note(|seen| seen.finished = Some(request));
        Ok(Response::new(pb::FinishResponse {}))
    }

    async fn checkpoint(&self, _: Request<pb::CheckpointRequest>) -> Result<Response<pb::CheckpointResponse>, Status> {
        Err(Status::unimplemented("the worker does not"))
    }
    async fn submit(&self, _: Request<pb::SubmitRequest>) -> Result<Response<pb::Job>, Status> {
        Err(Status::unimplemented("the worker does not"))
    }
    async fn stop(&self, _: Request<pb::StopRequest>) -> Result<Response<pb::Job>, Status> {
        Err(Status::unimplemented("the worker does not"))
    }
    async fn lay_out(&self, _: Request<pb::LayOutRequest>) -> Result<Response<pb::Job>, Status> {
        Err(Status::unimplemented("the worker does not"))
    }
    async fn list(&self, _: Request<pb::ListJobsRequest>) -> Result<Response<pb::ListJobsResponse>, Status> {
        Err(Status::unimplemented("the worker does not"))
    }
    async fn lease(&self, _: Request<pb::LeaseRequest>) -> Result<Response<pb::LeaseResponse>, Status> {
        Err(Status::unimplemented("the worker does not"))
    }
    type WatchStream = Pin<Box<dyn Stream<Item = Result<pb::Job, Status>> + Send>>;
    async fn watch(&self, _: Request<pb::WatchJobsRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("the worker does not"))
    }
}

#[tonic::async_trait]
impl Tap for Service {
    type OpenStream = Items;

    async fn open(&self, request: Request<Streaming<pb::TapRequest>>) -> Result<Response<Items>, Status> {
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|r| r.body);
        let Some(pb::tap_request::Body::Open(open)) = first else { return Err(Status::invalid_argument("open first")) };
        if open.token != "tap-token" {
            return Err(Status::unauthenticated("wrong token"));
        }
        let Some(steps) = self.connections.lock().unwrap().pop_front() else { return Err(Status::not_found("no such call")) };
        self.note(|seen| seen.taps += 1);
        let service = self.clone();
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                service.note(|seen| match request.body {
                    Some(pb::tap_request::Body::KeyFrame(k)) => seen.key_frames.push(k.track_sid),
                    Some(pb::tap_request::Body::Caption(c)) => seen.captions.push((std::time::Instant::now(), c)),
                    _ => {}
                });
            }
        });
        let (send, items) = mpsc::channel(64);
        let mut state = self.state.clone();
        tokio::spawn(async move {
            for step in steps {
                let item = match step {
                    Step::Item(item) => Ok(item),
                    Step::Paced(item) => {
                        let early = item.at_us - offload_worker::job::now_us();
                        tokio::time::sleep(std::time::Duration::from_micros(early.max(0).unsigned_abs())).await;
                        Ok(item)
                    }
                    Step::Break => Err(Status::unavailable("the media node went away")),
                    Step::Hold => {
                        let _ = state.wait_for(|s| s.let_go).await;
                        continue;
                    }
                };
                if send.send(item).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(items))))
    }
}
