//! One peer connection of the `webrtc` crate, with its events as a queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rtc::peer_connection::configuration::media_engine::MediaEngine;
use rtc::peer_connection::configuration::setting_engine::{SettingEngine, SettingEngineBuilder};
use rtc::peer_connection::transport::{RTCDtlsRole, RTCIceTcpCandidateType};
use tokio::sync::mpsc;
use webrtc::data_channel::DataChannel;
use webrtc::media_stream::track_remote::TrackRemote;
use webrtc::peer_connection::{
    PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCConfigurationBuilder, RTCIceCandidateInit, RTCIceConnectionState,
    RTCPeerConnectionIceEvent, RTCPeerConnectionState, RTCSessionDescription, Registry, register_default_interceptors,
};

use crate::ClientError;
use crate::gathering::Gathering;
use crate::tcp::{self, Dialled};

/// What a peer connection tells.
pub(crate) enum ConnectionEvent {
    State(RTCPeerConnectionState),
    Candidate(RTCPeerConnectionIceEvent),
    Track(Arc<dyn TrackRemote>),
    Data(Arc<dyn DataChannel>),
}

struct Handler {
    events: mpsc::UnboundedSender<ConnectionEvent>,
    reached: Arc<AtomicBool>,
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        let _ = self.events.send(ConnectionEvent::State(state));
    }

    async fn on_ice_connection_state_change(&self, state: RTCIceConnectionState) {
        let reached = matches!(state, RTCIceConnectionState::Connected | RTCIceConnectionState::Completed);
        self.reached.store(reached, Ordering::Relaxed);
    }

    async fn on_ice_candidate(&self, candidate: RTCPeerConnectionIceEvent) {
        // Nobody is waited for, see `tcp.rs`.
        if candidate.candidate.tcp_type != RTCIceTcpCandidateType::Passive {
            let _ = self.events.send(ConnectionEvent::Candidate(candidate));
        }
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        let _ = self.events.send(ConnectionEvent::Track(track));
    }

    async fn on_data_channel(&self, channel: Arc<dyn DataChannel>) {
        let _ = self.events.send(ConnectionEvent::Data(channel));
    }
}

/// Candidates of the other end that wait for its description.
const CANDIDATES_MAX: usize = 64;

/// A peer connection bound to one local address.
pub(crate) struct Connection {
    inner: Arc<dyn PeerConnection>,
    /// The other end has described itself.
    described: bool,
    /// Its candidates before that.
    candidates: Vec<RTCIceCandidateInit>,
    /// There is a way to the other end.
    reached: Arc<AtomicBool>,
    dialled: Arc<Dialled>,
}

impl Connection {
    /// For our own server: ICE-lite with host candidates in its SDP, so nothing is trickled.
    pub(crate) async fn open(local: &str) -> Result<(Self, mpsc::UnboundedReceiver<ConnectionEvent>), ClientError> {
        let mut media = MediaEngine::default();
        media.register_default_codecs()?;
        // Browsers and LiveKit's SDKs are the active side towards our offers; this stack would wait for an ICE-lite server.
        let settings = SettingEngineBuilder::new().with_answering_dtls_role(RTCDtlsRole::Client).build();
        Self::with(local, media, settings).await
    }

    /// With these codecs and settings, and the stack's usual reports, repeats and transport-wide feedback.
    pub(crate) async fn with(
        local: &str,
        mut media: MediaEngine,
        settings: SettingEngine,
    ) -> Result<(Self, mpsc::UnboundedReceiver<ConnectionEvent>), ClientError> {
        let registry = register_default_interceptors(Registry::new(), &mut media)?;
        let (events, queue) = mpsc::unbounded_channel();
        let reached = Arc::new(AtomicBool::new(false));
        let dialled = Arc::new(Dialled::default());
        let inner = PeerConnectionBuilder::new()
            .with_runtime(Arc::new(Gathering { dialled: dialled.clone() }))
            .with_configuration(RTCConfigurationBuilder::new().build())
            .with_media_engine(media)
            .with_setting_engine(settings)
            .with_interceptor_registry(registry)
            .with_handler(Arc::new(Handler { events, reached: reached.clone() }))
            .with_udp_addrs(vec![with_any_port(local)])
            .with_tcp_addrs(vec![with_any_port(local)])
            .build()
            .await?;
        Ok((Self { inner: Arc::new(inner), described: false, candidates: Vec::new(), reached, dialled }, queue))
    }

