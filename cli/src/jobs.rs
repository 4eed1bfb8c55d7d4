//! What the offloader is doing.

use std::fmt::Write as _;
use std::path::Path;

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
    print!("{}", text(&at.offloader, at.token.as_deref(), &at.data).await?);
    Ok(())
}

/// The newest jobs as a table.
pub(crate) async fn text(offloader: &str, token: Option<&str>, data: &Path) -> anyhow::Result<String> {
    let token = secrets::given_or_kept(token, data, secrets::OFFLOADER)?;
    let channel = Channel::from_shared(offloader.to_owned())
        .with_context(|| format!("--offloader {offloader} is not an address like http://127.0.0.1:4545"))?
        .connect()
        .await
        .with_context(|| format!("no offloader answers at {offloader}; is it running? (--offloader moves the address)"))?;
    let request = v1::ListJobsRequest { limit: 100, ..Default::default() };
    let jobs = JobsClient::new(channel).list(with_bearer(request, &token)?).await?.into_inner().jobs;
    let mut text = format!("{:<38} {:<11} {:<9} {:>7} {:>8}  error\n", "job", "kind", "state", "attempt", "progress");
    for job in jobs {
        let _ = writeln!(
            text,
            "{:<38} {:<11} {:<9} {:>7} {:>7.0}%  {}",
            job.id,
            job.kind().as_str_name().trim_start_matches("JOB_KIND_").to_lowercase(),
            job.state().as_str_name().trim_start_matches("JOB_STATE_").to_lowercase(),
            job.attempt,
            job.progress * 100.0,
            job.error
        );
    }
    Ok(text)
}
