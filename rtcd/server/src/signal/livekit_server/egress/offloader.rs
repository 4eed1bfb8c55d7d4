//! The offloader's jobs over gRPC.

use std::time::Duration;

use anyhow::Context as _;
use conclave_proto::v1::{self, jobs_client::JobsClient};
use offloader_jobs::order::RecordParams;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::super::TENANT;
use super::super::twirp::{Code, TwirpError};
use crate::config::Secret;
use crate::limits::{EGRESS_ANSWER_MAX, EGRESS_LISTED_MAX, GRPC_MESSAGE_MAX};

/// Puts the token on every request.
#[derive(Clone)]
struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// See the module.
#[derive(Clone)]
pub struct Offloader {
    client: JobsClient<InterceptedService<Channel, Bearer>>,
}

/// The offloader did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum OffloaderFault {
    /// It said why.
    #[error("{}", .0.message())]
    Said(#[from] Status),
    /// It said nothing.
    #[error("the offloader does not answer; try again")]
    Late,
}

#[allow(clippy::wildcard_enum_match_arm, reason = "all others are the offloader's own trouble, which no caller can mend")]
impl From<OffloaderFault> for TwirpError {
    fn from(fault: OffloaderFault) -> Self {
        let text = fault.to_string();
        let code = match &fault {
            OffloaderFault::Late => Code::Unavailable,
            OffloaderFault::Said(status) => match status.code() {
                tonic::Code::NotFound => Code::NotFound,
                tonic::Code::InvalidArgument => Code::InvalidArgument,
                tonic::Code::FailedPrecondition => Code::FailedPrecondition,
                _ => Code::Unavailable,
            },
        };
        tracing::warn!(%fault, "the offloader did not do what an egress needs");
        match code {
            // The rest says more about this site than a caller needs.
            Code::Unavailable => Self::new(code, "the offloader that records cannot be reached, or refuses this node; its log says more"),
            code => Self::new(code, text),
        }
    }
}

impl Offloader {
    /// Connects when it is first needed.
    ///
    /// # Errors
    /// The address or the token cannot be used.
    pub fn new(url: &str, token: &Secret) -> anyhow::Result<Self> {
        let bearer = format!("Bearer {}", String::from_utf8_lossy(token.bytes()));
        let bearer = MetadataValue::try_from(bearer).context("offloader.token has characters that no header may have")?;
        let endpoint = Endpoint::from_shared(url.to_owned()).context("offloader.url")?;
        let endpoint = endpoint
            .connect_timeout(Duration::from_secs(3))
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true);
        let client = JobsClient::with_interceptor(endpoint.connect_lazy(), Bearer(bearer)).max_decoding_message_size(GRPC_MESSAGE_MAX * 16);
        Ok(Self { client })
    }

    async fn asked<T>(&self, answer: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Result<T, OffloaderFault> {
        match tokio::time::timeout(EGRESS_ANSWER_MAX, answer).await {
            Ok(answer) => Ok(answer?.into_inner()),
            Err(_) => Err(OffloaderFault::Late),
        }
    }

    /// Asks for a recording; asking twice with one key is asking once.
    ///
    /// # Errors
    /// See [`OffloaderFault`].
    pub async fn record(&self, params: &RecordParams, key: &str) -> Result<v1::Job, OffloaderFault> {
        let request = v1::SubmitRequest {
            kind: v1::JobKind::Record.into(),
            tenant: TENANT.to_owned(),
            call_id: params.call_id.clone(),
            idempotency_key: key.to_owned(),
            params_json: serde_json::to_string(params).unwrap_or_default(),
            ..v1::SubmitRequest::default()
        };
        self.asked(self.client.clone().submit(request)).await
    }

    /// Ends a recording.
    ///
    /// # Errors
    /// See [`OffloaderFault`].
    pub async fn stop(&self, job: &str) -> Result<v1::Job, OffloaderFault> {
        let request = v1::StopRequest { id: job.to_owned(), reason: "StopEgress".to_owned() };
        self.asked(self.client.clone().stop(request)).await
    }

    /// Another layout of a room's egress from a moment on, Unix ms by this node's clock.
    ///
    /// # Errors
    /// See [`OffloaderFault`].
    pub async fn lay_out(&self, job: &str, layout: &str, at_ms: i64) -> Result<v1::Job, OffloaderFault> {
        let request = v1::LayOutRequest { id: job.to_owned(), layout: layout.to_owned(), at_ms };
        self.asked(self.client.clone().lay_out(request)).await
    }

    /// The newest jobs of LiveKit's rooms.
    ///
    /// # Errors
    /// See [`OffloaderFault`].
    pub async fn list(&self) -> Result<Vec<v1::Job>, OffloaderFault> {
        let request = v1::ListJobsRequest { tenant: TENANT.to_owned(), limit: EGRESS_LISTED_MAX, ..v1::ListJobsRequest::default() };
        Ok(self.asked(self.client.clone().list(request)).await?.jobs)
    }

    /// Every job that has not ended, then each change.
    ///
    /// # Errors
    /// See [`OffloaderFault`].
    pub async fn watch(&self) -> Result<tonic::Streaming<v1::Job>, OffloaderFault> {
        let request = v1::WatchJobsRequest { tenant: TENANT.to_owned() };
        self.asked(self.client.clone().watch(request)).await
    }
}