    pub(crate) fn inner(&self) -> &Arc<dyn PeerConnection> {
        &self.inner
    }

    /// Our offer, already set as local description.
    pub(crate) async fn offer(&self) -> Result<String, ClientError> {
        let offer = self.inner.create_offer(None).await?;
        self.inner.set_local_description(offer.clone()).await?;
        let sdp = self.inner.local_description().await.map_or(offer.sdp, |description| description.sdp);
        Ok(tcp::split(&sdp).0)
    }

    pub(crate) async fn take_answer(&mut self, sdp: String) -> Result<(), ClientError> {
        let (sdp, by_tcp) = tcp::split(&sdp);
        self.inner.set_remote_description(RTCSessionDescription::answer(sdp)?).await?;
        self.take_candidates(by_tcp).await;
        Ok(())
    }

    /// Whether an answer or an offer of the other end was taken.
    pub(crate) fn is_described(&self) -> bool {
        self.described
    }

    /// A candidate of the other end: it may come before the description that it belongs to.
    pub(crate) async fn add_candidate(&mut self, candidate: RTCIceCandidateInit) {
        if candidate.candidate.is_empty() {
            return;
        }
        if !self.described {
            if self.candidates.len() < CANDIDATES_MAX {
                self.candidates.push(candidate);
            }
            return;
        }
        if tcp::is_passive(&candidate.candidate) {
            return self.dial_later(candidate);
        }
        // One that is not understood leaves the others.
        if let Err(error) = self.inner.add_ice_candidate(candidate).await {
            tracing::debug!(%error, "a candidate of the media server is passed over");
        }
    }

    async fn take_candidates(&mut self, more: Vec<RTCIceCandidateInit>) {
        self.described = true;
        let before = std::mem::take(&mut self.candidates);
        for candidate in before.into_iter().chain(more.into_iter().take(CANDIDATES_MAX)) {
            self.add_candidate(candidate).await;
        }
    }

    /// Over TCP, if there is no other way by then.
    fn dial_later(&self, candidate: RTCIceCandidateInit) {
        let (inner, reached) = (self.inner.clone(), self.reached.clone());
        if reached.load(Ordering::Relaxed) {
            return;
        }
        let Some(alias) = self.dialled.alias(&candidate.candidate) else { return };
        let candidate = RTCIceCandidateInit { candidate: alias, ..candidate };
        tokio::spawn(async move {
            tokio::time::sleep(tcp::UDP_FIRST).await;
            if reached.load(Ordering::Relaxed) {
                return;
            }
            tracing::info!("no way to the media server by UDP yet: it is asked over TCP");
            if let Err(error) = inner.add_ice_candidate(candidate).await {
                tracing::debug!(%error, "a candidate of the media server is passed over");
            }
        });
    }

    /// Takes our offer back, since one of the other end crossed it.
    pub(crate) async fn roll_back(&self) -> Result<(), ClientError> {
        Ok(self.inner.set_local_description(RTCSessionDescription::rollback(None)?).await?)
    }

    /// Our answer to an offer, already set as local description.
    pub(crate) async fn answer(&mut self, offer: String) -> Result<String, ClientError> {
        let (offer, by_tcp) = tcp::split(&offer);
        self.inner.set_remote_description(RTCSessionDescription::offer(offer)?).await?;
        let answer = self.inner.create_answer(None).await?;
        self.inner.set_local_description(answer.clone()).await?;
        self.take_candidates(by_tcp).await;
        let sdp = self.inner.local_description().await.map_or(answer.sdp, |description| description.sdp);
        Ok(tcp::split(&sdp).0)
    }
}

fn with_any_port(local: &str) -> String {
    if local.contains(':') { format!("[{local}]:0") } else { format!("{local}:0") }
}
