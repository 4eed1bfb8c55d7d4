//! Questions to a media node over its gRPC control calls.

use anyhow::Context as _;
use clap::Args;
use conclave_proto::v1;
use conclave_proto::v1::signal_client::SignalClient;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;

use crate::up::secrets;

/// What the node sends at most: every participant of a full one with a diagnosis. The default of 4 MiB is short of that.
const REPORT_MAX: usize = 64 << 20;

/// Where the node is and how to prove that we may ask.
#[derive(Args)]
pub(crate) struct NodeAddress {
    /// gRPC address of the media node
    #[arg(long, env = "CONCLAVE_RTCD", default_value = "http://127.0.0.1:8045")]
    rtcd: String,
    /// Its shared secret; default: the one `conclave up` keeps in the data folder
    #[arg(long, env = "RTCD_SIGNAL_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Data folder of `conclave up`
    #[arg(long, env = "CONCLAVE_DATA", default_value = "var")]
    data: std::path::PathBuf,
}

impl NodeAddress {
    async fn client(&self) -> anyhow::Result<(SignalClient<Channel>, String)> {
        let token = secrets::given_or_kept(self.token.as_deref(), &self.data, secrets::SIGNAL)?;
        let channel = Channel::from_shared(self.rtcd.clone())
            .with_context(|| format!("--rtcd {} is not an address like http://127.0.0.1:8045", self.rtcd))?
            .connect()
            .await
            .with_context(|| format!("no media node answers at {}; is it running? (--rtcd moves the address)", self.rtcd))?;
        Ok((SignalClient::new(channel).max_decoding_message_size(REPORT_MAX), token))
    }

    pub(crate) fn data(&self) -> &std::path::Path {
        &self.data
    }

    pub(crate) fn given_token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Where its HTTP pages are: the same port.
    pub(crate) fn http(&self) -> Option<reqwest::Url> {
        self.rtcd.parse().ok()
    }

    pub(crate) async fn node_status(&self) -> anyhow::Result<v1::NodeStatusResponse> {
        let (mut client, token) = self.client().await?;
        Ok(client.node_status(with_bearer(v1::NodeStatusRequest {}, &token)?).await?.into_inner())
    }

    pub(crate) async fn calls(&self) -> anyhow::Result<Vec<v1::CallInfo>> {
        let (mut client, token) = self.client().await?;
        Ok(client.list_calls(with_bearer(v1::ListCallsRequest { tenant: String::new() }, &token)?).await?.into_inner().calls)
    }

    /// Credentials to check the media ports with.
    pub(crate) async fn probe(&self) -> anyhow::Result<v1::ProbeResponse> {
        let (mut client, token) = self.client().await?;
        Ok(client.probe(with_bearer(v1::ProbeRequest {}, &token)?).await?.into_inner())
    }
}

/// A request that carries the bearer token.
pub(crate) fn with_bearer<T>(message: T, token: &str) -> anyhow::Result<tonic::Request<T>> {
    let mut request = tonic::Request::new(message);
    let value: MetadataValue<_> = format!("Bearer {token}").parse().context("the token holds characters that no header may carry")?;
    request.metadata_mut().insert("authorization", value);
    Ok(request)
}

pub(crate) async fn status(node: &NodeAddress) -> anyhow::Result<()> {
    let (mut client, token) = node.client().await?;
    let status = client.node_status(with_bearer(v1::NodeStatusRequest {}, &token)?).await?.into_inner();
    println!(
        "node {}  version {}  up {} s  {} shard(s)  {} call(s)  {} participant(s)  {} MiB{}",
        status.node_id,
        status.version,
        status.uptime_s,
        status.shards,
        status.calls,
        status.participants,
        status.rss_bytes >> 20,
        if status.draining { format!("  DRAINING, ends in {} s at the latest", status.drain_left_s) } else { String::new() }
    );
    println!("media at {}", status.advertised.join(", "));
    for warning in &status.warnings {
        println!("warning: {warning}");
    }
    let calls = client.list_calls(with_bearer(v1::ListCallsRequest { tenant: String::new() }, &token)?).await?.into_inner();
    for call in calls.calls {
        let shards: Vec<String> = call.shards.iter().map(u32::to_string).collect();
        println!("call {}  shard {}", call.call_id, shards.join(", "));
        for person in call.participants {
            println!(
                "  {:<24} {:<24} {:>4} ms  in {:>6} kbit/s  out {:>6} kbit/s  loss {:.1} % / {:.1} %  {}",
                person.display_name,
                person.step().as_str_name().trim_start_matches("MEDIA_STEP_").to_lowercase(),
                person.rtt_ms,
                person.bitrate_in_bps / 1000,
                person.bitrate_out_bps / 1000,
                person.loss_in * 100.0,
                person.loss_out * 100.0,
                person.step_detail,
            );
        }
    }
    Ok(())
}

pub(crate) async fn drain(node: &NodeAddress, deadline_s: u32, cancel: bool) -> anyhow::Result<()> {
    let (mut client, token) = node.client().await?;
    client.drain(with_bearer(v1::DrainRequest { deadline_s, cancel }, &token)?).await?;
    if cancel {
        println!("not draining: new calls are taken again.");
    } else {
        println!(
            "draining: nobody new is taken; the node ends with the last participant, or in {deadline_s} s. Watch with `conclave status`, \
             take it back with `conclave drain --cancel`."
        );
    }
    Ok(())
}
