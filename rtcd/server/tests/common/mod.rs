//! A node in this process, with its HTTP port, on loopback and free ports.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]

pub mod check;
pub mod hooks;
pub mod livekit;
pub mod mattermost;
pub mod page;
pub mod program;
pub mod wire;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use conclave_proto::v1;
use conclave_proto::v1::signal_client::SignalClient;
use rtc_client::{Event, OpusTrack};
use rtcd::config::Config;
use rtcd::http::Http;
use rtcd::node::{self, Node, Running};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

pub const TOKEN: &str = "the-shared-token-of-tests";
pub const TAP_SECRET: &str = "the-tap-secret-of-tests";

/// Two shards on loopback and free ports. Every second participant of a call is on the other one.
pub const SETTINGS: [(&str, &str); 9] = [
    ("RTCD_API_HTTP_LISTENADDRESS", "127.0.0.1:0"),
    ("RTCD_RTC_ICEADDRESSUDP", "127.0.0.1"),
    ("RTCD_RTC_ICEADDRESSTCP", "127.0.0.1"),
    ("RTCD_RTC_ICEPORTUDP", "0"),
    ("RTCD_RTC_ICEPORTTCP", "0"),
    ("RTCD_RTC_SHARDS", "2"),
    ("RTCD_RTC_PARTICIPANTSPERSHARD", "1"),
    ("RTCD_SIGNAL_TOKEN", TOKEN),
    ("RTCD_TAP_SECRET", TAP_SECRET),
];

pub struct TestNode {
    pub node: Arc<Node>,
    pub url: String,
    running: Running,
    stop: oneshot::Sender<()>,
    serving: tokio::task::JoinHandle<()>,
}

impl TestNode {
    pub async fn start(settings: &[(&str, &str)]) -> Self {
        if let Ok(level) = std::env::var("TEST_LOG") {
            rtcd::logging::install(&level);
        }
        let given = || settings.iter().chain(&SETTINGS).chain(&[("RTCD_NODE_ID", "test-node")]);
        let of = |name: &str| given().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let config = Config::from_sources(None, &of).expect("valid settings").config;
        let http = Http::bind(config.http_listen).await.expect("a free port");
        let url = format!("http://{}", http.local());
        let running = node::start(&config).expect("starts");
        let node = Arc::clone(&running.node);
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(http.serve(Arc::clone(&node), async move {
            let _ = stopped.await;
        }));
        Self { node, url, running, stop, serving }
    }

    pub async fn stop(self) {
        self.running.stop().await;
        let _ = self.stop.send(());
        let _ = self.serving.await;
    }

    pub async fn signal(&self) -> SignalClient<Channel> {
        SignalClient::connect(self.url.clone()).await.expect("reachable")
    }

    pub async fn metrics(&self) -> String {
        rtcd::metrics::render(&self.node).await
    }

    /// The value of a metric line that starts with `name`, summed over its labels.
    pub async fn metric(&self, name: &str) -> f64 {
        self.metric_with(name, &[]).await
    }

    /// As [`TestNode::metric`], of the lines that have all these labels.
    pub async fn metric_with(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels: Vec<String> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        self.metrics()
            .await
            .lines()
            .filter(|line| line.starts_with(name) && labels.iter().all(|label| line.contains(label.as_str())))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum()
    }

    /// The shard of a call that lives on one.
    pub async fn shard_of(&self, call: &str) -> usize {
        let request = bearing(v1::ListCallsRequest::default(), TOKEN);
        let calls = self.signal().await.list_calls(request).await.expect("allowed").into_inner().calls;
        let [shard] = calls.iter().find(|known| known.call_id == call).expect("a call").shards[..] else { panic!("on several shards") };
        shard as usize
    }

    /// The shard that has counted one more since `before`; waits for it.
    pub async fn shard_that_counts(&self, name: &str, counter: &str, before: &[f64]) -> usize {
        soon("a shard counts", async {
            loop {
                let now = self.by_shard(name, counter).await;
                if let Some(shard) = now.iter().zip(before).position(|(now, before)| now > before) {
                    return shard;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
    }

    /// A counter of each shard, by number.
    pub async fn by_shard(&self, name: &str, counter: &str) -> Vec<f64> {
        let mut counts = Vec::new();
        for shard in 0..self.node.desks.len() {
            let shard = shard.to_string();
            let labels: &[(&str, &str)] = if counter.is_empty() { &[("shard", &shard)] } else { &[("shard", &shard), ("name", counter)] };
            counts.push(self.metric_with(name, labels).await);
        }
        counts
    }
}

/// An Opus frame whose content tells it apart.
pub fn numbered_frame(number: u32) -> Bytes {
    let mut bytes = vec![0xf8];
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.resize(80, 0x55);
    bytes.into()
}

/// The number of a frame that [`numbered_frame`] made.
pub fn frame_number(payload: &[u8]) -> Option<u32> {
    payload.get(1..5)?.try_into().ok().map(u32::from_be_bytes)
}

/// Speaks numbered frames every 20 ms until the handle is aborted or the participant is gone.
pub fn keep_talking(mut track: OpusTrack, first: u32) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let mut pace = tokio::time::interval(Duration::from_millis(20));
        for number in first.. {
            pace.tick().await;
            if track.send(numbered_frame(number)).await.is_err() {
                return;
            }
        }
    })
}

/// Waits until a participant has heard `count` frames of these numbers.
pub async fn hears(what: &str, events: &mut UnboundedReceiver<Event>, numbers: Range<u32>, count: usize) {
    soon(what, async {
        let mut came = 0;
        while came < count {
            if let Event::Rtp { packet, .. } = events.recv().await.expect("the participant goes on")
                && frame_number(&packet.payload).is_some_and(|number| numbers.contains(&number))
            {
                came += 1;
            }
        }
    })
    .await;
}

/// A raw stream of a link, for tests that break it.
pub struct RawLink {
    pub send: mpsc::Sender<v1::ToMedia>,
    pub receive: tonic::Streaming<v1::FromMedia>,
    pub welcome: v1::Welcome,
}

pub async fn dial(client: &mut SignalClient<Channel>, hello: v1::Hello) -> Result<RawLink, tonic::Status> {
    let (send, queue) = mpsc::channel(1024);
    send.send(v1::ToMedia { seq: 0, ack: 0, body: Some(v1::to_media::Body::Hello(hello)) }).await.expect("room");
    let mut receive = client.link(ReceiverStream::new(queue)).await?.into_inner();
    match receive.message().await?.and_then(|frame| frame.body) {
        Some(v1::from_media::Body::Welcome(welcome)) => Ok(RawLink { send, receive, welcome }),
        other => panic!("instead of a welcome came {other:?}"),
    }
}

pub fn hello(node: &str, tenant: &str, token: &str) -> v1::Hello {
    v1::Hello { node_id: node.into(), tenant: tenant.into(), token: token.into(), ..v1::Hello::default() }
}

pub fn join(session: &str, call: &str, identity: &str) -> v1::Join {
    v1::Join {
        session_id: session.into(),
        call_id: call.into(),
        identity: identity.into(),
        display_name: identity.into(),
        grants: Some(v1::Grants { can_publish: true, can_subscribe: true, can_publish_data: true, ..v1::Grants::default() }),
        auto_subscribe: true,
        ..v1::Join::default()
    }
}

/// Bears the token.
pub fn bearing<T>(message: T, token: &str) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().expect("ascii"));
    request
}

/// Fails the test when something that has to come does not come.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(120), future).await.unwrap_or_else(|_| panic!("not within two minutes: {what}"))
}
