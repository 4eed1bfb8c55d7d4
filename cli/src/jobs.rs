//! What the offloader is doing.

use anyhow::Context as _;
use clap::Args;
use conclave_proto::v1;
use conclave_proto::v1::jobs_client::JobsClient;
use tonic::transport::Channel;

use crate::node::with_bearer;
use crate::up::secrets;

/// Where the offloader is and how to prove that we may ask.
#[derive(Args)]
pub(crate) struct OffloaderAddress {
    /// gRPC address of the offloader
    #[arg(long, env = "CONCLAVE_OFFLOADER", default_value = "http://127.0.0.1:4545")]
    offloader: String,
    /// Its bearer token; default: the one `conclave up` keeps in the data folder
    #[arg(long, env = "OFFLOADER_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Data folder of `conclave up`
    #[arg(long, env = "CONCLAVE_DATA", default_value = "var")]
    data: std::path::PathBuf,
}

pub(crate) async fn list(at: &OffloaderAddress) -> anyhow::Result<()> {
    let token = secrets::given_or_kept(at.token.as_deref(), &at.data, secrets::OFFLOADER)?;
    let channel = Channel::from_shared(at.offloader.clone())
        .with_context(|| format!("--offloader {} is not an address like http://127.0.0.1:4545", at.offloader))?
        .connect()
        .await
        .with_context(|| format!("no offloader answers at {}; is it running? (--offloader moves the address)", at.offloader))?;
    let request = v1::ListJobsRequest { limit: 100, ..Default::default() };
    let jobs = JobsClient::new(channel).list(with_bearer(request, &token)?).await?.into_inner().jobs;
    println!("{:<38} {:<11} {:<9} {:>7} {:>8}  error", "job", "kind", "state", "attempt", "progress");
    for job in jobs {
        println!(
            "{:<38} {:<11} {:<9} {:>7} {:>7.0}%  {}",
            job.id,
            job.kind().as_str_name().trim_start_matches("JOB_KIND_").to_lowercase(),
            job.state().as_str_name().trim_start_matches("JOB_STATE_").to_lowercase(),
            job.attempt,
            job.progress * 100.0,
            job.error
        );
    }
    Ok(())
}
