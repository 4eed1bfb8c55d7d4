//! The offloader's end of the job API, as far as captions of one call go: it can keep an answer back.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use conclave_proto::v1::{
    self, JobState,
    jobs_server::{Jobs, JobsServer},
};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

pub struct Offloader {
    pub address: SocketAddr,
    /// Jobs it may answer for: none until the test adds some.
    pub answers: Semaphore,
    submitted: Mutex<Vec<String>>,
    stopped: Mutex<Vec<String>>,
}

#[derive(Clone)]
struct Service(Arc<Offloader>);

impl Offloader {
    pub async fn start() -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let offloader = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            answers: Semaphore::new(0),
            submitted: Mutex::default(),
            stopped: Mutex::default(),
        });
        let service = JobsServer::new(Service(Arc::clone(&offloader)));
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        offloader
    }

    /// Keys of the jobs that were asked for; they are their ids too.
    pub fn submitted(&self) -> Vec<String> {
        self.submitted.lock().unwrap().clone()
    }

    pub fn stopped(&self) -> Vec<String> {
        self.stopped.lock().unwrap().clone()
    }
}

fn job(id: String, state: JobState) -> Result<Response<v1::Job>, Status> {
    Ok(Response::new(v1::Job { id, state: state.into(), ..v1::Job::default() }))
}

#[tonic::async_trait]
impl Jobs for Service {
    type WatchStream = tokio_stream::Pending<Result<v1::Job, Status>>;

    async fn submit(&self, request: Request<v1::SubmitRequest>) -> Result<Response<v1::Job>, Status> {
        let key = request.into_inner().idempotency_key;
        self.0.submitted.lock().unwrap().push(key.clone());
        self.0.answers.acquire().await.unwrap().forget();
        job(key, JobState::Running)
    }

    async fn stop(&self, request: Request<v1::StopRequest>) -> Result<Response<v1::Job>, Status> {
        let id = request.into_inner().id;
        self.0.stopped.lock().unwrap().push(id.clone());
        job(id, JobState::Done)
    }

    async fn get(&self, request: Request<v1::GetJobRequest>) -> Result<Response<v1::Job>, Status> {
        job(request.into_inner().id, JobState::Running)
    }

    async fn watch(&self, _: Request<v1::WatchJobsRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(tokio_stream::pending()))
    }

    async fn list(&self, _: Request<v1::ListJobsRequest>) -> Result<Response<v1::ListJobsResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn lay_out(&self, _: Request<v1::LayOutRequest>) -> Result<Response<v1::Job>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn lease(&self, _: Request<v1::LeaseRequest>) -> Result<Response<v1::LeaseResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn renew(&self, _: Request<v1::RenewRequest>) -> Result<Response<v1::RenewResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn checkpoint(&self, _: Request<v1::CheckpointRequest>) -> Result<Response<v1::CheckpointResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn finish(&self, _: Request<v1::FinishRequest>) -> Result<Response<v1::FinishResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}
